//! The whole table of access, walked with real certificates.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use shoal_core::model::{ClusterId, NodeId, Role};
use shoal_net::ca::ca_digest;
use shoal_net::identity::Credentials;
use shoal_net::line::{Dial, Expected, Line, Proof};
use shoal_net::task::Scope;
use shoal_net::*;
use shoal_wire::v1::Hello;
use shoal_wire::{Kind, Protocol, codec};
use tokio::time::Instant;

use crate::support::*;

/// Sends one message of this kind, as a call or as the opening of a stream.
async fn send(endpoint: &Endpoint, to: &Peer, kind: Kind) -> Result<(), CallError> {
    if matches!(kind, Kind::Session | Kind::Connect | Kind::Packets) {
        let (mut tx, mut rx) = endpoint.open(to, kind, vec![1], WAIT).await?;
        tx.send(Kind::FromNode, vec![7]).await.map_err(|e| CallError::Lost(e.to_string()))?;
        let echo = rx.recv().await.map_err(|e| CallError::Lost(e.to_string()))?.unwrap();
        assert_eq!(echo.body, [7]);
        Ok(())
    } else {
        endpoint.call(to, kind, vec![1, 2, 3], WAIT).await.map(|echo| assert_eq!(echo, [1, 2, 3]))
    }
}

/// From which state the certificate was made that the other end sees.
async fn as_seen(endpoint: &Endpoint, to: &Peer) -> u64 {
    let answer = endpoint.call(to, Kind::RaftVote, AS_OF.to_vec(), WAIT).await.unwrap();
    u64::from_be_bytes(answer.try_into().unwrap())
}

fn may(role: Role, kind: Kind) -> bool {
    match kind {
        // Begins nothing by itself: the greeting is not a call.
        Kind::Hello | Kind::ToNode | Kind::FromNode | Kind::Routes => false,
        Kind::Join
        | Kind::Renew
        | Kind::Session
        | Kind::Attach
        | Kind::Gossip
        | Kind::Connect
        | Kind::Packets => true,
        _ => role == Role::Manager,
    }
}

pub async fn every_role_can_send_what_the_table_says_and_nothing_else(ground: Arc<dyn Ground>) {
    let world = World::new(&ground);
    let (_manager, to) = world.node(1, Role::Manager);
    let (mut allowed, mut denied) = (0, 0);
    for role in [Role::Worker, Role::Manager] {
        let (caller, _) = world.node(2, role);
        for kind in Kind::ALL {
            let result = send(&caller, &to, *kind).await;
            assert_eq!(result.is_ok(), may(role, *kind), "{role} sends {kind:?}: {result:?}");
            if result.is_ok() { allowed += 1 } else { denied += 1 }
        }
    }
    assert_eq!((allowed, denied), (7 + 14, 2 * Kind::ALL.len() - 21));
}

async fn nothing_is_allowed(world: &World, who: &str, credentials: Arc<Credentials>, to: &Peer) {
    let (caller, _) = world.endpoint(Some(credentials));
    for kind in Kind::ALL {
        let result = send(&caller, to, *kind).await;
        assert!(result.is_err(), "{who} could send {kind:?}");
    }
}

pub async fn certificates_that_are_not_good_open_nothing(ground: Arc<dyn Ground>) {
    let (world, other) = (World::new(&ground), World::new(&ground));
    let (_manager, to) = world.node(1, Role::Manager);
    nothing_is_allowed(&world, "another authority", other.forged(&world, 2, Role::Manager), &to).await;
    let expired = world.signed(2, Role::Manager, CLUSTER, NOW - 3 * DAY, NOW - DAY);
    nothing_is_allowed(&world, "an expired certificate", expired, &to).await;
    let early = world.signed(2, Role::Manager, CLUSTER, NOW + DAY, NOW + 2 * DAY);
    nothing_is_allowed(&world, "a certificate not valid yet", early, &to).await;
    let foreign = world.signed(2, Role::Manager, ClusterId::from_u128(9), NOW - DAY, NOW + DAY);
    nothing_is_allowed(&world, "a certificate of another cluster", foreign, &to).await;
}

pub async fn without_a_certificate_one_can_only_ask_for_one(ground: Arc<dyn Ground>) {
    let world = World::new(&ground);
    let (_manager, to) = world.node(1, Role::Manager);
    let (caller, _) = world.endpoint(None);
    let pin = ca_digest(&world.ca.to_root_ca().cert_der);
    for kind in Kind::ALL {
        let result = caller.join_call(to.addr, pin, *kind, vec![1], WAIT).await;
        assert_eq!(result.is_ok(), *kind == Kind::Join, "{kind:?}: {result:?}");
        assert!(send(&caller, &to, *kind).await.is_err(), "{kind:?}");
    }
}

