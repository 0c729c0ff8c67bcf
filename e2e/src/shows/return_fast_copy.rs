//! `return-fast-copy`: a killed server returns, a click recovers it, and the copy moves only what changed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
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
use crate::writer::Judge;
use crate::{page, paths};

/// The survivor works alone for so long.
const ALONE: Duration = Duration::from_secs(5);

/// What may be written while the copy runs: the small appends with their journal.
const WRITTEN_MEANWHILE: u64 = 4 << 20;

/// The control area in front of the data of a set of up to some gigabytes: bytes that differ by their nature.
const CONTROL_AREA: u64 = 1 << 20;

/// The show.
///
/// # Errors
/// When a step does not come to its end.
pub fn run(options: &Options) -> Result<Outcome> {
    let setup = Setup { size_mib: options.figure("size", 256)?, ..Setup::default() };
    let mut lab = Lab::start(&setup)?;
    let mut writer = lab.writer("client")?;
    let mut judge = Judge::default();
    let victim = scenes::kill_active(&mut lab, &mut writer, &mut judge)?;
    std::thread::sleep(ALONE);
    judge.hear(&writer.wait_for_more(scenes::TAKE_OVER)?);
    lab.demo(&["restart", &scenes::name(victim)])?;
    scenes::wait_restarted(&mut lab, victim)?;
    let before = lab.compare_images()?;
    let recorded = recorded(&lab, victim.twin())?;
    page::drive(async {
        let browser = page::log_in(&lab, victim.twin(), DESK).await?;
        browser.picture(&paths::out()?.join("restarted-after-down.png")).await?;
        page::press(&browser, &format!("op-recover-{}", victim.0)).await?;
        page::see_healthy(&browser, scenes::RECOVER).await?;
        browser.end().await
    })?;
    lab.wait_healthy(scenes::RECOVER)?;
    let rebuilt = rebuilt(&lab, victim)?;
    judge.hear(&writer.wait_for_more(scenes::TAKE_OVER)?);
    judge.hear(&writer.end()?);
    stop_group(&mut lab, victim.twin())?;
    let after = lab.compare_images()?;
    lab.end()?;
    let changed = before.different * BLOCK as u64;
    let mut table = Table::new(&["what", "bytes"]);
    table.row(&["size of the mirror".to_owned(), (after.blocks * BLOCK as u64).to_string()]);
    table.row(&["different when the server was back".to_owned(), changed.to_string()]);
    table.row(&["recorded as changed then".to_owned(), recorded.to_string()]);
    table.row(&["moved by the rebuild".to_owned(), rebuilt.moved.to_string()]);
    table.row(&["hot extents compared by checksum".to_owned(), rebuilt.compared.to_string()]);
    table.row(&[
        "different afterwards, group stopped".to_owned(),
        (after.different * BLOCK as u64).to_string(),
    ]);
    table.print();
    println!("\nkind of copy: {:?}", rebuilt.kind);
    let fast = rebuilt.kind == RebuildKind::Fast;
    // A block can be written and still be equal (zeros over zeros), and writes go on between the comparison and the end
    // of the copy: a little more than what was recorded may move, never less than what differs.
    let only_changed = rebuilt.moved >= changed && rebuilt.moved <= recorded + WRITTEN_MEANWHILE;
    let holds = fast && only_changed && changed > 0 && after.different == 0 && judge.lost == 0;
    let facts = json!({
        "changed_bytes": changed, "recorded_bytes": recorded, "moved_bytes": rebuilt.moved, "compared_bytes": rebuilt.compared, "fast": fast,
        "size_bytes": after.blocks * BLOCK as u64, "different_bytes_after": after.different * BLOCK as u64,
        "lost": judge.lost,
    });
    Ok(Outcome::new(holds, facts))
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
}

/// The last rebuild to a server, from the events of the other.
fn rebuilt(lab: &Lab, to: NodeId) -> Result<Rebuilt> {
    let status = lab.status()?;
    let view = status.server(to.twin())?.view.as_ref().context("the survivor does not answer")?;
    let (mut kind, mut moved) = (None, None);
    // Newest first.
    for event in view.events.iter().rev() {
        if let EventKind::RebuildDone { to: server, moved_bytes, compared_bytes, .. } = event.kind
            && server == to
        {
            moved = Some((moved_bytes, compared_bytes));
        }
        if let EventKind::RebuildBegan { to: server, kind: began, .. } = event.kind
            && server == to
        {
            kind = Some(began);
        }
    }
    let kind = kind.context("no event says that the rebuild began")?;
    let (moved, compared) = moved.context("no event says that the rebuild is done")?;
    Ok(Rebuilt { kind, moved, compared })
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
