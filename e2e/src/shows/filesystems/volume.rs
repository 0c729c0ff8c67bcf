//! A file system on the mirrored device of two real disk processes that lose power and serve in turn.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use peer::control::{DiskOrder, Role};
use serde_json::json;
use wire::{Epoch, Generation, NodeId};

use crate::command;
use crate::rig::{self, Plan, Rig, Side};

/// One call of a file system's tool.
const TOOL: Duration = Duration::from_secs(120);
/// For the kernel to let go of a file system whose device is gone.
const GONE: Duration = Duration::from_secs(30);

/// A kind of file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
}

impl Kind {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Ext4 => "ext4",
            Kind::Xfs => "xfs",
        }
    }
}

/// The pair, the side that serves, and where its file system is mounted.
pub struct Volume {
    rig: Rig,
    kind: Kind,
    epoch: u64,
    active: usize,
    mount: PathBuf,
    mounted: bool,
    folder: tempfile::TempDir,
}

impl Volume {
    /// Builds the pair on volatile disks and makes the file system.
    ///
    /// # Errors
    /// A step fails.
    pub fn new(kind: Kind, size: u64, no_flush: bool) -> Result<Self> {
        let extra = json!({ "volatile": true, "no_flush": no_flush });
        let mut rig = Rig::new(&Plan { size, cables: 2, extra, ..Plan::default() })?;
        rig.build()?;
        let folder = tempfile::Builder::new().prefix("futago-fs-").tempdir().context("make a folder")?;
        let mount = folder.path().join("mnt");
        std::fs::create_dir(&mount)?;
        let mut volume = Volume { rig, kind, epoch: 1, active: 0, mount, mounted: false, folder };
        let device = volume.device()?;
        let mut make = Command::new(format!("mkfs.{}", kind.name()));
        match kind {
            Kind::Ext4 => make.args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"]),
            Kind::Xfs => make.args(["-q", "-f"]),
        };
        command::output(make.arg(&device), TOOL)?;
        volume.mount()?;
        Ok(volume)
    }

    fn side(&mut self, side: usize) -> &mut Side {
        if side == 0 { &mut self.rig.one } else { &mut self.rig.two }
    }

