//! ext4 and XFS under load on the mirrored device: what was synced is there after every power loss.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::volume::{Kind, Volume, start};
use crate::command;

/// Bytes of the mirrored device: enough for a file system's journal and what is written.
const SIZE: u64 = 384 << 20;
/// MiB of the file that fio verifies.
const FIO_MIB: u64 = 24;
/// For fio to write or verify it.
const FIO: Duration = Duration::from_secs(120);
/// How long the load runs before a power loss.
const LOAD: Duration = Duration::from_secs(3);

/// What rounds on one kind of file system came to.
#[derive(Debug, Default)]
pub struct Found {
    /// Power losses survived, with a clean check of the file system after each.
    pub losses: u64,
    /// Files that were synced, and are looked at after each.
    pub synced: u64,
    /// Of these, missing or with other content.
    pub lost: u64,
    /// What went wrong first.
    pub broken: Option<String>,
}

/// Which power is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Of the serving side.
    Active,
    /// Of both at once.
    Both,
    /// Of the standby, which is taken in again; then of the serving side.
    StandbyThenActive,
}

/// Plays these losses one after the other on one file system.
pub fn play(kind: Kind, losses: &[Loss], no_flush: bool) -> Found {
    let mut found = Found::default();
    if let Err(error) = run(kind, losses, no_flush, &mut found) {
        found.broken = Some(format!("{error:#}"));
    }
    found
}

fn run(kind: Kind, losses: &[Loss], no_flush: bool, found: &mut Found) -> Result<()> {
    let mut volume = Volume::new(kind, SIZE, no_flush)?;
    let mut synced: Vec<(u64, u64)> = Vec::new();
    for (round, loss) in (0_u64..).zip(losses) {
        let pattern = fio(&volume, round, true).context("fio writes")?;
        let recorder = Recorder::start(volume.path(), round)?;
        let mut users = load(&volume)?;
        std::thread::sleep(LOAD);
        if *loss == Loss::StandbyThenActive {
            volume.lose_standby()?;
            std::thread::sleep(LOAD / 3);
        }
        recorder.stop.store(true, Ordering::SeqCst);
        let lost = volume.lose_power(*loss == Loss::Both, &mut users);
        synced.extend(recorder.end());
        lost?;
        volume.take_over()?;
        found.losses += 1;
        found.synced = synced.len() as u64;
        found.lost += synced.iter().filter(|file| !is_there(volume.path(), **file)).count() as u64;
        fio(&volume, pattern, false).context("fio verifies what it had synced")?;
        volume.rejoin()?;
        let _ = fs::remove_dir_all(volume.path().join("stress"));
        println!(
            "  {} {loss:?}: serves on side {}, {} synced files, {} lost",
            kind.name(),
            volume.active(),
            synced.len(),
            found.lost
        );
    }
    volume.end()
}

/// fio writes a file with a checksum in each block and syncs it, or verifies that.
fn fio(volume: &Volume, round: u64, write: bool) -> Result<u64> {
    let mut fio = Command::new("fio");
    fio.args(["--name=verified", "--rw=randwrite", "--bs=4k", "--ioengine=psync", "--verify=crc32c"]);
    fio.args([&format!("--size={FIO_MIB}m"), &format!("--randseed={}", round + 1), "--verify_fatal=1"]);
    fio.arg(format!("--filename={}", volume.path().join("verified").display()));
    fio.current_dir(volume.beside());
    fio.args(if write {
        ["--do_verify=0", "--end_fsync=1"]
    } else {
        ["--verify_only", "--output-format=terse"]
    });
    command::output(&mut fio, FIO)?;
    Ok(round)
}

/// A load like that of fsstress: names made, linked, renamed and removed, files grown, cut and punched, all at once.
fn load(volume: &Volume) -> Result<Vec<Child>> {
    let folder = volume.path().join("stress");
    fs::create_dir_all(&folder)?;
    let mut stress = Command::new("stress-ng");
    stress.args(["--temp-path"]).arg(&folder).args(["--timeout", "300", "--quiet"]);
    for part in ["dentry", "rename", "link", "fallocate", "chmod", "xattr"] {
        stress.args([&format!("--{part}"), "1"]);
    }
    stress.args(["--fallocate-bytes", "8m", "--hdd", "1", "--hdd-bytes", "16m", "--dentries", "256"]);
    Ok(vec![start(&mut stress, &volume.beside().join("stress.log"))?])
}

/// A client that writes small files and syncs each with its folder: once it has done so, the file must stay.
struct Recorder {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(u64, u64)>>,
}

impl Recorder {
    fn start(at: &Path, round: u64) -> Result<Self> {
        let folder = at.join(format!("synced-{round}"));
        fs::create_dir_all(&folder)?;
        File::open(at)?.sync_all()?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut done = Vec::new();
            for number in 0.. {
                if told.load(Ordering::SeqCst) || one(&folder, round, number).is_err() {
                    break;
                }
                done.push((round, number));
            }
            done
        });
        Ok(Recorder { stop, thread })
    }

    fn end(self) -> Vec<(u64, u64)> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap_or_default()
    }
}

fn content(round: u64, number: u64) -> Vec<u8> {
    let length = (number.wrapping_mul(7_919) % 9_000 + 20) as usize;
    format!("{round}-{number}\n").into_bytes().into_iter().cycle().take(length).collect()
}

fn one(folder: &Path, round: u64, number: u64) -> std::io::Result<()> {
    let mut file = File::create(folder.join(number.to_string()))?;
    file.write_all(&content(round, number))?;
    file.sync_all()?;
    File::open(folder)?.sync_all()
}

fn is_there(at: &Path, (round, number): (u64, u64)) -> bool {
    let found = fs::read(at.join(format!("synced-{round}")).join(number.to_string()));
    found.is_ok_and(|found| found == content(round, number))
}
