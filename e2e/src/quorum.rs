//! The best durable peer (PEERS): QEMU's quorum of a local file and one over NBD on another host, offered by NBD.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::command;

const LIMIT: Duration = Duration::from_secs(30);
/// Where the remote half listens, in the second host.
const PORT: u16 = 10_813;
/// QEMU up to 8.0 leaves Nagle's delay on in its NBD server: 40 ms for every write. Loaded before it, this takes the delay
/// away, so that the peer is measured at its best.
const NODELAY: &str = r"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
int accept4(int server, struct sockaddr *from, socklen_t *length, int flags) {
  int (*next)(int, struct sockaddr *, socklen_t *, int) = dlsym(RTLD_NEXT, __func__);
  int got = next(server, from, length, flags), yes = 1;
  if (got >= 0) setsockopt(got, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  return got;
}
";

/// Both processes of the peer.
#[derive(Debug)]
pub struct Quorum {
    remote: Child,
    local: Option<Child>,
    socket: PathBuf,
}

impl Quorum {
    /// Starts it over these two images; `one` and `two` name the network namespaces, `address` is the second one's.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        folder: &Path,
        images: &[String; 2],
        (one, two): (&str, &str),
        address: &str,
    ) -> Result<Self> {
        let (source, shim, socket) =
            (folder.join("nodelay.c"), folder.join("nodelay.so"), folder.join("quorum.nbd"));
        fs::write(&source, NODELAY)?;
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-shared", "-fPIC", "-o"]).arg(&shim).arg(&source).arg("-ldl");
        command::output(&mut cc, LIMIT)?;
        let file = |name: &str, image: &str| {
            format!("driver=file,node-name={name},filename={image},cache.direct=on,aio=native")
        };
        let mut remote = inside(two);
        remote.arg("env").arg(format!("LD_PRELOAD={}", shim.display())).arg("qemu-storage-daemon");
        remote.args(["--blockdev", &file("f", &images[1]), "--nbd-server"]);
        remote.arg(format!("addr.type=inet,addr.host={address},addr.port={PORT}"));
        remote.args(["--export", "type=nbd,id=e,node-name=f,name=m,writable=on"]);
        let remote = remote.spawn().context("start qemu-storage-daemon")?;
        let mut quorum = Self { remote, local: None, socket };
        wait("the remote half listens", || {
            let said = command::output(inside(two).args(["ss", "-ltnH", &format!("sport = :{PORT}")]), LIMIT);
            said.is_ok_and(|text| !text.trim().is_empty())
        })?;
        let mut local = inside(one);
        local.arg("qemu-storage-daemon").args(["--blockdev", &file("pri", &images[0]), "--blockdev"]);
        local.arg(format!(
            "driver=nbd,node-name=sec,server.type=inet,server.host={address},server.port={PORT},export=m,\
             reconnect-delay=0"
        ));
        local.args([
            "--blockdev",
            "driver=quorum,node-name=q,children.0=pri,children.1=sec,vote-threshold=1,read-pattern=fifo",
        ]);
        local.arg("--nbd-server").arg(format!("addr.type=unix,addr.path={}", quorum.socket.display()));
        local.args(["--export", "type=nbd,id=e,node-name=q,name=m,writable=on"]);
        quorum.local = Some(local.spawn().context("start qemu-storage-daemon")?);
        wait("the export is there", || quorum.socket.exists())?;
        Ok(quorum)
    }

    /// Where it is used.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("nbd+unix:///m?socket={}", self.socket.display())
    }
}

impl Drop for Quorum {
    fn drop(&mut self) {
        for child in self.local.iter_mut().chain([&mut self.remote]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A command in the network namespace of this name.
fn inside(namespace: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}")).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn wait(what: &str, done: impl Fn() -> bool) -> Result<()> {
    let began = Instant::now();
    while !done() {
        ensure!(began.elapsed() < LIMIT, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
