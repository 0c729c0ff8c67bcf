//! One server of the tests: an image, a disk process of its own, and a scripted node process on its control socket.

use disk::control::{Decoder, encode};
use disk::{DiskOptions, FormatOptions, control_bytes};
use os::loopdev::{HostLoops, LoopDevices as _};
use os::mount::{HostMounts, Mounts as _};
use peer::control::{DiskOrder, DiskStatus, Done, FromDisk, OrderFault, Role, Ticket, ToDisk};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use wire::{Epoch, Generation, Incarnation, NodeId, SetId};

/// Bytes of mirrored data.
pub const SIZE: u64 = 64 << 20;
/// Nothing here takes a fraction of it; a hung test ends.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Two servers with their images in one folder.
pub struct Pair {
    pub one: Host,
    pub two: Host,
    /// Removed at the end.
    _folder: tempfile::TempDir,
}

impl Pair {
    pub fn new(change: impl Fn(&mut DiskOptions)) -> Self {
        Self::with_store(None, change)
    }

    /// With a store for older versions of so many bytes.
    pub fn with_store(store: Option<u64>, change: impl Fn(&mut DiskOptions)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Held only to find a free number; the second interconnect has the same one.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let host = |side| Host::new(folder.path(), NodeId(side), port, store, &change);
        Pair { one: host(1), two: host(2), _folder: folder }
    }

    pub fn start(&mut self) {
        self.one.start();
        self.two.start();
    }

    /// From two fresh images to: server 1 active in epoch 1, both in sync.
    pub fn build(&mut self) {
        self.start();
        for host in [&mut self.one, &mut self.two] {
            host.order(DiskOrder::LearnEpoch { epoch: Epoch(1), holder: NodeId(1) }).unwrap();
        }
        self.one.activate(Epoch(1), Generation([1; 16]));
        admit(&mut self.one, &mut self.two);
    }
}

/// Rebuilds the standby and takes it in again.
pub fn admit(active: &mut Host, standby: &mut Host) {
    active.order(DiskOrder::AllowRebuild { allowed: true }).unwrap();
    let began = Instant::now();
    // Refused while a rebuild has much left to do, as the engine finds it too.
    while let Err(fault) = active.order(DiskOrder::Readmit) {
        assert_eq!(fault, OrderFault::NotEqual);
        assert!(began.elapsed() < PATIENCE, "never equal: {:?}", active.status());
        std::thread::sleep(Duration::from_millis(20));
    }
    active.order(DiskOrder::Admitted).unwrap();
    active.wait("in sync", |status| status.equal && status.needs_twin && status.linked);
    standby.wait("consistent", |status| status.consistent && status.role == Role::Standby);
}

pub struct Host {
    pub options: DiskOptions,
    child: Option<Child>,
    node: Option<Node>,
    lives: u8,
}

struct Node {
    stream: UnixStream,
    decoder: Decoder,
    tickets: u64,
    status: Option<Box<DiskStatus>>,
}

impl Host {
    fn new(
        root: &Path,
        side: NodeId,
        port: u16,
        store: Option<u64>,
        change: &impl Fn(&mut DiskOptions),
    ) -> Self {
        let folder = root.join(format!("server-{}", side.0));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("key"), [42; 32]).unwrap();
        // Nobody answers on the first interconnect of the lower side's list: the second is tried.
        let twin = vec![IpAddr::V4(Ipv4Addr::new(127, 0, 9, 1)), IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let mut options = DiskOptions {
            set: SetId(5),
            side,
            size: SIZE,
            backing: folder.join("image"),
            control: folder.join("control.sock"),
            listen: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            twin,
            port,
            mount: folder.join("front"),
            incarnation: Incarnation::default(),
            lease_ms: 1_300,
            node_grace_ms: 10_000,
            io_limit_ms: 3_000,
            mode: wire::traffic::WriteMode::Synchronous,
            encrypt: false,
            pack: false,
            key_file: folder.join("key"),
            state: folder.join("state"),
            device: true,
            nbd: None,
            volatile: false,
            kept: false,
            log: None,
            volatile_seed: u64::from(side.0),
            no_flush: false,
            volatile_delay_us: 0,
            volatile_fault: None,
        };
        change(&mut options);
        disk::format(&FormatOptions {
            backing: options.backing.clone(),
            cluster: [9; 16],
            set: options.set,
            side,
            size: SIZE,
            replace: false,
            store,
        })
        .unwrap();
        Host { options, child: None, node: None, lives: 0 }
    }

