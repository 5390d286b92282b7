//! The actor that hosts consensus on every node: idle on a worker, running on a manager, and back.

use actix::{Actor, ActorFutureExt, AtomicResponse, Context, Handler, Message, WrapFuture};

use super::config::RaftConfig;
use super::error::StartError;
use super::handle::RaftHandle;

/// Consensus of one node, if it has a part in it. Calls themselves go to the [`RaftHandle`], not through the
/// mailbox: a proposal must not wait behind a start or a stop.
#[derive(Default)]
pub struct RaftActor {
    active: Option<RaftHandle>,
}

impl Actor for RaftActor {
    type Context = Context<Self>;
}

/// Become a manager. If the node is one already, the running handle is given.
#[derive(Message)]
#[rtype(result = "Result<RaftHandle, StartError>")]
pub struct Start(pub RaftConfig);

/// Become a worker: stop, and leave the disk as it is.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Stop;

impl Handler<Start> for RaftActor {
    type Result = AtomicResponse<Self, Result<RaftHandle, StartError>>;

    fn handle(&mut self, Start(config): Start, _: &mut Context<Self>) -> Self::Result {
        let running = self.active.clone();
        let start = async move {
            match running {
                Some(handle) => Ok(handle),
                None => RaftHandle::start(config).await,
            }
        };
        AtomicResponse::new(Box::pin(start.into_actor(self).map(|started, actor, _| {
            if let Ok(handle) = &started {
                actor.active = Some(handle.clone());
            }
            started
        })))
    }
}

impl Handler<Stop> for RaftActor {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, _: Stop, _: &mut Context<Self>) -> Self::Result {
        let running = self.active.take();
        let stop = async move {
            if let Some(handle) = running {
                handle.shutdown().await;
            }
        };
        AtomicResponse::new(Box::pin(stop.into_actor(self)))
    }
}
