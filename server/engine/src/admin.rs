//! The mirror administrator's acts on a group's sets (C8): where each set stands, what is asked of the copies, and carrying out.
//!
//! A group is brought up for an administrator as for users, by its register and with its lease, but with its sets only, on one
//! server, without failover ([`Mode`]). An operator's force is a change of the register too (rule 11).

use crate::action::Step;
use crate::core::Core;
use crate::group::Group;
use crate::input::Outcome;
use crate::operator::{known_server, quorum, reachable};
use crate::pace;
use crate::persist::Forced;
use crate::register::{Change, Proposal, Servers};
use crate::timing::step;
use peer::control::{DiskOrder, OrderFault, UndoAct};
use peer::heartbeat::{Mode, Wanted};
use std::collections::BTreeMap;
use wire::admin::{Act, Standing, allowed};
use wire::alert::EventKind;
use wire::view::ServerState;
use wire::{CommandId, GroupId, NodeId, OldChoice, Operation, RefusalKind, SetId};

type Groups = BTreeMap<GroupId, Group>;

/// The administrator's operation as act, set and server.
#[must_use]
pub fn act(what: Operation) -> Option<(Act, SetId, NodeId)> {
    match what {
        Operation::BuildSet { set, to } => Some((Act::Build, set, to)),
        Operation::ForceRecovery { set, good } => Some((Act::ForcedRecovery, set, good)),
        Operation::PermitSet { set, on } => Some((Act::Permit, set, on)),
        Operation::RestrictSet { set, on } => Some((Act::Restrict, set, on)),
        Operation::ForcePermit { set, on } => Some((Act::ForcedPermit, set, on)),
        Operation::ExchangeDisk { set, server } => Some((Act::ExchangeDisk, set, server)),
        Operation::OldVersion { set, on, choice: OldChoice::PutBack } => Some((Act::PutBack, set, on)),
        Operation::OldVersion { set, on, choice: OldChoice::Drop } => Some((Act::DropOld, set, on)),
        Operation::OldVersion { set, on, choice: OldChoice::Waive } => Some((Act::WaiveOld, set, on)),
        // Of both servers: its group stands alike for both.
        Operation::ReleaseSet { set } => Some((Act::Release, set, NodeId(1))),
        Operation::VerifySet { set, .. } => Some((Act::Verify, set, NodeId(1))),
        Operation::PaceRebuild { set, .. } => Some((Act::Pace, set, NodeId(1))),
        Operation::StartGroup { .. }
        | Operation::KeepGroup { .. }
        | Operation::FreeGroup { .. }
        | Operation::Maintain { .. }
        | Operation::StopCluster
        | Operation::StartCluster
        | Operation::StopGroup { .. }
        | Operation::MoveGroup { .. }
        | Operation::StopServer { .. }
        | Operation::StartServer { .. }
        | Operation::RecoverServer { .. } => None,
    }
}

/// Every operation on a set.
pub fn operations(set: SetId) -> Vec<Operation> {
    let on = |make: fn(SetId, NodeId) -> Operation| NodeId::BOTH.map(|server| make(set, server)).to_vec();
    [
        on(|set, on| Operation::PermitSet { set, on }),
        on(|set, on| Operation::RestrictSet { set, on }),
        on(|set, to| Operation::BuildSet { set, to }),
        on(|set, good| Operation::ForceRecovery { set, good }),
        on(|set, on| Operation::ForcePermit { set, on }),
        on(|set, server| Operation::ExchangeDisk { set, server }),
        on(|set, on| Operation::OldVersion { set, on, choice: OldChoice::PutBack }),
        on(|set, on| Operation::OldVersion { set, on, choice: OldChoice::Drop }),
        on(|set, on| Operation::OldVersion { set, on, choice: OldChoice::Waive }),
        vec![Operation::ReleaseSet { set }],
        pace::operations(set),
    ]
    .concat()
}

