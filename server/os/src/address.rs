//! Floating IP addresses: probed before they are taken, held with a lifetime the kernel enforces, announced by ARP.

use crate::link::{Lifetime, Link, LocalAddress, Mac, Network, contains};
use crate::packet::{Act, Arp, ArpSocket};
use crate::{Doing, Failure};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Probes sent before an address is taken (RFC 5227 PROBE_NUM).
const PROBES: u32 = 3;
/// Between probes; three of them stay within 200 ms, so that not even the fastest detection (300 ms) waits for them where
/// they begin on suspicion; an answer on a LAN takes far less (RFC 5227 allows seconds).
const PROBE_GAP: Duration = Duration::from_millis(60);

/// Why an address could not be probed, taken or announced.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// No interface has a network that contains the address.
    #[error(
        "{0} lies in no network of this server: give one of its interfaces an address in the same network"
    )]
    NoNetwork(IpAddr),
    /// The interface of that network has no cable.
    #[error("{address} cannot be used: interface {interface} has no cable")]
    NoCable {
        /// The address asked for.
        address: IpAddr,
        /// The interface of its network.
        interface: String,
    },
    /// Another machine answers for the address.
    #[error("{address} is in use by the machine with the hardware address {}", hex(*.mac))]
    InUse {
        /// The address asked for.
        address: IpAddr,
        /// Who answered.
        mac: Mac,
    },
    /// This form of address is not supported.
    #[error("{0}: floating IP addresses are IPv4")]
    NotSupported(IpAddr),
    /// The kernel refused.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// A hardware address as people write it.
