//! Published ports.

use std::collections::BTreeSet;

use shoal_core::model::{EndpointMode, EndpointSpec, PortConfig, PortMode, Protocol};

use super::super::error::HttpError;
use super::super::types::{self, Port};
use super::{filled, word, word_of};

const MODES: [(&str, EndpointMode); 2] = [("vip", EndpointMode::Vip), ("dnsrr", EndpointMode::Dnsrr)];
const PROTOCOLS: [(&str, Protocol); 3] =
    [("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("sctp", Protocol::Sctp)];
const PUBLISH_MODES: [(&str, PortMode); 2] = [("ingress", PortMode::Ingress), ("host", PortMode::Host)];

/// Read how a service is reached, checked.
pub(super) fn endpoint(path: &str, json: types::EndpointSpec) -> Result<EndpointSpec, HttpError> {
    let mode = word(&format!("{path}.Mode"), json.mode.as_deref(), &MODES)?;
    let mut taken = BTreeSet::new();
    let mut ports = Vec::new();
    for (at, port) in json.ports.unwrap_or_default().into_iter().enumerate() {
        let path = format!("{path}.Ports.{at}");
        let port = self::port(&path, port)?;
        if port.published_port != 0 && !taken.insert((port.protocol, port.published_port)) {
            return Err(HttpError::field(
                &format!("{path}.PublishedPort"),
                format!("duplicate published port {}: publish each port once", port.published_port),
            ));
        }
        ports.push(port);
    }
    if mode == EndpointMode::Dnsrr && ports.iter().any(|port| port.mode == PortMode::Ingress) {
        return Err(HttpError::invalid(
            "rpc error: code = InvalidArgument desc = EndpointSpec: port published with ingress mode can't be used \
             with dnsrr mode",
        ));
    }
    Ok(EndpointSpec { mode, ports })
}

fn port(path: &str, json: Port) -> Result<PortConfig, HttpError> {
    let mode = word(&format!("{path}.PublishMode"), json.publish_mode.as_deref(), &PUBLISH_MODES)?;
    let protocol = word(&format!("{path}.Protocol"), json.protocol.as_deref(), &PROTOCOLS)?;
    if mode == PortMode::Ingress && protocol == Protocol::Sctp {
        return Err(HttpError::field(
            &format!("{path}.Protocol"),
            "tcp and udp go through the mesh, sctp does not: use mode=host \
             (--publish published=5000,target=5000,protocol=sctp,mode=host)",
        ));
    }
    let target_port = number(&format!("{path}.TargetPort"), json.target_port)?;
    if target_port == 0 {
        return Err(HttpError::field(
            &format!("{path}.TargetPort"),
            "a port of the container is wanted, 1 to 65535",
        ));
    }
    Ok(PortConfig {
        name: json.name.unwrap_or_default(),
        protocol,
        target_port,
        published_port: number(&format!("{path}.PublishedPort"), json.published_port)?,
        mode,
        // Labels say it: Docker's own clients would drop what its specification does not know.
        at: Vec::new(),
    })
}

fn number(path: &str, value: Option<i64>) -> Result<u16, HttpError> {
    let value = value.unwrap_or_default();
    u16::try_from(value)
        .map_err(|_| HttpError::field(path, format!("{value} is no port: 0 to 65535 is wanted")))
}

/// Write how a service is reached.
pub(super) fn endpoint_json(endpoint: &EndpointSpec) -> types::EndpointSpec {
    types::EndpointSpec {
        mode: word_of(endpoint.mode, &MODES),
        ports: filled(&endpoint.ports.iter().map(port_json).collect()),
    }
}

/// Write a port.
pub(in crate::http) fn port_json(port: &PortConfig) -> Port {
    Port {
        name: filled(&port.name),
        protocol: word_of(port.protocol, &PROTOCOLS),
        target_port: Some(port.target_port.into()),
        published_port: filled(&i64::from(port.published_port)),
        publish_mode: word_of(port.mode, &PUBLISH_MODES),
    }
}
