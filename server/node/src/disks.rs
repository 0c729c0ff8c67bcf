//! The disk processes: started so that they outlive this process, found again by their sockets, ordered and heard.

use crate::backing;
use crate::brain::Turn;
use crate::data::DataDir;
use crate::heartbeat::ends;
use anyhow::Context as _;
use disk::control::{Decoder, encode};
use engine::Input;
use os::blockdev::HostBlockDevices;
use os::mount::{HostMounts, Mounts as _};
use os::process::{HostProcesses, ProcessId, Processes as _};
use peer::control::{DiskOrder, DiskStatus, FromDisk, RebuildResult, Role, Ticket, ToDisk};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use wire::config::LinkKind;
use wire::{ClusterConfig, Incarnation, NodeId, SetId};

/// Orders waiting for a disk process: the engine has a handful under way; a process that reads none is hung.
const ORDERS_MAX: usize = 256;
/// Orders of this process's own are numbered from here; the engine's stay below.
const OWN_TICKETS: u64 = 1 << 63;
/// Between two tries to reach or start a process, growing up to the second.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Between two looks whether the keeper lives: its power is needed only when something else dies too.
const KEEPER_EVERY: Duration = Duration::from_millis(500);
/// For the process to take an order.
const WRITE_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks whether a set that has fenced itself is out of use.
const FENCED_EVERY: Duration = Duration::from_millis(500);
/// After so many looks a fenced process that does not end is killed.
const QUIT_TRIES: u32 = 6;
/// Between two tries to end the process of a released set.
const RELEASE_POLL: Duration = Duration::from_millis(200);
/// Between two looks whether a process has let go of its disk.
const EXCHANGE_POLL: Duration = Duration::from_millis(20);
/// For making the control areas of all sets: 8 of them, a few MiB each.
const FORMAT_LIMIT: Duration = Duration::from_secs(45);

/// What the operator chose for every disk process of this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum, Serialize, Deserialize)]
pub enum Backing {
    /// The disk as it is.
    #[default]
    Plain,
    /// For tests: unflushed writes are lost or torn when the process is killed.
    Volatile,
    /// For tests: and a flush makes nothing durable.
    VolatileLying,
}

/// Every set's process.
#[derive(Clone)]
pub struct Disks {
    sets: Arc<RwLock<BTreeMap<SetId, Arc<Slot>>>>,
    next: Arc<AtomicU64>,
    place: Arc<Place>,
}

/// Where and for whom the processes run.
struct Place {
    me: NodeId,
    data: DataDir,
    host: Incarnation,
    backing: Backing,
    turns: mpsc::Sender<Turn>,
}

struct Slot {
    orders: Mutex<Option<mpsc::Sender<ToDisk>>>,
    guard: Mutex<Option<DiskOrder>>,
    /// No process is started meanwhile: its disk is being exchanged.
    held: AtomicBool,
    /// It is released: its process is not looked for any more.
    gone: AtomicBool,
    options: disk::DiskOptions,
    /// The backing as it was registered.
    shape_file: PathBuf,
}

impl Slot {
    fn is_connected(&self) -> bool {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// Lets the process of a set be started again, however the exchange ended.
struct Hold<'a>(&'a Slot);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.held.store(false, Ordering::SeqCst);
    }
}

/// What the process at the other end of one connection has said.
#[derive(Default)]
struct Heard {
    /// The set has fenced itself.
    fenced: bool,
    /// The rebuild that ended last, once there was a status.
    rebuilt: Option<Option<RebuildResult>>,
}

impl Heard {
    /// A status came; tells of a rebuild that has ended since the one before.
    fn status(&mut self, set: SetId, status: &DiskStatus) {
        self.fenced = status.role == Role::Fenced;
        let before = self.rebuilt.replace(status.last_rebuild);
        if let (Some(before), Some(done)) = (before, status.last_rebuild)
            && before != Some(done)
        {
            tracing::info!(
                %set,
                to = %done.to,
                moved_bytes = done.moved_bytes,
                compared_bytes = done.compared_bytes,
                compared_moved_bytes = done.compared_moved_bytes,
                "rebuild done"
            );
        }
    }
}

