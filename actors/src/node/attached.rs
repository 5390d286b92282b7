//! This node's containers that are no tasks, in networks: asks the managers for their places, keeps the host ready for
//! them, and gives back the places of those that are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use shoal_core::attach::{Ask, Keeper, Step};
use shoal_core::model::{Attachment, AttachmentId};
use shoal_core::put_back::{Bug, is_put_back};
use shoal_core::task::Controller;
use shoal_wire::v1::{AttachResponse, Outcome};
use shoal_wire::{Kind, codec};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::member::Member;
use crate::api::ApiError;

/// How long a manager may take for an answer: as long as a proposal and what it is read by.
const ANSWER_MAX: Duration = Duration::from_secs(7);
/// How long all of them together may take.
const ANSWERS_MAX: Duration = Duration::from_secs(15);
/// Places and containers are compared this often while there are any, and this often while there are none.
const LOOK_EVERY: Duration = Duration::from_secs(30);
const LOOK_EVERY_IDLE: Duration = Duration::from_secs(300);
/// So long after a place was asked for they are compared as often as if there were any; and after a start, for what an earlier
/// life asked for.
const DOUBT: Duration = Duration::from_secs(600);
const DOUBT_AT_START: Duration = Duration::from_secs(120);
/// After something was told, what else is told at once is waited for.
const GATHER: Duration = Duration::from_millis(100);
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// A container that the host knows of.
#[derive(Default)]
struct Held {
    /// The engine's id; empty until it is made.
    container: String,
    /// Whether the host is ready for it.
    ready: bool,
}

/// What this node remembers of its containers that are no tasks.
pub(super) struct Attached {
    controller: Arc<dyn Controller>,
    /// Those that the host knows of.
    held: Mutex<BTreeMap<AttachmentId, Held>>,
    /// Until then there may be places that nobody here knows of.
    doubt: Mutex<Instant>,
    /// Something happened to one of them.
    kick: Arc<Notify>,
}

impl Attached {
    pub(super) fn new(controller: Arc<dyn Controller>) -> Self {
        let doubt = Mutex::new(Instant::now() + DOUBT_AT_START);
        Self { controller, held: Mutex::default(), doubt, kick: Arc::default() }
    }

    fn is_in_doubt(&self) -> bool {
        *self.doubt.lock().unwrap_or_else(PoisonError::into_inner) > Instant::now()
    }

    /// A place is asked for, and nobody knows yet whether and when it will be granted.
    fn doubt(&self) {
        let now = Instant::now();
        let mut until = self.doubt.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *until, now + DOUBT) <= now {
            // Whoever was in doubt already looks often as it is.
            self.kick.notify_one();
        }
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<AttachmentId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened to a container of the engine.
    fn changed(&self, container: &str) {
        if self.held().values().any(|held| held.container == container) {
            self.kick.notify_one();
        }
    }
}

fn leave(id: AttachmentId) -> Ask {
    Ask::Leave { id, network: None }
}

impl Member {
    /// Ask the managers, and make the host follow what they answer.
    pub(super) async fn attach(&self, ask: Ask) -> Result<Vec<Arc<Attachment>>, ApiError> {
        if matches!(ask, Ask::Enter { .. }) {
            // It may be granted when nobody waits for it any more, or for a container that is never made.
            self.attached.doubt();
        }
        let told = self.ask(&ask).await?;
        match &ask {
            Ask::List => {}
            Ask::Enter { container, .. } => {
                for attachment in &told {
                    if let Err(why) = self.hold(attachment).await {
                        if container.0.is_empty() {
                            self.let_go(attachment.id).await;
                            self.ask(&leave(attachment.id)).await?;
                        }
                        return Err(ApiError::NotReady(why));
                    }
                }
            }
            Ask::Made { id, container } => {
                self.attached.held().entry(*id).or_default().container.clone_from(&container.0);
            }
            Ask::Leave { id, .. } => match told.first() {
                Some(attachment) => self.hold(attachment).await.map_err(ApiError::NotReady)?,
                None => self.let_go(*id).await,
            },
        }
        Ok(told)
    }

    async fn ask(&self, ask: &Ask) -> Result<Vec<Arc<Attachment>>, ApiError> {
        if let Some(manager) = self.manager() {
            let answer = tokio::time::timeout(ANSWERS_MAX, manager.attach(self.node_id(), ask)).await;
            return self
                .understood(answer.unwrap_or_else(|_| Outcome::Unavailable("no answer in time".into())));
        }
        let body = codec::encode(ask).map_err(super::internal)?;
        let asking = async {
            let mut last = Outcome::Unavailable("no manager is known".into());
            for peer in self.peers() {
                let call = self.node.0.endpoint.call(&peer, Kind::Attach, body.clone(), ANSWER_MAX).await;
                let answer = call.map_err(|error| error.to_string()).and_then(|answer| {
                    codec::decode::<AttachResponse>(&answer).map_err(|error| error.to_string())
                });
                match answer {
                    // Another may know a leader.
                    Ok(answer @ (Outcome::Unavailable(_) | Outcome::NotLeader(_))) => last = answer,
                    Ok(answer) => return answer,
                    Err(error) => last = Outcome::Unavailable(error),
                }
            }
            last
        };
        let answer = tokio::time::timeout(ANSWERS_MAX, asking).await;
        self.understood(answer.unwrap_or_else(|_| Outcome::Unavailable("no manager answers in time".into())))
    }

