//! The block mirror's brain: one mirror set, one side. Pure: it is handed inputs and the time and returns actions.
//!
//! It knows nothing of groups, addresses or the cluster. The shell (`disk`, or the simulator) performs the actions in
//! their order and hands every result back as an input.

pub mod action;
pub mod input;

pub use action::Action;
pub use input::Input;
