//! `futago node`: opens its folder, serves page and API, and, once it belongs to a cluster, runs the engine.

use crate::app::{App, Running, wall_clock};
use crate::brain::{Brain, TURNS_MAX, Turn};
use crate::change;
use crate::channel::{self, Channel, Happened, Packet};
use crate::data::{DataDir, LocalAccess, hex, random};
use crate::disks::{Backing, Disks};
use crate::guard::Guards;
use crate::heartbeat::{Heartbeats, ends};
use crate::http::{auth, listen, router};
use crate::pairing::Pairing;
use crate::perform::Performer;
use crate::readings;
use crate::steps::{Host, Steps};
use crate::tls::{Identity, Pin};
use engine::Input;
use engine::action::ActionId;
use engine::input::{Outcome, Party};
use engine::{Engine, Setup};
use os::address::HostAddresses;
use os::clock::{BootClock, Clock as _};
use os::incarnation::{host_incarnation, random as fresh_incarnation};
use os::mount::HostMounts;
use os::process::HostProcesses;
use peer::cluster::ClusterMessage;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock, RwLock};
use store::Store;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, mpsc, watch};
use wire::limits::{MIRROR_SETS_MAX, VIEW_EVENTS_MAX};
use wire::{ClusterConfig, NodeId, SetId};

/// Happenings of one channel waiting to be heard: the brain's own queue is the long one.
pub const HAPPENED_MAX: usize = 256;

/// Options of `futago node`.
#[derive(Clone, Debug, clap::Args)]
pub struct NodeOptions {
    /// Folder of this server's keys, store and logs; made if missing.
    #[arg(long)]
    pub data: PathBuf,
    /// Where to serve page, API and the other members.
    #[arg(long, default_value = "0.0.0.0:8443")]
    pub listen: SocketAddr,
    /// This server's name; its host name if absent.
    #[arg(long, default_value_t = host_name())]
    pub name: String,
    /// Folder on a tmpfs that vanishes when the host goes down: how a restart of the host is told from one of this process.
    #[arg(long, default_value = "/run/futago")]
    pub host_run: PathBuf,
    /// Socket of the demo's launcher.
    #[arg(long, hide = true)]
    pub demo_control: Option<PathBuf>,
    /// Test backings of the mirror sets.
    #[arg(long, value_enum, default_value_t, hide = true)]
    pub backing: Backing,
}

/// This host's name as the kernel has it.
#[must_use]
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().split('.').next().filter(|name| !name.is_empty()).unwrap_or("server").to_string()
}

/// Runs the node process until a signal ends it. Groups, disk processes and applications go on.
///
/// # Errors
/// The folder, store or listening address cannot be used.
pub async fn run(options: NodeOptions) -> anyhow::Result<ExitCode> {
    let data = DataDir::open(&options.data)?;
    let identity = Identity::open(&data, &options.name)?;
    let listener = listen::bind(options.listen).await?;
    let store = Store::open(&data.file("store.db")).await?;
    let token = hex(&random::<32>()?);
    let access = LocalAccess {
        address: listener.local_addr()?,
        fingerprint: identity.fingerprint.clone(),
        token: token.clone(),
        pid: std::process::id(),
    };
    data.write_access(&access)?;
    let pairing = Pairing::of(&data, &identity.fingerprint);
    let app = Arc::new(App {
        demo_control: options.demo_control.clone(),
        options,
        data,
        identity,
        store,
        token,
        pairing,
        wrong_logins: auth::WrongLogins::default(),
        views: watch::Sender::new(None),
        creating: Mutex::new(()),
        changing: Mutex::new(()),
        cluster: OnceLock::new(),
    });
    match app.store.config().await? {
        Some((config, me)) => begin(&app, config, me, app.data.cluster_key()?).await?,
        None => greet(&app).await?,
    }
    tracing::info!(address = %access.address, server = %app.name(), "serving");
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        ended = listen::serve(listener, &app.identity, router::router(app.clone())) => ended?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("node process ends; groups and disk processes go on");
    Ok(ExitCode::SUCCESS)
}

/// First start: tells the person at the terminal how to go on. Secrets go to standard output only, never to the log.
async fn greet(app: &Arc<App>) -> anyhow::Result<()> {
    let mark = app.data.file("greeted");
    if mark.exists() {
        return Ok(());
    }
    let one_time = auth::make_one_time(app).await?;
    println!("This server is in no cluster yet.");
    println!("Page:            https://{} (any address of this host)", app.options.listen);
    println!("One-time login:  {one_time}");
    println!("Pairing code:    {}", app.pairing.code()?);
    os::durable::write(&mark, b"")?;
    Ok(())
}

