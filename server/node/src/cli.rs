//! The commands of an operator at a terminal: all over the API that the page uses.

use crate::change::{RegisterSet, SetMode};
use crate::client::Client;
use crate::create::CreateCluster;
use crate::data::DataDir;
use crate::node::host_name;
use crate::pairing::Pairing;
use crate::tls::{Identity, Pin};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::io::Write as _;
use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::process::ExitCode;
use wire::command::{OldChoice, Operation, RebuildTurn, VerifyTurn};
use wire::config::{FrontConfig, NBD_PORT, NbdConfig};
use wire::text::{self, Lang, Names};
use wire::traffic::WriteMode;
use wire::view::SetState;
use wire::{ClusterConfig, ClusterView, GroupId, NodeId, Reply, SetId};

/// Where a command goes.
#[derive(Clone, Debug, Args)]
pub struct Access {
    /// Folder of the node process on this host (for root).
    #[arg(long, default_value = "/var/lib/futago", global = true)]
    data: PathBuf,
    /// Another server's page, `https://host:port`; the password is read from `FUTAGO_PASSWORD`.
    #[arg(long, global = true)]
    server: Option<String>,
    /// SHA-256 of its certificate.
    #[arg(long, global = true)]
    fingerprint: Option<String>,
    /// Trust whoever answers there.
    #[arg(long, global = true, conflicts_with = "fingerprint")]
    insecure: bool,
    /// Answer in JSON.
    #[arg(long, global = true)]
    json: bool,
}

/// A command and where it goes.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Show servers, groups and mirror sets.
    Status {
        #[command(flatten)]
        access: Access,
    },
    /// Start, stop or move a group.
    Group {
        #[command(subcommand)]
        what: GroupCommand,
        #[command(flatten)]
        access: Access,
    },
    /// Stop, start or recover a server.
    Server {
        #[command(subcommand)]
        what: ServerCommand,
        #[command(flatten)]
        access: Access,
    },
    /// Administer a mirror set: register, release, build, verify, pause, force, permit, restrict, exchange a disk.
    Set {
        #[command(subcommand)]
        what: SetCommand,
        #[command(flatten)]
        access: Access,
    },
    /// Give an operation as the API has it, in JSON.
    #[command(name = "command")]
    Operation {
        /// Such as '{"RecoverServer":{"server":2}}'.
        operation: String,
        #[command(flatten)]
        access: Access,
    },
    /// Make or show a cluster.
    Cluster {
        #[command(subcommand)]
        what: ClusterCommand,
        #[command(flatten)]
        access: Access,
    },
    /// Make a one-time login for the page, good once on each server for a day.
    Login {
        #[command(flatten)]
        access: Access,
    },
    /// Show the one-time code by which this server or witness is taken into a cluster.
    Code {
        #[command(flatten)]
        access: Access,
    },
}

/// What can be done with a group.
#[derive(Clone, Debug, Subcommand)]
pub enum GroupCommand {
    /// Start a stopped group.
    Start {
        /// Name or number.
        group: String,
        /// Server; the group's first by preference if absent.
        #[arg(long)]
        on: Option<String>,
    },
    /// Stop a running group.
    Stop {
        /// Name or number.
        group: String,
    },
    /// Leave a group where and as it is, whatever happens.
    Keep {
        /// Name or number.
        group: String,
    },
    /// Let a group that is kept fail over again.
    Free {
        /// Name or number.
        group: String,
    },
    /// Move a running group.
    Move {
        /// Name or number.
        group: String,
        /// Server; the other one if absent.
        #[arg(long)]
        to: Option<String>,
    },
}

/// What can be done with a server.
#[derive(Clone, Debug, Subcommand)]
pub enum ServerCommand {
    /// Stop its part in the cluster.
    Stop {
        /// Name or number.
        name: String,
    },
    /// Start a server that an operator stopped.
    Start {
        /// Name or number.
        name: String,
    },
    /// Bring a server that was down back.
    Recover {
        /// Name or number.
        name: String,
    },
}

