//! The far end: another node's client, and a task of this node.

use std::sync::Arc;
use std::time::Duration;

use shoal_core::mesh::Route;
use shoal_core::model::{NodeId, Protocol};
use shoal_wire::codec;
use shoal_wire::v1::{ConnectRequest, connect_answer};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::client::{Refused, connect_here};
use super::flows::Counted;
use super::upstream::Upstream;
use super::{Shared, pump, stats, udp};
use crate::{FrameReceiver, FrameSender};

/// Whoever asks may know of a task's start before this node's own table does: so long is waited for it.
const NEWS_MAX: Duration = Duration::from_secs(1);

/// Serve a stream by which another node connects to a task here.
pub(super) async fn serve(
    shared: Arc<Shared>,
    from: NodeId,
    body: Vec<u8>,
    tx: FrameSender,
    rx: FrameReceiver,
) {
    stats::add(&shared.stats.served, 1);
    let (mut word, mut tx) = tx.into_raw();
    let (first, rx) = rx.into_raw();
    let place = shared.open.try_acquire();
    let connected = match &place {
        Ok(_) => connect(&shared, &body).await,
        Err(_) if shared.flows.is_closing() => Err(Refused::Draining),
        Err(_) => Err(Refused::Failed("too many connections are open here".into())),
    };
    let (answer, made) = match connected {
        Ok(made) => (connect_answer::CONNECTED, Some(made)),
        Err(Refused::Draining) => (connect_answer::DRAINING, None),
        Err(Refused::Failed(why) | Refused::Silent(why)) => {
            tracing::debug!(node = %from, why, "a connection for another node was not made");
            (connect_answer::FAILED, None)
        }
    };
    word.push(answer);
    let said = tx.write(word.into()).await;
    let Some((task, counted)) = made else {
        stats::add(&shared.stats.served_refused, 1);
        let _ = tx.finish();
        return;
    };
    match task {
        _ if said.is_err() => {}
        Task::Tcp(stream) => pump::far(stream, tx, rx, first, counted).await,
        Task::Udp(upstream) => udp::far(upstream, tx, rx, first, counted).await,
    }
}

enum Task {
    Tcp(TcpStream),
    Udp(Box<Upstream>),
}

async fn connect(shared: &Arc<Shared>, body: &[u8]) -> Result<(Task, Counted), Refused> {
    let request: ConnectRequest = codec::decode(body).map_err(|error| Refused::Failed(error.to_string()))?;
    if shared.flows.is_closing() {
        return Err(Refused::Draining);
    }
    let counted = shared.flows.enter(request.task).map_err(|_| Refused::Draining)?;
    let route = route(shared, &request).await?;
    let task = match request.protocol {
        Protocol::Tcp => Task::Tcp(connect_here(shared, &route, &request).await?),
        Protocol::Udp => Task::Udp(connect_here(shared, &route, &request).await?),
        Protocol::Sctp => return Err(Refused::Failed("SCTP does not go through the mesh".into())),
    };
    Ok((task, counted))
}

/// The route that lets others reach this port of this task: nothing else is connected to.
async fn route(shared: &Shared, request: &ConnectRequest) -> Result<Arc<Route>, Refused> {
    let mut changed = shared.changed.subscribe();
    let look = async {
        loop {
            changed.mark_unchanged();
            let table = shared.table();
            if let Some(route) = table.serving(shared.node, request.task, request.protocol, request.port) {
                return Some(Arc::clone(route));
            }
            changed.changed().await.ok()?;
        }
    };
    let absent =
        || Refused::Failed(format!("task {} takes no traffic at port {} here", request.task, request.port));
    timeout(NEWS_MAX, look).await.ok().flatten().ok_or_else(absent)
}