/// What one set's process needs from this side.
struct Tender {
    set: SetId,
    options: disk::DiskOptions,
    pid_file: PathBuf,
    options_file: PathBuf,
    /// The backing as it was registered.
    shape_file: PathBuf,
    /// Where the set is mounted while it is in use here.
    points: Vec<String>,
    processes: HostProcesses,
    disks: Disks,
    turns: mpsc::Sender<Turn>,
    /// Told already: the backing is not what was registered.
    changed: AtomicBool,
    /// Of a set that is released: it is only ended.
    leaving: bool,
}

impl Disks {
    /// Finds or starts the process of every set, and keeps doing so.
    #[must_use]
    pub fn open(
        config: &ClusterConfig,
        me: NodeId,
        data: &DataDir,
        host: Incarnation,
        backing: Backing,
        turns: &mpsc::Sender<Turn>,
    ) -> Disks {
        tokio::spawn(keep_keeper(data.file("run"), turns.clone()));
        let place = Place { me, data: data.clone(), host, backing, turns: turns.clone() };
        let next = Arc::new(AtomicU64::new(OWN_TICKETS));
        let disks = Disks { sets: Arc::default(), next, place: Arc::new(place) };
        disks.configure(config);
        disks
    }

    /// Processes for the sets that are new; those of sets that are gone end, and their control areas are marked as released.
    pub fn configure(&self, config: &ClusterConfig) {
        let Place { me, data, host, backing, .. } = &*self.place;
        for set in &config.sets {
            if let Err(fault) = remove(&leaving_file(data, set.id)) {
                tracing::warn!(set = %set.id, "a release that did not come about is not forgotten: {fault:#}");
            }
            let options = options(config, set.id, *me, data, *host, *backing);
            self.tend(options, points_of(config, set.id), false);
        }
        for options in left(data).into_iter().filter(|left| config.set(left.set).is_none()) {
            let set = options.set;
            self.tend(options, Vec::new(), true);
            if let Some(slot) = self.slot(set)
                && !slot.held.swap(true, Ordering::SeqCst)
            {
                tokio::spawn(self.clone().release(set, slot));
            }
        }
    }

    /// Looks after a set's process from this moment; one that is looked after already goes on.
    fn tend(&self, options: disk::DiskOptions, points: Vec<String>, leaving: bool) {
        let (set, data) = (options.set, &self.place.data);
        let slot = Slot {
            orders: Mutex::default(),
            guard: Mutex::default(),
            held: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            options: options.clone(),
            shape_file: backing::shape_file(data, set),
        };
        {
            let mut sets = self.sets.write().unwrap_or_else(PoisonError::into_inner);
            if sets.contains_key(&set) {
                return;
            }
            sets.insert(set, Arc::new(slot));
        }
        let tender = Tender {
            set,
            options,
            pid_file: data.file(&format!("run/set-{}.pid.json", set.0)),
            options_file: data.file(&format!("run/set-{}.json", set.0)),
            shape_file: backing::shape_file(data, set),
            points,
            processes: HostProcesses::default(),
            disks: self.clone(),
            turns: self.place.turns.clone(),
            changed: AtomicBool::new(false),
            leaving,
        };
        tokio::spawn(tender.run());
    }

    fn slot(&self, set: SetId) -> Option<Arc<Slot>> {
        self.sets.read().unwrap_or_else(PoisonError::into_inner).get(&set).cloned()
    }