    fn device(&mut self) -> Result<PathBuf> {
        let active = self.active;
        self.side(active).device()
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// A folder beside it, for logs and sockets.
    #[must_use]
    pub fn beside(&self) -> &Path {
        self.folder.path()
    }

    /// Which side serves: 1 or 2.
    #[must_use]
    pub fn active(&self) -> usize {
        self.active + 1
    }

    fn mount(&mut self) -> Result<()> {
        let device = self.device()?;
        let mut mount = Command::new("mount");
        mount.args(["-t", self.kind.name()]);
        if self.kind == Kind::Xfs {
            // What is left of the file system before the power loss may not be gone yet; it has the same name.
            mount.args(["-o", "nouuid"]);
        }
        command::output(mount.arg(device).arg(&self.mount), TOOL)?;
        self.mounted = true;
        Ok(())
    }

    /// Unmounts it in order.
    fn unmount(&mut self) -> Result<()> {
        command::output(Command::new("umount").arg(&self.mount), TOOL)?;
        self.mounted = false;
        Ok(())
    }

    /// Power loss of the serving side, or of both at once: the disk process dies, and with it the device; then everything
    /// that used it.
    ///
    /// # Errors
    /// The kernel does not let go of the file system.
    pub fn lose_power(&mut self, both: bool, users: &mut [Child]) -> Result<()> {
        let active = self.active;
        self.side(active).kill();
        if both {
            self.side(1 - active).kill();
        }
        for user in users {
            command::kill_group(user);
            let _ = user.wait();
        }
        let end = Instant::now() + GONE;
        // Whoever still ends in it keeps it for a moment.
        while command::output(Command::new("umount").arg(&self.mount), TOOL).is_err() {
            if Instant::now() >= end {
                command::output(Command::new("umount").arg("--lazy").arg(&self.mount), TOOL)?;
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.mounted = false;
        Ok(())
    }

    /// The other side takes over, alone; after a loss of both it is started first. The file system's journal is replayed, and
    /// its own check must be clean.
    ///
    /// # Errors
    /// It cannot take over or be mounted, or the check finds a fault.
    pub fn take_over(&mut self) -> Result<()> {
        self.active = 1 - self.active;
        let active = self.active;
        if !self.side(active).runs() {
            self.side(active).start()?;
        }
        self.epoch += 1;
        let epoch = self.epoch;
        self.side(active).activate(epoch)?;
        self.mount().context("after the power loss")?;
        self.unmount()?;
        self.check()?;
        self.mount()
    }

    /// The file system's own check, which changes nothing.
    fn check(&mut self) -> Result<()> {
        let device = self.device()?;
        let mut check = match self.kind {
            Kind::Ext4 => Command::new("e2fsck"),
            Kind::Xfs => Command::new("xfs_repair"),
        };
        match self.kind {
            Kind::Ext4 => check.args(["-f", "-n"]),
            Kind::Xfs => check.arg("-n"),
        };
        let said = command::collect(check.arg(device), TOOL)?;
        ensure!(said.status.success(), "the check of {} fails:\n{}{}", self.kind.name(), said.out, said.err);
        Ok(())
    }

    /// The side that lost power comes back as standby and is taken in again.
    ///
    /// # Errors
    /// It does not become equal.
    pub fn rejoin(&mut self) -> Result<()> {
        let (active, standby) = (self.active, 1 - self.active);
        self.side(standby).kill();
        self.side(standby).start()?;
        let (epoch, holder) = (Epoch(self.epoch), NodeId(active as u8 + 1));
        self.side(standby).order(DiskOrder::LearnEpoch { epoch, holder })?;
        let (one, two) = (&mut self.rig.one, &mut self.rig.two);
        if active == 0 { rig::admit(one, two) } else { rig::admit(two, one) }
    }

    /// The standby loses power while the other side goes on, and is taken in again.
    ///
    /// # Errors
    /// The pair does not heal.
    pub fn lose_standby(&mut self) -> Result<()> {
        let active = self.active;
        self.side(1 - active).kill();
        let mut bytes = [0xa5; 16];
        bytes[..8].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[8..].copy_from_slice(&std::process::id().to_le_bytes().repeat(2));
        let generation = Generation(bytes);
        self.side(active).order(DiskOrder::PutOut { generation })?;
        self.rejoin()
    }

    /// Ends in order; both images must be identical.
    ///
    /// # Errors
    /// They are not, or something does not end.
    pub fn end(mut self) -> Result<()> {
        self.unmount()?;
        self.check()?;
        let active = self.active;
        self.side(active).order(DiskOrder::Deactivate)?;
        let status = self.side(active).status()?;
        ensure!(status.role == Role::Standby, "not ended: {status:?}");
        self.side(active).quit()?;
        self.side(1 - active).quit()?;
        if let Some(at) = self.rig.difference()? {
            bail!("ended in order and in sync, and byte {at} differs");
        }
        Ok(())
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.mounted {
            // First the device: nothing is written back to it any more, nothing hangs.
            self.rig.one.kill();
            self.rig.two.kill();
            let _ = command::collect(Command::new("umount").arg("--lazy").arg(&self.mount), TOOL);
        }
    }
}

/// Starts a program that works on the file system, in a process group of its own.
///
/// # Errors
/// It cannot be started.
pub fn start(program: &mut Command, log: &Path) -> Result<Child> {
    use std::os::unix::process::CommandExt as _;
    let out = std::fs::File::options().create(true).append(true).open(log)?;
    program.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).process_group(0);
    program.spawn().with_context(|| format!("start {program:?}"))
}
