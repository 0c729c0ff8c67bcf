//! The NBD protocol's transmission phase as bytes: requests in, replies out (network byte order, `proto.md` of NBD).

use crate::limits::{LARGE_BYTES, NBD_SKIP_MAX};

/// Bytes of a request; a write's payload follows.
pub(crate) const REQUEST_BYTES: usize = 28;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_MAGIC: u32 = 0x6744_6698;
const CHUNK_MAGIC: u32 = 0x668e_33ef;
const CHUNK_DONE: u16 = 1;
const CHUNK_DATA: u16 = 1;
const CHUNK_ERROR: u16 = 0x8001;
/// Unit of every request: the smallest sector of the mirror.
pub(crate) const BLOCK_MIN: u32 = 512;
/// Longest read or write: one slot.
pub(crate) const BLOCK_MAX: u32 = LARGE_BYTES as u32;

const FUA: u16 = 1;
const NO_HOLE: u16 = 2;
const DONT_FRAGMENT: u16 = 4;

const EPERM: u32 = 1;
const EIO: u32 = 5;
const ENOMEM: u32 = 12;
pub(crate) const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
pub(crate) const ESHUTDOWN: u32 = 108;

/// What both sides agreed on in the handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// Reads are answered in chunks.
    pub structured: bool,
}

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Read,
    /// `fua`: durable before the answer.
    Write {
        fua: bool,
    },
    Flush,
    /// Discard, or a write of zeroes; `unmap`: space may be given back.
    Zero {
        unmap: bool,
        fua: bool,
    },
    /// The client goes.
    Leave,
}

/// A request that can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub command: Command,
    /// The client's own number, echoed in the reply.
    pub cookie: u64,
    pub offset: u64,
    pub length: u32,
}

/// What 28 bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    Request(Request),
    /// To be answered with this error; so many bytes of payload follow and are skipped.
    Refused {
        cookie: u64,
        read: bool,
        error: u32,
        skip: u64,
    },
    /// Not the protocol, or a payload longer than is worth skipping: the connection ends.
    Broken,
}

fn u16_at(bytes: &[u8; REQUEST_BYTES], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8; REQUEST_BYTES], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) << 16 | u32::from(u16_at(bytes, at + 2))
}

fn u64_at(bytes: &[u8; REQUEST_BYTES], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) << 32 | u64::from(u32_at(bytes, at + 4))
}

/// Reads a request to an export of `size` bytes.
pub(crate) fn parse(bytes: &[u8; REQUEST_BYTES], size: u64, agreed: Agreed) -> Parsed {
    if u32_at(bytes, 0) != REQUEST_MAGIC {
        return Parsed::Broken;
    }
    let (flags, kind) = (u16_at(bytes, 4), u16_at(bytes, 6));
    let (cookie, offset, length) = (u64_at(bytes, 8), u64_at(bytes, 16), u32_at(bytes, 24));
    let fua = flags & FUA != 0;
    let (command, allowed) = match kind {
        0 => (Command::Read, FUA | if agreed.structured { DONT_FRAGMENT } else { 0 }),
        1 => (Command::Write { fua }, FUA),
        // Whatever its other fields say.
        2 => return Parsed::Request(Request { command: Command::Leave, cookie, offset: 0, length: 0 }),
        3 => (Command::Flush, FUA),
        4 => (Command::Zero { unmap: true, fua }, FUA),
        6 => (Command::Zero { unmap: flags & NO_HOLE == 0, fua }, FUA | NO_HOLE),
        _ => return Parsed::Refused { cookie, read: false, error: EINVAL, skip: 0 },
    };
    let skip = if matches!(command, Command::Write { .. }) { u64::from(length) } else { 0 };
    if skip > NBD_SKIP_MAX {
        return Parsed::Broken;
    }
    let request = Request { command, cookie, offset, length };
    match request.check(size).err().or((flags & !allowed != 0).then_some(EINVAL)) {
        Some(error) => Parsed::Refused { cookie, read: command == Command::Read, error, skip },
        None => Parsed::Request(request),
    }
}

