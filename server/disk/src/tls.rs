//! A TLS connection whose bytes the loop carries: a handshake over a stream, then sealing and opening in memory.

use crate::ring::Piece;
use rustls::Connection;
use rustls::pki_types::PrivatePkcs8KeyDer;
use std::io::{self, Read, Write};

/// Most plaintext that can lie undelivered in the connection: one record.
pub(crate) const RECORD_BYTES: usize = 18 * 1024;
/// What stands before the 32 bytes of an Ed25519 seed in PKCS#8 (RFC 8410).
const PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// An Ed25519 private key as files and libraries have it.
pub(crate) fn pkcs8(seed: [u8; 32]) -> PrivatePkcs8KeyDer<'static> {
    PrivatePkcs8KeyDer::from([PKCS8.as_slice(), &seed].concat())
}

/// The state of one connection.
pub(crate) struct Tls(Connection);

impl std::fmt::Debug for Tls {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("Tls")
    }
}

impl Tls {
    /// The handshake over a stream whose reads and writes are bounded in time by the caller.
    ///
    /// # Errors
    /// The other end is silent, or is not let in.
    pub(crate) fn shake(
        connection: impl Into<Connection>,
        stream: &mut (impl Read + Write),
    ) -> io::Result<Self> {
        let mut connection = connection.into();
        // What waits is bounded by the queue of frames.
        connection.set_buffer_limit(None);
        while connection.is_handshaking() || connection.wants_write() {
            connection.complete_io(stream)?;
        }
        Ok(Tls(connection))
    }

    /// Encrypts what is to be sent.
    ///
    /// # Errors
    /// The connection is of no further use.
    pub(crate) fn seal(&mut self, pieces: &[Piece]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        for piece in pieces {
            self.0.writer().write_all(&piece.head)?;
            if let Some((data, bytes)) = &piece.data {
                self.0.writer().write_all(data.bytes().get(bytes.clone()).unwrap_or_default())?;
            }
        }
        while self.0.wants_write() {
            self.0.write_tls(&mut out)?;
        }
        Ok(out)
    }

    /// Decrypts what was received; gives how many bytes of `into` it filled. `into` must have room for the bytes given and
    /// [`RECORD_BYTES`] more.
    ///
    /// # Errors
    /// Not what the other end sent, or no room.
    pub(crate) fn open(&mut self, mut received: &[u8], into: &mut [u8]) -> io::Result<usize> {
        let mut got = 0;
        loop {
            let taken = if received.is_empty() { 0 } else { self.0.read_tls(&mut received)? };
            let state = self.0.process_new_packets().map_err(io::Error::other)?;
            let waits = state.plaintext_bytes_to_read();
            let place = into.get_mut(got..got + waits).ok_or(io::ErrorKind::OutOfMemory)?;
            self.0.reader().read_exact(place)?;
            got += waits;
            if received.is_empty() {
                return Ok(got);
            }
            if taken == 0 && waits == 0 {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }
}

/// The connection as a stream, while a thread of its own talks over it.
pub(crate) struct Over<'a, S> {
    /// Its state.
    pub tls: &'a mut Tls,
    /// What carries its records.
    pub stream: &'a mut S,
}

impl<S: Read + Write> Read for Over<'_, S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Tls(connection) = &mut *self.tls;
        loop {
            match connection.reader().read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    connection.complete_io(self.stream)?;
                }
                result => return result,
            }
        }
    }
}

impl<S: Read + Write> Write for Over<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.tls.0.writer().write(bytes)?;
        self.flush()?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.0.wants_write() {
            self.tls.0.write_tls(self.stream)?;
        }
        Ok(())
    }
}
