//! `GET /events`: the engine's stream and the cluster's, line by line in one.
//!
//! The cluster's part is live: it starts with the request, and `since` reaches back in the engine's part alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde_json::json;
use shoal_actors::api::EventStream;
use shoal_core::model::{Node, Service, ServiceMode};
use shoal_core::store::{Event, EventKind, ObjectId, State};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use super::super::body::{Answer, BoxError};
use super::super::clock;
use super::super::context::Context;
use super::super::convert::words;
use super::super::error::HttpError;
use super::super::proxy;
use super::super::query::{Filters, Query};
use super::super::server::stopped;

/// Lines that wait for a slow reader.
const QUEUE_LINES: usize = 256;
/// Bytes of one line of the engine.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Answer with the merged stream.
///
/// # Errors
/// 400 on malformed filters; the engine's own refusal is passed on as it is.
pub(in crate::http) async fn stream(
    context: &Arc<Context>,
    request: Request<Incoming>,
) -> Result<Answer, HttpError> {
    let query = Query::parse(request.uri().query())?;
    let filters = Filters::parse(query.get("filters"))?;
    // Subscribed before the engine is asked: what happens meanwhile waits in the channel.
    let own = context.api.events().ok().zip(context.api.state().ok());
    let engine = if context.engine.is_configured() {
        match proxy::forward(context, request).await {
            Ok(answer) if answer.status() == StatusCode::OK && own.is_some() => Some(answer.into_body()),
            Ok(answer) => return Ok(answer),
            Err(error) if own.is_none() => return Err(error),
            Err(_) => None,
        }
    } else {
        None
    };
    let Some((events, state)) = own else {
        return Err(shoal_actors::api::ApiError::NotInCluster.into());
    };
    let (lines, queue) = mpsc::channel(QUEUE_LINES);
    let merge = Merge {
        context: Arc::clone(context),
        filters,
        lines,
        names: names(&state),
        before: state,
        until: until(query.get("until")),
    };
    tokio::spawn(merge.run(events, engine));
    let frames = futures_util::stream::unfold(queue, |mut queue| async {
        let line: Bytes = queue.recv().await?;
        Some((Ok::<_, BoxError>(Frame::data(line)), queue))
    });
    let mut answer = Response::new(StreamBody::new(frames).boxed_unsync());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(answer)
}

/// How long it is until the time that the client named, if that is given in seconds since the epoch.
fn until(text: Option<&str>) -> Option<Duration> {
    let seconds: f64 = text?.parse().ok()?;
    let now = clock::now().0 as f64 / 1000.0;
    Duration::try_from_secs_f64((seconds - now).max(0.0)).ok()
}

struct Merge {
    context: Arc<Context>,
    filters: Filters,
    lines: mpsc::Sender<Bytes>,
    before: State,
    // Names of what there was: an object may be gone before the state is looked at.
    names: BTreeMap<ObjectId, String>,
    until: Option<Duration>,
}

/// The name of every service, network and node.
fn names(state: &State) -> BTreeMap<ObjectId, String> {
    let services = state.services().map(|s| (ObjectId::Service(s.id), s.spec.name.clone()));
    let networks = state.networks().map(|n| (ObjectId::Network(n.id), n.spec.name.clone()));
    let nodes = state.nodes().map(|n| (ObjectId::Node(n.id), n.name().to_owned()));
    services.chain(networks).chain(nodes).collect()
}

impl Merge {
    async fn run(mut self, mut events: EventStream, mut engine: Option<super::super::body::AnyBody>) {
        let mut stop = self.context.stop.clone();
        let lines = self.lines.clone();
        let end = self.until.map(|left| tokio::time::Instant::now() + left);
        let mut rest = BytesMut::new();
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut stop) => return,
                () = lines.closed() => return,
                () = sleep_until(end) => return,
                frame = next_frame(&mut engine) => match frame {
                    Some(bytes) => {
                        rest.extend_from_slice(&bytes);
                        if !self.pass_lines(&mut rest).await { return }
                    }
                    // The engine ends its stream at `until`, or is gone: the client then asks anew.
                    None => return,
                },
                batch = events.recv() => match batch {
                    Ok(batch) => if !self.pass_own(&batch).await { return },
                    Err(RecvError::Lagged(_)) => match self.context.api.state() {
                        Ok(state) => {
                            self.names = names(&state);
                            self.before = state;
                        }
                        Err(_) => return,
                    },
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }

    /// Pass on the whole lines of what the engine has sent so far.
    async fn pass_lines(&self, rest: &mut BytesMut) -> bool {
        let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else {
            return rest.len() <= LINE_BYTES_MAX;
        };
        self.lines.send(rest.split_to(end + 1).freeze()).await.is_ok()
    }

    async fn pass_own(&mut self, batch: &[Event]) -> bool {
        let Ok(after) = self.context.api.state() else { return true };
        for event in batch {
            if let Some(line) = self.line(event, &after)
                && self.lines.send(line).await.is_err()
            {
                return false;
            }
        }
        self.before = after;
        true
    }

