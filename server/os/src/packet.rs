//! ARP over a packet socket: the frames of RFC 5227 and a socket bound to one interface.
#![allow(unsafe_code)] // struct sockaddr_ll has no safe form: one `unsafe impl` hands it to the kernel

use crate::link::Mac;
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with,
};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

const ETHERTYPE_ARP: u16 = 0x0806;
const BROADCAST: Mac = [0xff; 6];
const FRAME: usize = 28;

/// What an ARP frame asks or says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Request = 1,
    Reply = 2,
}

/// One ARP frame for IPv4 over Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arp {
    pub act: Act,
    pub sender_mac: Mac,
    pub sender: Ipv4Addr,
    pub target_mac: Mac,
    pub target: Ipv4Addr,
}

impl Arp {
    /// "Who has `address`?", asked by one that claims no address itself (RFC 5227 section 2.1.1).
    pub fn probe(mac: Mac, address: Ipv4Addr) -> Self {
        let sender = Ipv4Addr::UNSPECIFIED;
        Arp { act: Act::Request, sender_mac: mac, sender, target_mac: [0; 6], target: address }
    }

    /// "`address` is here", as request or as reply: some switches and hosts heed only one of the forms.
    pub fn announcement(act: Act, mac: Mac, address: Ipv4Addr) -> Self {
        let target_mac = if act == Act::Request { [0; 6] } else { BROADCAST };
        Arp { act, sender_mac: mac, sender: address, target_mac, target: address }
    }

    fn encode(&self) -> [u8; FRAME] {
        let mut frame = [0; FRAME];
        frame[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, self.act as u8]); // Ethernet, IPv4, their lengths
        frame[8..14].copy_from_slice(&self.sender_mac);
        frame[14..18].copy_from_slice(&self.sender.octets());
        frame[18..24].copy_from_slice(&self.target_mac);
        frame[24..28].copy_from_slice(&self.target.octets());
        frame
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let frame = bytes.first_chunk::<FRAME>()?;
        let act = match frame.first_chunk::<8>()? {
            [0, 1, 8, 0, 6, 4, 0, 1] => Act::Request,
            [0, 1, 8, 0, 6, 4, 0, 2] => Act::Reply,
            _ => return None,
        };
        let mac = |at: usize| frame.get(at..at + 6).and_then(|bytes| Mac::try_from(bytes).ok());
        let ip = |at: usize| frame.get(at..at + 4)?.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes));
        Some(Arp { act, sender_mac: mac(8)?, sender: ip(14)?, target_mac: mac(18)?, target: ip(24)? })
    }
}

/// Where frames go: one interface, everybody on it.
struct OnInterface(u32);

// SAFETY: `with_sockaddr` passes a pointer to a fully initialised `sockaddr_ll` that lives until `f` returns, with its length.
unsafe impl SocketAddrArg for OnInterface {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        let mut hardware = [0; 8];
        hardware[..6].copy_from_slice(&BROADCAST);
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: ETHERTYPE_ARP.to_be(),
            sll_ifindex: self.0.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: hardware,
        };
        f((&raw const address).cast(), size_of::<libc::sockaddr_ll>() as SocketAddrLen)
    }
}

/// A socket that hears and sends every ARP frame of one interface.
pub(crate) struct ArpSocket {
    socket: OwnedFd,
    index: u32,
}

impl ArpSocket {
    pub fn open(index: u32) -> io::Result<Self> {
        // The protocol comes with the address: one that hears already is stopped first, and the kernel then waits for all its
        // processors, some 10 ms of a failover.
        let socket = socket_with(AddressFamily::PACKET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &OnInterface(index))?;
        Ok(ArpSocket { socket, index })
    }

    /// Closes it in the background: the kernel waits there for all its processors, and what was sent is on its way.
    pub fn close(self) {
        // Without a thread it is closed here, a little later.
        let _ = std::thread::Builder::new().name("close".into()).spawn(move || drop(self));
    }

    pub fn send(&self, frame: &Arp) -> io::Result<()> {
        sendto(&self.socket, &frame.encode(), SendFlags::empty(), &OnInterface(self.index))?;
        Ok(())
    }

    /// The next ARP frame before `until`; frames of other forms are skipped.
    pub fn receive(&self, until: Instant) -> io::Result<Option<Arp>> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left < Duration::from_micros(1) {
                return Ok(None);
            }
            set_socket_timeout(&self.socket, Timeout::Recv, Some(left))?;
            let mut buffer = [0u8; 128];
            match recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((count, _)) => {
                    if let Some(frame) = Arp::decode(buffer.get(..count).unwrap_or(&[])) {
                        return Ok(Some(frame));
                    }
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_wire_and_garbage_does_not_parse() {
        let mac = [2, 0, 0, 0, 0, 7];
        let frame = Arp::announcement(Act::Reply, mac, Ipv4Addr::new(192, 0, 2, 9));
        assert_eq!(Arp::decode(&frame.encode()), Some(frame));
        assert_eq!(Arp::probe(mac, frame.target).sender, Ipv4Addr::UNSPECIFIED);
        assert_eq!(Arp::decode(&frame.encode()[..27]), None);
        assert_eq!(Arp::decode(&[0; 28]), None);
    }
}
