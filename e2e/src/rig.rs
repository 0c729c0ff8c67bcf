//! Two real disk processes on two hosts of their own (network namespaces, one cable), driven over their control sockets as the
//! node processes would: for what concerns the data path alone.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use peer::control::{DiskOrder, DiskStatus, Done, FromDisk, OrderFault, Role, Ticket, ToDisk};
use serde_json::{Value, json};
use wire::{Epoch, Generation, NodeId};

use crate::{command, paths};

/// Nothing the rig waits for takes a fraction of it on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// A killed process is gone long before.
const DYING: Duration = Duration::from_secs(10);
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(2);
/// Pieces in which images are written and compared.
const PIECE: usize = 4 << 20;

/// Rigs made by this process so far: several may stand side by side.
static RIGS: AtomicU32 = AtomicU32::new(0);

/// Cluster and number of the set.
pub const CLUSTER: [u8; 16] = [9; 16];
/// See [`CLUSTER`].
pub const SET: u16 = 5;
/// Every byte of the cluster key.
pub const KEY: u8 = 42;

/// What a rig is made with.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Bytes of mirrored data.
    pub size: u64,
    /// Cables between the two hosts, each an interconnect: one or two.
    pub cables: u8,
    /// Whether every byte of both images is written before the set is formatted, with the same content: no holes, as on a
    /// disk.
    pub filled: bool,
    /// Whether the images are as long as they need to be and take no room before they are written.
    pub sparse: bool,
    /// Added to the options of both disk processes, such as `volatile`.
    pub extra: Value,
}

impl Default for Plan {
    fn default() -> Self {
        Plan { size: 64 << 20, cables: 1, filled: false, sparse: false, extra: json!({}) }
    }
}

/// Two hosts and what they share.
#[derive(Debug)]
pub struct Rig {
    /// The lower side.
    pub one: Side,
    /// The higher side.
    pub two: Side,
    /// Removed last.
    _folder: tempfile::TempDir,
}

/// A cable between the two hosts.
#[derive(Clone, Debug)]
pub struct Cable {
    namespace: String,
    end: String,
}

impl Cable {
    /// Mends it, or cuts it: both hosts see their end go down.
    ///
    /// # Errors
    /// It is not there.
    pub fn set(&self, up: bool) -> Result<()> {
        let state = if up { "up" } else { "down" };
        ip(&["-n", &self.namespace, "link", "set", &self.end, state])
    }
}

/// One host: its image, its disk process, and the control connection to it.
#[derive(Debug)]
pub struct Side {
    /// 1 or 2.
    pub id: u8,
    /// Name of its network namespace.
    pub namespace: String,
    /// Its options, as the next start hands them over.
    pub options: Value,
    size: u64,
    folder: PathBuf,
    child: Option<Child>,
    node: Option<Node>,
    lives: u32,
}

/// A connection to the control socket.
#[derive(Debug)]
struct Node {
    stream: UnixStream,
    tickets: u64,
    status: Option<Box<DiskStatus>>,
}

