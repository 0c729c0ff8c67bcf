//! The unix socket to the node process: length-prefixed JSON of `peer::control`.
//!
//! A message is its length (4 bytes, little endian) and so many bytes of JSON. One node process at a time: a newer connection
//! replaces the older one, which can only be that of a node process that died.

use crate::limits::CONTROL_OUT_MAX;
use peer::control::{FromDisk, MESSAGE_BYTES_MAX, ToDisk};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::Permissions;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A message does not fit the protocol.
#[derive(Debug, thiserror::Error)]
pub enum ControlFault {
    /// Longer than [`MESSAGE_BYTES_MAX`].
    #[error("a control message of {0} bytes is longer than {MESSAGE_BYTES_MAX}")]
    TooLong(usize),
    /// Not the JSON expected.
    #[error("a control message is not understood: {0}")]
    Unreadable(#[from] serde_json::Error),
}

/// A message as it goes over the socket.
///
/// # Errors
/// It is longer than [`MESSAGE_BYTES_MAX`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, ControlFault> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - 4;
    if length > MESSAGE_BYTES_MAX {
        return Err(ControlFault::TooLong(length));
    }
    bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(bytes)
}

/// Takes bytes as they come and gives messages.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
}

impl Decoder {
    /// More bytes have come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message; `None` when more bytes are needed.
    ///
    /// # Errors
    /// Too long or not understood: the connection is of no further use.
    #[allow(clippy::should_implement_trait)] // generic in what is decoded, and fallible
    pub fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ControlFault> {
        let Some(length) = self.bytes.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MESSAGE_BYTES_MAX {
            return Err(ControlFault::TooLong(length));
        }
        let Some(message) = self.bytes.get(4..4 + length) else { return Ok(None) };
        let message = serde_json::from_slice(message)?;
        self.bytes.drain(..4 + length);
        Ok(Some(message))
    }
}

/// The socket's path and the node process that is connected, if any.
pub(crate) struct Control {
    path: PathBuf,
    listener: UnixListener,
    node: Option<Node>,
}

struct Node {
    stream: UnixStream,
    decoder: Decoder,
    out: Vec<u8>,
}

impl Control {
    /// Listens at this path, in place of a dead predecessor's socket.
    pub(crate) fn listen(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(path)?;
        // Whoever can write to it orders the data path about.
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Control { path: path.to_owned(), listener, node: None })
    }

    pub(crate) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// The connection to the node process.
    pub(crate) fn stream(&self) -> Option<BorrowedFd<'_>> {
        self.node.as_ref().map(|node| node.stream.as_fd())
    }

    /// Takes the newest waiting connection; `true` if there was one.
    pub(crate) fn accept(&mut self) -> bool {
        let mut came = false;
        while let Ok((stream, _)) = self.listener.accept() {
            if stream.set_nonblocking(true).is_ok() {
                self.node = Some(Node { stream, decoder: Decoder::default(), out: Vec::new() });
                came = true;
            }
        }
        came
    }

    /// Reads what has come. `false`: the connection has ended (after these orders).
    pub(crate) fn read(&mut self) -> (Vec<ToDisk>, bool) {
        let mut orders = Vec::new();
        let Some(node) = &mut self.node else { return (orders, false) };
        let alive = node.read(&mut orders);
        if !alive {
            self.node = None;
        }
        (orders, alive)
    }

    /// Sends to the node process, if there is one. What does not fit its socket waits; one that reads nothing is let go.
    pub(crate) fn tell(&mut self, message: &FromDisk) {
        let Some(node) = &mut self.node else { return };
        match encode(message) {
            Ok(bytes) => node.out.extend_from_slice(&bytes),
            Err(error) => tracing::warn!(%error, "not sent to the node process"),
        }
        if node.out.len() > CONTROL_OUT_MAX {
            tracing::warn!(limit = CONTROL_OUT_MAX, "the node process does not read: connection closed");
            let _ = node.stream.shutdown(std::net::Shutdown::Both);
            node.out.clear();
        }
        self.flush();
    }

    /// Sends what waits; `true` if something still does.
    pub(crate) fn flush(&mut self) -> bool {
        let Some(node) = &mut self.node else { return false };
        while !node.out.is_empty() {
            match node.stream.write(&node.out) {
                Ok(sent) => drop(node.out.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                // The reading side will find the connection ended.
                Err(_) => node.out.clear(),
            }
        }
        false
    }
}

impl Node {
    fn read(&mut self, orders: &mut Vec<ToDisk>) -> bool {
        let mut bytes = [0; 8192];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return false,
                Ok(length) => self.decoder.push(&bytes[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
            loop {
                match self.decoder.next() {
                    Ok(Some(order)) => orders.push(order),
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(%error, "the node process is not understood: connection closed");
                        return false;
                    }
                }
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peer::control::{DiskOrder, Ticket};

    #[test]
    fn messages_come_out_as_they_went_in_however_they_are_cut() {
        let orders = [DiskOrder::Report, DiskOrder::Quit].map(|order| ToDisk { ticket: Ticket(7), order });
        let bytes: Vec<u8> = orders.iter().flat_map(|order| encode(order).unwrap()).collect();
        let mut decoder = Decoder::default();
        let mut found = Vec::new();
        for byte in bytes {
            decoder.push(&[byte]);
            found.extend(decoder.next::<ToDisk>().unwrap());
        }
        assert_eq!(found, orders);
    }

    #[test]
    fn a_length_that_is_too_long_is_refused_before_its_bytes_come() {
        let mut decoder = Decoder::default();
        decoder.push(&(MESSAGE_BYTES_MAX as u32 + 1).to_le_bytes());
        assert!(matches!(decoder.next::<ToDisk>(), Err(ControlFault::TooLong(_))));
    }
}
