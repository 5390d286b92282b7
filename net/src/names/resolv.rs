//! The host's own name servers, as `/etc/resolv.conf` says.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// More are not looked at, as everywhere.
const SERVERS_MAX: usize = 3;
/// A longer file is cut.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Whether the file changed is looked at so often at most, and it is read anew so often at least.
const LOOK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Tells one content of the file from another.
type Stamp = Option<(u64, i64, i64, u64)>;

/// Name servers of the host. They are looked for when they are needed: an idle server reads nothing.
pub(super) struct Upstreams {
    path: PathBuf,
    port: u16,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    servers: Arc<[SocketAddr]>,
    /// Where the next question begins: at the one that answered last.
    first: usize,
    stamp: Stamp,
    looked: Option<Instant>,
    read: Option<Instant>,
}

impl Upstreams {
    pub(super) fn new(path: PathBuf, port: u16) -> Self {
        Self { path, port, state: Mutex::default() }
    }

    /// Those to be asked, but not ourselves, in the order in which they are to be asked.
    pub(super) fn servers(&self, own: &BTreeSet<IpAddr>) -> Vec<SocketAddr> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |at: Option<Instant>, age| at.is_none_or(|at| at.elapsed() >= age);
        if is_old(state.looked, LOOK.0) {
            let now = Instant::now();
            state.looked = Some(now);
            let stamp = self.stamp();
            if stamp != state.stamp || is_old(state.read, LOOK.1) {
                (state.stamp, state.read) = (stamp, Some(now));
                let servers: Arc<[SocketAddr]> = servers(&self.read(), self.port).into();
                if servers != state.servers {
                    (state.servers, state.first) = (servers, 0);
                }
            }
        }
        let mut servers = state.servers.to_vec();
        servers.rotate_left(state.first.min(state.servers.len()));
        servers.retain(|server| !own.contains(&server.ip()));
        servers
    }

    /// This one answered.
    pub(super) fn prefer(&self, server: SocketAddr) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = state.servers.iter().position(|known| *known == server) {
            state.first = at;
        }
    }

    fn stamp(&self) -> Stamp {
        let meta = fs::metadata(&self.path).ok()?;
        Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
    }

    fn read(&self) -> String {
        let mut bytes = Vec::new();
        let read =
            fs::File::open(&self.path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
        if let Err(error) = read {
            tracing::warn!(path = %self.path.display(), %error, "the host's name servers are not known");
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The name servers that the file says.
fn servers(text: &str, port: u16) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next().and_then(|word| server(word, port)))?
    };
    text.lines().filter_map(server).take(SERVERS_MAX).collect()
}

fn server(word: &str, port: u16) -> Option<SocketAddr> {
    let Some((address, link)) = word.split_once('%') else {
        return word.parse().ok().map(|address: IpAddr| SocketAddr::new(address, port));
    };
    let is_link = !link.is_empty() && !link.contains(['/', '.']);
    let index = || fs::read_to_string(format!("/sys/class/net/{link}/ifindex")).ok();
    let scope = link.parse().ok().or_else(|| is_link.then(index)??.trim().parse().ok())?;
    Some(SocketAddrV6::new(address.parse().ok()?, port, 0, scope).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_as_they_are_written() {
        let text = "# nameserver 1.1.1.1\nsearch example.com\n nameserver\t10.0.0.53 \nnameserver ::1 # here\nnameserver\n\
                    nameserver nonsense\nnameservers 9.9.9.9\nnameserver fe80::1%3\nnameserver 10.0.0.54\n";
        let expected = ["10.0.0.53:53", "[::1]:53", "[fe80::1%3]:53"].map(|text| text.parse().unwrap());
        assert_eq!(servers(text, 53), expected);
        assert_eq!(servers("nameserver fe80::1%lo\n", 53), ["[fe80::1%1]:53".parse().unwrap()]);
        assert!(
            servers("nameserver fe80::1%../lo\nnameserver fe80::1%nolink\nnameserver %1\n", 53).is_empty()
        );
        assert!(servers("", 53).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_read_again_and_who_answered_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let upstreams = Upstreams::new(path.clone(), 53);
        let none = BTreeSet::new();
        assert!(upstreams.servers(&none).is_empty());
        fs::write(&path, "nameserver 10.0.0.1\nnameserver 10.0.0.2\n").unwrap();
        // Not within a second.
        assert!(upstreams.servers(&none).is_empty());
        tokio::time::advance(LOOK.0).await;
        let [one, two] = ["10.0.0.1:53", "10.0.0.2:53"].map(|text| text.parse().unwrap());
        assert_eq!(upstreams.servers(&none), [one, two]);
        upstreams.prefer(two);
        assert_eq!(upstreams.servers(&none), [two, one]);
        assert_eq!(upstreams.servers(&BTreeSet::from([two.ip()])), [one]);
        fs::remove_file(&path).unwrap();
        tokio::time::advance(LOOK.0).await;
        assert!(upstreams.servers(&none).is_empty());
    }
}
