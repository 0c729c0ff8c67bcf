//! The demo's switches and cables: bridges in a network namespace that the launcher holds, one veth for each plug.

use super::plan::{Cable, Host, Network, PREFIX};
use anyhow::Context as _;
use os::link::Lifetime;
use os::netns::NetNamespace;
use std::collections::BTreeSet;
use std::os::fd::AsFd as _;

/// The networks of the demo. They vanish with the launcher, however that ends.
pub struct Lan {
    space: NetNamespace,
    /// Hosts that are plugged in.
    plugged: BTreeSet<Host>,
    /// Cables that are pulled.
    pulled: BTreeSet<Cable>,
}

fn port_name(host: Host, network: Network) -> String {
    format!("{host}-{}", network.name())
}

impl Lan {
    /// Sets up the switches.
    ///
    /// # Errors
    /// Not root, or the kernel has no bridges.
    pub fn create() -> anyhow::Result<Lan> {
        let space = NetNamespace::create()?;
        space.run(|net| Network::ALL.iter().try_for_each(|network| net.create_bridge(network.name())))??;
        Ok(Lan { space, plugged: BTreeSet::new(), pulled: BTreeSet::new() })
    }

    /// Plugs a host in and gives its interfaces their addresses.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn plug(&mut self, host: Host, there: &NetNamespace) -> anyhow::Result<()> {
        self.space.run(|net| {
            host.networks().iter().try_for_each(|network| {
                let port = port_name(host, *network);
                net.create_veth(&port, network.name(), Some(network.mac(host)), Some(there.as_fd()))?;
                net.set_master(&port, network.name())
            })
        })??;
        there
            .run(|net| {
                net.set_up("lo", true)?;
                host.networks().iter().try_for_each(|network| {
                    net.set_up(network.name(), true)?;
                    let index = net.link(network.name())?.index;
                    net.put_address(index, network.address(host), PREFIX, Lifetime::Forever)
                })
            })?
            .with_context(|| format!("configure the network of {host}"))?;
        self.plugged.insert(host);
        self.apply()
    }

    /// The host's end is dead: its cables show no carrier at their other ends.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn power_off(&mut self, host: Host) -> anyhow::Result<()> {
        self.plugged.remove(&host);
        self.apply()
    }

    /// Takes the cables of a host away for good, with the interfaces at their other end.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn unplug(&mut self, host: Host) -> anyhow::Result<()> {
        self.power_off(host)?;
        let names: Vec<String> = host.networks().iter().map(|network| port_name(host, *network)).collect();
        self.space.run(|net| names.iter().try_for_each(|name| net.delete_link(name).map(drop)))??;
        Ok(())
    }

    /// Pulls cables, or plugs them in again.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn pull(&mut self, cables: &[Cable], out: bool) -> anyhow::Result<()> {
        for cable in cables {
            if out {
                self.pulled.insert(*cable);
            } else {
                self.pulled.remove(cable);
            }
        }
        self.apply()
    }

    /// Brings every port into the state its cable and the hosts at its ends ask for.
    fn apply(&self) -> anyhow::Result<()> {
        let wanted: Vec<(String, bool)> = Cable::all()
            .into_iter()
            .flat_map(|cable| {
                let ports = cable.ports();
                let whole = !self.pulled.contains(&cable)
                    && ports.iter().all(|(host, _)| self.plugged.contains(host));
                ports.into_iter().map(move |(host, network)| (port_name(host, network), whole))
            })
            .collect();
        self.space.run(|net| {
            let links = net.links()?;
            let differs = |name: &str, up: bool| links.iter().any(|link| link.name == name && link.up != up);
            wanted
                .iter()
                .filter(|(name, up)| differs(name, *up))
                .try_for_each(|(name, up)| net.set_up(name, *up))
        })??;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carriers(space: &NetNamespace) -> Vec<(String, bool)> {
        let links = space.run(|net| net.links()).unwrap().unwrap();
        let mut found: Vec<_> = links
            .into_iter()
            .filter(|link| link.name != "lo")
            .map(|link| (link.name, link.carrier))
            .collect();
        found.sort();
        found
    }

    fn wait_for(space: &NetNamespace, wanted: [bool; 3]) {
        let wanted: Vec<_> = ["ic1", "ic2", "public"].map(str::to_owned).into_iter().zip(wanted).collect();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while carriers(space) != wanted {
            assert!(std::time::Instant::now() < until, "{:?} is not {wanted:?}", carriers(space));
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    #[test]
    fn a_pulled_cable_and_a_dead_twin_are_seen_as_no_cable() {
        let (one, two) = (NetNamespace::create().unwrap(), NetNamespace::create().unwrap());
        let mut lan = Lan::create().unwrap();
        lan.plug(Host::Server1, &one).unwrap();
        wait_for(&one, [false, false, true]);
        lan.plug(Host::Server2, &two).unwrap();
        wait_for(&one, [true, true, true]);
        lan.pull(&[Cable::Ic1, Cable::Public(Host::Server2)], true).unwrap();
        wait_for(&one, [false, true, true]);
        wait_for(&two, [false, true, false]);
        lan.power_off(Host::Server2).unwrap();
        wait_for(&one, [false, false, true]);
        lan.unplug(Host::Server2).unwrap();
        assert_eq!(carriers(&two), [], "the cards went with their cables");
        lan.plug(Host::Server2, &two).unwrap();
        wait_for(&two, [false, true, false]);
        lan.pull(&[Cable::Ic1, Cable::Public(Host::Server2)], false).unwrap();
        wait_for(&two, [true, true, true]);
        let listener = one.listen((Network::Ic1.address(Host::Server1), 7000).into()).unwrap();
        two.connect(listener.local_addr().unwrap(), std::time::Duration::from_secs(10)).unwrap();
    }
}
