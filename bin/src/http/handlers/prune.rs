//! `POST /networks/prune`: the engine's networks without containers, and those of the cluster that nothing is in. The bridges that a node
//! makes for the cluster's networks are its own to remove: one may be about to get its first container.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use shoal_core::model::Timestamp;
use shoal_core::store::{Expect, ObjectId, Write};
use shoal_runtime_docker::BRIDGE_LABEL;

use super::super::body::{self, Answer};
use super::super::clock;
use super::super::context::{Context, Snapshot};
use super::super::error::HttpError;
use super::super::query::{Filters, Query, escape};
use super::networks::{is_used, of_engine, read};

const FILTERS: [&str; 3] = ["until", "label", "label!"];
/// The engine's networks that are looked at: made by users, and without a container.
const UNUSED: &str = r#"{"type":["custom"],"dangling":["true"]}"#;

/// What may go.
struct Wish {
    filters: Filters,
    until: Option<Timestamp>,
}

impl Wish {
    fn read(query: &Query) -> Result<Self, HttpError> {
        let filters = query.filters(&FILTERS)?;
        let times: Vec<&str> = filters.values("until").collect();
        let until = match times[..] {
            [] => None,
            [text] => Some(clock::moment(text, clock::now()).ok_or_else(|| {
                HttpError::invalid(format!(
                    "invalid filter 'until={text}': a duration such as 24h, seconds since 1970, or a time such as \
                     2026-01-31T12:00:00Z is wanted"
                ))
            })?),
            _ => return Err(HttpError::invalid("more than one filter 'until': one is wanted")),
        };
        Ok(Self { until, filters })
    }

    fn takes(&self, labels: &BTreeMap<String, String>, created: Option<Timestamp>) -> bool {
        let is_old = match (self.until, created) {
            (None, _) => true,
            (Some(until), Some(created)) => created <= until,
            (Some(_), None) => false,
        };
        let is_spared = self.filters.has("label!") && self.filters.labels("label!", labels);
        is_old && !is_spared && self.filters.labels("label", labels)
    }
}

/// `POST /networks/prune?filters`
pub(in crate::http) async fn networks(context: &Arc<Context>, query: &Query) -> Result<Answer, HttpError> {
    let wish = Wish::read(query)?;
    let snapshot = read(context).await?;
    let mut deleted = match of_engine(context, &format!("/networks?filters={}", escape(UNUSED))).await {
        Ok(Ok(found)) => engine_networks(context, &wish, found).await?,
        Ok(Err(answer)) => return Ok(answer),
        Err(error) if snapshot.is_none() => return Err(error),
        // Without an engine there are those of the cluster still.
        Err(_) => Vec::new(),
    };
    if let Some(snapshot) = snapshot {
        deleted.extend(cluster_networks(context, &wish, &snapshot).await?);
    }
    Ok(body::json(StatusCode::OK, &json!({ "NetworksDeleted": deleted })))
}

async fn engine_networks(
    context: &Context,
    wish: &Wish,
    found: Vec<Value>,
) -> Result<Vec<String>, HttpError> {
    let mut deleted = Vec::new();
    for network in found {
        let labels = network["Labels"].as_object().into_iter().flatten();
        let labels: BTreeMap<String, String> =
            labels.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect();
        let created = network["Created"].as_str().and_then(|text| clock::moment(text, clock::now()));
        if labels.contains_key(BRIDGE_LABEL) || !wish.takes(&labels, created) {
            continue;
        }
        let (Some(id), Some(name)) = (network["Id"].as_str(), network["Name"].as_str()) else { continue };
        // One that a container entered meanwhile is refused, and stays.
        let (status, _, _) =
            context.engine.say(&Method::DELETE, &format!("/networks/{}", escape(id))).await?;
        if status.is_success() {
            deleted.push(name.to_owned());
        }
    }
    Ok(deleted)
}

async fn cluster_networks(
    context: &Context,
    wish: &Wish,
    snapshot: &Snapshot,
) -> Result<Vec<String>, HttpError> {
    let mut deleted = Vec::new();
    for network in snapshot.state.networks() {
        let fits = wish.takes(&network.spec.labels, Some(network.meta.created_at));
        if !fits || is_used(&snapshot.state, network.id) {
            continue;
        }
        let there = Expect::Exists(ObjectId::Network(network.id));
        match context.propose(vec![there], vec![Write::NetworkRemove(network.id)]).await {
            Ok(_) => deleted.push(network.spec.name.clone()),
            // Somebody took it into use, or removed it, meanwhile; or an update may have to go back to it.
            Err(error) if matches!(error.status, StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(deleted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(filters: &str) -> Result<Wish, HttpError> {
        Wish::read(&Query::parse(Some(&format!("filters={}", escape(filters))))?)
    }

    #[test]
    fn labels_and_age_say_what_may_go() {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())]);
        let hour_ago = Timestamp(clock::now().0 - 3_600_000);
        for (filters, taken) in [
            ("{}", true),
            (r#"{"label":["a"]}"#, true),
            (r#"{"label":["a=2"]}"#, false),
            (r#"{"label!":["a"]}"#, false),
            (r#"{"label!":["a=2"]}"#, true),
            (r#"{"label!":["a","c"]}"#, true),
            (r#"{"label":["b"],"until":["30m"]}"#, true),
            (r#"{"until":{"2h":true}}"#, false),
            (r#"{"until":["2000-01-01"]}"#, false),
        ] {
            assert_eq!(wish(filters).unwrap().takes(&labels, Some(hour_ago)), taken, "{filters}");
        }
        assert!(!wish(r#"{"until":["1h"]}"#).unwrap().takes(&labels, None), "one of unknown age goes");
        for filters in [r#"{"until":["soon"]}"#, r#"{"until":["1h","2h"]}"#, r#"{"name":["a"]}"#] {
            assert!(wish(filters).is_err(), "{filters}");
        }
    }
}
