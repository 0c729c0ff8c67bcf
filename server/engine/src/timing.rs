//! Every interval and bound of the engine, in microseconds, with its reason.

use wire::config::TimingConfig;
use wire::ids::{MILLIS, SECOND};

/// Longest time after its lease until a set or group that was not renewed fences itself (ARCHITECTURE "The lease").
const FENCE_BOUND: u64 = 500 * MILLIS;
/// Shortest margin on top of lease and bound before a promotion: how late a timer of a busy machine may be.
const MARGIN_MIN: u64 = 50 * MILLIS;
/// Longest lease that must be left for re-admission to begin: its switch makes the lease count.
const READMIT_LEASE: u64 = 400 * MILLIS;
/// A twin that was never heard in this life of the host may still be starting: both are powered on together.
pub const START_GRACE: u64 = 15 * SECOND;
/// A turn so long after the one before, at most, means this process slept (stopped, starved, suspended).
const SLEPT: u64 = 300 * MILLIS;
/// After a sleep nobody's silence is judged for so long at most: what came meanwhile is read first.
const WAKE_GRACE: u64 = 300 * MILLIS;
/// Between two sendings of the same register message.
pub const REPEAT: u64 = 100 * MILLIS;
/// Longest pause before a new ballot after a higher one was in the way; drawn at random so that two proposers part.
pub const OUTRUN_PAUSE: u64 = 120 * MILLIS;
/// Before a change that did not apply is tried again.
pub const NOT_APPLICABLE_PAUSE: u64 = 500 * MILLIS;
/// Between two orders of the same standing kind that did not take effect.
pub const ORDER_AGAIN: u64 = SECOND;
/// Between two reports asked of the disk processes while heartbeats are silent.
pub const REPORT_SILENT: u64 = 200 * MILLIS;
/// Between two reports asked in quiet times: the rebuild's speed and the oldest waiting request.
pub const REPORT_QUIET: u64 = SECOND;
/// Between two pings of the witness; three unanswered ones mean it is lost.
pub const WITNESS_PING: u64 = 500 * MILLIS;
/// Without a pong for so long the witness counts as lost.
pub const WITNESS_LOST: u64 = 1_600 * MILLIS;
/// A probe in advance counts for so long: the other steps of a failover fit in, and a stranger who takes the address meanwhile
/// is as unlikely as one who takes it right after any probe.
pub const PROBE_FRESH: u64 = 3 * SECOND;
/// Between two refreshes of a floating IP; the kernel lifetime given by the shell is a few of these.
pub const ADDRESS_REFRESH: u64 = SECOND;
/// When an address is announced again after it was added: neighbours that missed the first ones.
pub const ANNOUNCE_AT: [u64; 4] = [100 * MILLIS, 400 * MILLIS, SECOND, 3 * SECOND];
/// Between two status messages to the twin's page when something moves.
pub const GOSSIP: u64 = 250 * MILLIS;
/// Between two status messages when nothing changes.
pub const GOSSIP_QUIET: u64 = 2 * SECOND;
/// A disk process that is away for so long while its group runs counts as lost. Its successor serves after some 100 ms (C12); where
/// the dead one's writes take long to land it waits for them, and so does the application: longer than `io_limit`, which ends
/// a slow disk that still answers, and shorter than what makes a person reach for the switch.
pub const DISK_AWAY: u64 = 5 * SECOND;
/// After a restart of the node process: its sets' processes connect and speak within this, or they are not there.
pub const DISK_FIRST: u64 = SECOND;
/// A failed disk's work is moved if the register has not left its copy out by then: some heartbeats, a store on each side.
pub const LEAVE_OUT: u64 = 1_500 * MILLIS;
/// Restarts of a group on the same server within [`RESTART_PERIOD`] before it counts as failed (B6).
pub const RESTARTS_MAX: usize = 3;
/// The period of [`RESTARTS_MAX`].
pub const RESTART_PERIOD: u64 = 600 * SECOND;
/// Finest tick: however short the heartbeat, the engine is not woken more often by it.
pub const TICK_MIN: u64 = 20 * MILLIS;
/// Coarsest tick: however long the heartbeat, conditions are judged at least so often.
pub const TICK_MAX: u64 = 100 * MILLIS;
/// Between two heartbeats brought forward by news.
pub const URGENT_PAUSE: u64 = 10 * MILLIS;

