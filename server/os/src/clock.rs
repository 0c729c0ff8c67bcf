//! The time the cores are given: microseconds of CLOCK_BOOTTIME, which counts suspend and is never set by anybody.

use rustix::time::{ClockId, clock_gettime};
use std::sync::atomic::{AtomicU64, Ordering};
use wire::Time;

/// A source of [`Time`]; all processes of one host must share its origin, for the lease's deadline crosses them.
pub trait Clock: Send + Sync {
    /// Microseconds since the clock's origin.
    fn now(&self) -> Time;
}

/// The host's boot clock: origin is the host's start, the same in all its processes (a time namespace counts as a host).
#[derive(Clone, Copy, Debug, Default)]
pub struct BootClock;

impl Clock for BootClock {
    fn now(&self) -> Time {
        let now = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
        Time(seconds.saturating_mul(1_000_000).saturating_add(nanos / 1_000))
    }
}

/// A clock that a test moves.
#[derive(Debug, Default)]
pub struct FakeClock(AtomicU64);

impl FakeClock {
    /// Moves time on by so many microseconds.
    pub fn advance(&self, micros: u64) {
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Time {
        Time(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_goes_forward_and_agrees_with_the_kernels_uptime() {
        let first = BootClock.now();
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        assert!(BootClock.now() >= first);
        assert!((first.0 / 1_000_000).abs_diff(seconds as u64) <= 5);
    }
}
