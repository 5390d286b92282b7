//! Published ports of the mesh: each is one service's alone, on every node, at the addresses that it names.
//!
//! A port that the user leaves open is chosen here, as the entry is applied, and becomes part of the specification: so
//! it is committed with it, the same on every manager, and stays.

use super::{ApplyError, State};
use crate::mesh::may_meet;
use crate::model::{PortConfig, PortMode, Protocol, Service, ServiceId, ServiceSpec};
use crate::put_back::{Bug, is_put_back};

/// Ports that are chosen where the user leaves one open.
pub const DYNAMIC_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// Whether two ports cannot both be had: one is the mesh's on every node, and so leaves none for anybody else where both may be.
fn clash(a: &PortConfig, b: &PortConfig) -> bool {
    let through_mesh = a.mode == PortMode::Ingress || b.mode == PortMode::Ingress;
    through_mesh
        && !is_put_back(Bug::PortGivenTwice)
        && a.protocol == b.protocol
        && a.published_port == b.published_port
        && may_meet(&a.at, &b.at)
}

fn is_open(port: &PortConfig) -> bool {
    port.mode == PortMode::Ingress && port.published_port == 0
}

impl State {
    /// The service that has this port through the mesh, at some address.
    #[must_use]
    pub fn port_owner(&self, protocol: Protocol, published: u16) -> Option<&Service> {
        let wanted = PortConfig { protocol, published_port: published, ..PortConfig::default() };
        let has = |service: &&Service| service.spec.endpoint.ports.iter().any(|port| clash(port, &wanted));
        self.services().map(AsRef::as_ref).find(has)
    }

