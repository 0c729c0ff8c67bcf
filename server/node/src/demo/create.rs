//! The demo's cluster, created through the servers' own API as a person would: codes read off, one order, then watched.

use super::exec;
use super::plan::{APP_PORT, BLOCK_PORT, FLOATING, FLOATING_ALONE, Host, Network, PORT, PREFIX};
use super::status::{Facts, client, host_folder, image, page_address};
use anyhow::Context as _;
use os::bounded::{Outcome, bounded};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use wire::config::{GroupConfig, LinkConfig, LinkKind, MountConfig, SetConfig, TimingProfile};
use wire::view::{GroupState, ServerState, SetState};
use wire::{ClusterView, GroupId, LinkId, NodeId, SetId};

/// For servers and witness to answer after their start.
const UP_LIMIT: Duration = Duration::from_secs(60);
/// For both servers normal, group running, mirror in sync: the first copy compares both images.
const HEALTHY_LIMIT: Duration = Duration::from_secs(300);
/// For one command inside a host.
const COMMAND_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);
/// Seconds a start or stop script may take.
const SCRIPT_LIMIT_S: u32 = 20;

/// What the user chose.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Bytes the file system is given.
    pub set_bytes: u64,
    /// Whether a server that was down recovers by itself.
    pub auto_recover: bool,
    /// How soon a dead server is found.
    pub timing: TimingProfile,
    /// A second group of nothing but a floating IP.
    pub address_group: bool,
}

