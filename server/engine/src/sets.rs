//! The mirror sets as the engine knows them: the last status, orders under way, standing orders, the rebuild's speed.

use crate::plan::Is;
use peer::control::{DiskStatus, Done, OrderFault, RebuildResult, Role, Ticket};
use std::collections::{BTreeMap, VecDeque};
use wire::ids::SECOND;
use wire::view::{Rebuild, Verification};
use wire::{Epoch, GroupId, Incarnation, NodeId, SetId, Time};

/// Orders remembered of one set: a turn issues a handful, each ends by its deadline.
pub const TICKETS_MAX: usize = 256;
/// The rebuild's speed is taken over this time.
const SPEED_WINDOW: u64 = 10 * SECOND;
/// Before so long no time left is told.
const SPEED_FIRST: u64 = 5 * SECOND;
/// Samples of a rebuild: ten a second over the window.
const SAMPLES_MAX: usize = 128;

/// What an order was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// The step of a plan.
    Step,
    /// Going on alone.
    PutOut,
    /// The switch of re-admission.
    Readmit,
    /// The preparation of the only copy that counts (rule 12).
    Shoulder,
    /// The end of granting.
    StopGrant,
    /// Fencing.
    Fence,
    /// A lease.
    Lease,
    /// Standing orders, repeated until they show.
    Standing,
}

/// The end of granting over the block link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantStop {
    /// Granting is allowed, or was never forbidden.
    No,
    /// Ordered.
    Ordered(Time),
    /// Confirmed; the last grant, if any was given.
    Stopped(Option<Time>),
}

/// One set.
#[derive(Clone, Debug)]
pub struct Set {
    /// Its id.
    pub id: SetId,
    /// Its group.
    pub group: GroupId,
    /// Its process is connected.
    pub present: bool,
    /// Since when `present` is as it is.
    pub present_since: Time,
    /// What it was before its process went away (or, at start, before anybody could know).
    pub before: Is,
    /// Its last word since it connected.
    pub status: Option<DiskStatus>,
    /// Since when the block link is away, as told.
    pub unlinked_since: Option<Time>,
    /// Since when the linked twin is not equal although every acknowledgement needs it, and nothing is being rebuilt: it is not
    /// what the register takes it for (an exchanged or rolled-back disk).
    pub unequal_since: Option<Time>,
    /// When `Quit` was last ordered.
    pub quit_at: Option<Time>,
    tickets: BTreeMap<Ticket, (What, Time)>,
    /// The last `Lease` ordered.
    pub lease_ordered: Option<Option<Time>>,
    /// The last `AllowRebuild` ordered, and when.
    pub allow_ordered: Option<bool>,
    /// The last `LearnEpoch` ordered, and when.
    pub learn_ordered: Option<(Epoch, NodeId, Time)>,
    /// The last `Grant` ordered was an allowance.
    pub grant_allowed: bool,
    /// The end of granting.
    pub grant_stop: GrantStop,
    /// The force that was told to this connection.
    pub overruled: Option<crate::persist::Forced>,
    /// When `Shoulder` or `Through` was last ordered.
    pub through_ordered: Option<Time>,
    /// `Shoulder` was ordered in this connection: its process may count on being the only copy.
    pub shouldered: bool,
    /// `Admitted` was ordered in this connection.
    pub admitted: bool,
    /// When `Mode` was last ordered.
    pub mode_ordered: Option<Time>,
    /// As the other server last told of its asynchronous copy: what this one lacks.
    pub lacked: Option<wire::view::BehindView>,
    /// When `PutOut` was last ordered.
    pub put_out_at: Option<Time>,
    /// The rebuild that was reported as begun.
    pub rebuild_reported: Option<Time>,
    /// The last verification's end that was reported.
    pub verify_reported: Option<peer::control::VerifyResult>,
    /// The last rebuild's end that was reported.
    pub last_reported: Option<Option<RebuildResult>>,
    /// A split was reported.
    pub split_reported: bool,
    /// A failure was reported.
    pub failed_reported: bool,
    /// Blocks written back from the twin, as told last; counted by each disk process from nothing.
    pub mended_reported: u64,
    /// What was told last of an older version: lost, put back, too large to be kept.
    pub old_reported: [bool; 3],
    samples: VecDeque<(Time, u64)>,
    moved_at: Time,
    bytes: VecDeque<(Time, u64)>,
}

