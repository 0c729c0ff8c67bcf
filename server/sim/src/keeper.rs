//! The keeper of a host: it holds the front end of a killed disk process, starts its successor, and acts at the lease's end.

use crate::host::{Request, RequestKind};
use crate::trace::Column;
use crate::world::{Event, World};
use mirror::input::{Range, RequestId};
use mirror::{Input, Kept, Mirror};
use std::collections::BTreeMap;
use wire::SetId;

/// From the death of a disk process to the start of its successor, in microseconds.
const START: (u64, u64) = (2_000, 80_000);
/// How often the keeper looks at the lease of a set without process (`disk::limits::KEEPER_LOOK`).
const LOOK: u64 = 20_000;
/// The kernel asks again at once; what the successor takes when depends on its slots.
const AGAIN: (u64, u64) = (0, 5_000);
/// Why a process dies that the keeper replaces.
pub const KILLED: &str = "killed";

/// What is held for a successor.
#[derive(Debug)]
pub struct Held {
    /// The dead process.
    pub process: u64,
    kept: Kept,
    /// What the front end has not been answered.
    requests: BTreeMap<RequestId, Request>,
    next: (u64, u64),
    /// At the end of the lease the addresses were dropped.
    dropped: bool,
}

impl World {
    /// A disk process was killed: whether its front end is held for a successor.
    pub fn hold_front(&mut self, host: usize, set: SetId, disk: &crate::host::DiskProcess) -> bool {
        let kept = disk.mirror.kept();
        if !kept.serving || !disk.front || disk.opened.is_some() {
            return false;
        }
        let held = Held {
            process: disk.process,
            kept,
            requests: disk.requests.clone(),
            next: disk.next,
            dropped: false,
        };
        self.hosts[host].kernel.held.insert(set, held);
        let boots = self.hosts[host].boots;
        let delay = self.rng.range(START.0, START.1);
        self.queue.after(delay, Event::Replace { host, set, boots });
        self.queue.after(LOOK, Event::Keep { host, set, boots });
        true
    }

    /// The keeper starts a successor.
    pub fn replace(&mut self, host: usize, set: SetId, boots: u64) {
        let h = &self.hosts[host];
        if h.boots == boots && h.powered && !h.disks.contains_key(&set) && h.kernel.held.contains_key(&set) {
            self.launch_disk(host, set, Event::Replace { host, set, boots });
        }
    }

    /// The successor's core, if the front end is held and it can go on.
    pub fn resumed(
        &mut self,
        host: usize,
        set: SetId,
        config: &mirror::MirrorConfig,
        area: &mirror::ControlArea,
    ) -> Option<(Mirror, Held)> {
        let held = self.hosts[host].kernel.held.remove(&set)?;
        let writes = held.requests.values().filter_map(|request| match request.kind {
            RequestKind::Write { range, .. } | RequestKind::Zero { range, .. } => Some(range),
            RequestKind::Read { .. } | RequestKind::Flush { .. } => None,
        });
        let ranges: Vec<Range> = writes.collect();
        let time = self.hosts[host].time(self.queue.now());
        let mirror = Mirror::resume(config.clone(), area.clone(), &held.kept, Some(&ranges), time);
        if mirror.is_none() {
            let group = self.group_of(set);
            self.break_app(host, group, "its device is gone");
        }
        mirror.map(|mirror| (mirror, held))
    }

    /// The successor lives: the device is its own, and the kernel asks again.
    pub fn take_front(&mut self, host: usize, set: SetId, process: u64, held: Held) {
        self.trace.step(self.queue.now(), Column::Server(host), || {
            format!("{set}: disk process {process} goes on with {} requests", held.requests.len())
        });
        for device in self.hosts[host].kernel.mounts.values_mut().filter(|device| **device == held.process) {
            *device = process;
        }
        for request in held.requests.keys() {
            let delay = self.rng.range(AGAIN.0, AGAIN.1);
            self.queue.after(delay, Event::Again { host, set, process, request: *request });
        }
        let Some(disk) = self.hosts[host].disks.get_mut(&set) else { return };
        (disk.front, disk.requests, disk.next) = (true, held.requests, held.next);
    }

    /// The kernel asks a request again.
    pub fn asked_again(&mut self, host: usize, set: SetId, process: u64, request: RequestId) {
        let Some(disk) = self.disk_of(host, set, process) else { return };
        let Some(asked) = disk.requests.get(&request) else { return };
        let input = match asked.kind {
            RequestKind::Write { range, .. } => Input::Write { request, range },
            RequestKind::Zero { range, .. } => Input::Zero { request, range, unmap: true },
            RequestKind::Read { range, .. } => Input::Read { request, range },
            RequestKind::Flush { .. } => Input::Flush { request },
        };
        self.trace.step(self.queue.now(), Column::Client, || format!("{set} {request:?} again"));
        self.mirror_input(host, set, input);
    }

    /// The lease of a set without process: addresses are dropped at its end, the set is fenced at its bound.
    pub fn keep(&mut self, host: usize, set: SetId, boots: u64) {
        let h = &mut self.hosts[host];
        if h.boots != boots || !h.powered {
            return;
        }
        let time = h.time(self.queue.now());
        let Some(held) = h.kernel.held.get_mut(&set) else { return };
        let ended = held.kept.lease.flatten().is_some_and(|until| until <= time);
        let drops = ended && !std::mem::replace(&mut held.dropped, ended);
        let fences = held.kept.fence_at.is_some_and(|at| at <= time);
        let process = held.process;
        if drops {
            self.drop_addresses(host, set);
        }
        if fences {
            self.hosts[host].kernel.held.remove(&set);
            self.trace.step(self.queue.now(), Column::Server(host), || {
                format!("{set}: the keeper fences what process {process} left")
            });
            self.fence_host_side(host, set);
        } else {
            self.queue.after(LOOK, Event::Keep { host, set, boots });
        }
    }
}