/// What can be done with a mirror set. What an act overwrites or loses must be confirmed.
#[derive(Clone, Debug, Subcommand)]
pub enum SetCommand {
    /// Register a mirror set on both servers of the running cluster.
    Register(RegisterArgs),
    /// Say when its writes are acknowledged; takes effect while it is in use.
    Mode {
        /// Name or number.
        set: String,
        /// The mode.
        #[arg(value_enum)]
        mode: ModeWord,
    },
    /// Take a set out of its stopped group and of the cluster; its data stays on the disks.
    Release {
        /// Name or number.
        set: String,
        /// It is not mirrored any more.
        #[arg(long)]
        confirm: bool,
    },
    /// Copy the other server's copy to this one.
    Build {
        /// Name or number.
        set: String,
        /// The server that is overwritten.
        #[arg(long)]
        to: String,
        /// What the copy there holds is lost.
        #[arg(long)]
        confirm: bool,
    },
    /// Declare a server's copy good.
    ForceRecovery {
        /// Name or number.
        set: String,
        /// The server whose copy is good.
        #[arg(long)]
        good: String,
        /// What only the other copy holds is lost.
        #[arg(long)]
        confirm: bool,
    },
    /// Use the set on a server outside its group.
    Permit {
        /// Name or number.
        set: String,
        /// The server.
        #[arg(long)]
        on: String,
        /// Although that copy is not known to be the newest.
        #[arg(long)]
        force: bool,
        /// With --force: later writes are missing there, and both copies will differ.
        #[arg(long)]
        confirm: bool,
    },
    /// Take a permission back.
    Restrict {
        /// Name or number.
        set: String,
        /// The server.
        #[arg(long)]
        on: String,
    },
    /// Take the new disk in a failed one's place; given on that server.
    ExchangeDisk {
        /// Name or number.
        set: String,
        /// The server.
        #[arg(long)]
        server: String,
        /// Everything on that disk is lost.
        #[arg(long)]
        confirm: bool,
    },
    /// Compare both copies of a set in sync and repair what deviates where it is known which is right.
    Verify {
        /// Name or number.
        set: String,
        /// What it does next.
        #[arg(value_enum, default_value = "start")]
        turn: VerifyWord,
        /// With `start` and `limit`: MiB a second at most; the program's own bound if absent.
        #[arg(long)]
        rate: Option<NonZeroU32>,
    },
    /// Pause, resume or limit the rebuilds of a set.
    Rebuild {
        /// Name or number.
        set: String,
        /// What it does next.
        #[arg(value_enum)]
        turn: RebuildWord,
        /// With `limit`: MiB a second at most; as much as the application leaves if absent.
        #[arg(long)]
        rate: Option<NonZeroU32>,
    },
    /// Make a folder with which a client (QEMU, libnbd) reaches the set's NBD export over TLS; as root on one of the servers.
    Certificate {
        /// Name or number.
        set: String,
        /// A folder that is not there yet; **who has it can read and write the set**.
        folder: PathBuf,
        /// Who gets it, for the certificate's name.
        #[arg(long, default_value = "client")]
        name: String,
        /// Days until it ends; nothing else takes it back.
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=i64::from(disk::PAPERS_DAYS_MAX)))]
        days: u32,
    },
    /// The older version that a rebuild overwrites: put it back, drop it, or do without; given on that server.
    Old {
        /// Name or number.
        set: String,
        /// The server.
        #[arg(long)]
        on: String,
        /// What becomes of it.
        #[arg(value_enum)]
        choice: OldWord,
        /// What the rebuild brought, or that version, is lost.
        #[arg(long)]
        confirm: bool,
    },
}

