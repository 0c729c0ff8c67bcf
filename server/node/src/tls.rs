//! Key, certificate and fingerprint of a process, and TLS pinned by fingerprints: there is no authority to trust.
//!
//! Peers name themselves by asking for [`PEER_NAME`]; only then is a certificate asked of the client, so that no browser
//! ever offers its owner's certificates.

use crate::data::{DataDir, hex};
use anyhow::Context as _;
use ring::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use std::fs;
use std::sync::Arc;

/// The name a peer asks for.
pub const PEER_NAME: &str = "peer.futago.invalid";
/// Bytes of a fingerprint in a pairing code: 128 bits cannot be met by a forged certificate.
pub const PIN_BYTES: usize = 16;

/// A process's key and certificate.
#[derive(Debug)]
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    /// SHA-256 of the certificate, hexadecimal.
    pub fingerprint: String,
}

/// SHA-256 of a certificate.
#[must_use]
pub fn fingerprint(certificate: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, certificate).as_ref())
}

/// Whom a client expects at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// The holder of this certificate: the fingerprint, or its first [`PIN_BYTES`] in hexadecimal.
    Fingerprint(String),
    /// Anybody (`--insecure`).
    Nobody,
}

impl Identity {
    /// The identity kept in the folder, made at the first start.
    ///
    /// # Errors
    /// The files cannot be read, or a key cannot be made.
    pub fn open(data: &DataDir, name: &str) -> anyhow::Result<Identity> {
        let (key_file, certificate_file) = (data.file("node.key"), data.file("node.crt"));
        if !certificate_file.exists() {
            let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
            let names = vec![name.to_string(), "localhost".into(), "127.0.0.1".into(), "::1".into()];
            let mut wanted = rcgen::CertificateParams::new(names)?;
            wanted.distinguished_name.push(rcgen::DnType::CommonName, name);
            let certificate = wanted.self_signed(&key)?;
            // The certificate last: with it in place both are.
            os::durable::write(&key_file, &key.serialize_der())?;
            os::durable::write(&certificate_file, certificate.der())?;
        }
        let read = |path| fs::read(path).with_context(|| format!("read {}", data.file("node.key").display()));
        let certificate = CertificateDer::from(read(&certificate_file)?);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(read(&key_file)?));
        Ok(Identity { fingerprint: fingerprint(&certificate), certificate, key })
    }

    /// For browsers and command lines.
    ///
    /// # Errors
    /// Key and certificate do not fit.
    pub fn page_config(&self) -> anyhow::Result<Arc<ServerConfig>> {
        let config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())?;
        Ok(Arc::new(config))
    }

    /// For peers: they must show a certificate; whether it is a known one is judged by each route.
    ///
    /// # Errors
    /// Key and certificate do not fit.
    pub fn peer_config(&self) -> anyhow::Result<Arc<ServerConfig>> {
        let verifier =
            Arc::new(Pinned { pin: Pin::Nobody, provider: Arc::new(provider::default_provider()) });
        let config = ServerConfig::builder_with_provider(verifier.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())?;
        Ok(Arc::new(config))
    }
}

/// Configuration of a client; with `identity` it shows that certificate when asked.
///
/// # Errors
/// Key and certificate do not fit.
pub fn client_config(pin: Pin, identity: Option<&Identity>) -> anyhow::Result<Arc<ClientConfig>> {
    let verifier = Arc::new(Pinned { pin, provider: Arc::new(provider::default_provider()) });
    let builder = ClientConfig::builder_with_provider(verifier.provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match identity {
        Some(me) => builder.with_client_auth_cert(vec![me.certificate.clone()], me.key.clone_key())?,
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// Accepts exactly the pinned certificate, and checks that the other end has its key.
#[derive(Debug)]
struct Pinned {
    pin: Pin,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        match &self.pin {
            Pin::Nobody => Ok(()),
            Pin::Fingerprint(pin) => {
                let found = fingerprint(certificate);
                let known = pin.len() >= 2 * PIN_BYTES && found.starts_with(&pin.to_ascii_lowercase());
                known.then_some(()).ok_or_else(|| {
                    Error::General(format!("the certificate there is {found}, not the pinned {pin}"))
                })
            }
        }
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }

    fn signature12(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn signature13(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(certificate).map(|()| ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature12(message, certificate, signed)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature13(message, certificate, signed)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(certificate).map(|()| ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature12(message, certificate, signed)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature13(message, certificate, signed)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
