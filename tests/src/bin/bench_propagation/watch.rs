//! What a host knows, seen from outside.

use std::io::{ErrorKind, Read as _};
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use shoal_tests::cluster::Cluster;
use shoal_tests::http::Api;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

const NAMES_PORT: u16 = 53;
const ASK_NAMES_EVERY: Duration = Duration::from_millis(1);
const ASK_PROXY_EVERY: Duration = Duration::from_millis(4);
const SEEN_MAX: Duration = Duration::from_secs(10);
/// A question that got lost is asked again.
const ANSWER_MAX: Duration = Duration::from_millis(200);
/// The kernel's group of those who are told of changed rules.
const RULES_GROUP: u32 = 7;

/// What can know, in the order of [`Watch::begin`].
pub(crate) const KINDS: [&str; 3] = ["resolver", "proxy", "virtual address"];

/// A task that ends.
#[derive(Debug)]
pub(crate) struct Change {
    /// Its id.
    pub(crate) task: String,
    /// Its service.
    pub(crate) service: String,
    /// How many tasks the service has before.
    pub(crate) backends: usize,
    /// Its address.
    pub(crate) address: Ipv4Addr,
    /// The virtual address that it stands behind.
    pub(crate) behind: Ipv4Addr,
}

/// A host that is watched.
#[derive(Debug)]
pub(crate) struct Watch {
    names: UdpSocket,
    rules: Socket,
    api: Api,
}

/// Waits until something is known; when that was.
type Look<'a> = Box<dyn FnOnce() -> Result<Duration> + Send + 'a>;

impl Watch {
    pub(crate) fn start(cluster: &Cluster<'_>, host: usize) -> Result<Self> {
        let api = cluster.api(host);
        let of = cluster.lab.host(host);
        let (names, rules) = of.inside().in_network(|| {
            let names = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            names.connect((of.address(), NAMES_PORT))?;
            names.set_read_timeout(Some(ANSWER_MAX))?;
            Ok((names, rules().context("the kernel tells of no rules")?))
        })?;
        Ok(Self { names, rules, api })
    }

    /// Look for a change that is about to come.
    pub(crate) fn begin<'a>(&'a self, change: &'a Change) -> Result<[Look<'a>; KINDS.len()]> {
        // What was said of earlier changes is of no interest.
        self.rules.set_nonblocking(true)?;
        while !matches!((&self.rules).read(&mut [0; 64 << 10]), Err(error) if error.kind() == ErrorKind::WouldBlock)
        {
        }
        self.rules.set_nonblocking(false)?;
        Ok([
            Box::new(|| self.await_names(change)),
            Box::new(|| self.await_proxy(change)),
            Box::new(|| self.await_rules(change)),
        ])
    }

    fn await_names(&self, change: &Change) -> Result<Duration> {
        let question = question(&format!("tasks.{}", change.service));
        let address = [&[0, 4], &change.address.octets()[..]].concat();
        let mut answer = [0; 4096];
        let until = Instant::now() + SEEN_MAX;
        while Instant::now() < until {
            self.names.send(&question)?;
            if let Ok(length) = self.names.recv(&mut answer) {
                let answer = &answer[..length];
                let known = usize::from(u16::from_be_bytes([answer[6], answer[7]]));
                ensure!(known > 0, "{} is not known", change.service);
                if !holds(answer, &address) {
                    return Ok(now());
                }
            }
            std::thread::sleep(ASK_NAMES_EVERY);
        }
        bail!("names of {} were not told anew within {SEEN_MAX:?}", change.service)
    }

    fn await_proxy(&self, change: &Change) -> Result<Duration> {
        let path = format!("/shoal/v1/ports?service={}", change.service);
        let until = Instant::now() + SEEN_MAX;
        while Instant::now() < until {
            let found = self.api.get(&path)?;
            let count = found["Ports"][0]["Backends"].as_u64().context("the port is gone")?;
            if count < change.backends as u64 {
                return Ok(now());
            }
            std::thread::sleep(ASK_PROXY_EVERY);
        }
        bail!("the port of {} did not lose its task within {SEEN_MAX:?}", change.service)
    }

    fn await_rules(&self, change: &Change) -> Result<Duration> {
        let chain = format!("virtual_{}\0", change.behind.to_string().replace('.', "_"));
        let mut buffer = vec![0; 64 << 10];
        let until = Instant::now() + SEEN_MAX;
        while Instant::now() < until {
            match (&self.rules).read(&mut buffer) {
                Ok(length) if holds(&buffer[..length], chain.as_bytes()) => return Ok(now()),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bail!("no rule of {} changed within {SEEN_MAX:?}", change.service)
    }
}

/// The machine's steady clock, which all of its processes read alike.
pub(crate) fn now() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid place for the time; this clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// A socket that is told of every change of rules.
fn rules() -> Result<Socket> {
    let protocol = Protocol::from(libc::NETLINK_NETFILTER);
    let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(protocol))?;
    // SAFETY: the storage holds an address of any family, and this one is written whole.
    let address = unsafe {
        SockAddr::try_init(|storage, length| {
            let mut group: libc::sockaddr_nl = std::mem::zeroed();
            group.nl_family = libc::AF_NETLINK as libc::sa_family_t;
            group.nl_groups = 1 << (RULES_GROUP - 1);
            storage.cast::<libc::sockaddr_nl>().write(group);
            *length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
            Ok(())
        })
    };
    socket.bind(&address?.1)?;
    socket.set_recv_buffer_size(8 << 20)?;
    socket.set_read_timeout(Some(ANSWER_MAX))?;
    Ok(socket)
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Who has this name?
fn question(name: &str) -> Vec<u8> {
    let mut bytes = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap_or_default());
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}
