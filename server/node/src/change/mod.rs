//! Changes of the configuration on a running cluster that concern disks: a mirror set is registered or released on both servers,
//! or on neither (C8, E1).
//!
//! One server leads. It has both servers look at the disks, then **prepare** (each writes down what is under way, then makes its
//! control area), then stores the new configuration: from that moment the change is made. The other server is told, or asks. A
//! server that comes back finds what it wrote down: the leader that has not stored the configuration takes everything back, the
//! other one asks the leader. What is written down ([`Pending`]) goes only after that.

mod order;
mod peer;

pub use order::{RegisterSet, SetMode, register, release, set_mode};
pub use peer::{answer, ask_until_clear};

use crate::app::{App, Running, wall_clock};
use crate::backing::{self, Owner};
use crate::brain::{Question, Turn};
use crate::data::DataDir;
use crate::disks;
use crate::http::error::Fault;
use anyhow::Context as _;
use engine::Input;
use mirror::layout::superblock;
use os::blockdev::HostBlockDevices;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;
use wire::backing::BackingKind;
use wire::command::RefusalKind;
use wire::config::{ConfigFault, SetConfig};
use wire::text::{self, Lang};
use wire::{ClusterConfig, GroupId, NodeId, Operation, SetId};

/// The engine answers within its own turn; only a stuck process takes longer.
const ENGINE_LIMIT: Duration = Duration::from_secs(10);

/// What is under way, written down before anything is changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pending {
    /// The configuration that is to come.
    config: ClusterConfig,
    /// Who leads the change.
    by: NodeId,
    /// The backings that get a control area here.
    taken: Vec<Taken>,
}

/// A backing that gets a control area.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Taken {
    set: SetId,
    path: PathBuf,
    /// It was there before: an image file that was made for this goes again where the change does not come about.
    existed: bool,
}

/// Language in which a refusal is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tongue {
    /// English.
    #[default]
    En,
    /// Japanese.
    Ja,
}

impl From<Tongue> for Lang {
    fn from(tongue: Tongue) -> Lang {
        match tongue {
            Tongue::En => Lang::En,
            Tongue::Ja => Lang::Ja,
        }
    }
}

fn file(data: &DataDir) -> PathBuf {
    data.file("change.json")
}

impl Pending {
    /// What this server wrote down.
    fn read(data: &DataDir) -> anyhow::Result<Option<Pending>> {
        match fs::read(file(data)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text).context("understand change.json")?)),
            Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(fault) => Err(fault).context("read change.json"),
        }
    }

    fn write(&self, data: &DataDir) -> anyhow::Result<()> {
        Ok(os::durable::write(&file(data), &serde_json::to_vec(self)?)?)
    }

    /// Takes back what was done for it here.
    fn undo(&self, data: &DataDir, key: &[u8; 32], me: NodeId) -> anyhow::Result<()> {
        for taken in &self.taken {
            let Some(set) = self.config.set(taken.set) else { continue };
            let cluster = disks::cluster_id(key);
            let owner = Owner { cluster, set: set.id, side: me, size: set.size };
            clear(taken, owner).with_context(|| format!("take {} back", taken.path.display()))?;
            remove(&backing::shape_file(data, set.id))?;
        }
        forget(data)
    }
}

