//! `return-fast-copy`: a killed server returns, a click recovers it, and the copy moves only what changed.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use wire::alert::{EventKind, RebuildKind};
use wire::command::Operation;
use wire::ids::NodeId;
use wire::view::GroupState;

use super::Options;
use crate::browser::DESK;
use crate::images::{self, BLOCK, Compared};
use crate::lab::{Lab, Setup};
use crate::report::{Outcome, Table};
use crate::scenes;
use crate::writer::{Judge, Told};
use crate::{command, page, paths};

/// The survivor acknowledges so many increments alone, and writes a file of so many MiB.
const INCREMENTS: usize = 300;
const FILE_MIB: u64 = 32;

/// What increments may change between the click and the first copied block: about half a second of appends with their
/// journal.
const WRITTEN_MEANWHILE: u64 = 256 << 10;

/// What may be written with the bytes that were there: metadata that the file system writes back once more.
const WRITTEN_EQUAL: u64 = 64 << 10;

/// The control area in front of the data of a set of up to some gigabytes: bytes that differ by their nature.
const CONTROL_AREA: u64 = 1 << 20;

/// For a fresh ext4 to have its inode tables zeroed in the background.
const SETTLED: Duration = Duration::from_secs(120);
/// For the survivor's file system to have written everything.
const QUIET: Duration = Duration::from_secs(60);
/// For a command in a host that writes some megabytes.
const WRITE: Duration = Duration::from_secs(60);

/// The show.
///
/// # Errors
/// When a step does not come to its end.
pub fn run(options: &Options) -> Result<Outcome> {
    let setup = Setup { size_mib: options.figure("size", 256)?, ..Setup::default() };
    let mut lab = Lab::start(&setup)?;
    wait_settled(&mut lab)?;
    let mut writer = lab.writer("client")?;
    let mut judge = Judge::default();
    let victim = scenes::kill_active(&mut lab, &mut writer, &mut judge)?;
    let survivor = victim.twin();
    judge.hear(&writer.wait_until("increments on the survivor alone", scenes::TAKE_OVER, |told| {
        told.iter().filter(|one| matches!(one, Told::Acknowledged { .. })).count() >= INCREMENTS
    })?);
    judge.hear(&writer.end()?);
    write_file(&lab, survivor)?;
    lab.demo(&["restart", &scenes::name(victim)])?;
    scenes::wait_restarted(&mut lab, victim)?;
    let (changed, recorded) = differences(&mut lab, survivor)?;
    let mut writer = None;
    page::drive(async {
        let browser = page::log_in(&lab, survivor, DESK).await?;
        browser.picture(&paths::out()?.join("restarted-after-down.png")).await?;
        page::press(&browser, &format!("op-recover-{}", victim.0)).await?;
        // The application is in use again from the click on.
        writer = Some(lab.writer("client")?);
        page::see_healthy(&browser, scenes::RECOVER).await?;
        browser.end().await
    })?;
    let mut writer = writer.context("the writer was started")?;
    lab.wait_healthy(scenes::RECOVER)?;
    let rebuilt = rebuilt(&mut lab, victim)?;
    judge.hear(&writer.wait_for_more(scenes::TAKE_OVER)?);
    judge.hear(&writer.end()?);
    stop_group(&mut lab, survivor)?;
    let after = lab.compare_images()?;
    lab.end()?;
    let moved = rebuilt.moved + rebuilt.compared_moved;
    let mut table = Table::new(&["what", "bytes"]);
    let row = |table: &mut Table, what: &str, bytes: u64| table.row(&[what.to_owned(), bytes.to_string()]);
    row(&mut table, "size of the mirror", after.blocks * BLOCK as u64);
    row(&mut table, "different before the click", changed);
    row(&mut table, "recorded as changed then", recorded);
    row(&mut table, "moved because recorded", rebuilt.moved);
    row(&mut table, "hot extents, compared by checksum", rebuilt.compared);
    row(&mut table, "moved because that differed", rebuilt.compared_moved);
    row(&mut table, "moved in all", moved);
    row(&mut table, "different afterwards, group stopped", after.different * BLOCK as u64);
    table.print();
    println!("\nkind of copy: {:?}", rebuilt.kind);
    let fast = rebuilt.kind == RebuildKind::Fast;
    // All that differed had to move, except what an increment wrote to both sides before its turn came.
    let all = moved + WRITTEN_MEANWHILE >= changed;
    let only_changed = moved <= changed + WRITTEN_EQUAL + WRITTEN_MEANWHILE;
    let known = rebuilt.moved <= recorded + WRITTEN_MEANWHILE;
    let holds =
        fast && all && only_changed && known && changed > 0 && after.different == 0 && judge.lost == 0;
    let facts = json!({
        "changed_bytes": changed, "recorded_bytes": recorded, "moved_bytes": moved,
        "moved_as_recorded_bytes": rebuilt.moved, "moved_after_comparison_bytes": rebuilt.compared_moved,
        "compared_bytes": rebuilt.compared, "fast": fast, "size_bytes": after.blocks * BLOCK as u64,
        "different_bytes_after": after.different * BLOCK as u64, "lost": judge.lost,
    });
    Ok(Outcome::new(holds, facts))
}