    /// Refuse ports that others have, and choose those that were left open.
    pub(super) fn hand_out_ports(&self, id: ServiceId, spec: &mut ServiceSpec) -> Result<(), ApplyError> {
        if spec.endpoint.ports.iter().all(|port| port.published_port == 0 && !is_open(port)) {
            return Ok(());
        }
        let others: Vec<(&Service, &PortConfig)> = self
            .services()
            .filter(|service| service.id != id)
            .flat_map(|service| service.spec.endpoint.ports.iter().map(move |port| (&**service, port)))
            .collect();
        for port in spec.endpoint.ports.iter().filter(|port| port.published_port != 0) {
            if let Some((owner, _)) = others.iter().find(|(_, other)| clash(port, other)) {
                let owner = format!("'{}' ({})", owner.spec.name, owner.id);
                return Err(ApplyError::PortTaken {
                    published: port.published_port,
                    protocol: port.protocol,
                    owner,
                });
            }
        }
        let before = self.service(id).map(|service| service.spec.endpoint.ports.clone()).unwrap_or_default();
        for at in 0..spec.endpoint.ports.len() {
            let port = &spec.endpoint.ports[at];
            if !is_open(port) {
                continue;
            }
            let had = before.iter().find(|old| {
                let same = old.mode == port.mode && old.protocol == port.protocol;
                same && old.target_port == port.target_port
            });
            let is_free = |number: u16| {
                let wanted = PortConfig { published_port: number, ..port.clone() };
                let own = &spec.endpoint.ports;
                !own.iter().any(|other| clash(other, &wanted))
                    && !others.iter().any(|(_, other)| clash(other, &wanted))
            };
            let had = had.map(|old| old.published_port).filter(|number| is_free(*number));
            let chosen = had.or_else(|| DYNAMIC_PORTS.into_iter().find(|number| is_free(*number)));
            spec.endpoint.ports[at].published_port = chosen.ok_or(ApplyError::NoPortLeft)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::service;
    use super::super::{Command, Write};
    use super::*;

    fn port(mode: PortMode, published: u16) -> PortConfig {
        PortConfig { target_port: 80, published_port: published, mode, ..PortConfig::default() }
    }

    fn with_ports(id: u128, ports: Vec<PortConfig>) -> Service {
        let mut service = service(id, &format!("s{id}"));
        service.spec.endpoint.ports = ports;
        service
    }

    fn create(state: &mut State, service: Service) -> Result<Vec<u16>, ApplyError> {
        let id = service.id;
        let command = Command { writes: vec![Write::ServiceCreate(Box::new(service))], ..Command::default() };
        state.apply(state.applied() + 1, 1, command)?;
        Ok(published(state, id))
    }

    fn published(state: &State, id: ServiceId) -> Vec<u16> {
        state.service(id).unwrap().spec.endpoint.ports.iter().map(|port| port.published_port).collect()
    }

    fn update(state: &mut State, id: u128, ports: Vec<PortConfig>) -> Result<Vec<u16>, ApplyError> {
        let id = ServiceId::from_u128(id);
        let mut spec = state.service(id).unwrap().spec.clone();
        spec.endpoint.ports = ports;
        let command = Command { writes: vec![Write::ServiceSpec(id, spec)], ..Command::default() };
        state.apply(state.applied() + 1, 1, command)?;
        Ok(published(state, id))
    }

    #[test]
    fn a_port_of_the_mesh_is_one_services_alone() {
        use PortMode::{Host, Ingress};
        let mut state = State::default();
        create(&mut state, with_ports(1, vec![port(Ingress, 80)])).unwrap();
        for mode in [Ingress, Host] {
            let error = create(&mut state, with_ports(2, vec![port(mode, 80)])).unwrap_err();
            let words =
                "port '80' is already in use by service 's1' (0000000000000000000000001) as an ingress port";
            assert_eq!(error.to_string(), words);
        }
        let udp = PortConfig { protocol: Protocol::Udp, ..port(Ingress, 80) };
        create(&mut state, with_ports(3, vec![udp])).unwrap();
        create(&mut state, with_ports(4, vec![port(Host, 81)])).unwrap();
        create(&mut state, with_ports(5, vec![port(Host, 81)])).unwrap();
        assert!(create(&mut state, with_ports(6, vec![port(Ingress, 81)])).is_err());
        assert!(update(&mut state, 5, vec![port(Host, 80)]).is_err());
        assert_eq!(state.port_owner(Protocol::Tcp, 80).unwrap().spec.name, "s1");
        // One's own port is no obstacle.
        assert_eq!(update(&mut state, 1, vec![port(Ingress, 80), port(Ingress, 82)]).unwrap(), [80, 82]);
    }

    #[test]
    fn services_share_a_port_whose_addresses_cannot_meet() {
        use PortMode::{Host, Ingress};
        let at = |mode, places: &[&str]| PortConfig {
            at: places.iter().map(|text| crate::mesh::place(text).unwrap()).collect(),
            ..port(mode, 80)
        };
        let mut state = State::default();
        create(&mut state, with_ports(1, vec![at(Ingress, &["127.0.0.1", "::1"])])).unwrap();
        create(&mut state, with_ports(2, vec![at(Ingress, &["10.0.0.0/8"])])).unwrap();
        create(&mut state, with_ports(3, vec![at(Host, &["192.0.2.1"])])).unwrap();
        for (places, owner) in
            [(vec![], "s1"), (vec!["10.1.0.0/16"], "s2"), (vec!["::"], "s1"), (vec!["192.0.2.1"], "s3")]
        {
            let error = create(&mut state, with_ports(4, vec![at(Ingress, &places)])).unwrap_err();
            assert!(error.to_string().contains(&format!("'{owner}'")), "{places:?}: {error}");
        }
        assert!(update(&mut state, 1, vec![at(Ingress, &[])]).is_err());
        assert!(update(&mut state, 1, vec![at(Ingress, &["127.0.0.0/8"])]).is_ok());
        // Two of mode host are for the scheduler to keep apart.
        create(&mut state, with_ports(5, vec![at(Host, &["192.0.2.1"])])).unwrap();
        assert!(crate::check::check(&state).is_empty());
    }

    #[test]
    fn an_open_port_is_chosen_once_and_kept() {
        let open = || port(PortMode::Ingress, 0);
        let mut state = State::default();
        assert_eq!(create(&mut state, with_ports(1, vec![open(), open()])).unwrap(), [30_000, 30_001]);
        assert_eq!(create(&mut state, with_ports(2, vec![port(PortMode::Host, 30_002)])).unwrap(), [30_002]);
        assert_eq!(create(&mut state, with_ports(3, vec![open()])).unwrap(), [30_003]);
        // Asked again, it is the same; a free one below does not tempt it.
        state
            .apply(
                9,
                1,
                Command { writes: vec![Write::ServiceRemove(ServiceId::from_u128(1))], ..Command::default() },
            )
            .unwrap();
        assert_eq!(update(&mut state, 3, vec![open()]).unwrap(), [30_003]);
        assert_eq!(create(&mut state, with_ports(4, vec![open()])).unwrap(), [30_000]);
    }

    #[test]
    fn when_all_ports_are_taken_the_user_is_told() {
        let mut state = State::default();
        let all = DYNAMIC_PORTS.map(|number| port(PortMode::Ingress, number)).collect();
        create(&mut state, with_ports(1, all)).unwrap();
        assert_eq!(
            create(&mut state, with_ports(2, vec![port(PortMode::Ingress, 0)])),
            Err(ApplyError::NoPortLeft)
        );
    }
}
