//! Waiting until a service has converged, or is gone.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::draw::Draw;
use super::view::{View, ids, view};
use crate::cli::args::ConvergeArgs;
use crate::cli::client::{Client, ClientError, encode, filters};
use crate::cli::error::{CliError, Outcome};
use crate::cli::output::{items, number, text};

/// First pause between two looks; it grows to the second.
const POLL_MIN: Duration = Duration::from_millis(50);
const POLL_MAX: Duration = Duration::from_millis(500);
/// A node that is away for longer ends the wait; a shorter absence (a new leader) is waited out.
const AWAY_MAX: Duration = Duration::from_secs(30);
/// Docker's default for how long tasks must stay up, where the service does not say.
const MONITOR_DEFAULT: Duration = Duration::from_secs(5);
/// A global service without a task after this time has no node that fits.
const NO_NODE_AFTER: Duration = Duration::from_secs(5);

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// As asked, and stable for the service's monitor time.
    Stable,
    /// Back at the previous specification, and stable.
    RolledBack,
    /// As many tasks as asked; a roll-out that was under way before is not waited for.
    Reached,
    /// No task is left.
    Gone,
}

/// A wait for one service.
pub(crate) struct Watch<'a> {
    client: &'a Client,
    /// Id of the service.
    id: &'a str,
    /// Its name, for people.
    name: &'a str,
    draw: Draw,
    timeout: Option<Duration>,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(client: &'a Client, id: &'a str, name: &'a str, flags: &ConvergeArgs) -> Self {
        let timeout = flags.timeout.and_then(|nanos| u64::try_from(nanos).ok()).map(Duration::from_nanos);
        Self { client, id, name, draw: Draw::new(flags.quiet), timeout: timeout.filter(|t| !t.is_zero()) }
    }

    /// Wait. Ctrl-C and the time limit end the wait, never the work.
    pub(crate) async fn until(mut self, goal: Goal) -> Outcome {
        let (id, name, timeout) = (self.id.to_owned(), self.name.to_owned(), self.timeout);
        let hint = format!("The cluster goes on with it: `shoal service ps {name}` shows how far it is.");
        let limit = async {
            match timeout {
                Some(timeout) => sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => Err(CliError::NotConverged(format!("no longer watching {name}. {hint}"))),
            done = self.poll(goal) => done,
            () = limit => {
                let seconds = timeout.unwrap_or_default().as_secs_f64();
                let what = if goal == Goal::Gone { "gone" } else { "converged" };
                let last = self.look(goal).await.map(|view| format!(" ({})", view.line())).unwrap_or_default();
                Err(CliError::NotConverged(format!("{name} ({id}) has not {what} within {seconds} s{last}. {hint}")))
            }
        }
    }

    async fn poll(&mut self, goal: Goal) -> Outcome {
        let started = Instant::now();
        let (mut pause, mut answered, mut converged_at) = (POLL_MIN, started, None);
        loop {
            match self.look(goal).await {
                Ok(view) => {
                    answered = Instant::now();
                    self.draw.show(self.name, &view);
                    let no_node =
                        view.wanted == 0 && view.slots.is_empty() && started.elapsed() < NO_NODE_AFTER;
                    let unborn = goal != Goal::Gone && no_node && self.is_global().await;
                    if let Some(why) = stopped(goal, &view) {
                        return Err(CliError::Failed(format!("{}: {why}", self.name)));
                    }
                    let converged =
                        if goal == Goal::Reached { view.has_its_tasks() } else { view.is_converged() };
                    if !converged || unborn {
                        converged_at = None;
                    } else if self.is_stable(goal, &mut converged_at).await {
                        return Ok(());
                    }
                }
                Err(error) if answered.elapsed() > AWAY_MAX || !may_pass(&error) => return Err(error.into()),
                Err(error) => self.draw.say(&format!("{}: {error}; trying again", self.name)),
            }
            sleep(pause).await;
            pause = (pause * 5 / 4).min(POLL_MAX);
        }
    }

    async fn is_stable(&mut self, goal: Goal, converged_at: &mut Option<Instant>) -> bool {
        if matches!(goal, Goal::Reached | Goal::Gone) {
            return true;
        }
        let monitor = self.monitor().await;
        match converged_at {
            Some(since) => since.elapsed() >= monitor,
            None => {
                *converged_at = Some(Instant::now());
                let name = self.name;
                self.draw.note(&format!(
                    "{name}: all running; watching for {} s that they stay up",
                    monitor.as_secs_f64()
                ));
                monitor.is_zero()
            }
        }
    }

    async fn look(&self, goal: Goal) -> Result<View, ClientError> {
        if goal == Goal::Gone {
            return self.look_for_leftovers().await;
        }
        let service = self.client.get(&format!("/services/{}", encode(self.id))).await?;
        let tasks = self.client.get(&format!("/tasks?{}", filters(&[("service", &[self.id])]))).await?;
        let fresh = filters(&[("service", &[self.id]), ("_up-to-date", &["true"])]);
        let fresh = self.client.get(&format!("/tasks?{fresh}")).await?;
        let nodes = self.client.get("/nodes").await?;
        Ok(view(&service, items(&tasks), &ids(&fresh), items(&nodes)))
    }

    /// A removed service is no filter any more, so its tasks are sought among all.
    async fn look_for_leftovers(&self) -> Result<View, ClientError> {
        let tasks = self.client.get("/tasks").await?;
        let left = items(&tasks).iter().filter(|task| text(task, "/ServiceID") == self.id).count();
        Ok(View { ending: left as u64, ..View::default() })
    }

    async fn service(&self) -> Value {
        self.client.get(&format!("/services/{}", encode(self.id))).await.unwrap_or_default()
    }

    async fn is_global(&self) -> bool {
        self.service().await.pointer("/Spec/Mode/Global").is_some_and(Value::is_object)
    }

    async fn monitor(&self) -> Duration {
        let nanos = number(&self.service().await, "/Spec/UpdateConfig/Monitor").filter(|nanos| *nanos > 0);
        nanos.map_or(MONITOR_DEFAULT, Duration::from_nanos)
    }
}

/// Why waiting on is useless.
fn stopped(goal: Goal, view: &View) -> Option<&str> {
    match goal {
        Goal::Stable => view.stopped.as_deref().or(view.rolled_back.as_deref()),
        Goal::RolledBack => view.stopped.as_deref(),
        Goal::Reached => view.stopped.as_deref().filter(|_| !view.has_its_tasks()),
        Goal::Gone => None,
    }
}

/// Whether the error may go by itself: a leader is being chosen, the node restarts.
fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } => true,
        ClientError::Refused { status, .. } => *status >= 500,
        ClientError::Garbled { .. } => false,
    }
}