/// Waits until the fresh file system is settled: mkfs leaves it to the kernel to zero its inode tables after the mount,
/// 16 MiB here. The mirror records those writes as any other, but they change nothing: they would hide what the
/// application changed. A kernel thread does it, which ends with the last table of the last file system.
fn wait_settled(lab: &mut Lab) -> Result<()> {
    lab.wait("the fresh file system is settled", SETTLED, |_| {
        (!kernel_thread_runs("ext4lazyinit")).then_some(())
    })
}

fn kernel_thread_runs(name: &str) -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| std::fs::read_to_string(process.path().join("comm")).ok())
        .any(|comm| comm.trim_end() == name)
}

/// Writes a file of random bytes on the mirrored file system, as somebody's work.
fn write_file(lab: &Lab, on: NodeId) -> Result<()> {
    let point = lab.mount_point()?;
    let script = format!("dd if=/dev/urandom of={point}/work bs=1M count={FILE_MIB} conv=fsync");
    let mut write = lab.exec(&scenes::name(on));
    command::output(write.args(["sh", "-c", &script]), WRITE)?;
    Ok(())
}

/// Bytes that really differ, and bytes that the survivor has on record as different, at a moment without a write: nothing
/// is recorded between a reading before and one after the comparison.
fn differences(lab: &mut Lab, survivor: NodeId) -> Result<(u64, u64)> {
    let point = lab.mount_point()?;
    let end = std::time::Instant::now() + QUIET;
    loop {
        // This one file system only: what it holds back would be written after the comparison.
        let mut flush = lab.exec(&scenes::name(survivor));
        command::output(flush.args(["sync", "-f", &point]), WRITE)?;
        let before = recorded(lab, survivor)?;
        let compared = lab.compare_images()?;
        if recorded(lab, survivor)? == before {
            return Ok((compared.different * BLOCK as u64, before));
        }
        if std::time::Instant::now() >= end {
            bail!("the survivor's file system is still writing after {} s", QUIET.as_secs());
        }
    }
}

/// Bytes that a server has on record as different from its twin's copy.
fn recorded(lab: &Lab, at: NodeId) -> Result<u64> {
    let status = lab.status()?;
    let view = status.server(at)?.view.as_ref().context("the survivor does not answer")?;
    Ok(view.sets.first().context("no mirror set")?.dirty_blocks * BLOCK as u64)
}

struct Rebuilt {
    kind: RebuildKind,
    moved: u64,
    compared: u64,
    compared_moved: u64,
}

/// The last rebuild to a server: its kind from the events of the other, its bytes from that one's log.
fn rebuilt(lab: &mut Lab, to: NodeId) -> Result<Rebuilt> {
    let status = lab.status()?;
    let view = status.server(to.twin())?.view.as_ref().context("the survivor does not answer")?;
    // Newest first.
    let kind = view.events.iter().find_map(|event| {
        let EventKind::RebuildBegan { to: server, kind, .. } = event.kind else { return None };
        (server == to).then_some(kind)
    });
    let kind = kind.context("no event says that the rebuild began")?;
    let log = lab.node_log(to.twin())?;
    let done =
        log.lines().rev().find(|line| line.contains("rebuild done") && line.contains(&format!("to={to} ")));
    let done = done.context("the survivor's log does not tell of a rebuild")?;
    let figure = |name: &str| -> Result<u64> {
        let word = done.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        word.and_then(|word| word.parse().ok()).with_context(|| format!("no {name} in {done:?}"))
    };
    Ok(Rebuilt {
        kind,
        moved: figure("moved_bytes")?,
        compared: figure("compared_bytes")?,
        compared_moved: figure("compared_moved_bytes")?,
    })
}

fn stop_group(lab: &mut Lab, at: NodeId) -> Result<()> {
    let status = lab.status()?;
    let view = status.server(at)?.view.as_ref().context("the active server does not answer")?;
    let group = view.groups.first().context("no group")?.id;
    lab.operate(at, Operation::StopGroup { group })?;
    lab.wait("the group is stopped", scenes::TAKE_OVER, |status| {
        let stopped =
            status.views().all(|view| view.groups.iter().all(|group| group.state == GroupState::Stopped));
        stopped.then_some(())
    })
}

impl Lab {
    /// Compares the data of both image files.
    ///
    /// # Errors
    /// When one cannot be read.
    fn compare_images(&self) -> Result<Compared> {
        let status = self.status()?;
        let size = status.views().find_map(|view| Some(view.sets.first()?.size)).context("no mirror set")?;
        ensure!(status.servers.len() == 2, "two servers");
        images::compare(&status.servers[0].image, &status.servers[1].image, CONTROL_AREA, size)
    }
}
