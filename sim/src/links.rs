//! The fast depth's lines: the same messages as over QUIC, without packets, cryptography and acknowledgements. What QUIC
//! promises is kept (streams in order, whole or broken; certificates verified; silence noticed), what it does to keep it is
//! not done.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use shoal_actors::clock::Clock;
use shoal_core::pace::Pace;
use shoal_core::task::BoxFuture;
use shoal_net::CallError;
use shoal_net::identity::Credentials;
use shoal_net::line::{
    Arriving, Carrier, Closed, Dial, Expected, Line, Proof, Rx, STREAMS_MAX, Shown, Stream, Tx,
    verify_client, verify_server,
};
use shoal_wire::{Kind, Protocol};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::flight::{self, Flights};
use crate::trace::Trace;
use crate::wires::Wires;

/// As QUIC's: a line whose other end is not heard for so long is over.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often silence is looked for.
const SWEEP_EVERY: Duration = Duration::from_millis(500);
/// Bytes of one stream that are on their way or not read yet.
const WINDOW_BYTES: usize = 1 << 20;
/// Verdicts on certificates that are remembered.
const VERIFIED_MAX: usize = 8_192;
/// What was lost is sent again after this, then after twice the time, and so on.
const AGAIN_AFTER: Duration = Duration::from_millis(25);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(1);

/// One of the two ends of a line: 0 dialled, 1 accepted.
type Side = usize;

#[derive(Debug)]
enum What {
    /// Somebody dials.
    Knock,
    /// The answer to it.
    Answer,
    /// A piece of a stream; `None` ends it.
    Piece { stream: u32, dir: Side, seq: u64, bytes: Option<Bytes> },
    /// Nobody reads a stream's direction any more.
    Stop { stream: u32, dir: Side },
    /// The line is over, and why.
    Close(Closed),
}

struct Flying {
    sent: Instant,
    tries: u32,
    line: u64,
    /// Which end it goes to.
    to: Side,
    what: What,
}

struct Port {
    number: u64,
    clock: Clock,
    credentials: Option<Arc<Credentials>>,
    arrived: VecDeque<u64>,
    waker: Option<Waker>,
    held: bool,
    closed: bool,
}

struct End {
    addr: SocketAddr,
    port: u64,
    shown: Shown,
    closed: Option<Closed>,
    /// With what words this end closed the line, if it did: whoever still speaks to it is told again.
    said: Option<Closed>,
    accepted: VecDeque<u32>,
    /// Whoever holds this end.
    handles: u32,
    /// Wait for a stream, for the dial's answer, for room.
    wakers: Vec<Waker>,
    streams_open: usize,
    heard: u64,
    heard_at: Instant,
}

#[derive(Default)]
struct Dir {
    sent: u64,
    /// When the last piece was sent.
    sent_at: Option<Instant>,
    /// The piece with which the end came, as it does if both were said at once.
    last: Option<u64>,
    next: u64,
    early: BTreeMap<u64, Option<Bytes>>,
    ready: VecDeque<Bytes>,
    bytes: usize,
    /// The sender has said all.
    finishing: bool,
    /// And it has arrived.
    finished: bool,
    reader_gone: bool,
    /// The sender was told so.
    stopped: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

struct Streaming {
    opener: Side,
    dirs: [Dir; 2],
    /// Halves that are still held, by side.
    halves: [u8; 2],
    /// Whether the other end was told.
    announced: bool,
}

struct LineState {
    protocol: Protocol,
    dial: Dial,
    ends: [End; 2],
    /// The dial's outcome, once it is known at the dialling end.
    outcome: Option<Result<(), CallError>>,
    streams: BTreeMap<u32, Streaming>,
    next_stream: u32,
}

struct State {
    wires: Wires,
    flying: Flights<Flying>,
    number: u64,
    ports: BTreeMap<SocketAddr, Port>,
    lines: BTreeMap<u64, LineState>,
    /// Certificates that were verified, and with what result.
    verified: BTreeMap<(Vec<u8>, Vec<u8>), Result<(), String>>,
    wakers: Vec<Waker>,
    trace: Trace,
}

/// The links of one simulation. Cheap to clone.
#[derive(Clone)]
pub struct Links {
    state: Arc<Mutex<State>>,
    news: Arc<Notify>,
}

fn told(closed: &Closed) -> String {
    closed.to_string()
}

impl State {
    fn port_of(&self, line: u64, side: Side) -> Option<&Port> {
        let end = &self.lines.get(&line)?.ends[side];
        self.ports.get(&end.addr).filter(|port| port.number == end.port && !port.closed)
    }

