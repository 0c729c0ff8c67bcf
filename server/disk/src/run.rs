//! Start and end of a disk process: puts the parts together, then turns the loop until the core says exit.

use crate::backing::{Backing, Direct, Volatile, alignment, open};
use crate::control::Control;
use crate::device::{Opened, Place, Worker, is_up};
use crate::format::read_control;
use crate::fuse::unanswered;
use crate::guard::{Guard, Guarded};
use crate::harden::harden;
use crate::inbox::inbox;
use crate::keeper::client::{FrontRecord, Inheritance, Keeping, inherit};
use crate::limits::RUN_BYTES;
use crate::link::connect::{Connector, Meeting};
use crate::link::handshake::{Identity, Key};
use crate::nbd::Nbd;
use crate::nbd::listen::Door;
use crate::nbd::papers::Authority;
use crate::options::{DiskOptions, Record};
use crate::pools::Pools;
use crate::ring::memory::Spare;
use crate::ring::{Ring, signal};
use crate::turn::{Loop, Parts};
use anyhow::{Context as _, ensure};
use mirror::config::{Faults, MirrorConfig, MirrorTiming};
use mirror::layout::{ControlArea, Superblock};
use mirror::{Kept, Mirror};
use os::clock::{BootClock, Clock as _};
use rustls::ServerConfig;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use wire::ids::MILLIS;

/// Runs the data path of one mirror set until it is told to end, or has fenced itself.
///
/// Becomes a session of its own, so that it outlives the node process; ignores SIGINT and SIGHUP; SIGTERM ends it in order,
/// unless it is active.
///
/// # Errors
/// The backing, the sockets or the ring cannot be had; or the ring broke.
pub fn run(options: DiskOptions) -> anyhow::Result<()> {
    // A session leader already (started so by node) is as good.
    let _ = rustix::process::setsid();
    let signals = signal::prepare().context("prepare signals")?;
    os::memory::bound_heap();
    harden();
    let key = read_key(&options.key_file)?;
    std::fs::create_dir_all(&options.state)
        .with_context(|| format!("make the folder {}", options.state.display()))?;
    let (Inheritance { kept, front, guarded }, keeper) = inherit(&options)?;
    let (inbox, outbox) = inbox().context("make the inbox")?;
    // All that needs no disk first: a dead process's last writes may still be landing, and its lock with them. The twin too is
    // met meanwhile.
    let papers = export_papers(&options, &key)?;
    let connector = Connector::start(meeting(&options, key), outbox.clone())?;
    let mut ring = Ring::new().context("set up io_uring: is it allowed (kernel.io_uring_disabled)?")?;
    let pools = Pools::new().context("no memory for the slots")?;
    let spare = Spare::new(RUN_BYTES);
    if let Err(error) = ring.register(&[&pools.small, &pools.large]) {
        tracing::warn!(%error, "buffers are not registered with the kernel: writes cost more");
    }
    if options.volatile || options.no_flush {
        tracing::warn!(
            options.volatile,
            options.no_flush,
            "a test backing: what it is told to keep may be lost"
        );
    }
    let file = open(&options.backing, !options.volatile)?;
    let area = read_area(&file, &options)?;
    let place = Place {
        mount: options.mount.clone(),
        record: Record::path(&options.state, options.set),
        block_size: alignment(&file),
    };
    let data_at = area.superblock.data_at();
    // The volatile backing dies with its process, as a disk's cache does with the power: nothing can be taken over.
    let front = front.filter(|(front, _)| !options.volatile && is_up(&place, front));
    let config = config(&options, area.superblock.cluster);
    let (core, front) = core(config, area, &kept, front, options.nbd.is_some(), &pools);
    let backing: Box<dyn Backing> = if options.volatile {
        Box::new(Volatile::new(file, &options, data_at, outbox.clone())?)
    } else {
        Box::new(Direct::new(file, options.no_flush, spare.clone(), outbox.clone())?)
    };
    let guarded = if front.is_some() { guarded } else { Guarded::default() };
    let guard = Guard::start(place.clone(), guarded.clone())?;
    let opened = front.as_ref().map(|(front, _)| Opened { path: front.path.clone(), number: front.number });
    let left = front.as_ref().map(|(front, fd)| Ok::<_, std::io::Error>((front.clone(), fd.try_clone()?)));
    let keeping = Keeping::start(&options, keeper, left.transpose()?, guarded)?;
    let nbd = options.nbd.clone().map(|export| {
        let door = Door::new(export, options.size, place.block_size.max(4096), papers, outbox.clone());
        Nbd::new(door, options.size)
    });
    let worker = Worker::start(place, outbox, opened, keeping.leaving())?;
    let control = Control::listen(&options.control)
        .with_context(|| format!("listen at {}", options.control.display()))?;
    give_back();
    let serving = front.is_some();
    tracing::info!(set = %options.set, side = %options.side, size = options.size, serving, "disk process ready");
    let parts = Parts {
        ring,
        core,
        pools,
        spare,
        backing,
        guard,
        keeping,
        worker,
        control,
        connector,
        inbox,
        signals,
        nbd,
    };
    let mut turning = Loop::new(parts, options.size, data_at, options.device);
    if let Some((front, descriptor)) = front {
        turning.take_over(descriptor, front.path).context("take over the front end of a dead process")?;
    }
    turning.begin();
    turning.turn_until_exit()?;
    turning.end(&options);
    tracing::info!(set = %options.set, side = %options.side, "disk process ends");
    Ok(())
}

