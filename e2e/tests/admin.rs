//! Mirror administration on real parts: after both servers lost power, a set is built, used by permission and given back; a disk
//! is exchanged under a group that goes on (C8).

use anyhow::{Context as _, Result, ensure};
use e2e::lab::{Lab, Setup, Status};
use e2e::{command, scenes};
use std::time::Duration;
use wire::SetId;
use wire::alert::EventKind;
use wire::command::Operation;
use wire::ids::NodeId;
use wire::view::{ServerState, SetState};

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
/// For a build of the demo's small set, and for a server to come up.
const PATIENCE: Duration = Duration::from_secs(60);

fn set(status: &Status) -> Option<SetId> {
    status.views().find_map(|view| Some(view.sets.first()?.id))
}

fn permitted(status: &Status, on: Option<NodeId>) -> Option<()> {
    let all = status.views().all(|view| view.sets.first().is_some_and(|set| set.permitted == on));
    (status.views().count() == 2 && all).then_some(())
}

fn told(status: &Status, what: fn(&EventKind) -> bool) -> Option<()> {
    status.views().any(|view| view.events.iter().any(|event| what(&event.kind))).then_some(())
}

/// The block device of the set on a server, as its disk process told.
fn write_and_read(lab: &Lab, server: &str, text: &str) -> Result<String> {
    let script = format!(
        "set -e; for d in /sys/block/loop*; do f=$(cat $d/loop/backing_file 2>/dev/null || true); case \"$f\" in *{server}*/data) dev=/dev/$(basename $d);; esac; done; \
         mkdir -p /run/admin; mount $dev /run/admin; test -z '{text}' || echo '{text}' > /run/admin/admin; cat /run/admin/admin; umount /run/admin"
    );
    command::output(lab.exec(server).args(["sh", "-c", &script]), Duration::from_secs(20))
}

#[test]
fn after_both_were_down_a_set_is_built_used_by_permission_and_given_back() -> Result<()> {
    let mut lab = Lab::start(&Setup::default())?;
    lab.wait_healthy(PATIENCE)?;
    let status = lab.status()?;
    let set = set(&status).context("a mirror set")?;
    let refused = lab.operate(ONE, Operation::PermitSet { set, on: ONE });
    let reason = format!("{refused:?}");
    ensure!(refused.is_err() && reason.contains("M-2063"), "permitted while its group is active: {reason}");
    for server in [ONE, TWO] {
        lab.demo(&["kill", &scenes::name(server)])?;
    }
    for server in [ONE, TWO] {
        lab.demo(&["restart", &scenes::name(server)])?;
    }
    lab.wait("both servers are restarted after down", PATIENCE, |status| {
        let is = |state: ServerState| state == ServerState::RestartedAfterDown;
        let all = status.views().all(|view| view.servers.iter().all(|server| is(server.state)));
        let known = status.views().all(|view| view.sets.iter().all(|set| set.state != SetState::Unknown));
        (status.views().count() == 2 && all && known).then_some(())
    })?;
    lab.operate(ONE, Operation::BuildSet { set, to: TWO })?;
    lab.wait("built", PATIENCE, |status| {
        told(status, |event| matches!(event, EventKind::MirrorBuilt { .. }))
    })?;

    lab.operate(TWO, Operation::PermitSet { set, on: ONE })?;
    lab.wait("permitted", PATIENCE, |status| permitted(status, Some(ONE)))?;
    let read = write_and_read(&lab, "server1", "by permission")?;
    ensure!(read.trim() == "by permission", "{read:?}");
    let refused = lab.operate(ONE, Operation::RecoverServer { server: ONE });
    ensure!(format!("{refused:?}").contains("M-2067"), "recovered under a permission: {refused:?}");
    lab.operate(ONE, Operation::RestrictSet { set, on: ONE })?;
    lab.wait("restricted", PATIENCE, |status| permitted(status, None))?;

    // The other copy is behind by what was written; it is built again by the ordinary recovery.
    lab.operate(ONE, Operation::RecoverServer { server: ONE })?;
    let group = scenes::group(&lab)?;
    lab.wait("takes part", PATIENCE, |status| {
        let normal = |view: &wire::ClusterView| {
            view.servers.iter().any(|s| s.id == ONE && s.state == ServerState::Normal)
        };
        status.views().all(normal).then_some(())
    })?;
    lab.operate(ONE, Operation::StartGroup { group, on: ONE })?;
    lab.operate(ONE, Operation::RecoverServer { server: TWO })?;
    lab.wait_healthy(PATIENCE)?;
    lab.end()
}

#[test]
fn a_disk_is_exchanged_under_a_group_that_goes_on_and_is_built_in_full() -> Result<()> {
    let mut lab = Lab::start(&Setup::default())?;
    let active = lab.wait_healthy(PATIENCE)?;
    let other = active.twin();
    let set = set(&lab.status()?).context("a mirror set")?;
    let counted = lab.operate(other, Operation::ExchangeDisk { set, server: other });
    ensure!(format!("{counted:?}").contains("M-2069"), "a copy that counts: {counted:?}");
    lab.operate(active, Operation::StopServer { server: other })?;
    lab.wait("stopped", PATIENCE, |status| {
        let stopped = |view: &wire::ClusterView| {
            view.servers.iter().any(|s| s.id == other && s.state == ServerState::Stopped)
        };
        status.views().all(stopped).then_some(())
    })?;
    lab.operate(other, Operation::ExchangeDisk { set, server: other })?;
    lab.wait("exchanged", PATIENCE, |status| {
        told(status, |event| {
            matches!(event, EventKind::DiskExchanged { .. } | EventKind::DiskNotExchanged { .. })
        })
    })?;
    let refused = lab
        .status()?
        .views()
        .any(|view| view.events.iter().any(|event| matches!(event.kind, EventKind::DiskNotExchanged { .. })));
    ensure!(!refused, "the disk was not taken: {}", lab.said());
    lab.operate(active, Operation::StartServer { server: other })?;
    ensure!(lab.wait_healthy(PATIENCE)? == active, "the group went on where it was");
    lab.end()
}