    /// The way to this end, and back.
    fn way(&self, line: u64, to: Side) -> Option<(IpAddr, IpAddr)> {
        let line = self.lines.get(&line)?;
        Some((line.ends[1 - to].addr.ip(), line.ends[to].addr.ip()))
    }

    fn send(&mut self, line: u64, to: Side, what: What) {
        let Some((from, at)) = self.way(line, to) else { return };
        self.wires.sent += 1;
        let now = Instant::now();
        let mut takes = self.wires.latency(from, at);
        let mut tries = 0;
        // What is lost is sent again until it arrives; the wire may be cut by then, which is seen on arrival.
        while self.wires.mishap().0 {
            self.wires.lost += 1;
            takes += again_after(tries);
            tries += 1;
        }
        self.flying.send(now + takes, Flying { sent: now, tries, line, to, what });
    }

    fn wake(&mut self, line: u64, side: Side) {
        if let Some(line) = self.lines.get_mut(&line) {
            self.wakers.append(&mut line.ends[side].wakers);
        }
    }

    /// What has arrived by now. Returns when to look again.
    fn deliver(&mut self) -> Option<Instant> {
        let now = Instant::now();
        while let Some(flying) = self.flying.arrived(now) {
            self.arrive(flying, now);
        }
        self.flying.next_at()
    }

    fn arrive(&mut self, mut flying: Flying, now: Instant) {
        let Some((from, at)) = self.way(flying.line, flying.to) else { return };
        let from_process = self.port_of(flying.line, 1 - flying.to).is_some();
        // A last word is said once; everything else until it arrives or nobody is there to say it.
        let last_word = matches!(flying.what, What::Close(_));
        let waits = matches!(flying.what, What::Knock) && !self.answers(flying.line);
        if waits || self.wires.cut(from, at) {
            self.wires.lost += u64::from(!waits);
            if !last_word && from_process {
                let at = now + again_after(flying.tries);
                flying.tries += 1;
                self.flying.send(at, flying);
            }
            return;
        }
        let (line, to) = (flying.line, flying.to);
        self.note(&flying, from, at);
        match flying.what {
            What::Knock => self.knocked(line, now),
            What::Answer => self.answered(line, now),
            What::Close(closed) => self.over(line, to, closed),
            What::Stop { stream, dir } => self.stopped(line, stream, dir),
            What::Piece { stream, dir, seq, bytes } => {
                if self.port_of(line, to).is_none() {
                    // The process that knew this line is gone. Another in its place says so.
                    let addr = self.lines.get(&line).map(|line| line.ends[to].addr);
                    if addr.is_some_and(|addr| self.ports.get(&addr).is_some_and(|port| !port.held)) {
                        self.send(line, 1 - to, What::Close(Closed::Broken("reset by peer".into())));
                    }
                    return;
                }
                self.piece(line, to, (stream, dir, seq, bytes), now);
            }
        }
    }

    /// Whether anybody answers at the dialled address. A process that stands still does not, nor one without a
    /// certificate; the rest their machine keeps for them.
    fn answers(&self, line: u64) -> bool {
        let port = self.lines.get(&line).and_then(|line| self.ports.get(&line.ends[1].addr));
        port.is_some_and(|port| !port.held && (port.closed || port.credentials.is_some()))
    }

    fn note(&self, flying: &Flying, from: IpAddr, to: IpAddr) {
        let (label, bytes): (&str, &[u8]) = match &flying.what {
            What::Knock => ("Knock", &[]),
            What::Answer => ("Answer", &[]),
            What::Stop { .. } => ("Stop", &[]),
            What::Close(_) => ("Close", &[]),
            What::Piece { bytes: None, .. } => ("Finish", &[]),
            What::Piece { stream, dir, seq, bytes: Some(bytes) } => {
                (self.label(flying.line, *stream, *dir, *seq, bytes), bytes)
            }
        };
        self.trace.message(label, from, to, bytes, flying.sent, false);
    }

    /// What a piece is: a frame by its kind, all else an answer.
    fn label(&self, line: u64, stream: u32, dir: Side, seq: u64, bytes: &[u8]) -> &'static str {
        let opener = self.lines.get(&line).and_then(|line| line.streams.get(&stream)).map(|s| s.opener);
        if opener != Some(dir) && seq == 0 {
            return "Reply";
        }
        match bytes.get(4..6).and_then(|tag| Kind::from_tag(u16::from_be_bytes([tag[0], tag[1]]))) {
            Some(kind) => kind.name(),
            None => "Bytes",
        }
    }

