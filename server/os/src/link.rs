//! The network of one namespace, by rtnetlink: interfaces, addresses, neighbours, and the changes a test network needs.

use crate::netlink::{Message, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Netlink, attributes, u32_at};
use crate::{Doing, Failure};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETNEIGH: u16 = 30;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_CARRIER: u16 = 33;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const IFF_UP: u32 = 1;
const FOREVER: u32 = u32::MAX;
/// struct ifinfomsg, ifaddrmsg, ndmsg, rtmsg.
const IFINFO: usize = 16;
const IFADDR: usize = 8;
const NDMSG: usize = 12;

/// A hardware address.
pub type Mac = [u8; 6];

/// One network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it.
    pub index: u32,
    /// Its name, for people only: networks are identified by address.
    pub name: String,
    /// Its hardware address, if it has one of six bytes.
    pub mac: Option<Mac>,
    /// Switched on by the administrator.
    pub up: bool,
    /// A cable with a living other end.
    pub carrier: bool,
}

/// One address of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// The interface that holds it.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
    /// Length of the network's prefix in bits.
    pub prefix: u8,
    /// Whole seconds until the kernel drops it; `None`: kept for ever.
    pub seconds_left: Option<u32>,
}

/// How long an address stays without being refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Until it is removed.
    Forever,
    /// The kernel drops it by itself after so many whole seconds (at least 1).
    Seconds(u32),
}

/// A view of one network namespace: that of the thread which opened it.
pub struct Network(Netlink);

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    u8::try_from(family).unwrap_or(0)
}

fn parse_address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::V4(Ipv4Addr::from(v4)));
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| IpAddr::V6(Ipv6Addr::from(v6)))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned()
}

fn ifinfo(index: u32, flags: u32, change: u32) -> [u8; IFINFO] {
    let mut body = [0; IFINFO];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body[12..16].copy_from_slice(&change.to_ne_bytes());
    body
}

fn ifaddr(address: IpAddr, prefix: u8, index: u32) -> [u8; IFADDR] {
    let mut body = [0; IFADDR];
    body[0] = family(address);
    body[1] = prefix;
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body
}

fn parse_link(body: &[u8]) -> Link {
    let flags = u32_at(body, 8);
    let mut link = Link {
        index: u32_at(body, 4),
        name: String::new(),
        mac: None,
        up: flags & IFF_UP != 0,
        carrier: false,
    };
    for (kind, value) in attributes(body, IFINFO) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_ADDRESS => link.mac = Mac::try_from(value).ok(),
            IFLA_CARRIER => link.carrier = value.first() == Some(&1) && link.up,
            _ => {}
        }
    }
    link
}

fn parse_local(body: &[u8]) -> Option<LocalAddress> {
    let mut address = None;
    let mut seconds_left = None;
    for (kind, value) in attributes(body, IFADDR) {
        match kind {
            IFA_LOCAL => address = parse_address(value),
            IFA_ADDRESS if address.is_none() => address = parse_address(value),
            IFA_CACHEINFO => seconds_left = Some(u32_at(value, 4)).filter(|left| *left != FOREVER),
            _ => {}
        }
    }
    let prefix = body.get(1).copied().unwrap_or(0);
    address.map(|address| LocalAddress { index: u32_at(body, 4), address, prefix, seconds_left })
}

impl Network {
    /// Opens the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel refused a netlink socket.
    pub fn open() -> Result<Self, Failure> {
        Netlink::open().map(Network).doing(|| "open a netlink socket".into())
    }

    /// All interfaces.
    ///
    /// # Errors
    /// The kernel did not answer.
    pub fn links(&mut self) -> Result<Vec<Link>, Failure> {
        let answers = self.0.dump(RTM_GETLINK, &ifinfo(0, 0, 0)).doing(|| "list interfaces".into())?;
        Ok(answers.iter().filter(|a| a.kind == RTM_NEWLINK).map(|a| parse_link(&a.body)).collect())
    }

    /// The interface of this name.
    ///
    /// # Errors
    /// No such interface, or the kernel did not answer.
    pub fn link(&mut self, name: &str) -> Result<Link, Failure> {
        let found = self.links()?.into_iter().find(|link| link.name == name);
        found.ok_or(std::io::Error::from(std::io::ErrorKind::NotFound)).doing(|| format!("interface {name}"))
    }

