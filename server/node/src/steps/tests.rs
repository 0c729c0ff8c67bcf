//! Steps on a host with a fake network and fake mounts, and real scripts.

use super::*;
use os::address::FakeAddresses;
use os::mount::{FakeMounts, Holder};
use os::process::HostProcesses;
use tokio::sync::mpsc;
use wire::config::TimingConfig;
use wire::{Incarnation, NodeId};

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9));
const GROUP: GroupId = GroupId(1);
const SET: SetId = SetId(1);
const HOST: Incarnation = Incarnation([7; 16]);

struct Bench {
    folder: tempfile::TempDir,
    steps: Steps,
    addresses: Arc<FakeAddresses>,
    mounts: Arc<FakeMounts>,
    turns: mpsc::Receiver<Turn>,
    next: u64,
}

fn config(start: &str, stop: &str) -> ClusterConfig {
    let mount =
        MountConfig { set: SET, point: "/data".into(), file_system: "ext4".into(), format_blank: true };
    ClusterConfig {
        version: 1,
        name: "c".into(),
        servers: Vec::new(),
        links: Vec::new(),
        witness: None,
        sets: Vec::new(),
        groups: vec![GroupConfig {
            id: GROUP,
            name: "g".into(),
            policy: NodeId::BOTH.to_vec(),
            auto_start: true,
            mounts: vec![mount],
            addresses: vec![ADDRESS],
            start_script: start.into(),
            stop_script: stop.into(),
            script_timeout_s: 10,
            rules: wire::rules::GroupRules::default(),
        }],
        timing: TimingConfig::default(),
        auto_recover: false,
    }
}

impl Bench {
    fn new(start: &str, stop: &str) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        Bench::over(folder, start, stop)
    }

    fn over(folder: tempfile::TempDir, start: &str, stop: &str) -> Bench {
        let (turns_in, turns) = mpsc::channel(16);
        let (addresses, mounts) = (Arc::new(FakeAddresses::default()), Arc::new(FakeMounts::default()));
        let host = Host {
            addresses: addresses.clone(),
            mounts: mounts.clone(),
            processes: Arc::new(HostProcesses::default()),
            logs: folder.path().to_path_buf(),
        };
        let config = config(start, stop);
        let guards = Guards::open(folder.path().to_path_buf(), HOST, [GROUP].into_iter());
        let data = crate::data::DataDir::open(folder.path()).unwrap();
        let disks = Disks::open(&config, NodeId(1), &data, HOST, crate::disks::Backing::Plain, &turns_in);
        let steps = Steps::new(host, guards, disks, config, turns_in, mpsc::channel(1).0);
        Bench { folder, steps, addresses, mounts, turns, next: 0 }
    }

    async fn run(&mut self, step: Step) -> Outcome {
        self.next += 1;
        self.steps.begin(ActionId(self.next), step, 20_000_000);
        match self.turns.recv().await {
            Some(Turn::Input(Input::Performed { id, outcome })) if id.0 == self.next => outcome,
            _ => panic!("another input"),
        }
    }

    fn blank_device(&self, content: &[u8]) -> String {
        let path = self.folder.path().join("device");
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }
}

#[tokio::test]
async fn a_blank_set_gets_its_file_system_once_and_mounting_twice_is_done() {
    let mut bench = Bench::new("", "");
    let device = bench.blank_device(&[0; SIGNATURE_BYTES]);
    let mount = Step::Mount { group: GROUP, set: SET, device: device.clone() };
    assert_eq!(bench.run(mount.clone()).await, Outcome::Done);
    assert_eq!(bench.run(mount).await, Outcome::Done);
    assert_eq!(bench.mounts.made(), [PathBuf::from(device)]);
}