    fn knocked(&mut self, line: u64, now: Instant) {
        let outcome = self.admit(line);
        let Some(state) = self.lines.get_mut(&line) else { return };
        let addr = state.ends[1].addr;
        match outcome {
            Ok((number, client)) => {
                state.ends[1].port = number;
                state.ends[1].heard_at = now;
                state.outcome = Some(Ok(()));
                if let Err(why) = client {
                    // As in TLS 1.3: the dialling end believes that it is there, until it is told.
                    self.send(line, 0, What::Answer);
                    self.send(line, 0, What::Close(Closed::Broken(format!("aborted by peer: {why}"))));
                    self.end(line, 1, Closed::Broken(why));
                } else if let Some(port) = self.ports.get_mut(&addr) {
                    port.arrived.push_back(line);
                    self.wakers.extend(port.waker.take());
                    self.send(line, 0, What::Answer);
                }
            }
            Err(Some(why)) => {
                state.outcome = Some(Err(CallError::Unreachable(why)));
                self.send(line, 0, What::Answer);
            }
            // Nobody is there, and nobody says so.
            Err(None) => {}
        }
    }

    /// Who answers at the dialled address, and what it makes of the caller.
    #[allow(clippy::type_complexity, reason = "three outcomes, each with its own words")]
    fn admit(&mut self, line: u64) -> Result<(u64, Result<(), String>), Option<String>> {
        let state = self.lines.get(&line).ok_or(None)?;
        let (dial, from) = (state.dial.clone(), state.ends[0].addr);
        let port = self.ports.get(&state.ends[1].addr).ok_or(None)?;
        let (number, server_now) = (port.number, (port.clock)());
        let server = port.credentials.clone().filter(|_| !port.closed);
        let server = server.ok_or_else(|| Some("the server refused to accept".to_owned()))?;
        let client_now = self.ports.get(&from).map(|port| (port.clock)()).ok_or(None)?;
        let expected = dial.expected;
        self.verify(&dial.proof, expected, &server, client_now).map_err(Some)?;
        let client = match &dial.proof {
            Proof::Pinned(_) => Ok(()),
            Proof::Certificate(client) => self.verify_caller(&server, client, server_now),
        };
        let state = self.lines.get_mut(&line).ok_or(None)?;
        state.ends[0].shown = Shown::Identity(*server.identity());
        state.ends[1].shown = match &dial.proof {
            Proof::Pinned(_) => Shown::Nothing,
            Proof::Certificate(client) => Shown::Identity(*client.identity()),
        };
        Ok((number, client))
    }

    /// The verifier's verdict does not change while the certificate is valid, so it is asked once.
    fn verify(
        &mut self,
        proof: &Proof,
        expected: Expected,
        server: &Arc<Credentials>,
        now: shoal_core::model::Timestamp,
    ) -> Result<(), String> {
        if !server.is_valid_at(now) {
            return verify_server(proof, expected, server, now);
        }
        let root = match proof {
            Proof::Certificate(credentials) => credentials.root().to_vec(),
            Proof::Pinned(pin) => pin.to_vec(),
        };
        let key = ([root, expected.name().into_bytes()].concat(), server.certificate().to_vec());
        self.remember(key, || verify_server(proof, expected, server, now))
    }

    fn verify_caller(
        &mut self,
        server: &Arc<Credentials>,
        client: &Arc<Credentials>,
        now: shoal_core::model::Timestamp,
    ) -> Result<(), String> {
        if !client.is_valid_at(now) {
            return verify_client(server, client, now);
        }
        let key = (server.root().to_vec(), client.certificate().to_vec());
        self.remember(key, || verify_client(server, client, now))
    }

    fn remember(
        &mut self,
        key: (Vec<u8>, Vec<u8>),
        verdict: impl FnOnce() -> Result<(), String>,
    ) -> Result<(), String> {
        if self.verified.len() >= VERIFIED_MAX {
            self.verified.clear();
        }
        self.verified.entry(key).or_insert_with(verdict).clone()
    }

    fn answered(&mut self, line: u64, now: Instant) {
        if let Some(state) = self.lines.get_mut(&line) {
            state.ends[0].heard_at = now;
            state.ends[0].heard += 1;
        }
        self.wake(line, 0);
    }

