//! One side of one mirror set: its state and one turn.
//!
//! ```text
//!            Activate                    front end up
//!  Standby ----------> Activating --------------------> Active --Deactivate--> Deactivating --> Standby
//!     any role --Fence, a higher epoch, lease + bound--> Fenced (only a fresh process leaves it)
//! ```
//! As active side, `needs_twin` says whether an acknowledgement needs the twin's disk, and `Pair::Joined` whether every
//! write is sent to it. The four combinations: in sync; in sync but the link is away (writes wait); alone with a rebuild;
//! alone.

use crate::action::{Action, ControlWrite, LinkFault, OpId};
use crate::applied::{Applied, FlushWaits, Promise};
use crate::barrier::Barriers;
use crate::config::{MirrorConfig, PAGES_PER_STORE};
use crate::dirty::DirtyMap;
use crate::flush::Flushes;
use crate::input::{Input, LocalFault, LocalResult};
use crate::journal::Journal;
use crate::layout::{self, ControlArea, Superblock};
use crate::lease::Lease;
use crate::link::Connection;
use crate::log::ActivityLog;
use crate::mode::Mode;
use crate::orders::{Deactivation, PuttingOut};
use crate::pair::{Finish, Pair};
use crate::progress::Progress;
use crate::ranges::Ranges;
use crate::rebuild::Rebuild;
use crate::requests::Requests;
use crate::settle::Settle;
use crate::status::Told;
use crate::store::Store;
use crate::sum_page;
use crate::sums::Sums;
use crate::undo::{KeepOp, Undo};
use crate::verify::Verify;
use crate::watch::Watch;
use peer::control::{Done, FromDisk, OrderFault, RebuildResult, Role, Ticket, VerifyResult};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use wire::alert::RebuildKind;
use wire::{Incarnation, Time};

/// What an operation of the shell is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// A request of the same number.
    Write,
    /// A request of the same number.
    Read,
    /// The local part of a flush round.
    Round(u64),
    /// A flush of the local disk alone.
    LocalRound,
    /// A store of the control area.
    Store,
    /// A write or copy of the twin, of the same number.
    Apply,
    /// Hashing for the twin's `Check`, of the same number.
    Check,
    /// A flush for the twin.
    ApplyFlush { of: u64, connection: u64 },
    /// The flush of a barrier of the twin.
    Barrier,
    /// The flush before a session, an epoch or an activation is stored.
    Settle,
    /// Front end going up.
    FrontOpen,
    /// Front end going down.
    FrontClose,
    /// Reading for a rebuild run.
    RunRead(u64),
    /// Hashing for a rebuild run.
    RunHash(u64),
    /// Writing back what the twin read for a request, of the same number.
    Mend,
    /// Reading for the twin's `Read`, of the same number.
    TwinRead,
    /// Hashing for a run of a verification.
    VerifyHash(u64),
    /// Reading an extent's pages of the table of sums.
    LoadSums(u32),
    /// The flush before sums are stored.
    SumsFlush,
    /// A read whose run was broken off: its buffer is released when it ends.
    LostRead,
    /// Keeping what is to be overwritten: an operation of the batch of this number.
    Keep(KeepOp, u64),
    /// Reading or putting back what was kept.
    KeepRead,
}

