//! How long copies take and what they cost: beside a plain local copy, and beside the application's own speed.
//!
//! `alike`: a full comparison of copies that are the same and whose sums both sides have stored, as after a verification: nothing
//! is read. It is what an operator's choice after a split brain causes; here neither side wrote anything meanwhile.
//! `alike_fresh`: the same onto a disk of which nothing is known, the control area being fresh: both copies are read.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mirror::layout::{EXTENT_BLOCKS, Format, FreshArea};
use peer::control::{DiskOrder, RebuildResult, UndoAct};
use serde_json::{Map, Value, json};
use wire::{Epoch, Generation, NodeId, SetId};

use super::Options;
use crate::fio::{self, Figures, Target, Workload};
use crate::report::{Outcome, Table};
use crate::rig::{Plan, Rig, readmit};
use crate::{command, paths};

/// Goals of the issue: name of the figure, whether it must be at least or at most that, the value.
const GOALS: &[(&str, Bound, f64)] = &[
    ("full", Bound::Most, 1.1),
    ("scattered_s", Bound::Most, 0.4),
    ("scattered_moved", Bound::Most, 1.05),
    ("run_s", Bound::Most, 0.12),
    ("alike", Bound::Least, 2.5),
    ("app_loss", Bound::Most, 0.15),
    ("p99_ratio", Bound::Most, 1.5),
];
/// Changed shares of the curve, in percent.
const SHARES: [u64; 5] = [0, 1, 5, 25, 100];
const BLOCK: u64 = 4096;
const LIMIT: Duration = Duration::from_secs(120);
/// Bytes written at once when an image is filled anew.
const PIECE: usize = 4 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    Least,
    Most,
}

/// One rebuild: how long from the permission to "in sync", and what it says of itself.
struct Copied {
    seconds: f64,
    result: RebuildResult,
}

impl Copied {
    fn moved(&self) -> u64 {
        self.result.moved_bytes + self.result.compared_moved_bytes
    }
}

/// The two hosts and how often the twin was put out.
struct Bench {
    rig: Rig,
    size: u64,
    outs: u8,
    epoch: u64,
}

/// `size=1024` (MiB) `rounds=3 seconds=5`.
pub fn run(options: &Options) -> Result<Outcome> {
    let size = options.figure("size", 1024)? << 20;
    let rounds = options.figure("rounds", 3)?;
    let seconds = options.figure("seconds", 5)? as f64;
    let only = options.text("only").unwrap_or("copy,curve,app").to_owned();
    let part = |name: &str| only.split(',').any(|word| word == name);
    let rig = Rig::new(&Plan { size, filled: true, ..Plan::default() })?;
    let mut bench = Bench { rig, size, outs: 0, epoch: 1 };
    let mut facts = Map::new();
    // Both images have the same content and no history: everything is compared, nothing is moved.
    bench.first_build()?;
    if part("copy") {
        bench.copies(rounds, &mut facts)?;
    }
    if part("curve") {
        bench.curve(&mut facts)?;
    }
    if part("app") {
        bench.application(seconds, &mut facts)?;
    }
    bench.rig.one.order(DiskOrder::Deactivate)?;
    bench.rig.one.quit()?;
    bench.rig.two.quit()?;
    let difference = bench.rig.difference()?;
    facts.insert("identical".into(), json!(difference.is_none()));
    Ok(judge(facts, difference.is_none()))
}

impl Bench {
    fn first_build(&mut self) -> Result<()> {
        let Rig { one, two, .. } = &mut self.rig;
        one.start()?;
        two.start()?;
        for side in [&mut *one, &mut *two] {
            side.order(DiskOrder::LearnEpoch { epoch: Epoch(1), holder: NodeId(1) })?;
        }
        one.activate(1)?;
        let alike = self.rebuild()?;
        ensure!(alike.moved() == 0, "equal blocks were moved: {:?}", alike.result);
        Ok(())
    }

    /// Ends the twin and goes on alone.
    fn put_out(&mut self) -> Result<()> {
        let device = self.rig.one.device()?;
        File::open(device)?.sync_all()?;
        self.rig.two.kill();
        self.outs += 1;
        self.rig.one.order(DiskOrder::AllowRebuild { allowed: false })?;
        self.rig.one.order(DiskOrder::PutOut { generation: Generation([100 + self.outs; 16]) })?;
        Ok(())
    }