    fn piece(
        &mut self,
        line: u64,
        to: Side,
        (stream, dir, seq, bytes): (u32, Side, u64, Option<Bytes>),
        now: Instant,
    ) {
        let held = self.port_of(line, to).is_some_and(|port| port.held);
        let back_is_cut = self.way(line, to).is_none_or(|(from, at)| self.wires.cut(at, from));
        let Some(state) = self.lines.get_mut(&line) else { return };
        if state.ends[to].closed.is_some() {
            let said = state.ends[to].said.clone();
            let closed = said.unwrap_or_else(|| Closed::Broken("reset by peer".into()));
            return self.send(line, 1 - to, What::Close(closed));
        }
        state.ends[to].heard += 1;
        state.ends[to].heard_at = now;
        // Its arrival is acknowledged, if there is anybody who could.
        if !held && !back_is_cut {
            state.ends[1 - to].heard += 1;
            state.ends[1 - to].heard_at = now;
        }
        let Some(streaming) = state.streams.get_mut(&stream) else { return };
        if streaming.opener != to && !streaming.announced {
            // With it all that were opened before it, whatever has come of them.
            let before = state.streams.range_mut(..=stream).filter(|(_, s)| s.opener != to && !s.announced);
            for (number, streaming) in before {
                streaming.announced = true;
                state.ends[to].accepted.push_back(*number);
            }
            self.wakers.append(&mut state.ends[to].wakers);
        }
        let Some(streaming) = state.streams.get_mut(&stream) else { return };
        let dir = &mut streaming.dirs[dir];
        dir.early.insert(seq, bytes);
        while let Some(bytes) = dir.early.remove(&dir.next) {
            dir.next += 1;
            match bytes {
                Some(bytes) if dir.reader_gone => dir.bytes = dir.bytes.saturating_sub(bytes.len()),
                Some(bytes) => dir.ready.push_back(bytes),
                None => dir.finished = true,
            }
            dir.finished |= dir.last == Some(dir.next - 1);
        }
        self.wakers.extend(dir.reader.take());
        if dir.reader_gone {
            self.wakers.extend(dir.writer.take());
        }
        self.forget_stream(line, stream);
    }

    /// Whoever writes this way is told that nobody reads it.
    fn stopped(&mut self, line: u64, stream: u32, dir: Side) {
        let Some(state) = self.lines.get_mut(&line) else { return };
        let Some(streaming) = state.streams.get_mut(&stream) else { return };
        streaming.dirs[dir].stopped = true;
        self.wakers.extend(streaming.dirs[dir].writer.take());
    }

    /// One end is over; it does not speak of it.
    fn end(&mut self, line: u64, side: Side, why: Closed) {
        let Some(state) = self.lines.get_mut(&line) else { return };
        if state.ends[side].closed.is_none() {
            state.ends[side].closed = Some(why);
        }
        for streaming in state.streams.values_mut() {
            for dir in &mut streaming.dirs {
                self.wakers.extend(dir.reader.take());
                self.wakers.extend(dir.writer.take());
            }
        }
        self.wake(line, side);
        self.forget_line(line);
    }

    /// One end is told that the line is over.
    fn over(&mut self, line: u64, side: Side, why: Closed) {
        if let Some(state) = self.lines.get_mut(&line) {
            state.ends[side].heard += 1;
        }
        self.end(line, side, why);
    }

    /// One end closes the line and says so.
    fn close(&mut self, line: u64, side: Side, code: u32, why: &str) {
        // A process that is gone says nothing any more.
        if over(self, line, side).is_some() {
            return;
        }
        let told = Closed::Told { code, why: why.to_owned() };
        self.send(line, 1 - side, What::Close(told.clone()));
        if let Some(state) = self.lines.get_mut(&line) {
            state.ends[side].said = Some(told);
        }
        self.end(line, side, Closed::Broken("closed".into()));
    }

    /// Whoever lets the last of a line go closes it.
    fn let_go(&mut self, line: u64, side: Side) {
        let Some(state) = self.lines.get(&line) else { return };
        let halves = state.streams.values().any(|streaming| streaming.halves[side] > 0);
        if state.ends[side].handles == 0 && !halves {
            self.close(line, side, 0, "");
        }
        self.forget_line(line);
    }

    fn forget_stream(&mut self, line: u64, stream: u32) {
        let Some(state) = self.lines.get_mut(&line) else { return };
        let Some(streaming) = state.streams.get(&stream) else { return };
        let said = streaming.dirs.iter().all(|dir| dir.finished);
        let held = streaming.halves.iter().any(|halves| *halves > 0);
        let waits = !streaming.announced || state.ends[1 - streaming.opener].accepted.contains(&stream);
        if said && !held && !waits {
            let opener = streaming.opener;
            state.streams.remove(&stream);
            state.ends[opener].streams_open -= 1;
            self.wakers.append(&mut state.ends[opener].wakers);
        }
    }

