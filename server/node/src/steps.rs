//! The steps of a group's plan on this host: mounts, addresses, scripts. Each is answered exactly once, at the latest when
//! its time is over; one that hangs is unknown, never "stopped".

use crate::brain::Turn;
use crate::disks::Disks;
use crate::guard::Guards;
use engine::Input;
use engine::action::{ActionId, StartCause, Step};
use engine::input::Outcome;
use os::address::{AddressError, Addresses};
use os::bounded::{self, bounded};
use os::link::Lifetime;
use os::mount::{FileSystem, Mounts};
use os::process::{Exit, Finished, Processes, Spec, Stopped};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout_at;
use wire::config::{GroupConfig, MountConfig};
use wire::{ClusterConfig, GroupId, SetId};

/// Kernel lifetime of a floating IP: the engine renews it every second, so two renewals may be missed; a server that dies
/// keeps the address no longer than this.
pub const ADDRESS_SECONDS: u32 = 3;
/// For what is left of a group's processes after its stop script, before they are killed.
const END_GRACE: Duration = Duration::from_secs(5);
/// A file system's signature lies in the first 128 KiB (btrfs's at 64 KiB is the last).
const SIGNATURE_BYTES: usize = 128 * 1024;
/// How long a busy mount point is tried again: a process that was just killed ends its last write first.
const BUSY_LIMIT: Duration = Duration::from_secs(3);
/// Between two tries.
const BUSY_PAUSE: Duration = Duration::from_millis(30);
/// Part of a step's time that is left for the clean-up of a script that takes too long.
const CLEANUP: Duration = Duration::from_secs(6);

/// The host as the steps see it.
#[derive(Clone)]
pub struct Host {
    /// Floating IPs.
    pub addresses: Arc<dyn Addresses>,
    /// File systems.
    pub mounts: Arc<dyn Mounts>,
    /// Scripts and what they start.
    pub processes: Arc<dyn Processes>,
    /// Folder of the groups' output.
    pub logs: PathBuf,
}

/// Begins steps and hands their results to the engine.
#[derive(Clone)]
pub struct Steps {
    host: Host,
    guards: Guards,
    disks: Disks,
    config: Arc<RwLock<ClusterConfig>>,
    turns: mpsc::Sender<Turn>,
    /// Sets to be released from the configuration.
    releases: mpsc::Sender<(ActionId, SetId)>,
    /// For each address: ends when its last begun step has ended.
    lines: Arc<Mutex<BTreeMap<IpAddr, oneshot::Receiver<()>>>>,
}

/// The address whose steps go one after the other: a renewal that is overtaken by the removal would bring it back.
fn address_of(step: &Step) -> Option<IpAddr> {
    match step {
        Step::ProbeAddress { address, .. }
        | Step::AddAddress { address, .. }
        | Step::Announce { address, .. }
        | Step::RemoveAddress { address, .. } => Some(*address),
        Step::Mount { .. }
        | Step::Unmount { .. }
        | Step::StartScript { .. }
        | Step::StopScript { .. }
        | Step::Kill { .. }
        | Step::Observe { .. }
        | Step::ExchangeDisk { .. }
        | Step::ReleaseSet { .. } => None,
    }
}

impl Steps {
    /// Steps of this configuration on this host.
    #[must_use]
    pub fn new(
        host: Host,
        guards: Guards,
        disks: Disks,
        config: ClusterConfig,
        turns: mpsc::Sender<Turn>,
        releases: mpsc::Sender<(ActionId, SetId)>,
    ) -> Steps {
        let lines = Arc::default();
        Steps { host, guards, disks, config: Arc::new(RwLock::new(config)), turns, releases, lines }
    }

