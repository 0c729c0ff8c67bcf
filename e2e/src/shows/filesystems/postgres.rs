//! PostgreSQL on the mirrored device under pgbench: every committed transaction is there after every power loss.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::volume::{Kind, Volume, start};
use crate::command;

/// Where Debian keeps its programs, one folder for each version.
const PROGRAMS: &str = "/usr/lib/postgresql";
/// Bytes of the mirrored device.
const SIZE: u64 = 640 << 20;
/// One of its tools.
const TOOL: Duration = Duration::from_secs(180);
/// The cluster's port, of its socket in a folder of our own; it listens on no address.
const PORT: &str = "7399";

/// What the rounds came to.
#[derive(Debug, Default)]
pub struct Found {
    /// Power losses of the serving side.
    pub losses: u64,
    /// Transactions of the recording client that were committed.
    pub committed: u64,
    /// Of these, not there later.
    pub lost: u64,
    /// Transactions of pgbench that are there at the end.
    pub pgbench: u64,
    /// What went wrong first.
    pub broken: Option<String>,
}

/// So many power losses of the serving side, after this long each; the twin takes over, the first side rejoins.
pub fn play(losses: u64, every: Duration) -> Found {
    let mut found = Found::default();
    if let Err(error) = run(losses, every, &mut found) {
        found.broken = Some(format!("{error:#}"));
    }
    found
}

fn run(losses: u64, every: Duration, found: &mut Found) -> Result<()> {
    let mut volume = Volume::new(Kind::Ext4, SIZE, false)?;
    let server = Server::new(&volume)?;
    server.create()?;
    let mut running = server.start()?;
    server.run(&server.tool("pgbench"), &["--initialize", "--quiet", "--scale=4"])?;
    server.sql("create table ids (id bigint primary key)")?;
    let mut next = 1;
    let mut committed = Vec::new();
    for round in 1..=losses {
        let bench = server.bench(&volume)?;
        let recorder = Recorder::start(&server, next)?;
        std::thread::sleep(every);
        let Recorder { child, reader, writer } = recorder;
        let lost = volume.lose_power(false, &mut [running, bench, child]);
        let heard = reader.join().unwrap_or_default();
        let _ = writer.join();
        next = heard.last().copied().unwrap_or(next) + 1_000;
        committed.extend(heard);
        lost?;
        volume.take_over()?;
        running = server.start()?;
        found.losses += 1;
        found.committed = committed.len() as u64;
        let there = server.sql("select id from ids order by id")?;
        let there: std::collections::BTreeSet<u64> = there.lines().filter_map(|id| id.parse().ok()).collect();
        found.lost += committed.iter().filter(|id| !there.contains(id)).count() as u64;
        println!(
            "  postgresql {round}: serves on side {}, {} committed, {} lost",
            volume.active(),
            committed.len(),
            found.lost
        );
        volume.rejoin()?;
    }
    found.pgbench = server.sql("select count(*) from pgbench_history")?.trim().parse().unwrap_or(0);
    server.run(&server.tool("pg_amcheck"), &["--install-missing", "postgres"])?;
    server.control(&["stop", "--mode=fast", "--wait"])?;
    let _ = running.wait();
    volume.end()
}

/// One cluster of databases on the mirrored file system.
struct Server {
    programs: PathBuf,
    data: PathBuf,
    socket: PathBuf,
}

impl Server {
    fn new(volume: &Volume) -> Result<Self> {
        let versions = std::fs::read_dir(PROGRAMS).context("where is PostgreSQL?")?;
        let newest = versions.flatten().map(|version| version.path()).max();
        let programs = newest.context("PostgreSQL is not installed")?.join("bin");
        let data = volume.path().join("pg");
        let socket = volume.beside().join("pg-socket");
        for folder in [&data, &socket] {
            std::fs::create_dir_all(folder)?;
            command::output(Command::new("chown").arg("postgres").arg(folder), TOOL)?;
        }
        // Its user must be able to pass through.
        command::output(Command::new("chmod").arg("755").arg(volume.beside()), TOOL)?;
        Ok(Server { programs, data, socket })
    }

    fn tool(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// As the database's user, who is not root.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
        command.env("PGHOST", &self.socket).env("PGPORT", PORT).env("PGDATABASE", "postgres");
        command.env("PGUSER", "postgres").env("PGDATA", &self.data).current_dir(&self.socket);
        command
    }

    fn run(&self, program: &Path, arguments: &[&str]) -> Result<String> {
        command::output(self.command(program).args(arguments), TOOL)
    }

    fn sql(&self, text: &str) -> Result<String> {
        self.run(&self.tool("psql"), &["--no-psqlrc", "-qAt", "-v", "ON_ERROR_STOP=1", "-c", text])
    }

    fn create(&self) -> Result<()> {
        self.run(&self.tool("initdb"), &["--auth=trust", "--no-locale", "--data-checksums"])?;
        Ok(())
    }

    fn control(&self, arguments: &[&str]) -> Result<()> {
        self.run(&self.tool("pg_ctl"), arguments).map(|_| ())
    }

    /// Starts it and waits until it has recovered and answers.
    fn start(&self) -> Result<Child> {
        let mut postgres = self.command(&self.tool("postgres"));
        postgres.arg("-k").arg(&self.socket).args(["-p", PORT, "-c", "listen_addresses="]);
        postgres.args([
            "-c",
            "max_wal_size=96MB",
            "-c",
            "checkpoint_timeout=30s",
            "-c",
            "shared_buffers=32MB",
        ]);
        let log = self.socket.join("log");
        let mut child = start(&mut postgres, &log)?;
        let end = std::time::Instant::now() + TOOL;
        while self.sql("select 1").is_err() {
            if let Some(ended) = child.try_wait()? {
                bail!(
                    "PostgreSQL ended with {ended}:\n{}",
                    std::fs::read_to_string(&log).unwrap_or_default()
                );
            }
            ensure!(std::time::Instant::now() < end, "PostgreSQL does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(child)
    }

    fn bench(&self, volume: &Volume) -> Result<Child> {
        let mut bench = self.command(&self.tool("pgbench"));
        start(bench.args(["--client=4", "--time=3600"]), &volume.beside().join("pgbench.log"))
    }
}

/// A client that commits one number after the other and records those that the database said are committed.
struct Recorder {
    child: Child,
    reader: JoinHandle<Vec<u64>>,
    writer: JoinHandle<()>,
}

impl Recorder {
    fn start(server: &Server, from: u64) -> Result<Self> {
        let mut psql = server.command(&server.tool("psql"));
        psql.args(["--no-psqlrc", "-qAt"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = psql.process_group(0).spawn().context("start psql")?;
        let (mut ask, said) = (child.stdin.take().context("psql's input")?, child.stdout.take());
        let said = said.context("psql's output")?;
        // Each statement is a transaction of its own; its answer comes after the commit.
        let writer = std::thread::spawn(move || {
            for id in from.. {
                if writeln!(ask, "insert into ids values ({id}) returning id;").is_err() {
                    return;
                }
            }
        });
        let reader = std::thread::spawn(move || {
            BufReader::new(said)
                .lines()
                .map_while(Result::ok)
                .filter_map(|line| line.trim().parse().ok())
                .collect()
        });
        Ok(Recorder { child, reader, writer })
    }
}