    /// A line that nobody holds open any more is forgotten once nothing of it can be asked.
    fn forget_line(&mut self, line: u64) {
        let Some(state) = self.lines.get(&line) else { return };
        let gone = |side: Side| {
            let end = &state.ends[side];
            let halves = state.streams.values().any(|streaming| streaming.halves[side] > 0);
            self.port_of(line, side).is_none() || (end.closed.is_some() && end.handles == 0 && !halves)
        };
        if gone(0) && gone(1) {
            self.lines.remove(&line);
        }
    }

    /// Ends of which the other was not heard for too long are over.
    fn sweep(&mut self) {
        let now = Instant::now();
        let mut silent = Vec::new();
        let whole = self.wires.whole();
        let ids: Vec<u64> = self.lines.keys().copied().collect();
        for id in ids {
            for side in [0, 1] {
                let there = self.port_of(id, side).is_some_and(|port| !port.held);
                let other = self.port_of(id, 1 - side).is_some_and(|port| !port.held);
                let Some((from, at)) = self.way(id, side) else { continue };
                let open = whole || !(self.wires.cut(from, at) || self.wires.cut(at, from));
                let Some(state) = self.lines.get_mut(&id) else { continue };
                let established = state.ends[1].port != 0;
                let end = &mut state.ends[side];
                if !there || end.closed.is_some() || !established {
                    continue;
                }
                if other && open {
                    end.heard_at = now;
                } else if now.duration_since(end.heard_at) > IDLE_TIMEOUT {
                    silent.push((id, side));
                }
            }
            self.forget_line(id);
        }
        for (id, side) in silent {
            self.end(id, side, Closed::Broken("timed out".into()));
        }
    }
}

fn again_after(tries: u32) -> Duration {
    AGAIN_AFTER.saturating_mul(1 << tries.min(6)).min(AGAIN_AFTER_MAX)
}

impl Links {
    /// Links that follow from the seed. Must be made inside the runtime.
    #[must_use]
    pub fn new(seed: u64, pace: Pace, trace: Trace) -> Self {
        let state = State {
            wires: Wires::new(seed),
            flying: Flights::new(),
            number: 0,
            ports: BTreeMap::new(),
            lines: BTreeMap::new(),
            verified: BTreeMap::new(),
            wakers: Vec::new(),
            trace,
        };
        let links = Self { state: Arc::new(Mutex::new(state)), news: Arc::default() };
        tokio::spawn(pump(links.clone()));
        tokio::spawn(sweep(links.clone(), pace.of(SWEEP_EVERY).min(IDLE_TIMEOUT / 2)));
        links
    }

    /// Work on the state, then wake whom that concerns.
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let first = state.flying.next_at();
        let result = work(&mut state);
        let sooner = state.flying.next_at() != first;
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        if sooner {
            self.news.notify_one();
        }
        result
    }

    /// Change or ask the wires.
    pub(crate) fn wires<T>(&self, work: impl FnOnce(&mut Wires) -> T) -> T {
        self.with(|state| work(&mut state.wires))
    }

    /// Lines that are known: those that are open, and those of which an end is still held.
    #[must_use]
    pub fn lines(&self) -> usize {
        self.with(|state| state.lines.len())
    }

    /// The carrier of a host's node.
    #[must_use]
    pub fn bind(&self, addr: SocketAddr, clock: Clock) -> Arc<dyn Carrier> {
        let number = self.with(|state| {
            state.number += 1;
            let number = state.number;
            let port = Port {
                number,
                clock,
                credentials: None,
                arrived: VecDeque::new(),
                waker: None,
                held: false,
                closed: false,
            };
            state.ports.insert(addr, port);
            number
        });
        Arc::new(LinkCarrier { links: self.clone(), addr, number })
    }

    /// The process at this address is gone, and said nothing.
    pub fn unbind(&self, addr: SocketAddr) {
        self.with(|state| {
            state.ports.remove(&addr);
        });
    }

    /// The process at this address stands still, or goes on.
    pub fn hold(&self, addr: SocketAddr, held: bool) {
        self.with(|state| {
            if let Some(port) = state.ports.get_mut(&addr) {
                port.held = held;
            }
        });
    }
}

async fn pump(links: Links) {
    flight::pump(&links.news, || links.with(State::deliver)).await;
}

async fn sweep(links: Links, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        links.with(State::sweep);
    }
}

struct LinkCarrier {
    links: Links,
    addr: SocketAddr,
    number: u64,
}

impl LinkCarrier {
    fn line(&self, id: u64, side: Side) -> Arc<dyn Line> {
        let (remote, protocol, shown) = self.links.with(|state| match state.lines.get_mut(&id) {
            Some(line) => {
                line.ends[side].handles += 1;
                (line.ends[1 - side].addr, Some(line.protocol), line.ends[side].shown)
            }
            None => (self.addr, None, Shown::Nothing),
        });
        Arc::new(LinkLine { links: self.links.clone(), id, side, remote, protocol, shown })
    }

