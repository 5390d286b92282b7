//! Stories and properties of the detector.

mod network;

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::{NodeId, Timestamp};
use crate::pace::Pace;

const ME: NodeId = NodeId::from_u128(1);
const NODE: NodeId = NodeId::from_u128(2);

fn at(ms: u64) -> Timestamp {
    Timestamp(1_000_000 + ms)
}

/// A leader that hears itself and two others, up to time zero.
fn detector() -> Detector {
    let mut detector = Detector::new(DetectorConfig::for_heartbeat(Duration::from_millis(300), Pace::USUAL));
    for id in 1..=3 {
        detector.heard(NodeId::from_u128(id), at(0));
    }
    detector
}

fn others_live(detector: &mut Detector, ms: u64) {
    for id in [ME, NodeId::from_u128(3)] {
        detector.heard(id, at(ms));
        detector.evidence(id, Evidence { gossip_alive: true, ..Evidence::default() });
    }
}

fn verdict(detector: &mut Detector, ms: u64) -> Option<Verdict> {
    detector.decide(at(ms)).into_iter().find(|(id, _, _)| *id == NODE).map(|(_, verdict, _)| verdict)
}

#[test]
fn a_node_heard_by_nobody_is_down_within_two_seconds() {
    let mut detector = detector();
    others_live(&mut detector, 1_500);
    let evidence = Evidence { known: true, gossip_alive: false, peers_hearing: 0, peers_asked: 1 };
    detector.evidence(NODE, evidence);
    assert_eq!(verdict(&mut detector, 800), Some(Verdict::Up));
    assert_eq!(verdict(&mut detector, 1_000), Some(Verdict::Down));
}

#[test]
fn a_node_that_others_hear_is_only_unreachable() {
    let mut detector = detector();
    for (evidence, ms) in [
        (Evidence { gossip_alive: true, ..Evidence::default() }, 5_000),
        (Evidence { known: true, gossip_alive: false, peers_hearing: 1, peers_asked: 1 }, 60_000),
    ] {
        others_live(&mut detector, ms);
        detector.evidence(NODE, evidence);
        assert_eq!(verdict(&mut detector, ms), Some(Verdict::Unreachable));
    }
}

#[test]
fn a_new_leader_waits_for_a_node_that_gossip_does_not_know_and_then_no_longer() {
    let mut detector = Detector::new(DetectorConfig::for_heartbeat(Duration::from_millis(300), Pace::USUAL));
    for id in 1..=3 {
        detector.expect(NodeId::from_u128(id), at(0));
    }
    let stranger = Evidence { peers_asked: 1, ..Evidence::default() };
    for (ms, expected) in [(1_000, None), (2_000, None), (2_800, Some(Verdict::Down))] {
        others_live(&mut detector, ms);
        detector.evidence(NODE, stranger);
        assert_eq!(verdict(&mut detector, ms), expected, "after {ms} ms");
    }
}

#[test]
fn a_silent_node_is_not_called_unreachable_before_gossip_can_know() {
    let mut detector = detector();
    others_live(&mut detector, 1_000);
    detector.evidence(NODE, Evidence { gossip_alive: true, ..Evidence::default() });
    assert_eq!(verdict(&mut detector, 1_000), None);
}

#[test]
fn a_leader_that_hears_nobody_declares_nobody_dead_for_a_while() {
    let mut detector = detector();
    detector.heard(ME, at(5_000));
    assert_eq!(verdict(&mut detector, 5_000), None);
    detector.heard(ME, at(11_000));
    assert_eq!(verdict(&mut detector, 11_000), Some(Verdict::Down));
}

#[test]
fn of_two_nodes_the_other_is_down_when_silent() {
    let mut detector = Detector::new(DetectorConfig::for_heartbeat(Duration::from_millis(300), Pace::USUAL));
    detector.heard(ME, at(0));
    detector.heard(NODE, at(0));
    detector.heard(ME, at(1_500));
    assert_eq!(verdict(&mut detector, 1_500), Some(Verdict::Down));
}