/// Time-outs of steps. Guide values of A10 are upper bounds: disk 16 s, addresses 6 s.
pub mod step {
    use wire::ids::{MILLIS, SECOND};
    /// A set becomes active.
    pub const ACTIVATE: u64 = 16 * SECOND;
    /// A set drains, flushes both disks and is stored clean; an asynchronous one is not moved while it is 20 s behind.
    pub const DEACTIVATE: u64 = 60 * SECOND;
    /// A file system is mounted, its journal replayed, or formatted at the first start.
    pub const MOUNT: u64 = 60 * SECOND;
    /// A file system is unmounted: its dirty pages are written.
    pub const UNMOUNT: u64 = 60 * SECOND;
    /// Unmounting lazily after everybody was killed.
    pub const FORCE: u64 = 5 * SECOND;
    /// An address is probed: three probes.
    pub const PROBE: u64 = 3 * SECOND;
    /// An address is added, removed or announced.
    pub const ADDRESS: u64 = 2 * SECOND;
    /// The group's processes are killed.
    pub const KILL: u64 = 2 * SECOND;
    /// What is here is looked at.
    pub const OBSERVE: u64 = 5 * SECOND;
    /// An order to a disk process that only stores.
    pub const ORDER: u64 = 5 * SECOND;
    /// Re-admission: earlier writes reach both disks.
    pub const READMIT: u64 = 10 * SECOND;
    /// A control area is made on a new disk: a few MiB, once its process has let go of the old one.
    pub const EXCHANGE: u64 = 60 * SECOND;
    /// Both servers prepare and apply a configuration.
    pub const RELEASE: u64 = 60 * SECOND;
    /// The shell answers at a step's time-out; the engine waits so much longer for that answer.
    pub const SLACK: u64 = 500 * MILLIS;
}

/// The configured intervals in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats.
    pub heartbeat: u64,
    /// Silence after which a server is judged.
    pub detect: u64,
    /// A grant lasts so long from the sending of its nonce.
    pub lease: u64,
    /// A silent node process whose disk processes live is waited for so long.
    pub node_grace: u64,
    /// The block link may be away so long.
    pub reconnect_grace: u64,
    /// An answer of the twin's disk may take so long.
    pub io_limit: u64,
    /// Silence on all paths after which a holder puts its twin out: well before its own lease ends.
    pub suspect: u64,
    /// Silence after which one link counts as lost.
    pub link_lost: u64,
    /// After its lease a set or group that was not renewed fences itself.
    pub fence_bound: u64,
    /// On top of lease and bound before a promotion: scheduling of timers, drift of clocks (far less than a thirteenth).
    pub margin: u64,
    /// The lease must last so much longer for re-admission to begin.
    pub readmit_lease: u64,
    /// A turn so long after the one before means this process slept.
    pub slept: u64,
    /// After a sleep nobody's silence is judged for so long.
    pub wake_grace: u64,
}

impl From<&TimingConfig> for Timing {
    fn from(config: &TimingConfig) -> Timing {
        let us = |ms: u32| u64::from(ms) * MILLIS;
        let (heartbeat, detect, lease) = (us(config.heartbeat_ms), us(config.detect_ms), us(config.lease_ms));
        Timing {
            heartbeat,
            detect,
            lease,
            node_grace: us(config.node_grace_ms).max(detect),
            reconnect_grace: us(config.reconnect_grace_ms),
            io_limit: us(config.io_limit_ms),
            suspect: lease * 7 / 13,
            link_lost: (5 * heartbeat).clamp(300 * MILLIS, detect.max(300 * MILLIS)),
            fence_bound: (lease * 5 / 13).min(FENCE_BOUND),
            margin: (lease / 13).max(MARGIN_MIN),
            readmit_lease: (lease * 4 / 13).min(READMIT_LEASE),
            slept: (detect / 3).min(SLEPT),
            wake_grace: (detect / 2).min(WAKE_GRACE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::config::TimingProfile;

    #[test]
    fn every_profile_waits_for_the_lease_no_longer_than_for_the_silence() {
        for profile in TimingProfile::ALL {
            let timing = Timing::from(&profile.config());
            let out = timing.lease + timing.fence_bound + timing.margin;
            assert!(out <= timing.detect, "{profile:?}: {out} > {}", timing.detect);
            assert!(timing.suspect < timing.lease && timing.readmit_lease < timing.lease);
            assert!(
                timing.suspect >= 3 * timing.heartbeat,
                "{profile:?}: three lost datagrams are no silence"
            );
            assert!(timing.slept >= 2 * timing.heartbeat.clamp(TICK_MIN, TICK_MAX), "{profile:?}");
        }
    }

    #[test]
    fn the_usual_intervals_are_those_of_the_architecture() {
        let timing = Timing::from(&TimingConfig::default());
        let ms = [timing.fence_bound, timing.margin, timing.readmit_lease, timing.slept, timing.wake_grace];
        assert_eq!(ms.map(|us| us / MILLIS), [500, 100, 400, 300, 300]);
    }
}