    /// The configuration changed.
    pub fn configure(&self, config: ClusterConfig) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    fn group(&self, id: GroupId) -> Option<GroupConfig> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).group(id).cloned()
    }

    /// Begins a step; its one `Performed` follows.
    pub fn begin(&self, id: ActionId, step: Step, timeout_us: u64) {
        if let Step::ReleaseSet { set } = step {
            if self.releases.try_send((id, set)).is_err() {
                tracing::warn!(%set, "too many releases at once");
            }
            return;
        }
        let steps = self.clone();
        let until = tokio::time::Instant::now() + Duration::from_micros(timeout_us);
        let (ended, earlier) = match address_of(&step) {
            Some(address) => {
                let (ended, last) = oneshot::channel();
                let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
                (Some(ended), lines.insert(address, last))
            }
            None => (None, None),
        };
        tokio::spawn(async move {
            let free = match earlier {
                // An end is an end, told or not.
                Some(earlier) => timeout_at(until, earlier).await.is_ok(),
                None => true,
            };
            let outcome = if free {
                steps.run(&step, until.saturating_duration_since(tokio::time::Instant::now())).await
            } else {
                Outcome::Unknown { reason: "not begun: an earlier step of this address does not end".into() }
            };
            drop(ended);
            match &outcome {
                Outcome::Failed { reason } | Outcome::Unknown { reason } => {
                    tracing::warn!(?step, "step not done: {reason}");
                }
                Outcome::Done | Outcome::AddressInUse { .. } | Outcome::Observed { .. } => {
                    tracing::debug!(?step, ?outcome, "step");
                }
            }
            let _ = steps.turns.send(Turn::Input(Input::Performed { id, outcome })).await;
        });
    }

    async fn run(&self, step: &Step, limit: Duration) -> Outcome {
        let (worker, step) = (self.clone(), step.clone());
        let work = tokio::task::spawn_blocking(move || bounded(limit, move || worker.perform(&step, limit)));
        match work.await {
            Ok(bounded::Outcome::Done(outcome)) => outcome,
            Ok(bounded::Outcome::Unknown) => {
                Outcome::Unknown { reason: format!("no answer in {} ms", limit.as_millis()) }
            }
            Err(fault) => Outcome::Unknown { reason: fault.to_string() },
        }
    }

    fn perform(&self, step: &Step, limit: Duration) -> Outcome {
        // What a script starts gets the host's ordinary priority, not the one of this process.
        let _ = rustix::process::setpriority_process(None, 0);
        if let Step::ExchangeDisk { set } = step {
            return self.exchange(*set, limit);
        }
        let (Step::Mount { group, .. }
        | Step::Unmount { group, .. }
        | Step::ProbeAddress { group, .. }
        | Step::AddAddress { group, .. }
        | Step::Announce { group, .. }
        | Step::RemoveAddress { group, .. }
        | Step::StartScript { group, .. }
        | Step::StopScript { group }
        | Step::Kill { group }
        | Step::Observe { group }) = step
        else {
            return failed("no step of a group");
        };
        let Some(group) = self.group(*group) else {
            return failed("the group is not in the configuration");
        };
        match step {
            Step::Mount { set, device, .. } => self.mount(&group, *set, Path::new(device), limit),
            Step::Unmount { set, force, .. } => self.unmount(&group, *set, *force),
            Step::ProbeAddress { address, .. } => match self.host.addresses.probe(*address) {
                Err(AddressError::InUse { mac, .. }) => Outcome::AddressInUse { by: os::address::hex(mac) },
                other => outcome(other),
            },
            Step::AddAddress { address, .. } => self.add_address(&group, *address),
            Step::Announce { address, .. } => outcome(self.host.addresses.announce(*address)),
            Step::RemoveAddress { address, .. } => {
                let removed = outcome(self.host.addresses.remove(*address));
                self.guards.forget_address(group.id, *address);
                self.guard(&group);
                removed
            }
            Step::StartScript { cause, .. } => self.start(&group, *cause, limit),
            Step::StopScript { .. } => self.stop(&group, limit),
            Step::Kill { .. } => self.kill(&group),
            Step::Observe { .. } => self.observe(&group),
            Step::ExchangeDisk { .. } | Step::ReleaseSet { .. } => failed("no step of a group"),
        }
    }

    /// The set's process lets go of its disk; the one that is there by then is looked at, formatted, and opened again.
    fn exchange(&self, set: SetId, limit: Duration) -> Outcome {
        match self.disks.exchange(set, limit) {
            Ok(()) => Outcome::Done,
            Err(fault) => failed(&format!("{fault:#}")),
        }
    }

    /// Tells the disk processes what to end when the right is lost while this process is away.
    fn guard(&self, group: &GroupConfig) {
        let points = group.mounts.iter().map(|mount| mount.point.clone());
        let mounted = |point: &String| matches!(self.host.mounts.mounted_at(Path::new(point)), Ok(Some(_)));
        let order = self.guards.order(group.id, points.filter(mounted).collect());
        for mount in &group.mounts {
            self.disks.guard(mount.set, order.clone());
        }
    }

    fn mount(&self, group: &GroupConfig, set: SetId, device: &Path, limit: Duration) -> Outcome {
        let Some(mount) = mount_of(group, set) else { return failed("the set has no mount point") };
        let Some(file_system) = FileSystem::by_name(&mount.file_system) else {
            return failed("the file system is not known");
        };
        let point = Path::new(&mount.point);
        match self.host.mounts.mounted_at(point) {
            Ok(Some(found)) if Path::new(&found.source) == device => return Outcome::Done,
            Ok(Some(found)) => return failed(&format!("{} is mounted at {}", found.source, mount.point)),
            Ok(None) => {}
            Err(fault) => return failed(&fault.to_string()),
        }
        if mount.format_blank {
            match is_blank(device) {
                Ok(false) => {}
                Ok(true) => {
                    tracing::info!(device = %device.display(), file_system = file_system.name(), "making a file system on the blank set");
                    if let Err(fault) = self.host.mounts.make(device, file_system, limit) {
                        return failed(&fault.to_string());
                    }
                }
                Err(fault) => return failed(&format!("read {}: {fault}", device.display())),
            }
        }
        let mounted = outcome(self.host.mounts.mount(device, point, file_system));
        self.guard(group);
        mounted
    }

    fn unmount(&self, group: &GroupConfig, set: SetId, force: bool) -> Outcome {
        let Some(mount) = mount_of(group, set) else { return Outcome::Done };
        let point = Path::new(&mount.point);
        if matches!(self.host.mounts.mounted_at(point), Ok(None)) {
            return Outcome::Done;
        }
        let mut result = self.host.mounts.unmount(point);
        let until = Instant::now() + if force { Duration::ZERO } else { BUSY_LIMIT };
        while result.is_err() && Instant::now() < until {
            std::thread::sleep(BUSY_PAUSE);
            result = self.host.mounts.unmount(point);
        }
        if result.is_err() {
            let holders = self.host.mounts.holders(point).unwrap_or_default();
            if !force {
                let names: Vec<String> =
                    holders.iter().map(|h| format!("{} (pid {})", h.name, h.pid)).collect();
                let reason =
                    if names.is_empty() { "a process in the kernel".into() } else { names.join(", ") };
                return failed(&format!("{} is held by {reason}", mount.point));
            }
            for holder in holders {
                kill(holder.pid);
            }
            result = self.host.mounts.unmount(point);
            // Out of the tree at once; the kernel lets go when the killed have ended.
            if result.is_err() {
                result = self.host.mounts.unmount_lazily(point);
            }
        }
        self.guard(group);
        outcome(result)
    }

    fn add_address(&self, group: &GroupConfig, address: IpAddr) -> Outcome {
        let held = self.host.addresses.held().is_ok_and(|held| held.contains(&address));
        if let Err(fault) = self.host.addresses.put(address, Lifetime::Seconds(ADDRESS_SECONDS)) {
            return failed(&fault.to_string());
        }
        if !held && let Err(fault) = self.host.addresses.announce(address) {
            tracing::warn!(%address, "not announced: {fault}");
        }
        if self.guards.add_address(group.id, address) {
            self.guard(group);
        }
        Outcome::Done
    }

    fn script(&self, group: &GroupConfig, text: &str, event: &str) -> Spec {
        let mut spec = Spec::script(text);
        spec.environment.insert("ARMS_EVENT".into(), event.into());
        spec.environment.insert("FUTAGO_GROUP".into(), group.name.clone());
        if let Some(address) = group.addresses.first() {
            spec.environment.insert("FUTAGO_ADDRESS".into(), address.to_string());
        }
        if let Some(mount) = group.mounts.first() {
            spec.environment.insert("FUTAGO_MOUNT".into(), mount.point.clone());
        }
        spec.output = Some(self.host.logs.join(format!("group-{}.log", group.id.0)));
        spec
    }

    fn start(&self, group: &GroupConfig, cause: StartCause, limit: Duration) -> Outcome {
        if group.start_script.trim().is_empty() {
            return self
                .guards
                .script_done(group.id, None, false)
                .map_or_else(|fault| failed(&format!("{fault:#}")), |()| Outcome::Done);
        }
        let event = match cause {
            StartCause::Start => "START",
            StartCause::Failover => "FAILOVER",
        };
        let spec = self.script(group, &group.start_script, event);
        let id = match self.host.processes.start(&spec) {
            Ok(id) => id,
            Err(fault) => return failed(&fault.to_string()),
        };
        // Known to the guard from the first moment: what a script started must not outlive the right to run it.
        if let Err(fault) = self.guards.script_began(group.id, id) {
            self.host.processes.stop(id, Duration::ZERO);
            return failed(&format!("{fault:#}"));
        }
        self.guard(group);
        match self.host.processes.wait(id, limit.saturating_sub(CLEANUP)) {
            Some(Exit::Code(0)) => {
                let left = !os::proc::session(id.pid).is_empty();
                match self.guards.script_done(group.id, Some(id), left) {
                    Ok(()) => Outcome::Done,
                    Err(fault) => failed(&format!("{fault:#}")),
                }
            }
            ended => {
                let left = self.host.processes.stop(id, Duration::ZERO);
                let reason = match ended {
                    Some(Exit::Code(code)) => format!("the start script ended with {code}"),
                    Some(Exit::Signal(signal)) => format!("the start script was ended by signal {signal}"),
                    Some(Exit::Unseen) => "the start script ended unseen".into(),
                    None => format!(
                        "the start script took longer than {} s",
                        limit.saturating_sub(CLEANUP).as_secs()
                    ),
                };
                match left {
                    Stopped::Gone => failed(&reason),
                    Stopped::Unknown(pids) => Outcome::Unknown {
                        reason: format!("{reason}; these of its processes do not end: {pids:?}"),
                    },
                }
            }
        }
    }

    fn stop(&self, group: &GroupConfig, limit: Duration) -> Outcome {
        let mut reason = None;
        if !group.stop_script.trim().is_empty() && self.guards.process(group.id).is_some() {
            let spec = self.script(group, &group.stop_script, "STOP");
            match self.host.processes.run(&spec, limit.saturating_sub(CLEANUP)) {
                Ok(Finished::Exited(Exit::Code(0))) => {}
                Ok(Finished::Exited(exit)) => reason = Some(format!("the stop script ended with {exit:?}")),
                Ok(Finished::TimedOut(_)) => reason = Some("the stop script took too long".into()),
                Err(fault) => reason = Some(fault.to_string()),
            }
        }
        self.end_processes(group, END_GRACE, reason)
    }

    /// A fence: nothing of the group is to go on here, and who waits in the kernel for its device could not be killed.
    fn kill(&self, group: &GroupConfig) -> Outcome {
        for mount in &group.mounts {
            self.disks.withdraw_lost(mount.set);
        }
        self.end_processes(group, Duration::ZERO, None)
    }

    fn end_processes(&self, group: &GroupConfig, grace: Duration, reason: Option<String>) -> Outcome {
        let left = self.guards.process(group.id).map(|id| self.host.processes.stop(id, grace));
        if let Some(Stopped::Unknown(pids)) = left {
            return Outcome::Unknown { reason: format!("these processes do not end: {pids:?}") };
        }
        self.guards.forget_process(group.id);
        self.guard(group);
        reason.map_or(Outcome::Done, |reason| failed(&reason))
    }

    fn observe(&self, group: &GroupConfig) -> Outcome {
        let at =
            |mount: &MountConfig| matches!(self.host.mounts.mounted_at(Path::new(&mount.point)), Ok(Some(_)));
        let held = self.host.addresses.held().unwrap_or_default();
        let observed = Outcome::Observed {
            mounted: group.mounts.iter().all(at),
            addressed: group.addresses.iter().all(|address| held.contains(address)),
            processes: self.guards.is_running(group.id),
        };
        for address in group.addresses.iter().filter(|address| held.contains(address)) {
            self.guards.add_address(group.id, *address);
        }
        self.guard(group);
        observed
    }
}

fn mount_of(group: &GroupConfig, set: SetId) -> Option<&MountConfig> {
    group.mounts.iter().find(|mount| mount.set == set)
}

fn failed(reason: &str) -> Outcome {
    Outcome::Failed { reason: reason.to_string() }
}

fn outcome<T, E: std::fmt::Display>(result: Result<T, E>) -> Outcome {
    result.map_or_else(|fault| failed(&fault.to_string()), |_| Outcome::Done)
}

/// Blank: nothing but zeros where a file system keeps its signature.
fn is_blank(device: &Path) -> std::io::Result<bool> {
    let mut bytes = Vec::with_capacity(SIGNATURE_BYTES);
    File::open(device)?.take(SIGNATURE_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(!bytes.is_empty() && bytes.iter().all(|byte| *byte == 0))
}

/// Kills a process at once.
pub fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

#[cfg(test)]
mod tests;
