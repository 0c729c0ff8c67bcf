//! What an operator orders: the new configuration is made of it, and led through on both servers.

use super::peer::{Ask, Say, ask_twin};
use super::{Tongue, abandon, all_possible, apply, hold, hold_pending, look, prepare, touched};
use crate::app::{App, Running};
use crate::http::error::Fault;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;
use wire::backing::DATA_BYTES_MIN;
use wire::config::{ConfigFault, FrontConfig, GroupConfig, MountConfig, SetConfig};
use wire::text::Lang;
use wire::traffic::{Traffic, WriteMode};
use wire::{ClusterConfig, GroupId, NodeId, SetId};

/// Ids of what is added to a running cluster begin above this and grow with the configuration's version, so that none is ever
/// used twice: the register of a group that is gone is still known to its acceptors.
const FIRST_ID: u16 = 100;
/// Ports of block links, where none is named: the first that is free.
const FIRST_PORT: u16 = 7_789;
/// For a new group's scripts.
const SCRIPT_SECONDS: u32 = 60;

/// A mirror set to be registered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RegisterSet {
    /// Its name (A2); also that of its group where a new one is made and not named.
    pub name: String,
    /// Disk, partition or image file on server 1 and server 2.
    pub backing: [String; 2],
    /// Bytes of data; absent: as much as the smaller disk has room for.
    #[serde(default)]
    pub size: Option<u64>,
    /// The group it goes into; absent: a new one.
    #[serde(default)]
    pub group: Option<GroupId>,
    /// The new group's name.
    #[serde(default)]
    pub group_name: Option<String>,
    /// The new group's floating IPs.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Whose data is copied to the other server.
    pub source: NodeId,
    /// Where its file system is mounted; absent: nowhere.
    #[serde(default)]
    pub mount: Option<String>,
    /// `ext4` or `xfs`.
    #[serde(default = "file_system")]
    pub file_system: String,
    /// Whether the new group starts with the cluster, and at once.
    #[serde(default = "yes")]
    pub auto_start: bool,
    /// TCP port of its block link; the first that is free where absent.
    #[serde(default)]
    pub port: Option<u16>,
    /// How its blocks travel.
    #[serde(default)]
    pub traffic: Traffic,
    /// How its data is reached.
    #[serde(default)]
    pub front: FrontConfig,
    /// What the disks carry may be lost (of the source's data: taken over).
    #[serde(default)]
    pub replace: bool,
    /// Language of the refusals.
    #[serde(default)]
    pub lang: Tongue,
}

fn file_system() -> String {
    "ext4".into()
}

fn yes() -> bool {
    true
}

/// Registers a mirror set on both servers; on success it is in the configuration of this one, and the other has prepared it.
///
/// # Errors
/// Every fault of the order, every refusal of a disk, or that the other server does not take part; nothing is changed then.
pub async fn register(app: &Arc<App>, wanted: RegisterSet) -> Result<ClusterConfig, Fault> {
    let running = app.running().ok_or(Fault::NotFound("this server is in no cluster"))?;
    let _alone = app.changing.try_lock().map_err(|_| under_way())?;
    let present = running.config();
    let config = with(&present, &wanted, wanted.size.unwrap_or(DATA_BYTES_MIN));
    check(&config, &wanted)?;
    hold(&running, touched(&present, &config)).await?;
    let made = registered(app, &running, config, &wanted).await;
    hold_pending(&app.data, &running).await?;
    made
}

/// The rest of a registration, while the group it goes into stays as it is.
async fn registered(
    app: &App,
    running: &Running,
    mut config: ClusterConfig,
    wanted: &RegisterSet,
) -> Result<ClusterConfig, Fault> {
    let (present, lang) = (running.config(), Lang::from(wanted.lang));
    all_possible(running, &config, lang).await?;
    let rooms = look_at_both(app, running, &config, wanted).await?;
    if wanted.size.is_none() {
        let Some(size) = rooms else {
            let remedy = "say how large the set is to be: an image file has the size that it is given";
            return Err(Fault::Field("size", remedy.into()));
        };
        config = with(&present, wanted, size);
        check(&config, wanted)?;
        look_at_both(app, running, &config, wanted).await?;
    }
    lead(app, running, &config, wanted.replace, wanted.lang).await?;
    Ok(config)
}