impl Rig {
    /// Makes hosts, cables and images; nothing runs yet.
    ///
    /// # Errors
    /// Something of it cannot be made: root is needed.
    pub fn new(plan: &Plan) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("futago-rig-").tempdir().context("make a folder")?;
        let number = RIGS.fetch_add(1, Ordering::Relaxed);
        let name = |id: u8| format!("fg-rig-{}-{number}-{id}", std::process::id());
        for id in [1, 2] {
            ip(&["netns", "add", &name(id)])?;
            ip(&["-n", &name(id), "link", "set", "lo", "up"])?;
        }
        for cable in 1..=plan.cables {
            let ends = [1, 2].map(|id| format!("rig{cable}{id}"));
            let [one, two] = &ends;
            ip(&[
                "link",
                "add",
                one,
                "netns",
                &name(1),
                "type",
                "veth",
                "peer",
                "name",
                two,
                "netns",
                &name(2),
            ])?;
            for (id, end) in [1, 2].into_iter().zip(&ends) {
                let address = format!("{}/24", address(cable, id));
                ip(&["-n", &name(id), "address", "add", &address, "dev", end])?;
                ip(&["-n", &name(id), "link", "set", end, "up"])?;
            }
        }
        let side = |id| Side::new(id, name(id), folder.path(), plan);
        let (one, two) = (side(1)?, side(2)?);
        Ok(Rig { one, two, _folder: folder })
    }

    /// Starts both, makes side 1 active in epoch 1 and both in sync.
    ///
    /// # Errors
    /// A step fails or takes too long.
    pub fn build(&mut self) -> Result<()> {
        self.one.start()?;
        self.two.start()?;
        for side in [&mut self.one, &mut self.two] {
            side.order(DiskOrder::LearnEpoch { epoch: Epoch(1), holder: NodeId(1) })?;
        }
        self.one.activate(1)?;
        admit(&mut self.one, &mut self.two)
    }

    /// Cuts or mends a cable (1 or 2).
    ///
    /// # Errors
    /// There is no such cable.
    pub fn cable(&self, cable: u8, up: bool) -> Result<()> {
        self.handle(cable).set(up)
    }

    /// A cable (1 or 2) that another thread may cut.
    #[must_use]
    pub fn handle(&self, cable: u8) -> Cable {
        Cable { namespace: self.one.namespace.clone(), end: format!("rig{cable}1") }
    }

    /// Bytes of mirrored data.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.one.size
    }

    /// Where the mirrored bytes of the two images differ: the first such byte. Both disk processes must have ended.
    ///
    /// # Errors
    /// An image cannot be read.
    pub fn difference(&self) -> Result<Option<u64>> {
        let (one, two) = (File::open(self.one.image())?, File::open(self.two.image())?);
        let (at_one, at_two) = (self.one.data_at()?, self.two.data_at()?);
        let (mut left, mut right) = (vec![0; PIECE], vec![0; PIECE]);
        let mut done = 0;
        while done < self.one.size {
            let length = usize::try_from(self.one.size - done).unwrap_or(PIECE).min(PIECE);
            let (left, right) = (&mut left[..length], &mut right[..length]);
            one.read_exact_at(left, at_one + done)?;
            two.read_exact_at(right, at_two + done)?;
            if let Some(at) = left.iter().zip(&*right).position(|(one, two)| one != two) {
                return Ok(Some(done + at as u64));
            }
            done += length as u64;
        }
        Ok(None)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for side in [&mut self.one, &mut self.two] {
            side.kill();
            side.sweep();
            let _ = ip(&["netns", "del", &side.namespace]);
        }
    }
}

/// Rebuilds the standby and takes it in again.
///
/// # Errors
/// It does not become equal in time.
pub fn admit(active: &mut Side, standby: &mut Side) -> Result<()> {
    active.order(DiskOrder::AllowRebuild { allowed: true })?;
    readmit(active)?;
    standby.wait("consistent", |status| status.consistent && status.role == Role::Standby)?;
    Ok(())
}

/// Waits until a rebuild that may run has made the copies equal, and takes the twin in.
///
/// # Errors
/// It does not become equal in time.
pub fn readmit(active: &mut Side) -> Result<()> {
    let began = Instant::now();
    // Refused while a rebuild has much left to do, as the engine finds it too.
    loop {
        match active.try_order(DiskOrder::Readmit)? {
            Ok(_) => break,
            Err(OrderFault::NotEqual) => {}
            Err(fault) => bail!("re-admission refused: {fault:?}"),
        }
        ensure!(began.elapsed() < 5 * PATIENCE, "never equal: {:?}", active.status()?);
        std::thread::sleep(POLL);
    }
    active.order(DiskOrder::Admitted)?;
    active.wait("in sync", |status| status.equal && status.needs_twin && status.linked)?;
    Ok(())
}

