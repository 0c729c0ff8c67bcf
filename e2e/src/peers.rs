//! The peers of `failover-gap`: keepalived and Pacemaker on two hosts of their own with a floating IP and a client, as their
//! manuals set them up. They move an address, no data.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::probe::{Gap, Prober};
use crate::writer::now_us;
use crate::{command, paths};

/// The floating IP and the port of the echo on it.
const SERVICE: &str = "10.77.0.100:7007";
const FLOATING: &str = "10.77.0.100";
/// Network namespaces: the switch, both hosts, the client.
const NAMESPACES: [&str; 4] = ["futago-peer-sw", "futago-peer-h1", "futago-peer-h2", "futago-peer-cl"];
/// One `ip` or `crm` command.
const COMMAND: Duration = Duration::from_secs(30);
/// For a peer to serve after its start; Pacemaker elects first.
const UP: Duration = Duration::from_secs(90);
/// For the other host to take over: four times what the slowest of them takes.
const TAKE_OVER: Duration = Duration::from_secs(30);
/// Behind its start a peer is left alone for so long: its first protocol rounds are no steady state.
const SETTLE: Duration = Duration::from_millis(2_500);

/// A peer and its setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// VRRP with this interval of advertisements in milliseconds.
    Keepalived(u32),
    /// Corosync with this token in milliseconds (0: its default) and Pacemaker with an IP only.
    Pacemaker(u32),
}

impl Peer {
    /// Its name and setting.
    #[must_use]
    pub fn title(self) -> String {
        match self {
            Peer::Keepalived(ms) => format!("keepalived, {ms} ms"),
            Peer::Pacemaker(0) => "Pacemaker, default".to_owned(),
            Peer::Pacemaker(ms) => format!("Pacemaker, token {ms} ms"),
        }
    }
}

/// One power loss of the active host: the gap in service.
///
/// # Errors
/// When the peer does not come up, or nobody takes over.
pub fn power_loss(peer: Peer) -> Result<Gap> {
    let mut lab = PeerLab::start(peer)?;
    let probe = lab.probe("gap.told")?;
    probe.wait_for(0, UP, |by| by == "h1").context(peer.title())?;
    // Another phase of every timer in each run.
    std::thread::sleep(Duration::from_millis(700 + now_us() % 1_000));
    let cut_us = now_us();
    lab.power_off("h1")?;
    probe.wait_for(cut_us, TAKE_OVER, |by| by == "h2").context(peer.title())?;
    std::thread::sleep(Duration::from_millis(500));
    Gap::longest(&probe.heard()?, cut_us).context("answers")
}

struct PeerLab {
    folder: tempfile::TempDir,
    hosts: Vec<(&'static str, Child)>,
}

impl PeerLab {
    fn start(peer: Peer) -> Result<PeerLab> {
        let folder = tempfile::Builder::new().prefix("futago-peer-").tempdir().context("a folder")?;
        let mut lab = PeerLab { folder, hosts: Vec::new() };
        take_down();
        lab.networks()?;
        for host in ["h1", "h2"] {
            lab.host(host, peer)?;
            // The first one is to be the active one.
            std::thread::sleep(Duration::from_millis(300));
        }
        let probe = lab.probe("up.told")?;
        probe.wait_for(0, UP, |by| by == "h1").with_context(|| lab.said(peer))?;
        if matches!(peer, Peer::Pacemaker(_)) {
            lab.wait_settled()?;
        }
        std::thread::sleep(SETTLE);
        Ok(lab)
    }

    fn networks(&self) -> Result<()> {
        let [sw, h1, h2, cl] = NAMESPACES;
        let mut lines: Vec<String> = NAMESPACES.iter().map(|name| format!("ip netns add {name}")).collect();
        lines.push(format!(
            "ip -n {sw} link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
        ));
        lines.push(format!("ip -n {sw} link set br0 up"));
        for (space, number) in [(h1, 1), (h2, 2), (cl, 9)] {
            lines.push(format!("ip -n {sw} link add p{number} type veth peer name pub0 netns {space}"));
            lines.push(format!("ip -n {sw} link set p{number} master br0 up"));
            lines.push(format!("ip -n {space} link set lo up"));
            lines.push(format!("ip -n {space} addr add 10.77.0.{number}/24 dev pub0"));
            lines.push(format!("ip -n {space} link set pub0 up"));
        }
        lines.push(format!("ip -n {h1} link add ic0 type veth peer name ic0 netns {h2}"));
        for (space, number) in [(h1, 1), (h2, 2)] {
            lines.push(format!("ip -n {space} addr add 10.78.0.{number}/24 dev ic0"));
            lines.push(format!("ip -n {space} link set ic0 up"));
        }
        let script = format!("set -e\n{}\n", lines.join("\n"));
        command::output(Command::new("sh").args(["-c", &script]), COMMAND).map(|_| ())
    }

