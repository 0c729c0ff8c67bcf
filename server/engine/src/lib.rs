//! The cluster's brain: membership, the register, the lease, groups and their plans, commands, events, the view.
//!
//! Pure: `handle(input, now)`, `next_deadline()`, `take_actions()`, `view()`. One owner, one turn at a time: an input is
//! applied, then the invariants are restored (plans advance, leases are judged, the register proposes), then checked.

pub mod action;
mod admin;
mod alerts;
mod beat;
mod core;
mod engine;
mod fence;
mod forecast;
mod gossip;
mod group;
mod incident;
pub mod input;
mod inputs;
mod invariants;
mod lease;
pub mod link;
mod membership;
mod mode;
mod operator;
mod pace;
pub mod persist;
pub mod plan;
pub mod register;
mod right;
mod rules;
mod sets;
mod standing;
mod steps;
mod through;
mod timing;
mod view;
pub mod witness;

pub use action::Action;
pub use core::EngineFaults;
pub use engine::{Engine, Setup};
pub use input::Input;
pub use persist::Record;
pub use witness::Witness;