    /// The twin is back and linked; nothing is copied yet.
    fn bring_back(&mut self) -> Result<()> {
        self.rig.two.start()?;
        self.rig.two.order(DiskOrder::LearnEpoch { epoch: Epoch(self.epoch), holder: NodeId(1) })?;
        Ok(())
    }

    /// Makes every block's sum known on both sides, and waits until both have stored them.
    fn verified(&mut self) -> Result<()> {
        let before = self.rig.one.status()?.last_verify;
        self.rig.one.order(DiskOrder::Verify { run: true, paused: false, limit: Some(8 << 30) })?;
        let status = self.rig.one.wait("verified", |status| {
            status.verify.is_none() && status.last_verify != before && status.equal
        })?;
        let found = status.last_verify.context("no verification was told")?;
        ensure!(found.different == 0 && !found.stopped, "not the same: {found:?}");
        let began = Instant::now();
        while !self.known(1)? || !self.known(2)? {
            ensure!(began.elapsed() < LIMIT, "the sums are not stored");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Whether a block of each extent has a stored sum.
    fn known(&self, side: u8) -> Result<bool> {
        let image = File::open(if side == 1 { self.rig.one.image() } else { self.rig.two.image() })?;
        let format = Format { cluster: [9; 16], set: SetId(5), side: NodeId(side), size: self.size };
        let blocks = (0..self.size / BLOCK).step_by(EXTENT_BLOCKS as usize);
        let count = blocks.clone().count();
        let known = FreshArea::new(format)?.believed(blocks, |offset, length| {
            let mut bytes = vec![0; length];
            image.read_exact_at(&mut bytes, offset).map(|()| bytes).unwrap_or_default()
        });
        Ok(known.len() == count)
    }

    /// Both served by themselves, neither wrote; this side is declared good, so that everything is compared.
    fn alike(&mut self) -> Result<Copied> {
        self.verified()?;
        let Rig { one, two, .. } = &mut self.rig;
        one.order(DiskOrder::Deactivate)?;
        one.quit()?;
        two.quit()?;
        two.start()?;
        two.activate(self.epoch + 1)?;
        two.order(DiskOrder::Deactivate)?;
        two.quit()?;
        self.epoch += 2;
        one.start()?;
        one.activate(self.epoch)?;
        self.bring_back()?;
        self.rig.one.wait("split", |status| status.split)?;
        self.rig.one.order(DiskOrder::Overrule { replace: true })?;
        self.rig.one.order(DiskOrder::Undo { act: UndoAct::Waive })?;
        let copied = self.rebuild()?;
        let _ = self.rig.two.try_order(DiskOrder::Undo { act: UndoAct::Drop })?;
        ensure!(copied.result.compared_bytes == self.size, "not all was compared: {:?}", copied.result);
        Ok(copied)
    }

    /// Allows the rebuild and times it until both are in sync.
    fn rebuild(&mut self) -> Result<Copied> {
        self.rig.one.wait("linked", |status| status.linked)?;
        let began = Instant::now();
        self.rig.one.order(DiskOrder::AllowRebuild { allowed: true })?;
        readmit(&mut self.rig.one)?;
        let seconds = began.elapsed().as_secs_f64();
        let result = self.rig.one.status()?.last_rebuild.context("no rebuild was told")?;
        Ok(Copied { seconds, result })
    }

    /// Puts the twin out, changes so much of the device, and copies it.
    fn changed(&mut self, share: u64, scattered: bool) -> Result<Copied> {
        self.put_out()?;
        let bytes = self.size * share / 100 / BLOCK * BLOCK;
        if bytes > 0 {
            change(&self.rig.one.device()?, self.size, bytes, scattered)?;
        }
        self.bring_back()?;
        self.rebuild()
    }

    /// Another disk in the twin's place: formatted, full of `seed`'s bytes or of what the active side has.
    fn exchanged(&mut self, seed: Option<u64>) -> Result<Copied> {
        self.put_out()?;
        let (from, to) = (self.rig.one.image(), self.rig.two.image());
        match seed {
            Some(seed) => fill(&to, self.rig.two.data_at()?, self.size, seed)?,
            None => {
                let skip = self.rig.one.data_at()?;
                local_copy(&from, &to, skip)?;
            }
        }
        // Formatting leaves a set that is there as it is.
        let area = vec![0; usize::try_from(self.rig.two.data_at()?)?];
        fs::OpenOptions::new().write(true).open(&to)?.write_all_at(&area, 0)?;
        let options = json!({
            "backing": to, "cluster": vec![9_u8; 16], "set": 5, "side": 2, "size": self.size, "replace": true,
        });
        let mut program = Command::new(paths::program()?);
        command::output(program.args(["disk-format", &options.to_string()]), LIMIT)?;
        self.bring_back()?;
        self.rebuild()
    }

    fn copies(&mut self, rounds: u64, facts: &mut Map<String, Value>) -> Result<()> {
        let mut all: [Vec<f64>; 6] = Default::default();
        let mut ratio = Vec::new();
        let mut moved = 0.0_f64;
        let beside = tempfile::Builder::new().prefix("futago-copy-").tempdir()?;
        for round in 0..rounds {
            let began = Instant::now();
            local_copy(&self.rig.one.image(), &beside.path().join("copy"), 0)?;
            let local = began.elapsed().as_secs_f64();
            let full = self.exchanged(Some(round + 7))?;
            ensure!(full.moved() == self.size, "a full copy moved {} bytes", full.moved());
            let fresh = self.exchanged(None)?;
            ensure!(fresh.moved() == 0, "equal blocks were moved: {:?}", fresh.result);
            let alike = self.alike()?;
            ensure!(alike.moved() == 0, "equal blocks were moved: {:?}", alike.result);
            let scattered = self.changed(5, true)?;
            let run = self.changed(5, false)?;
            ratio.push(full.seconds / local);
            let changed = self.size * 5 / 100 / BLOCK * BLOCK;
            moved = moved.max(scattered.moved() as f64 / changed as f64);
            let seconds = [local, full.seconds, alike.seconds, fresh.seconds, scattered.seconds, run.seconds];
            eprintln!("round {round}: local, full, alike, alike_fresh, scattered, run: {seconds:.3?}");
            for (list, seconds) in all.iter_mut().zip(seconds) {
                list.push(seconds);
            }
        }
        let [local, full, alike, fresh, scattered, run] = all.map(median);
        let mut table = Table::new(&["copy", "seconds"]);
        for (name, seconds) in [
            ("plain local copy", local),
            ("full, every block different", full),
            ("full, every block equal and known", alike),
            ("full, every block equal, both read", fresh),
            ("5 % of the blocks, scattered", scattered),
            ("5 %, one run", run),
        ] {
            table.row(&[name.to_owned(), format!("{seconds:.3}")]);
        }
        table.print();
        let mut add = |name: &str, value: f64| facts.insert(name.into(), json!(round3(value)));
        add("full", median(ratio));
        add("alike", full / alike);
        add("alike_fresh", full / fresh);
        add("scattered_s", scattered);
        add("scattered_moved", moved);
        add("run_s", run);
        Ok(())
    }

    fn curve(&mut self, facts: &mut Map<String, Value>) -> Result<()> {
        let mut table = Table::new(&["changed %", "scattered s", "moved MiB"]);
        let mut curve = Map::new();
        for share in SHARES {
            let copied = self.changed(share, share < 100)?;
            let moved = copied.moved() >> 20;
            table.row(&[share.to_string(), format!("{:.3}", copied.seconds), moved.to_string()]);
            curve.insert(share.to_string(), json!(round3(copied.seconds)));
        }
        println!();
        table.print();
        facts.insert("curve_s".into(), Value::Object(curve));
        Ok(())
    }

    /// The application before, during and after a rebuild of everything.
    fn application(&mut self, seconds: f64, facts: &mut Map<String, Value>) -> Result<()> {
        let device = self.rig.one.device()?.display().to_string();
        let size = self.size;
        let mix = |seconds: f64| fio::run(Workload::E, &Target::Files(vec![device.clone()]), size, seconds);
        let before = mix(seconds)?;
        self.put_out()?;
        change(Path::new(&device), self.size, self.size, false)?;
        self.bring_back()?;
        self.rig.one.wait("linked", |status| status.linked)?;
        self.rig.one.order(DiskOrder::AllowRebuild { allowed: true })?;
        self.rig.one.wait("copying", |status| status.rebuild.is_some_and(|rebuild| rebuild.running))?;
        let during = mix(seconds)?;
        let status = self.rig.one.status()?;
        let rebuild = status.rebuild.context("the rebuild had ended before the application's run")?;
        let copied = rebuild.done as f64 * BLOCK as f64 / (1 << 20) as f64 / (seconds + 0.5);
        readmit(&mut self.rig.one)?;
        let after = mix(seconds)?;
        let mut table = Table::new(&["application (mix e)", "per s", "p99 us"]);
        let mut row = |name: &str, figures: &Figures| {
            table.row(&[name.to_owned(), format!("{:.0}", figures.iops), format!("{:.0}", figures.p99_us)]);
        };
        row("before", &before);
        row("during a rebuild", &during);
        row("after", &after);
        println!();
        table.print();
        println!(
            "the rebuild copied {copied:.0} MiB/s meanwhile, and said {} MiB/s at the end",
            rebuild.speed >> 20
        );
        let own = f64::midpoint(before.iops, after.iops);
        facts.insert("app_loss".into(), json!(round3(1.0 - during.iops / own)));
        let own = f64::midpoint(before.p99_us, after.p99_us);
        facts.insert("p99_ratio".into(), json!(round3(during.p99_us / own)));
        facts.insert("app_copied_mib_s".into(), json!(copied.round()));
        Ok(())
    }
}

/// Writes random bytes: so many of the device's blocks, each once, or one run of them.
fn change(device: &Path, size: u64, bytes: u64, scattered: bool) -> Result<()> {
    let mut fio = Command::new("fio");
    fio.args(["--name=change", "--ioengine=libaio", "--direct=1", "--randrepeat=0", "--refill_buffers=1"]);
    fio.args(["--end_fsync=1", "--thread=1"]);
    fio.arg(format!("--filename={}", device.display())).arg(format!("--size={size}"));
    fio.arg(format!("--io_size={bytes}"));
    if scattered {
        fio.args(["--rw=randwrite", "--bs=4k", "--iodepth=32"]);
    } else {
        fio.args(["--rw=write", "--bs=1m", "--iodepth=8"]);
    }
    command::output(&mut fio, LIMIT).map(|_| ())
}

/// What anybody's tool does: one mebibyte after the other, past the page cache, durable at the end.
fn local_copy(from: &Path, to: &Path, skip: u64) -> Result<()> {
    let mut dd = Command::new("dd");
    dd.arg(format!("if={}", from.display())).arg(format!("of={}", to.display()));
    dd.args([
        "bs=1M",
        "iflag=direct,skip_bytes",
        "oflag=direct,seek_bytes",
        "conv=fsync,notrunc",
        "status=none",
    ]);
    dd.arg(format!("skip={skip}")).arg(format!("seek={skip}"));
    command::output(&mut dd, LIMIT).map(|_| ())
}

/// Fills an image's data with random bytes of this seed.
fn fill(image: &Path, at: u64, size: u64, seed: u64) -> Result<()> {
    let file = fs::OpenOptions::new().write(true).open(image)?;
    let mut piece = vec![0_u8; PIECE];
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut done = 0;
    while done < size {
        for word in piece.as_chunks_mut::<8>().0 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            *word = random.to_le_bytes();
        }
        let length = usize::try_from(size - done).unwrap_or(PIECE).min(PIECE);
        file.write_all_at(&piece[..length], at + done)?;
        done += length as u64;
    }
    file.sync_all().context("flush the image")
}

fn judge(facts: Map<String, Value>, identical: bool) -> Outcome {
    let mut table = Table::new(&["figure", "goal", "measured", ""]);
    let mut holds = identical;
    for (name, bound, goal) in GOALS {
        let found = facts.get(*name).and_then(Value::as_f64);
        let met = found.is_some_and(|found| match bound {
            Bound::Least => found >= *goal,
            Bound::Most => found <= *goal,
        });
        holds &= met;
        let shown = found.map_or("not measured".to_owned(), |found| format!("{found:.3}"));
        let sign = if *bound == Bound::Least { ">=" } else { "<=" };
        let word = if met { "holds" } else { "MISSED" };
        table.row(&[(*name).to_owned(), format!("{sign} {goal}"), shown, word.to_owned()]);
    }
    println!();
    table.print();
    println!("copies identical at the end: {identical}");
    Outcome::new(holds, Value::Object(facts))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}

fn round3(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