/// What a verification does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum VerifyWord {
    /// Begin.
    Start,
    /// Stand still.
    Pause,
    /// Go on.
    Resume,
    /// Take at most --rate from now on.
    Limit,
    /// End before all is compared.
    End,
}

/// What a rebuild does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum RebuildWord {
    /// Stand still.
    Pause,
    /// Go on.
    Resume,
    /// Take at most --rate from now on.
    Limit,
}

/// What becomes of an older version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OldWord {
    /// The copy is to be what it was before the rebuild.
    PutBack,
    /// It is of no more use.
    Drop,
    /// A rebuild after a split brain may begin though it cannot be kept.
    Waive,
}

/// When the writes of a set are acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ModeWord {
    /// Both disks have it: a failover loses nothing.
    #[default]
    Sync,
    /// The own disk has it and the other server has received it: a single failure loses nothing.
    Semi,
    /// The own disk has it: a failover loses what the other copy lacks.
    Async,
}

impl From<ModeWord> for WriteMode {
    fn from(word: ModeWord) -> WriteMode {
        match word {
            ModeWord::Sync => WriteMode::Synchronous,
            ModeWord::Semi => WriteMode::SemiSynchronous,
            ModeWord::Async => WriteMode::Asynchronous,
        }
    }
}

/// A mirror set to be registered.
#[derive(Clone, Debug, Args)]
pub struct RegisterArgs {
    /// Its name.
    name: String,
    /// Disk, partition or image file on server 1.
    #[arg(long)]
    disk1: String,
    /// The same on server 2.
    #[arg(long)]
    disk2: String,
    /// Bytes of data; as much as the smaller disk has room for if absent.
    #[arg(long)]
    size: Option<u64>,
    /// The group it goes into, by name or number; a new one if absent.
    #[arg(long)]
    group: Option<String>,
    /// The new group's name; the set's if absent.
    #[arg(long, conflicts_with = "group")]
    group_name: Option<String>,
    /// The server whose data is copied to the other one.
    #[arg(long)]
    source: String,
    /// Where its file system is mounted; nowhere if absent.
    #[arg(long)]
    mount: Option<String>,
    /// `ext4` or `xfs`.
    #[arg(long, default_value = "ext4")]
    file_system: String,
    /// When its writes are acknowledged.
    #[arg(long, value_enum, default_value_t)]
    mode: ModeWord,
    /// An address (such as a floating IP) at which it is served as an NBD export too, over TLS; may be given again.
    #[arg(long)]
    export: Vec<IpAddr>,
    /// The export's TCP port.
    #[arg(long, default_value_t = NBD_PORT)]
    export_port: u16,
    /// What the disks carry may be lost; a released set's data is taken over from the source.
    #[arg(long)]
    replace: bool,
}

