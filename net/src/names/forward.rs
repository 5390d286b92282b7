//! Questions that are handed on to the host's name servers, and come back as they are.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hickory_server::proto::op::ResponseCode;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};

use super::message::{self, Question};
use super::stats::count;
use super::{Shared, Transport};

/// Each name server is asked so often, those that answer nothing.
const TRIES: usize = 2;
/// Room for an answer over UDP, more if the question says so.
const UDP_ANSWER_BYTES: usize = 4096;

/// The answer of the host's name servers, or that there is none.
pub(super) async fn forward(shared: &Shared, question: &Question) -> Vec<u8> {
    if let Some(answer) = ask_all(shared, question).await {
        return answer;
    }
    count(&shared.stats.failures);
    question.failure(ResponseCode::ServFail)
}

async fn ask_all(shared: &Shared, question: &Question) -> Option<Vec<u8>> {
    let mut servers = shared.upstreams.servers(&shared.own());
    if !servers.is_empty() {
        count(&shared.stats.forwarded);
    }
    let mut unhelpful = None;
    for _ in 0..TRIES {
        let mut silent = Vec::new();
        for server in servers {
            let begun = Instant::now();
            match timeout(shared.bounds.patience, ask(server, question)).await {
                Ok(Ok(answer)) => {
                    shared.stats.upstream(begun.elapsed());
                    if !message::is_no_help(&answer) {
                        shared.upstreams.prefer(server);
                        return Some(answer);
                    }
                    unhelpful = Some(answer);
                }
                Ok(Err(error)) => {
                    tracing::debug!(%server, %error, "a name server of the host cannot be asked");
                    silent.push(server);
                }
                Err(_) => silent.push(server),
            }
        }
        servers = silent;
    }
    unhelpful
}

async fn ask(server: SocketAddr, question: &Question) -> io::Result<Vec<u8>> {
    match question.transport() {
        Transport::Udp => ask_udp(server, question).await,
        Transport::Tcp => ask_tcp(server, question).await,
    }
}

async fn ask_udp(server: SocketAddr, question: &Question) -> io::Result<Vec<u8>> {
    // A port of its own for each question: nobody who does not see it can answer.
    let any = match server {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question.bytes()).await?;
    let mut answer = vec![0; UDP_ANSWER_BYTES.max(question.answer_bytes_max())];
    loop {
        let length = socket.recv(&mut answer).await?;
        if question.is_answered_by(&answer[..length]) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, question: &Question) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_message(&mut stream, question.bytes()).await?;
    let answer = read_message(&mut stream).await?;
    if question.is_answered_by(&answer) {
        Ok(answer)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "it answers another question"))
    }
}

/// A message on a connection, after its length.
pub(super) async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Write a message, and its length before it.
pub(super) async fn write_message(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut bytes = Vec::with_capacity(message.len() + 2);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(message);
    stream.write_all(&bytes).await
}
