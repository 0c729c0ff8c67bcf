//! Runs the built program on real hosts: the test layers, the evidence programs and what both share.

pub mod browser;
pub mod command;
pub mod crash;
pub mod cut;
pub mod fio;
pub mod images;
pub mod lab;
pub mod layers;
pub mod leftovers;
pub mod packages;
pub mod page;
pub mod paths;
pub mod peers;
pub mod probe;
pub mod quorum;
pub mod report;
pub mod rig;
pub mod scenes;
pub mod shows;
pub mod writer;