/// What can be done with the cluster.
#[derive(Clone, Debug, Subcommand)]
pub enum ClusterCommand {
    /// Make a cluster of this server, the other one and the witness.
    Create {
        /// JSON as of `POST /api/cluster`.
        file: PathBuf,
    },
    /// Print the configuration.
    Show,
    /// Stop all groups, then both servers' parts.
    Stop,
    /// Start both servers' parts again.
    Start,
    /// Maintenance: nothing happens by itself, everything is watched.
    Maintenance {
        /// Begin or end it.
        #[arg(value_enum)]
        state: Switch,
    },
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

impl Access {
    async fn client(&self) -> anyhow::Result<Client> {
        let Some(server) = &self.server else { return Client::from_data(&self.data) };
        let pin = match (&self.fingerprint, self.insecure) {
            (Some(fingerprint), _) => Pin::Fingerprint(fingerprint.clone()),
            (None, true) => Pin::Nobody,
            (None, false) => {
                anyhow::bail!("name the server's --fingerprint, or --insecure to trust whoever answers")
            }
        };
        let password = std::env::var("FUTAGO_PASSWORD").context("put the password into FUTAGO_PASSWORD")?;
        let mut client = Client::new(server, pin, None)?;
        client.log_in(&password).await?;
        Ok(client)
    }
}

/// Runs a command.
///
/// # Errors
/// It could not be given, or was refused; the reason is for a person.
pub async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Code { access } => code(&access)?,
        Command::Status { access } => status(&access).await?,
        Command::Login { access } => {
            let answer: Value = access.client().await?.post("/api/logins", &json!({})).await?.json()?;
            let password = answer.get("password").and_then(Value::as_str).unwrap_or_default();
            say(&access, &answer, &format!("One-time login: {password}"));
        }
        Command::Cluster { what: ClusterCommand::Show, access } => {
            let config: ClusterConfig = access.client().await?.get("/api/cluster").await?.json()?;
            println!("{}", serde_json::to_string_pretty(&config)?);
        }
        Command::Cluster { what: ClusterCommand::Create { file }, access } => {
            let text = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
            let wanted: CreateCluster =
                serde_json::from_slice(&text).with_context(|| format!("understand {}", file.display()))?;
            let config: ClusterConfig = access.client().await?.post("/api/cluster", &wanted).await?.json()?;
            say(&access, &json!(config), &format!("The cluster {} is made.", config.name));
        }
        Command::Cluster { what: ClusterCommand::Stop, access } => {
            order(&access.client().await?, &access, Operation::StopCluster).await?;
        }
        Command::Cluster { what: ClusterCommand::Start, access } => {
            order(&access.client().await?, &access, Operation::StartCluster).await?;
        }
        Command::Cluster { what: ClusterCommand::Maintenance { state }, access } => {
            let on = state == Switch::On;
            order(&access.client().await?, &access, Operation::Maintain { on }).await?;
        }
        Command::Operation { operation, access } => {
            let what = serde_json::from_str(&operation).context("understand the operation")?;
            order(&access.client().await?, &access, what).await?;
        }
        Command::Group { what, access } => {
            let client = access.client().await?;
            let view: ClusterView = client.get("/api/view").await?.json()?;
            order(&client, &access, group_operation(&view, &what)?).await?;
        }
        Command::Set { what: SetCommand::Register(wanted), access } => {
            let client = access.client().await?;
            let view: ClusterView = client.get("/api/view").await?.json()?;
            let config: ClusterConfig =
                client.post("/api/sets", &registration(&view, &wanted)?).await?.json()?;
            say(&access, &json!(config), &format!("The mirror set {} is registered.", wanted.name));
        }
        Command::Set { what: SetCommand::Mode { set, mode }, access } => {
            let client = access.client().await?;
            let view: ClusterView = client.get("/api/view").await?.json()?;
            let (set, mode) = (find_set(&view, &set)?, WriteMode::from(mode));
            let wanted = SetMode { set, mode, lang: crate::change::Tongue::default() };
            let config: ClusterConfig = client.post("/api/sets/mode", &wanted).await?.json()?;
            say(&access, &json!(config), &text::write_mode_means(Lang::En, mode));
        }
        Command::Set { what: SetCommand::Certificate { set, folder, name, days }, access } => {
            certificate(&access, &set, &folder, &name, days).await?;
        }
        Command::Set { what, access } => {
            let client = access.client().await?;
            let view: ClusterView = client.get("/api/view").await?.json()?;
            let (what, confirmed) = set_operation(&view, &what)?;
            if let Some(ending) = text::ending(Lang::En, what, &view).filter(|_| !confirmed) {
                anyhow::bail!(
                    "{}: {} Give --confirm if that is meant.",
                    ending.title,
                    ending.effects.join(" ")
                );
            }
            order(&client, &access, what).await?;
        }
        Command::Server { what, access } => {
            let client = access.client().await?;
            let view: ClusterView = client.get("/api/view").await?.json()?;
            order(&client, &access, server_operation(&view, &what)?).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn say(access: &Access, value: &Value, sentence: &str) {
    if access.json { println!("{value}") } else { println!("{sentence}") }
}

/// Works without a running process: the code lies in the folder.
fn code(access: &Access) -> anyhow::Result<()> {
    let data = DataDir::open(&access.data)?;
    if data.cluster_key_file().exists() || data.file("members.json").exists() {
        anyhow::bail!("this server or witness belongs to a cluster already: it can be taken into no other");
    }
    let identity = Identity::open(&data, &host_name())?;
    let code = Pairing::of(&data, &identity.fingerprint).code()?;
    say(access, &json!({ "code": code }), &code);
    Ok(())
}

/// The files that QEMU and libnbd look for in a folder. Made here: the cluster key leaves its server for nobody.
async fn certificate(
    access: &Access,
    set: &str,
    folder: &std::path::Path,
    name: &str,
    days: u32,
) -> anyhow::Result<()> {
    anyhow::ensure!(
        access.server.is_none(),
        "give this command on one of the servers, as root: --server is for others"
    );
    let set = match set.parse() {
        // Works without a running process.
        Ok(number) => SetId(number),
        Err(_) => find_set(&access.client().await?.get("/api/view").await?.json()?, set)?,
    };
    let papers = disk::issue(&DataDir::open(&access.data)?.cluster_key_file(), set, name, days)?;
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("make the folder {}", folder.display()))?;
    let files = [
        ("ca-cert.pem", &papers.authority),
        ("client-cert.pem", &papers.certificate),
        ("client-key.pem", &papers.key),
    ];
    for (file, text) in files {
        let path = folder.join(file);
        let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        made.and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("write {}", path.display()))?;
    }
    let folder = folder.display();
    let use_it = format!("nbds://ADDRESS/SET?tls-certificates={folder}");
    say(
        access,
        &json!({ "folder": folder.to_string(), "days": days }),
        &format!("Good for {days} days: {use_it}"),
    );
    Ok(())
}

