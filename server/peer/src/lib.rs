//! Messages between servers, between a server and the witness, and between a node process and its disk processes.
//!
//! Pure: types and codecs with limits and versions; bytes in, messages out.

pub mod block;
mod block_codec;
pub mod cluster;
pub mod control;
pub mod heartbeat;
