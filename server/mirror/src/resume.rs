//! A killed disk process is replaced (C12): what its successor must know beside the control area, and how it goes on.
//!
//! The host lives, and so does the front end: the keeper holds it. What was acknowledged is on this disk, and on the twin's
//! where that was needed; a process's death takes nothing out of a disk's cache. What was not acknowledged is asked again by
//! the kernel, each request of it. So, towards a twin in sync, nothing has to be compared: copies differ only where an
//! unanswered write was, and that write will be done again, on both disks. Until then its range is claimed (a *ghost*): no
//! read and no rebuild run sees what may be half written, its extents stay hot, and it becomes dirty if the twin is put out
//! meanwhile. Which blocks were unstable is not known: every block of a hot extent counts as unstable.
//!
//! Alone the hot extents are dirty and suspect, as after any other end. So they are in sync where something is uncertain: this
//! term has not yet joined its twin, the front end cannot tell what is unanswered, or writes are answered before the twin has
//! written them (C4): which ones it still owes died with the process, and the twin's own process may have died too. In sync
//! with a disk that had failed nothing goes on: the twin may be the only one to have what that lost.

use crate::config::MirrorConfig;
use crate::input::{Range, RequestId};
use crate::layout::ControlArea;
use crate::lease::Lease;
use crate::log::blocks;
use crate::mirror::Mirror;
use crate::requests::{Content, Twin, Writing};
use peer::block::{PAYLOAD_BYTES_MAX, ZERO_BYTES_MAX};
use peer::control::Role;
use std::collections::BTreeSet;
use wire::traffic::WriteMode;
use wire::{Incarnation, Time};

/// What must outlive the process, and need not outlive the host. The shell keeps it where a successor finds it, before it
/// performs the actions of the turn that changed it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The block device is served.
    pub serving: bool,
    /// The set has lost its right: whoever finds this completes the fence.
    pub fenced: bool,
    /// The local disk has not failed.
    pub certain: bool,
    /// The twin's host incarnation that holds what is unstable.
    pub unstable_at: Option<Incarnation>,
    /// The lease as [`Mirror::lease`] tells it.
    pub lease: Option<Option<Time>>,
    /// When the lease's end becomes a fence.
    pub fence_at: Option<Time>,
    /// Since when the node process is away.
    pub node_away_since: Option<Time>,
}

/// The range of a write that the process before this one did not answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ghost {
    pub(crate) range: Range,
    /// Its extents are hot: it may have begun.
    pinned: bool,
    granted: bool,
}

impl Mirror {
    /// What a successor of this process would have to know. Cheap: asked at each turn.
    #[must_use]
    pub fn kept(&self) -> Kept {
        Kept {
            serving: self.serving(),
            fenced: self.role == Role::Fenced,
            certain: self.failed.is_none() && !self.through,
            unstable_at: self.unstable_at,
            lease: self.lease(),
            fence_at: self.fence_time().filter(|_| self.serving()),
            node_away_since: self.lease.node_away_since(),
        }
    }

    /// Goes on in place of a process that died while it served, its front end being kept; `None` where that is not possible:
    /// then the front end is to be ended and [`Mirror::new`] starts a standby. `unanswered`: the range of each write that the
    /// front end will ask again; `None` if it cannot tell.
    #[must_use]
    pub fn resume(
        config: MirrorConfig,
        area: ControlArea,
        kept: &Kept,
        unanswered: Option<&[Range]>,
        now: Time,
    ) -> Option<Mirror> {
        let sb = &area.superblock;
        let fits = kept.serving
            && sb.active
            && sb.consistent
            && sb.holder == Some(sb.side)
            && sb.incarnation == config.incarnation;
        let alone = sb.alone;
        // What the disk lost when it failed, the twin may be the only one to have.
        if !fits || !alone && !kept.certain {
            return None;
        }
        let faulty = config.faults.resume_without_unstable;
        // What was answered before the twin had written it is known to nobody else.
        let synchronous = sb.mode == WriteMode::Synchronous || config.faults.resume_without_trailing;
        let joined = kept.unstable_at.is_some() && synchronous;
        let known = (!alone && joined && unanswered.is_some()).then(|| area.map.clone());
        let mut it = Mirror::new(config, area, now);
        if let Some(map) = known {
            it.map = map;
            it.suspects = BTreeSet::new();
            if !faulty {
                it.log.all_unstable();
            }
        }
        it.role = Role::Active;
        it.needs_twin = !alone;
        it.unstable_at = kept.unstable_at.filter(|_| !alone);
        if it.asynchronous() && !alone && it.map.count() > 0 {
            it.journal.unknown(it.config.timing.journal_bytes, now);
        }
        it.lease = Lease::resumed(kept, !alone, now);
        for range in unanswered.unwrap_or_default() {
            it.expect_again(*range);
        }
        Some(it)
    }

    /// A write of this range will be asked again.
    fn expect_again(&mut self, range: Range) {
        let (offset, length) = (range.offset, u64::from(range.length));
        if self.config.faults.resume_without_ghosts || !self.fits(range, ZERO_BYTES_MAX) {
            return;
        }
        let id = self.fresh();
        let pinned = self.log.is_hot(offset, length);
        if !pinned && range.length > PAYLOAD_BYTES_MAX {
            // A piece of a long range of zeroes whose turn had not come.
            return;
        }
        if pinned {
            self.log.pin(offset, length, 0, self.now);
        }
        let granted = self.ranges.claim(id, offset, length, true);
        self.requests.ghosts.insert(id, Ghost { range, pinned, granted });
    }

    /// The write is asked again: it takes its ghost's place. `false`: it has none.
    pub(crate) fn adopt(&mut self, request: RequestId, range: Range, content: Content) -> bool {
        let found = self.requests.ghosts.iter().find(|(_, ghost)| ghost.range == range);
        let Some((id, ghost)) = found.map(|(id, ghost)| (*id, *ghost)) else { return false };
        self.requests.ghosts.remove(&id);
        let writing = Writing {
            request,
            range,
            content,
            began: self.now,
            pinned: ghost.pinned,
            issued: false,
            local: None,
            twin: Twin::NotSent,
            replied: false,
        };
        self.requests.writes.insert(id, writing);
        if ghost.granted {
            self.write_granted(id);
        }
        true
    }

    /// A claim is granted; `false`: it is no ghost's.
    pub(crate) fn ghost_granted(&mut self, id: u64) -> bool {
        let found = self.requests.ghosts.get_mut(&id);
        found.map(|ghost| ghost.granted = true).is_some()
    }

    /// The twin is put out: it may have any part of what is to be asked again.
    pub(crate) fn ghosts_dirty(&mut self) {
        let waiting = self.requests.writes.values().filter(|writing| writing.pinned && !writing.issued);
        let ghosts = self.requests.ghosts.values().filter(|ghost| ghost.pinned);
        let ranges = ghosts.map(|ghost| ghost.range);
        for range in ranges.chain(waiting.map(|writing| writing.range)).collect::<Vec<_>>() {
            let (first, count) = blocks(range.offset, u64::from(range.length));
            self.map.set(first, count);
        }
    }
}
