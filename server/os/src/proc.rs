//! What /proc tells of processes: start time, session, state; used to know a process again and to find a whole session.

use std::fs;
use std::path::Path;

/// The fields of /proc/PID/stat that identify a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// One letter: R, S, D, Z ...
    pub state: char,
    /// The session it belongs to (the pid of its leader).
    pub session: u32,
    /// Its threads, the first included.
    pub threads: u32,
    /// Start time in clock ticks since boot: with the pid, unique.
    pub started: u64,
}

impl Stat {
    /// Whether all of it is dead. A process whose first thread has ended shows as a zombie while others still work for it
    /// in the kernel, as in a write to a slow disk: that one is not dead yet.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X') && self.threads <= 1
    }
}

/// Reads a process's identity; `None` if there is no such process.
#[must_use]
pub fn stat(pid: u32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(line: &str) -> Option<Stat> {
    // The name in parentheses may hold spaces and parentheses: fields count from the last closing one.
    let (_, rest) = line.rsplit_once(") ")?;
    let field = |n: usize| rest.split(' ').nth(n - 3);
    let state = field(3)?.chars().next()?;
    let (session, threads) = (field(6)?.parse().ok()?, field(20)?.parse().ok()?);
    Some(Stat { state, session, threads, started: field(22)?.parse().ok()? })
}

/// Every process of this pid namespace.
#[must_use]
pub fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The living processes of a session.
#[must_use]
pub fn session(leader: u32) -> Vec<u32> {
    let living = |stat: &Stat| stat.session == leader && !stat.is_dead();
    pids().into_iter().filter(|pid| stat(*pid).as_ref().is_some_and(living)).collect()
}

/// The short name of a process.
#[must_use]
pub fn name(pid: u32) -> Option<String> {
    let text = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("comm")).ok()?;
    Some(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_with_parentheses_and_spaces() {
        let line = "7 (a) (b c) S 1 7 9 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1";
        let found = parse(line).unwrap();
        assert_eq!(found, Stat { state: 'S', session: 9, threads: 1, started: 4242 });
        assert!(!found.is_dead() && Stat { state: 'Z', ..found }.is_dead());
        assert!(!Stat { state: 'Z', threads: 2, ..found }.is_dead());
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn finds_itself() {
        let me = std::process::id();
        assert!(pids().contains(&me));
        assert!(stat(me).is_some_and(|stat| session(stat.session).contains(&me)));
        assert!(name(me).is_some());
    }
}
