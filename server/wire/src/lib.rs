//! The vocabulary shared by browser, command line and servers: ids, the view, the feed, commands, refusals, alerts, limits.
//!
//! Pure: data and validation only. Nothing here does I/O or reads a clock; it compiles to wasm.

pub mod admin;
pub mod alert;
pub mod backing;
pub mod command;
pub mod config;
pub mod feed;
pub mod ids;
pub mod limits;
pub mod rules;
pub mod text;
pub mod traffic;
pub mod verdict;
pub mod view;

pub use alert::{Event, EventKind, Severity};
pub use command::{Command, OldChoice, Operation, RebuildTurn, Refusal, RefusalKind, Reply, VerifyTurn};
pub use config::ClusterConfig;
pub use feed::{Feed, Hello};
pub use ids::{
    CommandId, Epoch, Generation, GroupId, Incarnation, LinkId, NodeId, Revision, Session, SetId, Time,
    WallClock,
};
pub use view::ClusterView;
