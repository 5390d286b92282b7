//! Ends, resets and slow readers, between sockets and between a socket and a stream.

use std::time::Duration;

use shoal_core::model::TaskId;
use shoal_core::task::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::super::flows::Flows;
use super::*;

/// More than all buffers between two sockets hold.
const LARGE: usize = 64 << 20;
/// Whoever has not gone on by then does not.
const STANDS: Duration = Duration::from_millis(300);

/// Parts on the way of a stream in one direction.
type Parts = mpsc::Sender<Result<Bytes, String>>;

/// A stream's sending half.
#[derive(Debug)]
struct Sends(Option<Parts>);

impl Tx for Sends {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let parts = self.0.as_ref().ok_or("it has finished")?;
            parts.send(Ok(bytes)).await.map_err(|_| "nobody reads".to_owned())
        })
    }

    fn finish(&mut self) -> Result<(), String> {
        self.0.take().map(drop).ok_or_else(|| "it has finished".to_owned())
    }

    fn reset(&mut self) {
        if let Some(parts) = self.0.take() {
            tokio::spawn(async move { parts.send(Err("broken off".into())).await });
        }
    }
}

/// A stream's receiving half.
#[derive(Debug)]
struct Receives(mpsc::Receiver<Result<Bytes, String>>);

impl Rx for Receives {
    fn read(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, String>> {
        Box::pin(async move { self.0.recv().await.transpose() })
    }
}

fn stream() -> (Sends, Receives) {
    let (tx, rx) = mpsc::channel(4);
    (Sends(Some(tx)), Receives(rx))
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap());
    let (dialled, accepted) = tokio::join!(dialled, listener.accept());
    (dialled.unwrap(), accepted.unwrap().0)
}

/// A task and the stream that leads to it.
async fn with_stream() -> (TcpStream, Sends, Receives, JoinHandle<()>) {
    let (task, near) = sockets().await;
    let ((to_task, rx), (tx, from_task)) = (stream(), stream());
    let counted = Flows::default().enter(TaskId::from_u128(1)).unwrap();
    let passes = tokio::spawn(far(near, Box::new(tx), Box::new(rx), Bytes::new(), counted));
    (task, to_task, from_task, passes)
}

/// A client and a task of its own node.
async fn with_sockets() -> (TcpStream, TcpStream, JoinHandle<Ended>) {
    let ((client, mut front), (task, back)) = (sockets().await, sockets().await);
    let passes = tokio::spawn(async move {
        let mut counted = Flows::default().enter(TaskId::from_u128(1)).unwrap();
        let (there, back_bytes, watch) =
            (AtomicU64::default(), AtomicU64::default(), Watch::of(Arc::default()));
        let bytes = Bytes2 { there: &there, back: &back_bytes };
        let ended = super::client(&mut front, &mut Way::Here(back), &mut counted, &watch, bytes).await;
        if ended == Ended::Broken {
            reset(&front);
        }
        ended
    });
    (client, task, passes)
}

fn break_off(socket: TcpStream) {
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
}