    /// Ends a set's process, as soon as it does not serve, and marks its control area as released; again until that is done.
    async fn release(self, set: SetId, slot: Arc<Slot>) {
        let data = &self.place.data;
        let mut told = false;
        loop {
            self.order(set, self.own(DiskOrder::Quit));
            sleep(RELEASE_POLL).await;
            if slot.is_connected() {
                continue;
            }
            let options = slot.options.clone();
            let marked = tokio::task::spawn_blocking(move || mark_released(&options)).await;
            match marked.map_err(anyhow::Error::from).and_then(|marked| marked) {
                Ok(()) => break,
                Err(fault) if !told => {
                    told = true;
                    tracing::warn!(%set, "the released disk is not marked yet: {fault:#}");
                }
                Err(fault) => tracing::debug!(%set, "the released disk is not marked yet: {fault:#}"),
            }
        }
        slot.gone.store(true, Ordering::SeqCst);
        self.sets.write().unwrap_or_else(PoisonError::into_inner).remove(&set);
        let run = |name: String| data.file(&format!("run/set-{}{name}", set.0));
        let files =
            [slot.shape_file.clone(), run(".pid.json".into()), run(".json".into()), leaving_file(data, set)];
        for file in files {
            if let Err(fault) = remove(&file) {
                tracing::warn!(%set, "{fault:#}");
            }
        }
        tracing::info!(%set, "released");
    }

    /// Orders; dropped while the process is away (the engine hears of that).
    pub fn order(&self, set: SetId, order: ToDisk) {
        let Some(slot) = self.slot(set) else { return };
        let orders = slot.orders.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if orders.is_none_or(|orders| orders.try_send(order).is_err()) {
            tracing::debug!(%set, "an order finds no disk process");
        }
    }

    /// Withdraws the device of a set that no process answers for, so that nobody waits for it: its keeper, which holds it for a
    /// successor, may stand still. May take long: the kernel may wait.
    pub fn withdraw_lost(&self, set: SetId) {
        let Some(slot) = self.slot(set).filter(|slot| !slot.is_connected()) else { return };
        if let Err(fault) = disk::withdraw(&slot.options) {
            tracing::warn!(%set, "its block device cannot be withdrawn: {fault}");
        }
    }

    /// Tells what to end when the right is lost; told again to every new connection.
    pub fn guard(&self, set: SetId, guard: DiskOrder) {
        let Some(slot) = self.slot(set) else { return };
        *slot.guard.lock().unwrap_or_else(PoisonError::into_inner) = Some(guard.clone());
        self.order(set, self.own(guard));
    }

    /// The set's process lets go of its disk; the one that is at the backing's place by then is looked at, gets a fresh control
    /// area, and is opened again: **what was on it is lost**, and it is built in full. Blocks.
    ///
    /// # Errors
    /// The process does not end, or the disk is refused.
    pub fn exchange(&self, set: SetId, limit: Duration) -> anyhow::Result<()> {
        let slot = self.slot(set).context("there is no such set")?;
        anyhow::ensure!(!slot.held.swap(true, Ordering::SeqCst), "its disk is being exchanged already");
        let _hold = Hold(&slot);
        let until = Instant::now() + limit;
        self.order(set, self.own(DiskOrder::Quit));
        while slot.is_connected() {
            anyhow::ensure!(Instant::now() < until, "its disk process does not end");
            std::thread::sleep(EXCHANGE_POLL);
        }
        backing::exchange(&slot.options, &slot.shape_file, until)
    }

    /// Whether no process may be started for a set at present.
    fn is_held(&self, set: SetId) -> bool {
        self.slot(set).is_some_and(|slot| slot.held.load(Ordering::SeqCst))
    }

    fn own(&self, order: DiskOrder) -> ToDisk {
        ToDisk { ticket: Ticket(self.next.fetch_add(1, Ordering::Relaxed)), order }
    }
}

/// Sees to it that a keeper lives as long as this process.
async fn keep_keeper(state: PathBuf, turns: mpsc::Sender<Turn>) {
    while !turns.is_closed() {
        let state = state.clone();
        let ensured = tokio::task::spawn_blocking(move || disk::keeper::ensure(&state)).await;
        if let Ok(Err(fault)) = ensured {
            tracing::warn!("the keeper is not there: {fault:#}");
        }
        sleep(KEEPER_EVERY).await;
    }
}