impl Side {
    fn new(id: u8, namespace: String, root: &Path, plan: &Plan) -> Result<Self> {
        let folder = root.join(format!("server-{id}"));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("key"), [KEY; 32])?;
        let twin = 3 - id;
        let list = |id| (1..=plan.cables).map(|cable| address(cable, id)).collect::<Vec<_>>();
        let mut options = json!({
            "set": SET, "side": id, "size": plan.size,
            "backing": folder.join("image"), "control": folder.join("control.sock"),
            "listen": list(id), "twin": list(twin), "port": 7_300,
            "mount": folder.join("front"), "incarnation": incarnation(0, id),
            "lease_ms": 1_300, "node_grace_ms": 10_000,
            "key_file": folder.join("key"), "state": folder.join("state"),
            "volatile_seed": id,
        });
        if let (Value::Object(all), Value::Object(extra)) = (&mut options, &plan.extra) {
            all.extend(extra.clone());
        }
        let side =
            Side { id, namespace, options, size: plan.size, folder, child: None, node: None, lives: 0 };
        if plan.sparse {
            File::create(side.image())?.set_len(mirror::layout::control_bytes(plan.size) + plan.size)?;
        }
        side.format()?;
        if plan.filled {
            side.fill()?;
        }
        Ok(side)
    }

    /// Makes the image and its control area.
    fn format(&self) -> Result<()> {
        let options = json!({
            "backing": self.image(), "cluster": CLUSTER, "set": SET, "side": self.id, "size": self.size,
        });
        let mut program = Command::new(paths::program()?);
        command::output(program.args(["disk-format", &options.to_string()]), PATIENCE)?;
        Ok(())
    }

    /// Writes every mirrored byte of the image, as random bytes that are the same on both sides.
    fn fill(&self) -> Result<()> {
        let image = fs::OpenOptions::new().write(true).open(self.image())?;
        let at = self.data_at()?;
        let mut piece = vec![0_u8; PIECE];
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut done = 0;
        while done < self.size {
            for word in piece.as_chunks_mut::<8>().0 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                *word = random.to_le_bytes();
            }
            let length = usize::try_from(self.size - done).unwrap_or(PIECE).min(PIECE);
            image.write_all_at(&piece[..length], at + done)?;
            done += length as u64;
        }
        image.sync_all().context("flush the image")
    }

    /// Path of the image.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.folder.join("image")
    }

    /// Where the mirrored bytes begin in it: whatever is not data lies before.
    ///
    /// # Errors
    /// The image is not there.
    pub fn data_at(&self) -> Result<u64> {
        Ok(mirror::layout::control_bytes(self.size))
    }

    /// What the disk process has logged so far, of all its lives.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Starts the disk process in a new life of its host and connects to it.
    ///
    /// # Errors
    /// It cannot be started or does not answer.
    pub fn start(&mut self) -> Result<()> {
        self.lives += 1;
        self.options["incarnation"] = incarnation(self.lives, self.id);
        self.start_again()
    }

    /// Starts the disk process in the same life of its host, as after a `kill -9` of the process alone.
    ///
    /// # Errors
    /// It cannot be started or does not answer.
    pub fn start_again(&mut self) -> Result<()> {
        let file = self.folder.join("options.json");
        fs::write(&file, self.options.to_string())?;
        let log = File::options().create(true).append(true).open(self.folder.join("log"))?;
        let child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.namespace))
            .arg(paths::program()?)
            .args(["disk", &format!("@{}", file.display())])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start a disk process")?;
        self.child = Some(child);
        self.connect()
    }

    /// Connects as the node process.
    ///
    /// # Errors
    /// The process does not answer.
    pub fn connect(&mut self) -> Result<()> {
        let began = Instant::now();
        loop {
            // A killed predecessor's ring keeps its socket for a moment: what connects to that is cut off.
            if let Ok(stream) = UnixStream::connect(self.folder.join("control.sock")) {
                stream.set_read_timeout(Some(PATIENCE))?;
                let mut node = Node { stream, tickets: 0, status: None };
                if node.order(DiskOrder::Report).is_ok() {
                    self.node = Some(node);
                    return Ok(());
                }
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            ensure!(ended.is_none(), "the disk process of side {} ended:\n{}", self.id, self.log());
            ensure!(began.elapsed() < PATIENCE, "no control socket:\n{}", self.log());
            std::thread::sleep(POLL);
        }
    }

    /// The node process goes away.
    pub fn leave(&mut self) {
        self.node = None;
    }

    /// The process id of the disk process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Gives an order that must be carried out.
    ///
    /// # Errors
    /// It was refused, or the process is gone.
    pub fn order(&mut self, order: DiskOrder) -> Result<Done> {
        let text = format!("{order:?}");
        self.try_order(order)?.map_err(|fault| anyhow::anyhow!("{text}: {fault:?}"))
    }

    /// Gives an order that may be refused.
    ///
    /// # Errors
    /// The process is gone.
    pub fn try_order(&mut self, order: DiskOrder) -> Result<Result<Done, OrderFault>> {
        self.node.as_mut().context("no control connection")?.order(order)
    }

    /// The status, asked for.
    ///
    /// # Errors
    /// The process is gone.
    pub fn status(&mut self) -> Result<DiskStatus> {
        let node = self.node.as_mut().context("no control connection")?;
        let _ = node.order(DiskOrder::Report)?;
        // It follows the order's result; what came before may be older.
        node.status = None;
        while node.status.is_none() {
            node.receive()?;
        }
        node.status.as_deref().cloned().context("a status")
    }

    /// Waits until the status is as wanted.
    ///
    /// # Errors
    /// It is not in time; the text has the last status.
    pub fn wait(&mut self, what: &str, wanted: impl Fn(&DiskStatus) -> bool) -> Result<DiskStatus> {
        let began = Instant::now();
        loop {
            let status = self.status()?;
            if wanted(&status) {
                return Ok(status);
            }
            ensure!(began.elapsed() < PATIENCE, "side {} is not {what}: {status:?}", self.id);
            std::thread::sleep(POLL);
        }
    }

    /// Becomes active alone in this epoch, served without limit.
    ///
    /// # Errors
    /// It is refused or takes too long.
    pub fn activate(&mut self, epoch: u64) -> Result<()> {
        let mut generation = [self.id; 16];
        generation[..8].copy_from_slice(&epoch.to_le_bytes());
        let generation = Generation(generation);
        self.order(DiskOrder::Activate { epoch: Epoch(epoch), alone: true, generation })?;
        self.order(DiskOrder::Lease { until: None, fence_after_us: 500_000 })?;
        self.wait("active", |status| status.role == Role::Active && status.device.is_some())?;
        Ok(())
    }

    /// Path of the block device.
    ///
    /// # Errors
    /// This side is not active.
    pub fn device(&mut self) -> Result<PathBuf> {
        self.status()?.device.map(PathBuf::from).context("no device")
    }

    /// `kill -9` of the disk process: with the volatile backing a power loss.
    pub fn kill(&mut self) {
        self.node = None;
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            if command::wait(&mut child, DYING).is_err() {
                // It waits in the kernel for its own device: that ends when its requests fail.
                self.cut_front();
                let _ = command::wait(&mut child, DYING);
            }
        }
    }

    /// Ends the connection of the front end in the kernel: whoever waits for the device gets an error.
    fn cut_front(&self) {
        let front = self.folder.join("front").display().to_string();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let numbers = mounts.lines().filter_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            (words.get(4) == Some(&front.as_str())).then(|| words.get(2)?.split_once(':')).flatten()
        });
        for (_, connection) in numbers {
            let _ = fs::write(format!("/sys/fs/fuse/connections/{connection}/abort"), "1");
        }
    }

    /// Whether the disk process runs.
    #[must_use]
    pub fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Sends the disk process a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        if let Some(pid) = self.child.as_ref().map(rustix::process::Pid::from_child) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Ends the disk process in order; it must not be active.
    ///
    /// # Errors
    /// It refuses or does not end.
    pub fn quit(&mut self) -> Result<()> {
        if let Some(node) = &mut self.node {
            // The quitting process may close the socket before its answer is read.
            let _ = node.order(DiskOrder::Quit);
        }
        self.node = None;
        match self.child.take() {
            Some(mut child) => command::wait(&mut child, PATIENCE).map(|_| ()),
            None => Ok(()),
        }
    }

    /// What a killed process leaves is swept by its successor; this does it where there is none.
    fn sweep(&self) {
        let front = self.folder.join("front");
        let loops = command::output(
            Command::new("losetup")
                .arg("--noheadings")
                .args(["--output", "NAME"])
                .arg("--associated")
                .arg(front.join("data")),
            PATIENCE,
        );
        for device in loops.unwrap_or_default().lines() {
            let _ = command::output(Command::new("losetup").args(["--detach", device.trim()]), PATIENCE);
        }
        let _ = command::collect(Command::new("umount").arg("--lazy").arg(front), PATIENCE);
    }
}

