//! Floating addresses on the real kernel, in network namespaces joined by a cable.
#![allow(clippy::unwrap_used)] // helpers of tests, where the lint's own exception does not reach

mod support;

use os::address::{AddressError, Addresses as _, HostAddresses};
use os::link::{Lifetime, Mac};
use os::linkstate::{HostLinks, LinkStates as _};
use os::netns::NetNamespace;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd as _;
use std::time::Duration;
use support::wait_for;

const FLOATING: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 100));
const STRANGER_MAC: Mac = [2, 0, 0, 0, 0, 2];
const OWN_MAC: Mac = [2, 0, 0, 0, 0, 1];

/// Namespaces 10.9.0.1, .2 ... joined by cables named `public` and a switch.
struct Lan {
    hosts: Vec<NetNamespace>,
    _switch: NetNamespace,
}

fn lan(macs: &[Mac]) -> Lan {
    let switch = NetNamespace::create().unwrap();
    switch.run(|net| net.create_bridge("switch")).unwrap().unwrap();
    let join = |(last, mac): (u8, &Mac)| {
        let host = NetNamespace::create().unwrap();
        let port = format!("port{last}");
        switch
            .run(|net| {
                net.create_veth(&port, "public", Some(*mac), Some(host.as_fd())).unwrap();
                net.set_master(&port, "switch").unwrap();
                net.set_up(&port, true).unwrap();
            })
            .unwrap();
        host.run(|net| {
            net.set_up("public", true).unwrap();
            let index = net.link("public").unwrap().index;
            net.put_address(index, IpAddr::V4(Ipv4Addr::new(10, 9, 0, last)), 24, Lifetime::Forever).unwrap();
        })
        .unwrap();
        wait_for("a carrier", || host.run(|net| net.link("public").unwrap().carrier).unwrap());
        host
    };
    Lan { hosts: (1..).zip(macs).map(join).collect(), _switch: switch }
}

#[test]
fn an_address_with_a_lifetime_is_renewed_and_vanishes_by_itself() {
    let lan = lan(&[OWN_MAC]);
    let one = &lan.hosts[0];
    one.run(|net| {
        HostAddresses.put(FLOATING, Lifetime::Seconds(60)).unwrap();
        HostAddresses.put(FLOATING, Lifetime::Seconds(2)).unwrap();
        let left = net.addresses().unwrap().iter().find(|a| a.address == FLOATING).unwrap().seconds_left;
        assert!(left.is_some_and(|left| left <= 2), "the second call renews the lifetime: {left:?}");
        assert_eq!(HostAddresses.held().unwrap(), [FLOATING]);
        wait_for("the kernel to drop the address", || HostAddresses.held().unwrap().is_empty());
        assert!(net.addresses().unwrap().iter().any(|a| a.prefix == 24), "the static address stays");
    })
    .unwrap();
}

#[test]
fn removing_is_idempotent_and_spares_static_addresses() {
    let lan = lan(&[OWN_MAC]);
    let one = &lan.hosts[0];
    one.run(|net| {
        HostAddresses.put(FLOATING, Lifetime::Forever).unwrap();
        assert!(HostAddresses.remove(FLOATING).unwrap());
        assert!(!HostAddresses.remove(FLOATING).unwrap());
        let fixed = "10.9.0.1".parse().unwrap();
        assert!(!HostAddresses.remove(fixed).unwrap());
        assert!(net.addresses().unwrap().iter().any(|a| a.address == fixed));
    })
    .unwrap();
}

#[test]
fn the_probe_finds_a_stranger_and_nothing_but_a_stranger() {
    let lan = lan(&[OWN_MAC, STRANGER_MAC]);
    let (one, two) = (&lan.hosts[0], &lan.hosts[1]);
    one.run(|_| HostAddresses.probe(FLOATING)).unwrap().unwrap();
    two.run(|_| HostAddresses.put(FLOATING, Lifetime::Forever)).unwrap().unwrap();
    match one.run(|_| HostAddresses.probe(FLOATING)).unwrap() {
        Err(AddressError::InUse { mac, .. }) => assert_eq!(mac, STRANGER_MAC),
        other => panic!("the probe should have met the stranger: {other:?}"),
    }
    two.run(|_| HostAddresses.remove(FLOATING)).unwrap().unwrap();
    one.run(|_| HostAddresses.put(FLOATING, Lifetime::Forever)).unwrap().unwrap();
    one.run(|_| HostAddresses.probe(FLOATING)).unwrap().unwrap();
}

#[test]
fn an_announcement_moves_the_address_in_the_clients_table() {
    let lan = lan(&[OWN_MAC, STRANGER_MAC, [2, 0, 0, 0, 0, 3]]);
    let (one, two, client) = (&lan.hosts[0], &lan.hosts[1], &lan.hosts[2]);
    let known = || {
        let all = client.run(|net| net.neighbours().unwrap()).unwrap();
        all.iter().find(|(address, _)| *address == FLOATING).map(|(_, mac)| *mac)
    };
    one.run(|_| HostAddresses.put(FLOATING, Lifetime::Forever)).unwrap().unwrap();
    let listener = one.listen((FLOATING, 80).into()).unwrap();
    drop(client.connect((FLOATING, 80).into(), Duration::from_secs(5)).unwrap());
    assert_eq!(known(), Some(OWN_MAC));
    drop(listener);
    // The address moves and the client says nothing: only an announcement can tell it.
    one.run(|_| HostAddresses.remove(FLOATING)).unwrap().unwrap();
    two.run(|_| HostAddresses.put(FLOATING, Lifetime::Forever)).unwrap().unwrap();
    assert_eq!(known(), Some(OWN_MAC));
    two.run(|_| HostAddresses.announce(FLOATING)).unwrap().unwrap();
    wait_for("the client to learn the new place", || known() == Some(STRANGER_MAC));
}

#[test]
fn a_pulled_cable_is_seen_and_named() {
    let lan = lan(&[OWN_MAC]);
    let one = &lan.hosts[0];
    let states = one.run(|_| HostLinks.read()).unwrap().unwrap();
    let public = states.iter().find(|state| state.name == "public").unwrap();
    assert!(public.carrier && public.up && public.addresses.contains(&"10.9.0.1".parse().unwrap()));
    assert!(matches!(
        one.run(|_| HostAddresses.put("192.0.2.1".parse().unwrap(), Lifetime::Forever)).unwrap(),
        Err(AddressError::NoNetwork(_))
    ));
    one.run(|net| net.set_up("public", false)).unwrap().unwrap();
    assert!(matches!(one.run(|_| HostAddresses.probe(FLOATING)).unwrap(), Err(AddressError::NoCable { .. })));
}
