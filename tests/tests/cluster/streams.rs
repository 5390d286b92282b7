//! What a connection is to both of its ends: through the proxy it is the same, whether its task is on the node that was asked or on
//! another one.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shoal_tests::cluster::{Cluster, Peer};
use shoal_tests::lab::{Lab, address};
use shoal_tests::runner::Scenario;
use shoal_tests::{pattern, wait};

use super::mesh::{self, await_answer, load, lost, port};
use super::{START_MAX, STOP_MAX, ours};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ours("ends_and_resets_pass_the_proxy_as_they_are", ends_and_resets),
    ours("slow_readers_hold_up_nobody_and_lose_nothing", slow_readers),
    ours("idle_connections_are_there_when_they_speak_again", idle),
];

const POLL: Duration = Duration::from_millis(100);
/// The client's host, which is not in the cluster.
const CLIENT: usize = 3;
/// The node that is asked for a task on h2: itself, or another one.
const WAYS: [(&str, usize); 2] = [("local", 2), ("remote", 1)];
const PORT: u16 = 8080;
/// More than all buffers on the way hold.
const LARGE: u64 = 64 << 20;
/// At most as much as they hold: those of four sockets, and one stream's.
const HELD_MAX: u64 = 40 << 20;

/// A task on h2 behind a published port of h1 and h2.
fn form(lab: &mut Lab, peer: Peer) -> Result<Cluster<'_>> {
    let cluster = Cluster::form(lab, peer, 1, 1)?;
    let flags = ["--publish", "8080:80", "--constraint", "node.hostname==h2"];
    mesh::create(&cluster, "web", 1, &flags)?;
    cluster.await_running("web", 1, &[], START_MAX)?;
    for (_, host) in WAYS {
        await_answer(&cluster, CLIENT, host, PORT)?;
    }
    Ok(cluster)
}

/// A client's connection to a host's published port.
pub(super) fn connect(cluster: &Cluster<'_>, host: usize, port: u16) -> Result<TcpStream> {
    let at = format!("{}:{port}", address(host)).parse()?;
    let stream = cluster
        .lab
        .host(CLIENT)
        .inside()
        .in_network(|| Ok(TcpStream::connect_timeout(&at, STOP_MAX)?))
        .with_context(|| format!("connecting to {at}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(START_MAX))?;
    stream.set_write_timeout(Some(START_MAX))?;
    Ok(stream)
}

/// One that does at its task what these words say.
fn raw(cluster: &Cluster<'_>, host: usize, words: &str) -> Result<TcpStream> {
    let mut stream = connect(cluster, host, PORT)?;
    stream.write_all(format!("raw {words}\n").as_bytes())?;
    Ok(stream)
}

/// Say a line, and have it back.
pub(super) fn echoes(mut stream: &TcpStream, line: &str) -> std::io::Result<()> {
    stream.write_all(format!("{line}\n").as_bytes())?;
    let mut said = String::new();
    BufReader::new(stream).read_line(&mut said)?;
    let whole = said.strip_suffix('\n') == Some(line);
    if whole { Ok(()) } else { Err(std::io::Error::other(format!("said {line:?} and heard {said:?}"))) }
}

pub(super) fn break_off(stream: TcpStream) -> Result<()> {
    Ok(socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?)
}

/// What the task says of a connection.
fn told(cluster: &Cluster<'_>, host: usize, key: &str) -> Result<String> {
    let url = format!("http://{}:{PORT}/told/{key}", address(host));
    let figures = load(cluster, CLIENT, &url, &["requests=1", "each"])?;
    ensure!(lost(&figures) == 0, "another request is not answered: {figures}");
    let said = figures["servers"].as_object().and_then(|servers| servers.keys().next());
    said.cloned().with_context(|| format!("no word: {figures}"))
}

fn await_told(cluster: &Cluster<'_>, host: usize, key: &str, words: &str) -> Result<()> {
    wait::until(&format!("{key} to be {words:?}"), STOP_MAX, POLL, || {
        let said = told(cluster, host, key)?;
        wait::seen(said.contains(words), || said)
    })
    .map(drop)
}

/// Connections of clients that a node has open.
fn open(cluster: &Cluster<'_>, host: usize) -> Result<u64> {
    let found = port(cluster, host, "web")?;
    found["OpenConnections"].as_u64().with_context(|| format!("no figure: {found}"))
}

fn await_none_open(cluster: &Cluster<'_>) -> Result<()> {
    for (way, host) in WAYS {
        wait::until(&format!("no open connection on h{host}"), STOP_MAX, POLL, || {
            let open = open(cluster, host)?;
            wait::seen(open == 0, || format!("{way}: {open} are open"))
        })?;
    }
    Ok(())
}

fn ends_and_resets(lab: &mut Lab, peer: Peer) -> Result<()> {
    const SOME: u64 = 3 << 20;
    let cluster = form(lab, peer)?;
    for (way, host) in WAYS {
        // The client has finished, and is answered still.
        let mut stream = raw(&cluster, host, "there gather")?;
        pattern::write(&mut stream, SOME, |_| {})?;
        stream.shutdown(Shutdown::Write)?;
        let mut said = String::new();
        stream.read_to_string(&mut said).with_context(|| format!("{way}, the client has finished"))?;
        ensure!(said == format!("got {SOME}"), "{way}, the task: {said}");

        // The task has finished, and is told still.
        let mut stream = raw(&cluster, host, &format!("{way} give {SOME}"))?;
        let got = pattern::check(&mut stream).with_context(|| format!("{way}, the task has finished"))?;
        ensure!(got == SOME, "{way}, {got} of {SOME} bytes came");
        std::thread::sleep(Duration::from_millis(300));
        pattern::write(&mut stream, SOME, |_| {})?;
        drop(stream);
        await_told(&cluster, host, way, &format!("got {SOME}"))?;

        // The client breaks off.
        let key = format!("{way}-reset");
        let stream = raw(&cluster, host, &format!("{key} echo"))?;
        echoes(&stream, "here")?;
        break_off(stream)?;
        await_told(&cluster, host, &key, "failed: Connection reset")?;

        // The task breaks off, at once and after a while.
        for word in ["break", "late"] {
            let mut stream = raw(&cluster, host, &format!("{way}-{word} {word}"))?;
            let broken = stream.read(&mut [0; 16]).map_err(|error| error.kind());
            ensure!(broken == Err(ErrorKind::ConnectionReset), "{way}, {word}: the client saw {broken:?}");
        }
    }
    await_none_open(&cluster)
}

/// Reads little at once, and rests in between.
struct Slow<'a>(&'a TcpStream);

impl Read for Slow<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        std::thread::sleep(Duration::from_micros(300));
        let most = into.len().min(32 << 10);
        self.0.read(&mut into[..most])
    }
}

