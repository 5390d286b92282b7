//! When to stand for election: after a silence of random length, and only if a majority would agree.
//!
//! Asking first (a pre-vote) keeps terms from growing on a manager that nobody hears: when it comes back, the
//! leader stays, and the manager simply follows again.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use openraft::{EffectiveMembership, ServerState};
use shoal_core::model::NodeId;
use shoal_core::put_back::{Bug, is_put_back};
use shoal_wire::Kind;
use tokio::time::Instant;

use super::message::{Ballot, BallotReply};
use super::reach::majority;
use super::start::Inner;
use super::stats::Counters;
use super::types::{LogId, Seat};

/// Least time between two looks at the silence; most of the time the next one is when patience could be at its end.
const TICK: Duration = Duration::from_millis(20);
/// Time for an answer to a pre-vote: no disk is involved in it.
const ASK_TIMEOUT: Duration = Duration::from_millis(150);

/// For so long after a vote for another this node does not stand itself, nor agrees to a third.
const CHANCE: Duration = Duration::from_millis(250);

type Membership = EffectiveMembership<NodeId, Seat>;

/// Stand for election whenever it is due.
pub(super) async fn elections(inner: Arc<Inner>) {
    let mut patience = draw(&inner);
    let mut not_before = Instant::now();
    let pace = inner.timing.pace;
    let mut next = Duration::ZERO;
    while !inner.health.pause(next.max(pace.of(TICK))).await {
        next = Duration::ZERO;
        let metrics = inner.raft.metrics();
        let (state, membership) = {
            let metrics = metrics.borrow();
            (metrics.state, Arc::clone(&metrics.membership_config))
        };
        if matches!(state, ServerState::Leader | ServerState::Shutdown) || inner.health.full().is_some() {
            next = pace.of(TICK * 5);
            continue;
        }
        let groups = membership.membership().get_joint_config();
        let pausing = not_before.saturating_duration_since(Instant::now());
        if !groups.iter().any(|group| group.contains(&inner.me)) || !pausing.is_zero() {
            next = pausing;
            continue;
        }
        let alone = groups.iter().all(|group| group.iter().all(|node| *node == inner.me));
        let left = patience.saturating_sub(inner.reach.leader_silence());
        if !alone && !left.is_zero() {
            next = left;
            continue;
        }
        if inner.reach.voted_for_other_than(inner.me, pace.of(CHANCE)) {
            continue;
        }
        // A core that waits for its disk could not stand now, and must not later because of it.
        if inner.health.busy_for() > inner.timing.heartbeat {
            continue;
        }
        patience = draw(&inner);
        let wins = alone || is_put_back(Bug::NoPreVote) || would_win(&inner, groups).await;
        // While we asked, another may have stood and had our vote: standing now would only depose it.
        if wins && !inner.reach.voted_for_other_than(inner.me, pace.of(CHANCE)) {
            Counters::add(&inner.counters.elections, 1);
            tracing::info!(node = %inner.me, "standing for election");
            if inner.raft.trigger().elect().await.is_err() {
                return;
            }
            let pause = pace.both((Duration::from_millis(200), Duration::from_millis(400)));
            not_before = Instant::now() + inner.scope.random_between(pause.0, pause.1);
        } else {
            let pause = pace.both((Duration::from_millis(20), Duration::from_millis(80)));
            not_before = Instant::now() + inner.scope.random_between(pause.0, pause.1);
        }
    }
}

fn draw(inner: &Inner) -> Duration {
    let (low, high) = inner.timing.patience;
    inner.scope.random_between(low, high)
}

fn last_log(inner: &Inner) -> Option<LogId> {
    inner.raft.data_metrics().borrow().last_log
}

