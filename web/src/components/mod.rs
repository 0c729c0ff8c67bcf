//! The parts of the page, one per file.

pub mod action;
pub mod actions;
pub mod announce;
pub mod ask;
pub mod bar;
pub mod demo;
pub mod event;
pub mod group;
pub mod group_facts;
pub mod incident;
pub mod link;
pub mod mirror;
pub mod mode;
pub mod progress;
pub mod server;
pub mod sign;
pub mod stale;
pub mod steps;
pub mod twin;
pub mod verdict;
pub mod witness;
pub mod work;