/// One side of one mirror set.
#[derive(Debug)]
pub struct Mirror {
    pub(crate) config: MirrorConfig,
    pub(crate) now: Time,
    /// The newest superblock, durable or on its way; changed only as `store` allows.
    pub(crate) sb: Superblock,
    pub(crate) map: DirtyMap,
    pub(crate) log: ActivityLog,
    pub(crate) store: Store,
    pub(crate) sums: Sums,
    /// Work for the twin that waits for a store, with its mark: the sums of its blocks are being taken back.
    pub(crate) sum_waits: Vec<(u64, u64)>,
    /// Comparisons for the twin that wait for pages of the table.
    pub(crate) sum_checks: Vec<u64>,
    pub(crate) ranges: Ranges,
    /// Claims granted by a release, not yet acted on.
    pub(crate) granted: VecDeque<u64>,
    pub(crate) ops: BTreeMap<OpId, Op>,
    pub(crate) next_id: u64,
    out: Vec<Action>,
    /// Something changed that another part of the turn may wait for.
    pub(crate) moved: bool,
    pub(crate) role: Role,
    pub(crate) failed: Option<String>,
    pub(crate) split: bool,
    pub(crate) needs_twin: bool,
    /// Everything is served through the twin's disk; see `through`.
    pub(crate) through: bool,
    /// As standby: the only copy that counts, or about to be; nobody's word makes it another's equal.
    pub(crate) shouldered: bool,
    /// A store of the control area failed: nothing is stored any more.
    pub(crate) unstored: bool,
    pub(crate) requests: Requests,
    pub(crate) flushes: Flushes,
    pub(crate) lease: Lease,
    pub(crate) link: Option<Connection>,
    pub(crate) links: u64,
    pub(crate) settle: Settle,
    pub(crate) pair: Pair,
    pub(crate) finish: Option<Finish>,
    /// [`peer::control::DiskStatus::made_equal`].
    pub(crate) made_equal: bool,
    /// The twin's host incarnation that holds what is unstable.
    pub(crate) unstable_at: Option<Incarnation>,
    /// Extents whose blocks are compared before they are copied.
    pub(crate) suspects: BTreeSet<u32>,
    pub(crate) rebuild: Option<Rebuild>,
    /// Kind and counters of a rebuild that a break of the link ended, for the one that goes on with it.
    pub(crate) broken_off: Option<(RebuildKind, Progress)>,
    pub(crate) last_rebuild: Option<RebuildResult>,
    pub(crate) allow_rebuild: bool,
    /// An operator's force: serve though not newest, and whether the twin's copy may be overwritten.
    pub(crate) overruled: Option<bool>,
    pub(crate) applied: BTreeMap<u64, Applied>,
    pub(crate) flush_waits: Option<FlushWaits>,
    pub(crate) barriers: Barriers,
    pub(crate) journal: Journal,
    pub(crate) mode: Mode,
    /// Answers that wait for a store.
    pub(crate) promises: Vec<Promise>,
    /// When cooling is looked at next.
    pub(crate) next_cool: Time,
    pub(crate) putting_out: Option<PuttingOut>,
    /// `Shoulder` orders that wait for their store, with its mark.
    pub(crate) shouldering: Vec<(Ticket, u64)>,
    pub(crate) deactivation: Option<Deactivation>,
    pub(crate) twin_incarnation: Option<Incarnation>,
    pub(crate) twin_heard: Option<Time>,
    pub(crate) sent_bytes: u64,
    pub(crate) told: Told,
    pub(crate) leaving: bool,
    /// The order whose front end is going up.
    pub(crate) activation: Option<Ticket>,
    /// Since when this side goes on alone.
    pub(crate) alone_at: Time,
    /// Why the rebuild in preparation copies what it copies.
    pub(crate) rebuild_kind: RebuildKind,
    pub(crate) watch: Watch,
    pub(crate) verify: Option<Verify>,
    /// [`peer::control::DiskStatus::last_verify`].
    pub(crate) last_verify: Option<VerifyResult>,
    /// [`peer::control::DiskStatus::mended_blocks`].
    pub(crate) mended_blocks: u64,
    pub(crate) undo: Undo,
    /// The twin's copy went on by itself and was declared worse: it is kept while it is overwritten.
    pub(crate) declared: bool,
}

/// Steps of one turn after which something is wrong with the rules themselves: each step consumes what it waits for, so
/// a turn needs about as many as there are requests.
const STEPS_MAX: usize = 10_000;

