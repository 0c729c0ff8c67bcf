//! One file per screen.

pub mod login;
pub mod no_cluster;
pub mod overview;
