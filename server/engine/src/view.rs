//! The picture of the cluster as this server sees it, with what the twin told of its own part.

use crate::core::Core;
use crate::engine::Engine;
use crate::group::{Group, Look};
use crate::operator::{self, Subject};
use crate::plan::Target;
use crate::sets::Set;
use peer::control::Role;
use peer::heartbeat::{Mode, Part};
use std::net::IpAddr;
use wire::alert::StepKind;
use wire::config::{GroupConfig, LinkConfig, LinkKind, ServerConfig, SetConfig};
use wire::ids::MILLIS;
use wire::view::{
    ClusterView, GroupState, GroupView, LinkState, LinkView, ServerState, ServerView, SetState, SetView,
    Standby, StepProgress, StepView, Verified, WitnessView,
};
use wire::{NodeId, Revision, Time, WallClock};

impl Engine {
    /// The view. Its revision rises by one whenever something but the clock differs from the view before; operators' commands
    /// are checked against these revisions.
    pub fn view(&mut self, now: Time, wall: WallClock) -> ClusterView {
        let drift = self.core.wall_at(now).0.abs_diff(wall.0);
        if drift > CLOCK_STEP_MS {
            self.core.wall = (now, wall);
        }
        let mut view = self.compose();
        view.at = wall;
        let Some(mut before) = self.shown.take() else {
            view.revision = Revision(1);
            self.shown = Some(view.clone());
            return view;
        };
        (before.at, view.revision) = (view.at, before.revision);
        if wire::feed::Delta::between(&before, &view).is_some() {
            view.revision = Revision(before.revision.0 + 1);
            self.note_changes(&before, &view);
        }
        self.shown = Some(view.clone());
        view
    }

    fn note_changes(&mut self, before: &ClusterView, view: &ClusterView) {
        for group in &view.groups {
            let old = before.groups.iter().find(|g| g.id == group.id);
            let kind = |g: &GroupView| (std::mem::discriminant(&g.state), g.active);
            if old.is_some_and(|old| kind(old) != kind(group)) {
                self.changed.insert(Subject::Group(group.id), view.revision);
            }
        }
        for set in &view.sets {
            let old = before.sets.iter().find(|s| s.id == set.id);
            let kind = |s: &SetView| (std::mem::discriminant(&s.state), s.permitted);
            if old.is_some_and(|old| kind(old) != kind(set)) {
                self.changed.insert(Subject::Set(set.id), view.revision);
            }
        }
        if before.maintenance != view.maintenance {
            self.changed.insert(Subject::Cluster, view.revision);
        }
        for server in &view.servers {
            let old = before.servers.iter().find(|s| s.id == server.id);
            if old.is_some_and(|old| (old.state, old.recovering) != (server.state, server.recovering)) {
                self.changed.insert(Subject::Server(server.id), view.revision);
            }
        }
    }

    fn compose(&self) -> ClusterView {
        let core = &self.core;
        let config = &core.config;
        ClusterView {
            revision: Revision(0),
            server: core.me,
            at: WallClock(0),
            cluster: config.name.clone(),
            config_version: config.version,
            servers: config.servers.iter().map(|s| self.server_view(s)).collect(),
            links: config.links.iter().map(|l| self.link_view(l)).collect(),
            witness: config.witness.as_ref().map(|w| WitnessView {
                name: w.name.clone(),
                up: core.witness_up(),
                votes: core.witness_up() && self.groups.keys().all(|id| core.witness_votes(*id)),
                round_trip_us: core.witness.round_trip.filter(|_| core.witness_up()),
            }),
            groups: self.groups.values().map(|g| self.group_view(g)).collect(),
            sets: config.sets.iter().filter_map(|s| self.set_view(s)).collect(),
            events: self.events.iter().cloned().collect(),
            incident: core.incident.clone(),
            forecasts: crate::forecast::forecasts(core, &self.groups),
            operations: operator::operations(core, &self.groups),
            halted: self.halted().map(str::to_string),
            maintenance: core.upkeep.on,
        }
    }

