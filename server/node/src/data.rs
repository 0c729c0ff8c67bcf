//! The folder of a node or witness: where each of its files lies, and small secrets with their text form.

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use wire::SetId;

/// The folder given by `--data`.
#[derive(Clone, Debug)]
pub struct DataDir(PathBuf);

/// What a command on the same host needs to talk to the process that owns the folder. Holds a secret: mode 0600.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LocalAccess {
    /// Where the process listens.
    pub address: SocketAddr,
    /// SHA-256 of its certificate.
    pub fingerprint: String,
    /// Bearer token, new at each start.
    pub token: String,
    /// The process.
    pub pid: u32,
}

impl DataDir {
    /// Opens the folder, making it and its `run` and `log` folders, readable by the owner only.
    ///
    /// # Errors
    /// The file system refused.
    pub fn open(path: &Path) -> anyhow::Result<DataDir> {
        for folder in [path.to_path_buf(), path.join("run"), path.join("log")] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .with_context(|| format!("make the folder {}", folder.display()))?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .with_context(|| format!("make {} private", path.display()))?;
        let path = path.canonicalize().with_context(|| format!("find {}", path.display()))?;
        Ok(DataDir(path))
    }

    /// A folder that another process made.
    #[must_use]
    pub fn existing(path: &Path) -> DataDir {
        DataDir(path.to_path_buf())
    }

    /// A file of the folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The control socket of a mirror set's process.
    #[must_use]
    pub fn disk_socket(&self, set: SetId) -> PathBuf {
        self.0.join(format!("run/set-{}.sock", set.0))
    }

    /// The output of a mirror set's process.
    #[must_use]
    pub fn disk_log(&self, set: SetId) -> PathBuf {
        self.0.join(format!("log/set-{}.log", set.0))
    }

    /// The key that the members of the cluster share; it never enters the database or a log.
    #[must_use]
    pub fn cluster_key_file(&self) -> PathBuf {
        self.file("cluster.key")
    }

    /// The cluster key, once the cluster exists.
    ///
    /// # Errors
    /// The file cannot be read or has another length.
    pub fn cluster_key(&self) -> anyhow::Result<[u8; 32]> {
        let path = self.cluster_key_file();
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        bytes.try_into().map_err(|_| anyhow::anyhow!("{} is damaged: it has not 32 bytes", path.display()))
    }

    /// Leaves word for commands on this host.
    ///
    /// # Errors
    /// The file system refused.
    pub fn write_access(&self, access: &LocalAccess) -> anyhow::Result<()> {
        Ok(os::durable::write(&self.file("run/api.json"), &serde_json::to_vec(access)?)?)
    }

    /// What the running process left.
    ///
    /// # Errors
    /// It never ran here, or the caller may not read it.
    pub fn access(&self) -> anyhow::Result<LocalAccess> {
        let path = self.file("run/api.json");
        let text = fs::read(&path).with_context(|| {
            format!("read {}: is a node running there, and are you root?", path.display())
        })?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
    }
}

/// Random bytes of the kernel.
///
/// # Errors
/// The kernel has none.
pub fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|fault| anyhow::anyhow!("no random bytes from the kernel: {fault}"))?;
    Ok(bytes)
}

/// Hexadecimal text.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes of hexadecimal text.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

/// Letters and digits that are not taken for one another when read aloud (Crockford's base 32).
const LETTERS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Bytes as text for people: groups of `group` letters.
#[must_use]
pub fn spell(bytes: &[u8], group: usize) -> String {
    let mut text = String::new();
    let (mut bits, mut held, mut letters) = (0u32, 0u32, 0usize);
    for byte in bytes.iter().copied().chain(std::iter::once(0)) {
        held = (held << 8) | u32::from(byte);
        bits += 8;
        while bits >= 5 && letters < (bytes.len() * 8).div_ceil(5) {
            if letters > 0 && letters.is_multiple_of(group) {
                text.push('-');
            }
            bits -= 5;
            text.push(char::from(LETTERS[((held >> bits) & 31) as usize]));
            letters += 1;
        }
    }
    text
}

/// Bytes from text of [`spell`]; case, hyphens and spaces do not matter, and O, I, L are taken for 0, 1, 1.
#[must_use]
pub fn unspell(text: &str, length: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length);
    let (mut bits, mut held) = (0u32, 0u32);
    for letter in text.trim().chars().filter(|letter| !matches!(letter, '-' | ' ')) {
        let letter = match letter.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        };
        let value = LETTERS.iter().position(|known| char::from(*known) == letter)?;
        held = (held << 5) | u32::try_from(value).ok()?;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits & 0xff) as u8);
        }
    }
    (bytes.len() == length).then_some(bytes)
}

/// Hash under which a random secret is kept. The secrets have 80 bits and more, so a plain hash cannot be turned back.
#[must_use]
pub fn secret_hash(secret: &[u8]) -> [u8; 32] {
    blake3::derive_key("futago 2026 kept secret", secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelled_bytes_come_back_however_they_are_typed() {
        for length in [5, 10, 16, 26] {
            let bytes: Vec<u8> = (0..length).map(|i: u8| i.wrapping_mul(73) ^ 0xa5).collect();
            let text = spell(&bytes, 5);
            assert_eq!(unspell(&text, bytes.len()), Some(bytes.clone()), "{text}");
            let typed = text.to_lowercase().replace('-', " ").replace('0', "o").replace('1', "l");
            assert_eq!(unspell(&typed, bytes.len()), Some(bytes), "{typed}");
        }
        assert_eq!(unspell("ABCU", 2), None);
        assert_eq!(unspell("", 2), None);
    }

    #[test]
    fn hexadecimal_goes_both_ways() {
        assert_eq!(unhex(&hex(&[0, 255, 16])), Some(vec![0, 255, 16]));
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("zz"), None);
    }
}