    /// Starts a host: a pid, mount, host name, ipc and network namespace; the death of its pid 1 is its power loss.
    fn host(&mut self, name: &'static str, peer: Peer) -> Result<()> {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder).context("a host's folder")?;
        let begin = match peer {
            Peer::Keepalived(ms) => {
                fs::write(folder.join("keepalived.conf"), keepalived(name, ms)).context("configure")?;
                "keepalived -P -n -l -D -f keepalived.conf > keepalived.log 2>&1 &\n".to_owned()
            }
            Peer::Pacemaker(token) => {
                fs::write(folder.join("corosync.conf"), corosync(&folder, token)).context("configure")?;
                fs::write(folder.join("cib.xml"), CIB).context("configure")?;
                PACEMAKER.to_owned()
            }
        };
        let x = paths::x()?;
        let script = format!(
            "{INIT}\n'{}' echo {SERVICE} {name} &\n{begin}while :; do sleep 1000 & wait; done\n",
            x.display()
        );
        fs::write(folder.join("init.sh"), script).context("write a host's start")?;
        let log = File::create(folder.join("init.log")).context("a host's log")?;
        let mut host = Command::new("ip");
        host.args([
            "netns",
            "exec",
            &format!("futago-peer-{name}"),
            "unshare",
            "--mount",
            "--pid",
            "--uts",
            "--ipc",
        ]);
        host.args(["--fork", "--kill-child", "--mount-proc", "--propagation", "private", "bash"]);
        host.arg(folder.join("init.sh")).arg(name).arg(&folder);
        host.stdin(Stdio::null()).stdout(log.try_clone().context("the same log")?).stderr(log);
        self.hosts.push((name, host.spawn().context("start a host")?));
        Ok(())
    }

    fn probe(&self, told: &str) -> Result<Prober> {
        let mut client = Command::new("ip");
        client.args(["netns", "exec", NAMESPACES[3]]);
        Prober::start(client, SERVICE, self.folder.path().join(told))
    }

    /// The pid 1 of a host, as seen from here.
    fn init(&self, name: &str) -> Result<i32> {
        let (_, outer) = self.hosts.iter().find(|(host, _)| *host == name).context("a host that runs")?;
        let path = format!("/proc/{0}/task/{0}/children", outer.id());
        let children = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let first = children.split_whitespace().next().context("a host without pid 1")?;
        first.parse().context("a pid")
    }

