//! Which network interfaces have a cable, and which addresses lie on them (for "No cable" on the page).

use crate::Failure;
use crate::link::{Link, Network};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

/// One interface as the page shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// The interface's name, for people only.
    pub name: String,
    /// Switched on by the administrator.
    pub up: bool,
    /// A cable with a living other end; `false` is shown as "No cable".
    pub carrier: bool,
    /// The addresses on it.
    pub addresses: Vec<IpAddr>,
}

/// Reads the state of this host's interfaces.
pub trait LinkStates: Send + Sync {
    /// All interfaces but the loopback.
    ///
    /// # Errors
    /// The kernel did not answer.
    fn read(&self) -> Result<Vec<LinkState>, Failure>;
}

/// The kernel's own interfaces, of the network namespace of the thread that asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostLinks;

impl LinkStates for HostLinks {
    fn read(&self) -> Result<Vec<LinkState>, Failure> {
        let mut network = Network::open()?;
        let links = network.links()?;
        let addresses = network.addresses()?;
        let on =
            |link: &Link| addresses.iter().filter(|a| a.index == link.index).map(|a| a.address).collect();
        let shown = links.into_iter().filter(|link| link.name != "lo");
        Ok(shown
            .map(|l| LinkState { addresses: on(&l), name: l.name, up: l.up, carrier: l.carrier })
            .collect())
    }
}

/// Interfaces that a test sets.
#[derive(Debug, Default)]
pub struct FakeLinks(Mutex<BTreeMap<String, LinkState>>);

impl FakeLinks {
    /// Puts an interface into this state.
    pub fn set(&self, state: LinkState) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(state.name.clone(), state);
    }
}

impl LinkStates for FakeLinks {
    fn read(&self) -> Result<Vec<LinkState>, Failure> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect())
    }
}
