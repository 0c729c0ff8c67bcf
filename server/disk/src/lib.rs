//! The data path of one mirror set on one server, in a process of its own: block device, local disk, link to the twin.
//!
//! One thread owns the io_uring, the FUSE descriptor, the disk and the socket; it feeds the pure core (`mirror`) and performs
//! its actions. Other threads do what can block: the device in the kernel (`device`), dialling and handshakes
//! (`link::connect`), hashing (`backing`), the guard over addresses and processes (`guard`). They answer through the inbox.
//!
//! **The loop thread must never wait for our own block device**: whoever opens, attaches or unmounts it does so elsewhere.
//!
//! ```text
//!   kernel: loop device ── FUSE ──> Front ─┐                    ┌─> Backing (O_DIRECT, or volatile)
//!   twin: TCP ───────────────────> Stream ─┤─> mirror (core) ───┼─> Stream ──> twin
//!   node: unix socket ───────────> Control ┤   Input / Action   ├─> Front replies, Control
//!   threads ─────────────────────> Inbox ──┘                    └─> Worker, Guard
//! ```

mod backing;
pub mod control;
mod device;
mod format;
mod front;
mod fuse;
mod gather;
mod guard;
mod harden;
mod inbox;
pub mod keeper;
mod limits;
mod link;
mod nbd;
mod old;
mod options;
mod perform;
mod pools;
mod ring;
mod run;
mod spin;
mod tls;
mod token;
mod turn;
mod zero;

pub use device::withdraw;
pub use format::{clear, format, release};
pub use mirror::layout::{control_bytes, data_bytes};
pub use nbd::papers::{PAPERS_DAYS_MAX, Papers, issue};
pub use old::show_old;
pub use options::{DiskOptions, ExportOptions, FormatOptions, Record, VolatileFault, VolatileOp};
pub use run::run;
