//! A port of the mesh belongs to one service.

use std::collections::BTreeMap;

use super::Violation;
use crate::model::PortMode;
use crate::store::State;

pub(super) fn are_handed_out_once(state: &State, found: &mut Vec<Violation>) {
    let mut owners = BTreeMap::new();
    for service in state.services() {
        for port in &service.spec.endpoint.ports {
            let (through_mesh, owners): &mut (bool, Vec<_>) =
                owners.entry((port.protocol, port.published_port)).or_default();
            *through_mesh |= port.mode == PortMode::Ingress;
            owners.push(service.id);
        }
    }
    for ((_, published), (through_mesh, services)) in owners {
        if through_mesh && (services.len() > 1 || published == 0) {
            found.push(Violation::PortTwice { published, services });
        }
    }
}
