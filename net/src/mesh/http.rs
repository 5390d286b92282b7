//! Follows HTTP/1 messages on a connection, without changing a byte, to know when it is between two exchanges: then its
//! task may be another from the next request on, and neither end notices.
//!
//! Whatever is not surely HTTP/1 is opaque, and stays with its task.

use std::collections::VecDeque;

/// A longer head is not looked at.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// Requests without an answer; with more the connection is opaque.
const PIPELINE_MAX: usize = 64;

/// Where one direction is within its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before or in a head.
    Head,
    /// So many bytes of a body are to come.
    Body(u64),
    /// In a body of chunks.
    Chunks(Chunk),
    /// A body that ends with the connection.
    UntilClose,
}

/// Where a body of chunks is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    /// In the line with its size; whether its digits have ended.
    Size(u64, bool),
    /// So many bytes, and the line's end, are to come.
    Data(u64),
    /// In the trailer's lines; how many bytes the present line has.
    Trailer(u32),
}

/// What a request wants to know of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Head,
    Connect,
    Other,
}

/// The body that a head announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    None,
    Bytes(u64),
    Chunked,
}

/// It is not HTTP/1, or nothing that is understood here.
#[derive(Debug, PartialEq, Eq)]
struct Opaque;

/// A head with its length; none if more of it is to come.
type Parsed<T> = Result<Option<(usize, T)>, Opaque>;

#[derive(Debug)]
struct Direction {
    at: At,
    head: Vec<u8>,
}

impl Default for Direction {
    fn default() -> Self {
        Self { at: At::Head, head: Vec::new() }
    }
}

impl Direction {
    fn is_between(&self) -> bool {
        self.at == At::Head && self.head.is_empty()
    }

    /// So many of the next bytes say nothing of where it is: a body's, but for the last.
    fn unseen(&self) -> u64 {
        match self.at {
            At::Body(left) | At::Chunks(Chunk::Data(left)) => left.saturating_sub(1),
            At::UntilClose => u64::MAX,
            At::Head | At::Chunks(_) => 0,
        }
    }

    /// So many of them passed.
    fn skip(&mut self, count: u64) {
        if let At::Body(left) | At::Chunks(Chunk::Data(left)) = &mut self.at {
            *left = left.saturating_sub(count);
        }
    }

    /// Take a body's part from the front of `bytes`. Returns what is left, and whether the body has ended.
    fn body<'a>(&mut self, mut bytes: &'a [u8]) -> Result<(&'a [u8], bool), Opaque> {
        match self.at {
            At::Head => return Ok((bytes, true)),
            At::UntilClose => return Ok((&[], false)),
            At::Body(left) => {
                let here = left.min(bytes.len() as u64);
                let left = left - here;
                self.at = if left == 0 { At::Head } else { At::Body(left) };
                return Ok((&bytes[here as usize..], left == 0));
            }
            At::Chunks(_) => {}
        }
        while let (At::Chunks(chunk), Some(first)) = (self.at, bytes.first().copied()) {
            let mut used = 1;
            let next = match chunk {
                Chunk::Size(size, ended) => match (first, ended) {
                    (b'\n', _) if size == 0 => Chunk::Trailer(0),
                    (b'\n', _) => Chunk::Data(size.checked_add(2).ok_or(Opaque)?),
                    (digit, false) if digit.is_ascii_hexdigit() => {
                        let value = (digit as char).to_digit(16).ok_or(Opaque)?;
                        let size = size.checked_mul(16).and_then(|size| size.checked_add(value.into()));
                        Chunk::Size(size.ok_or(Opaque)?, false)
                    }
                    (b'\r' | b';' | b' ' | b'\t', _) => Chunk::Size(size, true),
                    (_, true) => Chunk::Size(size, true),
                    (_, false) => return Err(Opaque),
                },
                Chunk::Data(left) => {
                    used = left.min(bytes.len() as u64) as usize;
                    match left - used as u64 {
                        0 => Chunk::Size(0, false),
                        left => Chunk::Data(left),
                    }
                }
                Chunk::Trailer(line) => match first {
                    b'\n' if line == 0 => {
                        self.at = At::Head;
                        return Ok((&bytes[1..], true));
                    }
                    b'\n' => Chunk::Trailer(0),
                    b'\r' => Chunk::Trailer(line),
                    _ if line as usize > HEAD_BYTES_MAX => return Err(Opaque),
                    _ => Chunk::Trailer(line + 1),
                },
            };
            self.at = At::Chunks(next);
            bytes = &bytes[used..];
        }
        Ok((bytes, false))
    }

    /// Take a head from the front of `bytes`, if it is there whole. `parse` tells its length, or none if more is needed.
    fn head<'a, T>(
        &mut self,
        bytes: &'a [u8],
        parse: impl Fn(&[u8]) -> Parsed<T>,
    ) -> Result<(&'a [u8], Option<T>), Opaque> {
        if self.head.is_empty()
            && let Some((used, found)) = parse(bytes)?
        {
            if used > HEAD_BYTES_MAX {
                return Err(Opaque);
            }
            return Ok((&bytes[used..], Some(found)));
        }
        let before = self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(HEAD_BYTES_MAX + 1 - before)]);
        if let Some((used, found)) = parse(&self.head)? {
            self.head = Vec::new();
            let fits = used <= HEAD_BYTES_MAX;
            return if fits { Ok((&bytes[used - before..], Some(found))) } else { Err(Opaque) };
        }
        if self.head.len() > HEAD_BYTES_MAX { Err(Opaque) } else { Ok((&[], None)) }
    }
}

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Task,
}