/// Shortest pause between two keep-alives of a block link: forty a second cost nothing that could be felt.
const ALIVE_MIN: u64 = 25 * MILLIS;
/// Shortest silence that ends a block link, however short the lease: a lane of two is given up sooner.
const SILENT_MIN: u64 = 300 * MILLIS;

fn config(options: &DiskOptions, cluster: [u8; 16]) -> MirrorConfig {
    let usual = MirrorTiming::default();
    MirrorConfig {
        cluster,
        set: options.set,
        side: options.side,
        incarnation: options.incarnation,
        timing: MirrorTiming {
            lease_us: options.lease_ms * MILLIS,
            alive_us: (options.lease_ms * MILLIS / 13).clamp(ALIVE_MIN, usual.alive_us),
            silent_us: (options.lease_ms * MILLIS * 6 / 13).clamp(SILENT_MIN, usual.silent_us),
            node_grace_us: options.node_grace_ms * MILLIS,
            io_limit_us: options.io_limit_ms * MILLIS,
            mode: options.mode,
            ..usual
        },
        hot_max: peer::block::HOT_MAX,
        faults: Faults::default(),
    }
}

/// A front end that is taken over.
type Front = Option<(FrontRecord, OwnedFd)>;

/// The core: it goes on serving where a dead process left a front end and its record allows it, or starts as standby.
fn core(
    config: MirrorConfig,
    area: ControlArea,
    kept: &Kept,
    front: Front,
    exported: bool,
    pools: &Pools,
) -> (Mirror, Front) {
    if let Some((record, descriptor)) = front {
        match unanswered(&descriptor, pools) {
            Ok(ranges) => {
                let now = BootClock.now();
                // What clients of the export had asked for nobody sends again: every hot extent is suspect then.
                let known = (!exported).then_some(&*ranges);
                if let Some(core) = Mirror::resume(config.clone(), area.clone(), kept, known, now) {
                    tracing::info!(unanswered = ranges.len(), "goes on in place of a dead process");
                    return (core, Some((record, descriptor)));
                }
                tracing::warn!("the device of a dead process ends: it did not serve by right");
            }
            Err(error) => tracing::warn!(%error, "the device of a dead process cannot be taken over"),
        }
    }
    (Mirror::new(config, area, BootClock.now()), None)
}

/// The way to a state that lasts is some megabytes of code, resident around each step of it; C14 counts them.
pub(crate) fn give_back() {
    if let Err(error) = os::memory::drop_program_pages() {
        tracing::debug!(%error, "pages of the program stay in memory");
    }
}

/// What the export shows its clients over TCP, and asks of them.
fn export_papers(options: &DiskOptions, key: &Key) -> anyhow::Result<Option<Arc<ServerConfig>>> {
    let Some(export) = options.nbd.as_ref().filter(|export| export.tls) else { return Ok(None) };
    let addresses: Vec<_> = export.tcp.iter().map(SocketAddr::ip).collect();
    let papers = Authority::of(key, options.set).and_then(|authority| authority.server(&addresses));
    papers.context("make the certificate of the NBD export").map(Some)
}

pub(crate) fn read_key(path: &Path) -> anyhow::Result<Key> {
    let bytes = std::fs::read(path).with_context(|| format!("read the cluster key {}", path.display()))?;
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| {
        anyhow::anyhow!("the cluster key {} must be 32 bytes: pair the servers again", path.display())
    })?;
    Ok(Key::new(bytes))
}

fn read_area(file: &std::fs::File, options: &DiskOptions) -> anyhow::Result<ControlArea> {
    let name = options.backing.display();
    let wanted = |found: &Superblock| {
        ensure!(
            (found.set, found.side, found.size) == (options.set, options.side, options.size),
            "{name} carries {} of {} with {} bytes, wanted is {} of {} with {}: name the right backing",
            found.set,
            found.side,
            found.size,
            options.set,
            options.side,
            options.size
        );
        Ok(())
    };
    let area = read_control(file, wanted).with_context(|| format!("backing {name}"))?;
    if area.torn_pages > 0 {
        tracing::warn!(
            pages = area.torn_pages,
            "damaged pages of the dirty map: their blocks count as different"
        );
    }
    Ok(area)
}

fn meeting(options: &DiskOptions, key: Key) -> Meeting {
    let identity = |side| Identity { set: options.set, side };
    Meeting {
        me: identity(options.side),
        twin: identity(options.side.twin()),
        key,
        listen: options.listen.clone(),
        dial: options.twin.clone(),
        port: options.port,
        encrypt: options.encrypt,
        pack: options.pack,
    }
}