/// Whether an act is possible now: by the table, then by the copies.
pub fn validate(core: &Core, groups: &Groups, what: Operation) -> Result<(), RefusalKind> {
    let Some((act, set, server)) = act(what) else { return Err(RefusalKind::UnknownSet) };
    known_server(server)?;
    let found = core.config.set(set).and_then(|set| groups.get(&set.group));
    let Some(group) = found else { return Err(RefusalKind::UnknownSet) };
    let mut stands = standing(core, group, server);
    if stands == Standing::Inactive && core.entry(server).state == ServerState::Down {
        // What is asked of a build is asked of both servers.
        if act == Act::Build {
            stands = standing(core, group, server.twin());
        } else if is_of_one_server(act) {
            return Err(RefusalKind::ServerDown);
        }
    }
    allowed(act, stands)?;
    if brings_up(act) {
        not_changing(core, group)?;
    }
    match act {
        Act::Build => build(core, group, server),
        Act::ForcedRecovery | Act::ForcedPermit => forced(core, group, server),
        Act::Permit => permit(core, group, server),
        Act::Restrict if group.wanted.on != server => Err(RefusalKind::NotPermitted),
        Act::Restrict => reachable(core, server),
        Act::ExchangeDisk => exchange(core, group, server),
        Act::PutBack | Act::DropOld | Act::WaiveOld => old_version(core, act, set, server),
        Act::Release => release(core, group, set),
        Act::Verify | Act::Pace => pace::validate(core, group, set, what),
    }
}

/// Acts that use a set of a stopped group, or change its copies.
fn brings_up(act: Act) -> bool {
    matches!(
        act,
        Act::Build | Act::ForcedRecovery | Act::Permit | Act::ForcedPermit | Act::ExchangeDisk | Act::PutBack
    )
}

/// From the check of a change of the configuration until it is made or taken back, on both servers: what was stopped stays so.
pub fn not_changing(core: &Core, group: &Group) -> Result<(), RefusalKind> {
    let of_group = |set: SetId| core.config.set(set).is_some_and(|set| set.group == group.id);
    let released = core.exchanges.values().any(|(set, act)| *act == Act::Release && of_group(*set));
    if released || core.changing.contains(&group.id) { Err(RefusalKind::Busy) } else { Ok(()) }
}

/// Acts on the copy of the server that is named, so that it must not be down.
fn is_of_one_server(act: Act) -> bool {
    !matches!(act, Act::Build | Act::Verify | Act::Pace)
}

/// Asked of the copy itself: ordered on its own server, whose disk process knows what it keeps.
fn old_version(core: &Core, act: Act, set: SetId, server: NodeId) -> Result<(), RefusalKind> {
    if server != core.me {
        return Err(RefusalKind::OnlyThere);
    }
    let status = core.sets.get(&set).filter(|set| set.present).and_then(|set| set.status.as_ref());
    let kept = status.and_then(|status| status.undo);
    if act == Act::WaiveOld && status.is_some_and(|status| status.undo_short) {
        return Ok(());
    }
    let Some(kept) = kept.filter(|_| act != Act::WaiveOld) else { return Err(RefusalKind::NothingKept) };
    // The source is there and would overwrite it again.
    let linked = status.is_some_and(|status| status.linked);
    match kept.returning {
        true => Err(RefusalKind::Busy),
        false if act == Act::PutBack && linked => Err(RefusalKind::SetActive),
        false => Ok(()),
    }
}

/// Where a group's sets stand for a server.
fn standing(core: &Core, group: &Group, server: NodeId) -> Standing {
    if group.is_permitted() {
        return Standing::Permitted;
    }
    if group.active_on(core).is_some() || group.aim(core).is_some() || group.taking_over {
        return Standing::Active;
    }
    if !core.twin_present() && !core.twin.gone {
        return Standing::Unheard;
    }
    let restarted = |server: NodeId| {
        let entry = core.entry(server);
        entry.state == ServerState::RestartedAfterDown && !entry.recovering
    };
    let there = |server: NodeId| server == core.me || !core.twin.gone;
    let other = server.twin();
    match core.entry(other).state {
        _ if !restarted(server) => Standing::Inactive,
        ServerState::RestartedAfterDown if restarted(other) && there(other) => Standing::RestartedBoth,
        ServerState::Normal if there(other) => Standing::RestartedOtherNormal,
        ServerState::RestartedAfterDown if there(other) => Standing::RestartedOtherNormal,
        ServerState::Normal | ServerState::Stopped | ServerState::Down | ServerState::RestartedAfterDown => {
            Standing::RestartedOtherDown
        }
    }
}

/// The statuses of its sets here, as far as their processes are there.
fn split(core: &Core, group: &Group) -> bool {
    let sets = core.sets_of(group.id);
    let mut statuses = sets.iter().filter_map(|id| core.sets.get(id)?.status.as_ref());
    statuses.any(|status| status.split)
}

