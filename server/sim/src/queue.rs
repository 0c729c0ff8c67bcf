//! The simulated time and everything that is still to happen, in order.

use std::collections::BTreeMap;

/// Simulated microseconds since the beginning of the run; the hosts' own clocks differ from it.
pub type Instant = u64;

/// Events by time; events of one time in the order in which they were put there.
#[derive(Debug)]
pub struct Queue<E> {
    now: Instant,
    next: u64,
    events: BTreeMap<(Instant, u64), E>,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Queue { now: 0, next: 0, events: BTreeMap::new() }
    }
}

impl<E> Queue<E> {
    /// The time of the event being handled.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Puts an event `delay` microseconds ahead.
    pub fn after(&mut self, delay: u64, event: E) {
        self.at(self.now.saturating_add(delay), event);
    }

    /// Puts an event at a time; at the present one if that has passed.
    pub fn at(&mut self, at: Instant, event: E) {
        self.next += 1;
        self.events.insert((at.max(self.now), self.next), event);
    }

    /// The next event; time goes on to it.
    pub fn pop(&mut self) -> Option<E> {
        let ((at, _), event) = self.events.pop_first()?;
        self.now = at;
        Some(event)
    }

    /// When the next event is.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }

    /// How many events wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}
