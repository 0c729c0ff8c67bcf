//! The demo leaves nothing behind, sweeps what a killed launcher left, and says plainly when it is not root.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::lab::{Lab, Setup};
use e2e::{command, paths};

/// The user and group `nobody` of every Linux.
const NOBODY: u32 = 65534;

/// [`Lab::end`] compares the machine before and after.
#[test]
fn ctrl_c_leaves_nothing() -> Result<()> {
    Lab::start(&Setup::default())?.end()
}

#[test]
fn the_next_start_sweeps_what_a_killed_launcher_left() -> Result<()> {
    let lab = Lab::start(&Setup::default())?;
    let (folder, before) = lab.kill_launcher()?;
    let lab = Lab::start_again(&Setup::default(), folder, before)?;
    lab.end()
}

#[test]
fn without_root_one_clear_sentence_and_exit_2() -> Result<()> {
    // The target folder may lie where nobody may look.
    let folder = tempfile::tempdir()?;
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))?;
    let program = folder.path().join("futago");
    std::fs::copy(paths::program()?, &program)?;
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755))?;
    let mut futago = Command::new(&program);
    futago.current_dir(folder.path()).uid(NOBODY).gid(NOBODY);
    let said = command::collect(&mut futago, Duration::from_secs(20))?;
    ensure!(said.status.code() == Some(2), "ended with {}: {}{}", said.status, said.out, said.err);
    let words = format!("{}{}", said.out, said.err);
    ensure!(words.trim().lines().count() == 1 && words.contains("root"), "said: {words:?}");
    Ok(())
}
