//! The leader's end of one session: moves frames between the stream and the dispatcher's mailbox.

use actix::Addr;
use shoal_core::model::NodeId;
use shoal_net::{FrameReceiver, FrameSender};
use shoal_wire::Kind;
use shoal_wire::codec;
use shoal_wire::v1::{FromNode, SessionReply, SessionRequest, ToNode};
use tokio::sync::mpsc;

use super::server::{DispatcherActor, ForNode, Heard, OpenSession, SessionGone};

/// Messages that may wait for a slow node; past that its session is closed and begins anew with all tasks.
const OUTBOX_MESSAGES_MAX: usize = 256;

/// Serve a session until either side ends it.
pub async fn serve_session(
    dispatcher: Option<Addr<DispatcherActor>>,
    node: NodeId,
    body: Vec<u8>,
    mut tx: FrameSender,
    mut rx: FrameReceiver,
) {
    let Ok(request) = codec::decode::<SessionRequest>(&body) else {
        tracing::warn!(%node, "malformed session request");
        return;
    };
    let (outbox, mut queue) = mpsc::channel(OUTBOX_MESSAGES_MAX);
    let reply = match &dispatcher {
        Some(dispatcher) => dispatcher.send(OpenSession { node, request, outbox }).await.ok(),
        None => None,
    };
    let reply = reply.unwrap_or(SessionReply::Elsewhere(None));
    let session = match reply {
        SessionReply::Open { session, .. } => Some(session),
        _ => None,
    };
    if send(&mut tx, &ToNode::Reply(reply)).await.is_err() {
        return;
    }
    let (Some(session), Some(dispatcher)) = (session, dispatcher) else {
        let _ = tx.finish().await;
        return;
    };
    loop {
        tokio::select! {
            biased;
            message = queue.recv() => match message {
                Some(message) => {
                    let sent = match message {
                        ForNode::Told(message) => send(&mut tx, &message).await,
                        ForNode::Routes(body) => tx.send(Kind::Routes, body.to_vec()).await.map_err(|_| ()),
                    };
                    if sent.is_err() {
                        break;
                    }
                }
                None => {
                    let _ = tx.finish().await;
                    break;
                }
            },
            frame = rx.recv() => match frame {
                Ok(Some(frame)) if frame.kind == Kind::FromNode => match codec::decode::<FromNode>(&frame.body) {
                    Ok(message) => {
                        if dispatcher.send(Heard { node, session, message }).await.is_err() {
                            break;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%node, %error, "malformed frame in a session");
                        break;
                    }
                },
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            },
        }
    }
    dispatcher.do_send(SessionGone { node, session });
}

async fn send(tx: &mut FrameSender, message: &ToNode) -> Result<(), ()> {
    let body = codec::encode(message).map_err(|_| ())?;
    tx.send(Kind::ToNode, body).await.map_err(|_| ())
}