    /// All addresses of both families.
    ///
    /// # Errors
    /// The kernel did not answer.
    pub fn addresses(&mut self) -> Result<Vec<LocalAddress>, Failure> {
        let answers = self.0.dump(RTM_GETADDR, &[0; IFADDR]).doing(|| "list addresses".into())?;
        Ok(answers.iter().filter(|a| a.kind == RTM_NEWADDR).filter_map(|a| parse_local(&a.body)).collect())
    }

    /// Known neighbours, as (address, hardware address).
    ///
    /// # Errors
    /// The kernel did not answer.
    pub fn neighbours(&mut self) -> Result<Vec<(IpAddr, Mac)>, Failure> {
        let answers = self.0.dump(RTM_GETNEIGH, &[0; NDMSG]).doing(|| "list neighbours".into())?;
        let neighbour = |body: &[u8]| {
            let mut address = None;
            let mut mac = None;
            for (kind, value) in attributes(body, NDMSG) {
                match kind {
                    NDA_DST => address = parse_address(value),
                    NDA_LLADDR => mac = Mac::try_from(value).ok(),
                    _ => {}
                }
            }
            address.zip(mac)
        };
        Ok(answers.iter().filter_map(|a| neighbour(&a.body)).collect())
    }

    /// Adds an address, or renews its lifetime when it is there.
    ///
    /// # Errors
    /// The kernel refused it.
    pub fn put_address(
        &mut self,
        index: u32,
        address: IpAddr,
        prefix: u8,
        lifetime: Lifetime,
    ) -> Result<(), Failure> {
        let seconds = match lifetime {
            Lifetime::Forever => FOREVER,
            Lifetime::Seconds(seconds) => seconds.max(1),
        };
        // A floating address (host prefix) must bring no route of its own: the network's static address has it.
        let host = octets(address).len() * 8 == usize::from(prefix);
        let flags =
            if host { IFA_F_NOPREFIXROUTE } else { 0 } | if address.is_ipv6() { IFA_F_NODAD } else { 0 };
        let mut cache = [0u8; 16];
        cache[0..4].copy_from_slice(&seconds.to_ne_bytes());
        cache[4..8].copy_from_slice(&seconds.to_ne_bytes());
        let message =
            Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &ifaddr(address, prefix, index))
                .attribute(IFA_LOCAL, &octets(address))
                .attribute(IFA_ADDRESS, &octets(address))
                .attribute(IFA_CACHEINFO, &cache)
                .attribute(IFA_FLAGS, &flags.to_ne_bytes());
        self.0.change(message).doing(|| format!("add {address}/{prefix} to interface {index}"))
    }

    /// Removes an address; `false` if it was not there.
    ///
    /// # Errors
    /// The kernel refused it.
    pub fn delete_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> Result<bool, Failure> {
        let message = Message::new(RTM_DELADDR, 0, &ifaddr(address, prefix, index))
            .attribute(IFA_LOCAL, &octets(address))
            .attribute(IFA_ADDRESS, &octets(address));
        match self.0.change(message) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => {
                Ok(false)
            }
            Err(error) => Err(error).doing(|| format!("remove {address} from interface {index}")),
        }
    }

    /// Switches an interface on or off.
    ///
    /// # Errors
    /// No such interface, or the kernel refused.
    pub fn set_up(&mut self, name: &str, up: bool) -> Result<(), Failure> {
        let index = self.link(name)?.index;
        let message = Message::new(RTM_NEWLINK, 0, &ifinfo(index, if up { IFF_UP } else { 0 }, IFF_UP));
        self.0.change(message).doing(|| format!("switch {name} {}", if up { "on" } else { "off" }))
    }

    /// Creates a bridge, switched on, without spanning tree (the kernel's default), so ports forward at once.
    ///
    /// # Errors
    /// The name is taken, or the kernel refused.
    pub fn create_bridge(&mut self, name: &str) -> Result<(), Failure> {
        let message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &ifinfo(0, IFF_UP, IFF_UP))
            .text(IFLA_IFNAME, name)
            .nested(IFLA_LINKINFO, |m| m.text(IFLA_INFO_KIND, "bridge"));
        self.0.change(message).doing(|| format!("create bridge {name}"))
    }

    /// Makes an interface a port of a bridge.
    ///
    /// # Errors
    /// One of them is missing, or the kernel refused.
    pub fn set_master(&mut self, name: &str, bridge: &str) -> Result<(), Failure> {
        let (index, master) = (self.link(name)?.index, self.link(bridge)?.index);
        let message =
            Message::new(RTM_NEWLINK, 0, &ifinfo(index, 0, 0)).attribute(IFLA_MASTER, &master.to_ne_bytes());
        self.0.change(message).doing(|| format!("plug {name} into {bridge}"))
    }

    /// Creates a veth pair: `name` here, `peer` with its hardware address in the namespace `there` (a /proc/PID/ns/net).
    ///
    /// # Errors
    /// A name is taken, or the kernel refused.
    pub fn create_veth(
        &mut self,
        name: &str,
        peer: &str,
        peer_mac: Option<Mac>,
        there: Option<BorrowedFd<'_>>,
    ) -> Result<(), Failure> {
        let message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &ifinfo(0, 0, 0))
            .text(IFLA_IFNAME, name)
            .nested(IFLA_LINKINFO, |m| {
                m.text(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, |m| {
                    m.nested(VETH_INFO_PEER, |m| {
                        let mut m = m.raw(&ifinfo(0, 0, 0)).text(IFLA_IFNAME, peer);
                        if let Some(mac) = peer_mac {
                            m = m.attribute(IFLA_ADDRESS, &mac);
                        }
                        match there {
                            Some(fd) => m.attribute(IFLA_NET_NS_FD, &fd.as_raw_fd().to_ne_bytes()),
                            None => m,
                        }
                    })
                })
            });
        self.0.change(message).doing(|| format!("create the cable {name} - {peer}"))
    }

    /// Deletes an interface (both ends of a veth); `false` if it was not there.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn delete_link(&mut self, name: &str) -> Result<bool, Failure> {
        let Some(link) = self.links()?.into_iter().find(|link| link.name == name) else { return Ok(false) };
        self.0
            .change(Message::new(RTM_DELLINK, 0, &ifinfo(link.index, 0, 0)))
            .doing(|| format!("delete interface {name}"))?;
        Ok(true)
    }

    /// Adds the default route through `gateway`.
    ///
    /// # Errors
    /// The gateway cannot be reached from `interface`, or the kernel refused.
    pub fn add_default_route(&mut self, interface: &str, gateway: IpAddr) -> Result<(), Failure> {
        let index = self.link(interface)?.index;
        // struct rtmsg: family, dst_len, src_len, tos, table main, protocol static, scope universe, type unicast, flags
        let body = [family(gateway), 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0];
        let message = Message::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &body)
            .attribute(RTA_GATEWAY, &octets(gateway))
            .attribute(RTA_OIF, &index.to_ne_bytes());
        self.0.change(message).doing(|| format!("route through {gateway}"))
    }
}

