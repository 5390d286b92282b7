//! A proxy that does nothing but pass bytes on: no choice of a task, no look at what passes, no end of its own. Faster than
//! this is no proxy that lets the kernel move its bytes.

use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;

use anyhow::Result;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

const PIPE_BYTES: usize = 256 << 10;

/// Pass on what comes to this port, to there and back, a thread for each direction of each connection.
pub(crate) fn relay(port: u16, to: SocketAddr) -> Result<()> {
    for client in TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?.incoming() {
        // What becomes of one connection is the affair of its two ends.
        let _ = client.map_err(Into::into).and_then(|client| pair(client, to));
    }
    Ok(())
}

fn pair(client: TcpStream, to: SocketAddr) -> Result<()> {
    let server = TcpStream::connect(to)?;
    let back = (server.try_clone()?, client.try_clone()?);
    for (from, to) in [(client, server), back] {
        from.set_nodelay(true)?;
        thread::Builder::new().spawn(move || {
            let _ = pass(&from, &to);
            let _ = to.shutdown(Shutdown::Write);
        })?;
    }
    Ok(())
}

fn pass(from: &TcpStream, to: &TcpStream) -> Result<()> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    fcntl_setpipe_size(&write, PIPE_BYTES)?;
    let step = |from: &dyn AsFd, to: &dyn AsFd, most| {
        splice(from.as_fd(), None, to.as_fd(), None, most, SpliceFlags::MOVE)
    };
    loop {
        let mut left = step(from, &write, PIPE_BYTES)?;
        if left == 0 {
            return Ok(());
        }
        while left > 0 {
            left -= step(&read, to, left)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn bytes_go_to_and_fro_and_ends_with_them() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let (dialled, there) = (TcpListener::bind("127.0.0.1:0").unwrap(), server.local_addr().unwrap());
        let mut client = TcpStream::connect(dialled.local_addr().unwrap()).unwrap();
        pair(dialled.accept().unwrap().0, there).unwrap();
        let mut task = server.accept().unwrap().0;
        let (sent, mut heard) = (vec![7; 3_000_000], Vec::new());
        let sending = thread::spawn({
            let (sent, client) = (sent.clone(), client.try_clone().unwrap());
            move || {
                (&client).write_all(&sent).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
            }
        });
        task.read_to_end(&mut heard).unwrap();
        sending.join().unwrap();
        assert_eq!(heard, sent);
        task.write_all(b"thanks").unwrap();
        drop(task);
        heard.clear();
        client.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"thanks");
    }
}