fn registration(view: &ClusterView, wanted: &RegisterArgs) -> anyhow::Result<RegisterSet> {
    let group = wanted.group.as_ref().map(|group| find_group(view, group)).transpose()?;
    Ok(RegisterSet {
        name: wanted.name.clone(),
        backing: [wanted.disk1.clone(), wanted.disk2.clone()],
        size: wanted.size,
        group,
        group_name: wanted.group_name.clone(),
        addresses: Vec::new(),
        source: find_server(view, &wanted.source)?,
        mount: wanted.mount.clone(),
        file_system: wanted.file_system.clone(),
        auto_start: true,
        port: None,
        traffic: wire::traffic::Traffic { mode: wanted.mode.into(), ..wire::traffic::Traffic::default() },
        front: FrontConfig {
            nbd: (!wanted.export.is_empty()).then(|| NbdConfig {
                unix: true,
                addresses: wanted.export.clone(),
                port: wanted.export_port,
                tls: true,
            }),
            ..FrontConfig::default()
        },
        replace: wanted.replace,
        lang: crate::change::Tongue::default(),
    })
}

fn find_group(view: &ClusterView, name: &str) -> anyhow::Result<GroupId> {
    let found = view.groups.iter().find(|g| g.name.eq_ignore_ascii_case(name) || g.id.0.to_string() == name);
    found.map(|group| group.id).with_context(|| format!("there is no group {name}: see `futago status`"))
}

fn find_server(view: &ClusterView, name: &str) -> anyhow::Result<NodeId> {
    let found = view.servers.iter().find(|s| s.name.eq_ignore_ascii_case(name) || s.id.0.to_string() == name);
    found.map(|server| server.id).with_context(|| format!("there is no server {name}: see `futago status`"))
}

fn find_set(view: &ClusterView, name: &str) -> anyhow::Result<SetId> {
    let found = view.sets.iter().find(|s| s.name.eq_ignore_ascii_case(name) || s.id.0.to_string() == name);
    found.map(|set| set.id).with_context(|| format!("there is no mirror set {name}: see `futago status`"))
}

