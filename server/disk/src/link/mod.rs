//! The block link: the lower side dials, the other listens; both prove the cluster key; then frames.

pub(crate) mod connect;
pub(crate) mod handshake;
pub(crate) mod stream;