/// Begins to work as a member of a cluster.
///
/// # Errors
/// The store, the host's incarnation, or a second call.
pub async fn begin(app: &Arc<App>, config: ClusterConfig, me: NodeId, key: [u8; 32]) -> anyhow::Result<()> {
    change::recover(&app.data, &config, me, &key)?;
    let host = host_incarnation(&app.options.host_run)?;
    let (turns, turn_queue) = mpsc::channel(TURNS_MAX);
    let running = Arc::new(Running {
        me,
        key,
        shared: RwLock::new(config.clone()),
        turns: turns.clone(),
        twin: Channel::default(),
        witness: Channel::default(),
        host,
        node: fresh_incarnation()?,
    });
    // Heard from the first moment: the engine takes what came meanwhile when it is there.
    let heartbeats = Heartbeats::open(&config, &running);
    let setup = setup(app, &running, &config).await?;
    for event in app.store.events(VIEW_EVENTS_MAX).await?.into_iter().rev() {
        let _ = turns.try_send(Turn::Input(Input::EventRecorded { event }));
    }
    change::hold_pending(&app.data, &running).await?;
    app.cluster.set(running.clone()).map_err(|_| anyhow::anyhow!("this server is in a cluster already"))?;
    let guards = Guards::open(app.data.file("run"), host, config.groups.iter().map(|group| group.id));
    let disks = Disks::open(&config, me, &app.data, host, app.options.backing, &turns);
    let this_host = Host {
        addresses: Arc::new(HostAddresses),
        mounts: Arc::new(HostMounts),
        processes: Arc::new(HostProcesses::default()),
        logs: app.data.file("log"),
    };
    let (releases, release_queue) = mpsc::channel(MIRROR_SETS_MAX);
    let steps = Steps::new(this_host, guards, disks.clone(), config.clone(), turns.clone(), releases);
    tokio::spawn(release_sets(app.clone(), turns.clone(), release_queue));
    tokio::spawn(change::ask_until_clear(app.clone()));
    let last_event = app.store.last_event_number(me).await?;
    let performer = Performer::new(running.clone(), &app.store, last_event, heartbeats, disks, steps);
    let engine = Engine::new(setup, BootClock.now());
    let brain =
        Brain { engine, performer, turns: turn_queue, views: app.views.clone(), waiting: BTreeMap::new() };
    tokio::spawn(async move {
        let end = tokio::spawn(brain.run()).await;
        // Without its engine this process must not look alive: whoever started it starts it again, from what is stored.
        tracing::error!("the engine ended: {end:?}");
        std::process::exit(70);
    });
    tokio::spawn(readings::take(turns.clone()));
    tokio::spawn(readings::watch_carrier(config.links.clone(), me, turns));
    dial(app, &running, &config);
    Ok(())
}

/// Releases sets on the engine's order, one after the other.
async fn release_sets(
    app: Arc<App>,
    turns: mpsc::Sender<Turn>,
    mut queue: mpsc::Receiver<(ActionId, SetId)>,
) {
    while let Some((id, set)) = queue.recv().await {
        let outcome = match change::release(&app, set).await {
            Ok(()) => Outcome::Done,
            Err(fault) => Outcome::Failed { reason: fault.reason() },
        };
        if turns.send(Turn::Input(Input::Performed { id, outcome })).await.is_err() {
            return;
        }
    }
}

async fn setup(app: &App, running: &Running, config: &ClusterConfig) -> anyhow::Result<Setup> {
    Ok(Setup {
        config: config.clone(),
        me: running.me,
        record: app.store.record().await?.unwrap_or_default(),
        host: running.host,
        node: running.node,
        seed: u64::from_le_bytes(random::<8>()?),
        wall: wall_clock(),
    })
}

/// The lower id dials its twin, over every link in turn; each server dials the witness.
fn dial(app: &Arc<App>, running: &Arc<Running>, config: &ClusterConfig) {
    let twin = running.me.twin();
    if let Some(server) = config.server(twin)
        && running.me < twin
    {
        let over_links =
            config.links.iter().map(|link| SocketAddr::new(ends(link, running.me).1, server.address.port()));
        let addresses = over_links.chain([server.address]).collect();
        keep(app, Party::Twin, running.twin.clone(), addresses, &server.fingerprint);
    }
    if let Some(witness) = &config.witness {
        keep(app, Party::Witness, running.witness.clone(), vec![witness.address], &witness.fingerprint);
    }
}