fn options(
    config: &ClusterConfig,
    set: SetId,
    me: NodeId,
    data: &DataDir,
    host: Incarnation,
    backing: Backing,
) -> disk::DiskOptions {
    let interconnects = config.links.iter().filter(|link| link.kind == LinkKind::Interconnect);
    let (listen, twin) = interconnects.map(|link| ends(link, me)).unzip();
    let found = config.set(set);
    disk::DiskOptions {
        set,
        side: me,
        size: found.map_or(0, |set| set.size),
        backing: found.map(|set| backing_of(set, me)).unwrap_or_default(),
        control: data.disk_socket(set),
        listen,
        twin,
        port: found.map_or(0, |set| set.port),
        mount: data.file(&format!("run/set-{}", set.0)),
        incarnation: host,
        key_file: data.cluster_key_file(),
        state: data.file("run"),
        lease_ms: config.timing.lease_ms.into(),
        node_grace_ms: config.timing.node_grace_ms.into(),
        io_limit_ms: config.timing.io_limit_ms.into(),
        encrypt: config.encrypts(set),
        mode: found.map(|set| set.traffic.mode).unwrap_or_default(),
        pack: found.is_some_and(|set| set.traffic.pack),
        kept: true,
        log: Some(data.disk_log(set)),
        device: found.is_none_or(|set| set.front.device),
        nbd: found.and_then(|set| export(set, data)),
        volatile: backing != Backing::Plain,
        volatile_seed: u64::from_le_bytes(host.0[..8].try_into().unwrap_or_default()),
        no_flush: backing == Backing::VolatileLying,
        volatile_delay_us: 0,
        volatile_fault: None,
    }
}

fn export(set: &wire::config::SetConfig, data: &DataDir) -> Option<disk::ExportOptions> {
    let nbd = set.front.nbd.as_ref()?;
    let unix = nbd.unix.then(|| data.file(&format!("run/set-{}.nbd", set.id.0)));
    let tcp = nbd.addresses.iter().map(|address| (*address, nbd.port).into()).collect();
    Some(disk::ExportOptions { name: set.name.clone(), unix, tcp, tls: nbd.tls })
}

fn points_of(config: &ClusterConfig, set: SetId) -> Vec<String> {
    let mounts = config.groups.iter().flat_map(|group| &group.mounts);
    mounts.filter(|mount| mount.set == set).map(|mount| mount.point.clone()).collect()
}

/// The path of a set's backing on a server.
#[must_use]
pub fn backing_of(set: &wire::config::SetConfig, me: NodeId) -> PathBuf {
    let [first, second] = &set.backing;
    PathBuf::from(if me == NodeId(1) { first } else { second })
}

impl Tender {
    async fn run(self) {
        let mut pause = BACK_OFF.0;
        let Some(slot) = self.disks.slot(self.set) else { return };
        while !self.turns.is_closed() && !slot.gone.load(Ordering::SeqCst) {
            match UnixStream::connect(&self.options.control).await {
                Ok(stream) => {
                    pause = BACK_OFF.0;
                    // The keeper may have replaced it.
                    if !self.lives()
                        && let Err(fault) = tokio::task::block_in_place(|| self.start())
                    {
                        tracing::debug!(set = %self.set, "its pid is not known: {fault:#}");
                    }
                    if let Err(end) = self.talk(stream).await {
                        tracing::warn!(set = %self.set, "the disk process went away: {end:#}");
                    }
                }
                Err(_) if self.leaving || self.lives() || self.disks.is_held(self.set) => {}
                Err(_) => match tokio::task::block_in_place(|| self.start()) {
                    Ok(id) => tracing::info!(set = %self.set, pid = id.pid, "disk process runs"),
                    Err(fault) => tracing::warn!(set = %self.set, "disk process not started: {fault:#}"),
                },
            }
            sleep(pause).await;
            pause = (pause * 2).min(BACK_OFF.1);
        }
    }

    /// Whether the process last started still lives: it may not listen yet, and two would fight over the disk.
    fn lives(&self) -> bool {
        self.kept().is_some_and(|id| self.processes.is_alive(id))
    }

