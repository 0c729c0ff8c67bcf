//! What happens on this host at the end of the lease, while the node process is away: addresses stay refreshed as long as
//! the lease lasts and are dropped at its end; a fenced set takes its processes and mounts with it (DESIGN section 6).

use crate::device::{Place, sweep};
use crate::limits::{FENCE_WAIT, GUARD, JOBS_MAX, STACK_BYTES};
use os::clock::{BootClock, Clock as _};
use os::link::{Lifetime, Network};
use os::mount::{HostMounts, Mounts as _};
use os::process::{HostProcesses, ProcessId, Processes as _, Stopped};
use peer::control::{GuardedAddress, GuardedProcess};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;
use wire::Time;

/// What is guarded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Guarded {
    pub addresses: Vec<GuardedAddress>,
    pub processes: Vec<GuardedProcess>,
    pub mounts: Vec<PathBuf>,
}

enum Order {
    Guard(Guarded),
    NodePresent(bool),
    Look,
    Fence(SyncSender<()>),
}

/// No lease at all.
const NONE: u64 = 0;
/// A lease without end.
const ENDLESS: u64 = u64::MAX;

/// The guard thread's handle. The lease's end is shared, so that it is kept even when the loop hangs on a disk.
pub(crate) struct Guard {
    orders: SyncSender<Order>,
    until: Arc<AtomicU64>,
    fencing: Option<Receiver<()>>,
}

impl Guard {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn start(place: Place, guarded: Guarded) -> std::io::Result<Self> {
        let (orders, queue) = sync_channel(JOBS_MAX);
        let until = Arc::new(AtomicU64::new(NONE));
        let held = !guarded.addresses.is_empty();
        let state = State { until: until.clone(), guarded, node: false, held, place };
        let thread = std::thread::Builder::new().name("guard".into()).stack_size(STACK_BYTES);
        thread.spawn(move || watch(state, &queue))?;
        Ok(Guard { orders, until, fencing: None })
    }

    /// Replaces what is guarded.
    pub(crate) fn set(&self, guarded: Guarded) {
        let _ = self.orders.try_send(Order::Guard(guarded));
    }

    /// While the node process is there, it looks after its addresses itself.
    pub(crate) fn node(&self, present: bool) {
        let _ = self.orders.try_send(Order::NodePresent(present));
    }

    /// The lease as the core sees it: `None` is none, `Some(None)` one without end.
    pub(crate) fn lease(&self, until: Option<Option<Time>>) {
        let value = match until {
            None => NONE,
            Some(None) => ENDLESS,
            Some(Some(time)) => time.0,
        };
        self.until.store(value, Ordering::SeqCst);
    }

    /// The lease has ended, or runs again: acted upon at once.
    pub(crate) fn look(&self) {
        let _ = self.orders.try_send(Order::Look);
    }

    /// Kills, aborts, unmounts and drops, once.
    pub(crate) fn fence(&mut self) {
        if self.fencing.is_none() {
            let (done, finished) = sync_channel(1);
            let _ = self.orders.try_send(Order::Fence(done));
            self.fencing = Some(finished);
        }
    }

    /// Waits until a fence that was begun is complete, at most [`FENCE_WAIT`].
    pub(crate) fn finish(&self) {
        if let Some(finished) = &self.fencing {
            let _ = finished.recv_timeout(FENCE_WAIT);
        }
    }
}

struct State {
    until: Arc<AtomicU64>,
    guarded: Guarded,
    node: bool,
    /// Addresses were refreshed from here since they were last dropped.
    held: bool,
    place: Place,
}

fn watch(mut state: State, queue: &Receiver<Order>) {
    loop {
        match queue.recv_timeout(GUARD) {
            Ok(Order::Guard(guarded)) => {
                state.held |= !guarded.addresses.is_empty();
                state.guarded = guarded;
            }
            Ok(Order::NodePresent(present)) => {
                state.node = present;
                state.held |= !present && !state.guarded.addresses.is_empty();
            }
            Ok(Order::Fence(done)) => {
                fence_all(&state.place, &std::mem::take(&mut state.guarded));
                let _ = done.try_send(());
            }
            Ok(Order::Look) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        tick(&mut state);
    }
}

fn tick(state: &mut State) {
    let until = state.until.load(Ordering::SeqCst);
    if until > BootClock.now().0 {
        if !state.node && !state.guarded.addresses.is_empty() {
            refresh(&state.guarded.addresses);
            state.held = true;
        }
    } else if state.held {
        // Dropped even when node is there: at the end of the lease nobody may be later than the twin's waiting time.
        state.held = false;
        drop_addresses(&state.guarded.addresses);
    }
}

fn refresh(addresses: &[GuardedAddress]) {
    let mut network = match Network::open() {
        Ok(network) => network,
        Err(error) => {
            tracing::warn!(%error, "guarded addresses cannot be refreshed");
            return;
        }
    };
    for one in addresses {
        let lifetime = Lifetime::Seconds(one.lifetime_s);
        if let Err(error) = network.put_address(one.interface, one.address, one.prefix, lifetime) {
            tracing::warn!(address = %one.address, %error, "a guarded address cannot be refreshed");
        }
    }
}

pub(crate) fn drop_addresses(addresses: &[GuardedAddress]) {
    if addresses.is_empty() {
        return;
    }
    let dropped = Network::open().and_then(|mut network| {
        addresses.iter().try_for_each(|one| {
            network.delete_address(one.interface, one.address, one.prefix).map(|there| {
                if there {
                    tracing::warn!(address = %one.address, "the lease has ended: address dropped");
                }
            })
        })
    });
    if let Err(error) = dropped {
        tracing::warn!(%error, "a guarded address cannot be dropped; its kernel lifetime will end it");
    }
}

/// Addresses first, then the device: whoever waits in the kernel for it gets an error and can be killed.
pub(crate) fn fence_all(place: &Place, guarded: &Guarded) {
    tracing::warn!("fenced: addresses, block device, processes and mounts of this set are taken away");
    drop_addresses(&guarded.addresses);
    if let Err(error) = sweep(place) {
        tracing::warn!(%error, "the block device cannot be withdrawn");
    }
    let processes = HostProcesses::default();
    for one in &guarded.processes {
        let id = ProcessId { pid: one.pid, started: one.started };
        if let Stopped::Unknown(left) = processes.stop(id, Duration::ZERO) {
            tracing::warn!(pid = one.pid, ?left, "processes hang in the kernel");
        }
    }
    for mount in &guarded.mounts {
        if let Err(error) = HostMounts.unmount_lazily(mount) {
            tracing::warn!(mount = %mount.display(), %error, "cannot unmount");
        }
    }
}
