//! The block mirror's brain: one mirror set, one side. Pure: it is handed inputs and the time and returns actions.
//!
//! It knows nothing of groups, addresses or the cluster. The shell (`disk`, or the simulator) performs the actions in
//! their order and hands every result back as an input.
//!
//! One turn: [`Mirror::handle`] applies one input, lets go on whatever waited for it, checks the invariants, and queues
//! actions; the shell drains [`Mirror::take_actions`] before the next input and arms one timer for
//! [`Mirror::next_deadline`].

pub mod action;
mod applied;
mod area;
mod barrier;
mod bits;
pub mod compare;
pub mod config;
mod dirty;
mod flush;
mod habit;
pub mod input;
mod invariants;
mod journal;
pub mod layout;
mod lease;
mod link;
mod log;
mod mend;
mod mirror;
mod mode;
mod orders;
mod pace;
mod page_set;
mod pair;
mod progress;
mod ranges;
mod rebuild;
mod requests;
mod resume;
mod settle;
mod status;
mod store;
pub mod sum_page;
mod sums;
mod table;
mod through;
mod undo;
mod verify;
mod watch;

pub use action::Action;
pub use config::{Faults, MirrorConfig, MirrorTiming};
pub use input::Input;
pub use layout::ControlArea;
pub use mirror::Mirror;
pub use peer::block::HOT_MAX;
pub use resume::Kept;