/// Waits for an answer that is not an error; the last error when it does not come.
async fn eventually<T, F: Future<Output = anyhow::Result<T>>>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> F,
) -> anyhow::Result<T> {
    let until = Instant::now() + limit;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() >= until => {
                return Err(error.context(format!("{what}: not within {} s", limit.as_secs())));
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

/// The pairing code of a server or the witness, as its console shows it.
fn code(facts: &Facts, host: Host) -> anyhow::Result<String> {
    let known = facts.hosts.get(&host).context("no such host")?;
    let init = known.init.with_context(|| format!("{host} is down"))?;
    let program = std::env::current_exe()?.display().to_string();
    let folder = host_folder(&facts.folder, host).display().to_string();
    let words = [program, "code".into(), "--data".into(), folder];
    let mut command = exec::command(init.pid, &known.cgroup, &words)?;
    let output = match bounded(COMMAND_LIMIT, move || command.output()) {
        Outcome::Done(output) => output?,
        Outcome::Unknown => anyhow::bail!("futago code on {host} does not end"),
    };
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || said.is_empty() {
        anyhow::bail!("futago code on {host}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(said)
}

fn links() -> Vec<LinkConfig> {
    let order = [
        (Network::Ic1, LinkKind::Interconnect),
        (Network::Ic2, LinkKind::Interconnect),
        (Network::Public, LinkKind::Public),
    ];
    let link = |(id, (network, kind)): (u8, (Network, LinkKind))| LinkConfig {
        id: LinkId(id),
        name: network.title().to_owned(),
        kind,
        addresses: Host::SERVERS.map(|host| network.address(host)),
        prefix: PREFIX,
    };
    (0..).zip(order).map(link).collect()
}

/// Where the demo's mirror is mounted, the same on both servers (C3); each has it in its own mount namespace.
fn mount_point(folder: &Path) -> String {
    folder.join("mnt").display().to_string()
}

/// The scripts' common start: a pid alone may be another's by now, so the process must also be the application.
const RUNNING: &str = "pid=/run/futago-app.pid\n\
    running() { [ -e $pid ] && tr '\\0' ' ' < /proc/$(cat $pid)/cmdline 2>/dev/null | grep -q ' demo app '; }\n";

/// Starts the application and waits until it answers; node bounds the time. The application stays in the script's session,
/// so that node finds it there.
fn start_script(folder: &Path, program: &Path) -> String {
    format!(
        "{RUNNING}running && exit 0\nrm -f $pid\n\
         '{}' demo app --data '{}' --listen {FLOATING}:{APP_PORT} --pid-file $pid &\n\
         while [ ! -e $pid ]; do kill -0 $! || exit 1; sleep 0.02; done\n",
        program.display(),
        mount_point(folder)
    )
}

/// Stops the application if it runs and waits until it is gone; node bounds the time.
fn stop_script() -> String {
    // Until the whole process is gone: one of its threads may still write, and would hold the file system.
    format!(
        "{RUNNING}running || exit 0\np=$(cat $pid)\nkill $p\n\
         while kill -0 $p 2>/dev/null; do sleep 0.02; done\nrm -f $pid\n"
    )
}

/// A group of nothing but an address: whatever listens on it runs on both servers already.
fn address_group() -> GroupConfig {
    GroupConfig {
        id: GroupId(2),
        name: "address".into(),
        policy: NodeId::BOTH.to_vec(),
        auto_start: true,
        mounts: Vec::new(),
        addresses: vec![FLOATING_ALONE],
        start_script: String::new(),
        stop_script: String::new(),
        script_timeout_s: SCRIPT_LIMIT_S,
        rules: wire::rules::GroupRules::default(),
    }
}

fn request(facts: &Facts, wish: &Wish, twin: &str, witness: &str) -> anyhow::Result<Value> {
    let program = std::env::current_exe()?;
    let address = |host| SocketAddr::new(Network::Public.address(host), PORT);
    let page = |host| facts.pages.get(&host).copied().map(page_address).unwrap_or_default();
    let backing = Host::SERVERS.map(|host| image(&facts.folder, host).display().to_string());
    let group = GroupConfig {
        id: GroupId(1),
        name: "files".into(),
        policy: NodeId::BOTH.to_vec(),
        auto_start: true,
        mounts: vec![MountConfig {
            set: SetId(1),
            point: mount_point(&facts.folder),
            file_system: "ext4".into(),
            format_blank: true,
        }],
        addresses: vec![FLOATING],
        start_script: start_script(&facts.folder, &program),
        stop_script: stop_script(),
        script_timeout_s: SCRIPT_LIMIT_S,
        rules: wire::rules::GroupRules::default(),
    };
    let mut groups = vec![group];
    if wish.address_group {
        groups.push(address_group());
    }
    let set = SetConfig {
        id: SetId(1),
        name: "data".into(),
        group: GroupId(1),
        backing,
        size: wish.set_bytes,
        port: BLOCK_PORT,
        source: NodeId(1),
        traffic: wire::traffic::Traffic::default(),
        front: wire::config::FrontConfig::default(),
    };
    let side = |host: Host| json!({ "name": host.name(), "address": address(host), "page": page(host) });
    let mut other = side(Host::Server2);
    other["code"] = json!(twin);
    Ok(json!({
        "name": "demo",
        "this": side(Host::Server1),
        "twin": other,
        "witness": { "name": "witness", "address": address(Host::Witness), "code": witness },
        "links": links(),
        "sets": [set],
        "groups": groups,
        "timing": wish.timing,
        "auto_recover": wish.auto_recover,
    }))
}

/// What is still missing in this view for a demo that can be shown; nothing: healthy.
fn missing(view: &ClusterView) -> Option<String> {
    let server = view.servers.iter().find(|server| server.state != ServerState::Normal);
    let set = view.sets.iter().find(|set| set.state != SetState::InSync);
    let group = view.groups.iter().find(|group| group.state != GroupState::Running);
    let server = server.map(|server| format!("{} is {:?}", server.name, server.state));
    let group = group.map(|group| format!("group {} is {:?}", group.name, group.state));
    let set = set.map(|set| format!("mirror set {} is {:?}", set.name, set.state));
    let empty = (view.servers.len() < 2 || view.groups.is_empty() || view.sets.is_empty())
        .then(|| "the view is not complete".to_owned());
    server.or(group).or(set).or(empty)
}

/// Creates the cluster and waits until it is healthy; the one-time login is in `facts` from its creation on.
///
/// # Errors
/// A server refused, or something did not get there in time; what it is is named.
pub async fn create(shared: &Arc<Mutex<Facts>>, wish: &Wish) -> anyhow::Result<()> {
    let facts = || shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for host in Host::SERVERS {
        let healthy = || async { client(&facts(), host)?.get("/healthz").await?.done() };
        eventually(&format!("{host} answers"), UP_LIMIT, healthy).await?;
    }
    let twin =
        eventually("the pairing code of server2", UP_LIMIT, || async { code(&facts(), Host::Server2) })
            .await?;
    let witness =
        eventually("the pairing code of the witness", UP_LIMIT, || async { code(&facts(), Host::Witness) })
            .await?;
    let first = client(&facts(), Host::Server1)?;
    let body = request(&facts(), wish, &twin, &witness)?;
    first.post("/api/cluster", &body).await?.done().context("create the cluster")?;
    let login: Value =
        first.post("/api/logins", &json!({})).await?.json().context("ask for a one-time login")?;
    let password = login.get("password").and_then(Value::as_str).unwrap_or_default().to_owned();
    shared.lock().unwrap_or_else(PoisonError::into_inner).password = password;
    let healthy = || async {
        for host in Host::SERVERS {
            let view: ClusterView = client(&facts(), host)?.get("/api/view").await?.json()?;
            if let Some(missing) = missing(&view) {
                anyhow::bail!("{host} says: {missing}");
            }
        }
        Ok(())
    };
    eventually("the cluster is healthy", HEALTHY_LIMIT, healthy).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_of_the_demo_has_no_faults() {
        let folder = Path::new("/demo");
        let facts = Facts {
            folder: folder.into(),
            pages: Default::default(),
            app: "127.0.0.1:8440".parse().unwrap(),
            password: String::new(),
            hosts: Default::default(),
        };
        let wish = Wish {
            set_bytes: 64 << 20,
            auto_recover: true,
            timing: TimingProfile::Fast,
            address_group: true,
        };
        let body = request(&facts, &wish, "twin", "witness").unwrap();
        let server = |id: u8, host: Host| wire::config::ServerConfig {
            id: NodeId(id),
            name: host.name().into(),
            address: "10.0.0.1:1".parse().unwrap(),
            page: String::new(),
            fingerprint: String::new(),
        };
        let config = wire::ClusterConfig {
            version: 1,
            name: "demo".into(),
            servers: vec![server(1, Host::Server1), server(2, Host::Server2)],
            links: serde_json::from_value(body["links"].clone()).unwrap(),
            witness: None,
            sets: serde_json::from_value(body["sets"].clone()).unwrap(),
            groups: serde_json::from_value(body["groups"].clone()).unwrap(),
            timing: wish.timing.config(),
            auto_recover: true,
        };
        assert_eq!(config.faults(), []);
    }

    #[test]
    fn the_scripts_are_shell_and_a_stop_without_a_start_is_done() {
        for script in [start_script(Path::new("/demo dir"), Path::new("/bin/futago")), stop_script()] {
            let read = std::process::Command::new("/bin/sh").args(["-n", "-c", &script]).output().unwrap();
            assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        }
        let script = stop_script().replace("/run/", "/no/such/folder/");
        assert!(std::process::Command::new("/bin/sh").args(["-c", &script]).status().unwrap().success());
    }
}
