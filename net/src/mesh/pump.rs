//! Moves bytes both ways between a socket and a socket or a stream. A side that has finished is finished on the other side
//! too, one that broke is broken; an idle connection holds no buffer.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::client::{Way, reset};
use super::flows::{Counted, Word};
use super::http::{Exchanges, Side};
use super::splice;
use super::stats::{PortCounters, add};
use crate::line::{Rx, Tx};

const BUFFER_BYTES: usize = 64 << 10;
/// Once its node closes, a client that has not asked for anything yet has so long to do it.
const FIRST_MAX: Duration = Duration::from_secs(1);
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
    // Nobody has told yet that a socket which was connected just now takes something, but it does.
    if !bytes.is_empty() {
        match socket2::SockRef::from(to).send_with_flags(bytes, libc::MSG_NOSIGNAL) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
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
async fn read(from: &mut ReadHalf<'_>) -> io::Result<Option<(Buffer, usize)>> {
    loop {
        from.readable().await?;
        // A read says that nothing has come also when the task has had its turn: then this one would never end.
        tokio::task::consume_budget().await;
        let mut buffer = Buffer::take();
        // Not `try_read`: a read that does not fill the buffer is known to be the last one, without another to see it.
        let mut into = ReadBuf::new(&mut buffer.0);
        match poll_fn(|cx| Poll::Ready(Pin::new(&mut *from).poll_read(cx, &mut into))).await {
            Poll::Ready(result) => result?,
            Poll::Pending => continue,
        }
        return Ok(match into.filled().len() {
            0 => None,
            count => Some((buffer, count)),
        });
    }
}

/// Tell a side that the other one has finished. Who is the last to finish has all closed, which says the same.
fn finish(stream: &WriteHalf<'_>, over: &AtomicBool) {
    if !over.swap(true, Ordering::Relaxed) {
        let stream: &TcpStream = stream.as_ref();
        let _ = socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write);
    }
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
    /// This node takes traffic no more, and nothing is under way.
    Closed,
}

/// What is under way on a connection.
struct Rest {
    /// Nothing: it is between two exchanges.
    is_idle: bool,
    /// Nothing, and there never was anything.
    is_fresh: bool,
    /// Nothing, and nothing will be: a side has finished, and the other one need not say so, too.
    is_over: bool,
}

/// Follows what passes, if it may go on with another task.
#[derive(Debug)]
pub(super) struct Watch {
    followed: Mutex<Followed>,
    /// Told when nothing is under way any more.
    idle: Notify,
    /// Where the time to the first byte of an answer is counted.
    counters: Option<Arc<PortCounters>>,
}

#[derive(Debug, Default)]
struct Followed {
    exchanges: Exchanges,
    /// Requests so far.
    asked: u32,
    /// Since when an answer is waited for of which nothing has come.
    asked_at: Option<Instant>,
}

/// Of the requests of one connection the first is timed, and one in so many after it: clocks and counters that all threads
/// share would cost each of them.
const TIMED_EVERY: u32 = 16;

impl Watch {
    /// Of a connection to a published port.
    pub(super) fn of(counters: Arc<PortCounters>) -> Self {
        Self { followed: Mutex::default(), idle: Notify::new(), counters: Some(counters) }
    }

    /// Does not look.
    fn blind() -> Self {
        let followed = Followed { exchanges: Exchanges::opaque(), ..Followed::default() };
        Self { followed: Mutex::new(followed), idle: Notify::new(), counters: None }
    }

    fn lock(&self) -> MutexGuard<'_, Followed> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self, bytes: &[u8]) {
        let mut followed = self.lock();
        if followed.exchanges.is_idle() {
            let is_timed = followed.asked.is_multiple_of(TIMED_EVERY);
            followed.asked = followed.asked.wrapping_add(1);
            followed.asked_at = is_timed.then(Instant::now);
        }
        followed.exchanges.asked(bytes);
    }

    /// What is under way. With `finished`, one side has said that it sends nothing more.
    fn rest(&self, finished: bool) -> Rest {
        let followed = self.lock();
        let exchanges = &followed.exchanges;
        Rest {
            is_idle: exchanges.is_idle(),
            is_fresh: exchanges.is_fresh(),
            is_over: finished && exchanges.is_answered(),
        }
    }

    /// Tell a side that the other one has finished.
    fn finish(&self, stream: &WriteHalf<'_>, over: &AtomicBool) {
        finish(stream, over);
        self.idle.notify_one();
    }

    fn unseen(&self, side: Side) -> u64 {
        self.lock().exchanges.unseen(side)
    }

    fn skipped(&self, side: Side, count: u64) {
        self.lock().exchanges.skipped(side, count);
    }

    fn answered(&self, bytes: &[u8]) {
        let mut followed = self.lock();
        followed.exchanges.answered(bytes);
        // Of what turned out to be no HTTP nobody knows what answers what.
        if !bytes.is_empty()
            && let Some(asked_at) = followed.asked_at.take()
            && let Some(counters) = self.counters.as_ref().filter(|_| !followed.exchanges.is_opaque())
        {
            counters.first_byte.note(asked_at.elapsed());
        }
        if followed.exchanges.is_idle() {
            self.idle.notify_one();
        }
    }
}