/// Follows both directions of a connection.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    requests: Direction,
    answers: Direction,
    /// Requests whose answer has not ended.
    waiting: VecDeque<Method>,
    /// One end said that the connection ends with this exchange: the task's end of it is part of the answer.
    last: bool,
    /// The client asked for something.
    begun: bool,
    opaque: bool,
}

impl Exchanges {
    /// Whether nothing is under way: no request without its whole answer, no byte of the next.
    pub(super) fn is_idle(&self) -> bool {
        !self.last && self.is_answered()
    }

    /// Whether every request has its whole answer, but for the end of the connection if that is part of it.
    pub(super) fn is_answered(&self) -> bool {
        !self.opaque && self.waiting.is_empty() && self.requests.is_between() && self.answers.is_between()
    }

    /// Whether it is idle because nothing has been asked at all.
    pub(super) fn is_fresh(&self) -> bool {
        self.is_idle() && !self.begun
    }

    /// Whether it is not looked at, or no more.
    pub(super) fn is_opaque(&self) -> bool {
        self.opaque
    }

    /// The client sent this.
    pub(super) fn asked(&mut self, bytes: &[u8]) {
        self.begun = true;
        if !self.opaque && self.try_asked(bytes).is_err() {
            self.give_up();
        }
    }

    /// The task sent this.
    pub(super) fn answered(&mut self, bytes: &[u8]) {
        if !self.opaque && self.try_answered(bytes).is_err() {
            self.give_up();
        }
    }

    fn direction(&mut self, side: Side) -> &mut Direction {
        match side {
            Side::Client => &mut self.requests,
            Side::Task => &mut self.answers,
        }
    }

    /// So many of the next bytes of this side need not be shown here, if they are [`skipped`](Self::skipped).
    pub(super) fn unseen(&mut self, side: Side) -> u64 {
        if self.opaque { u64::MAX } else { self.direction(side).unseen() }
    }

    /// So many of them passed.
    pub(super) fn skipped(&mut self, side: Side, count: u64) {
        self.direction(side).skip(count);
    }

    /// Of a connection that is not looked at.
    pub(super) fn opaque() -> Self {
        Self { opaque: true, ..Self::default() }
    }

    fn give_up(&mut self) {
        *self = Self::opaque();
    }

    fn try_asked(&mut self, mut bytes: &[u8]) -> Result<(), Opaque> {
        while !bytes.is_empty() {
            if self.requests.at != At::Head {
                bytes = self.requests.body(bytes)?.0;
                continue;
            }
            let (rest, head) = self.requests.head(bytes, request)?;
            bytes = rest;
            let Some((method, length, keeps)) = head else { continue };
            self.last |= !keeps;
            if self.waiting.len() == PIPELINE_MAX {
                return Err(Opaque);
            }
            self.waiting.push_back(method);
            self.requests.at = match length {
                Length::None | Length::Bytes(0) => At::Head,
                Length::Bytes(count) => At::Body(count),
                Length::Chunked => At::Chunks(Chunk::Size(0, false)),
            };
        }
        Ok(())
    }

    fn try_answered(&mut self, mut bytes: &[u8]) -> Result<(), Opaque> {
        while !bytes.is_empty() {
            if self.answers.at != At::Head {
                let (rest, ended) = self.answers.body(bytes)?;
                bytes = rest;
                if ended {
                    self.waiting.pop_front();
                }
                continue;
            }
            let method = *self.waiting.front().ok_or(Opaque)?;
            let (rest, head) = self.answers.head(bytes, response)?;
            bytes = rest;
            let Some((status, length, keeps)) = head else { continue };
            self.last |= !keeps && status >= 200;
            let switches = status == 101 || method == Method::Connect && (200..300).contains(&status);
            if switches {
                return Err(Opaque);
            }
            let bodiless = method == Method::Head || matches!(status, 100..=199 | 204 | 304);
            self.answers.at = match length {
                _ if bodiless => At::Head,
                Length::Bytes(0) => At::Head,
                Length::Bytes(count) => At::Body(count),
                Length::Chunked => At::Chunks(Chunk::Size(0, false)),
                Length::None => At::UntilClose,
            };
            if self.answers.at == At::Head && status >= 200 {
                self.waiting.pop_front();
            }
        }
        Ok(())
    }
}