    fn port<'a>(&self, state: &'a mut State) -> Option<&'a mut Port> {
        state.ports.get_mut(&self.addr).filter(|port| port.number == self.number)
    }
}

impl Carrier for LinkCarrier {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    fn set_server(&self, credentials: Option<&Arc<Credentials>>) -> Result<(), String> {
        self.links.with(|state| {
            if let Some(port) = self.port(state) {
                port.credentials = credentials.cloned();
            }
        });
        Ok(())
    }

    fn accept(&self) -> BoxFuture<'_, Option<Arriving>> {
        Box::pin(poll_fn(move |cx| {
            let arrived = self.links.with(|state| match self.port(state) {
                Some(port) if !port.closed => match port.arrived.pop_front() {
                    Some(id) => Poll::Ready(Some(id)),
                    None => {
                        port.waker = Some(cx.waker().clone());
                        Poll::Pending
                    }
                },
                _ => Poll::Ready(None),
            });
            arrived.map(|id| {
                let line = self.line(id?, 1);
                Some(Box::pin(std::future::ready(Ok(line))) as Arriving)
            })
        }))
    }

    fn dial(&self, dial: Dial) -> BoxFuture<'_, Result<Arc<dyn Line>, CallError>> {
        let now = Instant::now();
        let end = |addr, port| End {
            addr,
            port,
            shown: Shown::Nothing,
            closed: None,
            said: None,
            accepted: VecDeque::new(),
            handles: 0,
            wakers: Vec::new(),
            streams_open: 0,
            heard: 0,
            heard_at: now,
        };
        let id = self.links.with(|state| {
            self.port(state).filter(|port| !port.closed)?;
            state.number += 1;
            let id = state.number;
            let mut line = LineState {
                protocol: dial.protocol,
                ends: [end(self.addr, self.number), end(dial.addr, 0)],
                dial,
                outcome: None,
                streams: BTreeMap::new(),
                next_stream: 0,
            };
            // Held by the dial until whoever asked for it does.
            line.ends[0].handles = 1;
            state.lines.insert(id, line);
            state.send(id, 1, What::Knock);
            Some(id)
        });
        let Some(id) = id else {
            return Box::pin(async { Err(CallError::Unreachable("the carrier is closed".into())) });
        };
        // Given up, the dial leaves nothing behind.
        let guard = Dialling { links: self.links.clone(), id, opened: false };
        Box::pin(async move {
            poll_fn(|cx| {
                self.links.with(|state| {
                    let closed = over(state, id, 0);
                    let Some(line) = state.lines.get_mut(&id) else {
                        return Poll::Ready(Err(CallError::Unreachable("the line is gone".into())));
                    };
                    match (&line.outcome, closed) {
                        (Some(outcome), _) if line.ends[0].heard > 0 => Poll::Ready(outcome.clone()),
                        (_, Some(closed)) => Poll::Ready(Err(CallError::Unreachable(told(&closed)))),
                        _ => {
                            line.ends[0].wakers.push(cx.waker().clone());
                            Poll::Pending
                        }
                    }
                })
            })
            .await?;
            let line = self.line(id, 0);
            guard.opened();
            Ok(line)
        })
    }

    fn open_lines(&self) -> usize {
        self.links.with(|state| {
            let mine = |end: &End| end.addr == self.addr && end.port == self.number && end.closed.is_none();
            state.lines.values().filter(|line| line.ends.iter().any(mine)).count()
        })
    }

    fn close<'a>(&'a self, code: u32, why: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.links.with(|state| {
                let mine = |end: &End| end.addr == self.addr && end.port == self.number;
                let ids: Vec<(u64, Side)> = state
                    .lines
                    .iter()
                    .flat_map(|(id, line)| [0, 1].map(|side| (*id, side, mine(&line.ends[side]))))
                    .filter_map(|(id, side, mine)| mine.then_some((id, side)))
                    .collect();
                for (id, side) in ids {
                    state.close(id, side, code, why);
                }
                if let Some(port) = self.port(state) {
                    port.closed = true;
                    port.arrived.clear();
                    let waker = port.waker.take();
                    state.wakers.extend(waker);
                }
            });
        })
    }
}

struct Dialling {
    links: Links,
    id: u64,
    opened: bool,
}

