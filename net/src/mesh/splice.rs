//! Bytes from socket to socket that never come here: the kernel moves them through a pipe.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// What a pipe holds, if the system allows it.
const PIPE_BYTES: usize = 256 << 10;
/// Pipes that a thread keeps for the next bytes.
const SPARE_MAX: usize = 16;

thread_local! {
    static SPARE: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// An empty pipe, whenever it is not being used.
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    fn take() -> io::Result<Self> {
        if let Some(spare) = SPARE.with_borrow_mut(Vec::pop) {
            return Ok(spare);
        }
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // A smaller one does as well, only with more steps.
        let _ = fcntl_setpipe_size(&write, PIPE_BYTES);
        Ok(Self { read, write })
    }

    fn give_back(self) {
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARE_MAX {
                spare.push(self);
            }
        });
    }
}

/// Move what has come, so many bytes at most, and all of that to the other side. Returns how many, 0 at the end, or nothing
/// if none are there after all. No pipe is held while there is nothing to move.
pub(super) async fn pass(from: &TcpStream, to: &TcpStream, most: u64) -> io::Result<Option<u64>> {
    let pipe = Pipe::take()?;
    let most = usize::try_from(most).unwrap_or(usize::MAX).min(PIPE_BYTES);
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    let taken = from.try_io(Interest::READABLE, || Ok(splice(from, None, &pipe.write, None, most, flags)?));
    let taken = match taken {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            pipe.give_back();
            return Ok(None);
        }
        taken => taken?,
    };
    let mut left = taken;
    while left > 0 {
        let more = || Ok(splice(&pipe.read, None, to, None, left, flags)?);
        match to.async_io(Interest::WRITABLE, more).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            moved => left -= moved,
        }
    }
    pipe.give_back();
    Ok(Some(taken as u64))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap());
        let (dialled, accepted) = tokio::join!(dialled, listener.accept());
        (dialled.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn bytes_pass_whole_and_in_order_up_to_the_bound_and_the_end_is_told() {
        let ((mut client, from), (to, mut server)) = (pair().await, pair().await);
        let sent: Vec<u8> = (0..3_000_000u32).map(|number| (number % 251) as u8).collect();
        let all = sent.clone();
        let writer = tokio::spawn(async move {
            client.write_all(&all).await.unwrap();
            client.shutdown().await.unwrap();
        });
        let reader = tokio::spawn(async move {
            let mut got = vec![0; 3_000_000];
            server.read_exact(&mut got).await.unwrap();
            got
        });
        let (mut passed, most) = (0, 100_000);
        loop {
            from.readable().await.unwrap();
            match pass(&from, &to, most).await.unwrap() {
                Some(0) => break,
                Some(count) => {
                    assert!(count <= most);
                    passed += count;
                }
                None => {}
            }
        }
        writer.await.unwrap();
        assert_eq!(passed, 3_000_000);
        assert!(reader.await.unwrap() == sent);
    }

    #[tokio::test]
    async fn a_side_that_broke_is_an_error() {
        let ((mut client, from), (to, server)) = (pair().await, pair().await);
        socket2::SockRef::from(&server).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(server);
        let mut failed = false;
        for _ in 0..100 {
            client.write_all(&[0; 1000]).await.unwrap();
            from.readable().await.unwrap();
            failed |= pass(&from, &to, u64::MAX).await.is_err();
        }
        assert!(failed);
    }
}
