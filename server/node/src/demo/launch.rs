//! The launcher: sweeps, sets up, creates the cluster, then carries out orders until Ctrl-C.

use super::Args;
use super::control::{self, Act, Request};
use super::create::{self, Wish};
use super::plan::{APP_PORT, FLOATING, Host, PORT};
use super::proxy::{self, Gate};
use super::record::{self, Record};
use super::status::{self, Facts, host_folder, image, page_address};
use super::world::World;
use anyhow::Context as _;
use os::namespace::{self, Kind};
use os::proc;
use os::process::ProcessId;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Orders that wait for the main thread.
const ORDERS_MAX: usize = 32;
/// How often the record is brought up to date: what comes up and is not yet on it is lost to the next start's sweep.
const LOOK: Duration = Duration::from_millis(200);

const MIB: u64 = 1 << 20;

/// What reaches the main thread.
enum Event {
    /// An order; the answer goes back.
    Order(Request, SyncSender<anyhow::Result<()>>),
    /// The cluster is healthy, or could not be created.
    Created(anyhow::Result<()>),
    /// Ctrl-C or SIGTERM.
    End,
}

/// Runs the demo until it is told to end.
///
/// # Errors
/// What keeps it from running; everything is taken away then.
pub fn launch(args: &Args) -> anyhow::Result<ExitCode> {
    if !rustix::process::geteuid().is_root() {
        eprintln!(
            "futago demo needs root, for it makes network namespaces, mounts and loop devices: run it with sudo."
        );
        return Ok(ExitCode::from(2));
    }
    // A mount namespace of the launcher's own: nothing it or its hosts mount is ever seen outside.
    namespace::unshare(&[Kind::Mount])?;
    namespace::make_mounts_private()?;
    let folder = prepare(&args.dir)?;
    let (events, inbox) = sync_channel(ORDERS_MAX);
    catch_signals(events.clone())?;
    let gates: BTreeMap<Host, Gate> = [Host::Server1, Host::Server2, Host::Client]
        .into_iter()
        .map(|host| (host, Gate::default()))
        .collect();
    let facts = Arc::new(Mutex::new(listen(args, &folder, &gates)?));
    for host in Host::SERVERS {
        make_image(&folder, host, args.size)?;
    }
    let record = own_record()?;
    record.store(&folder)?;
    let mut world = World::create(&folder, args.backing, gates, Arc::clone(&facts), record)?;
    serve_orders(&folder, &facts, events.clone())?;
    let ended = run(&mut world, args, &facts, events, &inbox);
    let gone = world.end();
    drop(world);
    let _ = fs::remove_file(folder.join(control::SOCKET));
    gone?;
    Record::default().store(&folder)?;
    ended.map(|()| ExitCode::SUCCESS)
}

/// Makes the folder ready: refuses one where a demo runs, sweeps what a killed one left, takes its files away.
fn prepare(dir: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("make the folder {}", dir.display()))?;
    let folder = dir.canonicalize()?;
    let names = Host::ALL.map(Host::name).into_iter().chain(["mnt"]);
    match Record::load(&folder)? {
        Some(record) => {
            if let Some(launcher) = record.running() {
                anyhow::bail!(
                    "a demo runs in {} (process {}): end it with Ctrl-C there, or choose another --dir",
                    folder.display(),
                    launcher.pid
                );
            }
            record.sweep().context("sweep what a killed demo left")?;
        }
        None => {
            if let Some(name) = names.clone().find(|name| folder.join(name).exists()) {
                anyhow::bail!("{} holds a {name} that is no demo's: choose another --dir", folder.display());
            }
        }
    }
    for name in names {
        match fs::remove_dir_all(folder.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("delete the last demo's {name}"));
            }
            Ok(()) | Err(_) => {}
        }
    }
    fs::create_dir(folder.join("mnt"))?;
    Ok(folder)
}

/// Bytes of an image left for the file system: its 64th is far more than the mirror's own records take (a bit for each
/// 4096 bytes, and less than 1 MiB besides).
fn data_bytes(image: u64) -> u64 {
    (image - (image / 64).max(MIB)) / MIB * MIB
}

/// Makes a server's image file, its room reserved: a mirror must not meet a full disk in the middle of a write.
fn make_image(folder: &Path, host: Host, bytes: u64) -> anyhow::Result<()> {
    fs::create_dir_all(host_folder(folder, host))?;
    let path = image(folder, host);
    let reserved = File::create(&path)
        .and_then(|file| Ok(rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes)?));
    reserved
        .with_context(|| format!("make {} of {} MiB: is there room? see --size", path.display(), bytes >> 20))
}