impl Dialling {
    fn opened(mut self) {
        self.opened = true;
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        let (id, opened) = (self.id, self.opened);
        self.links.with(|state| {
            let Some(line) = state.lines.get_mut(&id) else { return };
            line.ends[0].handles = line.ends[0].handles.saturating_sub(1);
            let unanswered = line.ends[1].port == 0;
            if !opened {
                state.end(id, 0, Closed::Broken("given up".into()));
            }
            if !opened && unanswered {
                state.lines.remove(&id);
            }
            state.forget_line(id);
        });
    }
}

struct LinkLine {
    links: Links,
    id: u64,
    side: Side,
    remote: SocketAddr,
    protocol: Option<Protocol>,
    shown: Shown,
}

impl fmt::Debug for LinkLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkLine({} to {})", self.id, self.remote)
    }
}

fn gone() -> Closed {
    Closed::Broken("the line is gone".into())
}

/// Why this end is over, if it is.
fn over(state: &State, line: u64, side: Side) -> Option<Closed> {
    match state.lines.get(&line) {
        None => Some(gone()),
        Some(known) => {
            known.ends[side].closed.clone().or_else(|| state.port_of(line, side).is_none().then(gone))
        }
    }
}

impl LinkLine {
    fn halves(&self, stream: u32, opener: Side) -> Stream {
        let half = |dir| Half { links: self.links.clone(), line: self.id, side: self.side, stream, dir };
        let mine = if opener == self.side { 0 } else { 1 };
        // Direction 0 is the opener's.
        (Box::new(LinkTx(half(mine))), Box::new(LinkRx(half(1 - mine))))
    }
}

impl Drop for LinkLine {
    fn drop(&mut self) {
        self.links.with(|state| {
            if let Some(line) = state.lines.get_mut(&self.id) {
                let end = &mut line.ends[self.side];
                end.handles = end.handles.saturating_sub(1);
            }
            state.let_go(self.id, self.side);
        });
    }
}

impl Line for LinkLine {
    fn id(&self) -> usize {
        usize::try_from(self.id).unwrap_or(usize::MAX)
    }

    fn remote(&self) -> SocketAddr {
        self.remote
    }

    fn protocol(&self) -> Option<Protocol> {
        self.protocol
    }

    fn shown(&self) -> Shown {
        self.shown
    }

    fn open(&self) -> BoxFuture<'_, Result<Stream, Closed>> {
        Box::pin(poll_fn(move |cx| {
            let opened = self.links.with(|state| {
                if let Some(closed) = over(state, self.id, self.side) {
                    return Poll::Ready(Err(closed));
                }
                let Some(line) = state.lines.get_mut(&self.id) else { return Poll::Ready(Err(gone())) };
                if line.ends[self.side].streams_open >= STREAMS_MAX {
                    line.ends[self.side].wakers.push(cx.waker().clone());
                    return Poll::Pending;
                }
                line.ends[self.side].streams_open += 1;
                line.next_stream += 1;
                let mut halves = [0, 0];
                halves[self.side] = 2;
                let streaming =
                    Streaming { opener: self.side, dirs: Default::default(), halves, announced: false };
                line.streams.insert(line.next_stream, streaming);
                Poll::Ready(Ok(line.next_stream))
            });
            opened.map_ok(|stream| self.halves(stream, self.side))
        }))
    }

    fn accept(&self) -> BoxFuture<'_, Result<Stream, Closed>> {
        Box::pin(poll_fn(move |cx| {
            let accepted = self.links.with(|state| {
                let closed = over(state, self.id, self.side);
                let Some(line) = state.lines.get_mut(&self.id) else { return Poll::Ready(Err(gone())) };
                let Some(stream) = line.ends[self.side].accepted.pop_front() else {
                    if let Some(closed) = closed {
                        return Poll::Ready(Err(closed));
                    }
                    line.ends[self.side].wakers.push(cx.waker().clone());
                    return Poll::Pending;
                };
                if let Some(streaming) = line.streams.get_mut(&stream) {
                    streaming.halves[self.side] = 2;
                }
                Poll::Ready(Ok(stream))
            });
            accepted.map_ok(|stream| self.halves(stream, 1 - self.side))
        }))
    }

    fn close(&self, code: u32, why: &str) {
        self.links.with(|state| state.close(self.id, self.side, code, why));
    }

    fn closed(&self) -> Option<Closed> {
        self.links.with(|state| over(state, self.id, self.side))
    }

    fn heard(&self) -> u64 {
        self.links.with(|state| state.lines.get(&self.id).map_or(0, |line| line.ends[self.side].heard))
    }
}

/// One half of a stream, at one end.
struct Half {
    links: Links,
    line: u64,
    side: Side,
    stream: u32,
    dir: Side,
}

