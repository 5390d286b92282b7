//! Removes containers that carry this node's label and belong to no task: left by a lost folder, or made by a step that
//! was given up. Only from the first complete set of assignments on, so that a restart without managers kills nothing.

use actix::{AsyncContext, Context, Handler, Message};
use shoal_core::model::TaskId;
use shoal_core::put_back::{Bug, is_put_back};
use tokio::task::JoinHandle;

use super::actor::TaskRunner;
use super::messages::{Listed, OrphanRemoved};

/// Where the search for such containers stands.
#[derive(Default)]
pub(super) struct Sweep {
    allowed: bool,
    work: Option<JoinHandle<()>>,
}

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct SweepNow;

impl Sweep {
    pub(super) fn give_up(&mut self) {
        if let Some(work) = self.work.take() {
            work.abort();
        }
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl TaskRunner {
    pub(super) fn arm_sweep(&self, ctx: &mut Context<Self>) {
        ctx.notify_later(SweepNow, self.limits.sweep_interval);
    }

    /// A manager has told all that belongs here.
    pub(super) fn allow_sweep(&mut self, ctx: &mut Context<Self>) {
        self.sweep.allowed = true;
        self.look_for_orphans(ctx);
    }

    fn look_for_orphans(&mut self, ctx: &mut Context<Self>) {
        let under_way = self.sweep.work.as_ref().is_some_and(|work| !work.is_finished());
        if !self.sweep.allowed || under_way || is_put_back(Bug::OrphansKept) {
            return;
        }
        let (controller, runner) = (self.controller.clone(), ctx.address());
        self.sweep.work = Some(actix_rt::spawn(async move {
            runner.do_send(Listed(controller.list().await));
        }));
    }
}

impl Handler<SweepNow> for TaskRunner {
    type Result = ();

    fn handle(&mut self, _: SweepNow, ctx: &mut Self::Context) {
        self.look_for_orphans(ctx);
        self.arm_sweep(ctx);
    }
}

impl Handler<Listed> for TaskRunner {
    type Result = ();

    fn handle(&mut self, Listed(result): Listed, ctx: &mut Self::Context) {
        let containers = match result {
            Ok(containers) => containers,
            // The next round comes by itself.
            Err(error) => return tracing::warn!(%error, "cannot list containers"),
        };
        // A task assigned after the list was made is known here by now, so its container is safe.
        let orphans: Vec<TaskId> =
            containers.iter().map(|c| c.task_id).filter(|id| !self.tasks.contains_key(id)).collect();
        if orphans.is_empty() {
            return;
        }
        let (controller, gate, runner) = (self.controller.clone(), self.gates.stops(), ctx.address());
        self.sweep.work = Some(actix_rt::spawn(async move {
            for id in orphans {
                let _turn = gate.acquire().await;
                tracing::warn!(task = %id, "removing a container that belongs to no task");
                match controller.remove(id).await {
                    Ok(()) => runner.do_send(OrphanRemoved),
                    Err(error) => tracing::warn!(task = %id, %error, "cannot remove it; trying again later"),
                }
            }
        }));
    }
}

impl Handler<OrphanRemoved> for TaskRunner {
    type Result = ();

    fn handle(&mut self, _: OrphanRemoved, _: &mut Self::Context) {
        self.shared.count(|stats| stats.orphans_removed_total += 1);
    }
}