impl Set {
    /// A set nobody has heard of.
    #[must_use]
    pub fn new(id: SetId, group: GroupId, before: Is, now: Time) -> Set {
        Set {
            id,
            group,
            present: false,
            present_since: now,
            before,
            status: None,
            unlinked_since: None,
            unequal_since: None,
            quit_at: None,
            tickets: BTreeMap::new(),
            lease_ordered: None,
            allow_ordered: None,
            learn_ordered: None,
            grant_allowed: false,
            grant_stop: GrantStop::No,
            overruled: None,
            through_ordered: None,
            shouldered: false,
            admitted: false,
            mode_ordered: None,
            lacked: None,
            put_out_at: None,
            rebuild_reported: None,
            verify_reported: None,
            last_reported: None,
            split_reported: false,
            failed_reported: false,
            mended_reported: 0,
            old_reported: [false; 3],
            samples: VecDeque::new(),
            moved_at: now,
            bytes: VecDeque::new(),
        }
    }

    /// Its process came or went: standing orders are given anew, answers to earlier ones no longer come.
    pub fn set_present(&mut self, present: bool, now: Time) {
        self.before = match self.status.as_ref().map(|s| s.role) {
            // It is replaced, and whoever uses it waits: nothing of the group changes (C12, `timing::DISK_AWAY`).
            Some(Role::Active) => Is::Present,
            Some(Role::Activating | Role::Deactivating) => Is::Unknown,
            Some(Role::Standby | Role::Fenced) => Is::Absent,
            None => self.before,
        };
        self.present = present;
        self.present_since = now;
        self.status = None;
        self.unlinked_since = None;
        self.unequal_since = None;
        self.quit_at = None;
        self.tickets.clear();
        self.lease_ordered = None;
        self.allow_ordered = None;
        self.learn_ordered = None;
        self.grant_allowed = false;
        self.grant_stop = GrantStop::No;
        self.overruled = None;
        self.through_ordered = None;
        self.shouldered = false;
        self.admitted = false;
        self.mode_ordered = None;
        self.put_out_at = None;
        self.samples.clear();
        self.bytes.clear();
    }

    /// An answer to this order is to come.
    pub fn expect(&mut self, ticket: Ticket, what: What, deadline: Time) {
        if self.tickets.len() >= TICKETS_MAX {
            self.tickets.pop_first();
        }
        self.tickets.insert(ticket, (what, deadline));
    }

    /// The answer came: what it was for.
    pub fn finish(&mut self, ticket: Ticket, result: &Result<Done, OrderFault>, now: Time) -> Option<What> {
        let (what, _) = self.tickets.remove(&ticket)?;
        if what == What::StopGrant {
            self.grant_stop = match result {
                Ok(Done::GrantStopped { last }) => GrantStop::Stopped(*last),
                Ok(Done::Done) => GrantStop::Stopped(None),
                Err(_) => GrantStop::Ordered(now),
            };
        }
        if what == What::Lease && result.is_err() {
            self.lease_ordered = None;
        }
        Some(what)
    }

    /// Orders whose answer did not come in time.
    pub fn take_expired(&mut self, now: Time) -> Vec<(Ticket, What)> {
        let late: Vec<Ticket> =
            self.tickets.iter().filter(|(_, (_, at))| *at <= now).map(|(t, _)| *t).collect();
        late.into_iter()
            .filter_map(|ticket| self.tickets.remove(&ticket).map(|(what, _)| (ticket, what)))
            .collect()
    }

    /// An order of this kind is under way.
    #[must_use]
    pub fn awaits(&self, what: What) -> bool {
        self.tickets.values().any(|(w, _)| *w == what)
    }

    /// Takes a status in.
    pub fn note_status(&mut self, status: DiskStatus, now: Time) {
        if status.linked {
            self.unlinked_since = None;
        } else if self.unlinked_since.is_none() {
            self.unlinked_since = Some(now);
        }
        let odd = status.role == Role::Active
            && status.linked
            && status.needs_twin
            && !status.equal
            && status.rebuild.is_none();
        self.unequal_since = if odd { self.unequal_since.or(Some(now)) } else { None };
        self.note_progress(&status, now);
        self.bytes.push_back((now, status.sent_bytes));
        trim(&mut self.bytes, now);
        self.status = Some(status);
    }

