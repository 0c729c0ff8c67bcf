//! The kernel's FUSE messages, as far as a file system of one file needs them: bytes in, requests out; replies as bytes.
//!
//! Layouts: `<linux/fuse.h>` 7.31 to 7.45, little endian machines. What is not known is answered `ENOSYS`, which the kernel
//! remembers and does not ask again.

/// Bytes of every request's head.
pub(crate) const HEAD: usize = 40;
/// Bytes of head and arguments of READ and WRITE; a WRITE's data follows.
pub(crate) const HEAD_AND_ARGS: usize = 80;
/// Bytes of every reply's head.
pub(crate) const REPLY_HEAD: usize = 16;
/// The file system's root.
pub(crate) const ROOT: u64 = 1;
/// The one file.
pub(crate) const FILE: u64 = 2;
/// Its name.
pub(crate) const NAME: &[u8] = b"data";
/// Oldest minor version of protocol 7 with all that is used here (Linux 5.4).
const MINOR_MIN: u32 = 31;
/// The version spoken.
const VERSION: (u32, u32) = (7, 41);
/// How long the kernel may believe names and attributes: nothing of them ever changes.
const VALID_SECONDS: u64 = 3600;

const ASYNC_READ: u64 = 1;
const BIG_WRITES: u64 = 1 << 5;
const ASYNC_DIO: u64 = 1 << 15;
const PARALLEL_DIROPS: u64 = 1 << 18;
const MAX_PAGES: u64 = 1 << 22;
const INIT_EXT: u64 = 1 << 30;
const HAS_RESEND: u64 = 1 << 39;
/// ASYNC_DIO is the most important one: without it the loop device waits for each request (DATA-PATH).
const WANTED: u64 = ASYNC_READ | BIG_WRITES | ASYNC_DIO | PARALLEL_DIROPS | MAX_PAGES | INIT_EXT | HAS_RESEND;

/// Writes do not go through the page cache (bit 0), several at once (bit 6), and a close asks for no flush (bit 5): a killed
/// process that has the file open itself would wait for its own answer.
const OPEN_DIRECT: u32 = 1 | 1 << 5 | 1 << 6;

/// Head of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Bytes in all.
    pub length: usize,
    /// The request's number, echoed unchanged in the reply (bit 63 is set when it was sent again).
    pub unique: u64,
    /// Whom it concerns.
    pub node: u64,
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    /// First of all: versions and abilities.
    Init { major: u32, minor: u32, read_ahead: u32, flags: u64 },
    /// A name in the root.
    Lookup { name: &'a [u8] },
    /// No reply: the kernel forgets a node, or no longer waits for a request.
    Silent,
    /// Attributes.
    Attributes,
    /// Opens the file or the root.
    Open,
    /// Reads of the file.
    Read { offset: u64, size: u32 },
    /// Writes to the file.
    Write { offset: u64, size: u32 },
    /// Makes the file durable.
    Sync,
    /// Zeroes, holes or space for a range, by `mode` (FALLOC_FL_*).
    Allocate { offset: u64, length: u64, mode: i32 },
    /// Entries of the root from this position.
    List { offset: u64, size: u32 },
    /// Sizes of the file system.
    Statistics,
    /// Nothing to be done: closing, access checks, the end.
    Nothing,
    /// Not for this file system.
    Forbidden,
    /// Unknown here.
    Unknown,
}

