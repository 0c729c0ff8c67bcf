//! TLS 1.3 on a connection of the block link. Both ends show a raw Ed25519 key that only who knows the cluster key can
//! derive, and accept no other: mutual authentication without certificates to renew.

use super::handshake::{End, Key, Stranger};
use crate::ring::Piece;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, ClientConnection, Resumption};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, ServerConnection};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, Connection, DigitallySignedStruct, DistinguishedName, Error,
    ServerConfig, SignatureScheme,
};
use std::io::{self, Read, Write};
use std::sync::Arc;

/// Separates the derived key from all other uses of the cluster key.
const CONTEXT: &[u8] = b"futago block link tls key 1";
/// What stands before the 32 bytes of an Ed25519 seed in PKCS#8 (RFC 8410).
const PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// TLS wants a name; nobody looks it up, the key decides.
const NAME: &str = "twin.futago.invalid";
/// Most plaintext that can lie undelivered in the connection: one record.
pub(crate) const RECORD_BYTES: usize = 18 * 1024;

/// The state of one connection.
pub(crate) struct Tls(Connection);

impl std::fmt::Debug for Tls {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("Tls")
    }
}

#[derive(Debug)]
struct Pinned {
    key: Vec<u8>,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn check(&self, shown: &CertificateDer<'_>) -> Result<(), Error> {
        // Public on both sides: nothing to hide by constant time.
        if shown.as_ref() == self.key { Ok(()) } else { Err(CertificateError::UnknownIssuer.into()) }
    }

    fn signed(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signature, known)
    }
}

fn too_old() -> Error {
    Error::General("TLS 1.3 is wanted".into())
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(shown).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(shown).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

fn connection(key: &Key, end: End) -> Result<Connection, Error> {
    let provider = Arc::new(ring::default_provider());
    let seed = key.derive(CONTEXT);
    let pkcs8 = PrivatePkcs8KeyDer::from([PKCS8.as_slice(), &seed].concat());
    let signer = ring::sign::any_eddsa_type(&pkcs8)?;
    let public = signer.public_key().ok_or(Error::General("a key without its public half".into()))?.to_vec();
    let mine = Arc::new(CertifiedKey::new(vec![CertificateDer::from(public.clone())], signer));
    let pinned = Arc::new(Pinned { key: public, provider: provider.clone() });
    Ok(match end {
        End::Dialler => {
            let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?;
            let config = config.dangerous().with_custom_certificate_verifier(pinned);
            let mut config =
                config.with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(mine)));
            config.resumption = Resumption::disabled();
            let name = ServerName::try_from(NAME).map_err(|_| Error::General("name".into()))?;
            ClientConnection::new(Arc::new(config), name)?.into()
        }
        End::Listener => {
            let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?;
            let config = config.with_client_cert_verifier(pinned);
            let mut config =
                config.with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(mine)));
            config.send_tls13_tickets = 0;
            ServerConnection::new(Arc::new(config))?.into()
        }
    })
}

impl Tls {
    /// The handshake over a stream whose reads and writes are bounded in time by the caller.
    ///
    /// # Errors
    /// The other end is silent or shows another key.
    pub(crate) fn shake(stream: &mut (impl Read + Write), end: End, key: &Key) -> Result<Self, Stranger> {
        let mut connection = connection(key, end).map_err(io::Error::other)?;
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
    /// Not what the twin sent, or no room.
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

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
