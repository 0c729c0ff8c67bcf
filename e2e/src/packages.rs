//! What the tests need beside Rust, and how it gets onto the machine.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::command;

/// One thing the tests call, and the Debian package that brings it.
struct Need {
    /// A file that is there when the package is.
    file: &'static str,
    package: &'static str,
    why: &'static str,
}

const NEEDS: &[Need] = &[
    Need { file: "/usr/bin/cc", package: "gcc", why: "builds SQLite" },
    Need { file: "/usr/sbin/mkfs.ext4", package: "e2fsprogs", why: "the file system on the mirror" },
    Need { file: "/usr/sbin/ip", package: "iproute2", why: "hosts of the data path's rig" },
    Need { file: "/usr/sbin/mkfs.xfs", package: "xfsprogs", why: "a disk with data is recognised" },
    Need { file: "/usr/sbin/sfdisk", package: "fdisk", why: "a disk with partitions is recognised" },
    Need { file: "/usr/sbin/pvcreate", package: "lvm2", why: "a disk of LVM is refused" },
    Need { file: "/usr/bin/chromium", package: "chromium", why: "browser tests" },
    Need { file: "/usr/bin/chromedriver", package: "chromium-driver", why: "browser tests" },
    Need {
        file: "/usr/share/fonts/opentype/ipafont-gothic/ipag.ttf",
        package: "fonts-ipafont-gothic",
        why: "Japanese in the pictures",
    },
];

/// What only shows call.
const SHOW_NEEDS: &[Need] = &[
    Need { file: "/usr/bin/fio", package: "fio", why: "measures block devices, verifies files" },
    Need { file: "/usr/bin/stress-ng", package: "stress-ng", why: "a load on file systems like fsstress's" },
    Need {
        file: "/usr/lib/postgresql/15/bin/initdb",
        package: "postgresql-15",
        why: "a database on the mirror",
    },
    Need { file: "/usr/bin/setpriv", package: "util-linux", why: "a database does not run as root" },
    Need {
        file: "/usr/bin/qemu-storage-daemon",
        package: "qemu-system-common",
        why: "the peer of mirror-speed",
    },
    Need { file: "/usr/sbin/keepalived", package: "keepalived", why: "a peer of failover-gap" },
    Need { file: "/usr/sbin/corosync", package: "corosync", why: "a peer of failover-gap" },
    Need { file: "/usr/sbin/pacemakerd", package: "pacemaker", why: "a peer of failover-gap" },
    Need { file: "/usr/sbin/crm_mon", package: "pacemaker-cli-utils", why: "a peer of failover-gap" },
    Need {
        file: "/usr/lib/ocf/resource.d/heartbeat/IPaddr2",
        package: "resource-agents",
        why: "a peer of failover-gap",
    },
    Need { file: "/usr/bin/qemu-io", package: "qemu-utils", why: "judges the NBD export" },
    Need { file: "/usr/bin/nbdcopy", package: "libnbd-bin", why: "judges the NBD export" },
    Need { file: "/usr/lib/x86_64-linux-gnu/libnbd.so.0", package: "libnbd0", why: "fio's NBD client" },
];

const WASM: &str = "wasm32-unknown-unknown";

/// Installs what is missing and says which.
///
/// # Errors
/// When something is missing and cannot be installed; the text names it.
pub fn install() -> Result<()> {
    install_all(&mut NEEDS.iter())
}

/// The same for shows, which call more.
///
/// # Errors
/// As [`install`].
pub fn install_for_shows() -> Result<()> {
    install_all(&mut NEEDS.iter().chain(SHOW_NEEDS))
}

fn install_all(needs: &mut dyn Iterator<Item = &'static Need>) -> Result<()> {
    let missing: Vec<&Need> = needs.filter(|need| !Path::new(need.file).exists()).collect();
    if missing.is_empty() {
        println!("nothing to install");
    } else {
        for need in &missing {
            println!("missing: {} ({})", need.package, need.why);
        }
        let names: Vec<&str> = missing.iter().map(|need| need.package).collect();
        if !rustix::process::geteuid().is_root() {
            bail!("install these as root: apt-get install --no-install-recommends {}", names.join(" "));
        }
        apt(&["update", "--quiet"])?;
        let mut arguments = vec!["install", "--yes", "--quiet", "--no-install-recommends"];
        arguments.extend(&names);
        apt(&arguments)?;
    }
    wasm_target()
}

fn apt(arguments: &[&str]) -> Result<()> {
    let mut apt = Command::new("apt-get");
    apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(std::process::Stdio::null());
    if !command::shown(&mut apt)? {
        bail!("apt-get {} failed", arguments.join(" "));
    }
    Ok(())
}

/// The toolchain file asks rustup for the target; a toolchain without rustup must bring it.
fn wasm_target() -> Result<()> {
    let sysroot = command::output(
        Command::new("rustc").args(["--print", "sysroot"]),
        std::time::Duration::from_secs(600),
    )?;
    if Path::new(sysroot.trim()).join("lib/rustlib").join(WASM).exists() {
        return Ok(());
    }
    println!("missing: the Rust target {WASM}");
    if !command::shown(Command::new("rustup").args(["target", "add", WASM]))? {
        bail!("rustup target add {WASM} failed");
    }
    Ok(())
}