    /// The process last started in this life of the host.
    fn kept(&self) -> Option<ProcessId> {
        let kept = fs::read(&self.pid_file).ok();
        let kept: Option<(ProcessId, Incarnation)> = kept.and_then(|kept| serde_json::from_slice(&kept).ok());
        kept.filter(|(_, host)| *host == self.options.incarnation).map(|(id, _)| id)
    }

    /// Has the keeper start the process, unless it has done so by itself; gives which it is.
    fn start(&self) -> anyhow::Result<ProcessId> {
        let same = backing::unchanged(&HostBlockDevices::default(), &self.shape_file, &self.options.backing);
        if same.is_err() && !self.changed.swap(true, Ordering::SeqCst) {
            let input = Input::BackingChanged { set: self.set };
            if self.turns.try_send(Turn::Input(input)).is_err() {
                self.changed.store(false, Ordering::SeqCst);
            }
        }
        same?;
        self.changed.store(false, Ordering::SeqCst);
        // The mount point is left alone: a look at it may wait for the very process that is to be started.
        // For whoever else starts it, such as a service manager after an upgrade.
        os::durable::write(&self.options_file, &serde_json::to_vec(&self.options)?)?;
        let pid = disk::keeper::start(&self.options)?;
        let started =
            os::proc::stat(pid).context("the disk process ended at once: its log tells why")?.started;
        let id = ProcessId { pid, started };
        fs::write(&self.pid_file, serde_json::to_vec(&(id, self.options.incarnation))?)?;
        Ok(id)
    }

    async fn talk(&self, mut stream: UnixStream) -> anyhow::Result<()> {
        let slot = self.disks.slot(self.set).context("no such set")?;
        let (orders_in, mut orders) = mpsc::channel(ORDERS_MAX);
        *slot.orders.lock().unwrap_or_else(PoisonError::into_inner) = Some(orders_in);
        self.tell(Input::DiskPresent { set: self.set, present: true }).await?;
        let guard = slot.guard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(guard) = guard {
            self.disks.order(self.set, self.disks.own(guard));
        }
        let mut decoder = Decoder::default();
        let mut buffer = [0; 16 * 1024];
        let (mut heard, mut tries) = (Heard::default(), 0);
        let mut look = interval(FENCED_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = loop {
            tokio::select! {
                _ = look.tick(), if heard.fenced => if !self.is_used() {
                    tries += 1;
                    self.end_fenced(tries);
                },
                order = orders.recv() => {
                    let Some(order) = order else { break anyhow::anyhow!("stopped") };
                    tracing::debug!(set = %self.set, ?order, "order");
                    let bytes = encode(&order)?;
                    match timeout(WRITE_LIMIT, stream.write_all(&bytes)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(fault)) => break fault.into(),
                        Err(_) => break anyhow::anyhow!("it reads no orders"),
                    }
                }
                came = stream.read(&mut buffer) => match came {
                    Ok(0) => break anyhow::anyhow!("it closed its socket"),
                    Ok(length) => {
                        decoder.push(buffer.get(..length).unwrap_or_default());
                        if let Err(fault) = self.hear(&mut decoder, &mut heard).await {
                            break fault;
                        }
                    }
                    Err(fault) => break fault.into(),
                }
            }
        };
        *slot.orders.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.tell(Input::DiskPresent { set: self.set, present: false }).await?;
        Err(end)
    }

    /// The engine orders a set that has fenced itself to end; one that is out of use and does not, is hung.
    fn end_fenced(&self, tries: u32) {
        if tries < QUIT_TRIES {
            return;
        }
        if let Some(id) = self.kept().filter(|id| self.processes.is_alive(*id)) {
            tracing::warn!(set = %self.set, pid = id.pid, "a fenced disk process does not end: killed");
            crate::steps::kill(id.pid);
        }
    }

    /// Whether the set's file system is still mounted here.
    fn is_used(&self) -> bool {
        let mounted = |point: &String| !matches!(HostMounts.mounted_at(Path::new(point)), Ok(None));
        self.points.iter().any(mounted)
    }