    fn line(&mut self, event: &Event, after: &State) -> Option<Bytes> {
        let (kind, id, mut attributes) = match event.object {
            ObjectId::Service(id) => {
                let (old, new) = (self.before.service(id), after.service(id));
                (
                    "service",
                    id.to_string(),
                    service_attributes(old.map(AsRef::as_ref), new.map(AsRef::as_ref)),
                )
            }
            ObjectId::Node(id) => {
                let (old, new) = (self.before.node(id), after.node(id));
                ("node", id.to_string(), node_attributes(old.map(AsRef::as_ref), new.map(AsRef::as_ref)))
            }
            ObjectId::Network(id) => {
                let known = after.network(id).or_else(|| self.before.network(id));
                let name = known.map(|network| ("name".to_owned(), network.spec.name.clone()));
                ("network", id.to_string(), name.into_iter().collect())
            }
            ObjectId::Cluster | ObjectId::Task(_) | ObjectId::Attachment(_) => return None,
        };
        match attributes.get("name").filter(|_| event.kind != EventKind::Removed) {
            Some(name) => {
                self.names.insert(event.object, name.clone());
            }
            None => {
                let known = if event.kind == EventKind::Removed {
                    self.names.remove(&event.object)
                } else {
                    self.names.get(&event.object).cloned()
                };
                attributes.extend(known.map(|name| ("name".to_owned(), name)));
            }
        }
        let action = match event.kind {
            EventKind::Created => "create",
            EventKind::Removed => "remove",
            // The heartbeat of a node and the like change nothing that is told.
            EventKind::SpecChanged => "update",
            EventKind::StatusChanged if attributes.len() > 1 => "update",
            EventKind::StatusChanged => return None,
        };
        if !self.fits(kind, action, &id, attributes.get("name")) {
            return None;
        }
        let nanos = i128::from(event.at.0) * 1_000_000;
        let mut line = json!({
            "Type": kind,
            "Action": action,
            "Actor": { "ID": id, "Attributes": attributes },
            "scope": "swarm",
            "time": event.at.0 / 1000,
            "timeNano": i64::try_from(nanos).unwrap_or(i64::MAX),
        })
        .to_string();
        line.push('\n');
        Some(line.into())
    }

    /// Whether the client asked for this.
    fn fits(&self, kind: &str, action: &str, id: &str, name: Option<&String>) -> bool {
        let filters = &self.filters;
        // A filter on another kind of object leaves all of ours out.
        let others =
            ["container", "image", "volume", "network", "daemon", "plugin", "label", "node", "service"];
        filters.any("scope", |scope| scope == "swarm")
            && filters.any("type", |wanted| wanted == kind)
            && filters.any("event", |wanted| wanted == action)
            && filters.any(kind, |wanted| id.starts_with(wanted) || name.is_some_and(|name| name == wanted))
            && others.iter().all(|other| *other == kind || !filters.has(other))
    }
}

async fn sleep_until(end: Option<tokio::time::Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// The engine's next bytes; none at its end; never, where there is no engine.
async fn next_frame(engine: &mut Option<super::super::body::AnyBody>) -> Option<Bytes> {
    let Some(body) = engine else { return std::future::pending().await };
    loop {
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    return Some(bytes);
                }
            }
            Some(Err(_)) | None => return None,
        }
    }
}

type Attributes = BTreeMap<String, String>;

/// Note `key.old` and `key.new` where they differ.
fn differ(attributes: &mut Attributes, key: &str, old: Option<String>, new: String) {
    if let Some(old) = old
        && old != new
    {
        attributes.insert(format!("{key}.old"), old);
        attributes.insert(format!("{key}.new"), new);
    }
}

fn service_attributes(old: Option<&Service>, new: Option<&Service>) -> Attributes {
    // Neither: it came and went before we looked. That is told, without a name.
    let Some(known) = new.or(old) else { return Attributes::new() };
    let mut attributes = Attributes::from([("name".to_owned(), known.spec.name.clone())]);
    let Some(new) = new else { return attributes };
    let replicas = |service: &Service| match service.spec.mode {
        ServiceMode::Replicated { replicas } => replicas.to_string(),
        ServiceMode::Global => String::new(),
    };
    let image = |service: &Service| service.spec.task.container.image.clone();
    let update = |service: &Service| {
        service.update.as_ref().map(|u| words::update_state(u).to_owned()).unwrap_or_default()
    };
    differ(&mut attributes, "replicas", old.map(replicas), replicas(new));
    differ(&mut attributes, "image", old.map(image), image(new));
    differ(&mut attributes, "updatestate", old.map(update), update(new));
    attributes
}

fn node_attributes(old: Option<&Node>, new: Option<&Node>) -> Attributes {
    // Neither: it came and went before we looked. That is told, without a name.
    let Some(known) = new.or(old) else { return Attributes::new() };
    let mut attributes = Attributes::from([("name".to_owned(), known.name().to_owned())]);
    let Some(new) = new else { return attributes };
    let state = |node: &Node| words::node_state(node.status.state).to_owned();
    let availability = |node: &Node| words::availability(node.spec.availability);
    differ(&mut attributes, "state", old.map(state), state(new));
    differ(&mut attributes, "availability", old.map(availability), availability(new));
    differ(&mut attributes, "role", old.map(|n| n.role.to_string()), new.role.to_string());
    differ(&mut attributes, "desired-role", old.map(|n| n.spec.role.to_string()), new.spec.role.to_string());
    attributes
}
