//! The keeper's socket: messages of JSON with borders of their own, and descriptors beside them.

use crate::guard::Guarded;
use crate::options::DiskOptions;
use anyhow::{Context as _, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, recvmsg,
    sendmsg, socket_with,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use wire::SetId;

/// Longest message: options and what is guarded of a large group take some kilobytes.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Descriptors with one message: the memory file and /dev/fuse.
const DESCRIPTORS_MAX: usize = 2;
/// Connections that wait to be taken: node and every set of a server at once.
const BACKLOG: i32 = 64;

/// A front end that is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FrontRecord {
    /// Path of the block device.
    pub path: std::path::PathBuf,
    /// N of /dev/loopN.
    pub number: u32,
}

/// To the keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ToKeeper {
    /// Start this set's process, if none lives.
    Start { options: Box<DiskOptions> },
    /// The sender is this set's process and begins: it takes what the one before it left.
    Inherit { options: Box<DiskOptions> },
    /// All that a successor of the sender needs, in place of what was said before. With it: the memory file, then the front
    /// end's descriptor if there is one.
    State { options: Box<DiskOptions>, front: Option<FrontRecord>, guarded: Guarded },
    /// The sender ends in order: nothing is left to be taken over.
    Leaves { set: SetId },
}

/// From the keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FromKeeper {
    /// The process lives.
    Runs { pid: u32 },
    /// What there is to be taken over; the descriptors as with `State`.
    Inheritance { front: Option<FrontRecord>, guarded: Guarded },
    /// Of `Leaves`: it is known.
    Noted,
    /// Not done, and why.
    Refused { reason: String },
}

fn address(path: &Path) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(path)?)
}

fn fresh() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Listens in place of a dead predecessor; only the owner may connect.
pub(crate) fn listener(path: &Path) -> anyhow::Result<OwnedFd> {
    let _ = std::fs::remove_file(path);
    let socket = fresh()?;
    bind(&socket, &address(path)?).with_context(|| format!("bind {}", path.display()))?;
    let owner = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path, owner)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Connects.
pub(crate) fn dial(path: &Path) -> io::Result<OwnedFd> {
    let socket = fresh()?;
    connect(&socket, &address(path)?)?;
    Ok(socket)
}

/// Sends a message with its descriptors; never waits: one whose other end reads nothing is refused.
pub(crate) fn send<T: Serialize>(
    socket: impl AsFd,
    message: &T,
    with: &[BorrowedFd<'_>],
) -> anyhow::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MESSAGE_BYTES_MAX {
        bail!("a message of {} bytes is longer than {MESSAGE_BYTES_MAX}", bytes.len());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !with.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(with)) {
        bail!("more than {DESCRIPTORS_MAX} descriptors");
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[IoSlice::new(&bytes)], &mut beside, flags)?;
    Ok(())
}

/// Takes the next message; `None`: the other end is gone. Waits at most `limit`.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
    limit: Duration,
) -> anyhow::Result<Option<(T, Vec<OwnedFd>)>> {
    let time = Timespec::try_from(limit)?;
    if poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&time))? == 0 {
        bail!("no message within {} ms", limit.as_millis());
    }
    let mut bytes = vec![0; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let got = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut beside, flags)?;
    let mut with = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            with.extend(descriptors);
        }
    }
    if got.bytes == 0 {
        return Ok(None);
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        bail!("a message is cut off");
    }
    let message = serde_json::from_slice(bytes.get(..got.bytes).unwrap_or_default())?;
    Ok(Some((message, with)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn messages_and_descriptors_come_out_as_they_went_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keeper.sock");
        let listener = listener(&path).unwrap();
        let one = dial(&path).unwrap();
        let two = rustix::net::accept(&listener).unwrap();
        let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
        send(&one, &ToKeeper::Leaves { set: SetId(7) }, &[near.as_fd()]).unwrap();
        let (message, mut with) = receive::<ToKeeper>(&two, Duration::from_secs(20)).unwrap().unwrap();
        assert_eq!(message, ToKeeper::Leaves { set: SetId(7) });
        let mut taken = std::os::unix::net::UnixStream::from(with.remove(0));
        assert!(rustix::io::fcntl_getfd(&taken).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        taken.write_all(b"x").unwrap();
        let mut byte = [0];
        far.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
        drop(one);
        assert!(receive::<ToKeeper>(&two, Duration::from_secs(20)).unwrap().is_none());
    }
}