    fn understood(&self, answer: AttachResponse) -> Result<Vec<Arc<Attachment>>, ApiError> {
        match answer {
            Outcome::Done(told) => Ok(told),
            Outcome::Refused(refused) => Err(ApiError::Refused(refused)),
            Outcome::Conflict(why) => Err(ApiError::Conflict(why)),
            Outcome::Unavailable(why) => Err(ApiError::NoLeader(why)),
            Outcome::NotLeader(_) => Err(ApiError::NoLeader("the managers name none".into())),
        }
    }

    /// Make the host ready for a container.
    async fn hold(&self, attachment: &Attachment) -> Result<(), String> {
        let plain = self.attached.controller.plain().ok_or("this node has no container engine")?;
        let (id, container) = (attachment.id, attachment.container.clone());
        self.attached.held().insert(id, Held { container, ready: false });
        plain.hold(id, &attachment.networks).await.map_err(|error| error.to_string())?;
        if let Some(mesh) = &self.mesh {
            mesh.attach(id.as_task(), &attachment.networks).await?;
        }
        if let Some(held) = self.attached.held().get_mut(&id) {
            held.ready = true;
        }
        Ok(())
    }

    /// A container is gone.
    async fn let_go(&self, id: AttachmentId) {
        self.attached.held().remove(&id);
        if let Some(plain) = self.attached.controller.plain() {
            plain.let_go(id).await;
        }
        if let Some(mesh) = &self.mesh {
            mesh.detach(id.as_task());
        }
    }

    /// Hear from the engine what happens to its containers.
    pub(super) async fn watch_attached(member: Weak<Self>, controller: Arc<dyn Controller>) {
        let Some(plain) = controller.plain() else { return };
        let mut delay = RETRY_MIN;
        loop {
            let tell = |container: &str| {
                if let Some(member) = member.upgrade() {
                    member.attached.changed(container);
                }
            };
            let begun = Instant::now();
            let error = plain.watch(&tell).await;
            tracing::debug!(%error, "the engine tells nothing of its containers");
            if begun.elapsed() > RETRY_MAX {
                delay = RETRY_MIN;
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(RETRY_MAX);
            // Whatever happened meanwhile was not heard.
            let Some(member) = member.upgrade() else { return };
            member.attached.kick.notify_one();
        }
    }

    /// Compare the places that the managers have with the containers that the engine has.
    pub(super) async fn keep_attached(member: Weak<Self>) {
        let begun = Instant::now();
        let mut keeper = Keeper::default();
        let mut delay = RETRY_MIN;
        loop {
            let Some(this) = member.upgrade() else { return };
            let wait = match this.look_at_attached(&mut keeper, begun).await {
                Ok(any) => {
                    delay = RETRY_MIN;
                    let often = any || this.attached.is_in_doubt();
                    let usual = if often { LOOK_EVERY } else { LOOK_EVERY_IDLE };
                    keeper.next(begun.elapsed()).map_or(usual, |due| due.min(usual).max(RETRY_MIN))
                }
                Err(error) => {
                    tracing::debug!(%error, "containers in networks cannot be looked at");
                    delay = (delay * 2).min(RETRY_MAX);
                    delay
                }
            };
            // Its end is not held up by this wait.
            let kick = Arc::clone(&this.attached.kick);
            drop(this);
            let _ = tokio::time::timeout(wait, kick.notified()).await;
            tokio::time::sleep(GATHER).await;
        }
    }

    /// Tell the managers what became of their places. Returns whether there are any.
    async fn look_at_attached(&self, keeper: &mut Keeper, begun: Instant) -> Result<bool, ApiError> {
        let held: BTreeSet<AttachmentId> = self.attached.held().keys().copied().collect();
        let places = self.ask(&Ask::List).await?;
        for gone in held.iter().filter(|id| places.iter().all(|place| place.id != **id)) {
            self.let_go(*gone).await;
        }
        let Some(plain) = self.attached.controller.plain().filter(|_| !places.is_empty()) else {
            return Ok(false);
        };
        let containers = match plain.containers().await {
            Err(_) if is_put_back(Bug::SilenceIsEmpty) => Vec::new(),
            containers => containers.map_err(super::internal)?,
        };
        let mut steps = keeper.look(&places, &containers, begun.elapsed());
        if is_put_back(Bug::PlacesKept) {
            steps.retain(|step| !matches!(step, Step::Gone(_)));
        }
        let is_gone = |id: AttachmentId| steps.contains(&Step::Gone(id));
        let is_ready = |id: AttachmentId| self.attached.held().get(&id).is_some_and(|held| held.ready);
        let unready = places.iter().filter(|place| !is_ready(place.id) && !is_gone(place.id));
        for place in unready.filter(|_| !is_put_back(Bug::NotHeldAgain)) {
            // An earlier life of this node held it, or the host could not be made ready.
            if let Err(why) = self.hold(place).await {
                tracing::warn!(container = place.title(), why, "the networks of a container are not ready");
            }
        }
        for step in steps {
            tracing::info!(?step, "a container in networks is not as the managers know it");
            let ask = match step {
                Step::Made(id, container) => Ask::Made { id, container },
                Step::Left(id, network) => Ask::Leave { id, network: Some(network) },
                Step::Gone(id) => leave(id),
            };
            self.attach(ask).await?;
        }
        Ok(true)
    }
}
