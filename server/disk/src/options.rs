//! What a disk process is told at its start.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use wire::traffic::WriteMode;
use wire::{Incarnation, NodeId, SetId};

/// Everything `futago disk` needs. The node process writes it as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskOptions {
    /// The mirror set.
    pub set: SetId,
    /// This server.
    pub side: NodeId,
    /// Bytes of mirrored data, a multiple of 4096; must be what the backing was formatted with.
    pub size: u64,
    /// Partition, LV, disk or image file; formatted by [`crate::format`].
    pub backing: PathBuf,
    /// Unix socket to listen on for the node process.
    pub control: PathBuf,
    /// This server's addresses, one for each interconnect in the configured order.
    pub listen: Vec<IpAddr>,
    /// The twin's addresses in the same order.
    pub twin: Vec<IpAddr>,
    /// TCP port of this set's block link.
    pub port: u16,
    /// An empty folder; the FUSE file `data` appears in it while this side is active.
    pub mount: PathBuf,
    /// This host's present life.
    pub incarnation: Incarnation,
    /// How long a grant of the lease lasts from the sending of its nonce; as in the group's configuration.
    #[serde(default = "lease_ms")]
    pub lease_ms: u64,
    /// How long the lease is renewed over the block link while a node process is away; as in the group's configuration.
    #[serde(default = "node_grace_ms")]
    pub node_grace_ms: u64,
    /// How long an operation of a disk may take before that disk counts as failed; as in the group's configuration.
    #[serde(default = "io_limit_ms")]
    pub io_limit_ms: u64,
    /// The block link is encrypted (TLS 1.3); if either side wants it (C11).
    #[serde(default)]
    pub encrypt: bool,
    /// Payloads of the block link are packed (LZ4) where that makes them smaller; if either side wants it (C11).
    #[serde(default)]
    pub pack: bool,
    /// When a write is acknowledged in sync (C4).
    #[serde(default)]
    pub mode: WriteMode,
    /// File of the cluster key: 32 bytes.
    pub key_file: PathBuf,
    /// Folder for the record of what must be swept after a `kill -9` ([`crate::Record`]).
    pub state: PathBuf,
    /// There is a keeper in the state folder, or is to be: a killed process is replaced (C12).
    #[serde(default)]
    pub kept: bool,
    /// Where a process that the keeper starts writes what it has to say.
    #[serde(default)]
    pub log: Option<PathBuf>,
    /// Offer the block device; off where the export alone is used.
    #[serde(default = "yes")]
    pub device: bool,
    /// Serve the set as an NBD export too, while it is active.
    #[serde(default)]
    pub nbd: Option<ExportOptions>,
    /// Test backing: what is not flushed is lost when the process is killed, or torn (DESIGN section 10).
    #[serde(default)]
    pub volatile: bool,
    /// Seed of the volatile backing's coin.
    #[serde(default)]
    pub volatile_seed: u64,
    /// Test fault: a flush of data answers at once and makes nothing durable. The control area stays honest.
    #[serde(default)]
    pub no_flush: bool,
    /// Test fault: every operation of the volatile backing takes so many microseconds longer, as on a slow disk.
    #[serde(default)]
    pub volatile_delay_us: u64,
    /// Test fault: operations of the volatile backing that fail, as on a bad disk.
    #[serde(default)]
    pub volatile_fault: Option<VolatileFault>,
}

/// Operations of the volatile backing that fail. They have no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolatileFault {
    /// Which operations are counted, and fail.
    pub what: VolatileOp,
    /// So many succeed first.
    pub after: u64,
    /// So many fail then; 0: all that come.
    pub times: u64,
    /// The error they end with, such as 5 (EIO).
    pub errno: i32,
}

/// A kind of operation of the backing, control area included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolatileOp {
    /// Writing.
    Write,
    /// Reading, hashing included.
    Read,
    /// Flushing.
    Flush,
}

/// Where the NBD export is served. Who is let in can read and write the whole set: the unix socket is root's own; TCP is off
/// unless addresses are named, and in clear unless `tls` is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportOptions {
    /// The export's name; clients may also ask for the empty one.
    pub name: String,
    /// Path of the unix socket, made while the set is active.
    #[serde(default)]
    pub unix: Option<PathBuf>,
    /// Addresses and ports to listen at; an address need not be there yet.
    #[serde(default)]
    pub tcp: Vec<SocketAddr>,
    /// Over TCP only clients with papers of this set ([`crate::issue`]), over TLS 1.3.
    #[serde(default)]
    pub tls: bool,
}

fn yes() -> bool {
    true
}

fn lease_ms() -> u64 {
    1_300
}

fn node_grace_ms() -> u64 {
    10_000
}

fn io_limit_ms() -> u64 {
    3_000
}

/// What is formatted, for whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormatOptions {
    /// Partition, LV, disk or image file; a missing or short image file is made long enough.
    pub backing: PathBuf,
    /// Cluster, drawn at its creation.
    pub cluster: [u8; 16],
    /// The mirror set.
    pub set: SetId,
    /// This server.
    pub side: NodeId,
    /// Bytes of mirrored data, a multiple of 4096.
    pub size: u64,
    /// Overwrite the control area of another mirror set, or whatever else is there: **it is lost on this backing**.
    #[serde(default)]
    pub replace: bool,
    /// Bytes behind the data for what a rebuild overwrites ([`mirror::layout::store_bytes`] where nothing is said, as far as
    /// a device has room); 0: none is kept.
    #[serde(default)]
    pub store: Option<u64>,
}

/// What holds a mirror set's device together in the kernel, kept in `STATE/set-N.front.json` while it exists, so that
/// whoever cleans up after a `kill -9` can find it: detach the loop, abort the connection, unmount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The disk process.
    pub pid: u32,
    /// Where the FUSE file system is mounted.
    pub mount: PathBuf,
    /// Number of the FUSE connection.
    pub connection: Option<u32>,
    /// N of /dev/loopN.
    pub device: Option<u32>,
}

impl Record {
    /// Where the record of a set is kept.
    #[must_use]
    pub fn path(state: &std::path::Path, set: SetId) -> PathBuf {
        state.join(format!("set-{}.front.json", set.0))
    }
}