/// Whether `network`/`prefix` contains `address`.
pub(crate) fn contains(network: IpAddr, prefix: u8, address: IpAddr) -> bool {
    let (network, address) = (octets(network), octets(address));
    if network.len() != address.len() {
        return false;
    }
    let bits = |bytes: &[u8]| bytes.iter().fold(0u128, |sum, byte| (sum << 8) | u128::from(*byte));
    let free = network.len() * 8 - usize::from(prefix).min(network.len() * 8);
    let kept = |value: u128| u32::try_from(free).ok().and_then(|free| value.checked_shr(free)).unwrap_or(0);
    kept(bits(&network)) == kept(bits(&address))
}

#[cfg(test)]
mod tests {
    use super::contains;

    #[test]
    fn a_network_contains_its_addresses_only() {
        let yes = |n: &str, p, a: &str| contains(n.parse().unwrap(), p, a.parse().unwrap());
        assert!(yes("10.1.2.3", 24, "10.1.2.200"));
        assert!(!yes("10.1.2.3", 24, "10.1.3.3"));
        assert!(yes("10.1.2.3", 0, "192.0.2.1"));
        assert!(!yes("10.1.2.3", 32, "10.1.2.4"));
        assert!(yes("fd00::1", 64, "fd00::2"));
        assert!(!yes("10.1.2.3", 24, "fd00::2"));
    }
}