#[tokio::test]
async fn a_set_with_anything_on_it_is_never_formatted() {
    let mut bench = Bench::new("", "");
    let mut content = vec![0; SIGNATURE_BYTES];
    content[0x10040] = 1; // where btrfs has its magic
    let device = bench.blank_device(&content);
    assert_eq!(bench.run(Step::Mount { group: GROUP, set: SET, device }).await, Outcome::Done);
    assert_eq!(bench.mounts.made(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_busy_mount_names_its_holders_and_leaves_only_by_force() {
    let mut bench = Bench::new("", "");
    let device = bench.blank_device(&[1; SIGNATURE_BYTES]);
    bench.run(Step::Mount { group: GROUP, set: SET, device }).await;
    let mut sleeper = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let holder = Holder { pid: sleeper.id(), name: "sleep".into() };
    bench.mounts.set_holders(Path::new("/data"), vec![holder]);
    let refused = bench.run(Step::Unmount { group: GROUP, set: SET, force: false }).await;
    let Outcome::Failed { reason } = refused else { panic!("{refused:?}") };
    assert!(reason.contains(&format!("sleep (pid {})", sleeper.id())), "{reason}");
    assert_eq!(bench.run(Step::Unmount { group: GROUP, set: SET, force: true }).await, Outcome::Done);
    assert!(!sleeper.wait().unwrap().success());
    assert_eq!(bench.run(Step::Unmount { group: GROUP, set: SET, force: false }).await, Outcome::Done);
}

#[tokio::test]
async fn an_address_of_a_stranger_is_reported_with_its_machine() {
    let mut bench = Bench::new("", "");
    bench.addresses.add_stranger(ADDRESS, [2, 0, 0, 0, 0, 9]);
    let probed = bench.run(Step::ProbeAddress { group: GROUP, address: ADDRESS }).await;
    assert_eq!(probed, Outcome::AddressInUse { by: "02:00:00:00:00:09".into() });
}

#[tokio::test]
async fn an_address_is_announced_when_it_comes_and_only_renewed_afterwards() {
    let mut bench = Bench::new("", "");
    for _ in 0..3 {
        assert_eq!(bench.run(Step::AddAddress { group: GROUP, address: ADDRESS }).await, Outcome::Done);
    }
    assert_eq!(bench.addresses.announcements(ADDRESS), 1);
    assert_eq!(bench.addresses.lifetime(ADDRESS), Some(Lifetime::Seconds(ADDRESS_SECONDS)));
    assert_eq!(bench.run(Step::RemoveAddress { group: GROUP, address: ADDRESS }).await, Outcome::Done);
    assert_eq!(bench.run(Step::RemoveAddress { group: GROUP, address: ADDRESS }).await, Outcome::Done);
    assert_eq!(bench.addresses.lifetime(ADDRESS), None);
}

#[tokio::test]
async fn what_a_start_script_leaves_runs_on_is_adopted_and_ends_with_the_group() {
    let mut bench = Bench::new("sleep 1000 & echo $ARMS_EVENT", "echo $ARMS_EVENT");
    let seen = |outcome| matches!(outcome, Outcome::Observed { processes: true, .. });
    assert!(!seen(bench.run(Step::Observe { group: GROUP }).await));
    let start = Step::StartScript { group: GROUP, cause: StartCause::Failover };
    assert_eq!(bench.run(start).await, Outcome::Done);
    assert!(seen(bench.run(Step::Observe { group: GROUP }).await));
    // Another life of this process finds it again.
    let mut bench = Bench::over(bench.folder, "sleep 1000 & echo $ARMS_EVENT", "echo $ARMS_EVENT");
    assert!(seen(bench.run(Step::Observe { group: GROUP }).await));
    let session = bench.steps.guards.process(GROUP).unwrap();
    assert!(!os::proc::session(session.pid).is_empty());
    assert_eq!(bench.run(Step::StopScript { group: GROUP }).await, Outcome::Done);
    assert!(os::proc::session(session.pid).is_empty());
    assert!(!seen(bench.run(Step::Observe { group: GROUP }).await));
    let output = std::fs::read_to_string(bench.folder.path().join("group-1.log")).unwrap();
    assert_eq!(output, "FAILOVER\nSTOP\n");
}

#[tokio::test]
async fn a_start_script_that_fails_leaves_nothing_behind() {
    let mut bench = Bench::new("sleep 1000 & exit 3", "");
    let start = Step::StartScript { group: GROUP, cause: StartCause::Start };
    let failed = bench.run(start).await;
    assert_eq!(failed, Outcome::Failed { reason: "the start script ended with 3".into() });
    let session = bench.steps.guards.process(GROUP).unwrap();
    assert!(os::proc::session(session.pid).is_empty());
    assert_eq!(bench.run(Step::Kill { group: GROUP }).await, Outcome::Done);
}

/// A kernel that takes its time to add an address.
struct Slow {
    inner: FakeAddresses,
    gate: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Addresses for Slow {
    fn probe(&self, address: IpAddr) -> Result<(), AddressError> {
        self.inner.probe(address)
    }
    fn put(&self, address: IpAddr, lifetime: Lifetime) -> Result<(), AddressError> {
        self.gate.lock().unwrap().recv().unwrap();
        self.inner.put(address, lifetime)
    }
    fn remove(&self, address: IpAddr) -> Result<bool, AddressError> {
        self.inner.remove(address)
    }
    fn held(&self) -> Result<Vec<IpAddr>, AddressError> {
        self.inner.held()
    }
    fn announce(&self, address: IpAddr) -> Result<(), AddressError> {
        self.inner.announce(address)
    }
}

#[tokio::test]
async fn a_removal_never_overtakes_a_renewal_begun_before_it() {
    let mut bench = Bench::new("", "");
    let (open, gate) = std::sync::mpsc::channel();
    let slow = Arc::new(Slow { inner: FakeAddresses::default(), gate: std::sync::Mutex::new(gate) });
    bench.steps.host.addresses = slow.clone();
    bench.steps.begin(ActionId(1), Step::AddAddress { group: GROUP, address: ADDRESS }, 20_000_000);
    bench.steps.begin(ActionId(2), Step::RemoveAddress { group: GROUP, address: ADDRESS }, 20_000_000);
    // Another group's or step's work goes on meanwhile.
    bench.steps.begin(ActionId(3), Step::Observe { group: GROUP }, 20_000_000);
    let mut order = Vec::new();
    for _ in 0..3 {
        let Some(Turn::Input(Input::Performed { id, .. })) = bench.turns.recv().await else {
            panic!("no answer")
        };
        order.push(id.0);
        if id.0 == 3 {
            open.send(()).unwrap();
        }
    }
    assert_eq!(order, [3, 1, 2]);
    assert!(slow.inner.held().unwrap().is_empty());
}
