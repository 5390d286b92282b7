//! A flow's way to a task of this host: under its client's address, and under the host's if nothing comes back by that.
//!
//! A datagram that was sent says nothing about whether its answer finds back, so only a client that goes on without an
//! answer shows that it may not. Some tasks answer nobody, and those are the ones that have nothing but the address to know
//! their clients by: a flow that gets no answer under the host's address either goes back to its client's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shoal_core::model::{Protocol, TaskId};
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::clients::{Clients, Kept, Under};

/// A client that still sends this long after the first datagram that got no answer tries the other address.
const SILENT_MAX: Duration = Duration::from_secs(2);
/// Each time that this was in vain it is tried again after so many times as long.
const LATER: u32 = 30;

/// Whose address a flow has.
#[derive(Debug)]
struct Trial {
    under: Under,
    /// Since when the client has sent without an answer.
    since: Option<Instant>,
    /// How long it does so under its own address.
    patience: Duration,
    /// An answer came, or there is no choice.
    settled: bool,
}

impl Trial {
    fn new(under: Under) -> Self {
        Self { under, since: None, patience: SILENT_MAX, settled: under == Under::Host }
    }

    /// The client sends. Whether it got no answer for so long that something is to be done.
    fn sends(&mut self) -> bool {
        if self.settled {
            return false;
        }
        let most = if self.under == Under::Client { self.patience } else { SILENT_MAX };
        self.since.get_or_insert_with(Instant::now).elapsed() >= most
    }

    /// Go on under the other address.
    fn turn(&mut self) {
        self.under = match self.under {
            Under::Client => Under::Host,
            Under::Host => {
                self.patience = self.patience.saturating_mul(LATER);
                Under::Client
            }
        };
        self.wait();
    }

    /// Go on as before, for as long again.
    fn wait(&mut self) {
        self.since = Some(Instant::now());
    }

    /// Nobody listens yet: that is no silence.
    fn refused(&mut self) {
        self.since = None;
    }

    /// An answer came. Whether that settles which address it is.
    fn answered(&mut self, under: Under) -> bool {
        if self.settled {
            return false;
        }
        (self.under, self.settled) = (under, true);
        true
    }
}

/// A flow's sockets to a task. Once there are two, both are kept: an answer may be late.
pub(super) struct Upstream {
    clients: Arc<Clients>,
    task: TaskId,
    addr: SocketAddr,
    kept: Option<Kept>,
    plain: Option<UdpSocket>,
    trial: Trial,
}

impl Upstream {
    /// By this socket, or under the host's address.
    pub(super) async fn open(
        clients: &Arc<Clients>,
        task: TaskId,
        addr: SocketAddr,
        kept: Option<Kept>,
    ) -> io::Result<Self> {
        let (under, plain) = match kept {
            Some(_) => (Under::Client, None),
            None => (Under::Host, Some(connect(addr).await?)),
        };
        Ok(Self { clients: Arc::clone(clients), task, addr, kept, plain, trial: Trial::new(under) })
    }

    fn socket(&self, under: Under) -> Option<&UdpSocket> {
        match under {
            Under::Client => self.kept.as_ref().map(|kept| &kept.socket),
            Under::Host => self.plain.as_ref(),
        }
    }

    pub(super) async fn send(&mut self, datagram: &[u8]) {
        if self.trial.sends() {
            self.turn().await;
        }
        let Some(socket) = self.socket(self.trial.under) else { return };
        // Refused by the task: that is its own word, and the next datagram tries again.
        if let Err(error) = socket.send(datagram).await
            && error.kind() == io::ErrorKind::ConnectionRefused
        {
            self.trial.refused();
        }
    }

    /// The next datagram of the task. Nothing is lost if this is dropped while it waits.
    pub(super) async fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Bytes> {
        loop {
            for under in [Under::Client, Under::Host] {
                match self.socket(under).map(|socket| socket.try_recv_from(buffer)) {
                    // Before it was connected anybody could reach it.
                    Some(Ok((_, from))) if (from.ip(), from.port()) != (self.addr.ip(), self.addr.port()) => {
                    }
                    Some(Ok((count, _))) => {
                        self.answered(under);
                        return Ok(Bytes::copy_from_slice(&buffer[..count]));
                    }
                    Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        self.trial.refused();
                    }
                    Some(Err(error)) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                    Some(Err(_)) | None => {}
                }
            }
            tokio::select! {
                biased;
                ready = readable(self.socket(Under::Client)) => ready?,
                ready = readable(self.socket(Under::Host)) => ready?,
            }
        }
    }

    /// The client was not answered.
    async fn turn(&mut self) {
        let found = self.clients.found(self.task, Protocol::Udp);
        match self.trial.under {
            // Others are answered there.
            Under::Host if found == Some(Under::Host) => return self.trial.wait(),
            Under::Host => self.clients.note(self.task, Protocol::Udp, Under::Client),
            Under::Client => {
                let clients = Arc::clone(&self.clients);
                tokio::spawn(async move { clients.put_back().await });
                // Others may be answered, or have found that nobody is.
                if found == Some(Under::Client) {
                    return self.trial.wait();
                }
                if self.plain.is_none() {
                    self.plain = connect(self.addr).await.ok();
                }
                if self.plain.is_none() {
                    return self.trial.wait();
                }
            }
        }
        self.trial.turn();
    }

    fn answered(&mut self, under: Under) {
        if !self.trial.answered(under) {
            return;
        }
        self.clients.note(self.task, Protocol::Udp, under);
        if under == Under::Host {
            tracing::debug!(task = %self.task, "a task does not answer datagrams of its client's address: it is asked under this host's");
        }
    }
}

