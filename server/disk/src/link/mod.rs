//! The block link: the lower side dials, the other listens; both prove the cluster key; then frames, over
//! one connection for each of up to two interconnects.

pub(crate) mod bundle;
pub(crate) mod connect;
pub(crate) mod handshake;
pub(crate) mod stream;
pub(crate) mod tls;