/// Takes a control area back, if it is this very set's.
fn clear(taken: &Taken, owner: Owner) -> anyhow::Result<()> {
    let mut head = Vec::new();
    match fs::File::open(&taken.path) {
        Ok(file) => file.take(mirror::layout::SUPERBLOCKS_BYTES as u64).read_to_end(&mut head)?,
        Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(fault) => return Err(fault.into()),
    };
    let mine = superblock(&head)
        .is_ok_and(|it| Owner { cluster: it.cluster, set: it.set, side: it.side, size: it.size } == owner);
    // One that was not made to the end has zeros in place of its superblocks.
    let half = head.iter().all(|byte| *byte == 0);
    if !taken.existed && (mine || half) {
        return remove(&taken.path);
    }
    if mine { disk::clear(&taken.path) } else { Ok(()) }
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(fault) if fault.kind() != std::io::ErrorKind::NotFound => {
            Err(fault).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn forget(data: &DataDir) -> anyhow::Result<()> {
    remove(&file(data))?;
    Ok(os::durable::sync_folder(&data.file("."))?)
}

/// At the start, before anybody is answered: a change that this server led and had not made is taken back; one that is made is
/// forgotten; of another server's this one does not know, and asks later.
///
/// # Errors
/// The folder or a disk; the node must not serve then.
pub fn recover(data: &DataDir, config: &ClusterConfig, me: NodeId, key: &[u8; 32]) -> anyhow::Result<()> {
    let Some(pending) = Pending::read(data)? else { return Ok(()) };
    if config.version >= pending.config.version {
        tracing::info!(version = pending.config.version, "the change that was under way is made");
        return forget(data);
    }
    if pending.by == me {
        tracing::info!(version = pending.config.version, "the change that was under way is taken back");
        return pending.undo(data, key, me);
    }
    Ok(())
}

/// The groups of the old configuration whose sets differ in the new one.
fn touched(old: &ClusterConfig, new: &ClusterConfig) -> BTreeSet<GroupId> {
    let added = new_sets(old, new).map(|set| set.group).filter(|id| old.group(*id).is_some());
    added.chain(new_sets(new, old).map(|set| set.group)).collect()
}

/// Tells the engine which groups stay stopped: from before the check whether they are, until the change is made or taken back.
async fn hold(running: &Running, groups: BTreeSet<GroupId>) -> anyhow::Result<()> {
    running.turns.send(Turn::Input(Input::ChangeBegan { groups })).await.context("the engine is gone")
}

/// Those of the change that is written down here; none where none is.
///
/// # Errors
/// The folder, or that the engine is gone.
pub async fn hold_pending(data: &DataDir, running: &Running) -> anyhow::Result<()> {
    let config = running.config();
    let groups = Pending::read(data)?.map(|pending| touched(&config, &pending.config)).unwrap_or_default();
    hold(running, groups).await
}

/// A set of the new configuration that the old one has not.
fn new_sets<'a>(old: &'a ClusterConfig, new: &'a ClusterConfig) -> impl Iterator<Item = &'a SetConfig> {
    new.sets.iter().filter(|set| old.set(set.id).is_none())
}

/// What was found at a new set's backing here.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Room {
    bytes: u64,
    /// A device: it has the size it has.
    fixed: bool,
}

/// Looks at the disks of the new sets here.
///
/// # Errors
/// Every refusal, at the field of the order.
async fn look(
    running: &Running,
    config: &ClusterConfig,
    replace: bool,
    lang: Lang,
) -> Result<Vec<Room>, Fault> {
    let (present, me, cluster) = (running.config(), running.me, disks::cluster_id(&running.key));
    let wanted: Vec<(PathBuf, Owner)> = new_sets(&present, config)
        .map(|set| (disks::backing_of(set, me), Owner { cluster, set: set.id, side: me, size: set.size }))
        .collect();
    let work = move || {
        let host = HostBlockDevices::default();
        wanted
            .iter()
            .map(|(path, owner)| {
                let found = backing::look(&host, path, *owner);
                let refused = backing::refuse(lang, path, &found, replace);
                let fixed = found.shape.as_ref().is_some_and(|shape| shape.kind != BackingKind::File);
                (refused, Room { bytes: found.bytes, fixed })
            })
            .unzip()
    };
    let (refused, rooms): (Vec<Option<String>>, Vec<Room>) =
        tokio::task::spawn_blocking(work).await.context("look at the disks")?;
    let field = format!("backing[{}]", me.0.saturating_sub(1));
    let faults: Vec<ConfigFault> =
        refused.into_iter().flatten().map(|remedy| ConfigFault { field: field.clone(), remedy }).collect();
    if faults.is_empty() { Ok(rooms) } else { Err(Fault::Config(faults)) }
}

/// Asks the engine.
async fn possible(running: &Running, question: Question, lang: Lang) -> Result<(), Fault> {
    let (answer, answered) = oneshot::channel();
    running.turns.send(Turn::Question(question, answer)).await.ok().context("the engine is gone")?;
    let answer = timeout(ENGINE_LIMIT, answered).await.context("the engine does not answer")?;
    answer.context("the engine is gone")?.map_err(|kind| Fault::Conflict(reason(lang, kind)))
}

fn reason(lang: Lang, kind: RefusalKind) -> String {
    format!("{} {}", text::refused(lang, kind), text::refusal(lang, kind).number)
}

/// Asks the engine whether what differs is possible.
async fn all_possible(running: &Running, config: &ClusterConfig, lang: Lang) -> Result<(), Fault> {
    let present = running.config();
    for set in new_sets(&present, config) {
        let group = present.group(set.group).map(|group| group.id);
        possible(running, Question::Register { group, source: set.source }, lang).await?;
    }
    for set in &config.sets {
        if present.set(set.id).is_some_and(|before| before.traffic.mode != set.traffic.mode) {
            possible(running, Question::Mode(set.id), lang).await?;
        }
    }
    for set in new_sets(config, &present) {
        let what = Operation::ReleaseSet { set: set.id };
        possible(running, Question::Operation(what), lang).await?;
    }
    Ok(())
}

/// Writes down what is under way and makes the control areas here. The caller holds [`App::changing`].
///
/// # Errors
/// A refusal or a fault; everything is as before then.
async fn prepare(
    app: &App,
    running: &Running,
    config: &ClusterConfig,
    by: NodeId,
    replace: bool,
) -> Result<(), Fault> {
    let (present, me) = (running.config(), running.me);
    if let Some(pending) = Pending::read(&app.data)? {
        if pending.by != by {
            return Err(Fault::Conflict(
                "another change waits for the server that began it: see to it that it runs".into(),
            ));
        }
        // The same server began anew: what it began before did not come about.
        pending.undo(&app.data, &running.key, me)?;
    }
    let pinned = |config: &ClusterConfig| {
        config.servers.iter().map(|server| (server.id, server.fingerprint.clone())).collect::<Vec<_>>()
    };
    if config.version != present.version + 1 || pinned(config) != pinned(&present) {
        return Err(Fault::Conflict(
            "the servers have different configurations: wait until both have the same".into(),
        ));
    }
    let sets: Vec<SetConfig> = new_sets(&present, config).cloned().collect();
    let taken = sets.iter().map(|set| {
        let path = disks::backing_of(set, me);
        Taken { set: set.id, existed: path.exists(), path }
    });
    let pending = Pending { config: config.clone(), by, taken: taken.collect() };
    pending.write(&app.data)?;
    let only = ClusterConfig { sets, ..config.clone() };
    let made = disks::format(&only, me, disks::cluster_id(&running.key), replace).await;
    let made = made.and_then(|()| {
        pending.taken.iter().try_for_each(|taken| backing::remember(&app.data, taken.set, &taken.path))
    });
    if let Err(fault) = made {
        pending.undo(&app.data, &running.key, me)?;
        return Err(Fault::Conflict(format!("{fault:#}")));
    }
    Ok(())
}

/// Takes back what was prepared here, unless it is made already.
fn abandon(app: &App, running: &Running, version: u64) -> anyhow::Result<()> {
    match Pending::read(&app.data)? {
        Some(pending) if pending.config.version == version && running.config().version < version => {
            pending.undo(&app.data, &running.key, running.me)
        }
        _ => Ok(()),
    }
}

/// Makes a configuration the one in force here: stored, told to engine and disk processes, and what was written down of it forgotten.
///
/// # Errors
/// The store or the folder: it is not in force then.
pub async fn apply(app: &App, running: &Running, config: ClusterConfig) -> anyhow::Result<()> {
    if config.version <= running.config().version {
        return forget(&app.data);
    }
    disks::leaving(&app.data, &running.config(), &config, running, app.options.backing)?;
    app.store.put_config(&config, running.me, wall_clock()).await?;
    *running.shared.write().unwrap_or_else(PoisonError::into_inner) = config.clone();
    running.turns.send(Turn::Input(Input::ConfigChanged { config })).await.context("the engine is gone")?;
    forget(&app.data)
}

#[cfg(test)]
mod tests;