impl Mirror {
    /// Starts one side from its control area, as standby.
    #[must_use]
    pub fn new(config: MirrorConfig, area: ControlArea, now: Time) -> Mirror {
        let mut map = area.map;
        let hot = if config.faults.skip_hot_extents_after_crash { BTreeSet::new() } else { area.hot };
        for extent in &hot {
            map.set_extent(*extent);
        }
        let mut sums = area.sums;
        sums.configure(config.timing.cool_us, config.faults);
        let mut sb = area.superblock;
        // Of another life of the host it says nothing.
        sb.made_equal &= sb.incarnation == config.incarnation;
        let undo = Undo::at_start(sb.preserved.as_ref(), sb.size);
        Mirror {
            log: ActivityLog::new(&hot, area.log_sequence, config.hot_max),
            lease: Lease::at_start(now),
            made_equal: sb.made_equal,
            mode: Mode::new(config.timing.mode, sb.mode),
            sb,
            map,
            store: Store::default(),
            sums,
            sum_waits: Vec::new(),
            sum_checks: Vec::new(),
            ranges: Ranges::default(),
            granted: VecDeque::new(),
            ops: BTreeMap::new(),
            next_id: 1,
            out: Vec::new(),
            moved: false,
            role: Role::Standby,
            failed: None,
            split: false,
            needs_twin: true,
            through: false,
            shouldered: false,
            unstored: false,
            requests: Requests::default(),
            flushes: Flushes::default(),
            link: None,
            links: 0,
            settle: Settle::default(),
            pair: Pair::Apart,
            finish: None,
            unstable_at: None,
            suspects: hot,
            rebuild: None,
            broken_off: None,
            last_rebuild: None,
            allow_rebuild: false,
            overruled: None,
            applied: BTreeMap::new(),
            flush_waits: None,
            barriers: Barriers::default(),
            journal: Journal::default(),
            promises: Vec::new(),
            next_cool: now.plus(config.timing.cool_us),
            putting_out: None,
            shouldering: Vec::new(),
            deactivation: None,
            twin_incarnation: None,
            twin_heard: None,
            sent_bytes: 0,
            told: Told::default(),
            leaving: false,
            activation: None,
            alone_at: now,
            rebuild_kind: RebuildKind::Fast,
            watch: Watch::default(),
            verify: None,
            last_verify: None,
            mended_blocks: 0,
            undo,
            declared: false,
            config,
            now,
        }
    }

    /// Applies one input. `now` never goes back.
    pub fn handle(&mut self, input: Input, now: Time) {
        self.now = self.now.max(now);
        self.judge_lease();
        match input {
            Input::Write { request, range } => self.write_asked(request, range),
            Input::Zero { request, range, unmap } => self.zero_asked(request, range, unmap),
            Input::Read { request, range } => self.read_asked(request, range),
            Input::Flush { request } => self.flush_asked(request),
            Input::LocalDone { op, result } => self.local_done(op, result),
            Input::LinkConnected { dialled } => self.link_connected(dialled),
            Input::LinkLost => self.link_lost(),
            Input::LinkHeard => self.link_heard(),
            Input::Received { frame, payload } => self.received(frame, payload),
            Input::Order(order) => self.order(order),
            Input::NodePresent(present) => self.node_present(present),
            Input::DeadlineReached => {}
        }
        self.advance();
        self.check();
        self.tell_status();
    }