async fn is_broken(mut socket: TcpStream) -> bool {
    socket.read(&mut [0; 8]).await.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

/// Read to the end.
async fn rest(rx: &mut Receives) -> Result<Vec<u8>, String> {
    let mut all = Vec::new();
    while let Some(bytes) = rx.read().await? {
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

/// Write until nothing more goes, and tell how much did.
async fn fill(socket: &mut TcpStream) -> usize {
    let (part, mut sent) = (vec![7; 64 << 10], 0);
    while sent < LARGE {
        match timeout(STANDS, socket.write(&part)).await {
            Ok(count) => sent += count.unwrap(),
            Err(_) => break,
        }
    }
    sent
}

#[tokio::test]
async fn a_streams_end_leaves_the_other_direction_open() {
    let (mut task, mut to_task, mut from_task, passes) = with_stream().await;
    to_task.write(Bytes::from_static(b"all that I ask")).await.unwrap();
    to_task.finish().unwrap();
    let mut asked = String::new();
    task.read_to_string(&mut asked).await.unwrap();
    assert_eq!(asked, "all that I ask");
    task.write_all(b"an answer").await.unwrap();
    drop(task);
    assert_eq!(rest(&mut from_task).await.unwrap(), b"an answer");
    passes.await.unwrap();
}

#[tokio::test]
async fn a_tasks_end_leaves_the_other_direction_open() {
    let (mut task, mut to_task, mut from_task, passes) = with_stream().await;
    task.write_all(b"no more").await.unwrap();
    task.shutdown().await.unwrap();
    assert_eq!(rest(&mut from_task).await.unwrap(), b"no more");
    to_task.write(Bytes::from_static(b"and yet")).await.unwrap();
    to_task.finish().unwrap();
    let mut heard = String::new();
    task.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "and yet");
    passes.await.unwrap();
}

#[tokio::test]
async fn a_reset_stays_one_on_a_stream() {
    let (task, mut to_task, _from_task, passes) = with_stream().await;
    to_task.reset();
    assert!(is_broken(task).await, "the task saw no reset");
    passes.await.unwrap();
    let (task, _to_task, mut from_task, passes) = with_stream().await;
    break_off(task);
    assert!(rest(&mut from_task).await.is_err(), "the stream ended as if all were well");
    passes.await.unwrap();
}

#[tokio::test]
async fn ends_and_resets_pass_between_sockets() {
    let (mut client, mut task, passes) = with_sockets().await;
    for (from, to) in [(0, 1), (1, 0)] {
        let both = [&mut client, &mut task];
        both[from].write_all(b"the last word").await.unwrap();
        both[from].shutdown().await.unwrap();
        let mut heard = String::new();
        both[to].read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "the last word");
    }
    assert_eq!(passes.await.unwrap(), Ended::Done);
    let (client, task, passes) = with_sockets().await;
    break_off(client);
    assert!(is_broken(task).await, "the task saw no reset");
    assert_eq!(passes.await.unwrap(), Ended::Broken);
    let (client, task, passes) = with_sockets().await;
    break_off(task);
    assert!(is_broken(client).await, "the client saw no reset");
    assert_eq!(passes.await.unwrap(), Ended::Broken);
}

#[tokio::test]
async fn who_does_not_read_stops_the_sender_and_loses_nothing() {
    let (mut task, to_task, mut from_task, passes) = with_stream().await;
    let sent = fill(&mut task).await;
    assert!(sent < LARGE, "{sent} bytes went to a stream that nobody reads");
    drop(task);
    drop(to_task);
    assert_eq!(rest(&mut from_task).await.unwrap().len(), sent);
    passes.await.unwrap();
    let (mut client, mut task, passes) = with_sockets().await;
    let sent = fill(&mut task).await;
    assert!(sent < LARGE, "{sent} bytes went to a client that does not read");
    drop(task);
    let mut got = Vec::new();
    client.read_to_end(&mut got).await.unwrap();
    assert_eq!(got.len(), sent);
    drop(client);
    assert_eq!(passes.await.unwrap(), Ended::Done);
}

const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab";

#[tokio::test(start_paused = true)]
async fn the_time_to_an_answers_first_byte_is_counted_once_for_some_of_the_exchanges() {
    let counters = Arc::new(PortCounters::default());
    let watch = Watch::of(Arc::clone(&counters));
    let pass = |ms| tokio::time::advance(Duration::from_millis(ms));
    for _ in 0..TIMED_EVERY + 1 {
        let (first, rest) = ASK.split_at(7);
        watch.asked(first);
        pass(2).await;
        watch.asked(rest);
        pass(1).await;
        watch.answered(ANSWER);
        pass(100).await;
        // The rest of it is no other answer.
        watch.answered(b"cd");
        pass(1_000).await;
    }
    let times = counters.first_byte.read();
    assert_eq!((times.count(), times.sum_us), (2, 6_000));
    // What is not HTTP/1 says nothing of itself.
    let watch = Watch::of(Arc::clone(&counters));
    watch.asked(b"\x16\x03\x01 hello");
    watch.answered(b"hello");
    assert_eq!(counters.first_byte.read().count(), 2);
}