    /// Waits for Pacemaker to know both hosts and to be idle.
    fn wait_settled(&self) -> Result<()> {
        let pid = self.init("h2")?.to_string();
        let until = Instant::now() + UP;
        loop {
            let mut ask = Command::new("nsenter");
            ask.args(["-t", &pid, "-m", "-p", "-u", "-i", "-n", "timeout", "5", "crm_mon", "-1"]);
            let said = command::collect(&mut ask, COMMAND)?.out;
            if said.contains("Online: [ h1 h2 ]") && said.contains("Started h1") {
                return Ok(());
            }
            if Instant::now() >= until {
                bail!("Pacemaker does not settle: {said}");
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Power loss: both cables dead and every process killed.
    fn power_off(&mut self, name: &'static str) -> Result<()> {
        let space = format!("futago-peer-{name}");
        let pid = rustix::process::Pid::from_raw(self.init(name)?).context("a pid")?;
        let cut = "link set pub0 down\nlink set ic0 down\n";
        let batch = self.folder.path().join("cut");
        fs::write(&batch, cut).context("write what is cut")?;
        let mut ip = Command::new("ip").args(["-n", &space, "-batch"]).arg(&batch).spawn().context("cut")?;
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).context("kill a host")?;
        command::wait(&mut ip, COMMAND)?;
        Ok(())
    }

    fn said(&self, peer: Peer) -> String {
        let logs = ["h1", "h2"].into_iter().flat_map(|host| {
            ["init.log", "keepalived.log", "corosync.log", "pacemaker.log"]
                .map(|log| fs::read_to_string(self.folder.path().join(host).join(log)).unwrap_or_default())
        });
        let logs: String = logs.collect();
        let tail: Vec<&str> = logs.lines().rev().take(40).collect();
        format!("{} does not come up:\n{}", peer.title(), tail.join("\n"))
    }
}

impl Drop for PeerLab {
    fn drop(&mut self) {
        for (name, mut outer) in std::mem::take(&mut self.hosts) {
            end_host(name, &mut outer);
        }
        take_down();
    }
}

/// Ends a host; its pid 1 dies with the process that made it.
fn end_host(name: &str, outer: &mut Child) {
    if outer.kill().is_err() || outer.wait().is_err() {
        println!("host {name} of a peer does not end");
    }
}

/// Takes away what an earlier run may have left.
fn take_down() {
    for name in NAMESPACES {
        if Path::new("/run/netns").join(name).exists() {
            let _ = command::collect(Command::new("ip").args(["netns", "del", name]), COMMAND);
        }
    }
}

/// A host's own folders, fresh: what a peer leaves there is not the machine's.
const INIT: &str = "cd \"$2\" || exit 1\nhostname \"$1\"\n\
    for d in /run /var/log /var/lib/corosync /var/lib/pacemaker /etc/corosync /dev/shm; do\n\
    [ -d $d ] && mount -t tmpfs -o mode=755 tmpfs $d\ndone\n\
    chmod 1777 /dev/shm\nmkdir -p /run/lock /run/resource-agents\n";

const PACEMAKER: &str = "mkdir -p /var/lib/pacemaker/cib /var/lib/pacemaker/pengine /var/lib/pacemaker/blackbox \
    /var/lib/pacemaker/cores /run/crm /var/log/pacemaker /etc/corosync/uidgid.d\n\
    cp corosync.conf /etc/corosync/\ncp cib.xml /var/lib/pacemaker/cib/\n\
    chown -R hacluster:haclient /var/lib/pacemaker /run/crm /var/log/pacemaker\n\
    chmod 600 /var/lib/pacemaker/cib/cib.xml\nexport PCMK_logfile=$PWD/pacemaker.log\n\
    corosync -f > corosync.out 2>&1 &\n\
    for i in $(seq 100); do corosync-cmapctl runtime.votequorum.this_node_id >/dev/null 2>&1 && break; sleep 0.1; done\n\
    pacemakerd > pacemakerd.out 2>&1 &\n";

/// The manual's priorities and a check of the service.
fn keepalived(name: &str, advert_ms: u32) -> String {
    let (state, priority) = if name == "h1" { ("MASTER", 150) } else { ("BACKUP", 100) };
    let seconds = f64::from(advert_ms) / 1_000.0;
    format!(
        "global_defs {{\n router_id {name}\n enable_script_security\n script_user root\n}}\n\
         vrrp_script check {{\n script \"/usr/bin/pgrep -x x\"\n interval 1\n fall 1\n rise 1\n}}\n\
         vrrp_instance VI {{\n state {state}\n interface pub0\n virtual_router_id 51\n priority {priority}\n version 3\n \
         advert_int {seconds}\n virtual_ipaddress {{\n  {FLOATING}/24 dev pub0\n }}\n track_script {{\n  check\n }}\n}}\n"
    )
}

fn corosync(folder: &Path, token_ms: u32) -> String {
    let token = if token_ms == 0 { String::new() } else { format!(" token: {token_ms}\n") };
    let node = |number: u32| {
        format!(" node {{\n  name: h{number}\n  nodeid: {number}\n  ring0_addr: 10.78.0.{number}\n }}\n")
    };
    let log: PathBuf = folder.join("corosync.log");
    format!(
        "totem {{\n version: 2\n cluster_name: peer\n transport: knet\n{token}}}\nnodelist {{\n{}{}}}\n\
         quorum {{\n provider: corosync_votequorum\n two_node: 1\n}}\n\
         logging {{\n to_stderr: no\n to_syslog: no\n to_logfile: yes\n logfile: {}\n}}\n",
        node(1),
        node(2),
        log.display()
    )
}

const CIB: &str = r#"<cib crm_feature_set="3.16.1" validate-with="pacemaker-3.9" epoch="10" num_updates="0" admin_epoch="0">
 <configuration>
  <crm_config><cluster_property_set id="cps">
   <nvpair id="o1" name="stonith-enabled" value="false"/>
   <nvpair id="o2" name="dc-deadtime" value="5s"/>
  </cluster_property_set></crm_config>
  <nodes><node id="1" uname="h1"/><node id="2" uname="h2"/></nodes>
  <resources>
   <primitive id="vip" class="ocf" provider="heartbeat" type="IPaddr2">
    <instance_attributes id="vip-ia">
     <nvpair id="vip-ip" name="ip" value="10.77.0.100"/>
     <nvpair id="vip-mask" name="cidr_netmask" value="24"/>
     <nvpair id="vip-nic" name="nic" value="pub0"/>
    </instance_attributes>
    <operations><op id="vip-mon" name="monitor" interval="10s" timeout="20s"/></operations>
   </primitive>
  </resources>
  <constraints><rsc_location id="pref" rsc="vip" node="h1" score="50"/></constraints>
  <rsc_defaults><meta_attributes id="rd"><nvpair id="rd-st" name="resource-stickiness" value="100"/></meta_attributes></rsc_defaults>
 </configuration>
 <status/>
</cib>
"#;