    fn server_view(&self, config: &ServerConfig) -> ServerView {
        let core = &self.core;
        let entry = core.entry(config.id);
        let twin = config.id != core.me;
        let told = self.gossip.as_ref().filter(|_| core.twin_present()).and_then(|g| g.readings.clone());
        ServerView {
            id: config.id,
            name: config.name.clone(),
            state: entry.state,
            since: entry.since,
            recovering: entry.recovering,
            node_away: twin && core.twin.away_since.is_some(),
            page: config.page.clone(),
            readings: if twin { told } else { core.readings.clone() },
        }
    }

    fn link_view(&self, config: &LinkConfig) -> LinkView {
        let core = &self.core;
        let primary = core.config.links.iter().find(|l| l.kind == LinkKind::Interconnect).map(|l| l.id);
        let carries = |set: &Set| {
            let status = set.status.as_ref().filter(|s| set.present && s.linked);
            status.and_then(|s| s.link_address).is_some_and(|ip| config.addresses.contains(&ip))
        };
        let link = core.links.iter().find(|l| l.id == config.id);
        let state = link.map_or(LinkState::Unknown, crate::link::Link::state);
        // With the twin away nothing tells a broken path from a silent end.
        let blind = core.twin.gone && state == LinkState::Lost;
        let no_cable = link.filter(|_| state == LinkState::NoCable);
        LinkView {
            id: config.id,
            name: config.name.clone(),
            kind: config.kind,
            network: network(config.addresses[0], config.prefix),
            primary: primary == Some(config.id),
            carries_blocks: core.sets.values().any(carries),
            state: if blind { LinkState::Unknown } else { state },
            no_cable_at: no_cable.map(|l| if l.carrier { core.twin_id } else { core.me }),
            round_trip_us: link.and_then(crate::link::Link::round_trip),
            loss_percent: link.map_or(0, crate::link::Link::loss),
        }
    }

    /// The twin's word counts for what is there; ours for all else.
    fn group_view(&self, group: &Group) -> GroupView {
        let own = self.own_group_view(group);
        let told = self.gossip.as_ref().and_then(|g| g.groups.iter().find(|v| v.id == group.id));
        let there = !self.core.twin.gone && group.active_on(&self.core) == Some(self.core.twin_id);
        let failed = matches!(own.state, GroupState::Stopped) && !self.core.twin.gone;
        match told {
            Some(told) if there && told.active == Some(self.core.twin_id) => GroupView {
                state: told.state.clone(),
                since: told.since,
                steps: told.steps.clone(),
                command: own.command.or(told.command),
                ..own
            },
            Some(told) if failed && matches!(told.state, GroupState::Failed { .. }) => {
                GroupView { state: told.state.clone(), since: told.since, ..own }
            }
            Some(_) | None => own,
        }
    }

    pub(crate) fn own_group_view(&self, group: &Group) -> GroupView {
        let core = &self.core;
        let empty: &[_] = &[];
        let config: Option<&GroupConfig> = core.config.group(group.id);
        let active = group.active_on(core).or(group.taking_over.then_some(core.me));
        let active = active.filter(|_| group.wanted.mode == Mode::Serve);
        GroupView {
            id: group.id,
            name: config.map_or_else(String::new, |c| c.name.clone()),
            policy: config.map_or_else(Vec::new, |c| c.policy.clone()),
            state: state(core, group),
            active,
            since: group.since,
            failed_over: active.is_some() && active == Some(group.wanted.on) && group.wanted.failed_over,
            addresses: config.map_or_else(Vec::new, |c| c.addresses.clone()),
            mounts: config.map_or(empty, |c| c.mounts.as_slice()).iter().map(|m| m.point.clone()).collect(),
            sets: core.sets_of(group.id),
            epoch: group.register.known().epoch,
            steps: steps(core, group),
            standby: standby(core, group, active),
            command: group.command,
            kept: group.wanted.kept,
        }
    }

    fn set_view(&self, config: &SetConfig) -> Option<SetView> {
        let own = self.own_set_view(config)?;
        let group = self.groups.get(&config.group)?;
        let there = group.register.known().holder == Some(self.core.twin_id) && !self.core.twin.gone;
        let told = self.gossip.as_ref().filter(|_| there);
        // What this server keeps, only this server knows.
        let (old, put_back, mode_refused) = (own.old, own.put_back, own.mode_refused);
        let found = told.and_then(|g| g.sets.iter().find(|s| s.id == config.id)).cloned();
        Some(SetView { old, put_back, mode_refused, ..found.unwrap_or(own) })
    }

