//! The cluster's brain: membership, the register, the lease, groups and their plans, commands, events, the view.
//!
//! Pure: `handle(input, now)`, `next_deadline()`, `take_actions()`, `view()`. One owner, one turn at a time: an input is
//! applied, then the invariants are restored (plans advance, leases are judged, the register proposes), then checked.

pub mod action;
pub mod input;
pub mod persist;
pub mod register;
pub mod witness;

pub use action::Action;
pub use input::Input;
pub use persist::Record;
pub use witness::Witness;