fn newest(core: &Core, group: &Group, server: NodeId) -> Result<(), RefusalKind> {
    if split(core, group) {
        return Err(RefusalKind::CopySplit);
    }
    if !group.in_sync().contains(server) {
        return Err(RefusalKind::CopyOutOfDate);
    }
    if group.is_worse(core, server) { Err(RefusalKind::CopyMayLack) } else { Ok(()) }
}

fn permit(core: &Core, group: &Group, on: NodeId) -> Result<(), RefusalKind> {
    newest(core, group, on)?;
    reachable(core, on)?;
    quorum(core, group, on)
}

/// It needs both servers.
fn build(core: &Core, group: &Group, to: NodeId) -> Result<(), RefusalKind> {
    newest(core, group, to.twin())?;
    if core.twin_present() { Ok(()) } else { Err(RefusalKind::TwinAway) }
}

/// A copy that is only half built is never activated, whoever orders it.
fn forced(core: &Core, group: &Group, server: NodeId) -> Result<(), RefusalKind> {
    reachable(core, server)?;
    let sets = core.sets_of(group.id);
    let mut own = sets.iter().filter_map(|id| core.sets.get(id)?.status.as_ref());
    if server == core.me && own.any(|status| !status.consistent) {
        return Err(RefusalKind::CopyRebuilding);
    }
    // Its own acceptor and another one: the known value alone is not enough to raise the term.
    if core.twin_present() || core.witness_votes(group.id) { Ok(()) } else { Err(RefusalKind::NoQuorum) }
}

/// Done on that server, and only on a copy that nobody counts on: a blank disk that the register takes for equal would be
/// served as the data.
fn exchange(core: &Core, group: &Group, server: NodeId) -> Result<(), RefusalKind> {
    if server != core.me {
        return Err(RefusalKind::OnlyThere);
    }
    let counts = group.in_sync().contains(server) || !group.register.pending().is_empty();
    if counts || !group.confirmed { Err(RefusalKind::CopyCounts) } else { Ok(()) }
}

/// Both servers take part, and nothing of the group is anywhere, nor under way here.
fn release(core: &Core, group: &Group, set: SetId) -> Result<(), RefusalKind> {
    if !core.twin_present() {
        return Err(RefusalKind::TwinAway);
    }
    let busy = core.exchanges.values().any(|(under_way, _)| *under_way == set);
    if busy || group.is_here(core) { Err(RefusalKind::Busy) } else { Ok(()) }
}

/// Whether a fresh mirror set may be put into a group (C8): a new one is always possible while both servers take part; one that
/// exists only while it is stopped and the source's copy alone counts, so that the fresh disk of the other server never does.
///
/// # Errors
/// Why not.
pub fn may_register(
    core: &Core,
    groups: &Groups,
    group: Option<GroupId>,
    source: NodeId,
) -> Result<(), RefusalKind> {
    if !core.twin_present() {
        return Err(RefusalKind::TwinAway);
    }
    let Some(id) = group else { return Ok(()) };
    let group = groups.get(&id).ok_or(RefusalKind::UnknownGroup)?;
    match standing(core, group, source) {
        Standing::Active => return Err(RefusalKind::SetInUse),
        Standing::Permitted => return Err(RefusalKind::SetPermitted),
        Standing::Unheard => return Err(RefusalKind::TwinAway),
        Standing::Inactive
        | Standing::RestartedBoth
        | Standing::RestartedOtherNormal
        | Standing::RestartedOtherDown => {}
    }
    if group.is_here(core) {
        return Err(RefusalKind::Busy);
    }
    let alone = group.in_sync() == Servers::only(source) && group.register.pending().is_empty();
    if alone && group.confirmed { Ok(()) } else { Err(RefusalKind::OtherCounts) }
}

