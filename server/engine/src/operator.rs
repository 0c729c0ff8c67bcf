//! Operators' commands: validated by one function, which also greys the page's buttons; then what is wanted changes.

use crate::action::Action;
use crate::admin;
use crate::core::Core;
use crate::engine::Engine;
use crate::group::Group;
use peer::cluster::Servers;
use peer::heartbeat::{Mode, Part, Wanted};
use std::collections::BTreeMap;
use wire::view::{Possible, ServerState};
use wire::{Command, GroupId, NodeId, Operation, Refusal, RefusalKind, Reply, SetId};

/// What a command concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A group.
    Group(GroupId),
    /// A server.
    Server(NodeId),
    /// A mirror set.
    Set(SetId),
    /// All of it.
    Cluster,
}

fn subject(what: Operation) -> Subject {
    match what {
        Operation::StartGroup { group, .. }
        | Operation::StopGroup { group }
        | Operation::KeepGroup { group }
        | Operation::FreeGroup { group }
        | Operation::MoveGroup { group, .. } => Subject::Group(group),
        Operation::Maintain { .. } | Operation::StopCluster | Operation::StartCluster => Subject::Cluster,
        Operation::StopServer { server }
        | Operation::StartServer { server }
        | Operation::RecoverServer { server } => Subject::Server(server),
        Operation::BuildSet { set, .. }
        | Operation::ForceRecovery { set, .. }
        | Operation::PermitSet { set, .. }
        | Operation::RestrictSet { set, .. }
        | Operation::ForcePermit { set, .. }
        | Operation::ExchangeDisk { set, .. }
        | Operation::OldVersion { set, .. }
        | Operation::ReleaseSet { set }
        | Operation::VerifySet { set, .. }
        | Operation::PaceRebuild { set, .. } => Subject::Set(set),
    }
}

type Groups = BTreeMap<GroupId, Group>;

/// Whether an operation is possible now.
pub fn validate(core: &Core, groups: &Groups, what: Operation) -> Result<(), RefusalKind> {
    match what {
        Operation::StartGroup { group, on } => start_group(core, find(groups, group)?, on),
        Operation::StopGroup { group } => stop_group(core, find(groups, group)?),
        Operation::MoveGroup { group, to } => move_group(core, find(groups, group)?, to),
        Operation::KeepGroup { group } => keep_group(find(groups, group)?, true),
        Operation::FreeGroup { group } => keep_group(find(groups, group)?, false),
        Operation::Maintain { on } if core.upkeep.on == on => Err(RefusalKind::AlreadySo),
        Operation::Maintain { .. } => Ok(()),
        Operation::StopCluster => each_server(core, stop_server),
        Operation::StartCluster => each_server(core, start_server),
        Operation::StopServer { server } => stop_server(core, server),
        Operation::StartServer { server } => start_server(core, server),
        Operation::RecoverServer { server } => recover_server(core, groups, server),
        Operation::BuildSet { .. }
        | Operation::ForceRecovery { .. }
        | Operation::PermitSet { .. }
        | Operation::RestrictSet { .. }
        | Operation::ForcePermit { .. }
        | Operation::ExchangeDisk { .. }
        | Operation::OldVersion { .. }
        | Operation::ReleaseSet { .. }
        | Operation::VerifySet { .. }
        | Operation::PaceRebuild { .. } => admin::validate(core, groups, what),
    }
}

/// No group that is to run counts on a server's copy besides the other one's.
pub fn expelled(core: &Core, groups: &Groups, server: NodeId) -> bool {
    let used = |group: &&Group| {
        let crashed = server == core.twin_id && core.twin.crashed_in.contains(&group.id);
        group.should_run(core) || group.active_on(core).is_some() || crashed
    };
    // A group that it serves, or whose only copy in sync it has, stays with it.
    let serves = |group: &Group| {
        group.register.known().holder == Some(server) && part_on(core, group, server) == Part::Running
    };
    // Nor can the other one put it out whose own copy is the worse.
    let counted = |group: &Group| {
        let shared = group.in_sync().contains(server) && group.in_sync().count() > 1;
        shared && !serves(group) && !group.is_worse(core, server.twin())
    };
    !groups.values().filter(used).any(counted)
}

fn find(groups: &Groups, id: GroupId) -> Result<&Group, RefusalKind> {
    groups.get(&id).ok_or(RefusalKind::UnknownGroup)
}

