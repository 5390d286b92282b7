//! Which node's API a command speaks to.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where the API is if nothing is said.
pub(crate) const HOST_DEFAULT: &str = "unix:///run/shoal/shoal.sock";

/// Address of an HTTP API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A unix socket.
    Unix(PathBuf),
    /// TCP with mutual TLS, `host:port`.
    Tls(String),
    /// TCP without any, `host:port`: for tunnels that protect it otherwise.
    Plain(String),
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let remedy = "write unix:///PATH, tcp://HOST:PORT (TLS) or http://HOST:PORT (through a tunnel)";
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| format!("{text:?} is no host: {remedy}"))?;
        match scheme {
            "unix" if rest.starts_with('/') => Ok(Self::Unix(PathBuf::from(rest))),
            "tcp" | "https" => authority(rest).map(Self::Tls),
            "http" => authority(rest).map(Self::Plain),
            _ => Err(format!("{text:?} is no host: {remedy}")),
        }
    }
}

fn authority(text: &str) -> Result<String, String> {
    let text = text.trim_end_matches('/');
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p != 0) => {
            Ok(text.to_owned())
        }
        _ => Err(format!("{text:?} lacks a port: write HOST:PORT")),
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tls(addr) => write!(f, "tcp://{addr}"),
            Self::Plain(addr) => write!(f, "http://{addr}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_read_back_as_written() {
        for text in ["unix:///run/shoal/shoal.sock", "tcp://10.0.0.1:2376", "http://[::1]:80"] {
            assert_eq!(text.parse::<Host>().map(|h| h.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn malformed_hosts_are_refused_with_a_remedy() {
        for text in ["", "/run/x.sock", "unix://run/x", "tcp://10.0.0.1", "tcp://:1", "ssh://host:22"] {
            let error = text.parse::<Host>().expect_err(text);
            assert!(error.contains("write"), "{error}");
        }
    }
}