impl Request {
    fn check(&self, size: u64) -> Result<(), u32> {
        let writes = match self.command {
            // Its offset and length are to be zero; neither matters.
            Command::Flush | Command::Leave => return Ok(()),
            Command::Write { .. } | Command::Zero { .. } => true,
            Command::Read => false,
        };
        let whole = self.offset.is_multiple_of(u64::from(BLOCK_MIN)) && self.length.is_multiple_of(BLOCK_MIN);
        let carries = matches!(self.command, Command::Read | Command::Write { .. });
        if self.length == 0 || !whole || carries && self.length > BLOCK_MAX {
            return Err(EINVAL);
        }
        match self.offset.checked_add(u64::from(self.length)) {
            Some(end) if end <= size => Ok(()),
            Some(_) | None => Err(if writes { ENOSPC } else { EINVAL }),
        }
    }
}

/// The protocol's error for an errno.
pub(crate) fn error_of(errno: i32) -> u32 {
    match errno {
        0 => 0,
        libc::EPERM => EPERM,
        libc::ENOMEM => ENOMEM,
        libc::EINVAL => EINVAL,
        libc::ENOSPC => ENOSPC,
        libc::ESHUTDOWN => ESHUTDOWN,
        _ => EIO,
    }
}

fn chunk(out: &mut Vec<u8>, kind: u16, cookie: u64, length: u32) {
    out.extend_from_slice(&CHUNK_MAGIC.to_be_bytes());
    out.extend_from_slice(&CHUNK_DONE.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&cookie.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
}

fn simple(out: &mut Vec<u8>, cookie: u64, error: u32) {
    out.extend_from_slice(&SIMPLE_MAGIC.to_be_bytes());
    out.extend_from_slice(&error.to_be_bytes());
    out.extend_from_slice(&cookie.to_be_bytes());
}

/// Appends the reply to anything but a read that succeeded. `chunked`: the request's kind is answered in chunks.
pub(crate) fn reply(out: &mut Vec<u8>, cookie: u64, error: u32, chunked: bool) {
    if error != 0 && chunked {
        chunk(out, CHUNK_ERROR, cookie, 6);
        out.extend_from_slice(&error.to_be_bytes());
        // No message: the error says it all.
        out.extend_from_slice(&0_u16.to_be_bytes());
    } else {
        simple(out, cookie, error);
    }
}

/// Appends the head of a read's reply; so many bytes of data follow.
pub(crate) fn reply_read(out: &mut Vec<u8>, cookie: u64, offset: u64, length: u32, agreed: Agreed) {
    if agreed.structured {
        chunk(out, CHUNK_DATA, cookie, length + 8);
        out.extend_from_slice(&offset.to_be_bytes());
    } else {
        simple(out, cookie, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 1 << 30;
    const BOTH: Agreed = Agreed { structured: true };

    fn request(flags: u16, kind: u16, offset: u64, length: u32) -> [u8; REQUEST_BYTES] {
        let mut bytes = [0; REQUEST_BYTES];
        bytes[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
        bytes[4..6].copy_from_slice(&flags.to_be_bytes());
        bytes[6..8].copy_from_slice(&kind.to_be_bytes());
        bytes[8..16].copy_from_slice(&7_u64.to_be_bytes());
        bytes[16..24].copy_from_slice(&offset.to_be_bytes());
        bytes[24..].copy_from_slice(&length.to_be_bytes());
        bytes
    }

    fn command(flags: u16, kind: u16) -> Option<Command> {
        match parse(&request(flags, kind, 512, 1024), SIZE, BOTH) {
            Parsed::Request(request) => Some(request.command),
            Parsed::Refused { .. } | Parsed::Broken => None,
        }
    }

    #[test]
    fn every_command_with_its_flags() {
        assert_eq!(command(0, 0), Some(Command::Read));
        assert_eq!(command(DONT_FRAGMENT, 0), Some(Command::Read));
        assert_eq!(command(0, 1), Some(Command::Write { fua: false }));
        assert_eq!(command(FUA, 1), Some(Command::Write { fua: true }));
        assert_eq!(command(0, 2), Some(Command::Leave));
        assert_eq!(command(0, 3), Some(Command::Flush));
        assert_eq!(command(FUA, 4), Some(Command::Zero { unmap: true, fua: true }));
        assert_eq!(command(0, 6), Some(Command::Zero { unmap: true, fua: false }));
        assert_eq!(command(NO_HOLE | FUA, 6), Some(Command::Zero { unmap: false, fua: true }));
        // Not offered: cache, block status, resize, fast zero; flags where they mean nothing.
        for (flags, kind) in [(0, 5), (0, 7), (0, 8), (16, 6), (NO_HOLE, 1), (8, 0), (0, 9)] {
            assert_eq!(command(flags, kind), None, "{flags} {kind}");
        }
    }

    #[test]
    fn what_cannot_be_served_is_refused_and_its_payload_skipped() {
        let refused = |kind, offset, length| match parse(&request(0, kind, offset, length), SIZE, BOTH) {
            Parsed::Refused { cookie: 7, error, skip, .. } => Some((error, skip)),
            Parsed::Refused { .. } | Parsed::Request(_) | Parsed::Broken => None,
        };
        // Not whole sectors, nothing, too long, outside.
        assert_eq!(refused(0, 1, 512), Some((EINVAL, 0)));
        assert_eq!(refused(1, 0, 100), Some((EINVAL, 100)));
        assert_eq!(refused(0, 0, 0), Some((EINVAL, 0)));
        assert_eq!(refused(1, 0, BLOCK_MAX + 512), Some((EINVAL, u64::from(BLOCK_MAX) + 512)));
        assert_eq!(refused(0, SIZE, 512), Some((EINVAL, 0)));
        assert_eq!(refused(1, SIZE, 512), Some((ENOSPC, 512)));
        assert_eq!(refused(6, SIZE - 512, 1024), Some((ENOSPC, 0)));
        assert_eq!(refused(4, u64::MAX - 511, 1024), Some((ENOSPC, 0)));
        // Zeroes carry nothing: they may be longer than a slot.
        assert_eq!(refused(6, 0, 1 << 30), None);
        assert_eq!(parse(&request(0, 1, 0, u32::MAX), SIZE, BOTH), Parsed::Broken);
        assert_eq!(parse(&[0; REQUEST_BYTES], SIZE, BOTH), Parsed::Broken);
        // Without chunks there is nothing not to cut up.
        let plain = parse(&request(DONT_FRAGMENT, 0, 0, 512), SIZE, Agreed::default());
        assert_eq!(plain, Parsed::Refused { cookie: 7, read: true, error: EINVAL, skip: 0 });
    }

    #[test]
    fn random_bytes_are_never_more_than_their_limits_allow() {
        let mut state = 1_u64;
        for round in 0..200_000_u32 {
            let mut bytes = request(0, (round % 9) as u16, 0, 0);
            for byte in &mut bytes[if round.is_multiple_of(5) { 0 } else { 4 }..] {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                if !state.is_multiple_of(3) {
                    *byte = state as u8;
                }
            }
            match parse(&bytes, SIZE, BOTH) {
                Parsed::Request(request) => {
                    let end = request.offset + u64::from(request.length);
                    assert!(end <= SIZE || matches!(request.command, Command::Flush | Command::Leave));
                    let carries = matches!(request.command, Command::Read | Command::Write { .. });
                    assert!(!carries || request.length <= BLOCK_MAX);
                }
                Parsed::Refused { skip, error, .. } => assert!(skip <= NBD_SKIP_MAX && error != 0),
                Parsed::Broken => {}
            }
        }
    }

    #[test]
    fn replies_are_the_protocols_bytes() {
        let mut out = Vec::new();
        reply(&mut out, 7, 0, true);
        assert_eq!(out, [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
        out.clear();
        reply(&mut out, 7, EIO, true);
        assert_eq!(out[..8], [0x66, 0x8e, 0x33, 0xef, 0, 1, 0x80, 1]);
        assert_eq!(out[16..], [0, 0, 0, 6, 0, 0, 0, 5, 0, 0]);
        out.clear();
        reply_read(&mut out, 7, 1 << 20, 4096, BOTH);
        assert_eq!(out[16..], [0, 0, 0x10, 8, 0, 0, 0, 0, 0, 0x10, 0, 0]);
        assert_eq!(error_of(libc::EBADF), EIO);
    }
}
