//! Many connections on which nothing passes: what they cost the node that was asked and the task's, and whether they are there when
//! they speak again.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use shoal_tests::cluster::{Cluster, Peer};
use shoal_tests::lab::{Lab, address};
use shoal_tests::{traffic, wait};

use super::{PUBLISHED, START_MAX};

/// How long nothing passes: nodes that do not hear of each other for so long close what is between them.
const REST: Duration = Duration::from_secs(30);
/// An answer that takes longer is none.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Opened before memory is looked at for the first time.
const WARM_UP: usize = 200;

/// Open so many from h3 to a task on h2 by way of h1, leave them idle, and ask on each of them again.
pub(super) fn run(count: usize) -> Result<()> {
    let mut lab = Lab::up(3)?;
    let cluster = Cluster::form(&mut lab, Peer::Shoal, 1, 1)?;
    let publish = format!("{PUBLISHED}:80");
    let flags = ["--publish", &publish, "--constraint", "node.hostname==h2"];
    traffic::create(&cluster, &traffic::program()?, "hold", ("web", 1), &flags)?;
    cluster.await_running("web", 1, &[], START_MAX)?;
    wait::until("an answer", START_MAX, Duration::from_millis(100), || open(&cluster, 1).map(drop))?;
    let warm = open(&cluster, WARM_UP)?;
    let before = memory(&cluster)?;
    let begun = Instant::now();
    let streams = open(&cluster, count)?;
    println!("{count} connections were opened and answered within {:.1} s", begun.elapsed().as_secs_f64());
    std::thread::sleep(REST);
    let after = memory(&cluster)?;
    for (place, role) in ["h1, which was asked", "h2, where the task is"].into_iter().enumerate() {
        let grown = after[place].saturating_sub(before[place]);
        println!(
            "{role}: {:.1} MiB before, {:.1} MiB more, {:.2} KiB for each connection",
            mib(before[place]),
            mib(grown),
            grown as f64 / 1024.0 / count as f64
        );
    }
    let begun = Instant::now();
    for (number, stream) in warm.iter().chain(&streams).enumerate() {
        echoes(stream, number as u64).with_context(|| format!("connection {number} after its rest"))?;
    }
    println!(
        "all {} were answered after {} s of rest, within {:.1} s",
        warm.len() + streams.len(),
        REST.as_secs(),
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

/// Resident memory of both nodes.
fn memory(cluster: &Cluster<'_>) -> Result<[u64; 2]> {
    Ok([cluster.lab.host(1).node_memory()?, cluster.lab.host(2).node_memory()?])
}

/// Open so many, each answered once.
fn open(cluster: &Cluster<'_>, count: usize) -> Result<Vec<TcpStream>> {
    let at = format!("{}:{PUBLISHED}", address(1)).parse()?;
    cluster.lab.host(3).inside().in_network(|| {
        (0..count)
            .map(|number| {
                let stream = TcpStream::connect_timeout(&at, ANSWER_MAX)
                    .context("connecting (a higher `ulimit -n` may be wanted)")?;
                stream.set_read_timeout(Some(ANSWER_MAX))?;
                stream.set_nodelay(true)?;
                echoes(&stream, number as u64).with_context(|| format!("connection {number}"))?;
                Ok(stream)
            })
            .collect()
    })
}

/// Say something, and have it back.
fn echoes(mut stream: &TcpStream, number: u64) -> Result<()> {
    let (said, mut heard) = (number.to_be_bytes(), [0; 8]);
    stream.write_all(&said)?;
    stream.read_exact(&mut heard)?;
    ensure!(heard == said, "said {said:?} and heard {heard:?}");
    Ok(())
}
