//! What a disk process takes of memory, buffers included: for 1 GiB in sync under load, and for a sparse image of 4 TiB in
//! sync and with one block in a hundred recorded as different.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result, ensure};
use mirror::layout::{Format, FreshArea};
use peer::block::{BLOCK_BYTES, MAP_PAGE_BYTES};
use peer::control::DiskOrder;
use serde_json::json;
use wire::{Epoch, Generation, NodeId, SetId};

use super::Options;
use crate::fio::{self, Target, Workload};
use crate::report::{Outcome, Table};
use crate::rig::{CLUSTER, Plan, Rig, SET, Side};

const GIB: u64 = 1 << 30;
const TIB4: u64 = 4 << 40;
/// Goals of the issue in MiB (C14).
const GIB_GOAL: f64 = 18.0;
const TIB_GOAL: f64 = 64.0;
/// One block in so many is recorded as different, scattered.
const ONE_IN: u64 = 100;
/// Bytes written at once into an image.
const PIECE: usize = 1 << 20;
/// The generation both copies have in common, and the one of the side that went on alone.
const COMMON: Generation = Generation([7; 16]);
const ALONE: Generation = Generation([8; 16]);

/// Memory of one process in KiB.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    resident: u64,
    peak: u64,
    locked: u64,
    share: u64,
}

/// `seconds=3`: of each workload.
pub fn run(options: &Options) -> Result<Outcome> {
    let seconds = options.figure("seconds", 3)? as f64;
    let mut table = Table::new(&["set", "state", "side", "VmRSS", "VmHWM", "VmLck", "Pss"]);
    let mut gib = 0;
    {
        let mut rig = Rig::new(&Plan { size: GIB, ..Plan::default() })?;
        rig.build()?;
        forget_peaks(&rig)?;
        load(&mut rig.one, GIB, seconds)?;
        gib = note(&mut table, gib, "1 GiB", "in sync", &rig)?;
    }
    let mut tib = 0;
    let mut rig = Rig::new(&Plan { size: TIB4, sparse: true, ..Plan::default() })?;
    in_sync(&mut rig)?;
    forget_peaks(&rig)?;
    load(&mut rig.one, TIB4, seconds)?;
    tib = note(&mut table, tib, "4 TiB", "in sync", &rig)?;
    rig.one.kill();
    rig.two.kill();
    let (dirty, rebuilt) = scattered(&mut rig, seconds)?;
    tib = note(&mut table, tib, "4 TiB", "1 % different, rebuilding", &rig)?;
    table.print();
    println!("\nKiB. {dirty} blocks recorded as different, {rebuilt} of them made equal meanwhile.");
    let mib = |kib: u64| (kib as f64 / 1024.0 * 10.0).round() / 10.0;
    let holds = mib(gib) <= GIB_GOAL && mib(tib) <= TIB_GOAL;
    println!("goals: gib_mib <= {GIB_GOAL}, tib_mib <= {TIB_GOAL} (VmHWM of either process, while it works)");
    Ok(Outcome::new(holds, json!({ "gib_mib": mib(gib), "tib_mib": mib(tib), "dirty_blocks": dirty })))
}

/// Small and large writes, then a mix with reads.
fn load(side: &mut Side, size: u64, seconds: f64) -> Result<()> {
    let target = Target::Files(vec![side.device()?.display().to_string()]);
    for workload in [Workload::B, Workload::C, Workload::E] {
        // Large writes are sequential: they would fill the test machine's disk from the start of a large set.
        let size = if workload == Workload::C { size.min(GIB) } else { size };
        fio::run(workload, &target, size, seconds)?;
    }
    Ok(())
}

/// What starting took is no state of a set: from here on the kernel notes the peak anew.
fn forget_peaks(rig: &Rig) -> Result<()> {
    for side in [&rig.one, &rig.two] {
        fs::write(format!("/proc/{}/clear_refs", side.pid().context("the process runs")?), "5")?;
    }
    Ok(())
}

/// Notes what both processes take; gives the larger peak.
fn note(table: &mut Table, most: u64, set: &str, state: &str, rig: &Rig) -> Result<u64> {
    let mut most = most;
    for side in [&rig.one, &rig.two] {
        let memory = memory(side.pid().context("the process runs")?)?;
        let cells = [memory.resident, memory.peak, memory.locked, memory.share].map(|kib| kib.to_string());
        let role = if side.id == 1 { "active" } else { "standby" };
        table.row(&[&[set, state, role].map(str::to_owned)[..], &cells[..]].concat());
        most = most.max(memory.peak);
    }
    Ok(most)
}

