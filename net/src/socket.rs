//! The UDP socket of an endpoint.
//!
//! quinn's own asks the kernel to tell whenever there is room to send, and is so woken for nearly every packet that leaves, by
//! whichever thread it was sent. This one asks only once there was none. It also takes larger bursts than a system allows of
//! itself: what does not fit is lost, and has to be sent again.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use rustix::net::sockopt;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What may wait in the kernel, each way.
const BUFFER_BYTES: usize = 4 << 20;

#[derive(Debug)]
pub(crate) struct Socket {
    io: AsyncFd<std::net::UdpSocket>,
    state: UdpSocketState,
    /// The kernel had no room for a packet.
    full: AtomicBool,
}

impl Socket {
    /// Within a runtime, whose thread will receive.
    pub(crate) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        // Who may not set more than others gets what others get.
        if sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES).is_err() {
            let _ = sockopt::set_socket_recv_buffer_size(&socket, BUFFER_BYTES);
        }
        if sockopt::set_socket_send_buffer_size_force(&socket, BUFFER_BYTES).is_err() {
            let _ = sockopt::set_socket_send_buffer_size(&socket, BUFFER_BYTES);
        }
        Ok(Self { io: registered(socket, Interest::READABLE)?, state, full: AtomicBool::new(false) })
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Room { socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.state.send(self.io.get_ref().into(), transmit);
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            self.full.store(true, Ordering::Release);
        }
        sent
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.io.poll_read_ready(cx))?;
            if let Ok(result) = ready.try_io(|io| self.state.recv(io.get_ref().into(), bufs, meta)) {
                return Poll::Ready(result);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }
}

fn registered(socket: std::net::UdpSocket, interest: Interest) -> io::Result<AsyncFd<std::net::UdpSocket>> {
    // SAFETY: a socket keeps its descriptor for as long as it lives, and is not replaced within what is made here.
    unsafe { AsyncFd::register_with_interest(socket, interest) }.map_err(io::Error::from)
}

type Waiting = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// Waits for room to send, where there was none.
struct Room {
    socket: Arc<Socket>,
    waiting: Option<Waiting>,
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").finish_non_exhaustive()
    }
}

impl UdpPoller for Room {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.is_none() {
            if !self.socket.full.load(Ordering::Acquire) {
                return Poll::Ready(Ok(()));
            }
            // A descriptor of its own, for as long as it waits: no other interest in the socket changes.
            let own = self.socket.io.get_ref().try_clone()?;
            self.waiting =
                Some(Box::pin(
                    async move { registered(own, Interest::WRITABLE)?.writable().await.map(drop) },
                ));
        }
        if let Some(waiting) = &mut self.waiting {
            ready!(waiting.as_mut().poll(cx))?;
            self.waiting = None;
            self.socket.full.store(false, Ordering::Release);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transmit(to: SocketAddr, contents: &[u8]) -> Transmit<'_> {
        Transmit { destination: to, ecn: None, contents, segment_size: None, src_ip: None }
    }

    #[tokio::test]
    async fn packets_pass_and_whoever_finds_no_room_is_told_when_there_is_some() {
        let bind = || Arc::new(Socket::new(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap());
        let (one, other) = (bind(), bind());
        let to = other.local_addr().unwrap();
        let mut room = Arc::clone(&one).create_io_poller();
        for number in 0..1000u32 {
            std::future::poll_fn(|cx| room.as_mut().poll_writable(cx)).await.unwrap();
            one.try_send(&transmit(to, &number.to_be_bytes())).unwrap();
            let mut buffer = [0; 64];
            let mut meta = [RecvMeta::default()];
            let received = std::future::poll_fn(|cx| {
                other.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut meta)
            });
            assert_eq!(received.await.unwrap(), 1);
            assert_eq!(buffer[..4], number.to_be_bytes());
        }
        // As if the kernel had said so.
        one.full.store(true, Ordering::Release);
        std::future::poll_fn(|cx| room.as_mut().poll_writable(cx)).await.unwrap();
        assert!(!one.full.load(Ordering::Acquire));
    }
}
