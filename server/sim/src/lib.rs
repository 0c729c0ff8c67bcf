//! The simulator: two engines, two mirrors, the witness, networks and disks of one cluster, all driven from one seed.

pub mod clock;
pub mod disk;
pub mod net;
pub mod oracle;
pub mod queue;
pub mod rng;
pub mod trace;
