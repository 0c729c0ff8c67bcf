//! The simulator: two engines, two mirrors, the witness, networks and disks of one cluster, all driven from one seed.
//!
//! A plain loop over a queue of events; no thread, no clock, no chance but the seed's. `World::run` is one run: a safety
//! phase in which the plan's faults happen and every invariant is watched, then a liveness phase without faults in which
//! the cluster must become whole.

pub mod app;
pub mod bugs;
mod changes;
pub mod clock;
pub mod disk;
pub mod disk_shell;
pub mod faults;
pub mod ghost;
pub mod host;
pub mod invariants;
pub mod keeper;
pub mod links;
pub mod liveness;
pub mod machines;
pub mod net;
pub mod node_shell;
pub mod oracle;
pub mod pair;
pub mod queue;
pub mod register_model;
pub mod register_rules;
pub mod rng;
pub mod runner;
pub mod seen;
pub mod shrink;
pub mod trace;
pub mod witness;
pub mod world;
