//! Where things are: the work tree, the target folder of this very build, the built program.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The root of the work tree.
#[must_use]
pub fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_path_buf()
}

/// The target folder that this executable was built in (cargo marks it with `CACHEDIR.TAG`).
///
/// # Errors
/// When the executable was moved out of a target folder.
pub fn target() -> Result<PathBuf> {
    let own = std::env::current_exe().context("where is this executable")?;
    own.ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").exists())
        .map(Path::to_path_buf)
        .with_context(|| format!("{} does not lie in a cargo target folder", own.display()))
}

/// The program under test, built in release; `FUTAGO_BIN` names another.
///
/// # Errors
/// When it has not been built yet.
pub fn program() -> Result<PathBuf> {
    let program = match std::env::var_os("FUTAGO_BIN") {
        Some(named) => PathBuf::from(named),
        None => target()?.join("release/futago"),
    };
    if !program.exists() {
        bail!("{} is not there: build it first with `cargo build --release`", program.display());
    }
    Ok(program)
}

/// Where pictures and records of a run are kept (not in git).
///
/// # Errors
/// When the folder cannot be made.
pub fn out() -> Result<PathBuf> {
    let out = root().join("e2e/out");
    std::fs::create_dir_all(&out).with_context(|| format!("make {}", out.display()))?;
    Ok(out)
}

/// The executable behind `cargo x`; beside the tests it lies one folder up.
///
/// # Errors
/// When it has not been built.
pub fn x() -> Result<PathBuf> {
    let own = std::env::current_exe().context("where is this executable")?;
    let x = own.ancestors().skip(1).take(2).map(|folder| folder.join("x")).find(|x| x.is_file());
    x.with_context(|| format!("no x beside {}: build it with `cargo build -p e2e`", own.display()))
}