fn keep(app: &Arc<App>, party: Party, channel: Channel, addresses: Vec<SocketAddr>, fingerprint: &str) {
    let (happened, heard) = mpsc::channel(HAPPENED_MAX);
    tokio::spawn(feed_brain(app.clone(), party, heard));
    let pin = Pin::Fingerprint(fingerprint.to_string());
    let app = app.clone();
    tokio::spawn(async move { channel::keep(channel, addresses, pin, &app.identity, happened).await });
}

/// Hands what happens on a channel to the engine, and answers what is the node's own business.
pub async fn feed_brain(app: Arc<App>, party: Party, mut heard: mpsc::Receiver<Happened>) {
    let Some(running) = app.running() else { return };
    let channel = match party {
        Party::Twin => &running.twin,
        Party::Witness => &running.witness,
    };
    let tell = async |input| running.turns.send(Turn::Input(input)).await.is_ok();
    let mut open = false;
    while let Some(happened) = heard.recv().await {
        let going = match happened {
            Happened::Opened => {
                if open {
                    tell(Input::ChannelChanged { party, open: false }).await;
                }
                open = true;
                greet_member(&app, &running, party, channel).await;
                tell(Input::ChannelChanged { party, open }).await
            }
            Happened::Closed => {
                open = false;
                tell(Input::ChannelChanged { party, open }).await
            }
            Happened::Came(Packet::Access(access)) => {
                if party == Party::Twin
                    && let Err(fault) = app.take_access(&access).await
                {
                    tracing::warn!("the twin's logins are not kept: {fault:#}");
                }
                true
            }
            Happened::Came(Packet::Message(message)) => {
                match own_business(&app, &running, party, message).await {
                    Ok(Some(message)) => tell(Input::MessageReceived { from: party, message }).await,
                    Ok(None) => true,
                    Err(fault) => {
                        tracing::warn!(?party, "a message is not answered: {fault:#}");
                        true
                    }
                }
            }
        };
        if !going {
            return;
        }
    }
}

async fn greet_member(app: &App, running: &Running, party: Party, channel: &Channel) {
    let config_version = running.config().version;
    let hello =
        ClusterMessage::Hello { from: running.me, host: running.host, node: running.node, config_version };
    channel.send(Packet::Message(hello));
    if party == Party::Twin {
        app.share_access().await;
    }
}

/// Configuration and signs of life between the node processes; everything else is the engine's.
async fn own_business(
    app: &App,
    running: &Running,
    party: Party,
    message: ClusterMessage,
) -> anyhow::Result<Option<ClusterMessage>> {
    if party == Party::Witness {
        return Ok(Some(message));
    }
    let answer = match message {
        ClusterMessage::Hello { config_version, .. } => {
            let config = running.config();
            if config.version > config_version {
                running.twin.send(Packet::Message(ClusterMessage::ConfigOffer { config: Box::new(config) }));
            }
            return Ok(Some(message));
        }
        ClusterMessage::ConfigOffer { config } => take_config(app, running, *config).await?,
        ClusterMessage::Ping { number } => ClusterMessage::Pong { number },
        ClusterMessage::ConfigRefused { version, reason } => {
            tracing::warn!(version, "the twin keeps its own configuration: {reason}");
            return Ok(None);
        }
        ClusterMessage::ConfigTaken { .. } | ClusterMessage::Pong { .. } => return Ok(None),
        ClusterMessage::Register { .. }
        | ClusterMessage::WitnessSays { .. }
        | ClusterMessage::Introduce { .. }
        | ClusterMessage::Status(_)
        | ClusterMessage::Events { .. } => return Ok(Some(message)),
    };
    running.twin.send(Packet::Message(answer));
    Ok(None)
}

async fn take_config(app: &App, running: &Running, config: ClusterConfig) -> anyhow::Result<ClusterMessage> {
    let version = config.version;
    let present = running.config();
    let refuse = |reason: &str| ClusterMessage::ConfigRefused { version, reason: reason.to_string() };
    let pinned = |config: &ClusterConfig| {
        config.servers.iter().map(|server| (server.id, server.fingerprint.clone())).collect::<Vec<_>>()
    };
    if version <= present.version {
        return Ok(refuse("it is not newer than the configuration here"));
    }
    if !config.faults().is_empty() || pinned(&config) != pinned(&present) {
        return Ok(refuse("it has faults, or names other servers"));
    }
    // The change that is under way tells its own end.
    let Ok(_alone) = app.changing.try_lock() else { return Ok(refuse("a change is under way here")) };
    change::apply(app, running, config).await?;
    Ok(ClusterMessage::ConfigTaken { version })
}