/// Releases a mirror set, on the engine's order: it stands so that this is allowed.
///
/// # Errors
/// The other server does not take part, or refuses; nothing is changed then.
pub async fn release(app: &Arc<App>, set: SetId) -> Result<(), Fault> {
    let running = app.running().ok_or(Fault::NotFound("this server is in no cluster"))?;
    let _alone = app.changing.try_lock().map_err(|_| under_way())?;
    let config = without(&running.config(), set);
    if let [fault, ..] = config.faults().as_slice() {
        return Err(Fault::Conflict(format!("{}: {}", fault.field, fault.remedy)));
    }
    lead(app, &running, &config, false, Tongue::En).await
}

/// The write mode of a set.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct SetMode {
    /// Which set.
    pub set: SetId,
    /// When its writes are to be acknowledged.
    pub mode: WriteMode,
    /// Language of the refusals.
    #[serde(default)]
    pub lang: Tongue,
}

/// Changes when the writes of a set are acknowledged (C4), on both servers; it takes effect while the set serves.
///
/// # Errors
/// There is no such set, it cannot be changed now, or the other server does not take part; nothing is changed then.
pub async fn set_mode(app: &Arc<App>, wanted: SetMode) -> Result<ClusterConfig, Fault> {
    let running = app.running().ok_or(Fault::NotFound("this server is in no cluster"))?;
    let _alone = app.changing.try_lock().map_err(|_| under_way())?;
    let present = running.config();
    let mut config = ClusterConfig { version: present.version + 1, ..present.clone() };
    let found = config.sets.iter_mut().find(|set| set.id == wanted.set);
    let set = found.ok_or(Fault::NotFound("there is no such mirror set"))?;
    if set.traffic.mode == wanted.mode {
        return Ok(present);
    }
    set.traffic.mode = wanted.mode;
    all_possible(&running, &config, wanted.lang.into()).await?;
    lead(app, &running, &config, false, wanted.lang).await?;
    Ok(config)
}

fn under_way() -> Fault {
    Fault::Conflict("another change of the configuration is under way: wait until it has ended".into())
}

/// The largest size that fits both servers' devices; none if one is a file.
async fn look_at_both(
    app: &App,
    running: &Running,
    config: &ClusterConfig,
    wanted: &RegisterSet,
) -> Result<Option<u64>, Fault> {
    let (replace, lang) = (wanted.replace, wanted.lang);
    let own = look(running, config, replace, lang.into()).await;
    let other = ask_twin(app, running, &Ask::Look { config: config.clone(), replace, lang }).await;
    let (own, other) = match (own, other) {
        (Ok(own), Ok(Say::Rooms(other))) => (own, other),
        // Told together: both fields of the form are marked.
        (Err(Fault::Config(mut own)), Err(Fault::Config(other))) => {
            own.extend(other);
            return Err(Fault::Config(own));
        }
        (Err(fault), _) | (_, Err(fault)) => return Err(fault),
        (Ok(_), Ok(_)) => return Err(Fault::Elsewhere("the other server is of another version".into())),
    };
    let all: Vec<_> = own.into_iter().chain(other).collect();
    let fixed = all.iter().all(|room| room.fixed);
    let least = all.iter().map(|room| disk::data_bytes(room.bytes)).min();
    Ok(least.filter(|least| fixed && *least > 0))
}

/// Both prepare; then it is made here, which decides; then the other is told.
async fn lead(
    app: &App,
    running: &Running,
    config: &ClusterConfig,
    replace: bool,
    lang: Tongue,
) -> Result<(), Fault> {
    let (me, version) = (running.me, config.version);
    prepare(app, running, config, me, replace).await?;
    let order = Ask::Prepare { config: config.clone(), replace, lang };
    if let Err(fault) = ask_twin(app, running, &order).await {
        // Whatever became of it there: it is taken back, now or when the other server asks.
        if let Err(unheard) = ask_twin(app, running, &Ask::Abandon { version }).await {
            tracing::info!("the other server will ask what became of the change: {unheard:?}");
        }
        abandon(app, running, version)?;
        return Err(fault);
    }
    apply(app, running, config.clone()).await?;
    tracing::info!(version, "the change of the configuration is made");
    if let Err(unheard) = ask_twin(app, running, &Ask::Make { version }).await {
        tracing::info!("the other server will ask what became of the change: {unheard:?}");
    }
    Ok(())
}

