//! The control against an application whose latency depends on the rebuild's rate.

use super::*;

/// Runs an application of one request at a time, whose requests take `own` and more in proportion to the bytes copied in
/// the last millisecond; gives (requests with rebuild, requests it would have had alone, bytes copied).
fn run(seconds: u64, own: u64, slowed_by_mib: u64, limit: Option<u64>) -> (u64, u64, u64) {
    let mut pace = Pace::new(Time(0), limit);
    let (mut now, mut completed, mut bytes) = (0, 0, 0);
    while now < seconds * SECOND {
        let began = Time(now);
        pace.request_began(began);
        let mut copied = 0;
        while copied < 8 << 20 {
            pace.advance(Time(now));
            let blocks = pace.next_run(128);
            if blocks == 0 {
                break;
            }
            pace.spend(blocks * 4096);
            copied += blocks * 4096;
        }
        bytes += copied;
        now += own + copied * slowed_by_mib / (1 << 20);
        completed += 1;
        pace.request_ended(began, Time(now));
    }
    (completed, seconds * SECOND / own, bytes)
}

#[test]
fn an_application_that_suffers_loses_little_and_the_rebuild_still_goes_on() {
    let (completed, alone, bytes) = run(20, 300, 2_000, None);
    assert!(completed * 100 >= alone * 85, "{completed} of {alone}");
    assert!(bytes >= 20 * RATE_MIN, "{bytes}");
}

#[test]
fn an_application_that_does_not_suffer_leaves_everything() {
    let (completed, alone, bytes) = run(20, 300, 0, None);
    assert!(completed * 100 >= alone * 99, "{completed} of {alone}");
    assert!(bytes > 20 * 400 * (1 << 20), "{} MiB/s", bytes / 20 / (1 << 20));
}

#[test]
fn a_limit_is_kept_with_and_without_an_application() {
    let limit = 10 << 20;
    let (_, _, bytes) = run(10, 300, 0, Some(limit));
    assert!(bytes <= limit * 10 + (1 << 20), "{bytes}");
    assert!(bytes >= limit * 8, "{bytes}");
    let mut pace = Pace::new(Time(0), Some(limit));
    let mut bytes = 0;
    for now in (0..10 * SECOND).step_by(500) {
        pace.advance(Time(now));
        let blocks = pace.next_run(128);
        pace.spend(blocks * 4096);
        bytes += blocks * 4096;
    }
    assert!((limit * 9..=limit * 10 + (1 << 20)).contains(&bytes), "{bytes}");
}

#[test]
fn an_idle_application_bounds_nothing() {
    let mut pace = Pace::new(Time(0), None);
    pace.request_began(Time(0));
    pace.advance(Time(0));
    assert_eq!(pace.next_run(128), RUN_BLOCKS_BUSY);
    pace.request_ended(Time(0), Time(100));
    pace.advance(Time(IDLE_US + 100));
    assert_eq!(pace.next_run(128), 128);
    assert_eq!(pace.deadline(), None);
}

#[test]
fn a_latency_is_told_within_a_ninth() {
    for latency in [8, 9, 100, 1_000, 12_345, 1_000_000] {
        let mut sample = Sample::default();
        sample.add(latency);
        let told = sample.p99_us();
        assert!(told >= latency && told <= latency + latency / 8 + 1, "{latency}: {told}");
    }
}