    /// What is to be done, in order.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.out)
    }

    /// Restores the invariants: lets everything go on that waited for what this input brought.
    fn advance(&mut self) {
        self.advance_time();
        self.advance_watch();
        for _ in 0..STEPS_MAX {
            self.moved = false;
            self.advance_settle();
            self.advance_link();
            self.advance_promises();
            self.advance_pair();
            self.advance_putting_out();
            self.advance_shouldering();
            self.advance_finish();
            self.advance_deactivation();
            self.advance_mode();
            self.advance_requests();
            self.advance_journal();
            self.advance_mends();
            self.advance_held();
            self.advance_rebuild();
            self.advance_verify();
            self.advance_flushes();
            self.advance_undo();
            self.advance_sums();
            self.advance_store();
            if !self.moved {
                return;
            }
        }
        self.broken("a turn does not end");
    }

    fn local_done(&mut self, op: OpId, result: Result<LocalResult, LocalFault>) {
        let Some(kind) = self.ops.remove(&op) else { return };
        self.moved = true;
        match kind {
            Op::Write => self.write_done(op.0, result.err()),
            Op::Read => self.read_done(op.0, result.err()),
            Op::Round(number) => self.round_local_done(number, result.err()),
            Op::LocalRound => self.local_round_done(op, result.err()),
            Op::Barrier => self.barrier_flushed(result.err()),
            Op::Store => self.store_done(op, result.err()),
            Op::Apply => self.applied_done(op.0, result.err()),
            Op::Check => self.check_done(op.0, result),
            Op::ApplyFlush { of, connection } => self.applied_flush_done(of, connection, result.err()),
            Op::Settle => self.settle_flushed(result.err()),
            Op::FrontOpen => self.front_opened(result.err()),
            Op::FrontClose => self.front_closed(result.err()),
            Op::RunRead(run) => self.run_read_done(run, op, result),
            Op::RunHash(run) => self.run_hash_done(run, op, result),
            Op::Mend => self.mend_done(op.0, result.err()),
            Op::TwinRead => self.twin_read_done(op.0, result.err()),
            Op::Keep(what, batch) => self.keep_done(what, batch, result),
            Op::KeepRead => self.keep_read_done(op, result),
            Op::VerifyHash(run) => self.verify_hashed(run, result),
            Op::LoadSums(extent) => self.sums_loaded(extent, result),
            Op::SumsFlush => self.sums_flushed(result.err()),
            Op::LostRead => self.act(Action::Release { data: crate::action::Data::Buffer(op) }),
        }
    }

    pub(crate) fn act(&mut self, action: Action) {
        self.out.push(action);
    }

    pub(crate) fn actions_waiting(&self) -> usize {
        self.out.len()
    }

    /// A fresh number for a claim or an operation.
    pub(crate) fn fresh(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A fresh operation for this purpose.
    pub(crate) fn begin(&mut self, op: Op) -> OpId {
        let id = OpId(self.fresh());
        self.ops.insert(id, op);
        id
    }

    pub(crate) fn release_claim(&mut self, id: u64) {
        let mut granted = Vec::new();
        self.ranges.release(id, &mut granted);
        self.granted.extend(granted);
        self.moved = true;
    }

    /// Answers an order.
    pub(crate) fn answer(&mut self, ticket: Ticket, result: Result<Done, OrderFault>) {
        self.act(Action::Tell(FromDisk::Done { ticket, result }));
    }

    /// Issues the next store of the control area.
    fn advance_store(&mut self) {
        if self.unstored || self.failed.is_some() && self.role == Role::Fenced {
            return;
        }
        let op = OpId(self.next_id + 1);
        let Some(wanted) = self.store.begin(op) else { return };
        self.next_id += 1;
        self.ops.insert(op, Op::Store);
        let mut writes: Vec<ControlWrite> = Vec::new();
        let mut write = |(offset, bytes): (u64, Vec<u8>)| match writes.last_mut() {
            Some(ControlWrite { offset: before, bytes: known }) if *before + known.len() as u64 == offset => {
                known.extend(bytes);
            }
            Some(_) | None => writes.push(ControlWrite { offset, bytes }),
        };
        if wanted.pages {
            for (page, bits) in self.map.take_pages(PAGES_PER_STORE) {
                write(layout::page_write(&self.sb, page, &bits));
            }
            if self.map.has_pages_left() {
                self.store.pages();
            }
        }
        if wanted.sums {
            let (trust, pages) = self.sums.take_stores(self.store.next_mark() - 1);
            for (page, words) in trust {
                write(sum_page::trust_write(&self.sb, page, &words));
            }
            for (extent, known) in pages {
                write(sum_page::sums_write(&self.sb, extent, &known));
            }
        }
        if wanted.log {
            let sequence = self.log.next_sequence();
            write(layout::log_write(&self.sb, sequence, self.log.hot()));
        }
        if wanted.superblock {
            self.sb.counter += 1;
            self.sb.incarnation = self.config.incarnation;
            write(layout::superblock_write(&self.sb));
        }
        self.act(Action::StoreControl { op, writes });
    }

    fn store_done(&mut self, op: OpId, fault: Option<LocalFault>) {
        if let Some(fault) = fault {
            // Nothing can be promised any more: what was to be stored is neither there nor not there.
            self.unstored = true;
            let twin_serves = self.through || self.twin_could_serve();
            self.fail(format!("storing the control area failed: errno {}", fault.errno));
            if !twin_serves {
                self.fence();
            }
            return;
        }
        if self.store.finish(op) {
            self.map.pages_stored();
            self.sums_stored();
            self.stored_requests();
        }
    }

    /// The local disk failed: nothing more is promised, the engine moves the work.
    pub(crate) fn fail(&mut self, reason: String) {
        self.failed.get_or_insert(reason);
        self.moved = true;
        if self.role == Role::Standby {
            self.close_link(LinkFault::Restart);
        }
    }

    /// One of the rules of this crate is broken: stop serving rather than limp on.
    pub(crate) fn broken(&mut self, name: &str) {
        debug_assert!(false, "mirror invariant broken: {name}");
        self.fail(format!("invariant broken: {name}"));
        self.fence();
    }
}