    /// Hands on what it said.
    async fn hear(&self, decoder: &mut Decoder, heard: &mut Heard) -> anyhow::Result<()> {
        while let Some(said) = decoder.next::<FromDisk>()? {
            if let FromDisk::Done { ticket, result } = &said
                && ticket.0 >= OWN_TICKETS
            {
                if let Err(fault) = result {
                    tracing::debug!(set = %self.set, "guard: {fault:?}");
                }
                continue;
            }
            if let FromDisk::Status(status) = &said {
                heard.status(self.set, status);
                tracing::debug!(set = %self.set, lease = ?status.lease, linked = status.linked, role = ?status.role, "status");
            }
            self.tell(Input::DiskSaid { set: self.set, said }).await?;
        }
        Ok(())
    }

    async fn tell(&self, input: Input) -> anyhow::Result<()> {
        self.turns.send(Turn::Input(input)).await.context("the engine is gone")
    }
}

/// Remembers the processes of the sets that a new configuration has no more, before it is stored: whoever starts here later ends
/// them and marks their disks.
///
/// # Errors
/// The folder.
pub fn leaving(
    data: &DataDir,
    present: &ClusterConfig,
    next: &ClusterConfig,
    running: &crate::app::Running,
    backing: Backing,
) -> anyhow::Result<()> {
    for set in present.sets.iter().filter(|set| next.set(set.id).is_none()) {
        let options = options(present, set.id, running.me, data, running.host, backing);
        os::durable::write(&leaving_file(data, set.id), &serde_json::to_vec(&options)?)?;
    }
    Ok(())
}

fn leaving_file(data: &DataDir, set: SetId) -> PathBuf {
    data.file(&format!("leaving-{}.json", set.0))
}

/// What is remembered of sets that leave or were to leave.
fn left(data: &DataDir) -> Vec<disk::DiskOptions> {
    let files = fs::read_dir(data.file(".")).into_iter().flatten().flatten();
    let named = files.filter(|file| {
        let name = file.file_name();
        let name = name.to_string_lossy();
        name.starts_with("leaving-") && name.ends_with(".json")
    });
    let read = named.filter_map(|file| fs::read(file.path()).ok());
    read.filter_map(|text| serde_json::from_slice(&text).ok()).collect()
}

fn remove(file: &Path) -> anyhow::Result<()> {
    match fs::remove_file(file) {
        Err(fault) if fault.kind() != std::io::ErrorKind::NotFound => {
            Err(fault).with_context(|| format!("remove {}", file.display()))
        }
        _ => Ok(()),
    }
}

fn mark_released(options: &disk::DiskOptions) -> anyhow::Result<()> {
    let key: [u8; 32] = fs::read(&options.key_file)
        .context("read the cluster key")?
        .try_into()
        .map_err(|_| anyhow::anyhow!("the cluster key is damaged"))?;
    disk::release(&options.backing, cluster_id(&key), options.set, options.side)
}

/// The cluster as the control areas name it: follows from its key, and tells nothing of it.
#[must_use]
pub fn cluster_id(key: &[u8; 32]) -> [u8; 16] {
    let derived = blake3::derive_key("futago 2026 cluster id", key);
    *derived.first_chunk().unwrap_or(&[0; 16])
}

/// Makes the control area of every set on this server's backings. With `replace` another set's there is lost.
///
/// # Errors
/// A backing is missing, too small, in use, or belongs to another cluster.
pub async fn format(
    config: &ClusterConfig,
    me: NodeId,
    cluster: [u8; 16],
    replace: bool,
) -> anyhow::Result<()> {
    let sets = config.sets.clone();
    let work = tokio::task::spawn_blocking(move || {
        sets.iter().try_for_each(|set| {
            let (backing, size) = (backing_of(set, me), set.size);
            let order =
                disk::FormatOptions { backing, cluster, set: set.id, side: me, size, replace, store: None };
            disk::format(&order).with_context(|| format!("make the control area of mirror set {}", set.name))
        })
    });
    timeout(FORMAT_LIMIT, work).await.context("the disks do not answer")??
}