/// The kernel's bytes do not make a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a FUSE request of {length} bytes is cut off or of no known form")]
pub(crate) struct Malformed {
    length: usize,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

/// Reads a request: `bytes` begin with its head and hold all its arguments (of a WRITE: without the data).
pub(crate) fn parse(bytes: &[u8]) -> Result<(Head, Request<'_>), Malformed> {
    decode(bytes).ok_or(Malformed { length: bytes.len() })
}

fn decode(bytes: &[u8]) -> Option<(Head, Request<'_>)> {
    let head = Head {
        length: usize::try_from(u32_at(bytes, 0)?).ok()?,
        unique: u64_at(bytes, 8)?,
        node: u64_at(bytes, 16)?,
    };
    let arguments = bytes.get(HEAD..)?;
    let place = |args| Some((u64_at(args, 8)?, u32_at(args, 16)?));
    let request = match u32_at(bytes, 4)? {
        1 => {
            let end = arguments.iter().position(|byte| *byte == 0)?;
            Request::Lookup { name: &arguments[..end] }
        }
        2 | 36 | 42 => Request::Silent,
        3 => Request::Attributes,
        14 | 27 => Request::Open,
        15 => place(arguments).map(|(offset, size)| Request::Read { offset, size })?,
        16 => place(arguments).map(|(offset, size)| Request::Write { offset, size })?,
        28 => place(arguments).map(|(offset, size)| Request::List { offset, size })?,
        17 => Request::Statistics,
        20 => Request::Sync,
        43 => Request::Allocate {
            offset: u64_at(arguments, 8)?,
            length: u64_at(arguments, 16)?,
            mode: u32_at(arguments, 24)?.cast_signed(),
        },
        // RELEASE, FLUSH, RELEASEDIR, FSYNCDIR, ACCESS, DESTROY
        18 | 25 | 29 | 30 | 34 | 38 => Request::Nothing,
        26 => {
            let low = u64::from(u32_at(arguments, 12)?);
            let high = if low & INIT_EXT != 0 { u64::from(u32_at(arguments, 16).unwrap_or(0)) } else { 0 };
            Request::Init {
                major: u32_at(arguments, 0)?,
                minor: u32_at(arguments, 4)?,
                read_ahead: u32_at(arguments, 8)?,
                flags: low | high << 32,
            }
        }
        // SETATTR and all that makes, links, renames or removes names.
        4 | 6 | 8..=13 | 35 | 45 => Request::Forbidden,
        _ => Request::Unknown,
    };
    Some((head, request))
}

/// The notice that makes the kernel send again what was read and not answered (Linux 6.9; `FUSE_NOTIFY_RESEND`).
pub(crate) fn resend() -> [u8; REPLY_HEAD] {
    const NOTIFY_RESEND: i32 = 7;
    let mut head = [0; REPLY_HEAD];
    head[..4].copy_from_slice(&(REPLY_HEAD as u32).to_le_bytes());
    head[4..8].copy_from_slice(&NOTIFY_RESEND.to_le_bytes());
    head
}

/// A reply's head. `errno` 0 is success; `length` counts what follows.
pub(crate) fn reply_head(unique: u64, errno: i32, length: usize) -> [u8; REPLY_HEAD] {
    let mut head = [0; REPLY_HEAD];
    let total = u32::try_from(REPLY_HEAD + length).unwrap_or(u32::MAX);
    head[..4].copy_from_slice(&total.to_le_bytes());
    head[4..8].copy_from_slice(&(-errno).to_le_bytes());
    head[8..].copy_from_slice(&unique.to_le_bytes());
    head
}

struct Out(Vec<u8>);

impl Out {
    fn new() -> Self {
        Out(Vec::with_capacity(128))
    }
    fn u16(mut self, value: u16) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }
    fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }
    fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }
    fn zeros(mut self, count: usize) -> Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }
}

/// Answers INIT; `None` when the kernel is too old.
pub(crate) fn init(
    (major, minor): (u32, u32),
    read_ahead: u32,
    offered: u64,
    write_max: u32,
    background: u16,
) -> Option<Vec<u8>> {
    if major != VERSION.0 || minor < MINOR_MIN {
        return None;
    }
    let flags = WANTED & offered;
    let pages = u16::try_from(write_max / 4096).unwrap_or(u16::MAX);
    let out = Out::new()
        .u32(VERSION.0)
        .u32(VERSION.1.min(minor))
        .u32(read_ahead)
        .u32((flags & u64::from(u32::MAX)) as u32)
        .u16(background)
        .u16(background - background / 4)
        .u32(write_max)
        .u32(1)
        .u16(pages)
        .u16(0)
        .u32((flags >> 32) as u32)
        .zeros(28);
    Some(out.0)
}

fn attributes(out: Out, node: u64, size: u64) -> Out {
    let (mode, size, links) = if node == FILE { (0o100_600, size, 1) } else { (0o040_700, 0, 2) };
    out.u64(node).u64(size).u64(size / 512).zeros(36).u32(mode).u32(links).zeros(12).u32(4096).u32(0)
}

/// Answers LOOKUP of the file.
pub(crate) fn entry(size: u64) -> Vec<u8> {
    let out = Out::new().u64(FILE).u64(1).u64(VALID_SECONDS).u64(VALID_SECONDS).u32(0).u32(0);
    attributes(out, FILE, size).0
}

/// Answers GETATTR.
pub(crate) fn attribute_reply(node: u64, size: u64) -> Vec<u8> {
    attributes(Out::new().u64(VALID_SECONDS).u32(0).u32(0), node, size).0
}

/// Answers OPEN and OPENDIR.
pub(crate) fn open(node: u64) -> Vec<u8> {
    Out::new().u64(0).u32(if node == FILE { OPEN_DIRECT } else { 0 }).u32(0).0
}

/// Answers WRITE: always all of it, for the loop device takes a short write for a full one (DATA-PATH).
pub(crate) fn written(size: u32) -> [u8; 8] {
    let mut out = [0; 8];
    out[..4].copy_from_slice(&size.to_le_bytes());
    out
}

/// Answers STATFS.
pub(crate) fn statistics(size: u64) -> Vec<u8> {
    let out = Out::new().u64(size / 4096).u64(0).u64(0).u64(1).u64(0).u32(4096).u32(255).u32(4096).zeros(28);
    out.0
}

