//! Who may enter an export over TCP: a certificate authority for each mirror set, which both servers derive from the cluster
//! key, and the certificates that it signs. Nothing of it is stored, so that nothing can be lost or fall out of step.
//!
//! QEMU and libnbd know two ways of TLS: shared secrets (TLS-PSK), which rustls does not speak, and certificates. A set has an
//! authority of its own, so that papers for one set open no other. There is no list of papers taken back: they end by their date.

use crate::link::handshake::Key;
use crate::tls::pkcs8;
use anyhow::{Context as _, ensure};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SanType, date_time_ymd,
};
use rustls::crypto::ring;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use wire::SetId;

/// Separates the derived key from all other uses of the cluster key.
const CONTEXT: &[u8] = b"futago export authority 1";
const DAY: Duration = Duration::from_secs(86_400);
/// Longest life of a client's certificate: nothing else ends it.
pub const PAPERS_DAYS_MAX: u32 = 3_650;

/// What a client needs: the contents of the three files that QEMU and libnbd look for in a folder.
#[derive(Clone)]
pub struct Papers {
    /// `ca-cert.pem`: whom to believe that it is the set.
    pub authority: String,
    /// `client-cert.pem`.
    pub certificate: String,
    /// `client-key.pem`, **secret**: who has it can read and write the set.
    pub key: String,
}

impl std::fmt::Debug for Papers {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("Papers")
    }
}

/// Makes papers for a client of a set's export, good for so many days (at most [`PAPERS_DAYS_MAX`]).
///
/// # Errors
/// The cluster key cannot be read, the name cannot stand in a certificate, or they would be good for too long.
pub fn issue(key_file: &Path, set: SetId, name: &str, days: u32) -> anyhow::Result<Papers> {
    ensure!(days <= PAPERS_DAYS_MAX, "days: {days} is too long, at most {PAPERS_DAYS_MAX}");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock is wrong")?;
    Authority::of(&crate::run::read_key(key_file)?, set)?.client(name, now + DAY * days)
}

/// The authority of a set.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// Derives it: the same on both servers.
    ///
    /// # Errors
    /// The libraries refuse.
    pub(crate) fn of(key: &Key, set: SetId) -> anyhow::Result<Self> {
        let seed = key.derive(&[CONTEXT, &set.0.to_le_bytes()].concat());
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8(seed), &PKCS_ED25519)?;
        let mut wanted = CertificateParams::default();
        wanted.distinguished_name.push(DnType::CommonName, format!("futago export of set {}", set.0));
        wanted.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        wanted.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Ok(Authority(CertifiedIssuer::self_signed(wanted, pair)?))
    }

    fn sign(
        &self,
        name: &str,
        purpose: ExtendedKeyUsagePurpose,
        change: impl FnOnce(&mut CertificateParams),
    ) -> anyhow::Result<(Certificate, KeyPair)> {
        // Not Ed25519: a key file of that kind is written in a form that not every library reads.
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut wanted = CertificateParams::default();
        wanted.distinguished_name.push(DnType::CommonName, name);
        wanted.extended_key_usages = vec![purpose];
        wanted.use_authority_key_identifier_extension = true;
        change(&mut wanted);
        Ok((wanted.signed_by(&pair, &self.0)?, pair))
    }

    /// What an export at these addresses shows and asks for; its key lives as long as the process.
    ///
    /// # Errors
    /// The libraries refuse.
    pub(crate) fn server(&self, addresses: &[IpAddr]) -> anyhow::Result<Arc<ServerConfig>> {
        let names = addresses.iter().map(|address| SanType::IpAddress(*address)).collect();
        let (certificate, pair) =
            self.sign("futago export", ExtendedKeyUsagePurpose::ServerAuth, |wanted| {
                wanted.subject_alt_names = names;
            })?;
        let provider = Arc::new(ring::default_provider());
        let mut known = RootCertStore::empty();
        known.add(self.0.der().clone())?;
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(known), provider.clone()).build()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(clients)
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivatePkcs8KeyDer::from(pair.serialize_der()).into(),
            )?;
        // A client that comes again shows its certificate again: its date may have passed.
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// Good until so long after 1970.
    fn client(&self, name: &str, end: Duration) -> anyhow::Result<Papers> {
        let (certificate, pair) = self.sign(name, ExtendedKeyUsagePurpose::ClientAuth, |wanted| {
            wanted.not_after = date_time_ymd(1970, 1, 1) + end;
        })?;
        Ok(Papers { authority: self.0.pem(), certificate: certificate.pem(), key: pair.serialize_pem() })
    }
}

#[cfg(test)]
#[path = "papers_tests.rs"]
mod tests;
