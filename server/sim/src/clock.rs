//! A host's own clock: it starts anywhere, and runs a little fast or slow.

use crate::queue::Instant;
use crate::rng::Rng;
use wire::Time;

/// How far a clock may run off, in parts per million: a hundred times worse than a bad quartz, well inside the margin
/// that the detection time leaves over lease and bound (DESIGN 6).
const DRIFT_PPM_MAX: u64 = 10_000;
/// Latest start of a clock in microseconds: two clocks agree on nothing.
const OFFSET_MAX: u64 = 1_000_000_000_000;

/// Longest run of a clock in microseconds (fifty days): keeps the products below inside 64 bits.
const RAN_MAX: u64 = 1 << 42;

/// A host's CLOCK_BOOTTIME.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    booted: Instant,
    offset: u64,
    /// Microseconds gained or lost in a second.
    ppm: i64,
}

impl Clock {
    /// A clock of a host that boots at this moment.
    pub fn booted(at: Instant, rng: &mut Rng) -> Self {
        let ppm = rng.range(0, 2 * DRIFT_PPM_MAX) as i64 - DRIFT_PPM_MAX as i64;
        Clock { booted: at, offset: rng.below(OFFSET_MAX), ppm }
    }

    /// What this clock shows.
    #[must_use]
    pub fn time(&self, at: Instant) -> Time {
        let ran = at.saturating_sub(self.booted) as i64;
        Time(self.offset.saturating_add_signed(ran + ran * self.ppm / 1_000_000))
    }

    /// The first moment at which this clock shows `time`.
    #[must_use]
    pub fn moment(&self, time: Time) -> Instant {
        let ran = time.0.saturating_sub(self.offset).min(RAN_MAX) as i64;
        let mut at = self.booted.saturating_add_signed(ran * 1_000_000 / (1_000_000 + self.ppm));
        // Both divisions cut: the exact moment is a step or two on.
        while self.time(at) < time && time.0.saturating_sub(self.offset) < RAN_MAX {
            at += 1;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_never_early() {
        let mut rng = Rng::new(3);
        for _ in 0..200 {
            let clock = Clock::booted(rng.below(1 << 40), &mut rng);
            let time = clock.time(clock.booted).plus(rng.below(300_000_000));
            let moment = clock.moment(time);
            assert!(clock.time(moment) >= time, "{clock:?} {time:?}");
            assert!(clock.time(moment).since(time) < 5, "{clock:?} {time:?}");
        }
    }
}