/// Returns when there is something to receive; never without a socket.
async fn readable(socket: Option<&UdpSocket>) -> io::Result<()> {
    match socket {
        Some(socket) => socket.readable().await,
        None => std::future::pending().await,
    }
}

/// A socket of this host to a task's address.
async fn connect(addr: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr =
        if addr.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(addr).await?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SHORT: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn a_flow_that_is_answered_keeps_its_address() {
        let mut trial = Trial::new(Under::Client);
        assert!(!trial.sends());
        advance(SILENT_MAX - SHORT).await;
        assert!(!trial.sends());
        assert!(trial.answered(Under::Client));
        advance(SILENT_MAX * LATER).await;
        assert!(!trial.sends() && !trial.answered(Under::Host), "it was settled");
        assert_eq!(trial.under, Under::Client);
        let mut plain = Trial::new(Under::Host);
        assert!(!plain.sends() && !plain.answered(Under::Host), "there was nothing to settle");
        advance(SILENT_MAX * LATER).await;
        assert!(!plain.sends());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_goes_on_without_an_answer_tries_the_other_address() {
        let mut trial = Trial::new(Under::Client);
        assert!(!trial.sends());
        advance(SILENT_MAX).await;
        assert!(trial.sends());
        trial.turn();
        assert_eq!(trial.under, Under::Host);
        assert!(!trial.sends());
        assert!(trial.answered(Under::Host));
        advance(SILENT_MAX).await;
        assert!(!trial.sends(), "it was settled");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_answers_nobody_sees_its_clients() {
        let mut trial = Trial::new(Under::Client);
        let (mut as_client, mut as_host) = (0, 0);
        for _ in 0..3_000 {
            if trial.sends() {
                trial.turn();
            }
            match trial.under {
                Under::Client => as_client += 1,
                Under::Host => as_host += 1,
            }
            advance(SILENT_MAX / 4).await;
        }
        assert_eq!(
            (as_client, as_host),
            (2_992, 8),
            "25 minutes, and the host's address twice for two seconds"
        );
        assert!(trial.answered(Under::Client), "a late answer counts");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_no_silence() {
        let mut trial = Trial::new(Under::Client);
        for _ in 0..10 {
            assert!(!trial.sends());
            advance(SILENT_MAX / 2).await;
            trial.refused();
        }
        assert_eq!(trial.under, Under::Client);
    }

    /// A task, and a flow to it under another address of this host.
    async fn flow(clients: &Arc<Clients>, id: TaskId) -> (UdpSocket, Upstream) {
        let task = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = task.local_addr().unwrap();
        let socket = UdpSocket::bind("127.0.0.2:0").await.unwrap();
        socket.connect(addr).await.unwrap();
        let upstream = Upstream::open(clients, id, addr, Some(Kept::of(clients, socket))).await.unwrap();
        (task, upstream)
    }

    async fn seen(task: &UdpSocket, upstream: &mut Upstream) -> SocketAddr {
        upstream.send(b"hello").await;
        task.recv_from(&mut [0; 10]).await.unwrap().1
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_found_out_holds_for_others() {
        let (clients, id) = (Arc::<Clients>::default(), TaskId::from_u128(1));
        // Nothing of this host is to be touched.
        clients.rules_were_put_back().await;
        let (task, mut upstream) = flow(&clients, id).await;
        let first = seen(&task, &mut upstream).await;
        assert_eq!(first.ip().to_string(), "127.0.0.2");
        advance(SILENT_MAX).await;
        let second = seen(&task, &mut upstream).await;
        assert_eq!(second.ip().to_string(), "127.0.0.1", "the host's address is tried");
        assert_eq!(clients.found(id, Protocol::Udp), None);
        // An answer to what was sent before is not lost, and settles it.
        task.send_to(b"late", first).await.unwrap();
        assert_eq!(upstream.receive(&mut [0; 10]).await.unwrap(), "late");
        assert_eq!(clients.found(id, Protocol::Udp), Some(Under::Client));
        task.send_to(b"later", second).await.unwrap();
        assert_eq!(upstream.receive(&mut [0; 10]).await.unwrap(), "later");
        assert_eq!(seen(&task, &mut upstream).await, first);

        // Where others are answered a flow goes on as it is.
        let (task, mut other) = flow(&clients, id).await;
        let first = seen(&task, &mut other).await;
        advance(SILENT_MAX).await;
        assert_eq!(seen(&task, &mut other).await, first);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_answers_the_host_alone_is_noted() {
        let (clients, id) = (Arc::<Clients>::default(), TaskId::from_u128(1));
        clients.rules_were_put_back().await;
        let (task, mut upstream) = flow(&clients, id).await;
        seen(&task, &mut upstream).await;
        advance(SILENT_MAX).await;
        let plain = seen(&task, &mut upstream).await;
        task.send_to(b"here", plain).await.unwrap();
        assert_eq!(upstream.receive(&mut [0; 10]).await.unwrap(), "here");
        assert_eq!(clients.found(id, Protocol::Udp), Some(Under::Host));
        assert_eq!(clients.found(id, Protocol::Tcp), None, "connections find their way by themselves");
        assert_eq!(seen(&task, &mut upstream).await, plain);
    }
}