fn start_group(core: &Core, group: &Group, on: NodeId) -> Result<(), RefusalKind> {
    not_held(core, group)?;
    not_permitted(group)?;
    admin::not_changing(core, group)?;
    match group.active_on(core) {
        Some(server) if part_on(core, group, server) == Part::Running => {
            return Err(RefusalKind::AlreadyRunning);
        }
        Some(_) => return Err(RefusalKind::Busy),
        None if group.aim(core).is_some() || group.taking_over => return Err(RefusalKind::Busy),
        None => {}
    }
    can_run(core, group, on)
}

fn stop_group(core: &Core, group: &Group) -> Result<(), RefusalKind> {
    not_permitted(group)?;
    let Some(server) = group.active_on(core) else {
        return if group.aim(core).is_some() { Ok(()) } else { Err(RefusalKind::NotRunning) };
    };
    if part_on(core, group, server) == Part::Stopping {
        return Err(RefusalKind::Busy);
    }
    reachable(core, server)
}

fn not_permitted(group: &Group) -> Result<(), RefusalKind> {
    if group.is_permitted() { Err(RefusalKind::SetPermitted) } else { Ok(()) }
}

fn move_group(core: &Core, group: &Group, to: NodeId) -> Result<(), RefusalKind> {
    not_held(core, group)?;
    not_permitted(group)?;
    known_server(to)?;
    let Some(server) = group.active_on(core) else {
        return Err(if group.aim(core).is_some() { RefusalKind::Busy } else { RefusalKind::NotRunning });
    };
    if part_on(core, group, server) != Part::Running {
        return Err(RefusalKind::Busy);
    }
    if server == to {
        return Err(RefusalKind::AlreadyThere);
    }
    reachable(core, server)?;
    crate::mode::may_move(core, group.id)?;
    can_run(core, group, to)
}

fn keep_group(group: &Group, keep: bool) -> Result<(), RefusalKind> {
    if group.wanted.kept == keep { Err(RefusalKind::AlreadySo) } else { Ok(()) }
}

/// What concerns the cluster is possible where it is for at least one server; the other one is so already, or not there.
fn each_server(
    core: &Core,
    possible: fn(&Core, NodeId) -> Result<(), RefusalKind>,
) -> Result<(), RefusalKind> {
    possible(core, core.me).or_else(|own| possible(core, core.twin_id).map_err(|_| own))
}

fn stop_server(core: &Core, server: NodeId) -> Result<(), RefusalKind> {
    known_server(server)?;
    let entry = core.entry(server);
    match entry.state {
        ServerState::Stopped => return Err(RefusalKind::ServerStopped),
        ServerState::Down => return Err(RefusalKind::ServerDown),
        ServerState::RestartedAfterDown => return Err(RefusalKind::ServerNotRecovered),
        ServerState::Normal => {}
    }
    if entry.leaving {
        return Err(RefusalKind::Busy);
    }
    reachable(core, server)
}

fn start_server(core: &Core, server: NodeId) -> Result<(), RefusalKind> {
    known_server(server)?;
    let entry = core.entry(server);
    match entry.state {
        ServerState::Normal => return Err(RefusalKind::ServerNormal),
        ServerState::Down => return Err(RefusalKind::ServerDown),
        ServerState::RestartedAfterDown => return Err(RefusalKind::ServerNotRecovered),
        ServerState::Stopped => {}
    }
    if entry.recovering {
        return Err(RefusalKind::RecoveryRuns);
    }
    reachable(core, server)
}

fn recover_server(core: &Core, groups: &Groups, server: NodeId) -> Result<(), RefusalKind> {
    known_server(server)?;
    // A server that takes part would take the sets from whoever uses them by permission.
    groups.values().try_for_each(not_permitted)?;
    let entry = core.entry(server);
    // Its copy of a group waits for a twin that may never return: only an operator can say that it shall serve.
    let waits = server == core.me && core.twin_unheard() && groups.values().any(|g| g.is_worse(core, server));
    match entry.state {
        ServerState::Normal if waits => return Ok(()),
        ServerState::Normal => return Err(RefusalKind::ServerNormal),
        ServerState::Stopped => return Err(RefusalKind::ServerStopped),
        ServerState::Down => return Err(RefusalKind::ServerDown),
        ServerState::RestartedAfterDown => {}
    }
    if entry.recovering && !waits {
        return Err(RefusalKind::RecoveryRuns);
    }
    if server != core.me && core.sets.values().any(|set| set.status.as_ref().is_some_and(|s| s.undo_short)) {
        return Err(RefusalKind::CannotKeep);
    }
    let other = server.twin();
    let other_works =
        core.entry(other).state == ServerState::Normal && (other == core.me || core.twin_present());
    if other_works && !expelled(core, groups, server) {
        return Err(RefusalKind::Busy);
    }
    reachable(core, server)
}