impl Half {
    fn dir<'a>(&self, state: &'a mut State) -> Option<&'a mut Dir> {
        Some(&mut state.lines.get_mut(&self.line)?.streams.get_mut(&self.stream)?.dirs[self.dir])
    }

    fn finish(&self, state: &mut State) -> Result<(), String> {
        if let Some(closed) = over(state, self.line, self.side) {
            return Err(told(&closed));
        }
        let Some(dir) = self.dir(state).filter(|dir| !dir.finishing) else {
            return Err("the stream is closed".into());
        };
        dir.finishing = true;
        let seq = dir.sent;
        if dir.sent_at == Some(Instant::now()) && dir.next < seq {
            dir.last = Some(seq - 1);
            return Ok(());
        }
        dir.sent += 1;
        let piece = What::Piece { stream: self.stream, dir: self.dir, seq, bytes: None };
        state.send(self.line, 1 - self.side, piece);
        Ok(())
    }

    fn let_go(&self, state: &mut State) {
        if let Some(line) = state.lines.get_mut(&self.line)
            && let Some(streaming) = line.streams.get_mut(&self.stream)
        {
            streaming.halves[self.side] = streaming.halves[self.side].saturating_sub(1);
        }
        state.forget_stream(self.line, self.stream);
        state.let_go(self.line, self.side);
    }
}

impl fmt::Debug for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {} of line {}", self.stream, self.line)
    }
}

#[derive(Debug)]
struct LinkTx(Half);

impl Tx for LinkTx {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), String>> {
        let half = &self.0;
        let mut bytes = Some(bytes);
        Box::pin(poll_fn(move |cx| {
            half.links.with(|state| {
                if let Some(closed) = over(state, half.line, half.side) {
                    return Poll::Ready(Err(told(&closed)));
                }
                let Some(dir) = half.dir(state).filter(|dir| !dir.finishing) else {
                    return Poll::Ready(Err("the stream is closed".into()));
                };
                if dir.stopped {
                    return Poll::Ready(Err("stopped by peer".into()));
                }
                if dir.bytes > WINDOW_BYTES {
                    dir.writer = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                let Some(bytes) = bytes.take() else { return Poll::Ready(Ok(())) };
                dir.bytes += bytes.len();
                dir.sent_at = Some(Instant::now());
                let seq = dir.sent;
                dir.sent += 1;
                let piece = What::Piece { stream: half.stream, dir: half.dir, seq, bytes: Some(bytes) };
                state.send(half.line, 1 - half.side, piece);
                Poll::Ready(Ok(()))
            })
        }))
    }

    fn finish(&mut self) -> Result<(), String> {
        self.0.links.with(|state| self.0.finish(state))
    }

    fn reset(&mut self) {
        let _ = self.finish();
    }
}

impl Drop for LinkTx {
    fn drop(&mut self) {
        self.0.links.with(|state| {
            let _ = self.0.finish(state);
            self.0.let_go(state);
        });
    }
}

#[derive(Debug)]
struct LinkRx(Half);

impl Rx for LinkRx {
    fn read(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, String>> {
        let half = &self.0;
        Box::pin(poll_fn(move |cx| {
            half.links.with(|state| {
                let closed = over(state, half.line, half.side);
                let Some(dir) = half.dir(state) else {
                    let why = closed.as_ref().map_or_else(|| "the stream is gone".to_owned(), told);
                    return Poll::Ready(Err(why));
                };
                if let Some(bytes) = dir.ready.pop_front() {
                    dir.bytes = dir.bytes.saturating_sub(bytes.len());
                    let writer = dir.writer.take();
                    state.wakers.extend(writer);
                    return Poll::Ready(Ok(Some(bytes)));
                }
                if dir.finished {
                    return Poll::Ready(Ok(None));
                }
                if let Some(closed) = closed {
                    return Poll::Ready(Err(told(&closed)));
                }
                dir.reader = Some(cx.waker().clone());
                Poll::Pending
            })
        }))
    }
}

impl Drop for LinkRx {
    fn drop(&mut self) {
        self.0.links.with(|state| {
            let half = &self.0;
            let open = over(state, half.line, half.side).is_none();
            if let Some(dir) = half.dir(state) {
                dir.reader_gone = true;
                let unread: usize = dir.ready.drain(..).map(|bytes| bytes.len()).sum();
                dir.bytes = dir.bytes.saturating_sub(unread);
                let (writer, more) = (dir.writer.take(), !dir.finished);
                state.wakers.extend(writer);
                if open && more {
                    let stop = What::Stop { stream: half.stream, dir: half.dir };
                    state.send(half.line, 1 - half.side, stop);
                }
            }
            half.let_go(state);
        });
    }
}
