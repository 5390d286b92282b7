//! Where the front door listens.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio::net::{TcpListener, UnixListener};

use super::tls::{self, TlsError, TlsFiles};

/// An address to listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddr {
    /// `unix://PATH`
    Unix(PathBuf),
    /// `tcp://ADDR:PORT`, with client certificates only.
    Tcp(SocketAddr),
}

/// The text is no address to listen at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address to listen at: unix://PATH or tcp://ADDR:PORT is wanted")]
pub struct ParseListenError(String);

impl FromStr for ListenAddr {
    type Err = ParseListenError;

    fn from_str(text: &str) -> Result<Self, ParseListenError> {
        let bad = || ParseListenError(text.chars().take(128).collect());
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.is_empty() { Err(bad()) } else { Ok(Self::Unix(path.into())) };
        }
        let addr = text.strip_prefix("tcp://").ok_or_else(bad)?;
        addr.parse().map(Self::Tcp).map_err(|_| bad())
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(addr) => write!(f, "tcp://{addr}"),
        }
    }
}

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody answers there already.
    #[error("{0} is in use: another process answers there")]
    InUse(ListenAddr),
    /// Something that is no socket is there.
    #[error("{0} is not a socket: remove it or listen elsewhere")]
    NotASocket(PathBuf),
    /// TCP without certificates.
    #[error(
        "{0} needs TLS: name the CA, the certificate and the key; without client certificates anybody \
             on the network would be root here"
    )]
    TlsMissing(ListenAddr),
    /// TLS could not be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system refuses.
    #[error("{addr}: {source}")]
    Io {
        /// Where.
        addr: ListenAddr,
        /// Why.
        source: io::Error,
    },
}

pub(super) enum Socket {
    Unix { listener: UnixListener, path: PathBuf, inode: u64 },
    Tls { listener: TcpListener, acceptor: tokio_rustls::TlsAcceptor },
}

/// An open listener. A unix socket's file is removed when it is dropped.
pub struct ApiListener {
    pub(super) socket: Socket,
    addr: ListenAddr,
}

impl fmt::Debug for ApiListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiListener({})", self.addr)
    }
}

impl ApiListener {
    /// Listen at `addr`. TCP needs `tls`.
    ///
    /// # Errors
    /// The address is in use or refused, or the TLS files are missing or wrong.
    pub async fn bind(addr: &ListenAddr, tls: Option<&TlsFiles>) -> Result<Self, BindError> {
        let io = |source| BindError::Io { addr: addr.clone(), source };
        match addr {
            ListenAddr::Unix(path) => {
                clear_stale(path, addr).await?;
                let listener = bind_unix(path).map_err(io)?;
                let inode = fs::metadata(path).map_err(io)?.ino();
                Ok(Self { socket: Socket::Unix { listener, path: path.clone(), inode }, addr: addr.clone() })
            }
            ListenAddr::Tcp(at) => {
                let files = tls.ok_or_else(|| BindError::TlsMissing(addr.clone()))?;
                let acceptor = tls::acceptor(files)?;
                let listener = TcpListener::bind(at).await.map_err(|source| match source.kind() {
                    io::ErrorKind::AddrInUse => BindError::InUse(addr.clone()),
                    _ => io(source),
                })?;
                let bound = ListenAddr::Tcp(listener.local_addr().map_err(io)?);
                Ok(Self { socket: Socket::Tls { listener, acceptor }, addr: bound })
            }
        }
    }

    /// Where it listens; a port that the system chose is filled in.
    #[must_use]
    pub fn addr(&self) -> &ListenAddr {
        &self.addr
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Self::Unix { path, inode, .. } = self
            && fs::metadata(&*path).is_ok_and(|found| found.ino() == *inode)
        {
            // Nothing can be done about a failure here, and the next start clears the file anyway.
            let _ = fs::remove_file(path);
        }
    }
}

/// Remove a socket that nobody answers at.
async fn clear_stale(path: &Path, addr: &ListenAddr) -> Result<(), BindError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(BindError::Io { addr: addr.clone(), source }),
    };
    if !found.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    match tokio::net::UnixStream::connect(path).await {
        Ok(_) => Err(BindError::InUse(addr.clone())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|source| BindError::Io { addr: addr.clone(), source })
        }
        Err(source) => Err(BindError::Io { addr: addr.clone(), source }),
    }
}

/// Bind under another name, set rights and group, then move it into place: at no moment can a stranger connect.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", std::process::id()));
    let draft = PathBuf::from(draft);
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&draft)?;
    let placed = fs::set_permissions(&draft, fs::Permissions::from_mode(0o660)).and_then(|()| {
        if let Some(group) = docker_group()
            && let Err(error) = std::os::unix::fs::chown(&draft, None, Some(group))
        {
            tracing::warn!(%error, "the socket could not be given to the group docker");
        }
        fs::rename(&draft, path)
    });
    if placed.is_err() {
        let _ = fs::remove_file(&draft);
    }
    placed.map(|()| listener)
}

/// The number of the group `docker`, if there is one.
fn docker_group() -> Option<u32> {
    group_number(&fs::read_to_string("/etc/group").ok()?, "docker")
}

fn group_number(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_as_written() {
        for text in ["unix:///run/shoal.sock", "tcp://127.0.0.1:2376", "tcp://[::1]:2376"] {
            assert_eq!(text.parse::<ListenAddr>().unwrap().to_string(), text);
        }
        for text in ["", "unix://", "tcp://", "tcp://host:1", "tcp://1.2.3.4", "http://1.2.3.4:5", "/run/x"] {
            assert!(text.parse::<ListenAddr>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_group_is_found_in_the_groups_file() {
        let groups = "root:x:0:\ndocker:x:998:me\n";
        assert_eq!(group_number(groups, "docker"), Some(998));
        assert_eq!(group_number(groups, "dock"), None);
        assert_eq!(group_number("docker", "docker"), None);
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let addr = ListenAddr::Unix(folder.path().join("api.sock"));
        let ListenAddr::Unix(path) = addr.clone() else { unreachable!() };
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = ApiListener::bind(&addr, None).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(matches!(ApiListener::bind(&addr, None).await, Err(BindError::InUse(_))));
        drop(first);
        assert!(!path.exists());
        fs::write(&path, "precious").unwrap();
        assert!(matches!(ApiListener::bind(&addr, None).await, Err(BindError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn tcp_without_certificates_is_refused() {
        let addr: ListenAddr = "tcp://127.0.0.1:0".parse().unwrap();
        assert!(matches!(ApiListener::bind(&addr, None).await, Err(BindError::TlsMissing(_))));
    }
}
