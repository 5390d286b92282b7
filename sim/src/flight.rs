//! What is on its way, in the order in which it arrives: of what arrives at once, first what was sent first.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

struct Flight<T> {
    at: Instant,
    number: u64,
    what: T,
}

impl<T> PartialEq for Flight<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl<T> Eq for Flight<T> {}
impl<T> PartialOrd for Flight<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Flight<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// All that is on its way.
pub(crate) struct Flights<T> {
    heap: BinaryHeap<Reverse<Flight<T>>>,
    sent: u64,
}

impl<T> Flights<T> {
    pub(crate) const fn new() -> Self {
        Self { heap: BinaryHeap::new(), sent: 0 }
    }

    /// Send something that arrives then.
    pub(crate) fn send(&mut self, at: Instant, what: T) {
        self.sent += 1;
        self.heap.push(Reverse(Flight { at, number: self.sent, what }));
    }

    /// When the next of it arrives.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(flight)| flight.at)
    }

    /// The next of it, if it has arrived by now.
    pub(crate) fn arrived(&mut self, now: Instant) -> Option<T> {
        self.next_at().filter(|at| *at <= now)?;
        self.heap.pop().map(|Reverse(flight)| flight.what)
    }
}

/// Deliver what arrives, for ever: whenever there is news, and when `deliver` said that something arrives next.
pub(crate) async fn pump(news: &Notify, mut deliver: impl FnMut() -> Option<Instant>) {
    loop {
        match deliver() {
            Some(at) => tokio::select! {
                biased;
                () = news.notified() => {}
                () = sleep_until(at) => {}
            },
            None => news.notified().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_arrives_at_once_arrives_in_the_order_of_sending() {
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        let mut flights = Flights::new();
        for (at, what) in [(later, 'c'), (now, 'a'), (now, 'b')] {
            flights.send(at, what);
        }
        assert_eq!(
            (flights.arrived(now), flights.arrived(now), flights.arrived(now)),
            (Some('a'), Some('b'), None)
        );
        assert_eq!((flights.next_at(), flights.arrived(later)), (Some(later), Some('c')));
    }
}
