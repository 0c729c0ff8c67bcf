//! Calls that a held disk can hang for ever, given a time-out: the answer is then "unknown", never "failed".

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Calls that may hang at once. Each holds a thread until the kernel lets go; more would only pile up behind the same disk.
const HUNG_MAX: usize = 32;

static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// What became of a bounded call.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It came back in time.
    Done(T),
    /// It did not: it may or may not still take effect; only observation or fencing tells (DESIGN section 6).
    Unknown,
}

/// Runs `call` on a thread of its own and waits at most `limit`. With too many hung calls: `Unknown` at once.
pub fn bounded<T: Send + 'static>(limit: Duration, call: impl FnOnce() -> T + Send + 'static) -> Outcome<T> {
    if RUNNING.fetch_add(1, Ordering::SeqCst) >= HUNG_MAX {
        RUNNING.fetch_sub(1, Ordering::SeqCst);
        tracing::warn!(limit = HUNG_MAX, "too many calls hang in the kernel: this one is not begun");
        return Outcome::Unknown;
    }
    let (done, answer) = mpsc::sync_channel(1);
    let started = thread::Builder::new().name("bounded".into()).spawn(move || {
        let result = call();
        RUNNING.fetch_sub(1, Ordering::SeqCst);
        let _ = done.send(result);
    });
    if started.is_err() {
        RUNNING.fetch_sub(1, Ordering::SeqCst);
        return Outcome::Unknown;
    }
    answer.recv_timeout(limit).map_or(Outcome::Unknown, Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_hangs_is_unknown_and_one_that_returns_is_done() {
        let (release, held) = mpsc::channel::<()>();
        assert_eq!(bounded(Duration::from_millis(20), move || held.recv().is_ok()), Outcome::Unknown);
        drop(release);
        assert_eq!(bounded(Duration::from_secs(60), || 7), Outcome::Done(7));
    }
}
