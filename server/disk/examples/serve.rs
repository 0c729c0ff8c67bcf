//! One side of a mirror set by hand, for measuring: formats an image and runs the disk process.
//!
//! `serve FOLDER SIDE SIZE PORT [volatile]`: image, sockets and mount point lie in FOLDER; the twin is on 127.0.0.1.

use anyhow::Context as _;
use disk::{DiskOptions, FormatOptions};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use wire::{Incarnation, NodeId, SetId};

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::stderr).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = "serve FOLDER SIDE SIZE PORT [volatile]";
    let folder = PathBuf::from(arguments.first().context(usage)?);
    let side = NodeId(arguments.get(1).context(usage)?.parse()?);
    let size: u64 = arguments.get(2).context(usage)?.parse()?;
    let port: u16 = arguments.get(3).context(usage)?.parse()?;
    let set = SetId(1);
    let backing = folder.join("image");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("key"), [7; 32])?;
    disk::format(&FormatOptions {
        backing: backing.clone(),
        cluster: [1; 16],
        set,
        side,
        size,
        replace: false,
        store: None,
    })?;
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut incarnation = [0; 16];
    incarnation[0] = side.0;
    disk::run(DiskOptions {
        set,
        side,
        size,
        backing,
        control: folder.join("control.sock"),
        listen: vec![local],
        twin: vec![local],
        port,
        mount: folder.join("front"),
        incarnation: Incarnation(incarnation),
        lease_ms: 1300,
        node_grace_ms: 10_000,
        io_limit_ms: 3_000,
        mode: wire::traffic::WriteMode::Synchronous,
        encrypt: false,
        pack: false,
        key_file: folder.join("key"),
        state: folder.join("state"),
        device: true,
        nbd: None,
        volatile: arguments.iter().any(|argument| argument == "volatile"),
        volatile_seed: 1,
        kept: false,
        log: None,
        no_flush: false,
        volatile_delay_us: 0,
        volatile_fault: None,
    })
}
