//! The write mode of a set on real servers (C4): chosen on a running cluster, over a line that is too slow for the writer, and what
//! a failover then finds.

use anyhow::{Context as _, Result, ensure};
use e2e::browser::DESK;
use e2e::lab::{Lab, Setup, Status};
use e2e::page::{drive, log_in, part, see_text};
use e2e::{command, paths, scenes};
use std::time::Duration;
use wire::alert::EventKind;
use wire::command::Operation;
use wire::ids::{GroupId, NodeId};
use wire::traffic::WriteMode;
use wire::view::{GroupState, SetView};

/// For a change of mode to be in force, and for some MiB over the slow line.
const PATIENCE: Duration = Duration::from_secs(60);
/// The block interconnects carry so much: a fraction of what the writer writes.
const LINE: &str = "2mbit";
/// Numbered blocks of the writer.
const BLOCK: usize = 4096;
/// As many as the line takes some seconds for.
const BLOCKS: usize = 2048;
/// Blocks between two flushes.
const FLUSH: usize = 64;

fn set(status: &Status, at: NodeId) -> Option<SetView> {
    status.views().find(|view| view.server == at)?.sets.first().cloned()
}

fn mode(lab: &Lab, at: NodeId, word: &str) -> Result<String> {
    let mut order = lab.exec(&scenes::name(at));
    order.arg(paths::program()?).args(["set", "mode", "1", word]);
    order.arg("--data").arg(lab.folder().join(scenes::name(at)));
    command::output(&mut order, PATIENCE)
}

fn in_force(lab: &mut Lab, mode: WriteMode) -> Result<()> {
    lab.wait("the mode is in force on both pages", PATIENCE, |status| {
        let shown = |at| set(status, at).is_some_and(|set| set.mode == mode && set.mode_in_force == mode);
        NodeId::BOTH.into_iter().all(shown).then_some(())
    })
}

/// Both interconnects of a server send so much a second, or what they can.
fn line(lab: &Lab, at: NodeId, slow: bool) -> Result<()> {
    let change = if slow {
        format!("add dev $d root tbf rate {LINE} burst 16k limit 32k")
    } else {
        "del dev $d root".into()
    };
    let script = format!("set -e; for d in ic1 ic2; do tc qdisc {change}; done");
    command::output(lab.exec(&scenes::name(at)).args(["sh", "-c", &script]), PATIENCE)?;
    Ok(())
}

/// Writes the numbered blocks into a file of the group's file system, and flushes now and then.
fn write(lab: &Lab, at: NodeId, file: &str) -> Result<()> {
    let script = format!(
        "use IO::Handle; open(F, '+>', '{file}') or die; for $n (1..{BLOCKS}) {{ syswrite(F, pack('Q<', $n) x {}) or die; F->sync or die if $n % {FLUSH} == 0 }}",
        BLOCK / 8
    );
    command::output(lab.exec(&scenes::name(at)).args(["perl", "-e", &script]), PATIENCE)?;
    Ok(())
}

fn blocks(lab: &Lab, at: NodeId, file: &str) -> Result<Vec<u64>> {
    let script = format!(
        "open(F, '<', '{file}') or exit 0; while (sysread(F, $b, {BLOCK}) == {BLOCK}) {{ print unpack('Q<', $b), ' ' }}"
    );
    let said = command::output(lab.exec(&scenes::name(at)).args(["perl", "-e", &script]), PATIENCE)?;
    said.split_whitespace().map(|word| word.parse().context("a number of a block")).collect()
}

fn events(status: &Status, what: fn(&EventKind) -> bool) -> bool {
    status.views().any(|view| view.events.iter().any(|event| what(&event.kind)))
}

