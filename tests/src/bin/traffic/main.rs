//! A server and a client of the tests, for traffic through published ports. Both are strict: the server breaks off whatever it
//! does when it is asked to stop, and the client counts every request that did not get its whole answer.
//!
//! `traffic serve PORT` answers `GET /…` with its host's name, its client's address and, if there was one, the PROXY
//! header's; `/slow/MS` takes that long, `/big/BYTES` is as large; what it does without HTTP is told in `raw.rs`. `hold` sends back what ten thousand clients
//! send, `relay` passes bytes on to another server. `traffic load URL …` prints one line of JSON, `ask URL` fails if it has no answer. `echo` and `shout` are the same of UDP,
//! `mingle` asks several from one socket, `stream` asks again and again from one socket, `sink` answers nobody and prints whom it hears, `lookup` prints the
//! addresses of a name.
#![allow(missing_docs)]

mod raw;
mod relay;

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

const PROXY_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// What large bodies are of.
static FILLER: [u8; 256 << 10] = [b'x'; 256 << 10];
/// More of a body is read and forgotten.
const BODY_KEPT_MAX: usize = 64 << 10;
/// Threads of a server that wait for clients.
const IDLE_MAX: usize = 64;
/// A request that takes longer is lost.
const REQUEST_MAX: Duration = Duration::from_secs(90);

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["serve", port] => serve(port.parse()?),
        ["hold", port] => raw::hold(port.parse()?),
        ["relay", port, to] => relay::relay(port.parse()?, to.parse()?),
        ["ask", url] => ask(url),
        ["echo", port] => echo(port.parse()?),
        ["sink", port] => sink(port.parse()?),
        ["shout", addr, count] => shout(addr, count.parse()?),
        ["mingle", port, addrs @ ..] => mingle(port.parse()?, addrs),
        ["stream", addr, seconds] => stream(addr, Duration::from_secs(seconds.parse()?)),
        ["lookup", name] => lookup(name),
        ["load", url, flags @ ..] => Load::read(url, flags)?.run(),
        _ => bail!(
            "traffic serve PORT | hold PORT | relay PORT ADDR | ask URL | echo PORT | sink PORT | shout ADDR N | mingle PORT ADDR… | stream ADDR SECONDS | lookup NAME | load http://HOST:PORT/PATH [clients=N] [requests=N|seconds=N|until=eof] [keep] [pause=MS] [each]"
        ),
    }
}

fn serve(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))?;
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let (told, idle) = (raw::Told::default(), AtomicUsize::new(0));
    Arc::new(Server { listener, name: name.trim().to_owned(), told, idle }).spawn();
    loop {
        std::thread::park();
    }
}

/// Threads that each wait for a client and then serve it: to start one for each costs more than most answers do, and it would be
/// the server that is measured.
struct Server {
    listener: TcpListener,
    name: String,
    /// How connections without HTTP fared.
    told: raw::Told,
    /// Threads that wait for a client.
    idle: AtomicUsize,
}

impl Server {
    /// Another thread; who cannot have one makes do with those that there are.
    fn spawn(self: &Arc<Self>) {
        let server = Arc::clone(self);
        let _ = std::thread::Builder::new().spawn(move || server.accept());
    }

    fn accept(self: &Arc<Self>) {
        loop {
            self.idle.fetch_add(1, Ordering::SeqCst);
            let accepted = self.listener.accept();
            if self.idle.fetch_sub(1, Ordering::SeqCst) == 1 {
                self.spawn();
            }
            if let Ok((stream, _)) = accepted {
                // A client that breaks off is its own affair.
                let _ = self.answer(&stream);
            }
            if self.idle.load(Ordering::SeqCst) >= IDLE_MAX {
                return;
            }
        }
    }

    fn answer(&self, stream: &TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        let peer = stream.peer_addr()?.ip().to_canonical();
        let mut reader = BufReader::new(stream);
        let client = proxied(&mut reader)?.map_or_else(|| "-".to_owned(), |addr| addr.to_string());
        let mut first = String::new();
        loop {
            first.clear();
            if reader.read_line(&mut first)? == 0 {
                return Ok(());
            }
            if first.starts_with("raw ") {
                return raw::serve(&first, reader, &self.told);
            }
            let path = first.split(' ').nth(1).context("a request without a path")?;
            let close = head(&first, &mut reader)?;
            if path == "/upgrade" {
                return raw::upgrade(reader);
            }
            let mut stream = stream;
            if let Some(count) = path.strip_prefix("/big/") {
                big(&mut stream, count.parse()?)?;
            } else {
                if let Some(ms) = path.strip_prefix("/slow/") {
                    std::thread::sleep(Duration::from_millis(ms.parse()?));
                }
                let body = match path.strip_prefix("/told/") {
                    Some(key) => format!("{}\n", self.told.of(key)),
                    None => format!("{} {peer} {client}\n", self.name),
                };
                let connection = if close { "close" } else { "keep-alive" };
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
                    body.len()
                );
                stream.write_all((head + &body).as_bytes())?;
            }
            if close {
                return Ok(());
            }
        }
    }
}