fn memory(pid: u32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let figure = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim_start_matches(':').trim().split(' ').next().and_then(|word| word.parse().ok())
    };
    let found = |text: &str, name: &str| figure(text, name).with_context(|| format!("no {name} of {pid}"));
    Ok(Memory {
        resident: found(&status, "VmRSS")?,
        peak: found(&status, "VmHWM")?,
        locked: found(&status, "VmLck")?,
        share: found(&rollup, "Pss")?,
    })
}

/// Writes a control area into an image, with one block in [`ONE_IN`] recorded as different where `scattered`.
fn store(side: &Side, fresh: &FreshArea, scattered: bool) -> Result<u64> {
    let image = File::options().write(true).open(side.image())?;
    let (mut at, mut piece, mut dirty) = (0, vec![0; PIECE], 0);
    while at < fresh.head() {
        fresh.fill(at, &mut piece);
        image.write_all_at(&piece, at)?;
        at += PIECE as u64;
    }
    let bits = MAP_PAGE_BYTES as u64 * 8;
    let blocks = TIB4 / BLOCK_BYTES;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for page in 0..if scattered { blocks.div_ceil(bits) } else { 0 } {
        let mut found = vec![0_u8; MAP_PAGE_BYTES];
        for bit in 0..bits.min(blocks - page * bits) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            if random.is_multiple_of(ONE_IN) {
                found[(bit / 8) as usize] |= 1 << (bit % 8);
                dirty += 1;
            }
        }
        let (offset, bytes) = fresh.page(u32::try_from(page)?, &found);
        image.write_all_at(&bytes, offset)?;
    }
    image.sync_data()?;
    Ok(dirty)
}

/// A control area of this set whose copy stands at the common generation.
fn equal(side: &Side) -> Result<FreshArea> {
    let format = Format { cluster: CLUSTER, set: SetId(SET), side: NodeId(side.id), size: TIB4 };
    let mut fresh = FreshArea::new(format)?;
    let superblock = fresh.superblock_mut();
    (superblock.history, superblock.base) = (vec![COMMON], Some(COMMON));
    (superblock.epoch, superblock.holder) = (Epoch(1), Some(NodeId(1)));
    Ok(fresh)
}

/// Two copies of 4 TiB that were made equal before: a first copy of so much is no part of this.
fn in_sync(rig: &mut Rig) -> Result<()> {
    for side in [&rig.one, &rig.two] {
        store(side, &equal(side)?, false)?;
    }
    start(rig, 2, false)?;
    rig.one.wait("in sync", |status| status.equal && status.needs_twin && status.device.is_some())?;
    Ok(())
}

/// Side 1 went on alone and one block in a hundred differs: it works on while it rebuilds side 2.
fn scattered(rig: &mut Rig, seconds: f64) -> Result<(u64, u64)> {
    let mut fresh = equal(&rig.one)?;
    let superblock = fresh.superblock_mut();
    superblock.history.insert(0, ALONE);
    superblock.alone = true;
    let dirty = store(&rig.one, &fresh, true)?;
    store(&rig.two, &equal(&rig.two)?, false)?;
    start(rig, 3, true)?;
    let status = rig.one.wait("active", |status| status.device.is_some())?;
    ensure!(status.dirty_blocks >= dirty, "the map was not taken over: {status:?}");
    forget_peaks(rig)?;
    load(&mut rig.one, TIB4, seconds)?;
    rig.one.order(DiskOrder::AllowRebuild { allowed: true })?;
    let moves = |done: u64| {
        move |status: &peer::control::DiskStatus| {
            status.rebuild.is_some_and(|of| of.running && of.done > done)
        }
    };
    rig.one.wait("rebuilding", moves(0))?;
    load(&mut rig.one, TIB4, seconds)?;
    let status = rig.one.wait("rebuilding", moves(1000))?;
    Ok((dirty, status.rebuild.map_or(0, |rebuild| rebuild.done)))
}

fn start(rig: &mut Rig, epoch: u64, alone: bool) -> Result<()> {
    let epoch = Epoch(epoch);
    for side in [&mut rig.one, &mut rig.two] {
        side.start()?;
        side.order(DiskOrder::LearnEpoch { epoch, holder: NodeId(1) })?;
    }
    rig.one.order(DiskOrder::Activate { epoch, alone, generation: ALONE })?;
    rig.one.order(DiskOrder::Lease { until: None, fence_after_us: 500_000 })?;
    Ok(())
}
