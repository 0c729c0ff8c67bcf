//! The running demo: hosts and cables, changed by one order at a time on the launcher's main thread.

use super::control::{Act, Request};
use super::host::{self, Running};
use super::init::{Order, Plan};
use super::lan::Lan;
use super::plan::{Cable, Host};
use super::proxy::Gate;
use super::record::{HostRecord, Record};
use super::status::{Facts, HostFacts, host_folder};
use super::{Backing, control};
use anyhow::{Context as _, bail};
use os::process::ProcessId;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Everything that runs.
pub struct World {
    folder: PathBuf,
    backing: Backing,
    lan: Lan,
    running: BTreeMap<Host, Running>,
    gates: BTreeMap<Host, Gate>,
    facts: Arc<Mutex<Facts>>,
    record: Record,
}

impl World {
    /// Switches on the networks; no host runs yet.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn create(
        folder: &Path,
        backing: Backing,
        gates: BTreeMap<Host, Gate>,
        facts: Arc<Mutex<Facts>>,
        record: Record,
    ) -> anyhow::Result<World> {
        let lan = Lan::create().context("make the demo's networks")?;
        Ok(World { folder: folder.to_owned(), backing, lan, running: BTreeMap::new(), gates, facts, record })
    }

    fn plan(&self, host: Host, cgroup: &Path) -> anyhow::Result<Plan> {
        let folder = host_folder(&self.folder, host);
        fs::create_dir_all(&folder)?;
        let program = std::env::current_exe()?.display().to_string();
        let data = folder.display().to_string();
        let listen = format!("0.0.0.0:{}", super::plan::PORT);
        let control = self.folder.join(control::SOCKET).display().to_string();
        let words = match host {
            Host::Server1 | Host::Server2 => vec![
                program,
                "node".into(),
                "--data".into(),
                data,
                "--listen".into(),
                listen,
                "--name".into(),
                host.name().into(),
                "--demo-control".into(),
                control,
                "--backing".into(),
                self.backing.word().into(),
            ],
            Host::Witness => {
                vec![program, "witness".into(), "--data".into(), data, "--listen".into(), listen]
            }
            Host::Client => Vec::new(),
        };
        Ok(Plan {
            name: host.name().to_owned(),
            launcher: std::process::id(),
            cgroup: cgroup.to_owned(),
            clock_offset: host.clock_offset(),
            volatile: vec!["/run".into(), folder.join("run")],
            program: words,
            log: folder.join(if host == Host::Witness { "witness.log" } else { "node.log" }),
        })
    }

    /// Powers a host on.
    ///
    /// # Errors
    /// It runs already, or the kernel refused.
    pub fn start(&mut self, host: Host) -> anyhow::Result<()> {
        if self.running.contains_key(&host) {
            bail!("{host} runs");
        }
        let cgroup = host::freezer(std::process::id(), host)?;
        let plan = self.plan(host, cgroup.path())?;
        let log = host_folder(&self.folder, host).join("host.log");
        let mut running = host::start(&plan, cgroup, &log)?;
        self.lan.plug(host, &running.net)?;
        running.order(Order::Go)?;
        if let Some(gate) = self.gates.get(&host) {
            gate.set(Some(Arc::clone(&running.net)));
        }
        self.running.insert(host, running);
        self.tell()
    }

    /// Takes a host's power away.
    ///
    /// # Errors
    /// It is down already, or something of it does not go.
    pub fn kill(&mut self, host: Host) -> anyhow::Result<()> {
        let Some(running) = self.running.remove(&host) else { bail!("{host} is down already") };
        if let Some(gate) = self.gates.get(&host) {
            gate.set(None);
        }
        self.lan.power_off(host)?;
        let storage = host::storage(running.init, &host_folder(&self.folder, host))?;
        self.note_storage(host, &storage);
        let off = running.power_off(&storage).with_context(|| format!("power off {host}"));
        self.lan.unplug(host)?;
        if off.is_ok() {
            self.record.hosts.retain(|known| known.name != host.name());
        }
        self.tell()?;
        off
    }

    /// Takes everything away.
    ///
    /// # Errors
    /// Something does not go; the rest is gone nevertheless.
    pub fn end(&mut self) -> anyhow::Result<()> {
        let hosts: Vec<Host> = self.running.keys().copied().collect();
        let mut ended = Ok(());
        for host in hosts {
            if let Err(error) = self.kill(host) {
                eprintln!("futago demo: {error:#}");
                ended = Err(error);
            }
        }
        ended
    }

    /// Carries out one order.
    ///
    /// # Errors
    /// A sentence for whoever ordered.
    pub fn order(&mut self, request: &Request) -> anyhow::Result<()> {
        let target = request.target.as_str();
        let (host, cables) = (Host::by_name(target), Cable::by_name(target));
        match request.act {
            Act::Kill => self.kill(named(host, target)?),
            Act::Cut => self.lan.pull(&cables.with_context(|| no_cable(target))?, true),
            Act::Mend => self.lan.pull(&cables.with_context(|| no_cable(target))?, false),
            // The witness names a host and a cable: whichever is broken.
            Act::Restart => match (host, cables) {
                (Some(host), _) if !self.running.contains_key(&host) => self.start(host),
                (_, Some(cables)) => self.lan.pull(&cables, false),
                (Some(host), None) => bail!("{host} runs: kill it first"),
                (None, None) => bail!("{target} is neither a host nor a cable of the demo"),
            },
            Act::StopNode => self.tell_host(named(host, target)?, Order::Hold),
            Act::StartNode => self.tell_host(named(host, target)?, Order::Release),
            Act::Status => bail!("the status is asked elsewhere"),
        }
    }

    fn tell_host(&mut self, host: Host, order: Order) -> anyhow::Result<()> {
        self.running.get_mut(&host).with_context(|| format!("{host} is down"))?.order(order)
    }

    fn note_storage(&mut self, host: Host, storage: &host::Storage) {
        let loops = storage.loops.iter().map(|device| (device.number, device.backing.clone())).collect();
        if let Some(known) = self.record.hosts.iter_mut().find(|known| known.name == host.name()) {
            known.connections.clone_from(&storage.connections);
            known.loops = loops;
        }
    }

    /// Brings the facts and the record up to date.
    fn tell(&mut self) -> anyhow::Result<()> {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        for host in Host::ALL {
            let running = self.running.get(&host);
            let cgroup = running.map(|running| running.cgroup.path().to_owned()).unwrap_or_default();
            facts.hosts.insert(host, HostFacts { init: running.map(|running| running.init), cgroup });
        }
        drop(facts);
        for (host, running) in &self.running {
            if !self.record.hosts.iter().any(|known| known.name == host.name()) {
                let cgroup =
                    running.cgroup.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
                let processes: Vec<ProcessId> = vec![running.outer_id, running.init];
                let name = host.name().to_owned();
                self.record.hosts.push(HostRecord { name, processes, cgroup, ..HostRecord::default() });
            }
        }
        self.record.store(&self.folder)
    }

    /// Notes what has come up since the last look, and hosts that died by themselves.
    ///
    /// # Errors
    /// The record cannot be stored.
    pub fn look(&mut self) -> anyhow::Result<()> {
        let before = self.record.clone();
        let dead: Vec<Host> =
            self.running.iter().filter(|(_, running)| !running.is_alive()).map(|(host, _)| *host).collect();
        for host in dead {
            eprintln!("futago demo: {host} died by itself; start it again with: futago demo restart {host}");
            self.kill(host)?;
        }
        let inits: Vec<(Host, ProcessId)> =
            self.running.iter().map(|(host, running)| (*host, running.init)).collect();
        for (host, init) in inits {
            let storage = host::storage(init, &host_folder(&self.folder, host))?;
            self.note_storage(host, &storage);
        }
        if self.record != before {
            self.record.store(&self.folder)?;
        }
        Ok(())
    }
}

fn named(host: Option<Host>, target: &str) -> anyhow::Result<Host> {
    host.with_context(|| format!("{target} is no host of the demo: server1, server2, witness or client"))
}

fn no_cable(target: &str) -> String {
    format!("{target} is no cable of the demo: ic1, ic2, public-1, public-2, witness or client")
}
