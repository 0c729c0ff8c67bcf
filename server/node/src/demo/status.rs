//! How the demo stands: its hosts, their processes as seen from outside, and what each server says of the cluster.

use super::plan::{APP_PORT, FLOATING, Host};
use crate::client::Client;
use os::process::ProcessId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wire::ClusterView;

/// A server that does not answer in this time shows no view.
const VIEW_LIMIT: Duration = Duration::from_millis(1500);

/// A host as the launcher knows it.
#[derive(Clone, Debug)]
pub struct HostFacts {
    /// Its pid 1, while it runs.
    pub init: Option<ProcessId>,
    /// Its freezer.
    pub cgroup: PathBuf,
}

/// What the launcher knows, shared with whoever asks.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The demo's folder.
    pub folder: PathBuf,
    /// Where each server's page answers on this machine.
    pub pages: BTreeMap<Host, SocketAddr>,
    /// Where the application answers on this machine.
    pub app: SocketAddr,
    /// The one-time login, once the cluster exists.
    pub password: String,
    /// Every host.
    pub hosts: BTreeMap<Host, HostFacts>,
}

/// What `futago demo status --json` prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The launcher's pid.
    pub launcher: u32,
    /// Where the application answers on the public LAN.
    pub service: SocketAddr,
    /// Where it answers on this machine.
    pub app: String,
    /// The one-time login, good once on each page; empty until the cluster exists.
    pub password: String,
    /// Both servers.
    pub servers: Vec<ServerStatus>,
    /// Every host with its pid 1, for commands inside it.
    pub hosts: Vec<HostStatus>,
}

/// One server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerStatus {
    /// 1 or 2.
    pub id: u8,
    /// Its name.
    pub name: String,
    /// Its page.
    pub page: String,
    /// Whether its host runs.
    pub alive: bool,
    /// Its folder.
    pub folder: PathBuf,
    /// Its image file.
    pub image: PathBuf,
    /// Its node process, as seen from the launcher.
    pub node_pid: Option<u32>,
    /// Its disk process.
    pub disk_pid: Option<u32>,
    /// The process that outlives it, as seen from the launcher's host.
    pub keeper_pid: Option<u32>,
    /// The cluster as it sees it; nothing while it does not answer.
    pub view: Option<ClusterView>,
}

/// One host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostStatus {
    /// Its name.
    pub name: String,
    /// Its pid 1, as seen from the launcher; nothing while it is down.
    pub init: Option<u32>,
    /// Its freezer.
    pub cgroup: PathBuf,
}

/// The page's address as the user's browser reaches it.
#[must_use]
pub fn page_address(address: SocketAddr) -> String {
    format!("https://{address}")
}

/// A server's folder below the demo's.
#[must_use]
pub fn host_folder(folder: &Path, host: Host) -> PathBuf {
    folder.join(host.name())
}

/// A server's image file.
#[must_use]
pub fn image(folder: &Path, host: Host) -> PathBuf {
    host_folder(folder, host).join("mirror.img")
}

/// A client of a server's API, through its pid 1's view of the files and the proxy of its page.
///
/// # Errors
/// The host is down, or its node has not come up yet.
pub fn client(facts: &Facts, host: Host) -> anyhow::Result<Client> {
    let init = facts.hosts.get(&host).and_then(|known| known.init);
    let page = facts.pages.get(&host);
    let (Some(init), Some(page)) = (init, page) else { anyhow::bail!("{host} is down") };
    let inside = host_folder(&facts.folder, host);
    let inside = inside.strip_prefix("/").unwrap_or(&inside).to_owned();
    let folder = Path::new("/proc").join(init.pid.to_string()).join("root").join(inside);
    Ok(Client::from_data(&folder)?.with_address(*page))
}

/// The process of a host whose first argument is this word.
fn find(cgroup: &Path, word: &str) -> Option<u32> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).ok()?;
    text.lines().filter_map(|line| line.parse().ok()).find(|pid: &u32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).nth(1) == Some(word.as_bytes())
    })
}

async fn view(facts: &Facts, host: Host) -> Option<ClusterView> {
    let client = client(facts, host).ok()?;
    let answer = tokio::time::timeout(VIEW_LIMIT, client.get("/api/view")).await.ok()?.ok()?;
    answer.json().ok()
}

async fn server(facts: &Facts, host: Host, id: u8) -> ServerStatus {
    let known = facts.hosts.get(&host);
    let alive = known.is_some_and(|known| known.init.is_some());
    let pid = |word| known.filter(|_| alive).and_then(|known| find(&known.cgroup, word));
    ServerStatus {
        id,
        name: host.name().to_owned(),
        page: facts.pages.get(&host).copied().map(page_address).unwrap_or_default(),
        alive,
        folder: host_folder(&facts.folder, host),
        image: image(&facts.folder, host),
        node_pid: pid("node"),
        disk_pid: pid("disk"),
        keeper_pid: pid("keeper"),
        view: if alive { view(facts, host).await } else { None },
    }
}

/// Asks both servers at once and puts everything together.
pub async fn status(facts: &Facts) -> Status {
    let (one, two) = tokio::join!(server(facts, Host::Server1, 1), server(facts, Host::Server2, 2));
    let host = |(host, known): (&Host, &HostFacts)| HostStatus {
        name: host.name().to_owned(),
        init: known.init.map(|init| init.pid),
        cgroup: known.cgroup.clone(),
    };
    Status {
        launcher: std::process::id(),
        service: SocketAddr::new(FLOATING, APP_PORT),
        app: format!("http://{}", facts.app),
        password: facts.password.clone(),
        servers: vec![one, two],
        hosts: facts.hosts.iter().map(host).collect(),
    }
}