    pub(crate) fn own_set_view(&self, config: &SetConfig) -> Option<SetView> {
        let core = &self.core;
        let group = self.groups.get(&config.group)?;
        let set = core.sets.get(&config.id)?;
        let status = set.status.as_ref().filter(|_| set.present);
        Some(SetView {
            id: config.id,
            name: config.name.clone(),
            group: config.group,
            size: config.size,
            backing: config.backing.clone(),
            state: set_state(core, group, set),
            permitted: group.gives_access().then_some(group.wanted.on),
            dirty_blocks: status.map_or(0, |s| s.dirty_blocks),
            bytes_per_s: if status.is_some_and(|s| s.role == Role::Active) { set.bytes_per_s() } else { 0 },
            next_fast: status.is_some_and(|s| {
                !s.history.is_empty() && s.rebuild.is_none_or(|r| r.kind == wire::alert::RebuildKind::Fast)
            }),
            fronts: status.map_or(Vec::new(), |s| s.device.iter().chain(&s.exports).cloned().collect()),
            old: status.and_then(|s| s.undo).map(|undo| wire::view::OldVersion {
                split: undo.split,
                returning: undo.returning,
                bytes: undo.blocks.saturating_mul(4096),
            }),
            put_back: status.is_some_and(|s| s.undone),
            verify: set.verify(core.now),
            verified: status.and_then(|s| s.last_verify.as_ref()).map(|last| Verified {
                ended: core.wall_at(last.ended),
                stopped: last.stopped,
                checked: last.checked,
                different: last.different,
                repaired: last.repaired_here.saturating_add(last.repaired_there),
                unresolved: last.unresolved,
            }),
            mode: config.traffic.mode,
            mode_in_force: status
                .filter(|s| s.role == Role::Active)
                .map_or(config.traffic.mode, |s| s.mode_in_force),
            behind: set.behind(core.now),
            mode_refused: crate::mode::refused(core, config.id).err(),
        })
    }
}

/// A wall clock that differs by more from what the engine expects was set: stamps follow it.
const CLOCK_STEP_MS: u64 = 50;

fn state(core: &Core, group: &Group) -> GroupState {
    let (me, twin) = (core.me, core.twin_id);
    if let Some((step, reason)) = group.held.clone() {
        return GroupState::Held { step, reason };
    }
    if group.look != Look::Done {
        return GroupState::Unknown;
    }
    if group.wanted.mode != Mode::Serve {
        // Its sets may be in use by an administrator; the group itself is not brought up.
        return GroupState::Stopped;
    }
    let aim = group.aim(core);
    let part = group.part(core);
    match part {
        Part::Running => return GroupState::Running,
        Part::Starting if group.moving && group.from.is_some() => return GroupState::Moving { to: me },
        Part::Starting => return GroupState::Starting,
        Part::Stopping if aim == Some(twin) => return GroupState::Moving { to: twin },
        Part::Stopping => return GroupState::Stopping,
        Part::Down | Part::GivenUp | Part::Held | Part::Unknown => {}
    }
    if group.taking_over {
        let vote = core.twin_present() || core.witness_votes(group.id);
        return if vote { GroupState::Starting } else { GroupState::Unknown };
    }
    match core.twin.part(group.id) {
        Part::Running => return GroupState::Running,
        Part::Starting => return GroupState::Starting,
        Part::Stopping if aim == Some(me) => return GroupState::Moving { to: me },
        Part::Stopping => return GroupState::Stopping,
        Part::Held => {
            return GroupState::Held { step: StepKind::Script, reason: String::new() };
        }
        Part::Down | Part::GivenUp | Part::Unknown => {}
    }
    match aim {
        Some(server) if group.register.known().holder.is_some_and(|h| h != server) => {
            return GroupState::Moving { to: server };
        }
        Some(_) => return GroupState::Starting,
        None => {}
    }
    if let Some((step, reason)) = group.failure.clone() {
        return GroupState::Failed { step, reason };
    }
    // It may run on a twin that cannot be heard.
    let elsewhere = group.register.known().holder == Some(twin) && group.wanted.run;
    let unheard = core.twin.gone && core.entry(twin).state != ServerState::Stopped;
    if elsewhere && unheard && !core.witness_votes(group.id) {
        GroupState::Unknown
    } else {
        GroupState::Stopped
    }
}

