//! The values of single settings: addresses, engine, join target, labels.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Port of the cluster where none is said.
pub(super) const PORT_DEFAULT: u16 = 2377;
const JOIN_REMOTES_MAX: usize = 16;
const LABEL_BYTES_MAX: usize = 4096;

/// What is wrong with a value, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    /// What is wrong.
    pub(super) reason: String,
    /// What to write.
    pub(super) remedy: &'static str,
}

pub(super) fn flaw<T>(reason: impl Into<String>, remedy: &'static str) -> Result<T, Flaw> {
    Err(Flaw { reason: reason.into(), remedy })
}

/// Where the HTTP API is served.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ApiListen {
    /// On a unix socket.
    Unix(PathBuf),
    /// On TCP, with client certificates.
    Tcp(SocketAddr),
}

impl fmt::Display for ApiListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(addr) => write!(f, "tcp://{addr}"),
        }
    }
}

/// What runs the containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Engine {
    /// A Docker engine at this socket.
    Docker(PathBuf),
    /// Plain child processes of the daemon.
    Process,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Docker(path) => write!(f, "unix://{}", path.display()),
            Self::Process => f.write_str("process"),
        }
    }
}

/// Whom to join, and with what.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinTarget {
    /// The join token: a secret.
    pub token: String,
    /// Managers to ask, `host:port` each.
    pub remotes: Vec<String>,
}

impl fmt::Debug for JoinTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinTarget").field("token", &"…").field("remotes", &self.remotes).finish()
    }
}

const ADDR_REMEDY: &str = "write an IP address and a port, such as 0.0.0.0:2377 or [::]:2377";

pub(super) fn addr(text: &str) -> Result<SocketAddr, Flaw> {
    match text.parse::<SocketAddr>() {
        Ok(addr) if addr.port() != 0 => Ok(addr),
        Ok(_) => flaw(format!("{text:?} has port 0"), "write the port that others shall find"),
        Err(_) => flaw(format!("{text:?} is no address"), ADDR_REMEDY),
    }
}

/// `ADDR[:PORT]`, kept as text: a missing port is taken from `listen`.
pub(super) fn advertise(text: &str, listen: SocketAddr) -> Result<SocketAddr, Flaw> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let found = match (text.parse::<SocketAddr>(), bare.parse::<IpAddr>()) {
        (Ok(addr), _) => addr,
        (_, Ok(ip)) => SocketAddr::new(ip, listen.port()),
        _ => return flaw(format!("{text:?} is no address"), "write an IP address, with or without a port"),
    };
    if found.ip().is_unspecified() || found.port() == 0 {
        return flaw(
            format!("{text:?} cannot be reached"),
            "write an address of this host that the other nodes reach",
        );
    }
    Ok(found)
}

/// A unix socket's address has room for so many bytes.
const SOCKET_PATH_BYTES_MAX: usize = 107;

fn socket_path(path: &str) -> Result<PathBuf, Flaw> {
    if !path.starts_with('/') {
        return flaw(format!("{path:?} is no absolute path"), "write unix:///PATH with three slashes");
    }
    if path.len() > SOCKET_PATH_BYTES_MAX {
        return flaw(format!("the path has {} bytes", path.len()), "a socket's path has 107 bytes at most");
    }
    Ok(PathBuf::from(path))
}

pub(super) fn api(text: &str) -> Result<ApiListen, Flaw> {
    if let Some(path) = text.strip_prefix("unix://") {
        return socket_path(path).map(ApiListen::Unix);
    }
    match text.strip_prefix("tcp://") {
        Some(rest) => addr(rest).map(ApiListen::Tcp),
        None => flaw(format!("{text:?} is no API address"), "write unix://PATH or tcp://ADDR:PORT"),
    }
}

pub(super) fn engine(text: &str) -> Result<Engine, Flaw> {
    match (text, text.strip_prefix("unix://")) {
        ("process", _) => Ok(Engine::Process),
        (_, Some(path)) => socket_path(path).map(Engine::Docker),
        _ => flaw(format!("{text:?} is no engine"), "write unix://PATH of a Docker engine, or process"),
    }
}

const JOIN_REMEDY: &str = "write TOKEN@ADDR:PORT[,ADDR:PORT…] as `shoal swarm join-token` shows them";

/// `TOKEN@ADDR:PORT[,…]`. The text is a secret: no flaw repeats any of it but the addresses.
pub(super) fn join(text: &str) -> Result<JoinTarget, Flaw> {
    let Some((token, remotes)) = text.split_once('@') else {
        return flaw("there is no @ between token and address", JOIN_REMEDY);
    };
    let parts: Vec<&str> = token.split('-').collect();
    let digits = |part: &str, most| {
        !part.is_empty()
            && part.len() <= most
            && part.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
    };
    if !matches!(parts[..], ["SWMTKN", "1", digest, secret] if digits(digest, 50) && digits(secret, 25)) {
        return flaw("the part before the @ is no join token", JOIN_REMEDY);
    }
    let remotes: Vec<String> = remotes.split(',').map(|r| r.trim().to_owned()).collect();
    if remotes.len() > JOIN_REMOTES_MAX {
        return flaw(format!("{} managers are named", remotes.len()), "name 16 at most");
    }
    for remote in &remotes {
        host_port(remote)?;
    }
    Ok(JoinTarget { token: token.to_owned(), remotes })
}

fn host_port(text: &str) -> Result<(), Flaw> {
    let bad = || flaw(format!("{text:?} is no manager's address"), JOIN_REMEDY);
    if text.parse::<SocketAddr>().is_ok_and(|addr| addr.port() != 0) {
        return Ok(());
    }
    let Some((host, port)) = text.rsplit_once(':') else { return bad() };
    let name = !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if name && port.parse::<u16>().is_ok_and(|port| port != 0) { Ok(()) } else { bad() }
}

pub(super) fn label(text: &str) -> Result<(String, String), Flaw> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() || key.contains(char::is_whitespace) {
        return flaw(format!("{text:?} is no label"), "write K=V with a key without spaces");
    }
    if text.len() > LABEL_BYTES_MAX {
        return flaw(format!("the label {key:?} has {} bytes", text.len()), "4096 are the most");
    }
    Ok((key.to_owned(), value.to_owned()))
}

pub(super) fn name(text: &str) -> Result<String, Flaw> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if text.is_empty() || text.len() > 63 || !text.bytes().all(fits) || text.starts_with('-') {
        return flaw(format!("{text:?} is no name"), "write 1 to 63 letters, digits, dots, dashes");
    }
    Ok(text.to_owned())
}

pub(super) fn switch(text: &str) -> Result<bool, Flaw> {
    match text {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => flaw(format!("{text:?} is neither true nor false"), "write true or false"),
    }
}