fn group_operation(view: &ClusterView, command: &GroupCommand) -> anyhow::Result<Operation> {
    let on = |name: &Option<String>, otherwise: NodeId| match name {
        Some(name) => find_server(view, name),
        None => Ok(otherwise),
    };
    let (GroupCommand::Start { group: name, .. }
    | GroupCommand::Stop { group: name }
    | GroupCommand::Keep { group: name }
    | GroupCommand::Free { group: name }
    | GroupCommand::Move { group: name, .. }) = command;
    let group = find_group(view, name)?;
    let row = view.groups.iter().find(|row| row.id == group).context("no such group")?;
    let home = row.policy.first().copied().unwrap_or(NodeId(1));
    Ok(match command {
        GroupCommand::Start { on: server, .. } => Operation::StartGroup { group, on: on(server, home)? },
        GroupCommand::Stop { .. } => Operation::StopGroup { group },
        GroupCommand::Keep { .. } => Operation::KeepGroup { group },
        GroupCommand::Free { .. } => Operation::FreeGroup { group },
        GroupCommand::Move { to, .. } => {
            Operation::MoveGroup { group, to: on(to, row.active.map_or(home, NodeId::twin))? }
        }
    })
}

fn server_operation(view: &ClusterView, command: &ServerCommand) -> anyhow::Result<Operation> {
    Ok(match command {
        ServerCommand::Stop { name } => Operation::StopServer { server: find_server(view, name)? },
        ServerCommand::Start { name } => Operation::StartServer { server: find_server(view, name)? },
        ServerCommand::Recover { name } => Operation::RecoverServer { server: find_server(view, name)? },
    })
}

/// The operation, and whether what it loses is confirmed (or nothing is lost).
fn set_operation(view: &ClusterView, command: &SetCommand) -> anyhow::Result<(Operation, bool)> {
    let (SetCommand::Build { set, .. }
    | SetCommand::ForceRecovery { set, .. }
    | SetCommand::Permit { set, .. }
    | SetCommand::Restrict { set, .. }
    | SetCommand::ExchangeDisk { set, .. }
    | SetCommand::Old { set, .. }
    | SetCommand::Verify { set, .. }
    | SetCommand::Rebuild { set, .. }
    | SetCommand::Release { set, .. }) = command
    else {
        anyhow::bail!("a registration is no operation on a set");
    };
    let set = find_set(view, set)?;
    let server = |name: &String| find_server(view, name);
    Ok(match command {
        SetCommand::Build { to, confirm, .. } => (Operation::BuildSet { set, to: server(to)? }, *confirm),
        SetCommand::ForceRecovery { good, confirm, .. } => {
            (Operation::ForceRecovery { set, good: server(good)? }, *confirm)
        }
        SetCommand::Permit { on, force: true, confirm, .. } => {
            (Operation::ForcePermit { set, on: server(on)? }, *confirm)
        }
        SetCommand::Permit { on, force: false, .. } => (Operation::PermitSet { set, on: server(on)? }, true),
        SetCommand::Restrict { on, .. } => (Operation::RestrictSet { set, on: server(on)? }, true),
        SetCommand::ExchangeDisk { server: on, confirm, .. } => {
            (Operation::ExchangeDisk { set, server: server(on)? }, *confirm)
        }
        SetCommand::Old { on, choice, confirm, .. } => {
            let choice = match choice {
                OldWord::PutBack => OldChoice::PutBack,
                OldWord::Drop => OldChoice::Drop,
                OldWord::Waive => OldChoice::Waive,
            };
            (Operation::OldVersion { set, on: server(on)?, choice }, *confirm)
        }
        SetCommand::Verify { turn, rate, .. } => {
            let limit = bytes_a_second(*rate);
            let turn = match turn {
                VerifyWord::Start => VerifyTurn::Start { limit },
                VerifyWord::Pause => VerifyTurn::Pause,
                VerifyWord::Resume => VerifyTurn::Resume,
                VerifyWord::Limit => VerifyTurn::Limit { limit },
                VerifyWord::End => VerifyTurn::End,
            };
            (Operation::VerifySet { set, turn }, true)
        }
        SetCommand::Rebuild { turn, rate, .. } => {
            let turn = match turn {
                RebuildWord::Pause => RebuildTurn::Pause,
                RebuildWord::Resume => RebuildTurn::Resume,
                RebuildWord::Limit => RebuildTurn::Limit { limit: bytes_a_second(*rate) },
            };
            (Operation::PaceRebuild { set, turn }, true)
        }
        SetCommand::Release { confirm, .. } => (Operation::ReleaseSet { set }, *confirm),
        SetCommand::Register(_) | SetCommand::Mode { .. } | SetCommand::Certificate { .. } => {
            anyhow::bail!("a change of the configuration is no operation on a set")
        }
    })
}