impl Node {
    fn order(&mut self, order: DiskOrder) -> Result<Result<Done, OrderFault>> {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let message = serde_json::to_vec(&ToDisk { ticket, order })?;
        self.stream.write_all(&u32::try_from(message.len())?.to_le_bytes())?;
        self.stream.write_all(&message)?;
        loop {
            if let Some((answered, result)) = self.receive()? {
                ensure!(answered == ticket, "an answer to {answered:?} instead of {ticket:?}");
                return Ok(result);
            }
        }
    }

    /// Reads one message: an order's result, or a status, which is kept.
    fn receive(&mut self) -> Result<Option<(Ticket, Result<Done, OrderFault>)>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut message = vec![0; u32::from_le_bytes(length) as usize];
        self.stream.read_exact(&mut message)?;
        Ok(match serde_json::from_slice(&message)? {
            FromDisk::Done { ticket, result } => Some((ticket, result)),
            FromDisk::Status(status) => {
                self.status = Some(status);
                None
            }
        })
    }
}

fn address(cable: u8, id: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 78, cable, id))
}

/// A host incarnation of which every byte is this.
/// Another one for each life of each side.
fn incarnation(life: u32, side: u8) -> Value {
    let mut bytes = [side; 16];
    bytes[..4].copy_from_slice(&life.to_le_bytes());
    json!(wire::Incarnation(bytes))
}

fn ip(arguments: &[&str]) -> Result<()> {
    command::output(Command::new("ip").args(arguments), PATIENCE).map(|_| ())
}
