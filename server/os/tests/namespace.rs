//! Pid, mount, host name and time namespaces on the real kernel.
#![allow(clippy::unwrap_used)] // helpers of tests, where the lint's own exception does not reach

mod support;

use os::clock::{BootClock, Clock as _};
use os::namespace::{self, Kind};
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use support::with_namespaces;

const AHEAD: i64 = 1_000_000;

#[test]
fn children_of_new_namespaces_have_their_own_clock_pid_and_host_name() {
    let here = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let own = BootClock.now().0 / 1_000_000;
    let seen = with_namespaces(&[Kind::Mount, Kind::Uts, Kind::Pid], || {
        namespace::set_host_name("twin").unwrap();
        let output =
            Command::new("/bin/sh").args(["-c", "echo $$; cat /proc/sys/kernel/hostname"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    });
    assert_eq!(seen, "1\ntwin\n");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), here);
    let mut program = Command::new("/bin/sh");
    program.args(["-c", "cat /proc/uptime; exit 0"]);
    // SAFETY: glibc keeps the allocator usable in the forked child, which is all these two calls use besides the kernel.
    #[allow(unsafe_code)]
    unsafe {
        program.pre_exec(|| {
            let made = namespace::unshare(&[Kind::Time]).and_then(|()| namespace::set_clock_offset(AHEAD));
            made.map_err(|failure| failure.source)
        });
    }
    let printed = String::from_utf8(program.output().unwrap().stdout).unwrap();
    let ahead: u64 = printed.split('.').next().unwrap().parse().unwrap();
    assert!(ahead.abs_diff(own + AHEAD.unsigned_abs()) < 60);
}

#[test]
fn a_thread_enters_the_namespace_of_a_process() {
    let child = with_namespaces(&[Kind::Network], || Command::new("/bin/sleep").arg("600").spawn().unwrap());
    let mut child = child;
    let space = os::netns::NetNamespace::of_process(child.id()).unwrap();
    let inside = space.run(|net| net.links().unwrap().len()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(inside >= 1);
    space.run(|net| net.create_bridge("only-here")).unwrap().unwrap();
    let mut own = os::link::Network::open().unwrap();
    assert!(own.link("only-here").is_err());
}
