//! Comparing both copies and pacing a rebuild as an operator orders it, on real parts under load (C7, C10).

use anyhow::{Context as _, Result, ensure};
use e2e::lab::{Lab, Setup, Status};
use e2e::{command, paths, scenes};
use std::fs::OpenOptions;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;
use wire::command::{Operation, RebuildTurn, VerifyTurn};
use wire::ids::{NodeId, SetId};
use wire::view::{Rebuild, SetState, SetView, Verified};

/// For a comparison or a build of the demo's small set, and for a server to come up.
const PATIENCE: Duration = Duration::from_secs(60);
const COMMAND: Duration = Duration::from_secs(20);
const BLOCK: u64 = 4096;

/// The set as both servers show it, once they agree on what is asked.
fn shown<T: PartialEq>(status: &Status, read: impl Fn(&SetView) -> Option<T>) -> Option<T> {
    let mut told = status.views().map(|view| view.sets.first().and_then(&read));
    let (first, second) = (told.next()??, told.next()??);
    (first == second).then_some(first)
}

fn cli(lab: &Lab, at: NodeId, words: &[&str]) -> Result<String> {
    let mut order = lab.exec(&scenes::name(at));
    order.arg(paths::program()?).arg("set").args(words);
    order.arg("--data").arg(lab.folder().join(scenes::name(at)));
    command::output(&mut order, COMMAND)
}

/// Compares everything, and waits until both servers show how it ended.
fn compare(lab: &mut Lab, at: NodeId, name: &str) -> Result<Verified> {
    let before = lab.status()?.views().find_map(|view| view.sets.first()?.verified);
    cli(lab, at, &["verify", name, "--rate", "8192"])?;
    let found = lab.wait("compared", PATIENCE, |status| {
        shown(status, |set| set.verified.filter(|_| set.verify.is_none() && set.verified != before))
    })?;
    ensure!(!found.stopped, "{found:?}");
    Ok(found)
}

/// Writes to a server's image as a failing disk, or a careless hand, does.
fn spoil(lab: &Lab, server: NodeId, size: u64, block: u64) -> Result<()> {
    let status = lab.status()?;
    let image = OpenOptions::new().write(true).open(&status.server(server)?.image)?;
    image.write_all_at(&[0xA5; 512], mirror::layout::control_bytes(size) + block * BLOCK)?;
    image.sync_all().context("spoil a block")
}

fn block(lab: &Lab, server: NodeId, size: u64, block: u64) -> Result<Vec<u8>> {
    let image = std::fs::File::open(&lab.status()?.server(server)?.image)?;
    let mut bytes = vec![0; 4096];
    image.read_exact_at(&mut bytes, mirror::layout::control_bytes(size) + block * BLOCK)?;
    Ok(bytes)
}

#[test]
fn an_operator_compares_both_copies_under_load_and_damage_is_set_right_from_the_right_side() -> Result<()> {
    let mut lab = Lab::start(&Setup::default())?;
    let active = lab.wait_healthy(PATIENCE)?;
    let (set, name, size) = lab
        .status()?
        .views()
        .find_map(|view| view.sets.first().map(|set| (set.id, set.name.clone(), set.size)))
        .context("a mirror set")?;
    let mut writer = lab.writer("client")?;

    let turn = |turn| Operation::VerifySet { set, turn };
    let refused = |lab: &Lab, at, what, reason: &str| -> Result<()> {
        let said = lab.operate(at, what);
        ensure!(said.is_err() && format!("{said:?}").contains(reason), "{what:?} at {at:?}: {said:?}");
        Ok(())
    };
    refused(&lab, active.twin(), turn(VerifyTurn::Start { limit: None }), "M-2078")?;
    refused(&lab, active, turn(VerifyTurn::Pause), "M-2082")?;
    refused(&lab, active, Operation::PaceRebuild { set, turn: RebuildTurn::Pause }, "M-2082")?;
    refused(&lab, active, Operation::VerifySet { set: SetId(99), turn: VerifyTurn::End }, "M-2060")?;

    // Slow enough to be paused, limited anew and ended on the way.
    cli(&lab, active, &["verify", &name, "--rate", "1"])?;
    lab.wait("compares slowly", PATIENCE, |status| {
        shown(status, |set| (set.verify?.limit == Some(1 << 20) && set.verify?.done > 0).then_some(()))
    })?;
    refused(&lab, active, turn(VerifyTurn::Start { limit: None }), "M-2080")?;
    cli(&lab, active, &["verify", &name, "pause"])?;
    lab.wait("paused", PATIENCE, |status| shown(status, |set| set.verify?.paused.then_some(())))?;
    refused(&lab, active, turn(VerifyTurn::Pause), "M-2081")?;
    cli(&lab, active, &["verify", &name, "limit", "--rate", "2"])?;
    cli(&lab, active, &["verify", &name, "resume"])?;
    lab.wait("goes on", PATIENCE, |status| {
        shown(status, |set| (set.verify?.running && set.verify?.limit == Some(2 << 20)).then_some(()))
    })?;
    cli(&lab, active, &["verify", &name, "end"])?;
    lab.wait("ended", PATIENCE, |status| {
        shown(status, |set| {
            set.verified.filter(|last| last.stopped && last.checked < size / BLOCK).map(|_| ())
        })
    })?;

    // All of it, under load: nothing is taken for a difference.
    for _ in 0..3 {
        let found = compare(&mut lab, active, &name)?;
        ensure!((found.checked, found.different) == (size / BLOCK, 0), "a false alarm: {found:?}");
        writer.wait_for_more(PATIENCE)?;
    }
    // Far behind what the file system uses, so that nobody writes there; both tables know it by then.
    let victims = [(active.twin(), 30_000), (active, 30_500)];
    for (server, at) in victims {
        spoil(&lab, server, size, at)?;
    }
    let found = compare(&mut lab, active, &name)?;
    ensure!((found.different, found.repaired, found.unresolved) == (2, 2, 0), "{found:?}");
    for (server, at) in victims {
        lab.wait("equal again", PATIENCE, |status| {
            shown(status, |s| (s.state == SetState::InSync).then_some(()))
        })?;
        ensure!(
            block(&lab, server, size, at)? == block(&lab, server.twin(), size, at)?,
            "block {at} is not set right on {server:?}"
        );
        ensure!(block(&lab, server, size, at)?.iter().all(|byte| *byte == 0), "from the wrong side");
    }
    let again = compare(&mut lab, active, &name)?;
    ensure!(again.different == 0, "{again:?}");
    writer.wait_for_more(PATIENCE)?;
    writer.end()?;
    lab.end()
}

