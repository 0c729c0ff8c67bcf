//! What the demo must not leave on the machine: compared before a start and after the end.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Everything on this machine that a demo could have made and not taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers(Found);

/// What was found in words, and the file or folder it concerns, if one.
type Found = BTreeMap<String, Option<PathBuf>>;

impl Leftovers {
    /// Looks at the machine; `program` is the name of the executable whose processes count.
    #[must_use]
    pub fn look(program: &Path) -> Self {
        let mut found = Found::new();
        namespaces(&mut found);
        mounts(&mut found);
        loops(&mut found);
        links(&mut found);
        processes(program, &mut found);
        Self(found)
    }

    /// What is there that was not there before. A path outside of the demo's folder is somebody else's: tests of other
    /// parts may run on this machine meanwhile. A short one is what the kernel shows of a mount that was taken away.
    #[must_use]
    pub fn since(&self, before: &Self, folder: &Path) -> Vec<String> {
        let is_ours = |path: &Path| path.starts_with(folder) || path.components().count() <= 2;
        let ours = |path: &Option<PathBuf>| path.as_deref().is_none_or(is_ours);
        let new = self.0.iter().filter(|(text, path)| !before.0.contains_key(*text) && ours(path));
        new.map(|(text, _)| text.clone()).collect()
    }
}

fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn namespaces(found: &mut Found) {
    for folder in ["/run/netns", "/var/run/netns"] {
        found.extend(names(folder).into_iter().map(|name| (format!("network namespace {name}"), None)));
    }
}

/// Mounts in this process's own namespace; those in a host's private one die with its last process.
fn mounts(found: &mut Found) {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for line in table.lines() {
        let fields: Vec<&str> = line.split_whitespace().take(3).collect();
        found.insert(format!("mount {}", fields.join(" ")), fields.get(1).map(PathBuf::from));
    }
}

fn loops(found: &mut Found) {
    for name in names("/sys/block") {
        if let Ok(backing) = fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")) {
            let backing = backing.trim();
            found.insert(format!("loop device {name} on {backing}"), Some(PathBuf::from(backing)));
        }
    }
}

fn links(found: &mut Found) {
    found.extend(names("/sys/class/net").into_iter().map(|name| (format!("network interface {name}"), None)));
}

fn processes(program: &Path, found: &mut Found) {
    for name in names("/proc") {
        if name.bytes().all(|byte| byte.is_ascii_digit())
            && let Ok(executable) = fs::read_link(format!("/proc/{name}/exe"))
            && executable.to_string_lossy().trim_end_matches(" (deleted)") == program.to_string_lossy()
        {
            let words = fs::read(format!("/proc/{name}/cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            found.insert(format!("process {name}: {}", words.trim()), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_goes_on_is_found() {
        let sleep = fs::canonicalize("/bin/sleep").unwrap();
        let before = Leftovers::look(&sleep);
        let mut child = std::process::Command::new(&sleep).arg("50").spawn().unwrap();
        // The child has its own executable only after its exec.
        let mut left = Vec::new();
        for _ in 0..1000 {
            left = Leftovers::look(&sleep).since(&before, Path::new("/tmp"));
            if !left.is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(left.iter().any(|found| found.starts_with(&format!("process {}:", child.id()))), "{left:?}");
        let gone = Leftovers::look(&sleep).since(&before, Path::new("/tmp"));
        assert!(!gone.iter().any(|found| found.contains(&child.id().to_string())), "{gone:?}");
    }
}
