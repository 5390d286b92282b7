//! What lines and streams promise to whoever speaks over them.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shoal_core::model::Role;
use shoal_net::CallError;
use shoal_net::identity::Credentials;
use shoal_net::line::{Carrier, Closed, Dial, Expected, Line, Proof, Rx, STREAMS_MAX, Shown, Stream};
use shoal_net::task::Scope;
use shoal_wire::Protocol;
use tokio::time::{sleep, timeout};

use crate::support::*;

/// Long enough for whatever is on its way on lines that are well.
const SOON: Duration = Duration::from_secs(2);
/// What has not happened by then waits.
const WAITS: Duration = Duration::from_millis(200);
/// Whoever is silent for so long is gone.
const SILENCE: Duration = Duration::from_secs(8);

/// A manager that listens, and a worker that dialled it.
struct Pair {
    world: World,
    manager: Arc<dyn Carrier>,
    worker: Arc<dyn Carrier>,
    /// All of the manager's.
    scope: Scope,
    near: Arc<dyn Line>,
    far: Arc<dyn Line>,
}

fn identity(credentials: &Credentials) -> Shown {
    Shown::Identity(*credentials.identity())
}

fn dial(addr: SocketAddr, credentials: Arc<Credentials>) -> Dial {
    let (expected, proof) = (Expected::Role(Role::Manager), Proof::Certificate(credentials));
    Dial { addr, protocol: Protocol::Control, expected, proof }
}

async fn accepted(carrier: &Arc<dyn Carrier>) -> Arc<dyn Line> {
    carrier.accept().await.unwrap().await.unwrap()
}

async fn pair(ground: &Arc<dyn Ground>) -> Pair {
    let world = World::new(ground);
    let (one, two) = (world.credentials(1, Role::Manager), world.credentials(2, Role::Worker));
    let scope = Scope::new();
    let manager = world.carrier(scope.clone(), Some(&one));
    let worker = world.carrier(Scope::new(), Some(&two));
    let dialled = worker.dial(dial(manager.local_addr().unwrap(), two));
    let (near, far) = tokio::join!(dialled, accepted(&manager));
    Pair { world, manager, worker, scope, near: near.unwrap(), far }
}

/// A stream at both of its ends; something was said on it.
async fn stream(near: &Arc<dyn Line>, far: &Arc<dyn Line>) -> (Stream, Stream) {
    let (mut tx, rx) = near.open().await.unwrap();
    tx.write(vec![0].into()).await.unwrap();
    let (far_tx, mut far_rx) = soon(far.accept()).await.unwrap();
    assert_eq!(soon(far_rx.read()).await.unwrap().unwrap(), [0].as_slice());
    ((tx, rx), (far_tx, far_rx))
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    timeout(SOON, work).await.expect("it takes too long")
}

async fn waits<T>(work: impl Future<Output = T>) -> bool {
    timeout(WAITS, work).await.is_err()
}

