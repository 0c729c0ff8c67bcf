//! Threads with namespaces of their own, so that tests share nothing; they need root and fail without it.
#![allow(dead_code)] // each test binary uses a part
#![allow(clippy::unwrap_used)] // a test's helper

use os::namespace::{self, Kind};
use std::time::{Duration, Instant};

/// Runs `work` on a thread with new namespaces of these kinds, mounts private.
pub fn with_namespaces<T: Send>(kinds: &[Kind], work: impl FnOnce() -> T + Send) -> T {
    assert!(rustix::process::geteuid().is_root(), "this test changes namespaces: run it as root");
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            namespace::unshare(kinds).unwrap();
            if kinds.contains(&Kind::Mount) {
                namespace::make_mounts_private().unwrap();
            }
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Waits for a condition; fails after half a minute, which only a broken thing takes.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