    /// Starts the disk process in a new life of its host and connects to it.
    pub fn start(&mut self) {
        self.lives += 1;
        self.options.incarnation = Incarnation([self.lives * 16 + self.options.side.0; 16]);
        let child = Command::new(std::env::current_exe().unwrap())
            .arg("disk-process")
            .arg(serde_json::to_string(&self.options).unwrap())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        self.connect();
    }

    /// Connects as the node process. A killed predecessor's ring keeps its socket for a moment: what connects to that is
    /// cut off and tries again, as the node process does.
    pub fn connect(&mut self) {
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < PATIENCE, "no control socket");
            if let Ok(stream) = UnixStream::connect(&self.options.control) {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut node = Node { stream, decoder: Decoder::default(), tickets: 0, status: None };
                if node.try_order(DiskOrder::Report).is_ok() {
                    self.node = Some(node);
                    return;
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The node process goes away.
    pub fn leave(&mut self) {
        self.node = None;
    }

    fn node(&mut self) -> &mut Node {
        self.node.as_mut().expect("no node process")
    }

    pub fn order(&mut self, order: DiskOrder) -> Result<Done, OrderFault> {
        self.node().order(order)
    }

    /// The latest status, asked for.
    pub fn status(&mut self) -> DiskStatus {
        self.order(DiskOrder::Report).unwrap();
        // It follows the order's result; what came before may be older.
        let node = self.node();
        node.status = None;
        while node.status.is_none() {
            node.receive().unwrap();
        }
        *node.status.clone().unwrap()
    }

    pub fn wait(&mut self, what: &str, wanted: impl Fn(&DiskStatus) -> bool) -> DiskStatus {
        let began = Instant::now();
        loop {
            let status = self.status();
            if wanted(&status) {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "not {what}: {status:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Active alone, served without limit.
    pub fn activate(&mut self, epoch: Epoch, generation: Generation) {
        self.order(DiskOrder::Activate { epoch, alone: true, generation }).unwrap();
        self.order(DiskOrder::Lease { until: None, fence_after_us: 500_000 }).unwrap();
        self.wait("active", |status| status.role == Role::Active && status.device.is_some());
    }

    /// Path of the block device.
    pub fn device(&mut self) -> PathBuf {
        PathBuf::from(self.status().device.expect("no device"))
    }

    /// Power loss, as far as the process goes.
    pub fn kill(&mut self) {
        self.node = None;
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Waits until the process has ended by itself.
    pub fn ended(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("no process");
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "the disk process does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let child = self.child.as_ref().expect("no process");
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// The mirrored bytes as they are in the image.
    pub fn data(&self) -> Vec<u8> {
        let image = std::fs::read(&self.options.backing).unwrap();
        image[control_bytes(SIZE) as usize..][..SIZE as usize].to_vec()
    }
}

impl Node {
    fn order(&mut self, order: DiskOrder) -> Result<Done, OrderFault> {
        self.try_order(order).expect("the disk process does not answer")
    }

    fn try_order(&mut self, order: DiskOrder) -> io::Result<Result<Done, OrderFault>> {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.stream.write_all(&encode(&ToDisk { ticket, order }).unwrap())?;
        loop {
            if let Some((answered, result)) = self.receive()? {
                assert_eq!(answered, ticket, "one result for each order, in this script in order");
                return Ok(result);
            }
        }
    }

    fn receive(&mut self) -> io::Result<Option<(Ticket, Result<Done, OrderFault>)>> {
        loop {
            match self.decoder.next::<FromDisk>().unwrap() {
                Some(FromDisk::Done { ticket, result }) => return Ok(Some((ticket, result))),
                Some(FromDisk::Status(status)) => {
                    self.status = Some(status);
                    return Ok(None);
                }
                None => {
                    let mut bytes = [0; 4096];
                    let length = self.stream.read(&mut bytes)?;
                    if length == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    self.decoder.push(&bytes[..length]);
                }
            }
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) {
            println!("the disk process of server {} had ended: {status}", self.options.side.0);
        }
        self.kill();
        // What a killed process leaves is swept by its successor; here there is none. Loops first: they are found by the path
        // of the mount.
        for device in HostLoops.find(&self.options.mount.join("data")).unwrap_or_default() {
            let _ = HostLoops.detach(device.number);
        }
        let _ = HostMounts.unmount_lazily(&self.options.mount);
    }
}