/// Takes an operation into what is wanted of its group, or does it here.
pub fn carry_out(core: &mut Core, group: &mut Group, what: Operation, command: CommandId) {
    let (run, on, mode) = match what {
        Operation::PermitSet { on, .. } => (true, on, Mode::Access),
        Operation::ForcePermit { on, .. } => (true, on, Mode::ForceAccess),
        Operation::RestrictSet { on, .. } => (false, on, Mode::Access),
        Operation::BuildSet { to, .. } => (true, to.twin(), Mode::Build),
        Operation::ForceRecovery { good, .. } => (true, good, Mode::Force),
        Operation::ExchangeDisk { set, .. } => {
            let id = core.perform(Step::ExchangeDisk { set }, step::EXCHANGE);
            core.exchanges.insert(id, (set, Act::ExchangeDisk));
            return;
        }
        Operation::ReleaseSet { set } => {
            let id = core.perform(Step::ReleaseSet { set }, step::RELEASE);
            core.exchanges.insert(id, (set, Act::Release));
            return;
        }
        Operation::OldVersion { set, choice, .. } => {
            let act = match choice {
                OldChoice::PutBack => UndoAct::Back,
                OldChoice::Drop => UndoAct::Drop,
                OldChoice::Waive => UndoAct::Waive,
            };
            core.order(set, DiskOrder::Undo { act }, crate::sets::What::Standing, step::ORDER);
            return;
        }
        Operation::VerifySet { set, .. } | Operation::PaceRebuild { set, .. } => {
            pace::carry_out(core, set, what);
            return;
        }
        Operation::StartGroup { .. }
        | Operation::KeepGroup { .. }
        | Operation::FreeGroup { .. }
        | Operation::Maintain { .. }
        | Operation::StopCluster
        | Operation::StartCluster
        | Operation::StopGroup { .. }
        | Operation::MoveGroup { .. }
        | Operation::StopServer { .. }
        | Operation::StartServer { .. }
        | Operation::RecoverServer { .. } => return,
    };
    group.failure = None;
    group.held = None;
    group.command = Some(command);
    let (version, author) = (group.wanted.version + 1, core.me);
    let (failed, kept) = (Servers::NONE, group.wanted.kept);
    group.wanted = Wanted { version, author, run, on, failed_over: false, failed, mode, kept, asked: false };
    core.urgent = true;
}

impl Core {
    /// The exchange of a disk, or a release, ended. Returns whether it was one.
    pub fn exchanged(&mut self, id: crate::action::ActionId, outcome: &Outcome) -> bool {
        let Some((set, act)) = self.exchanges.remove(&id) else { return false };
        let server = self.me;
        let event = match outcome {
            // Told when the configuration without it is applied.
            Outcome::Done if act == Act::Release => return true,
            Outcome::Failed { reason } | Outcome::Unknown { reason } if act == Act::Release => {
                EventKind::SetNotReleased { set, reason: reason.clone() }
            }
            Outcome::Done => EventKind::DiskExchanged { set, server },
            Outcome::Failed { reason } | Outcome::Unknown { reason } => {
                EventKind::DiskNotExchanged { set, server, reason: reason.clone() }
            }
            Outcome::AddressInUse { .. } | Outcome::Observed { .. } => return true,
        };
        self.record_event(event);
        true
    }
}

impl Group {
    /// Its sets are, or are being, brought up for an administrator.
    #[must_use]
    pub fn is_permitted(&self) -> bool {
        let administers = !matches!(self.wanted.mode, Mode::Serve | Mode::Rebuild);
        self.wanted.run && administers && !self.wanted.failed.contains(self.wanted.on)
    }

    /// The same until its sets are left again: the other server's copies, just built, are not put out for its state.
    #[must_use]
    pub fn has_built(&self, server: NodeId) -> bool {
        self.wanted.mode == Mode::Build && self.wanted.on == server
    }

    /// Of that, by permission to use them (not for a build, nor only to declare them good).
    #[must_use]
    pub fn gives_access(&self) -> bool {
        self.is_permitted() && matches!(self.wanted.mode, Mode::Access | Mode::ForceAccess)
    }

    /// A permission ends with the life of its host; what was written under it may differ from the other copy by then [8.2].
    pub(crate) fn end_permission(&mut self, core: &mut Core) {
        if self.is_permitted() && self.wanted.on == core.me {
            let wanted = Wanted { run: false, ..self.wanted };
            self.want(core, wanted);
        }
    }

    /// This server is ordered to copy to the other one, whatever that one's state is.
    #[must_use]
    pub fn builds_from(&self, server: NodeId) -> bool {
        self.is_permitted() && self.wanted.mode == Mode::Build && self.wanted.on == server
    }

