//! The demo service's program: answers HTTP with the name of its task until it is asked to stop.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Connections served at once; further ones wait in the listener's queue.
const CONNECTIONS_MAX: usize = 64;
/// A connection that lasts longer is closed.
const CONNECTION_LIFE_MAX: Duration = Duration::from_secs(30);
/// Pause after a failed accept (no descriptor left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The variable in which the demo service gets its task's name.
pub const TASK_VARIABLE: &str = "SHOAL_DEMO_TASK";

/// Serve until SIGTERM or SIGINT.
///
/// # Errors
/// If no address can be listened on or signals cannot be watched.
pub async fn serve(listen: SocketAddr) -> std::io::Result<()> {
    let listener = match TcpListener::bind(listen).await {
        // As a plain process every copy shares this host's ports.
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            TcpListener::bind(SocketAddr::new(listen.ip(), 0)).await?
        }
        other => other?,
    };
    let name = name(std::env::var(TASK_VARIABLE).ok());
    println!("{name} answers on http://{}", listener.local_addr()?);
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = term.recv() => break,
            _ = int.recv() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    let answer = format!("{name}\n");
                    connections.spawn(tokio::time::timeout(CONNECTION_LIFE_MAX, connection(stream, answer)));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
        }
    }
    println!("{name} stops");
    Ok(())
}

async fn connection(stream: tokio::net::TcpStream, answer: String) {
    let service = service_fn(move |_: Request<hyper::body::Incoming>| {
        let answer = answer.clone();
        async move { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(answer)))) }
    });
    // A client that breaks off is its own affair.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// The task's name; the host's (in a container its id) where the runtime told none.
fn name(told: Option<String>) -> String {
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|h| h.trim().to_owned());
    let told = told.filter(|name| !name.is_empty() && !name.contains("{{"));
    told.or_else(host).unwrap_or_else(|| format!("process {}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unexpanded_template_is_no_name() {
        assert_eq!(name(Some("demo.1.x".into())), "demo.1.x");
        assert_ne!(name(Some("{{.Task.Name}}".into())), "{{.Task.Name}}");
    }
}