#[must_use]
pub fn hex(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Takes, refreshes, drops and announces addresses of this host. All calls block, for at most about two seconds.
pub trait Addresses: Send + Sync {
    /// Asks the network whether anybody holds the address; takes at most 200 ms (RFC 5227, simultaneous probes ignored:
    /// the register decides between the twins, not the probe).
    ///
    /// # Errors
    /// `InUse` with the answering machine; `NoNetwork`, `NoCable`.
    fn probe(&self, address: IpAddr) -> Result<(), AddressError>;

    /// Adds the address as a host prefix to the interface of its network, or renews its lifetime.
    ///
    /// # Errors
    /// `NoNetwork`, or the kernel refused.
    fn put(&self, address: IpAddr, lifetime: Lifetime) -> Result<(), AddressError>;

    /// Removes the address wherever it is held as a host prefix; `false` if it was nowhere.
    ///
    /// # Errors
    /// The kernel refused.
    fn remove(&self, address: IpAddr) -> Result<bool, AddressError>;

    /// The floating (host prefix) addresses this host holds.
    ///
    /// # Errors
    /// The kernel did not answer.
    fn held(&self) -> Result<Vec<IpAddr>, AddressError>;

    /// Tells the network once, by request and by reply form, that the address is here; repeating is the caller's.
    ///
    /// # Errors
    /// `NoNetwork`, `NoCable`, or the kernel refused.
    fn announce(&self, address: IpAddr) -> Result<(), AddressError>;
}

/// The addresses of the network namespace of the thread that calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostAddresses;

fn host_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn is_floating(local: &LocalAddress) -> bool {
    local.prefix == host_prefix(local.address) && !local.address.is_loopback()
}

fn v4(address: IpAddr) -> Result<Ipv4Addr, AddressError> {
    match address {
        IpAddr::V4(v4) => Ok(v4),
        IpAddr::V6(_) => Err(AddressError::NotSupported(address)),
    }
}

/// The interface whose network contains the address: the longest prefix wins, as in routing.
fn place(network: &mut Network, address: IpAddr) -> Result<Link, AddressError> {
    let held = network.addresses()?;
    let home = held
        .iter()
        .filter(|local| !is_floating(local) && contains(local.address, local.prefix, address))
        .max_by_key(|local| local.prefix)
        .ok_or(AddressError::NoNetwork(address))?;
    let links = network.links()?;
    links.into_iter().find(|link| link.index == home.index).ok_or(AddressError::NoNetwork(address))
}

/// The interface and its hardware address, if a frame can be sent there.
fn wired(address: IpAddr) -> Result<(Link, Mac), AddressError> {
    let link = place(&mut Network::open()?, address)?;
    match link.mac {
        Some(mac) if link.carrier => Ok((link, mac)),
        _ => Err(AddressError::NoCable { address, interface: link.name }),
    }
}

impl Addresses for HostAddresses {
    fn probe(&self, address: IpAddr) -> Result<(), AddressError> {
        let wanted = v4(address)?;
        let (link, mac) = wired(address)?;
        let doing = || format!("probe {address} on {}", link.name);
        let socket = ArpSocket::open(link.index).doing(doing)?;
        for _ in 0..PROBES {
            let until = Instant::now() + PROBE_GAP;
            socket.send(&Arp::probe(mac, wanted)).doing(doing)?;
            while let Some(frame) = socket.receive(until).doing(doing)? {
                if frame.sender == wanted && frame.sender_mac != mac {
                    return Err(AddressError::InUse { address, mac: frame.sender_mac });
                }
            }
        }
        socket.close();
        Ok(())
    }

    fn put(&self, address: IpAddr, lifetime: Lifetime) -> Result<(), AddressError> {
        v4(address)?;
        let mut network = Network::open()?;
        let link = place(&mut network, address)?;
        Ok(network.put_address(link.index, address, host_prefix(address), lifetime)?)
    }

    fn remove(&self, address: IpAddr) -> Result<bool, AddressError> {
        let mut network = Network::open()?;
        let mut removed = false;
        for local in
            network.addresses()?.iter().filter(|local| local.address == address && is_floating(local))
        {
            removed |= network.delete_address(local.index, address, local.prefix)?;
        }
        Ok(removed)
    }

    fn held(&self) -> Result<Vec<IpAddr>, AddressError> {
        let held = Network::open()?.addresses()?;
        Ok(held.iter().filter(|local| is_floating(local)).map(|local| local.address).collect())
    }

    fn announce(&self, address: IpAddr) -> Result<(), AddressError> {
        let wanted = v4(address)?;
        let (link, mac) = wired(address)?;
        let doing = || format!("announce {address} on {}", link.name);
        let socket = ArpSocket::open(link.index).doing(doing)?;
        for act in [Act::Request, Act::Reply] {
            socket.send(&Arp::announcement(act, mac, wanted)).doing(doing)?;
        }
        socket.close();
        Ok(())
    }
}

/// A network in memory: who holds what, and what was announced.
#[derive(Debug, Default)]
pub struct FakeAddresses(Mutex<FakeNetwork>);

#[derive(Debug, Default)]
struct FakeNetwork {
    held: BTreeMap<IpAddr, Lifetime>,
    strangers: BTreeMap<IpAddr, Mac>,
    announced: BTreeMap<IpAddr, u32>,
    probed: BTreeMap<IpAddr, u32>,
}

impl FakeAddresses {
    fn with<T>(&self, act: impl FnOnce(&mut FakeNetwork) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Another machine answers for this address from here on.
    pub fn add_stranger(&self, address: IpAddr, mac: Mac) {
        self.with(|net| net.strangers.insert(address, mac));
    }

    /// How often the address was announced.
    pub fn announcements(&self, address: IpAddr) -> u32 {
        self.with(|net| net.announced.get(&address).copied().unwrap_or(0))
    }

    /// How often the address was probed.
    pub fn probes(&self, address: IpAddr) -> u32 {
        self.with(|net| net.probed.get(&address).copied().unwrap_or(0))
    }

    /// With what lifetime the address is held.
    pub fn lifetime(&self, address: IpAddr) -> Option<Lifetime> {
        self.with(|net| net.held.get(&address).copied())
    }
}

impl Addresses for FakeAddresses {
    fn probe(&self, address: IpAddr) -> Result<(), AddressError> {
        self.with(|net| {
            *net.probed.entry(address).or_default() += 1;
            net.strangers.get(&address).map_or(Ok(()), |mac| Err(AddressError::InUse { address, mac: *mac }))
        })
    }

    fn put(&self, address: IpAddr, lifetime: Lifetime) -> Result<(), AddressError> {
        self.with(|net| net.held.insert(address, lifetime));
        Ok(())
    }

    fn remove(&self, address: IpAddr) -> Result<bool, AddressError> {
        Ok(self.with(|net| net.held.remove(&address).is_some()))
    }

    fn held(&self) -> Result<Vec<IpAddr>, AddressError> {
        Ok(self.with(|net| net.held.keys().copied().collect()))
    }

    fn announce(&self, address: IpAddr) -> Result<(), AddressError> {
        self.with(|net| *net.announced.entry(address).or_default() += 1);
        Ok(())
    }
}
