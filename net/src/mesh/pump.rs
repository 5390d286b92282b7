//! Moves bytes both ways between a socket and a socket or a stream. A side that has finished is finished on the other side
//! too, one that broke is broken; an idle connection holds no buffer.

use std::cell::RefCell;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::client::{Way, reset};
use super::flows::{Counted, Leaving};
use super::http::Exchanges;
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

/// How a connection's part with one task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Both have finished.
    Done,
    /// One broke, or the task must stop: the client is broken off, too.
    Broken,
    /// The task takes traffic no more, and nothing is under way: another may go on.
    Free,
}

/// Follows what passes, if it may go on with another task.
#[derive(Debug, Default)]
pub(super) struct Watch(Mutex<Exchanges>);

impl Watch {
    /// Does not look.
    fn blind() -> Self {
        Self(Mutex::new(Exchanges::opaque()))
    }

    fn lock(&self) -> MutexGuard<'_, Exchanges> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn to_socket(from: &TcpStream, to: &TcpStream, watch: &Watch, counter: &AtomicU64) -> Result<(), ()> {
    while let Some((buffer, count)) = read(from).await.map_err(|_| ())? {
        watch.lock().asked(&buffer.0[..count]);
        write_all(to, &buffer.0[..count]).await.map_err(|_| ())?;
        add(counter, count as u64);
    }
    finish(to);
    Ok(())
}

async fn from_socket(
    from: &TcpStream,
    to: &TcpStream,
    watch: &Watch,
    idle: &Notify,
    counter: &AtomicU64,
) -> Result<(), ()> {
    while let Some((buffer, count)) = read(from).await.map_err(|_| ())? {
        write_all(to, &buffer.0[..count]).await.map_err(|_| ())?;
        add(counter, count as u64);
        let mut exchanges = watch.lock();
        exchanges.answered(&buffer.0[..count]);
        if exchanges.is_idle() {
            idle.notify_one();
        }
    }
    finish(to);
    Ok(())
}

async fn to_stream(from: &TcpStream, tx: &mut dyn Tx, watch: &Watch, counter: &AtomicU64) -> Result<(), ()> {
    while let Some((buffer, count)) = read(from).await.map_err(|_| ())? {
        watch.lock().asked(&buffer.0[..count]);
        tx.write(Bytes::copy_from_slice(&buffer.0[..count])).await.map_err(|_| ())?;
        add(counter, count as u64);
    }
    tx.finish().map_err(|_| ())
}

async fn from_stream(
    first: Bytes,
    rx: &mut dyn Rx,
    to: &TcpStream,
    watch: &Watch,
    idle: &Notify,
    counter: &AtomicU64,
) -> Result<(), ()> {
    let mut next = Some(first);
    while let Some(bytes) = next {
        write_all(to, &bytes).await.map_err(|_| ())?;
        add(counter, bytes.len() as u64);
        {
            let mut exchanges = watch.lock();
            exchanges.answered(&bytes);
            if exchanges.is_idle() {
                idle.notify_one();
            }
        }
        next = rx.read().await.map_err(|_| ())?;
    }
    finish(to);
    Ok(())
}

/// Returns once the task takes traffic no more and nothing is under way.
async fn free(mut leaving: Leaving, watch: &Watch, idle: &Notify) {
    leaving.now().await;
    loop {
        if watch.lock().is_idle() && leaving.is_now() {
            return;
        }
        idle.notified().await;
    }
}

/// Between a client and a task, until both have finished, one broke, the task must stop, or another may go on.
pub(super) async fn client(
    socket: &TcpStream,
    upstream: &mut Way<TcpStream>,
    counted: &mut Counted,
    watch: &Watch,
    bytes: Bytes2<'_>,
) -> Ended {
    let (idle, leaving) = (Notify::new(), counted.leaving());
    let both = async {
        match upstream {
            Way::Here(task) => tokio::try_join!(
                to_socket(socket, task, watch, bytes.there),
                from_socket(task, socket, watch, &idle, bytes.back)
            ),
            Way::There(tx, rx, first) => tokio::try_join!(
                to_stream(socket, &mut **tx, watch, bytes.there),
                from_stream(std::mem::take(first), &mut **rx, socket, watch, &idle, bytes.back)
            ),
        }
    };
    let ended = tokio::select! {
        biased;
        () = counted.cut() => Ended::Broken,
        result = both => if result.is_ok() { Ended::Done } else { Ended::Broken },
        () = free(leaving, watch, &idle) => Ended::Free,
    };
    match (ended, upstream) {
        (Ended::Done, _) => {}
        (_, Way::Here(task)) => reset(task),
        (Ended::Broken, Way::There(tx, ..)) => tx.reset(),
        // It has nothing under way: a plain end is enough.
        (Ended::Free, Way::There(tx, ..)) => drop(tx.finish()),
    }
    ended
}

/// Between a task of this node and the stream of another node, whose client it is.
pub(super) async fn far(
    task: &TcpStream,
    mut tx: Box<dyn Tx>,
    mut rx: Box<dyn Rx>,
    first: Bytes,
    mut counted: Counted,
) {
    // Whoever has the client watches.
    let (none, blind, idle) = (AtomicU64::default(), Watch::blind(), Notify::new());
    let both = async {
        tokio::try_join!(
            to_stream(task, &mut *tx, &blind, &none),
            from_stream(first, &mut *rx, task, &blind, &idle, &none)
        )
    };
    let ended = tokio::select! {
        biased;
        () = counted.cut() => false,
        result = both => result.is_ok(),
    };
    if !ended {
        reset(task);
        tx.reset();
    }
}
