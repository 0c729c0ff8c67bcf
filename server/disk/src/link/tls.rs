//! TLS 1.3 on a connection of the block link. Both ends show a raw Ed25519 key that only who knows the cluster key can
//! derive, and accept no other: mutual authentication without certificates to renew.

use super::handshake::{End, Key, Stranger};
use crate::tls::{Tls, pkcs8};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, ClientConnection, Resumption};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
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
/// TLS wants a name; nobody looks it up, the key decides.
const NAME: &str = "twin.futago.invalid";

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
    let pkcs8 = pkcs8(key.derive(CONTEXT));
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

/// The handshake over a stream whose reads and writes are bounded in time by the caller.
///
/// # Errors
/// The other end is silent or shows another key.
pub(crate) fn shake(stream: &mut (impl Read + Write), end: End, key: &Key) -> Result<Tls, Stranger> {
    let connection = connection(key, end).map_err(io::Error::other)?;
    Ok(Tls::shake(connection, stream)?)
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