fn bytes_a_second(mib: Option<NonZeroU32>) -> Option<NonZeroU64> {
    mib.and_then(|mib| NonZeroU64::from(mib).checked_mul(NonZeroU64::MIN.saturating_add((1 << 20) - 1)))
}

async fn order(client: &Client, access: &Access, what: Operation) -> anyhow::Result<()> {
    let reply: Reply = client.post("/api/command", &json!({ "what": what })).await?.json()?;
    match &reply.result {
        Ok(()) => say(access, &json!(reply), "Begun."),
        Err(refusal) => {
            let sentence = text::refused(Lang::En, refusal.kind);
            anyhow::bail!("refused (M-{}): {sentence}", refusal.kind.code())
        }
    }
    Ok(())
}

async fn status(access: &Access) -> anyhow::Result<()> {
    let view: ClusterView = access.client().await?.get("/api/view").await?.json()?;
    if access.json {
        println!("{}", serde_json::to_string(&view)?);
        return Ok(());
    }
    println!("Cluster {} as {} sees it", view.cluster, server_name(&view, Some(view.server)));
    let names = Names(&view);
    for server in &view.servers {
        let away = if server.node_away { " (node process away)" } else { "" };
        println!("  server  {:<16} {}{away}", server.name, text::server_state(Lang::En, server.state));
    }
    for link in &view.links {
        println!("  link    {:<16} {}", link.name, text::link_state(Lang::En, link.state));
    }
    for group in &view.groups {
        let state = text::group_state(Lang::En, &group.state, names);
        println!("  group   {:<16} {state} on {}", group.name, server_name(&view, group.active));
    }
    for set in &view.sets {
        let mode = text::set_mode(Lang::En, set).map(|mode| format!("  {mode}")).unwrap_or_default();
        let behind = set.behind.map(|behind| format!("  {}", text::set_behind(Lang::En, behind)));
        println!(
            "  mirror  {:<16} {}  {}{mode}{}",
            set.name,
            text::set_word(Lang::En, set),
            text::set_line(Lang::En, set),
            behind.unwrap_or_default()
        );
        if let Some(verify) = &set.verify {
            println!("          {:<16} {}", "", text::verifying(Lang::En, verify));
        }
        if let Some(last) = &set.verified {
            println!("          {:<16} {} UTC", "", text::verified(Lang::En, last, 0));
        }
        if let SetState::Rebuilding { progress } = &set.state {
            let done = text::blocks(Lang::En, progress.done, progress.total);
            println!("          {:<16} {done}, {}", "", text::left(Lang::En, progress));
        }
    }
    Ok(())
}

fn server_name(view: &ClusterView, id: Option<NodeId>) -> String {
    let found = view.servers.iter().find(|server| Some(server.id) == id);
    found.map_or_else(|| "-".into(), |server| server.name.clone())
}