pub(crate) fn known_server(server: NodeId) -> Result<(), RefusalKind> {
    if NodeId::BOTH.contains(&server) { Ok(()) } else { Err(RefusalKind::UnknownServer) }
}

pub(crate) fn reachable(core: &Core, server: NodeId) -> Result<(), RefusalKind> {
    if server == core.me || core.twin_present() { Ok(()) } else { Err(RefusalKind::Unreachable) }
}

fn part_on(core: &Core, group: &Group, server: NodeId) -> Part {
    if server == core.me { group.part(core) } else { core.twin.part(group.id) }
}

fn not_held(core: &Core, group: &Group) -> Result<(), RefusalKind> {
    let held = NodeId::BOTH.into_iter().any(|server| part_on(core, group, server) == Part::Held);
    if held { Err(RefusalKind::Held) } else { Ok(()) }
}

/// A server could take the group: its policy, the server's state, its copy, and a majority to decide it.
fn can_run(core: &Core, group: &Group, on: NodeId) -> Result<(), RefusalKind> {
    known_server(on)?;
    let entry = core.entry(on);
    if !core.config.group(group.id).is_some_and(|g| g.policy.contains(&on)) {
        return Err(RefusalKind::NotInPolicy);
    }
    match entry.state {
        ServerState::Down => return Err(RefusalKind::ServerDown),
        ServerState::RestartedAfterDown => return Err(RefusalKind::ServerNotRecovered),
        ServerState::Stopped => return Err(RefusalKind::ServerStopped),
        ServerState::Normal if entry.leaving => return Err(RefusalKind::ServerStopped),
        ServerState::Normal => {}
    }
    reachable(core, on)?;
    if group.is_shut_out(core, on) {
        return Err(RefusalKind::Occupied);
    }
    let statuses = core.sets_of(group.id).into_iter().filter_map(|id| core.sets.get(&id)?.status.as_ref());
    let statuses: Vec<_> = statuses.collect();
    if statuses.iter().any(|s| s.split) {
        return Err(RefusalKind::CopySplit);
    }
    if !group.in_sync().contains(on) {
        let rebuilding = statuses.iter().any(|s| s.rebuild.is_some_and(|r| r.to == on));
        return Err(if rebuilding { RefusalKind::CopyRebuilding } else { RefusalKind::CopyOutOfDate });
    }
    if group.is_worse(core, on) {
        return Err(RefusalKind::CopyMayLack);
    }
    quorum(core, group, on)
}

/// The register can decide for a server: by a majority, or because it holds alone already.
pub(crate) fn quorum(core: &Core, group: &Group, on: NodeId) -> Result<(), RefusalKind> {
    let known = group.register.known();
    let alone = known.holder == Some(on) && known.in_sync == Servers::only(on);
    if !alone && !core.twin_present() && !core.witness_votes(group.id) {
        return Err(RefusalKind::NoQuorum);
    }
    Ok(())
}

/// Every operation with its possibility, for the page.
pub fn operations(core: &Core, groups: &Groups) -> Vec<Possible> {
    let mut all = Vec::new();
    for group in groups.keys().copied() {
        all.extend(NodeId::BOTH.map(|on| Operation::StartGroup { group, on }));
        all.push(Operation::StopGroup { group });
        all.extend([Operation::KeepGroup { group }, Operation::FreeGroup { group }]);
        all.extend(NodeId::BOTH.map(|to| Operation::MoveGroup { group, to }));
    }
    all.extend(NodeId::BOTH.map(|server| Operation::StopServer { server }));
    all.extend(NodeId::BOTH.map(|server| Operation::StartServer { server }));
    all.extend(NodeId::BOTH.map(|server| Operation::RecoverServer { server }));
    all.extend([true, false].map(|on| Operation::Maintain { on }));
    all.extend([Operation::StopCluster, Operation::StartCluster]);
    all.extend(core.config.sets.iter().flat_map(|set| admin::operations(set.id)));
    all.into_iter().map(|what| Possible { what, refused: validate(core, groups, what).err() }).collect()
}

impl Engine {
    /// A command: one reply, at once; what it began shows in the view.
    pub(crate) fn command(&mut self, command: &Command) {
        let stale = self.changed.get(&subject(command.what)).is_some_and(|at| *at > command.revision);
        let valid =
            if stale { Err(RefusalKind::Changed) } else { validate(&self.core, &self.groups, command.what) };
        match valid {
            Ok(()) => self.carry_out(command),
            Err(kind) => self.core.record_event(wire::EventKind::CommandRefused { kind }),
        }
        let result = valid.map_err(|kind| Refusal { kind });
        self.core.out.push(Action::Answer { reply: Reply { id: command.id, result } });
    }