#[test]
fn a_starved_leader_kills_nobody() {
    let mut detector = detector();
    // Nothing was read for three seconds; the timer fires that late.
    detector.on_tick(at(3_100), Duration::from_secs(3));
    assert_eq!(verdict(&mut detector, 3_100), Some(Verdict::Up));
}

#[test]
fn a_new_leader_waits_for_sessions() {
    let mut detector = Detector::new(DetectorConfig::for_heartbeat(Duration::from_millis(300), Pace::USUAL));
    detector.heard(ME, at(2_000));
    assert!(detector.expect(NODE, at(0)));
    assert!(!detector.expect(NODE, at(1_000)), "it is watched, and since then");
    assert_eq!(verdict(&mut detector, 1_500), None);
    assert_eq!(verdict(&mut detector, 2_800), Some(Verdict::Down));
    detector.heard(NODE, at(2_900));
    assert_eq!(verdict(&mut detector, 2_900), Some(Verdict::Up));
}

#[test]
fn a_new_leader_has_no_patience_for_whom_all_peers_gave_up() {
    let mut detector = Detector::new(DetectorConfig::for_heartbeat(Duration::from_millis(300), Pace::USUAL));
    for id in 1..=3 {
        detector.expect(NodeId::from_u128(id), at(0));
    }
    others_live(&mut detector, 900);
    detector.evidence(NODE, Evidence { known: true, gossip_alive: false, peers_hearing: 1, peers_asked: 1 });
    assert_eq!(verdict(&mut detector, 1_000), None);
    detector.evidence(NODE, Evidence { known: true, gossip_alive: false, peers_hearing: 0, peers_asked: 1 });
    assert_eq!(verdict(&mut detector, 1_000), Some(Verdict::Down));
}

#[test]
fn nodes_that_are_down_already_do_not_make_the_leader_doubt_itself() {
    let mut detector = detector();
    others_live(&mut detector, 1_000);
    assert_eq!(verdict(&mut detector, 1_000), Some(Verdict::Down));
    // The last other node goes too.
    detector.evidence(NodeId::from_u128(3), Evidence::default());
    detector.heard(ME, at(2_100));
    let last = detector.decide(at(2_100)).into_iter().find(|(id, _, _)| *id == NodeId::from_u128(3));
    assert_eq!(last.map(|(_, verdict, _)| verdict), Some(Verdict::Down));
}

#[test]
fn a_node_that_is_down_comes_back_by_its_own_word_only() {
    let mut detector = detector();
    others_live(&mut detector, 1_000);
    assert_eq!(verdict(&mut detector, 1_000), Some(Verdict::Down));
    detector.evidence(NODE, Evidence { known: true, gossip_alive: true, peers_hearing: 1, peers_asked: 1 });
    assert_eq!(verdict(&mut detector, 1_100), Some(Verdict::Down));
    detector.heard(NODE, at(1_200));
    assert_eq!(verdict(&mut detector, 1_200), Some(Verdict::Up));
}

#[test]
fn a_leader_whose_gossip_is_deaf_waits_twice_as_long() {
    let mut detector = detector();
    assert_eq!(verdict(&mut detector, 0), Some(Verdict::Up));
    for ms in [1_000, 1_700] {
        detector.heard(ME, at(ms));
        detector.heard(NodeId::from_u128(3), at(ms));
        assert_eq!(verdict(&mut detector, ms), None);
    }
    assert_eq!(verdict(&mut detector, 1_800), Some(Verdict::Down));
}

#[test]
fn a_leader_whose_gossip_is_deaf_only_now_does_not_judge_by_it_yet() {
    let mut detector = detector();
    for (ms, gossip_alive, verdict_then) in [
        // Another node hears the silent one, which the leader cannot.
        (9_000, true, Some(Verdict::Unreachable)),
        // The leader stood still, and its gossip takes the others for dead.
        (10_000, false, None),
        (11_700, false, None),
        (11_800, false, Some(Verdict::Down)),
    ] {
        for id in [ME, NodeId::from_u128(3)] {
            detector.heard(id, at(ms));
            detector.evidence(id, Evidence { gossip_alive, ..Evidence::default() });
        }
        let peers = u32::from(gossip_alive);
        let evidence =
            Evidence { known: true, gossip_alive: false, peers_hearing: peers, peers_asked: peers };
        detector.evidence(NODE, evidence);
        assert_eq!(verdict(&mut detector, ms), verdict_then, "{ms}");
    }
    assert_eq!(detector.next_deadline(at(11_700)), Some(at(11_800)));
}

