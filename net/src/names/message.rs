//! Questions and answers as bytes. Nothing here does IO.

use std::net::{IpAddr, SocketAddr};

use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::{Edns, Metadata, ResponseCode};
use hickory_server::proto::rr::rdata::{PTR, SRV};
use hickory_server::proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_server::proto::serialize::binary::BinEncoder;
use hickory_server::server::Request;
use hickory_server::zone_handler::MessageResponseBuilder;
use shoal_core::names::{Answer, NameTable, QueryKind, Scope};

/// Bytes of a message's head.
pub(super) const HEAD_BYTES: usize = 12;
/// Answers over UDP are no longer, whatever is asked for: what is longer may be lost in pieces.
const UDP_BYTES_MAX: u16 = 1232;
/// Records that may come with a question.
const RECORDS_MAX: u16 = 8;
/// Seconds for which an answer may be kept.
const TTL: u32 = 1;

/// How a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// What bytes turned out to be.
pub(super) enum Read {
    /// No question: to be dropped.
    Malformed,
    /// Something that is not done here: this is to be said.
    Refused(Vec<u8>),
    Question(Box<Question>),
}

/// A question.
pub(super) struct Question {
    request: Request,
    transport: Transport,
    name: Name,
    kind: RecordType,
}

/// What is to be done with a question.
pub(super) enum Reply {
    /// This is the answer.
    Known(Vec<u8>),
    /// The host's name servers are to be asked.
    Forward,
}

