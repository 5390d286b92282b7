//! A port of the mesh belongs to one service, at each address that a host may have.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Violation;
use crate::model::{PortConfig, PortMode, ServiceId};
use crate::store::State;

/// The family and the numbers of a range's first and last address.
fn span(net: &IpNet) -> (bool, u128, u128) {
    let number = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    };
    (net.addr().is_ipv4(), number(net.network()), number(net.broadcast()))
}

fn share_an_address(a: &PortConfig, b: &PortConfig) -> bool {
    let shares = |(v4, first, last): (bool, u128, u128), (other_v4, other_first, other_last)| {
        v4 == other_v4 && first.max(other_first) <= last.min(other_last)
    };
    let is_everywhere = a.at.is_empty() || b.at.is_empty();
    is_everywhere || a.at.iter().any(|a| b.at.iter().any(|b| shares(span(a), span(b))))
}

/// Whether two tasks of one host cannot both have these ports of mode host.
pub(super) fn clash_on_a_host(a: &PortConfig, b: &PortConfig) -> bool {
    (a.protocol, a.published_port) == (b.protocol, b.published_port) && share_an_address(a, b)
}

pub(super) fn are_handed_out_once(state: &State, found: &mut Vec<Violation>) {
    let mut owners: BTreeMap<_, Vec<(ServiceId, &PortConfig)>> = BTreeMap::new();
    for service in state.services() {
        for port in &service.spec.endpoint.ports {
            owners.entry((port.protocol, port.published_port)).or_default().push((service.id, port));
        }
    }
    for ((_, published), owners) in owners {
        let is_twice = |at: usize| {
            let (_, port) = owners[at];
            owners.iter().enumerate().any(|(other_at, (_, other))| {
                let through_mesh = port.mode == PortMode::Ingress || other.mode == PortMode::Ingress;
                at != other_at && through_mesh && share_an_address(port, other)
            })
        };
        let is_open = |at: usize| published == 0 && owners[at].1.mode == PortMode::Ingress;
        let wrong = (0..owners.len()).filter(|at| is_open(*at) || is_twice(*at));
        let services: Vec<ServiceId> = wrong.map(|at| owners[at].0).collect();
        if !services.is_empty() {
            found.push(Violation::PortTwice { published, services });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mesh::{may_meet, place};

    fn nets() -> impl Strategy<Value = Vec<IpNet>> {
        let texts = [
            "127.0.0.1",
            "127.0.0.0/8",
            "10.0.0.0/8",
            "10.9.0.0/16",
            "10.9.0.1",
            "0.0.0.0",
            "::",
            "::1",
            "2001:db8::/32",
        ];
        prop::collection::vec(prop::sample::select(texts.to_vec()), 0..4)
            .prop_map(|texts| texts.into_iter().map(|text| place(text).unwrap()).collect())
    }

    proptest! {
        /// Counted by numbers it is the same as found by the ranges' own words.
        #[test]
        fn the_judge_and_who_hands_out_agree_where_ports_meet(a in nets(), b in nets()) {
            let port = |at: &[IpNet]| PortConfig { at: at.to_vec(), ..PortConfig::default() };
            prop_assert_eq!(share_an_address(&port(&a), &port(&b)), may_meet(&a, &b));
        }
    }
}