/// From socket to socket. What comes in bulk is left to the kernel, as far as nobody has to see it.
async fn between(
    mut from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    side: Side,
    watch: &Watch,
    counter: &AtomicU64,
    over: &AtomicBool,
) -> Result<(), ()> {
    let mut bulk = false;
    loop {
        if bulk && let unseen @ 1.. = watch.unseen(side) {
            from.readable().await.map_err(|_| ())?;
            tokio::task::consume_budget().await;
            match splice::pass(from.as_ref(), to.as_ref(), unseen).await.map_err(|_| ())? {
                None => {}
                Some(0) => break,
                Some(count) => {
                    watch.skipped(side, count);
                    add(counter, count);
                    bulk = count >= BUFFER_BYTES as u64 / 2;
                }
            }
            continue;
        }
        let Some((buffer, count)) = read(&mut from).await.map_err(|_| ())? else { break };
        let bytes = &buffer.0[..count];
        // Seen before it is sent if it begins something, and after it if it may be the end of it.
        if side == Side::Client {
            watch.asked(bytes);
        }
        write_all(to.as_ref(), bytes).await.map_err(|_| ())?;
        add(counter, count as u64);
        if side == Side::Task {
            watch.answered(bytes);
        }
        bulk = count == BUFFER_BYTES;
    }
    watch.finish(&to, over);
    Ok(())
}

async fn to_stream(
    mut from: ReadHalf<'_>,
    tx: &mut dyn Tx,
    watch: &Watch,
    counter: &AtomicU64,
    over: &AtomicBool,
) -> Result<(), ()> {
    while let Some((buffer, count)) = read(&mut from).await.map_err(|_| ())? {
        watch.asked(&buffer.0[..count]);
        tx.write(Bytes::copy_from_slice(&buffer.0[..count])).await.map_err(|_| ())?;
        add(counter, count as u64);
    }
    over.store(true, Ordering::Relaxed);
    tx.finish().map_err(|_| ())
}

async fn from_stream(
    first: Bytes,
    rx: &mut dyn Rx,
    to: WriteHalf<'_>,
    watch: &Watch,
    counter: &AtomicU64,
    over: &AtomicBool,
) -> Result<(), ()> {
    let mut next = Some(first);
    while let Some(bytes) = next {
        write_all(to.as_ref(), &bytes).await.map_err(|_| ())?;
        add(counter, bytes.len() as u64);
        watch.answered(&bytes);
        next = rx.read().await.map_err(|_| ())?;
    }
    watch.finish(&to, over);
    Ok(())
}

/// Returns when the connection has to leave its task: at once, or when nothing is under way.
async fn leave(counted: &mut Counted, watch: &Watch, over: &AtomicBool) -> Ended {
    let mut word = counted.word();
    // Until when a client may begin though the node closes.
    let mut first_by = None;
    loop {
        if word == Word::Stay {
            word = counted.news().await;
            continue;
        }
        let rest = watch.rest(over.load(Ordering::Relaxed));
        match word {
            Word::Cut => return Ended::Broken,
            Word::Leave if rest.is_idle => return Ended::Free,
            Word::Stay | Word::Leave => {}
            Word::Close => {
                let first_by = *first_by.get_or_insert_with(|| Instant::now() + FIRST_MAX);
                let is_waited_for = rest.is_fresh && Instant::now() < first_by;
                if rest.is_over || rest.is_idle && !is_waited_for {
                    return Ended::Closed;
                }
            }
        }
        tokio::select! {
            biased;
            news = counted.news() => word = news,
            () = watch.idle.notified() => {}
            () = until(first_by.filter(|_| rest.is_fresh)) => {}
        }
    }
}

/// Returns at this time; never if there is none.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Between a client and a task, until both have finished, one broke, the task must stop, or another may go on.
pub(super) async fn client(
    socket: &mut TcpStream,
    upstream: &mut Way<TcpStream>,
    counted: &mut Counted,
    watch: &Watch,
    bytes: Bytes2<'_>,
) -> Ended {
    let (read, write) = socket.split();
    let over = AtomicBool::new(false);
    let both = async {
        match upstream {
            Way::Here(task) => {
                let (from, to) = task.split();
                tokio::try_join!(
                    between(read, to, Side::Client, watch, bytes.there, &over),
                    between(from, write, Side::Task, watch, bytes.back, &over)
                )
            }
            Way::There(tx, rx, first) => tokio::try_join!(
                to_stream(read, &mut **tx, watch, bytes.there, &over),
                from_stream(std::mem::take(first), &mut **rx, write, watch, bytes.back, &over)
            ),
        }
    };
    let ended = tokio::select! {
        biased;
        result = both => if result.is_ok() { Ended::Done } else { Ended::Broken },
        ended = leave(counted, watch, &over) => ended,
    };
    match (ended, upstream) {
        (Ended::Done, _) => {}
        (_, Way::Here(task)) => reset(task),
        (Ended::Broken, Way::There(tx, ..)) => tx.reset(),
        // It has nothing under way: a plain end is enough.
        (Ended::Free | Ended::Closed, Way::There(tx, ..)) => drop(tx.finish()),
    }
    ended
}

/// Between a task of this node and the stream of another node, whose client it is.
pub(super) async fn far(
    mut task: TcpStream,
    mut tx: Box<dyn Tx>,
    mut rx: Box<dyn Rx>,
    first: Bytes,
    mut counted: Counted,
) {
    // Whoever has the client watches.
    let (none, blind, over) = (AtomicU64::default(), Watch::blind(), AtomicBool::new(false));
    let (read, write) = task.split();
    let both = async {
        tokio::try_join!(
            to_stream(read, &mut *tx, &blind, &none, &over),
            from_stream(first, &mut *rx, write, &blind, &none, &over)
        )
    };
    let ended = tokio::select! {
        biased;
        result = both => result.is_ok(),
        () = counted.cut() => false,
    };
    if !ended {
        reset(&task);
        tx.reset();
    }
}

#[cfg(test)]
#[path = "pump_tests.rs"]
mod tests;
