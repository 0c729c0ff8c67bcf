//! A blocking rtnetlink conversation: one request, its replies, bounded in time; no runtime needed.

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// The kernel answers from the same call chain; a second without an answer is a broken machine, not a slow one.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// The kernel packs a dump into messages of at most 32 KiB; twice that never truncates.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// A dump that the kernel marks as interrupted by a change is asked again, so often at most.
const DUMP_TRIES: u32 = 8;

const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP_INTERRUPTED: u16 = 0x10;
/// Replace what exists.
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
/// Fail when it exists.
pub(crate) const NLM_F_EXCL: u16 = 0x200;
/// Create when it is missing.
pub(crate) const NLM_F_CREATE: u16 = 0x400;
const NLM_F_DUMP: u16 = 0x300;

/// A request under construction; lengths and padding are kept right at each step.
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// A request of this RTM type whose fixed part is `body`.
    pub fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(body);
        Message(bytes).padded()
    }

    fn padded(mut self) -> Self {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Appends an attribute with these bytes.
    #[must_use]
    pub fn attribute(self, kind: u16, value: &[u8]) -> Self {
        self.nested(kind, |message| {
            let mut message = message;
            message.0.extend_from_slice(value);
            message
        })
    }

    /// Appends an attribute holding text ended by a zero byte.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Appends bytes as they are (a fixed part inside a nest).
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.padded()
    }

    /// Appends an attribute that holds what `fill` appends.
    #[must_use]
    pub fn nested(mut self, kind: u16, fill: impl FnOnce(Message) -> Message) -> Self {
        let start = self.0.len();
        self.0.extend_from_slice(&0u16.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        let mut message = fill(self);
        let length = u16::try_from(message.0.len() - start).unwrap_or(u16::MAX);
        if let Some(field) = message.0.get_mut(start..start + 2) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
        message.padded()
    }
}

/// One message of an answer: its RTM type and everything behind the header.
pub(crate) struct Answer {
    /// The RTM type.
    pub kind: u16,
    /// The fixed part and the attributes.
    pub body: Vec<u8>,
}

/// One rtnetlink socket, bound to the network namespace of the thread that opened it.
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open() -> io::Result<Self> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_LIMIT))?;
        Ok(Netlink { socket, sequence: 0 })
    }

    /// Sends a request and waits for the kernel's acknowledgement.
    pub fn change(&mut self, message: Message) -> io::Result<()> {
        self.exchange(message, NLM_F_ACK).map(drop)
    }

    /// Asks for everything of one kind.
    pub fn dump(&mut self, kind: u16, body: &[u8]) -> io::Result<Vec<Answer>> {
        for _ in 0..DUMP_TRIES {
            if let Some(answers) = self.exchange(Message::new(kind, 0, body), NLM_F_DUMP)? {
                return Ok(answers);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "the kernel's tables keep changing while they are read",
        ))
    }

    /// `None`: the dump was interrupted by a change and must be asked again.
    fn exchange(&mut self, message: Message, flags: u16) -> io::Result<Option<Vec<Answer>>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = message.0;
        let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let kept = u16::from_ne_bytes([bytes[6], bytes[7]]);
        bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(kept | flags).to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        send(&self.socket, &bytes, SendFlags::empty())?;
        let mut answers = Vec::new();
        let mut interrupted = false;
        let mut buffer = vec![0u8; RECEIVE_BUFFER];
        loop {
            let (count, _) = recv(&self.socket, &mut buffer[..], RecvFlags::empty())?;
            let mut rest = &buffer[..count.min(RECEIVE_BUFFER)];
            while let Some((header, body, next)) = split(rest) {
                rest = next;
                if header.sequence != self.sequence {
                    continue; // a late answer to a request that timed out
                }
                interrupted |= header.flags & NLM_F_DUMP_INTERRUPTED != 0;
                match header.kind {
                    NLMSG_DONE => return Ok((!interrupted).then_some(answers)),
                    NLMSG_ERROR => {
                        let code = body.get(..4).map_or(-libc::EPROTO, int);
                        if code != 0 {
                            return Err(io::Error::from_raw_os_error(-code));
                        }
                        return Ok(Some(answers));
                    }
                    kind => answers.push(Answer { kind, body: body.to_vec() }),
                }
            }
        }
    }
}

struct Header {
    kind: u16,
    flags: u16,
    sequence: u32,
}

fn int(bytes: &[u8]) -> i32 {
    bytes.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes))
}

/// Reads a native-endian u32 at `offset`; 0 where the bytes end before.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes.get(offset..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    bytes.get(offset..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u16::from_ne_bytes(*bytes))
}

fn split(bytes: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    if bytes.len() < HEADER {
        return None;
    }
    let length = usize::try_from(u32_at(bytes, 0)).ok()?;
    let body = bytes.get(HEADER..length)?;
    let header = Header { kind: u16_at(bytes, 4), flags: u16_at(bytes, 6), sequence: u32_at(bytes, 8) };
    Some((header, body, bytes.get(length.next_multiple_of(4)..).unwrap_or(&[])))
}

/// The attributes behind a fixed part of `fixed` bytes, as (kind, value).
pub(crate) fn attributes(body: &[u8], fixed: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(fixed..).unwrap_or(&[]);
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0));
        let value = rest.get(4..length)?;
        let kind = u16_at(rest, 2) & 0x3fff; // without the nested and byte-order marks
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}
