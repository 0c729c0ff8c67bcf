//! Invariant 7: epochs, sessions, generations and ballots never go back, over loss of power too.

use crate::world::World;
use engine::Record;
use mirror::ControlArea;
use wire::SetId;

impl World {
    /// A disk process starts from this control area: it must not be behind what this side ever sent.
    pub fn check_area(&mut self, host: usize, set: SetId, area: &ControlArea) {
        let Some((epoch, session)) = self.checks.sent.get(&(host, set)).copied() else { return };
        let found = (area.superblock.epoch, area.superblock.session);
        if found.0 < epoch || found.1 < session {
            let text = format!(
                "{set}: server{} starts with {found:?} and had sent {:?}",
                host + 1,
                (epoch, session)
            );
            self.fail(7, text);
        }
    }

    /// A record becomes durable: nothing in it goes back.
    pub fn check_record(&mut self, host: usize, record: &Record) {
        let Some(old) = &self.hosts[host].record else { return };
        let mut broken = None;
        for (group, before) in &old.groups {
            let Some(after) = record.groups.get(group) else { continue };
            let (a, b) = (&before.register, &after.register);
            let known = |r: &engine::register::RegisterRecord| r.known.map(|p| p.ballot);
            let accepted = |r: &engine::register::RegisterRecord| r.acceptor.accepted.map(|p| p.ballot);
            if b.acceptor.promised < a.acceptor.promised || accepted(b) < accepted(a) || known(b) < known(a) {
                broken = Some(format!("server{} {group}: {a:?} is followed by {b:?}", host + 1));
            }
        }
        if let Some(text) = broken {
            self.fail(7, text);
        }
    }

    /// A node process starts from this record: the host's own life in it is not another's.
    pub fn check_restart(&mut self, host: usize, record: &Record) {
        if record.twin_host == Some(self.hosts[host].incarnation) {
            self.fail(7, format!("server{} takes its own life for its twin's", host + 1));
        }
    }
}
