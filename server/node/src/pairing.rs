//! The one-time code by which a server or witness lets itself be taken into a cluster: a secret and its certificate's
//! fingerprint, so that whoever types it talks to exactly that process and nobody between.

use crate::data::{DataDir, hex, random, spell, unhex, unspell};
use crate::tls::{PIN_BYTES, Pin};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// 80 bits: no guess hits within a day over a network.
const SECRET_BYTES: usize = 10;
/// How long a code is good.
const VALID_SECONDS: u64 = 24 * 3600;
/// Letters in a group of the code.
const GROUP: usize = 6;

/// Keeps the code of this process in its folder (mode 0600), so that `futago code` shows it too.
#[derive(Clone, Debug)]
pub struct Pairing {
    file: PathBuf,
    fingerprint: String,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    secret: String,
    expires_at: u64,
}

/// A code as typed by an operator.
pub struct Code {
    /// Proves that its bearer was shown the code.
    pub secret: String,
    /// Whom to expect there.
    pub pin: Pin,
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Pairing {
    /// The code kept in this folder, of the process with this fingerprint.
    #[must_use]
    pub fn of(data: &DataDir, fingerprint: &str) -> Pairing {
        Pairing { file: data.file("pairing.json"), fingerprint: fingerprint.to_string() }
    }

    fn kept(&self) -> Option<Kept> {
        let kept: Kept = serde_json::from_slice(&fs::read(&self.file).ok()?).ok()?;
        (kept.expires_at > seconds()).then_some(kept)
    }

    /// The code in force; a used or expired one is replaced.
    ///
    /// # Errors
    /// The file cannot be written, or there are no random bytes.
    pub fn code(&self) -> anyhow::Result<String> {
        let secret = match self.kept().and_then(|kept| unhex(&kept.secret)) {
            Some(secret) => secret,
            None => {
                let fresh = random::<SECRET_BYTES>()?;
                let kept = Kept { secret: hex(&fresh), expires_at: seconds() + VALID_SECONDS };
                os::durable::write(&self.file, &serde_json::to_vec(&kept)?)?;
                fresh.to_vec()
            }
        };
        let pin = unhex(&self.fingerprint).unwrap_or_default();
        let bytes: Vec<u8> = secret.into_iter().chain(pin.into_iter().take(PIN_BYTES)).collect();
        Ok(spell(&bytes, GROUP))
    }

    /// Whether this is the secret of the code in force.
    #[must_use]
    pub fn knows(&self, secret: &str) -> bool {
        // Hashes are compared: the time it takes tells nothing of the secret.
        self.kept()
            .is_some_and(|kept| blake3::hash(kept.secret.as_bytes()) == blake3::hash(secret.as_bytes()))
    }

    /// The code was used: it opens nothing any more.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn used(&self) -> anyhow::Result<()> {
        fs::remove_file(&self.file)?;
        Ok(())
    }
}

/// Reads a typed code; `None` if a letter is wrong or missing.
#[must_use]
pub fn read(code: &str) -> Option<Code> {
    let bytes = unspell(code, SECRET_BYTES + PIN_BYTES)?;
    let (secret, pin) = bytes.split_at(SECRET_BYTES);
    Some(Code { secret: hex(secret), pin: Pin::Fingerprint(hex(pin)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_names_the_process_and_is_good_once() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(folder.path()).unwrap();
        let fingerprint = "ab".repeat(32);
        let pairing = Pairing::of(&data, &fingerprint);
        let shown = pairing.code().unwrap();
        assert_eq!(Pairing::of(&data, &fingerprint).code().unwrap(), shown, "stays until used");
        let code = read(&shown).unwrap();
        assert_eq!(code.pin, Pin::Fingerprint("ab".repeat(16)));
        assert!(pairing.knows(&code.secret));
        assert!(!pairing.knows("00112233445566778899"));
        pairing.used().unwrap();
        assert!(!pairing.knows(&code.secret));
        assert_ne!(pairing.code().unwrap(), shown);
        assert!(read("ABC").is_none());
    }
}
