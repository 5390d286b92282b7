//! Durable writes over three managers in one process, with real disks and every sync on, beside what the same
//! machine needs for a bare sync and a bare round trip.
//!
//! `cargo bench -p shoal-actors --bench raft [-- SECONDS]`

use std::io::{Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use shoal_actors::raft::{MemoryNetwork, RaftConfig, RaftHandle};
use shoal_core::model::{Node, NodeId, NodeState, NodeStatus, Timestamp};
use shoal_core::store::{Command, Write};

const NODES: u64 = 1_000;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Append and sync, as a log without any care would.
fn bare_sync(dir: &Path) -> Result<Duration> {
    let mut file = std::fs::File::create(dir.join("bare"))?;
    let mut times = Vec::new();
    for _ in 0..500 {
        let began = Instant::now();
        file.write_all(&[1; 400])?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    Ok(median(times))
}

/// The same into a file that is long enough already.
fn bare_sync_ahead(dir: &Path) -> Result<Duration> {
    let file = std::fs::File::create(dir.join("ahead"))?;
    file.write_all_at(&vec![0; 1 << 20], 0)?;
    file.sync_all()?;
    let mut times = Vec::new();
    for at in 0..500 {
        let began = Instant::now();
        file.write_all_at(&[1; 400], at * 400)?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    Ok(median(times))
}

fn bare_round_trip() -> Result<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut caller = TcpStream::connect(listener.local_addr()?)?;
    caller.set_nodelay(true)?;
    let (mut echo, _) = listener.accept()?;
    echo.set_nodelay(true)?;
    std::thread::spawn(move || {
        let mut bytes = [0; 400];
        while echo.read_exact(&mut bytes).and_then(|()| echo.write_all(&bytes)).is_ok() {}
    });
    let mut times = Vec::new();
    let mut bytes = [0; 400];
    for _ in 0..2_000 {
        let began = Instant::now();
        caller.write_all(&bytes)?;
        caller.read_exact(&mut bytes)?;
        times.push(began.elapsed());
    }
    Ok(median(times))
}

async fn cluster(dir: &Path, network: &MemoryNetwork) -> Result<Vec<RaftHandle>> {
    let mut handles = Vec::new();
    for n in 1..=3u64 {
        let id = NodeId::from(n);
        let config =
            RaftConfig::new(id, format!("node-{n}"), dir.join(format!("node-{n}")), network.transport(id));
        let handle = RaftHandle::start(config).await?;
        network.join(id, handle.clone());
        handles.push(handle);
    }
    handles[0].bootstrap().await?;
    for n in 2..=3u64 {
        handles[0].take_seat(NodeId::from(n), format!("node-{n}")).await?;
    }
    let writes = (1..=NODES)
        .map(|n| Write::NodeCreate(Box::new(Node { id: NodeId::from_u128(n.into()), ..Node::default() })));
    handles[0].propose(Command { writes: writes.collect(), ..Command::default() }).await?;
    Ok(handles)
}

fn command(n: u64) -> Command {
    let status = NodeStatus {
        state: NodeState::Ready,
        message: format!("heartbeat number {n} of a benchmark that pretends to be a node"),
        since: Timestamp(n),
    };
    let id = NodeId::from_u128(u128::from(n % NODES + 1));
    Command { at: Timestamp(n), writes: vec![Write::NodeStatus(id, status)], ..Command::default() }
}

/// Writes per second and the median time of one, with so many clients.
async fn run(handle: &RaftHandle, clients: u64, time: Duration) -> Result<(f64, Duration, Duration)> {
    let written = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut tasks = Vec::new();
    for client in 0..clients {
        let (handle, written) = (handle.clone(), Arc::clone(&written));
        tasks.push(tokio::spawn(async move {
            let mut times = Vec::new();
            let mut n = client;
            while began.elapsed() < time {
                let one = Instant::now();
                handle.propose(command(n)).await?;
                times.push(one.elapsed());
                written.fetch_add(1, Ordering::Relaxed);
                n += clients;
            }
            anyhow::Ok(times)
        }));
    }
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    let rate = written.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    times.sort();
    Ok((rate, times[times.len() / 2], times[times.len() * 99 / 100]))
}

/// Cut the leader's cable; the time until another manager has a write accepted.
async fn failover(network: &MemoryNetwork, handles: &[RaftHandle]) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for round in 0..20 {
        let mut leader = None;
        while leader.is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            leader = handles.iter().position(|handle| handle.leadership().borrow().is_me);
        }
        let leader = leader.unwrap_or_default();
        let witness = &handles[(leader + 1) % handles.len()];
        witness.propose(command(round)).await?;
        let began = Instant::now();
        network.isolate(NodeId::from(leader as u64 + 1));
        witness.propose(command(round)).await?;
        times.push(began.elapsed());
        network.heal();
        tokio::time::sleep(Duration::from_millis(1_500)).await;
    }
    times.sort();
    Ok(times)
}

fn main() -> Result<()> {
    let seconds = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(5);
    // Beside the build: /tmp may be in memory.
    let exe = std::env::current_exe()?;
    let dir = tempfile::tempdir_in(exe.parent().context("no folder")?)?;
    let (sync, ahead, trip) = (bare_sync(dir.path())?, bare_sync_ahead(dir.path())?, bare_round_trip()?);
    println!("bare sync {sync:?} (into a file that is long enough {ahead:?}), bare round trip {trip:?}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let network = MemoryNetwork::default();
        let handles = cluster(dir.path(), &network).await?;
        for clients in [1, 64, 1024] {
            let (rate, p50, p99) = run(&handles[0], clients, Duration::from_secs(seconds)).await?;
            println!("{clients:>5} clients: {rate:>7.0} durable writes/s, p50 {p50:?}, p99 {p99:?}");
            if clients == 1 {
                let bar = 3 * (trip + sync);
                println!(
                    "      p50 is {:.2} x (round trip + sync); the bar is 3 ({bar:?})",
                    p50.as_secs_f64() / (trip + sync).as_secs_f64()
                );
            }
        }
        let stats = handles[0].metrics();
        println!(
            "leader: {} proposals in {} entries, {} syncs, {} elections, {} snapshots",
            stats.proposals, stats.batches, stats.fsync.count, stats.elections, stats.snapshots_built
        );
        let times = failover(&network, &handles).await?;
        println!("leader's cable cut -> next write: median {:?}, worst of 20 {:?}", times[10], times[19]);
        ensure!(stats.disk_full.is_none() && stats.failed.is_none());
        for handle in handles {
            handle.shutdown().await;
        }
        Ok(())
    })
}