/// Faults at the fields of the order.
fn check(config: &ClusterConfig, wanted: &RegisterSet) -> Result<(), Fault> {
    if config.group(wanted.group.unwrap_or(GroupId(0))).is_none() && wanted.group.is_some() {
        return Err(Fault::Field("group", "name a group of this cluster, or none for a new one".into()));
    }
    let last = config.sets.len().saturating_sub(1);
    let (set, group) =
        (format!("sets[{last}]."), format!("groups[{}].", config.groups.len().saturating_sub(1)));
    let plain = |field: &str| {
        let field = field.strip_prefix(&set).unwrap_or(field);
        let field = if field.strip_prefix(&group) == Some("name") { "group_name" } else { field };
        if field.starts_with("groups[") && field.contains("mounts") {
            "mount".into()
        } else {
            field.to_string()
        }
    };
    let mut faults: Vec<ConfigFault> = config
        .faults()
        .into_iter()
        .map(|fault| ConfigFault { field: plain(&fault.field), remedy: fault.remedy })
        .collect();
    if let Err(fault) = wire::limits::check_name(&wanted.name) {
        let remedy = format!("use 1 to 15 letters, digits, - and _, no device name ({fault:?})");
        faults.push(ConfigFault { field: "name".into(), remedy });
    }
    if config.sets.iter().filter(|set| set.name.eq_ignore_ascii_case(&wanted.name)).count() > 1 {
        faults.push(ConfigFault { field: "name".into(), remedy: "another mirror set has this name".into() });
    }
    if faults.is_empty() { Ok(()) } else { Err(Fault::Config(faults)) }
}

/// The configuration with the set, and with a new group for it where none is named.
fn with(present: &ClusterConfig, wanted: &RegisterSet, size: u64) -> ClusterConfig {
    let mut config = present.clone();
    config.version += 1;
    let number = u16::try_from(config.version).unwrap_or(u16::MAX).saturating_add(FIRST_ID);
    let free = |used: &dyn Fn(u16) -> bool| (number..u16::MAX).find(|id| !used(*id)).unwrap_or(u16::MAX);
    let set = SetId(free(&|id| present.set(SetId(id)).is_some()));
    let mount = wanted.mount.as_ref().filter(|point| !point.is_empty()).map(|point| MountConfig {
        set,
        point: point.clone(),
        file_system: wanted.file_system.clone(),
        format_blank: true,
    });
    let id = wanted.group.unwrap_or_else(|| GroupId(free(&|id| present.group(GroupId(id)).is_some())));
    match config.groups.iter_mut().find(|group| group.id == id) {
        Some(group) => group.mounts.extend(mount),
        None if wanted.group.is_some() => {}
        None => config.groups.push(GroupConfig {
            id,
            name: wanted.group_name.clone().filter(|name| !name.is_empty()).unwrap_or(wanted.name.clone()),
            policy: vec![wanted.source, wanted.source.twin()],
            auto_start: wanted.auto_start,
            mounts: mount.into_iter().collect(),
            addresses: wanted.addresses.clone(),
            start_script: String::new(),
            stop_script: String::new(),
            script_timeout_s: SCRIPT_SECONDS,
            rules: wire::rules::GroupRules::default(),
        }),
    }
    let exports =
        |port: u16| present.sets.iter().filter_map(|set| set.front.nbd.as_ref()).any(|n| n.port == port);
    let taken = |port: u16| present.sets.iter().any(|set| set.port == port) || exports(port);
    let servers = |port: u16| present.servers.iter().any(|server| server.address.port() == port);
    let port = (FIRST_PORT..u16::MAX).find(|port| !taken(*port) && !servers(*port)).unwrap_or(FIRST_PORT);
    config.sets.push(SetConfig {
        id: set,
        name: wanted.name.clone(),
        group: id,
        backing: wanted.backing.clone(),
        size,
        port: wanted.port.unwrap_or(port),
        source: wanted.source,
        traffic: wanted.traffic,
        front: wanted.front.clone(),
    });
    config
}