/// Answers READDIR: entries from position `offset` as far as `size` bytes reach.
pub(crate) fn list(offset: u64, size: u32) -> Vec<u8> {
    let entries: [(u64, u32, &[u8]); 3] = [(ROOT, 4, b"."), (ROOT, 4, b".."), (FILE, 8, NAME)];
    let mut out = Vec::new();
    for (position, (node, kind, name)) in (1_u64..).zip(entries).skip(usize::try_from(offset).unwrap_or(3)) {
        let entry = Out::new().u64(node).u64(position).u32(name.len() as u32).u32(kind).0;
        let length = (entry.len() + name.len()).next_multiple_of(8);
        if out.len() + length > usize::try_from(size).unwrap_or(0) {
            break;
        }
        let end = out.len() + length;
        out.extend_from_slice(&entry);
        out.extend_from_slice(name);
        out.resize(end, 0);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(opcode: u32, node: u64, arguments: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&((HEAD + arguments.len()) as u32).to_le_bytes());
        bytes.extend_from_slice(&opcode.to_le_bytes());
        bytes.extend_from_slice(&(9 | 1_u64 << 63).to_le_bytes());
        bytes.extend_from_slice(&node.to_le_bytes());
        bytes.resize(HEAD, 0);
        bytes.extend_from_slice(arguments);
        bytes
    }

    #[test]
    fn reads_a_write_with_a_number_that_was_sent_again() {
        let arguments = Out::new().u64(0).u64(1 << 30).u32(4096).zeros(20).0;
        let bytes = request(16, FILE, &arguments);
        let (head, found) = parse(&bytes).unwrap();
        assert_eq!(bytes.len(), HEAD_AND_ARGS);
        assert_eq!(head, Head { length: HEAD_AND_ARGS, unique: 9 | 1 << 63, node: FILE });
        assert_eq!(found, Request::Write { offset: 1 << 30, size: 4096 });
    }

    #[test]
    fn reads_a_discard_of_more_than_32_bits() {
        let arguments = Out::new().u64(0).u64(1 << 40).u64(5 << 32).u32(3).u32(0).0;
        let bytes = request(43, FILE, &arguments);
        let found = parse(&bytes).unwrap().1;
        assert_eq!(found, Request::Allocate { offset: 1 << 40, length: 5 << 32, mode: 3 });
        assert!(parse(&bytes[..bytes.len() - 5]).is_err());
    }

    #[test]
    fn reads_both_halves_of_the_abilities() {
        let arguments = Out::new().u32(7).u32(45).u32(65536).u32(0x4000_8001).u32(0x80).zeros(44).0;
        let bytes = request(26, 0, &arguments);
        let (_, found) = parse(&bytes).unwrap();
        let flags = INIT_EXT | ASYNC_DIO | ASYNC_READ | HAS_RESEND;
        assert_eq!(found, Request::Init { major: 7, minor: 45, read_ahead: 65536, flags });
        let reply = init((7, 45), 65536, flags, 1 << 20, 256).unwrap();
        assert_eq!(reply.len(), 64);
        assert_eq!(u32_at(&reply, 4), Some(41));
        assert_eq!(u32_at(&reply, 12), Some(0x4000_8001));
        assert_eq!(u32_at(&reply, 32), Some(0x80));
        assert_eq!(init((7, 30), 0, flags, 1 << 20, 256), None);
    }

    #[test]
    fn refuses_what_is_cut_off_at_every_length() {
        let arguments = Out::new().u64(0).u64(0).u32(4096).0;
        let bytes = request(15, FILE, &arguments);
        for length in 0..bytes.len() {
            assert_eq!(parse(&bytes[..length]), Err(Malformed { length }));
        }
        assert!(parse(&request(1, ROOT, b"no end")).is_err());
        assert!(parse(&bytes).is_ok());
    }

    #[test]
    fn interrupts_and_forgets_want_no_reply_and_the_unknown_is_named_so() {
        for opcode in [2, 36, 42] {
            assert_eq!(parse(&request(opcode, 1, &[0; 16])).unwrap().1, Request::Silent);
        }
        assert_eq!(parse(&request(44, 1, &[0; 32])).unwrap().1, Request::Unknown);
        assert_eq!(parse(&request(4, 2, &[0; 88])).unwrap().1, Request::Forbidden);
        assert_eq!(parse(&request(1, ROOT, b"data\0")).unwrap().1, Request::Lookup { name: NAME });
    }

    #[test]
    fn replies_have_the_kernels_sizes() {
        assert_eq!(entry(1 << 30).len(), 128);
        assert_eq!(attribute_reply(FILE, 1 << 30).len(), 104);
        assert_eq!(open(FILE).len(), 16);
        assert_eq!(statistics(1 << 30).len(), 80);
        assert_eq!(reply_head(5, 5, 0), [16, 0, 0, 0, 251, 255, 255, 255, 5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(u32_at(&entry(0), 40 + 60), Some(0o100_600));
    }

    #[test]
    fn a_listing_goes_on_where_it_was_cut() {
        assert_eq!(list(0, 4096).len(), 32 * 3);
        assert_eq!(list(0, 40).len(), 32);
        assert_eq!(list(2, 4096).len(), 32);
        assert_eq!(list(3, 4096), Vec::<u8>::new());
    }
}