/// Read the rest of a request's head; whether its client wants the connection to end with the answer.
fn head(first: &str, reader: &mut BufReader<&TcpStream>) -> Result<bool> {
    // Without a word a client of the old version waits for the end.
    let mut close = first.trim_end().ends_with("HTTP/1.0");
    loop {
        let mut line = String::new();
        ensure!(reader.read_line(&mut line)? > 0, "a head without an end");
        close |= line.to_ascii_lowercase().starts_with("connection: close");
        if line.trim().is_empty() {
            return Ok(close);
        }
    }
}

/// Answer with a large body.
fn big(stream: &mut &TcpStream, count: usize) -> Result<()> {
    let mut left = count.min(1 << 30);
    stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {left}\r\n\r\n").as_bytes())?;
    while left > 0 {
        let part = left.min(FILLER.len());
        stream.write_all(&FILLER[..part])?;
        left -= part;
    }
    Ok(())
}

/// Ask once; an error if there is no answer.
fn ask(url: &str) -> Result<()> {
    println!("{}", Load::read(url, &["requests=1"])?.one(&mut None)?);
    Ok(())
}

/// Print the addresses of a name, one a line; none if nobody knows it.
fn lookup(name: &str) -> Result<()> {
    let found = (name, 80).to_socket_addrs().into_iter().flatten().map(|addr| addr.ip());
    found.collect::<std::collections::BTreeSet<_>>().iter().for_each(|ip| println!("{ip}"));
    Ok(())
}

/// Send each datagram back, after the host's name and its sender's address.
fn echo(port: u16) -> Result<()> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?;
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let mut buffer = [0; 65_535];
    loop {
        let (count, from) = socket.recv_from(&mut buffer)?;
        let head = format!("{} {} ", name.trim(), from.ip().to_canonical());
        // Not every sender can be answered.
        let _ = socket.send_to(&[head.as_bytes(), &buffer[..count]].concat(), from);
    }
}

/// Receive datagrams; prints a sender's address whenever it is another one than the last.
fn sink(port: u16) -> Result<()> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?;
    let mut last = None;
    loop {
        let from = socket.recv_from(&mut [0; 65_535])?.1.ip().to_canonical();
        if last.replace(from) != Some(from) {
            println!("{from}");
        }
    }
}

/// What an echo says: its host's name, whom it saw, and what it was sent.
fn echoed(said: &str) -> Option<(&str, &str, &str)> {
    let (server, rest) = said.split_once(' ')?;
    let (seen, text) = rest.split_once(' ')?;
    Some((server, seen, text))
}

/// Send so many datagrams, one after the other, each from a socket of its own; prints one line of JSON.
fn shout(addr: &str, count: usize) -> Result<()> {
    let addr: SocketAddr = addr.parse()?;
    let (mut answered, mut refused) = (0, 0);
    let (mut servers, mut seen) = (BTreeMap::<_, u64>::new(), BTreeMap::<_, u64>::new());
    for number in 0..count {
        let any = if addr.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        // Only what comes from the very address that was asked counts.
        socket.connect(addr)?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        // Larger than a packet of the way.
        let text = format!("{number} {}", "x".repeat(3000));
        socket.send(text.as_bytes())?;
        let mut buffer = [0; 65_535];
        let count = match socket.recv(&mut buffer) {
            Ok(count) => count,
            Err(error) => {
                refused += usize::from(error.kind() == io::ErrorKind::ConnectionRefused);
                continue;
            }
        };
        let said = String::from_utf8_lossy(&buffer[..count]).into_owned();
        if let Some((server, client, rest)) = echoed(&said)
            && rest == text
        {
            answered += 1;
            *servers.entry(server.to_owned()).or_default() += 1;
            *seen.entry(client.to_owned()).or_default() += 1;
        }
    }
    let lost = count - answered;
    let figures = serde_json::json!({"answered": answered, "lost": lost, "refused": refused, "servers": servers, "seen": seen});
    println!("{figures}");
    Ok(())
}