fn length(headers: &[httparse::Header<'_>]) -> Result<Length, Opaque> {
    let mut found = Length::None;
    for header in headers {
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            let value = std::str::from_utf8(header.value).map_err(|_| Opaque)?;
            if !value.trim().eq_ignore_ascii_case("chunked") {
                return Err(Opaque);
            }
            found = Length::Chunked;
        } else if header.name.eq_ignore_ascii_case("content-length") && found != Length::Chunked {
            let value = std::str::from_utf8(header.value).map_err(|_| Opaque)?.trim();
            let count = value.parse().map_err(|_| Opaque)?;
            // Two lengths that differ are somebody's attack on somebody.
            if found != Length::None && found != Length::Bytes(count) {
                return Err(Opaque);
            }
            found = Length::Bytes(count);
        }
    }
    Ok(found)
}

/// Whether the connection goes on after the message, as its version and its headers say.
fn keeps(version: Option<u8>, headers: &[httparse::Header<'_>]) -> bool {
    let words = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("connection"));
    let words: Vec<&str> = words
        .filter_map(|header| std::str::from_utf8(header.value).ok())
        .flat_map(|value| value.split(','))
        .collect();
    let says = |what: &str| words.iter().any(|word| word.trim().eq_ignore_ascii_case(what));
    !says("close") && (version != Some(0) || says("keep-alive"))
}

fn request(bytes: &[u8]) -> Parsed<(Method, Length, bool)> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes).map_err(|_| Opaque)? {
        httparse::Status::Partial => Ok(None),
        httparse::Status::Complete(used) => {
            let method = match request.method {
                Some("HEAD") => Method::Head,
                Some("CONNECT") => Method::Connect,
                _ => Method::Other,
            };
            let keeps = keeps(request.version, request.headers);
            Ok(Some((used, (method, length(request.headers)?, keeps))))
        }
    }
}

fn response(bytes: &[u8]) -> Parsed<(u16, Length, bool)> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes).map_err(|_| Opaque)? {
        httparse::Status::Partial => Ok(None),
        httparse::Status::Complete(used) => {
            let keeps = keeps(response.version, response.headers);
            Ok(Some((used, (response.code.ok_or(Opaque)?, length(response.headers)?, keeps))))
        }
    }
}