    /// Where its sets are to be brought up: only where that was ordered, and only what the register counts as newest.
    pub(crate) fn access_aim(&self, core: &Core) -> Option<NodeId> {
        let on = self.wanted.on;
        let able = match self.wanted.mode {
            Mode::Access | Mode::Build => self.is_permitted(),
            Mode::Rebuild => self.wanted.run && core.takes_part(on),
            Mode::Serve | Mode::Force | Mode::ForceAccess => false,
        };
        let there = on == core.me || !core.twin.gone;
        let newest = self.in_sync().contains(on) && !self.is_worse(core, on);
        (able && there && newest && !core.entry(on).leaving).then_some(on)
    }

    /// An operator's force that is still to be decided, by the server whose copy it is about.
    #[must_use]
    pub(crate) fn due_force(&self, core: &Core) -> Option<Change> {
        let ordered = matches!(self.wanted.mode, Mode::Force | Mode::ForceAccess);
        let mine = self.is_permitted() && self.wanted.on == core.me;
        (ordered && mine && !self.is_here(core) && self.running.is_none()).then_some(Change::Force)
    }

    /// A value was chosen: if it is what a force proposed, that is done, and what follows it begins.
    pub(crate) fn force_chosen(&mut self, core: &mut Core, chosen: Proposal) {
        let value = chosen.value;
        let mine = chosen.ballot.proposer == core.me && value.holder == Some(core.me);
        if !mine || value.in_sync != Servers::only(core.me) {
            return;
        }
        let (run, replace) = match self.wanted.mode {
            Mode::Force => (false, true),
            Mode::ForceAccess => (true, false),
            Mode::Serve | Mode::Access | Mode::Build | Mode::Rebuild => return,
        };
        self.forced = Some(Forced { epoch: value.epoch, replace });
        core.crashed_in.remove(&self.id);
        let (group, server) = (self.id, core.me);
        core.record_event(EventKind::MirrorForced { group, server });
        let wanted = Wanted { run, mode: Mode::Access, ..self.wanted };
        self.want(core, wanted);
    }

    /// A build is complete when the register counts both copies again: then nothing more is wanted.
    pub(crate) fn finish_build(&mut self, core: &mut Core) {
        let both = self.register.known().in_sync == Servers::BOTH && self.register.pending().is_empty();
        let equal = |id: &SetId| core.sets.get(id).is_some_and(|set| set.is_equal(core.twin.stored_host));
        if self.builds_from(core.me) && both && core.sets_of(self.id).iter().all(equal) {
            let wanted = Wanted { run: false, ..self.wanted };
            self.want(core, wanted);
        }
    }

    /// Tells a set's process of the force in this term, before it is activated.
    pub(crate) fn order_overrule(&mut self, core: &mut Core, set: SetId) {
        let known = self.register.known();
        let forced = self.forced.filter(|f| f.epoch == known.epoch && known.holder == Some(core.me));
        let Some(forced) = forced else { return };
        let Some(entry) = core.sets.get_mut(&set).filter(|entry| entry.overruled != Some(forced)) else {
            return;
        };
        entry.overruled = Some(forced);
        let order = DiskOrder::Overrule { replace: forced.replace };
        core.order(set, order, crate::sets::What::Standing, step::ORDER);
    }

    /// A set could not be left: somebody still uses it. The permission stays.
    pub(crate) fn still_used(&mut self, core: &mut Core, fault: &OrderFault) -> bool {
        if self.wanted.mode == Mode::Serve || *fault != OrderFault::InUse {
            return false;
        }
        let (group, server) = (self.id, core.me);
        core.record_event(EventKind::MirrorStillUsed { group, server });
        let wanted = Wanted { run: true, mode: Mode::Access, ..self.wanted };
        self.want(core, wanted);
        true
    }

    /// Its sets are up, or down again, for an administrator: told once.
    pub(crate) fn access_settled(&mut self, core: &mut Core, up: bool) {
        if self.serving == up {
            return;
        }
        self.serving = up;
        self.since = core.wall();
        self.command = None;
        let (group, server) = (self.id, core.me);
        let event = match (self.wanted.mode, up) {
            (Mode::Build, true) | (Mode::Rebuild, _) => return,
            (_, true) => EventKind::MirrorPermitted { group, server },
            (Mode::Build, false) => EventKind::MirrorBuilt { group, from: server },
            (_, false) => EventKind::MirrorRestricted { group, server },
        };
        core.record_event(event);
    }
}
