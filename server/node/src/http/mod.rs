//! The one door of a node: page, API and feed for people, and the peers' own routes.

pub mod api;
pub mod assets;
pub mod auth;
pub mod error;
pub mod listen;
pub mod router;
pub mod ws;

#[cfg(test)]
pub mod tests;
