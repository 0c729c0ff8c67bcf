//! Events of links, the witness and the sets: each told once when it begins and once when it ends (invariant 10).

use crate::engine::Engine;
use crate::link::Phase;
use peer::control::{DiskStatus, Role, VerifyResult};
use wire::alert::EventKind;
use wire::ids::MILLIS;
use wire::{NodeId, SetId};

impl Engine {
    /// Tells what has changed since the last turn.
    pub(crate) fn notice(&mut self) {
        self.notice_links();
        self.notice_witness();
        let sets: Vec<SetId> = self.core.sets.keys().copied().collect();
        for set in sets {
            self.notice_set(set);
        }
    }

    /// A lost link is news only while another one has told for a moment that the twin lives: links come and go one by one. Of
    /// two servers that both know, the first tells.
    fn notice_links(&mut self) {
        let tells = self.core.me < self.core.twin_id || !self.core.twin_present();
        let (me, twin) = (self.core.me, self.core.twin_id);
        let now = self.core.now;
        let steady = |since: wire::Time| now.since(since) >= self.core.timing.link_lost * 2;
        let up = self.core.links.iter().filter(|l| l.up_since.is_some_and(steady)).count();
        let mut events = Vec::new();
        for link in &mut self.core.links {
            match (link.phase(), link.told_up) {
                (Phase::Up, told) if told != Some(true) => {
                    link.told_up = Some(true);
                    events.extend(told.map(|_| EventKind::LinkUp { link: link.id }));
                }
                (Phase::Down | Phase::Init, Some(true)) if up > 0 => {
                    link.told_up = Some(false);
                    let here = (!link.carrier).then_some(me);
                    let cable: Option<NodeId> = here.or(link.twin_no_carrier.then_some(twin));
                    events.push(EventKind::LinkLost { link: link.id, cable });
                }
                (Phase::Down | Phase::Init | Phase::Up, _) => {}
            }
        }
        if tells {
            events.into_iter().for_each(|event| self.core.record_event(event));
        }
    }

    fn notice_witness(&mut self) {
        if self.core.config.witness.is_none() {
            return;
        }
        let up = self.core.witness_up();
        let (now, limit) = (self.core.now, crate::timing::WITNESS_LOST);
        let settled = now.since(self.core.started) >= limit * 3 && now.since(self.core.woke) >= limit;
        let told = self.core.witness.reported_lost && !self.core.faults.repeat_alerts;
        if !up && !told && settled {
            self.core.witness.reported_lost = true;
            self.core.record_event(EventKind::WitnessLost);
        } else if up && self.core.witness.reported_lost {
            self.core.witness.reported_lost = false;
            self.core.record_event(EventKind::WitnessUp);
        }
    }

    fn notice_set(&mut self, id: SetId) {
        let (me, twin) = (self.core.me, self.core.twin_id);
        let Some(set) = self.core.sets.get_mut(&id) else { return };
        let Some(status) = set.status.clone() else { return };
        let mut events = Vec::new();
        if status.split && !set.split_reported && status.role == Role::Active {
            events.push(EventKind::MirrorSplit { set: id });
        }
        set.split_reported = status.split;
        if let Some(reason) = status.failed.clone().filter(|_| !set.failed_reported) {
            events.push(EventKind::MirrorFailed { set: id, server: me, reason });
        }
        set.failed_reported = status.failed.is_some();
        let blocks = status.mended_blocks;
        if blocks > 0 && blocks >= set.mended_reported * 2 {
            events.push(EventKind::MirrorMended { set: id, server: me, blocks });
        }
        if blocks == 0 || blocks >= set.mended_reported * 2 {
            set.mended_reported = blocks;
        }
        if status.role == Role::Active && set.verify_reported != status.last_verify {
            set.verify_reported.clone_from(&status.last_verify);
            // The first status of this life of the engine: what it tells of the past was told before.
            if set.last_reported.is_some()
                && let Some(found) = &status.last_verify
            {
                verify_events(id, me, found, &mut events);
            }
        }
        let old = [status.undo_lost, status.undone && status.undo.is_none(), status.undo_short];
        let told = std::mem::replace(&mut set.old_reported, old);
        let kinds = [
            EventKind::OldVersionLost { set: id, server: me },
            EventKind::OldVersionBack { set: id, server: me },
            EventKind::OldVersionTooLarge { set: id, server: twin },
        ];
        for (kind, _) in
            kinds.into_iter().zip(old.into_iter().zip(told)).filter(|(_, (now, told))| *now && !*told)
        {
            events.push(kind);
        }
        let ended = match set.last_reported {
            // The first status of this life of the engine: what it tells of the past was told before.
            None => false,
            Some(before) => status.last_rebuild.is_some() && status.last_rebuild != before,
        };
        set.last_reported = Some(status.last_rebuild);
        if status.role == Role::Active {
            rebuild_events(id, twin, set, &status, ended, &mut events);
        }
        events.into_iter().for_each(|event| self.core.record_event(event));
    }
}

fn verify_events(id: SetId, me: NodeId, found: &VerifyResult, events: &mut Vec<EventKind>) {
    let (here, there) = (found.repaired_here, found.repaired_there);
    if here + there > 0 {
        events.push(EventKind::MirrorRepaired { set: id, server: me, here, there });
    }
    if found.unresolved > 0 {
        let blocks = found.blocks.clone();
        events.push(EventKind::MirrorDiffers { set: id, count: found.unresolved, blocks });
    }
    if found.different == 0 && !found.stopped {
        events.push(EventKind::MirrorVerified { set: id, blocks: found.checked });
    }
}

fn rebuild_events(
    id: SetId,
    twin: NodeId,
    set: &mut crate::sets::Set,
    status: &DiskStatus,
    ended: bool,
    events: &mut Vec<EventKind>,
) {
    if let Some(rebuild) = status.rebuild.filter(|r| r.running && set.rebuild_reported != Some(r.began)) {
        set.rebuild_reported = Some(rebuild.began);
        events.push(EventKind::RebuildBegan {
            set: id,
            to: rebuild.to,
            kind: rebuild.kind,
            blocks: rebuild.total,
        });
    }
    if let Some(done) = status.last_rebuild.filter(|_| ended) {
        set.rebuild_reported = None;
        events.push(EventKind::RebuildDone {
            set: id,
            to: done.to,
            moved_bytes: done.moved_bytes + done.compared_moved_bytes,
            compared_bytes: done.compared_bytes,
            took_ms: done.ended.since(done.began) / MILLIS,
        });
    } else if set.rebuild_reported.is_some() && !status.linked {
        set.rebuild_reported = None;
        events.push(EventKind::RebuildBroken { set: id, to: twin });
    }
}