    fn note_progress(&mut self, status: &DiskStatus, now: Time) {
        let before = self.status.as_ref().and_then(|s| s.rebuild);
        let Some(rebuild) = status.rebuild else {
            self.samples.clear();
            return;
        };
        if before.is_none_or(|b| b.began != rebuild.began || b.total != rebuild.total) {
            self.samples.clear();
            self.moved_at = now;
        }
        if before.is_none_or(|b| b.done != rebuild.done) {
            self.moved_at = now;
        }
        self.samples.push_back((now, rebuild.done));
        trim(&mut self.samples, now);
    }

    /// The role, if known.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        self.status.as_ref().filter(|_| self.present).map(|s| s.role)
    }

    /// The copy here could be activated.
    #[must_use]
    pub fn is_promotable(&self) -> bool {
        let sound =
            |s: &DiskStatus| s.role == Role::Standby && s.consistent && !s.split && s.failed.is_none();
        self.present && self.status.as_ref().is_some_and(sound)
    }

    /// As active: the twin's copy is equal, and every write goes to both, in this life of its host: a block link that has not
    /// noticed yet that the host went down does not count.
    #[must_use]
    pub fn is_equal(&self, twin_host: Option<Incarnation>) -> bool {
        let equal = |s: &DiskStatus| {
            s.role == Role::Active && s.linked && s.equal && !s.split && s.twin_incarnation == twin_host
        };
        self.present && self.status.as_ref().is_some_and(equal)
    }

    /// Progress of the rebuild for the page.
    #[must_use]
    pub fn rebuild(&self, now: Time) -> Option<Rebuild> {
        let rebuild = self.status.as_ref().filter(|_| self.present)?.rebuild?;
        let bytes_per_s = per_second(&self.samples).saturating_mul(4096);
        let measured = now.since(rebuild.began) >= SPEED_FIRST && bytes_per_s > 0;
        let left = rebuild.total.saturating_sub(rebuild.done).saturating_mul(4096);
        let idle = now.since(self.moved_at) / SECOND;
        Some(Rebuild {
            to: rebuild.to,
            kind: rebuild.kind,
            done: rebuild.done.min(rebuild.total),
            total: rebuild.total,
            bytes_per_s,
            left_s: (measured && !rebuild.paused).then(|| left.div_ceil(bytes_per_s.max(1))),
            stalled_s: if idle >= 2 && !rebuild.paused { idle } else { 0 },
            paused: rebuild.paused,
            limit: rebuild.limit,
        })
    }

    /// Progress of the verification for the page.
    #[must_use]
    pub fn verify(&self, now: Time) -> Option<Verification> {
        let verify = self.status.as_ref().filter(|_| self.present)?.verify?;
        let measured = verify.running && now.since(verify.began) >= SPEED_FIRST;
        Some(Verification {
            done: verify.done.min(verify.total),
            total: verify.total,
            running: verify.running,
            paused: verify.paused,
            limit: verify.limit,
            left_s: verify.left_ms.filter(|_| measured).map(|ms| ms.div_ceil(1000)),
            different: verify.different,
            unresolved: verify.unresolved,
        })
    }

    /// Bytes a second that travel to the twin, rounded so that a page is not redrawn for noise.
    #[must_use]
    pub fn bytes_per_s(&self) -> u64 {
        let speed = per_second(&self.bytes);
        rounded(speed)
    }
}

/// The two first digits exact.
#[must_use]
pub fn rounded(value: u64) -> u64 {
    let unit = 10u64.saturating_pow(value.max(1).ilog10().saturating_sub(1)).max(1);
    value / unit * unit
}

fn trim(samples: &mut VecDeque<(Time, u64)>, now: Time) {
    while samples.len() > 2 && samples.get(1).is_some_and(|(at, _)| now.since(*at) > SPEED_WINDOW) {
        samples.pop_front();
    }
    // Full: the second one goes; the first marks where the window begins.
    if samples.len() > SAMPLES_MAX {
        samples.remove(1);
    }
}

fn per_second(samples: &VecDeque<(Time, u64)>) -> u64 {
    let (Some((first, from)), Some((last, to))) = (samples.front(), samples.back()) else {
        return 0;
    };
    let micros = last.since(*first);
    if micros < SECOND / 2 { 0 } else { to.saturating_sub(*from).saturating_mul(SECOND) / micros }
}