/// Wait until the task gets rid of nothing more; how much it sent.
fn await_stand(cluster: &Cluster<'_>, host: usize, key: &str) -> Result<u64> {
    let mut last = String::new();
    let (said, _) = wait::until(&format!("{key} to stand still"), START_MAX, POLL * 10, || {
        let said = told(cluster, host, key)?;
        let stands = said == last && said.starts_with("sent ");
        last.clone_from(&said);
        wait::seen(stands, || said.clone())?;
        Ok(said)
    })?;
    said.trim_start_matches("sent ").parse().with_context(|| format!("{key} fared otherwise: {said}"))
}

fn slow_readers(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = form(lab, peer)?;
    for (way, host) in WAYS {
        let memory = || -> Result<[u64; 2]> {
            Ok([cluster.lab.host(1).node_memory()?, cluster.lab.host(2).node_memory()?])
        };
        let before = memory()?;
        let keys: Vec<String> = (0..6).map(|number| format!("{way}-{number}")).collect();
        let open = |key: &String| raw(&cluster, host, &format!("{key} give {LARGE}"));
        let mut streams = keys.iter().map(open).collect::<Result<Vec<_>>>()?;
        // None of them reads: their task has to wait, and all others pass.
        for key in &keys {
            let sent = await_stand(&cluster, host, key)?;
            println!("{way}, {key}: {sent} of {LARGE} bytes are on their way");
            ensure!(sent < HELD_MAX, "{way}: {sent} bytes are held for one who reads none");
        }
        let figures = load(&cluster, CLIENT, &mesh::at(host, PORT), &["requests=100", "clients=4"])?;
        ensure!(lost(&figures) == 0, "{way}, beside those who do not read: {figures}");
        for (host, (before, now)) in (1..).zip(before.into_iter().zip(memory()?)) {
            let grown = now.saturating_sub(before);
            println!("{way}: h{host} grew by {} KiB", grown >> 10);
            ensure!(grown < LARGE, "{way}: h{host} keeps what nobody reads: {grown} bytes more");
        }
        // Who breaks off lets its task go; all others get everything in the end.
        break_off(streams.remove(0))?;
        await_told(&cluster, host, &keys[0], "failed: ")?;
        let reading = streams.into_iter().map(|stream| {
            std::thread::spawn(move || -> Result<u64> {
                let got = pattern::check(&mut Slow(&stream))?;
                stream.shutdown(Shutdown::Write)?;
                Ok(got)
            })
        });
        for reader in reading.collect::<Vec<_>>() {
            let got = reader.join().ok().context("a reader panicked")??;
            ensure!(got == LARGE, "{way}: {got} of {LARGE} bytes came");
        }
    }
    await_none_open(&cluster)
}

fn idle(lab: &mut Lab, peer: Peer) -> Result<()> {
    const COUNT: usize = 500;
    let cluster = form(lab, peer)?;
    for (way, host) in WAYS {
        let streams = (0..COUNT)
            .map(|number| raw(&cluster, host, &format!("{way}-{number} echo")))
            .collect::<Result<Vec<_>>>()?;
        for _ in 0..2 {
            for (number, stream) in streams.iter().enumerate() {
                echoes(stream, &number.to_string()).with_context(|| format!("{way}, number {number}"))?;
            }
            let open = open(&cluster, host)?;
            ensure!(open >= COUNT as u64, "{way}: {open} of {COUNT} are open");
            // Longer than nodes go without a sign of life between them.
            std::thread::sleep(Duration::from_secs(8));
        }
        drop(streams);
        await_none_open(&cluster)?;
    }
    Ok(())
}