#[test]
fn an_asynchronous_set_answers_early_falls_behind_catches_up_and_fails_over_to_an_earlier_state() -> Result<()>
{
    let mut lab = Lab::start(&Setup::default())?;
    let active = lab.wait_healthy(PATIENCE)?;
    let twin = active.twin();
    let point = lab.mount_point()?;
    let group = scenes::group(&lab)?;
    mode(&lab, twin, "async")?;
    in_force(&mut lab, WriteMode::Asynchronous)?;
    page(&lab, active)?;

    // Everything is answered, and flushed here, long before the line has carried it.
    line(&lab, active, true)?;
    let first = format!("{point}/first");
    write(&lab, active, &first)?;
    lab.wait("the other copy is seconds behind, and its server knows", PATIENCE, |status| {
        let far = |at| set(status, at)?.behind.filter(|behind| behind.ms >= 2_000);
        NodeId::BOTH.into_iter().all(|at| far(at).is_some()).then_some(())
    })?;
    let refused = format!("{:?}", mode(&lab, active, "sync"));
    ensure!(refused.contains("M-2083"), "made synchronous while far behind: {refused}");
    line(&lab, active, false)?;
    lab.wait("the other copy has caught up", PATIENCE, |status| {
        NodeId::BOTH
            .into_iter()
            .all(|at| set(status, at).is_some_and(|set| set.behind.is_none()))
            .then_some(())
    })?;

    // Stricter and looser again under way: nothing is lost by that.
    mode(&lab, active, "sync")?;
    in_force(&mut lab, WriteMode::Synchronous)?;
    mode(&lab, active, "async")?;
    in_force(&mut lab, WriteMode::Asynchronous)?;
    lab.operate(active, Operation::MoveGroup { group, to: twin })?;
    runs_on(&mut lab, group, twin)?;
    ensure!(blocks(&lab, twin, &first)? == (1..=BLOCKS as u64).collect::<Vec<_>>(), "a move drains first");

    // The active side dies with what the line had not carried.
    lab.wait_healthy(PATIENCE)?;
    line(&lab, twin, true)?;
    let second = format!("{point}/second");
    write(&lab, twin, &second)?;
    lab.demo(&["kill", &scenes::name(twin)])?;
    runs_on(&mut lab, group, active)?;
    let there = blocks(&lab, active, &second)?;
    ensure!(there.len() < BLOCKS, "the line was too fast for this test: nothing was behind");
    ensure!(
        blocks(&lab, active, &first)? == (1..=BLOCKS as u64).collect::<Vec<_>>(),
        "what was flushed long before"
    );
    // The file system brings what its own journal had: whole pieces between two flushes, in order.
    let whole: Vec<u64> = (1..=there.len() as u64).collect();
    ensure!(there == whole, "not an earlier state: {} blocks, not the first ones", there.len());
    let told = lab.status()?;
    ensure!(events(&told, |event| matches!(event, EventKind::WritesLost { .. })), "the loss is told");
    lab.end()
}

fn runs_on(lab: &mut Lab, group: GroupId, on: NodeId) -> Result<()> {
    lab.wait("the group runs there", PATIENCE, |status| {
        let view = status.views().find(|view| view.server == on)?;
        let found = view.groups.iter().find(|it| it.id == group)?;
        (found.active == Some(on) && found.state == GroupState::Running).then_some(())
    })
}

/// What the page says of it, and the way back and forth by its buttons.
fn page(lab: &Lab, at: NodeId) -> Result<()> {
    drive(async {
        let browser = log_in(lab, at, DESK).await?;
        see_text(&browser, "set-1-mode", &["asynchronous"], PATIENCE).await?;
        browser.see(&part("set-1-admin")).await?.click().await?;
        let pressed = |word: &str| format!("{}[aria-pressed='true']", part(&format!("set-1-mode-{word}")));
        browser.see(&pressed("async")).await?;
        browser.picture(&paths::out()?.join("page-modes.png")).await?;
        let found = browser.axe().await?;
        ensure!(found.is_empty(), "axe-core: {}", found.join("\n"));
        for word in ["semi", "async"] {
            browser.see(&part(&format!("set-1-mode-{word}"))).await?.click().await?;
            browser.see(&pressed(word)).await?;
        }
        browser.end().await
    })
}
