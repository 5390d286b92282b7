//! The one table of who may send what. Enforced in one place, on receipt.

use shoal_core::model::Role;
use shoal_wire::{Kind, Protocol};

/// Whether a caller of this role (none: without a certificate) may begin an exchange with this kind of
/// message on a connection of this protocol.
#[must_use]
pub const fn allowed(role: Option<Role>, protocol: Protocol, kind: Kind) -> bool {
    if matches!(kind, Kind::Hello) {
        // Greets on every connection; without a certificate only where one can be asked for.
        return role.is_some() || matches!(protocol, Protocol::Join);
    }
    if kind.protocol() as u8 != protocol as u8 {
        return false;
    }
    match kind {
        Kind::Hello => false,
        Kind::Join => true,
        Kind::Renew | Kind::Session | Kind::Attach | Kind::Gossip | Kind::Connect | Kind::Packets => {
            role.is_some()
        }
        Kind::RaftAppend
        | Kind::RaftVote
        | Kind::RaftSnapshot
        | Kind::Propose
        | Kind::ReadIndex
        | Kind::TakeSeat
        | Kind::LeaveSeat => matches!(role, Some(Role::Manager)),
        // Frames inside a session; they begin nothing.
        Kind::ToNode | Kind::FromNode | Kind::Routes => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_reaches_neither_raft_nor_control() {
        for kind in Kind::ALL.iter().filter(|k| matches!(k.protocol(), Protocol::Raft | Protocol::Control)) {
            for protocol in Protocol::ALL {
                assert!(!allowed(Some(Role::Worker), protocol, *kind), "{kind:?} on {protocol:?}");
                assert!(!allowed(None, protocol, *kind), "{kind:?} on {protocol:?}");
            }
            assert!(allowed(Some(Role::Manager), kind.protocol(), *kind));
        }
    }

    #[test]
    fn without_a_certificate_only_joining_is_open() {
        for protocol in Protocol::ALL {
            for kind in Kind::ALL {
                let open = protocol == Protocol::Join && matches!(kind, Kind::Hello | Kind::Join);
                assert_eq!(allowed(None, protocol, *kind), open, "{kind:?} on {protocol:?}");
            }
        }
    }

    #[test]
    fn a_kind_is_taken_on_its_own_protocol_alone() {
        for protocol in Protocol::ALL {
            for kind in Kind::ALL.iter().filter(|k| **k != Kind::Hello && k.protocol() != protocol) {
                assert!(!allowed(Some(Role::Manager), protocol, *kind), "{kind:?} on {protocol:?}");
            }
        }
    }
}