/// Both directions of a connection, however the bytes are cut.
#[cfg(fuzzing)]
pub(crate) fn fuzz(asked: &[u8], answered: &[u8], cut: usize) {
    let (mut whole, mut pieces) = (Exchanges::default(), Exchanges::default());
    whole.asked(asked);
    whole.answered(answered);
    asked.chunks(cut.max(1)).for_each(|piece| pieces.asked(piece));
    answered.chunks(cut.max(1)).for_each(|piece| pieces.answered(piece));
    assert_eq!(whole.is_idle(), pieces.is_idle(), "the cuts decide what is seen");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feed in pieces of this size; whether it was idle after each piece.
    fn idle_after(exchanges: &mut Exchanges, asks: bool, text: &str, piece: usize) -> Vec<bool> {
        let feed = |bytes: &[u8]| {
            if asks {
                exchanges.asked(bytes)
            } else {
                exchanges.answered(bytes)
            }
            exchanges.is_idle()
        };
        text.as_bytes().chunks(piece).map(feed).collect()
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    #[test]
    fn a_connection_is_idle_between_exchanges_and_at_no_other_time() {
        let plain = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n1F\r\n0123456789012345678901234567890\r\n0\r\nX: y\r\n\r\n";
        let post = "POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
        let patience = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n";
        let head = "HEAD / HTTP/1.1\r\n\r\n";
        for (request, answer) in [
            (GET, plain),
            (GET, chunked),
            (post, plain),
            (post, patience),
            (head, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
            (GET, "HTTP/1.1 304 Not Modified\r\n\r\n"),
        ] {
            for piece in [1, 2, 3, 7, 1000] {
                let mut exchanges = Exchanges::default();
                assert!(exchanges.is_idle());
                for _ in 0..3 {
                    assert!(
                        idle_after(&mut exchanges, true, request, piece).iter().all(|idle| !idle),
                        "{request}"
                    );
                    let idle = idle_after(&mut exchanges, false, answer, piece);
                    let (last, before) = idle.split_last().unwrap();
                    assert!(
                        *last && before.iter().all(|idle| !idle),
                        "{answer:?} in pieces of {piece}: {idle:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn bytes_of_a_body_need_not_be_seen_but_for_its_last() {
        let mut exchanges = Exchanges::default();
        assert_eq!(exchanges.unseen(Side::Client), 0);
        exchanges.asked(b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\nab");
        assert_eq!(exchanges.unseen(Side::Client), 999_997);
        exchanges.skipped(Side::Client, 999_990);
        exchanges.asked(b"1234567");
        assert_eq!(exchanges.unseen(Side::Client), 0);
        exchanges.asked(b"8");
        exchanges.answered(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff");
        assert_eq!(exchanges.unseen(Side::Task), 0);
        exchanges.answered(b"\r\n");
        assert_eq!(exchanges.unseen(Side::Task), 256);
        exchanges.skipped(Side::Task, 255);
        exchanges.answered(b"\r\n0\r\n\r\n");
        assert!(exchanges.is_idle());
        exchanges.asked(GET.as_bytes());
        exchanges.answered(b"HTTP/1.1 200 OK\r\n\r\nuntil it closes");
        exchanges.skipped(Side::Task, 1 << 40);
        assert_eq!(exchanges.unseen(Side::Task), u64::MAX);
        assert!(!exchanges.is_idle());
        exchanges.asked(b"no HTTP");
        exchanges.asked(b" at all\r\n");
        assert_eq!((exchanges.unseen(Side::Client), exchanges.unseen(Side::Task)), (u64::MAX, u64::MAX));
    }

    #[test]
    fn two_requests_at_once_are_both_waited_for() {
        let mut exchanges = Exchanges::default();
        exchanges.asked(format!("{GET}{GET}").as_bytes());
        exchanges.answered(b"HTTP/1.1 204 No Content\r\n\r\n");
        assert!(!exchanges.is_idle());
        exchanges.answered(b"HTTP/1.1 204 No Content\r\n\r\n");
        assert!(exchanges.is_idle());
    }

    #[test]
    fn what_is_no_http_or_stops_being_it_is_never_idle() {
        let never = |asked: &[u8], answered: &[u8]| {
            let mut exchanges = Exchanges::default();
            exchanges.asked(asked);
            exchanges.answered(answered);
            assert!(!exchanges.is_idle(), "{asked:?} {answered:?}");
        };
        never(b"\x16\x03\x01\x02\x00\x01", b"");
        never(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"");
        never(b"", b"220 mail.example ESMTP\r\n");
        never(GET.as_bytes(), b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n");
        never(b"CONNECT a:1 HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n");
        never(GET.as_bytes(), b"HTTP/1.0 200 OK\r\n\r\nuntil it closes");
        never(
            b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            b"HTTP/1.1 204 No\r\n\r\n",
        );
        never(format!("GET /{} HTTP/1.1\r\n", "x".repeat(HEAD_BYTES_MAX)).as_bytes(), b"");
    }

    #[test]
    fn an_exchange_that_ends_with_its_connection_is_not_between_two() {
        let answer = |version: &str, header: &str| {
            format!("HTTP/1.{version} 200 OK\r\n{header}Content-Length: 5\r\n\r\nhello")
        };
        let ask = |version: &str, header: &str| format!("GET / HTTP/1.{version}\r\n{header}\r\n");
        for (asked, answered, idle) in [
            (ask("1", ""), answer("1", ""), true),
            (ask("1", "Connection: close\r\n"), answer("1", ""), false),
            (ask("1", ""), answer("1", "Connection: x, Close\r\n"), false),
            (ask("0", ""), answer("1", ""), false),
            (ask("0", "Connection: Keep-Alive\r\n"), answer("1", "Connection: keep-alive\r\n"), true),
            (ask("0", "Connection: keep-alive\r\n"), answer("0", ""), false),
        ] {
            let mut exchanges = Exchanges::default();
            exchanges.asked(asked.as_bytes());
            exchanges.answered(answered.as_bytes());
            assert_eq!(exchanges.is_idle(), idle, "{asked:?} {answered:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_nor_grow(turns: Vec<(bool, Vec<u8>)>, prefix in 0usize..3) {
            let mut exchanges = Exchanges::default();
            if prefix > 0 { exchanges.asked(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"); }
            if prefix > 1 { exchanges.answered(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"); }
            for (asks, bytes) in turns {
                if asks { exchanges.asked(&bytes) } else { exchanges.answered(&bytes) }
            }
            prop_assert!(exchanges.requests.head.len() <= HEAD_BYTES_MAX + 1);
        }
    }
}