#[test]
fn a_clock_that_is_set_back_does_not_keep_the_dead_alive() {
    let mut detector = detector();
    detector.on_tick(at(0), Duration::ZERO);
    let back = Timestamp(at(0).0 - 60_000);
    detector.on_tick(back, Duration::ZERO);
    let later = back.plus(Duration::from_millis(1_000));
    detector.heard(ME, later);
    detector.heard(NodeId::from_u128(3), later);
    for id in [ME, NodeId::from_u128(3)] {
        detector.evidence(id, Evidence { gossip_alive: true, ..Evidence::default() });
    }
    let verdicts = detector.decide(later);
    assert!(verdicts.iter().any(|(id, verdict, _)| (*id, *verdict) == (NODE, Verdict::Down)));
}

#[test]
fn the_next_deadline_is_when_the_first_silence_is_full() {
    let mut detector = detector();
    detector.heard(ME, at(200));
    assert_eq!(detector.next_deadline(at(300)), Some(at(900)));
    assert_eq!(detector.next_deadline(at(900)), Some(at(1_100)));
}

#[test]
fn a_new_leader_does_not_wait_for_a_node_that_all_call_dead() {
    let mut detector = Detector::new(DetectorConfig::for_heartbeat(Duration::from_millis(300), Pace::USUAL));
    detector.expect(NODE, at(0));
    detector.expect(NodeId::from_u128(3), at(0));
    others_live(&mut detector, 950);
    detector.evidence(NODE, Evidence { known: true, gossip_alive: false, peers_hearing: 0, peers_asked: 1 });
    assert_eq!(verdict(&mut detector, 950), Some(Verdict::Down));
}

proptest! {
    /// Heartbeats every 300 ms; each is lost with 20 % and then repeated by QUIC some 100–400 ms later, each time
    /// anew with 20 %. Gossip is up to a second old.
    #[test]
    fn twenty_percent_loss_kills_nobody(delays in prop::collection::vec((0u32..5, 0u32..5, 0u32..5, 0u64..300), 200)) {
        let mut detector = detector();
        let (mut arrivals, mut now) = (Vec::new(), 0);
        for (first, second, third, extra) in delays {
            now += 300;
            let lost = [first, second, third].iter().take_while(|draw| **draw == 0).count() as u64;
            arrivals.push(now + lost * 300 + extra.min(lost * 100));
        }
        // A stream delivers in order.
        for at in 1..arrivals.len() {
            arrivals[at] = arrivals[at].max(arrivals[at - 1]);
        }
        let mut next = 0;
        for ms in (0..now).step_by(100) {
            while next < arrivals.len() && arrivals[next] <= ms {
                detector.heard(NODE, at(arrivals[next]));
                next += 1;
            }
            others_live(&mut detector, ms);
            // Alive in truth, so gossip's view of it is alive too.
            detector.evidence(NODE, Evidence { known: true, gossip_alive: true, peers_hearing: 1, peers_asked: 1 });
            prop_assert_ne!(verdict(&mut detector, ms), Some(Verdict::Down));
        }
    }

    #[test]
    fn nobody_is_down_whom_anybody_hears(heard in 0u64..10_000, now in 0u64..20_000, alive: bool, hearing in 0u32..3) {
        let mut detector = detector();
        detector.heard(NODE, at(heard));
        others_live(&mut detector, now);
        detector.evidence(NODE, Evidence { known: true, gossip_alive: alive, peers_hearing: hearing, peers_asked: 3 });
        if alive || hearing > 0 {
            prop_assert_ne!(verdict(&mut detector, now), Some(Verdict::Down));
        } else if now > heard + 1_000 {
            prop_assert_eq!(verdict(&mut detector, now), Some(Verdict::Down));
        }
    }
}