pub async fn a_manager_with_another_root_is_not_joined(ground: Arc<dyn Ground>) {
    let (world, other) = (World::new(&ground), World::new(&ground));
    let (_manager, to) = world.node(1, Role::Manager);
    let (caller, _) = world.endpoint(None);
    let pin = ca_digest(&other.ca.to_root_ca().cert_der);
    let result = caller.join_call(to.addr, pin, Kind::Join, vec![1], WAIT).await;
    assert!(matches!(result, Err(CallError::Unreachable(_))), "{result:?}");
    let (_worker, to) = world.node(3, Role::Worker);
    let pin = ca_digest(&world.ca.to_root_ca().cert_der);
    assert!(
        caller.join_call(to.addr, pin, Kind::Join, vec![1], WAIT).await.is_err(),
        "a worker poses as manager"
    );
}

pub async fn a_node_is_only_who_its_certificate_says(ground: Arc<dyn Ground>) {
    let world = World::new(&ground);
    let (_manager, to) = world.node(1, Role::Manager);
    let (caller, _) = world.node(2, Role::Manager);
    let wrong = Peer { node_id: Some(NodeId::from_u128(3)), ..to };
    assert!(send(&caller, &wrong, Kind::RaftVote).await.is_err(), "dialled another node than it answered");
    let any_manager = Peer { node_id: None, ..to };
    send(&caller, &any_manager, Kind::RaftVote).await.unwrap();
}

pub async fn a_removed_node_is_cut_off_at_once_and_refused(ground: Arc<dyn Ground>) {
    let world = World::new(&ground);
    let (manager, to) = world.node(1, Role::Manager);
    let (caller, _) = world.node(2, Role::Worker);
    let (_tx, mut rx) = caller.open(&to, Kind::Session, vec![], WAIT).await.unwrap();
    let began = Instant::now();
    manager.set_banned(BTreeSet::from([NodeId::from_u128(2)]));
    let end = tokio::time::timeout(Duration::from_secs(2), rx.recv()).await.expect("cut off within 2 s");
    assert!(!matches!(end, Ok(Some(_))), "{end:?}");
    assert!(began.elapsed() < Duration::from_secs(2));
    for _ in 0..3 {
        let result = send(&caller, &to, Kind::Session).await;
        let removed = match &result {
            Err(CallError::Removed) => true,
            Err(CallError::Unreachable(why)) => why.contains("removed"),
            _ => false,
        };
        assert!(removed, "{result:?}");
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    // And the manager does not call it either.
    let worker = Peer { node_id: Some(NodeId::from_u128(2)), addr: caller.local_addr().unwrap() };
    assert!(manager.call(&worker, Kind::Renew, vec![], WAIT).await.is_err());
}

pub async fn renewing_drops_no_stream(ground: Arc<dyn Ground>) {
    let world = World::new(&ground);
    let (manager, to) = world.node(1, Role::Manager);
    let (caller, _) = world.node(2, Role::Worker);
    let (mut tx, mut rx) = caller.open(&to, Kind::Session, vec![], WAIT).await.unwrap();
    caller.set_credentials(Some(world.credentials(2, Role::Worker)));
    manager.set_credentials(Some(world.credentials(1, Role::Manager)));
    tx.send(Kind::FromNode, vec![5]).await.unwrap();
    assert_eq!(rx.recv().await.unwrap().unwrap().body, [5]);
    send(&caller, &to, Kind::Session).await.unwrap();
}

pub async fn peers_notice_a_node_that_was_killed_and_started_again(ground: Arc<dyn Ground>) {
    let world = World::new(&ground);
    let key = Some([7; RESET_KEY_BYTES]);
    let credentials = || Some(world.credentials(1, Role::Manager));
    let scope = Scope::new();
    let (manager, to) = world.bound(None, key, scope.clone(), credentials());
    let (caller, _) = world.node(2, Role::Manager);
    send(&caller, &to, Kind::RaftVote).await.unwrap();
    // Nothing is said to anybody.
    scope.abort();
    ground.killed(to.addr, Box::new(manager)).await;
    let (_again, _) = world.bound(Some(to.addr), key, Scope::new(), credentials());
    // Well before the connection has idled out a call gets through.
    let began = Instant::now();
    while send(&caller, &to, Kind::RaftVote).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(3), "the old connection is still taken for alive");
    }
}

pub async fn a_promoted_node_speaks_with_its_new_role(ground: Arc<dyn Ground>) {
    let world = World::new(&ground);
    let (_manager, to) = world.node(1, Role::Manager);
    let (caller, _) = world.node(2, Role::Worker);
    assert!(send(&caller, &to, Kind::RaftVote).await.is_err());
    caller.set_credentials(Some(world.credentials(2, Role::Manager)));
    send(&caller, &to, Kind::RaftVote).await.unwrap();
}