/// Ask all of these from one socket at this port; prints one line of JSON: whom each saw, if it answered as it should.
fn mingle(port: u16, addrs: &[&str]) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut buffer = [0; 2048];
    let mut all = serde_json::Map::new();
    for addr in addrs {
        socket.send_to(addr.as_bytes(), addr)?;
        let Ok((count, from)) = socket.recv_from(&mut buffer) else { continue };
        let said = String::from_utf8_lossy(&buffer[..count]).into_owned();
        if let Some((_, client, text)) = echoed(&said)
            && (text, from.to_string().as_str()) == (*addr, *addr)
        {
            all.insert((*addr).to_owned(), client.into());
        }
    }
    println!("{}", serde_json::Value::from(all));
    Ok(())
}

/// Send datagrams from one socket, one after the other, for so long; prints one line of JSON: who answered, the last one who did, and
/// whom they saw.
fn stream(addr: &str, time: Duration) -> Result<()> {
    let addr: SocketAddr = addr.parse()?;
    let socket = UdpSocket::bind(if addr.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(addr)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let began = Instant::now();
    let (mut answered, mut lost, mut last) = (0, 0, String::new());
    let (mut servers, mut seen) = (BTreeMap::<_, u64>::new(), BTreeMap::<_, u64>::new());
    let (mut heard, mut longest) = (Instant::now(), Duration::ZERO);
    while began.elapsed() < time {
        std::thread::sleep(Duration::from_millis(10));
        let mut buffer = [0; 2048];
        // Whoever refuses a datagram says so at the next call: it is lost like others.
        let Ok(count) = socket.send(b"on").and_then(|_| socket.recv(&mut buffer)) else {
            lost += 1;
            continue;
        };
        longest = longest.max(heard.elapsed());
        heard = Instant::now();
        answered += 1;
        let said = String::from_utf8_lossy(&buffer[..count]).into_owned();
        let (server, client, _) = echoed(&said).context("an odd answer")?;
        last = server.to_owned();
        *seen.entry(client.to_owned()).or_default() += 1;
        *servers.entry(last.clone()).or_default() += 1;
    }
    let longest = longest.max(heard.elapsed()).as_millis();
    let figures = serde_json::json!({"answered": answered, "lost": lost, "last": last, "servers": servers, "seen": seen, "longest_ms": longest});
    println!("{figures}");
    Ok(())
}

/// The client that a PROXY header tells, if there is one.
fn proxied(reader: &mut BufReader<&TcpStream>) -> Result<Option<SocketAddr>> {
    if !reader.fill_buf()?.starts_with(PROXY_SIGNATURE) {
        return Ok(None);
    }
    let mut head = [0; 16];
    reader.read_exact(&mut head)?;
    let mut rest = vec![0; usize::from(u16::from_be_bytes([head[14], head[15]]))];
    reader.read_exact(&mut rest)?;
    let port = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
    let found = match (head[13] >> 4, rest.len()) {
        (1, 12..) => (IpAddr::from([rest[0], rest[1], rest[2], rest[3]]), port(8)),
        (2, 36..) => (IpAddr::from(<[u8; 16]>::try_from(&rest[..16])?), port(32)),
        _ => bail!("an odd PROXY header"),
    };
    Ok(Some(found.into()))
}

struct Load {
    host: String,
    path: String,
    clients: usize,
    requests: u64,
    until: Option<Instant>,
    /// Set once the input has ended, if that is waited for.
    eof: Option<Arc<AtomicBool>>,
    keep: bool,
    /// Between two requests of a client.
    pause: Duration,
    /// Whether each answer is told, by its server.
    each: bool,
}

#[derive(Default)]
struct Tally {
    answered: u64,
    lost: BTreeMap<String, u64>,
    servers: BTreeMap<String, u64>,
    slowest: Duration,
}

impl Load {
    fn read(url: &str, flags: &[&str]) -> Result<Self> {
        let rest = url.strip_prefix("http://").context("an address of http:// is wanted")?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let mut load = Self {
            host: host.to_owned(),
            path: format!("/{path}"),
            clients: 1,
            requests: u64::MAX,
            until: None,
            eof: None,
            keep: false,
            pause: Duration::ZERO,
            each: false,
        };
        for flag in flags {
            match flag.split_once('=') {
                Some(("clients", number)) => load.clients = number.parse()?,
                Some(("requests", number)) => load.requests = number.parse()?,
                Some(("seconds", number)) => {
                    load.until = Some(Instant::now() + Duration::from_secs(number.parse()?))
                }
                Some(("until", "eof")) => load.until_eof()?,
                Some(("pause", ms)) => load.pause = Duration::from_millis(ms.parse()?),
                None if *flag == "keep" => load.keep = true,
                None if *flag == "each" => load.each = true,
                _ => bail!("{flag} is unknown"),
            }
        }
        ensure!(
            load.until.is_some() || load.eof.is_some() || load.requests < u64::MAX,
            "requests=N, seconds=N or until=eof is wanted"
        );
        Ok(load)
    }

    /// Go on until the input ends.
    fn until_eof(&mut self) -> Result<()> {
        let ended = Arc::new(AtomicBool::new(false));
        self.eof = Some(ended.clone());
        std::thread::Builder::new().spawn(move || {
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            ended.store(true, Ordering::Relaxed);
        })?;
        Ok(())
    }

    fn run(self) -> Result<()> {
        let begun = Instant::now();
        let load = Arc::new(self);
        let (given, tally) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Tally::default())));
        let clients: Vec<_> = (0..load.clients)
            .map(|_| {
                let (load, given, tally) = (load.clone(), given.clone(), tally.clone());
                std::thread::spawn(move || load.client(&given, &tally))
            })
            .collect();
        for client in clients {
            let _ = client.join();
        }
        let Ok(tally) = tally.lock() else { bail!("a client panicked") };
        let seconds = begun.elapsed().as_secs_f64();
        let json = serde_json::json!({
            "answered": tally.answered,
            "lost": tally.lost.values().sum::<u64>(),
            "reasons": tally.lost,
            "servers": tally.servers,
            "slowest_ms": tally.slowest.as_millis() as u64,
            "seconds": seconds,
            "per_second": tally.answered as f64 / seconds,
        });
        println!("{json}");
        Ok(())
    }

    fn client(&self, given: &AtomicU64, tally: &Mutex<Tally>) {
        let mut open = None;
        let mut mine = Tally::default();
        while self.until.is_none_or(|until| Instant::now() < until)
            && self.eof.as_ref().is_none_or(|ended| !ended.load(Ordering::Relaxed))
            && given.fetch_add(1, Ordering::Relaxed) < self.requests
        {
            let begun = Instant::now();
            match self.one(&mut open) {
                Ok(body) => {
                    mine.answered += 1;
                    if self.each {
                        *mine.servers.entry(body).or_default() += 1;
                    }
                }
                Err(error) => {
                    open = None;
                    *mine.lost.entry(error.to_string()).or_default() += 1;
                }
            }
            mine.slowest = mine.slowest.max(begun.elapsed());
            std::thread::sleep(self.pause);
        }
        let Ok(mut all) = tally.lock() else { return };
        all.answered += mine.answered;
        all.slowest = all.slowest.max(mine.slowest);
        for (what, from) in mine.lost {
            *all.lost.entry(what).or_default() += from;
        }
        for (what, from) in mine.servers {
            *all.servers.entry(what).or_default() += from;
        }
    }

    /// One request; its answer's body.
    fn one(&self, open: &mut Option<BufReader<TcpStream>>) -> io::Result<String> {
        let mut reader = match open.take() {
            Some(reader) => reader,
            None => {
                let addr = self.host.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
                let stream = TcpStream::connect_timeout(&addr, REQUEST_MAX)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(REQUEST_MAX))?;
                let capacity = if self.path.starts_with("/big/") { FILLER.len() } else { 8 << 10 };
                BufReader::with_capacity(capacity, stream)
            }
        };
        let connection = if self.keep { "keep-alive" } else { "close" };
        let request =
            format!("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: {connection}\r\n\r\n", self.path, self.host);
        reader.get_mut().write_all(request.as_bytes())?;
        let mut length = None;
        let mut first = String::new();
        reader.read_line(&mut first)?;
        if !first.starts_with("HTTP/1.1 200 ") {
            let what = if first.is_empty() {
                "no answer".to_owned()
            } else {
                format!("answered {:?}", first.trim())
            };
            return Err(io::Error::other(what));
        }
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Err(io::Error::other("half a head"));
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse::<usize>().ok();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let length = length.ok_or_else(|| io::Error::other("no length"))?;
        let mut body = vec![0; length.min(BODY_KEPT_MAX)];
        reader.read_exact(&mut body)?;
        let mut left = length - body.len();
        while left > 0 {
            let there = reader.fill_buf()?.len().min(left);
            if there == 0 {
                return Err(io::Error::other("half a body"));
            }
            reader.consume(there);
            left -= there;
        }
        if self.keep {
            *open = Some(reader);
        } else if reader.read(&mut [0])? != 0 {
            // The end of the connection is part of the answer.
            return Err(io::Error::other("more than the answer"));
        }
        Ok(String::from_utf8_lossy(&body).trim().to_owned())
    }
}