async fn until(most: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(most, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

async fn all(rx: &mut Box<dyn Rx>) -> Result<Vec<u8>, String> {
    let mut all = Vec::new();
    while let Some(bytes) = rx.read().await? {
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

pub async fn both_ends_know_who_the_other_is(ground: Arc<dyn Ground>) {
    let pair = pair(&ground).await;
    assert_eq!(pair.near.shown(), identity(&pair.world.credentials(1, Role::Manager)));
    assert_eq!(pair.far.shown(), identity(&pair.world.credentials(2, Role::Worker)));
    assert_eq!(pair.near.remote(), pair.manager.local_addr().unwrap());
    assert_eq!(pair.far.remote(), pair.worker.local_addr().unwrap());
    for line in [&pair.near, &pair.far] {
        assert_eq!((line.protocol(), line.closed()), (Some(Protocol::Control), None));
    }
    assert_eq!((pair.manager.open_lines(), pair.worker.open_lines()), (1, 1));
    // Who shows nothing is nobody, and knows all the same whom it dialled.
    let pin = shoal_net::ca::ca_digest(&pair.world.ca.to_root_ca().cert_der);
    let (addr, expected) = (pair.manager.local_addr().unwrap(), Expected::Role(Role::Manager));
    let dialled =
        pair.worker.dial(Dial { addr, protocol: Protocol::Join, expected, proof: Proof::Pinned(pin) });
    let (near, far) = tokio::join!(dialled, accepted(&pair.manager));
    let near = near.unwrap();
    assert_eq!((near.shown(), far.shown()), (pair.near.shown(), Shown::Nothing));
    assert_eq!(far.protocol(), Some(Protocol::Join));
    assert!(near.id() != pair.near.id() && far.id() != pair.far.id());
}

pub async fn what_is_written_is_read_in_order_and_then_the_end(ground: Arc<dyn Ground>) {
    let pair = pair(&ground).await;
    let ((mut tx, _rx), (_far_tx, mut far_rx)) = stream(&pair.near, &pair.far).await;
    let pieces: Vec<Vec<u8>> = (0..200u8).map(|at| vec![at; usize::from(at) * 50]).collect();
    let written = pieces.concat();
    let write = async {
        for piece in pieces {
            tx.write(piece.into()).await.unwrap();
        }
        tx.finish().unwrap();
    };
    let ((), read) = soon(async { tokio::join!(write, all(&mut far_rx)) }).await;
    assert_eq!(read.unwrap(), written);
    assert_eq!(soon(far_rx.read()).await, Ok(None), "the end stays");
}

pub async fn what_is_let_go_is_finished_and_the_other_way_goes_on(ground: Arc<dyn Ground>) {
    let pair = pair(&ground).await;
    let ((tx, mut rx), (mut far_tx, mut far_rx)) = stream(&pair.near, &pair.far).await;
    drop(tx);
    assert_eq!(soon(far_rx.read()).await, Ok(None));
    far_tx.write(vec![5].into()).await.unwrap();
    assert_eq!(soon(rx.read()).await.unwrap().unwrap(), [5].as_slice());
    // A stream on which nothing was ever said ends, too.
    drop(pair.near.open().await.unwrap());
    let (_, mut far_rx) = soon(pair.far.accept()).await.unwrap();
    assert_eq!(soon(far_rx.read()).await, Ok(None));
}

pub async fn nothing_is_written_behind_the_end(ground: Arc<dyn Ground>) {
    let pair = pair(&ground).await;
    let ((mut tx, _rx), (_far_tx, mut far_rx)) = stream(&pair.near, &pair.far).await;
    tx.finish().unwrap();
    assert!(tx.finish().is_err());
    assert!(tx.write(vec![1].into()).await.is_err());
    assert_eq!(soon(far_rx.read()).await, Ok(None));
}

pub async fn a_read_that_is_given_up_loses_nothing(ground: Arc<dyn Ground>) {
    let pair = pair(&ground).await;
    let ((mut tx, _rx), (_far_tx, mut far_rx)) = stream(&pair.near, &pair.far).await;
    let mut read = Vec::new();
    for at in 1..=50u8 {
        tx.write(vec![at].into()).await.unwrap();
        while let Ok(bytes) = timeout(Duration::from_micros(300), far_rx.read()).await {
            read.extend_from_slice(&bytes.unwrap().unwrap());
        }
    }
    drop(tx);
    read.extend(soon(all(&mut far_rx)).await.unwrap());
    assert_eq!(read, (1..=50).collect::<Vec<u8>>());
    // So it is with streams.
    assert!(waits(pair.far.accept()).await);
    stream(&pair.near, &pair.far).await;
}

pub async fn a_writer_waits_for_its_reader(ground: Arc<dyn Ground>) {
    let pair = pair(&ground).await;
    let ((mut tx, _rx), (_far_tx, mut far_rx)) = stream(&pair.near, &pair.far).await;
    let piece = vec![7; 64 << 10];
    let mut written = 0;
    while !waits(tx.write(piece.clone().into())).await {
        written += piece.len();
        assert!(written < 64 << 20, "it writes for ever");
    }
    let read = async {
        let mut read = 0;
        while read < written {
            read += far_rx.read().await.unwrap().unwrap().len();
        }
    };
    let write = async { tx.write(piece.clone().into()).await.unwrap() };
    soon(async { tokio::join!(read, write) }).await;
    // One stream does not hold up another.
    while !waits(tx.write(piece.clone().into())).await {}
    stream(&pair.near, &pair.far).await;
}

pub async fn a_writer_without_a_reader_is_told(ground: Arc<dyn Ground>) {
    let pair = pair(&ground).await;
    let ((mut tx, mut rx), (mut far_tx, far_rx)) = stream(&pair.near, &pair.far).await;
    drop(far_rx);
    let write = async {
        while tx.write(vec![1].into()).await.is_ok() {
            sleep(Duration::from_millis(10)).await
        }
    };
    soon(write).await;
    // The other way goes on.
    far_tx.write(vec![5].into()).await.unwrap();
    assert_eq!(soon(rx.read()).await.unwrap().unwrap(), [5].as_slice());
    // Whoever waits for room is told, too.
    let ((mut tx, _rx), (_far_tx, far_rx)) = stream(&pair.near, &pair.far).await;
    let write = async { while tx.write(vec![1; 64 << 10].into()).await.is_ok() {} };
    let let_go = async {
        sleep(WAITS).await;
        drop(far_rx);
    };
    soon(async { tokio::join!(write, let_go) }).await;
}

pub async fn streams_come_in_the_order_of_their_opening(ground: Arc<dyn Ground>) {
    let pair = pair(&ground).await;
    let mut open = Vec::new();
    for at in 0..50u8 {
        let (mut tx, rx) = pair.near.open().await.unwrap();
        tx.write(vec![at].into()).await.unwrap();
        open.push((tx, rx));
    }
    for at in 0..50u8 {
        let (_, mut rx) = soon(pair.far.accept()).await.unwrap();
        assert_eq!(soon(rx.read()).await.unwrap().unwrap(), [at].as_slice());
    }
}

pub async fn who_has_too_many_streams_open_waits_for_some_to_end(ground: Arc<dyn Ground>) {
    let pair = pair(&ground).await;
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for _ in 0..STREAMS_MAX {
        let (one, other) = stream(&pair.near, &pair.far).await;
        near.push(one);
        far.push(other);
    }
    assert!(waits(pair.near.open()).await);
    // The other end has its own.
    stream(&pair.far, &pair.near).await;
    // Room is not made for each single one.
    far.truncate(STREAMS_MAX / 2);
    assert!(waits(pair.near.open()).await, "only one of their two ends is over");
    near.truncate(STREAMS_MAX / 2);
    soon(pair.near.open()).await.unwrap();
}

pub async fn the_other_end_is_told_why_a_line_is_closed(ground: Arc<dyn Ground>) {
    let pair = pair(&ground).await;
    let ((mut tx, mut rx), (mut far_tx, mut far_rx)) = stream(&pair.near, &pair.far).await;
    let told = Closed::Told { code: 7, why: "enough".into() };
    pair.near.close(7, "enough");
    pair.near.close(8, "again");
    let why = soon(async { tokio::join!(pair.far.accept(), far_rx.read()) }).await;
    assert_eq!(why.0.unwrap_err(), told);
    assert!(why.1.is_err());
    assert_eq!(pair.far.closed(), Some(told.clone()));
    assert_eq!(pair.far.open().await.unwrap_err(), told);
    assert!(far_tx.write(vec![1].into()).await.is_err());
    // This end has closed it itself.
    assert!(matches!(pair.near.closed(), Some(Closed::Broken(_))), "{:?}", pair.near.closed());
    assert!(matches!(pair.near.open().await, Err(Closed::Broken(_))));
    assert!(matches!(pair.near.accept().await, Err(Closed::Broken(_))));
    assert!(tx.write(vec![1].into()).await.is_err() && rx.read().await.is_err());
    until(SOON, "no line is open", || pair.manager.open_lines() + pair.worker.open_lines() == 0).await;
}

pub async fn what_came_before_the_end_of_a_line_is_still_there(ground: Arc<dyn Ground>) {
    let pair = pair(&ground).await;
    let (mut tx, _rx) = pair.near.open().await.unwrap();
    tx.write(vec![5].into()).await.unwrap();
    tx.finish().unwrap();
    sleep(WAITS).await;
    pair.near.close(0, "");
    until(SOON, "the other end is told", || pair.far.closed().is_some()).await;
    let (_, mut far_rx) = pair.far.accept().await.unwrap();
    assert_eq!(all(&mut far_rx).await.unwrap(), [5]);
    assert!(pair.far.accept().await.is_err());
}

pub async fn a_line_is_closed_with_the_last_that_is_held_of_it(ground: Arc<dyn Ground>) {
    let Pair { near, far, worker, .. } = pair(&ground).await;
    let ((mut tx, rx), (_far_tx, mut far_rx)) = stream(&near, &far).await;
    drop(near);
    assert!(waits(far.accept()).await, "a stream of it is held");
    tx.write(vec![5].into()).await.unwrap();
    assert_eq!(soon(far_rx.read()).await.unwrap().unwrap(), [5].as_slice());
    drop((tx, rx));
    assert_eq!(soon(far.accept()).await.unwrap_err(), Closed::Told { code: 0, why: String::new() });
    until(SOON, "no line is open", || worker.open_lines() == 0).await;
}

pub async fn a_line_hears_the_other_end(ground: Arc<dyn Ground>) {
    let pair = pair(&ground).await;
    let ((mut tx, _rx), _far) = stream(&pair.near, &pair.far).await;
    sleep(WAITS).await;
    let heard = (pair.near.heard(), pair.far.heard());
    tx.write(vec![1].into()).await.unwrap();
    // That what it says arrives is a sign of life, too.
    until(SOON, "both hear", || pair.near.heard() > heard.0 && pair.far.heard() > heard.1).await;
}

pub async fn a_dial_that_is_given_up_leaves_nothing(ground: Arc<dyn Ground>) {
    let pair = pair(&ground).await;
    let credentials = pair.world.credentials(2, Role::Worker);
    assert!(waits(pair.worker.dial(dial(ground.hole(), credentials))).await);
    until(SOON, "it is forgotten", || pair.worker.open_lines() == 1).await;
}

pub async fn without_a_certificate_nobody_is_accepted(ground: Arc<dyn Ground>) {
    let pair = pair(&ground).await;
    let credentials = pair.world.credentials(2, Role::Worker);
    let at = pair.manager.local_addr().unwrap();
    pair.manager.set_server(None).unwrap();
    let mut dialled = pair.worker.dial(dial(at, credentials));
    assert!(waits(&mut dialled).await, "nobody answers");
    // What is open stays.
    stream(&pair.near, &pair.far).await;
    pair.manager.set_server(Some(&pair.world.credentials(1, Role::Manager))).unwrap();
    let (near, far) = soon(async { tokio::join!(dialled, accepted(&pair.manager)) }).await;
    stream(&near.unwrap(), &far).await;
}

pub async fn a_closed_carrier_tells_everybody_and_opens_nothing(ground: Arc<dyn Ground>) {
    let pair = pair(&ground).await;
    pair.manager.close(3, "enough").await;
    let told = Closed::Told { code: 3, why: "enough".into() };
    assert_eq!(soon(pair.near.accept()).await.unwrap_err(), told);
    assert!(soon(pair.manager.accept()).await.is_none());
    assert!(matches!(pair.far.closed(), Some(Closed::Broken(_))));
    let (worker, manager) = (pair.worker.local_addr().unwrap(), pair.manager.local_addr().unwrap());
    let credentials = pair.world.credentials(1, Role::Manager);
    let refused = soon(pair.manager.dial(dial(worker, credentials))).await;
    assert!(matches!(refused, Err(CallError::Unreachable(_))), "{refused:?}");
    let credentials = pair.world.credentials(2, Role::Worker);
    let refused = soon(pair.worker.dial(dial(manager, credentials))).await;
    assert!(matches!(refused, Err(CallError::Unreachable(_))), "{refused:?}");
    until(SOON, "no line is open", || pair.manager.open_lines() + pair.worker.open_lines() == 0).await;
}

pub async fn silence_is_noticed(ground: Arc<dyn Ground>) {
    let Pair { near, far, manager, worker, scope, .. } = pair(&ground).await;
    let ((mut tx, mut rx), theirs) = stream(&near, &far).await;
    let at = manager.local_addr().unwrap();
    scope.abort();
    ground.killed(at, Box::new((theirs, far, manager))).await;
    tx.write(vec![1].into()).await.unwrap();
    let why = timeout(SILENCE, rx.read()).await.expect("it is noticed");
    assert!(why.is_err(), "{why:?}");
    assert!(matches!(near.closed(), Some(Closed::Broken(_))), "{:?}", near.closed());
    until(SOON, "no line is open", || worker.open_lines() == 0).await;
}