/// The rebuild that both servers show.
fn rebuild(status: &Status) -> Option<Rebuild> {
    status.views().find_map(|view| {
        let state = &view.sets.first()?.state;
        if let SetState::Rebuilding { progress } = state { Some(*progress) } else { None }
    })
}

#[test]
fn an_operator_limits_pauses_and_resumes_a_rebuild() -> Result<()> {
    let mut lab = Lab::start(&Setup::default())?;
    let active = lab.wait_healthy(PATIENCE)?;
    let set = lab.status()?.views().find_map(|view| Some(view.sets.first()?.id)).context("a mirror set")?;
    let name =
        lab.status()?.views().find_map(|view| Some(view.sets.first()?.name.clone())).context("its name")?;
    let victim = active.twin();
    lab.demo(&["kill", &scenes::name(victim)])?;
    lab.wait("alone", PATIENCE, |status| {
        status
            .views()
            .find_map(|view| matches!(view.sets.first()?.state, SetState::Alone { .. }).then_some(()))
    })?;
    let file = format!("{}/bulk", lab.mount_point()?);
    let script = format!("head -c 25165824 /dev/urandom > {file}; sync -f {file}");
    command::output(lab.exec(&scenes::name(active)).args(["sh", "-c", &script]), COMMAND)?;
    lab.demo(&["restart", &scenes::name(victim)])?;
    scenes::wait_restarted(&mut lab, victim)?;
    // Before it begins, so that it does not run away.
    cli(&lab, active, &["rebuild", &name, "limit", "--rate", "1"])?;
    lab.operate(active, Operation::RecoverServer { server: victim })?;
    let slow = lab.wait("rebuilds within its limit", PATIENCE, |status| {
        rebuild(status).filter(|it| it.done > 0 && it.left_s.is_some())
    })?;
    ensure!(slow.limit == Some(1 << 20) && !slow.paused, "{slow:?}");
    cli(&lab, active, &["rebuild", &name, "pause"])?;
    let paused = lab.wait("paused", PATIENCE, |status| rebuild(status).filter(|it| it.paused))?;
    ensure!(paused.left_s.is_none() && paused.done < paused.total, "{paused:?}");
    let view = lab.status()?.server(active)?.view.clone().context("its view")?;
    let listed = |what| view.operations.iter().find(|p| p.what == what).map(|p| p.refused);
    let pace = |turn| Operation::PaceRebuild { set, turn };
    ensure!(listed(pace(RebuildTurn::Resume)) == Some(None), "it can be resumed");
    ensure!(
        listed(pace(RebuildTurn::Pause)).flatten().map(wire::RefusalKind::code) == Some(2081),
        "once only"
    );
    let limit = NonZeroU64::new(2 << 30);
    lab.operate(active, pace(RebuildTurn::Limit { limit }))?;
    cli(&lab, active, &["rebuild", &name, "resume"])?;
    lab.wait_healthy(PATIENCE)?;
    lab.end()
}
