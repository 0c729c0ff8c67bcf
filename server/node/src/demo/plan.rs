//! The demo's small world on paper: its hosts, networks and cables, and every name and address in it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// Length of every network's prefix, in bits.
pub const PREFIX: u8 = 24;
/// The floating IP of the demo's group.
pub const FLOATING: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 100));
/// The one of its second group, where that is asked for.
pub const FLOATING_ALONE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 101));
/// Where the demo's application listens on it.
pub const APP_PORT: u16 = 8080;
/// Where servers and witness listen, inside their hosts.
pub const PORT: u16 = 8443;
/// The mirror set's block link.
pub const BLOCK_PORT: u16 = 7801;

/// One host: a pid, mount, network, host name and time namespace of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// The left server.
    Server1,
    /// The right server.
    Server2,
    /// The third vote.
    Witness,
    /// Whoever uses the application.
    Client,
}

impl Host {
    /// In the order of starting.
    pub const ALL: [Host; 4] = [Host::Witness, Host::Client, Host::Server1, Host::Server2];
    /// The two servers.
    pub const SERVERS: [Host; 2] = [Host::Server1, Host::Server2];

    /// Its host name, which is also its folder's.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Host::Server1 => "server1",
            Host::Server2 => "server2",
            Host::Witness => "witness",
            Host::Client => "client",
        }
    }

    /// By name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Host> {
        Host::ALL.into_iter().find(|host| host.name().eq_ignore_ascii_case(name))
    }

    fn number(self) -> u8 {
        match self {
            Host::Server1 => 1,
            Host::Server2 => 2,
            Host::Witness => 3,
            Host::Client => 10,
        }
    }

    /// The networks it is plugged into.
    #[must_use]
    pub fn networks(self) -> &'static [Network] {
        match self {
            Host::Server1 | Host::Server2 => &Network::ALL,
            Host::Witness | Host::Client => &[Network::Public],
        }
    }

    /// How far its clocks run ahead of the machine's, in seconds: hosts share no boot time in life either.
    #[must_use]
    pub fn clock_offset(self) -> i64 {
        match self {
            Host::Server1 => 86_400,
            Host::Server2 => 7_200,
            Host::Witness => 1_000,
            Host::Client => 0,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One network: a switch in the launcher's own network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Network {
    /// Servers, witness and client.
    Public,
    /// The first cable between the servers.
    Ic1,
    /// The second.
    Ic2,
}

impl Network {
    /// All of them.
    pub const ALL: [Network; 3] = [Network::Public, Network::Ic1, Network::Ic2];

    /// The interface's name in each host and the switch's in the middle.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Network::Public => "public",
            Network::Ic1 => "ic1",
            Network::Ic2 => "ic2",
        }
    }

    /// The name in the cluster's configuration.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Network::Public => "Public LAN",
            Network::Ic1 => "Interconnect 1",
            Network::Ic2 => "Interconnect 2",
        }
    }

    fn number(self) -> u8 {
        match self {
            Network::Public => 0,
            Network::Ic1 => 1,
            Network::Ic2 => 2,
        }
    }

    /// A host's address in it.
    #[must_use]
    pub fn address(self, host: Host) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 77, self.number(), host.number()))
    }

    /// A host's network card in it: the same after each start of the host, as a real one.
    #[must_use]
    pub fn mac(self, host: Host) -> os::link::Mac {
        [0x02, 0xf7, 0, 0, self.number(), host.number()]
    }
}

/// One end of a cable in a switch: the host and network it leads to.
pub type Port = (Host, Network);

/// What can be pulled and plugged in again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cable {
    /// From a host to the public LAN.
    Public(Host),
    /// The first interconnect.
    Ic1,
    /// The second.
    Ic2,
}

impl Cable {
    /// The cables of this name; the public LAN as a whole means both servers'.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Vec<Cable>> {
        let cables = match name.to_ascii_lowercase().as_str() {
            "ic1" | "interconnect 1" => vec![Cable::Ic1],
            "ic2" | "interconnect 2" => vec![Cable::Ic2],
            "public-1" => vec![Cable::Public(Host::Server1)],
            "public-2" => vec![Cable::Public(Host::Server2)],
            "public" | "public lan" => Host::SERVERS.map(Cable::Public).to_vec(),
            "witness" => vec![Cable::Public(Host::Witness)],
            "client" => vec![Cable::Public(Host::Client)],
            _ => return None,
        };
        Some(cables)
    }

    /// Its ends in the switches. An interconnect has two: pulled, or its far host dead, both servers see "no cable".
    #[must_use]
    pub fn ports(self) -> Vec<Port> {
        match self {
            Cable::Public(host) => vec![(host, Network::Public)],
            Cable::Ic1 => Host::SERVERS.map(|host| (host, Network::Ic1)).to_vec(),
            Cable::Ic2 => Host::SERVERS.map(|host| (host, Network::Ic2)).to_vec(),
        }
    }

    /// Every cable.
    #[must_use]
    pub fn all() -> Vec<Cable> {
        Host::ALL.map(Cable::Public).into_iter().chain([Cable::Ic1, Cable::Ic2]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_belongs_to_one_cable_and_every_address_to_one_host() {
        let mut ports: Vec<Port> = Cable::all().into_iter().flat_map(Cable::ports).collect();
        let mut wanted: Vec<Port> = Host::ALL
            .iter()
            .flat_map(|host| host.networks().iter().map(|network| (*host, *network)))
            .collect();
        ports.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(ports, wanted);
        let mut addresses: Vec<IpAddr> = ports.iter().map(|(host, network)| network.address(*host)).collect();
        addresses.extend([FLOATING, FLOATING_ALONE]);
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), ports.len() + 2);
    }

    #[test]
    fn cables_are_found_by_the_names_of_the_command_line_and_of_the_page() {
        assert_eq!(Cable::by_name("ic1"), Cable::by_name(Network::Ic1.title()));
        assert_eq!(Cable::by_name("Public LAN").map(|cables| cables.len()), Some(2));
        assert_eq!(Cable::by_name("server1"), None);
        assert_eq!(Host::by_name("SERVER2"), Some(Host::Server2));
    }
}
