//! Moves bytes both ways between a socket and a socket or a stream. A side that has finished is finished on the other side
//! too, one that broke is broken; an idle connection holds no buffer.

use std::cell::RefCell;
use std::io;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use tokio::net::TcpStream;

use super::client::reset;
use super::flows::Counted;
use super::stats::add;
use crate::line::{Rx, Tx};

const BUFFER_BYTES: usize = 64 << 10;
/// Buffers that a thread keeps for the next connections.
const SPARE_MAX: usize = 64;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer that goes back to its thread's spare ones.
struct Buffer(Vec<u8>);

impl Buffer {
    fn take() -> Self {
        let spare = SPARE.with_borrow_mut(Vec::pop);
        Self(spare.unwrap_or_else(|| vec![0; BUFFER_BYTES]))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARE_MAX {
                spare.push(buffer);
            }
        });
    }
}

/// Where bytes are counted, by direction.
#[derive(Clone, Copy)]
pub(super) struct Bytes2<'a> {
    /// From the client to the task.
    pub(super) there: &'a AtomicU64,
    /// From the task to the client.
    pub(super) back: &'a AtomicU64,
}

/// Write all of it.
pub(super) async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.try_write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What has come, in a buffer that is held no longer than needed; none at the end.
async fn read(from: &TcpStream) -> io::Result<Option<(Buffer, usize)>> {
    loop {
        from.readable().await?;
        let mut buffer = Buffer::take();
        match from.try_read(&mut buffer.0) {
            Ok(0) => return Ok(None),
            Ok(count) => return Ok(Some((buffer, count))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn finish(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write);
}

async fn one_way(from: &TcpStream, to: &TcpStream, counter: &AtomicU64) -> io::Result<()> {
    while let Some((buffer, count)) = read(from).await? {
        write_all(to, &buffer.0[..count]).await?;
        add(counter, count as u64);
    }
    finish(to);
    Ok(())
}

/// Between a client and a task of this node, until both have finished, one broke, or the task must stop.
pub(super) async fn local(client: &TcpStream, task: &TcpStream, mut counted: Counted, bytes: Bytes2<'_>) {
    let both =
        async { tokio::try_join!(one_way(client, task, bytes.there), one_way(task, client, bytes.back)) };
    tokio::select! {
        biased;
        result = both => if result.is_ok() { return },
        () = counted.cut() => {}
    }
    reset(client);
    reset(task);
}

async fn outward(from: &TcpStream, tx: &mut Box<dyn Tx>, counter: &AtomicU64) -> Result<(), ()> {
    while let Some((buffer, count)) = read(from).await.map_err(|_| ())? {
        tx.write(Bytes::copy_from_slice(&buffer.0[..count])).await.map_err(|_| ())?;
        add(counter, count as u64);
    }
    tx.finish().map_err(|_| ())
}

async fn inward(first: Bytes, rx: &mut Box<dyn Rx>, to: &TcpStream, counter: &AtomicU64) -> Result<(), ()> {
    let mut next = Some(first);
    while let Some(bytes) = next {
        write_all(to, &bytes).await.map_err(|_| ())?;
        add(counter, bytes.len() as u64);
        next = rx.read().await.map_err(|_| ())?;
    }
    finish(to);
    Ok(())
}

/// Between a socket and a stream to or from another node.
pub(super) async fn remote(
    socket: &TcpStream,
    mut tx: Box<dyn Tx>,
    mut rx: Box<dyn Rx>,
    first: Bytes,
    mut counted: Counted,
    bytes: Bytes2<'_>,
) {
    let both = async {
        tokio::try_join!(outward(socket, &mut tx, bytes.there), inward(first, &mut rx, socket, bytes.back))
    };
    let ended = tokio::select! {
        biased;
        result = both => result.is_ok(),
        () = counted.cut() => false,
    };
    if !ended {
        reset(socket);
        tx.reset();
    }
}
