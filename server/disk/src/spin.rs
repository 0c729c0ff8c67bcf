//! Whether to busy-poll for the next event: only while events follow each other so closely that it pays.

use crate::limits::{SPIN_AFTER, SPIN_VAIN_MAX};
use std::time::Duration;

/// What recent waits have taught.
#[derive(Debug, Default)]
pub(crate) struct Spin {
    /// Waits in a row that were short.
    short: u32,
    /// Spins in a row that were in vain.
    vain: u32,
    on: bool,
}

impl Spin {
    /// Whether to spin in the next wait.
    pub(crate) fn pays(&self) -> bool {
        self.on
    }

    /// A wait took so long; spinning covers `reach`.
    pub(crate) fn learn(&mut self, waited: Duration, reach: Duration) {
        if waited <= reach {
            self.short = self.short.saturating_add(1);
            self.vain = 0;
            self.on |= self.short >= SPIN_AFTER;
        } else {
            self.short = 0;
            self.vain += 1;
            self.on &= self.vain < SPIN_VAIN_MAX;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_with_a_stream_of_events_and_ends_with_it() {
        let (reach, soon, late) =
            (Duration::from_micros(100), Duration::from_micros(20), Duration::from_millis(5));
        let mut spin = Spin::default();
        assert!(!spin.pays());
        for _ in 0..SPIN_AFTER {
            spin.learn(soon, reach);
        }
        assert!(spin.pays());
        spin.learn(late, reach);
        assert!(spin.pays(), "one pause is not the end");
        for _ in 1..SPIN_VAIN_MAX {
            spin.learn(late, reach);
        }
        assert!(!spin.pays());
        spin.learn(soon, reach);
        assert!(!spin.pays(), "one event is not a stream");
    }
}