/// Ask the other voters whether they would vote for us.
async fn would_win(inner: &Inner, groups: &[std::collections::BTreeSet<NodeId>]) -> bool {
    let seats = inner.raft.metrics().borrow().membership_config.clone();
    let question = Ballot::WouldV1(last_log(inner));
    let mut pending = FuturesUnordered::new();
    for node in seats.voter_ids().filter(|node| *node != inner.me) {
        let Some(seat) = seats.membership().get_node(&node) else { continue };
        let time = inner.timing.pace.of(ASK_TIMEOUT);
        let rx = inner.net.call(node, &seat.addr, Kind::RaftVote, &question, time);
        pending.push(async move { (node, rx.await) });
    }
    let mut in_favour = std::collections::BTreeSet::from([inner.me]);
    while let Some((node, answer)) = pending.next().await {
        if let Ok(Ok(BallotReply::WouldV1(true))) = answer {
            in_favour.insert(node);
            if majority(groups, |node| in_favour.contains(&node)) {
                return true;
            }
        }
    }
    false
}

/// Where the membership before this node's newest one is, if it is one of the voters there and of those here no more.
///
/// Up to there a candidate's log must reach for its vote, and no further. The newest membership may be nowhere else: then all
/// others still count on its vote, and can never have what it alone has; it cannot stand itself, for it has no seat. It
/// breaks no promise by that. What comes after the membership before is committed by a majority of those who stay, too, and
/// among them whoever has that membership needs a majority as well.
async fn seat_lost_after(inner: &Inner) -> Option<LogId> {
    let me = inner.me;
    if inner.is_voter(me) {
        return None;
    }
    // What is told outside of the core may be older, above all as it starts.
    let before = inner.raft.with_raft_state(move |state| {
        let (before, newest) = (state.membership_state.committed(), state.membership_state.effective());
        let has_seat = |membership: &Membership| membership.voter_ids().any(|node| node == me);
        (has_seat(before) && !has_seat(newest)).then(|| *before.log_id())
    });
    before.await.ok().flatten().flatten()
}

/// As which log's end openraft is to take a candidate's, which compares it with this node's own.
pub(super) async fn taken_for(inner: &Inner, theirs: Option<LogId>) -> Option<LogId> {
    match seat_lost_after(inner).await {
        Some(least) if theirs >= Some(least) => theirs.max(last_log(inner)),
        _ => theirs,
    }
}

/// Whether this node would vote for another whose log ends there.
pub(super) async fn would_grant(inner: &Inner, from: NodeId, their_last: Option<LogId>) -> bool {
    let leads = inner.raft.metrics().borrow().state == ServerState::Leader;
    if inner.reach.voted_for_other_than(from, inner.timing.pace.of(CHANCE))
        || leads && inner.hears_majority(inner.timing.lease)
    {
        return false;
    }
    (leads || inner.reach.leader_silence() >= inner.timing.lease)
        && inner.keeps_promises(their_last)
        && is_fit(inner.is_voter(from), last_log(inner), taken_for(inner, their_last).await)
}

/// Whether a log that ends there is fit for a leader. Of one with a longer log than ours we cannot know whether it has a
/// seat: it may have been given it while we were away.
fn is_fit(has_seat: bool, ours: Option<LogId>, theirs: Option<LogId>) -> bool {
    theirs > ours || has_seat && theirs == ours
}

#[cfg(test)]
mod tests {
    use openraft::CommittedLeaderId;

    use super::*;

    #[test]
    fn one_with_a_longer_log_is_fit_even_if_its_seat_is_not_known() {
        let id = |term, index| Some(LogId::new(CommittedLeaderId::new(term, NodeId::from_u128(1)), index));
        let fit = |has_seat, theirs| is_fit(has_seat, id(2, 5), theirs);
        assert_eq!([id(2, 6), id(3, 1)].map(|last| (fit(true, last), fit(false, last))), [(true, true); 2]);
        assert_eq!([id(2, 5)].map(|last| (fit(true, last), fit(false, last))), [(true, false)]);
        let shorter = [id(2, 4), id(1, 9), None].map(|last| (fit(true, last), fit(false, last)));
        assert_eq!(shorter, [(false, false); 3]);
        assert!(is_fit(true, None, None) && is_fit(false, None, id(1, 1)) && !is_fit(false, None, None));
    }
}