fn steps(core: &Core, group: &Group) -> Vec<StepView> {
    let under_way = match group.target {
        Target::Up => !group.serving,
        Target::Down => group.is_here(core),
    };
    if !under_way || group.timeline.is_empty() || group.wanted.mode != Mode::Serve {
        return Vec::new();
    }
    let stopping = group.target == Target::Down;
    let mut kinds =
        vec![StepKind::Right, StepKind::Disk, StepKind::Mount, StepKind::Address, StepKind::Script];
    if stopping {
        kinds = vec![StepKind::Script, StepKind::Address, StepKind::Mount, StepKind::Disk];
    }
    let missing = group.steps_to(core, group.target);
    let progress = |kind: StepKind| {
        let own: Vec<_> = group.timeline.iter().filter(|t| t.kind == kind).collect();
        if let Some(runs) = own.iter().find(|t| t.took.is_none()) {
            return StepProgress::Running { since: runs.wall };
        }
        if own.iter().any(|t| t.failed) {
            return StepProgress::Failed;
        }
        if own.is_empty() && missing.iter().any(|step| step.kind() == kind) {
            return StepProgress::Waiting;
        }
        let took: u64 = own.iter().filter_map(|t| t.took).sum();
        StepProgress::Done { ms: took / MILLIS }
    };
    kinds.into_iter().map(|kind| StepView { kind, stopping, progress: progress(kind) }).collect()
}

fn standby(core: &Core, group: &Group, active: Option<NodeId>) -> Standby {
    let first = core.config.group(group.id).and_then(|c| c.policy.first().copied());
    let other = active.or(first).unwrap_or(core.me).twin();
    if other == core.twin_id && core.twin.gone {
        return Standby::Away;
    }
    let rebuilt = |id: &wire::SetId| {
        let status = core.sets.get(id).and_then(|s| s.status.as_ref());
        status.and_then(|s| s.rebuild).is_some_and(|r| r.to == other && r.running)
    };
    if group.in_sync().contains(other) {
        if core.takes_part(other) || core.entry(other).recovering { Standby::Ready } else { Standby::Away }
    } else if core.sets_of(group.id).iter().any(rebuilt) || core.entry(other).recovering {
        Standby::Rebuilding
    } else if core.entry(other).state == ServerState::Stopped {
        Standby::Away
    } else {
        Standby::OutOfDate { since: group.out_since.unwrap_or(group.since) }
    }
}

fn set_state(core: &Core, group: &Group, set: &Set) -> SetState {
    let known = group.register.known();
    let Some(status) = set.status.as_ref().filter(|_| set.present) else {
        return SetState::Unknown;
    };
    if let Some(reason) = status.failed.clone() {
        return SetState::Broken { reason };
    }
    if status.split {
        return SetState::Split;
    }
    // One that stands still by order is shown as such only where nothing else keeps it from going on.
    let may = status.linked && set.allow_ordered == Some(true);
    let shown = status.rebuild.is_some_and(|r| r.running || (r.paused && may));
    if let Some(progress) = set.rebuild(core.now).filter(|_| shown) {
        return SetState::Rebuilding { progress };
    }
    let both = known.in_sync.count() > 1;
    match (both, known.holder) {
        (true, _) if status.role == Role::Active && status.linked => SetState::InSync,
        (true, Some(holder))
            if holder != core.me && core.twin.part(group.id) == Part::Running && status.linked =>
        {
            SetState::InSync
        }
        (true, _) => SetState::Idle,
        (false, Some(holder)) => SetState::Alone { good: holder },
        (false, None) => SetState::Idle,
    }
}

/// The network of an address in CIDR form.
fn network(address: IpAddr, prefix: u8) -> String {
    match address {
        IpAddr::V4(ip) => {
            let bits = u32::from(prefix.min(32));
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            format!("{}/{bits}", std::net::Ipv4Addr::from(u32::from(ip) & mask))
        }
        IpAddr::V6(ip) => {
            let bits = u32::from(prefix.min(128));
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            format!("{}/{bits}", std::net::Ipv6Addr::from(u128::from(ip) & mask))
        }
    }
}