fn own_record() -> anyhow::Result<Record> {
    let pid = std::process::id();
    let started = proc::stat(pid).context("read /proc")?.started;
    Ok(Record { boot_id: record::boot_id()?, launcher: Some(ProcessId { pid, started }), hosts: Vec::new() })
}

/// Opens the proxies.
fn listen(args: &Args, folder: &Path, gates: &BTreeMap<Host, Gate>) -> anyhow::Result<Facts> {
    let gate = |host| gates.get(&host).cloned().unwrap_or_default();
    // As at the server's own console: the page is there though its cables are cut.
    let inside = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    let pages = [(Host::Server1, args.page1), (Host::Server2, args.page2)]
        .into_iter()
        .map(|(host, port)| Ok((host, proxy::start(port, gate(host), inside)?)))
        .collect::<anyhow::Result<BTreeMap<_, _>>>()?;
    let app = proxy::start(args.app, gate(Host::Client), SocketAddr::new(FLOATING, APP_PORT))?;
    Ok(Facts { folder: folder.to_owned(), pages, app, password: String::new(), hosts: BTreeMap::new() })
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn catch_signals(events: SyncSender<Event>) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = runtime()?;
    let guard = runtime.enter();
    let mut kinds =
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal).into_iter();
    let (Some(interrupt), Some(terminate), Some(hangup)) = (kinds.next(), kinds.next(), kinds.next()) else {
        anyhow::bail!("no signals");
    };
    let (mut interrupt, mut terminate, mut hangup) = (interrupt?, terminate?, hangup?);
    drop(guard);
    let wait = move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                if events.send(Event::End).is_err() {
                    return;
                }
            }
        });
    };
    thread::Builder::new().name("signals".into()).spawn(wait)?;
    Ok(())
}

fn serve_orders(folder: &Path, facts: &Arc<Mutex<Facts>>, events: SyncSender<Event>) -> anyhow::Result<()> {
    let facts = Arc::clone(facts);
    control::serve(folder, move |request| {
        if request.act == Act::Status {
            let now = facts.lock().unwrap_or_else(PoisonError::into_inner).clone();
            return Ok(serde_json::to_value(runtime()?.block_on(status::status(&now)))?);
        }
        let (answer, done) = sync_channel(1);
        events.send(Event::Order(request, answer)).context("the demo is ending")?;
        done.recv().context("the demo is ending")??;
        Ok::<Value, anyhow::Error>(json!({ "ok": true }))
    })
}

fn run(
    world: &mut World,
    args: &Args,
    facts: &Arc<Mutex<Facts>>,
    events: SyncSender<Event>,
    inbox: &Receiver<Event>,
) -> anyhow::Result<()> {
    println!("futago demo: starting two servers, a witness and a client host in {} ...", args.dir.display());
    for host in Host::ALL {
        world.start(host)?;
    }
    let wish = Wish {
        set_bytes: data_bytes(args.size),
        auto_recover: args.auto_recover,
        timing: args.timing,
        address_group: args.address_group,
    };
    let shared = Arc::clone(facts);
    let work = move || {
        let created = runtime().map_err(anyhow::Error::from);
        let created = created.and_then(|runtime| runtime.block_on(create::create(&shared, &wish)));
        let _ = events.send(Event::Created(created)); // the demo is ending: nobody waits
    };
    thread::Builder::new().name("create".into()).spawn(work)?;
    loop {
        match inbox.recv_timeout(LOOK) {
            Ok(Event::Order(request, answer)) => {
                let _ = answer.send(world.order(&request)); // whoever asked may have gone
            }
            Ok(Event::Created(created)) => {
                created?;
                welcome(args, facts);
            }
            Ok(Event::End) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {
                if let Err(error) = world.look() {
                    eprintln!("futago demo: {error:#}");
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

fn welcome(args: &Args, facts: &Arc<Mutex<Facts>>) {
    let facts = facts.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let page = |host| facts.pages.get(&host).copied().map(page_address).unwrap_or_default();
    let program = std::env::args().next().unwrap_or_else(|| "futago".into());
    println!(
        "\nfutago demo: both servers are normal, the group runs, the mirror is in sync.\n\n\
         \x20 server1's page   {}\n\x20 server2's page   {}\n\x20 one-time login   {}   (good once on each page)\n\
         \x20 the application  http://{}\n\n\
         \x20 break it:        {program} demo kill server1 --dir {}\n\
         \x20                  (power loss; or cut ic1, cut public-1: a cable pulled)\n\
         \x20 heal it:         the same with restart or mend; then \"recover\" on the page\n\
         \x20 end it:          Ctrl-C\n",
        page(Host::Server1),
        page(Host::Server2),
        facts.password,
        facts.app,
        args.dir.display()
    );
}