/// The configuration without the set; a group that has nothing left to run goes with its last set.
fn without(present: &ClusterConfig, set: SetId) -> ClusterConfig {
    let mut config = present.clone();
    config.version += 1;
    let group = present.set(set).map(|set| set.group);
    config.sets.retain(|it| it.id != set);
    config.groups.iter_mut().for_each(|group| group.mounts.retain(|mount| mount.set != set));
    let sets = config.sets.clone();
    config.groups.retain(|it| {
        let scripts = !it.start_script.trim().is_empty() || !it.stop_script.trim().is_empty();
        Some(it.id) != group || scripts || !it.addresses.is_empty() || sets.iter().any(|s| s.group == it.id)
    });
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> ClusterConfig {
        ClusterConfig {
            version: 4,
            name: "pair".into(),
            servers: Vec::new(),
            links: Vec::new(),
            witness: None,
            sets: Vec::new(),
            groups: Vec::new(),
            timing: wire::config::TimingConfig::default(),
            auto_recover: false,
        }
    }

    fn order(name: &str) -> RegisterSet {
        let order = serde_json::json!({
            "name": name, "backing": [format!("/{name}1"), format!("/{name}2")], "source": 1, "mount": format!("/srv/{name}"),
        });
        serde_json::from_value(order).unwrap()
    }

    #[test]
    fn a_set_comes_with_a_group_of_its_own_and_goes_with_it_and_no_id_comes_twice() {
        let first = with(&cluster(), &order("one"), 1 << 20);
        let second = with(&first, &order("two"), 1 << 20);
        assert_eq!((first.version, second.version), (5, 6));
        assert_ne!(second.sets[0].port, second.sets[1].port);
        let into = RegisterSet { group: Some(second.groups[0].id), ..order("three") };
        let third = with(&second, &into, 1 << 20);
        assert_eq!((third.groups.len(), third.groups[0].mounts.len()), (2, 2));
        let gone = without(&third, third.sets[1].id);
        assert_eq!((gone.version, gone.sets.len(), gone.groups.len()), (8, 2, 1));
        let again = with(&gone, &order("two"), 1 << 20);
        let ids = |config: &ClusterConfig| (config.sets.last().unwrap().id, config.groups.last().unwrap().id);
        assert_ne!(ids(&again), ids(&second), "the register of a released group is still known");
        let kept = without(&third, third.sets[0].id);
        assert_eq!((kept.groups.len(), kept.groups[0].mounts.len()), (2, 1), "another set is in it");
    }

    #[test]
    fn faults_are_told_at_the_fields_of_the_order() {
        let first = with(&cluster(), &order("one"), 1 << 20);
        let fields = |wanted: &RegisterSet, size: u64| match check(&with(&first, wanted, size), wanted) {
            Err(Fault::Config(faults)) => faults.into_iter().map(|fault| fault.field).collect::<Vec<_>>(),
            Err(Fault::Field(field, _)) => vec![field.to_string()],
            other => panic!("{other:?}"),
        };
        let has =
            |fields: Vec<String>, field: &str| assert!(fields.iter().any(|it| it == field), "{fields:?}");
        let mut same = order("two");
        same.backing[1] = "/one2".into();
        has(fields(&same, 1 << 20), "backing[1]");
        has(fields(&order("two"), 7), "size");
        let export = |address: &str, tls: bool| {
            let front = serde_json::json!({
                "device": true, "nbd": { "unix": false, "addresses": [address], "tls": tls },
            });
            fields(&RegisterSet { front: serde_json::from_value(front).unwrap(), ..order("x") }, 1 << 20)
        };
        has(export("192.0.2.9", false), "front.nbd.tls");
        for right in [export("192.0.2.9", true), export("127.0.0.1", false), export("::1", false)] {
            assert!(!right.iter().any(|field| field.starts_with("front")), "{right:?}");
        }
        has(fields(&RegisterSet { name: "no name".into(), ..order("x") }, 1 << 20), "name");
        has(fields(&RegisterSet { group_name: Some("a b".into()), ..order("x") }, 1 << 20), "group_name");
        has(fields(&RegisterSet { mount: Some("srv".into()), ..order("x") }, 1 << 20), "mount");
        has(fields(&RegisterSet { group: Some(GroupId(9)), ..order("x") }, 1 << 20), "group");
        has(fields(&RegisterSet { name: "ONE".into(), ..order("x") }, 1 << 20), "name");
    }
}