    fn carry_out(&mut self, command: &Command) {
        match command.what {
            Operation::StartGroup { group, on } | Operation::MoveGroup { group, to: on } => {
                self.want(group, true, on, command);
            }
            Operation::StopGroup { group } => {
                let on = self.groups.get(&group).and_then(|g| g.active_on(&self.core));
                let on =
                    on.or(self.groups.get(&group).map(|g| g.wanted.on)).filter(|s| NodeId::BOTH.contains(s));
                self.want(group, false, on.unwrap_or(self.core.me), command);
            }
            Operation::BuildSet { set, .. }
            | Operation::ForceRecovery { set, .. }
            | Operation::PermitSet { set, .. }
            | Operation::RestrictSet { set, .. }
            | Operation::ForcePermit { set, .. }
            | Operation::ExchangeDisk { set, .. }
            | Operation::OldVersion { set, .. }
            | Operation::ReleaseSet { set }
            | Operation::VerifySet { set, .. }
            | Operation::PaceRebuild { set, .. } => {
                let group = self.core.config.set(set).map(|set| set.group);
                if let Some(group) = group.and_then(|id| self.groups.get_mut(&id)) {
                    admin::carry_out(&mut self.core, group, command.what, command.id);
                }
            }
            Operation::KeepGroup { group } => self.keep(group, true),
            Operation::FreeGroup { group } => self.keep(group, false),
            Operation::Maintain { on } => self.core.set_upkeep(on),
            Operation::StopCluster => {
                let all = NodeId::BOTH.into_iter().filter(|s| stop_server(&self.core, *s).is_ok());
                for server in all.collect::<Vec<_>>() {
                    self.core.set_entry(server, ServerState::Normal, false, true);
                }
            }
            Operation::StartCluster => {
                let all = NodeId::BOTH.into_iter().filter(|s| start_server(&self.core, *s).is_ok());
                for server in all.collect::<Vec<_>>() {
                    // Both were stopped as one: neither is behind the other.
                    self.core.set_entry(server, ServerState::Normal, false, false);
                }
            }
            Operation::StopServer { server } => self.core.set_entry(server, ServerState::Normal, false, true),
            Operation::StartServer { server } => self.core.recover(server),
            Operation::RecoverServer { server } => {
                self.core.recover(server);
                let own = self.core.entry(self.core.me);
                if server == self.core.me && !own.recovering {
                    // Of an unheard twin nobody knows more: the operator's word (invariant 4, "force"). One that is heard and
                    // says that its copy is whole keeps its preference.
                    let (unheard, crashed) = (self.core.twin_unheard(), &self.core.twin.crashed_in);
                    self.core.crashed_in.retain(|group| !unheard && !crashed.contains(group));
                }
            }
        }
    }

    fn keep(&mut self, group: GroupId, kept: bool) {
        let Some(group) = self.groups.get_mut(&group) else { return };
        let id = group.id;
        if group.wanted.version == 0 {
            // Nothing was decided yet: it was started with the cluster, or not.
            let home = self.core.config.group(id).and_then(|c| c.policy.first().copied());
            group.wanted.run = group.should_run(&self.core);
            group.wanted.on = group.active_on(&self.core).or(home).unwrap_or(self.core.me);
        }
        // What is under way towards an operator's order is his order still.
        let wanted = Wanted { kept, asked: group.wanted.asked && kept, ..group.wanted };
        let (version, author) = (group.wanted.version + 1, self.core.me);
        group.wanted = Wanted { version, author, ..wanted };
        self.core.urgent = true;
        let event = if kept {
            wire::EventKind::GroupKept { group: id }
        } else {
            wire::EventKind::GroupFreed { group: id }
        };
        self.core.record_event(event);
    }

    fn want(&mut self, group: GroupId, run: bool, on: NodeId, command: &Command) {
        let Some(group) = self.groups.get_mut(&group) else { return };
        group.failure = None;
        group.held = None;
        group.restarts.clear();
        group.takeovers.clear();
        group.command = Some(command.id);
        // Even what was wanted already is wanted anew: the server that holds the group tries its stop once more.
        let (version, author) = (group.wanted.version + 1, self.core.me);
        let (failed, mode, kept) = (Servers::NONE, Mode::Serve, group.wanted.kept);
        group.wanted =
            Wanted { version, author, run, on, failed_over: false, failed, mode, kept, asked: run };
        self.core.urgent = true;
    }
}
