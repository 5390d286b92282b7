//! What the fuzz targets reach into: everything that a client of the API may send.

use shoal_core::model::{ClusterSpec, Meta, Service, ServiceId};
use shoal_core::store::State;

use super::convert::{insert_defaults, node_spec, service_json, service_spec, swarm_spec};
use super::decode::decode;
use super::query::{Filters, Query};
use super::route::ApiVersion;
use super::types::{InitRequest, JoinRequest, SwarmSpec};

/// A body; the first byte chooses the call.
pub fn body(data: &[u8]) {
    let Some((call, bytes)) = data.split_first() else { return };
    match call % 5 {
        0 => service(bytes),
        1 => drop(decode(bytes, "Spec").and_then(node_spec)),
        2 => {
            drop(decode(bytes, "Spec").and_then(|json: SwarmSpec| swarm_spec(json, &ClusterSpec::default())))
        }
        3 => drop(decode::<InitRequest>(bytes, "")),
        _ => drop(decode::<JoinRequest>(bytes, "")),
    }
}

/// What was taken is shown, and what is shown is taken again and means the same.
fn service(bytes: &[u8]) {
    let state = State::default();
    let Ok(spec) = decode(bytes, "Spec").and_then(|json| service_spec(json, &state)) else { return };
    let id = ServiceId::from_u128(1);
    let service = Service::new(id, spec);
    let json = service_json(&service, &state, None);
    let shown = serde_json::to_value(&json).expect("a service is JSON");
    let again = serde_json::to_vec(&shown["Spec"]).expect("a specification is JSON");
    let again = decode(&again, "Spec").and_then(|json| service_spec(json, &state));
    assert_eq!(again.ok(), Some(service.spec), "{shown}");
    let mut json = json;
    insert_defaults(&mut json);
}

/// A path's version and its parameters.
pub fn query(text: &str) {
    let _ = ApiVersion::parse(text);
    if let Ok(query) = Query::parse(Some(text)) {
        let _ = Filters::parse(query.get("filters"));
    }
    let _ = Filters::parse(Some(text));
}