/// Read a message.
pub(super) fn read(bytes: &[u8], from: SocketAddr, transport: Transport) -> Read {
    let Some((head, _)) = bytes.split_first_chunk::<HEAD_BYTES>() else { return Read::Malformed };
    let [id0, id1, flags, _, counts @ ..] = head;
    let [questions, answers, authorities, more] =
        [0, 2, 4, 6].map(|at| u16::from_be_bytes([counts[at], counts[at + 1]]));
    let is_answer = flags & 0x80 != 0;
    if is_answer {
        return Read::Malformed;
    }
    if flags & 0x78 != 0 {
        // No query, and so of another shape: its head is answered, with its operation.
        let [flags, code] = [0x80 | flags & 0x79, ResponseCode::NotImp.low()];
        return Read::Refused(vec![*id0, *id1, flags, code, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    let records = answers.saturating_add(authorities).saturating_add(more);
    if questions != 1 || records > RECORDS_MAX {
        return Read::Malformed;
    }
    let protocol = if transport == Transport::Udp { Protocol::Udp } else { Protocol::Tcp };
    let Ok(request) = Request::from_bytes(bytes.to_vec(), from, protocol) else { return Read::Malformed };
    let Some(query) = request.queries.queries().first() else { return Read::Malformed };
    let (name, kind, class) = (query.original().name().clone(), query.query_type(), query.query_class());
    let question = Question { request, transport, name, kind };
    if question.request.version() > 0 {
        return Read::Refused(question.failure(ResponseCode::BADVERS));
    }
    let is_transfer = matches!(kind, RecordType::AXFR | RecordType::IXFR);
    if is_transfer || !matches!(class, DNSClass::IN | DNSClass::ANY) {
        return Read::Refused(question.failure(ResponseCode::NotImp));
    }
    Read::Question(Box::new(question))
}

impl Question {
    /// As it came.
    pub(super) fn bytes(&self) -> &[u8] {
        self.request.as_slice()
    }

    /// How it came.
    pub(super) fn transport(&self) -> Transport {
        self.transport
    }

    /// Bytes that whoever asks can take over UDP.
    pub(super) fn answer_bytes_max(&self) -> usize {
        self.request.max_payload().into()
    }

    /// Answer it.
    pub(super) fn answer(&self, table: &NameTable, scope: &Scope, turn: u64) -> Reply {
        let kind = match self.kind {
            RecordType::A => QueryKind::A,
            RecordType::AAAA => QueryKind::Aaaa,
            RecordType::SRV => QueryKind::Srv,
            RecordType::PTR => QueryKind::Ptr,
            RecordType::ANY => QueryKind::Any,
            _ => QueryKind::Other,
        };
        let (mut answers, mut more) = (Vec::new(), Vec::new());
        let mut code = ResponseCode::NoError;
        match table.answer(scope, &self.name.to_ascii(), kind, turn) {
            Answer::NotOurs => return Reply::Forward,
            Answer::NoSuchName => code = ResponseCode::NXDomain,
            Answer::Empty => {}
            Answer::Addresses(addresses) => {
                answers.extend(addresses.into_iter().map(|address| record(&self.name, data(address))));
            }
            Answer::Places(places) => {
                for place in places {
                    let Some(target) = absolute(&place.target) else { continue };
                    let addresses = place.addresses.into_iter();
                    more.extend(addresses.map(|address| record(&target, data(address))));
                    answers.push(record(&self.name, RData::SRV(SRV::new(0, 0, place.port, target))));
                }
            }
            Answer::Names(names) => {
                let names = names.iter().filter_map(|name| absolute(name));
                answers.extend(names.map(|name| record(&self.name, RData::PTR(PTR(name)))));
            }
        }
        Reply::Known(self.reply(code, true, &answers, &more))
    }

    /// Say that it fails, or is refused.
    pub(super) fn failure(&self, code: ResponseCode) -> Vec<u8> {
        self.reply(code, false, &[], &[])
    }

    fn reply(&self, code: ResponseCode, authoritative: bool, answers: &[Record], more: &[Record]) -> Vec<u8> {
        let mut metadata = Metadata::response_from_request(&self.request.metadata);
        metadata.response_code = code;
        metadata.authoritative = authoritative;
        metadata.recursion_available = true;
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_BYTES_MAX);
        let mut builder = MessageResponseBuilder::from_message_request(&self.request);
        if self.request.edns.is_some() {
            builder.edns(&edns);
        }
        let none = || std::iter::empty::<&Record>();
        let response = builder.build(metadata, answers, none(), none(), more);
        let mut bytes = Vec::with_capacity(512);
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(match self.transport {
            Transport::Udp => self.request.max_payload().min(UDP_BYTES_MAX),
            Transport::Tcp => u16::MAX,
        });
        match response.destructive_emit(&mut encoder) {
            Ok(_) => bytes,
            Err(error) => {
                tracing::debug!(name = %self.name, %error, "an answer cannot be written");
                self.bare(ResponseCode::ServFail)
            }
        }
    }

    /// A head alone.
    fn bare(&self, code: ResponseCode) -> Vec<u8> {
        let mut head = vec![0; HEAD_BYTES];
        head[..2].copy_from_slice(&self.request.metadata.id.to_be_bytes());
        head[2] = 0x80;
        head[3] = code.low();
        head
    }

    /// Whether these bytes answer it.
    pub(super) fn is_answered_by(&self, bytes: &[u8]) -> bool {
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else { return false };
        let is_answer = head[..2] == self.request.metadata.id.to_be_bytes() && head[2] & 0x80 != 0;
        let asked = self.request.queries.as_bytes();
        // Names come back as they were asked, or in other letters. Who fails may leave the question out.
        let repeats = rest.get(..asked.len()).is_some_and(|repeated| repeated.eq_ignore_ascii_case(asked));
        let leaves_out = head[4..6] == [0, 0] && head[3] & 0x0f != 0;
        is_answer && (leaves_out || head[4..6] == [0, 1] && repeats)
    }
}

/// Whether another name server may know more than one that answers so.
pub(super) fn is_no_help(answer: &[u8]) -> bool {
    let code = answer.get(3).map_or(0, |byte| byte & 0x0f);
    let is = |other: ResponseCode| code == other.low();
    is(ResponseCode::ServFail) || is(ResponseCode::Refused) || is(ResponseCode::NotImp)
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL, data)
}

fn data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(address.into()),
        IpAddr::V6(address) => RData::AAAA(address.into()),
    }
}

fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// Whatever the bytes are: nothing panics, what answers can be read and answers what was asked.
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(bytes: &[u8], table: &NameTable) {
    let from = SocketAddr::from(([10, 0, 0, 2], 1));
    for transport in [Transport::Udp, Transport::Tcp] {
        let Read::Question(question) = read(bytes, from, transport) else { continue };
        assert!(!question.is_answered_by(bytes), "a question is no answer");
        let replies =
            [question.answer(table, &Scope::All, 1), Reply::Known(question.failure(ResponseCode::ServFail))];
        for reply in replies {
            let Reply::Known(reply) = reply else { continue };
            assert!(question.is_answered_by(&reply), "an answer to another question");
            let most = if transport == Transport::Udp { UDP_BYTES_MAX } else { u16::MAX };
            assert!(reply.len() <= usize::from(most), "an answer of {} bytes", reply.len());
            hickory_server::proto::op::Message::from_vec(&reply).expect("an answer reads");
        }
    }
}
