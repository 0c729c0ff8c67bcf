//! What of each group is on this host, as the disk processes must know it to end it when the right is lost; the processes
//! are remembered beyond this process's death, within the life of the host.

use anyhow::Context as _;
use os::link::Network;
use os::process::ProcessId;
use peer::control::{DiskOrder, GuardedAddress, GuardedProcess};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wire::{GroupId, Incarnation};

/// The groups' traces on this host.
#[derive(Clone)]
pub struct Guards {
    folder: PathBuf,
    host: Incarnation,
    groups: Arc<Mutex<BTreeMap<GroupId, Traces>>>,
}

#[derive(Default)]
struct Traces {
    addresses: BTreeSet<IpAddr>,
    script: Option<Script>,
}

/// The start script of a group, in its file.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Script {
    /// Life of the host in which it ran.
    host: Incarnation,
    /// Its session; none for an empty script.
    process: Option<ProcessId>,
    /// It ended well.
    done: bool,
    /// It left processes running.
    left: bool,
}

impl Guards {
    /// What an earlier life of this process left, if this is still the same life of the host.
    #[must_use]
    pub fn open(folder: PathBuf, host: Incarnation, groups: impl Iterator<Item = GroupId>) -> Guards {
        let guards = Guards { folder, host, groups: Arc::default() };
        for id in groups {
            let kept = fs::read(guards.file(id)).ok();
            let script: Option<Script> = kept.and_then(|kept| serde_json::from_slice(&kept).ok());
            if let Some(script) = script.filter(|script| script.host == host) {
                guards.lock().entry(id).or_default().script = Some(script);
            }
        }
        guards
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<GroupId, Traces>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, id: GroupId) -> PathBuf {
        self.folder.join(format!("group-{}.json", id.0))
    }

    fn keep(&self, id: GroupId, script: Script) -> anyhow::Result<()> {
        // Not flushed: it has to outlive this process, not the host.
        let beside = self.folder.join(format!("group-{}.json.new", id.0));
        fs::write(&beside, serde_json::to_vec(&script)?)
            .and_then(|()| fs::rename(&beside, self.file(id)))
            .with_context(|| format!("keep {}", self.file(id).display()))?;
        self.lock().entry(id).or_default().script = Some(script);
        Ok(())
    }

    /// A start script runs as this session.
    ///
    /// # Errors
    /// It cannot be remembered.
    pub fn script_began(&self, id: GroupId, process: ProcessId) -> anyhow::Result<()> {
        self.keep(id, Script { host: self.host, process: Some(process), done: false, left: true })
    }

    /// The start script ended well, and left processes running or not.
    ///
    /// # Errors
    /// It cannot be remembered.
    pub fn script_done(&self, id: GroupId, process: Option<ProcessId>, left: bool) -> anyhow::Result<()> {
        self.keep(id, Script { host: self.host, process, done: true, left })
    }

    /// The session of the group's processes.
    #[must_use]
    pub fn process(&self, id: GroupId) -> Option<ProcessId> {
        self.lock().get(&id).and_then(|traces| traces.script).and_then(|script| script.process)
    }

    /// Whether the group's start script ended well in this life of the host and what it left still runs.
    #[must_use]
    pub fn is_running(&self, id: GroupId) -> bool {
        let script = self.lock().get(&id).and_then(|traces| traces.script);
        script.is_some_and(|script| script.done && (!script.left || script.process.is_some_and(lives)))
    }

    /// Nothing of the group runs any more.
    pub fn forget_process(&self, id: GroupId) {
        if let Some(traces) = self.lock().get_mut(&id) {
            traces.script = None;
        }
        let _ = fs::remove_file(self.file(id));
    }

    /// The group's address is here; `true` if that is new.
    pub fn add_address(&self, id: GroupId, address: IpAddr) -> bool {
        self.lock().entry(id).or_default().addresses.insert(address)
    }

    /// The group's address is not here.
    pub fn forget_address(&self, id: GroupId, address: IpAddr) {
        if let Some(traces) = self.lock().get_mut(&id) {
            traces.addresses.remove(&address);
        }
    }

    /// The order for the disk processes of the group.
    #[must_use]
    pub fn order(&self, id: GroupId, mounts: Vec<String>) -> DiskOrder {
        let (addresses, process) = {
            let groups = self.lock();
            let traces = groups.get(&id);
            let addresses = traces.map(|traces| traces.addresses.clone()).unwrap_or_default();
            (addresses, traces.and_then(|traces| traces.script).and_then(|script| script.process))
        };
        let held = Network::open().and_then(|mut network| network.addresses()).unwrap_or_default();
        let place = |address: &IpAddr| {
            held.iter().find(|h| h.address == *address && (h.prefix == 32 || h.prefix == 128))
        };
        let addresses = addresses.iter().filter_map(place).map(|held| GuardedAddress {
            address: held.address,
            prefix: held.prefix,
            interface: held.index,
            lifetime_s: crate::steps::ADDRESS_SECONDS,
        });
        let processes = process.iter().map(|id| GuardedProcess { pid: id.pid, started: id.started });
        DiskOrder::Guard { addresses: addresses.collect(), processes: processes.collect(), mounts }
    }
}

/// Whether any process of the session lives; its leader, the script, has ended as a rule.
fn lives(id: ProcessId) -> bool {
    let reused = os::proc::stat(id.pid).is_some_and(|stat| stat.started != id.started);
    !reused && !os::proc::session(id.pid).is_empty()
}