pub async fn a_renewed_certificate_is_what_others_see_from_then_on(ground: Arc<dyn Ground>) {
    let world = World::new(&ground);
    let (_manager, to) = world.node(1, Role::Manager);
    let (caller, _) = world.node(2, Role::Manager);
    assert_eq!(as_seen(&caller, &to).await, 1);
    caller.set_credentials(Some(world.credentials_as_of(2, Role::Manager, 9)));
    assert_eq!(as_seen(&caller, &to).await, 9);
}

pub async fn a_node_that_left_is_heard_no_more(ground: Arc<dyn Ground>) {
    let world = World::new(&ground);
    let (_manager, to) = world.node(1, Role::Manager);
    let (caller, _) = world.node(2, Role::Worker);
    send(&caller, &to, Kind::Session).await.unwrap();
    caller.set_credentials(None);
    assert!(send(&caller, &to, Kind::Session).await.is_err());
}

/// Say something on a line; the whole answer, if there is one.
async fn say(line: &Arc<dyn Line>, kind: Kind, body: Vec<u8>) -> Option<Vec<u8>> {
    let (tx, mut rx) = line.open().await.ok()?;
    FrameSender::new(tx).send(kind, body).await.ok()?;
    let mut heard = Vec::new();
    while let Some(bytes) = tokio::time::timeout(WAIT, rx.read()).await.ok()?.ok()? {
        heard.extend_from_slice(&bytes);
    }
    (!heard.is_empty()).then_some(heard)
}

pub async fn who_meant_a_node_that_left_is_not_answered_by_the_one_in_its_place(ground: Arc<dyn Ground>) {
    let world = World::new(&ground);
    let (manager, to) = world.node(1, Role::Manager);
    let us = world.credentials(2, Role::Manager);
    let hello = codec::encode(&Hello { node_id: Some(us.identity().node_id), minor: 0 }).unwrap();
    let carrier = world.carrier(Scope::new(), Some(&us));
    for leaves in [false, true] {
        let (expected, proof) = (Expected::Role(Role::Manager), Proof::Certificate(us.clone()));
        let dial = Dial { addr: to.addr, protocol: Protocol::Raft, expected, proof };
        let line = carrier.dial(dial).await.unwrap();
        if leaves {
            // Before hands are shaken.
            tokio::time::sleep(Duration::from_millis(50)).await;
            manager.set_credentials(None);
            manager.set_credentials(Some(world.credentials(3, Role::Manager)));
        }
        let _ = say(&line, Kind::Hello, hello.clone()).await;
        let heard = say(&line, Kind::RaftVote, vec![7]).await;
        assert_eq!(heard.is_some_and(|heard| heard.ends_with(&[7])), !leaves);
    }
}

pub async fn calls_to_nobody_end_in_time(ground: Arc<dyn Ground>) {
    let world = World::new(&ground);
    let (caller, _) = world.node(2, Role::Manager);
    let to = Peer { node_id: Some(NodeId::from_u128(1)), addr: ground.hole() };
    for timeout in [Duration::from_millis(100), Duration::from_millis(300)] {
        let began = Instant::now();
        let result = caller.call(&to, Kind::RaftVote, vec![], timeout).await;
        assert!(matches!(result, Err(CallError::Unreachable(_))), "{result:?}");
        assert!(began.elapsed() < timeout + Duration::from_secs(1));
    }
}

pub async fn large_messages_pass_and_larger_are_refused_by_name(ground: Arc<dyn Ground>) {
    let world = World::new(&ground);
    let (_manager, to) = world.node(1, Role::Manager);
    let (caller, _) = world.node(2, Role::Manager);
    let body = vec![9; 4 << 20];
    assert_eq!(caller.call(&to, Kind::RaftSnapshot, body.clone(), WAIT * 5).await.unwrap(), body);
    let result = caller.call(&to, Kind::RaftSnapshot, vec![0; (16 << 20) + 1], WAIT).await;
    assert!(matches!(&result, Err(CallError::Refused(why)) if why.contains("bytes")), "{result:?}");
}

pub async fn no_connection_is_ever_resumed(ground: Arc<dyn Ground>) {
    let world = World::new(&ground);
    let (manager, to) = world.node(1, Role::Manager);
    let (caller, _) = world.node(2, Role::Worker);
    send(&caller, &to, Kind::Session).await.unwrap();
    manager.close_peer(NodeId::from_u128(2));
    tokio::time::sleep(Duration::from_millis(100)).await;
    manager.set_banned(BTreeSet::from([NodeId::from_u128(2)]));
    assert!(send(&caller, &to, Kind::Session).await.is_err());
    assert_eq!(Protocol::ALL.len(), 7);
}
