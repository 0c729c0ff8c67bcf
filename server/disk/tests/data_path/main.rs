//! Two real disk processes over loopback, real FUSE and loop devices, scripted node processes. Needs root.
//!
//! The test program is also the disk process: started with `disk-process JSON` it runs one.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a story that cannot go on has failed")]

mod exports;
mod host;
mod modes;
mod nbd;
mod scenarios;
mod undo;
mod verify;
mod wire;

use std::time::Instant;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, json] = arguments.as_slice()
        && first == "disk-process"
    {
        tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_writer(std::io::stderr).init();
        let options = serde_json::from_str(json).expect("options");
        if let Err(error) = disk::run(options) {
            tracing::error!("{error:#}");
            std::process::exit(1);
        }
        return;
    }
    if let [first, backing, mount] = arguments.as_slice()
        && first == "show-old"
    {
        disk::show_old(backing.as_ref(), mount.as_ref(), |device| println!("{}", device.display()))
            .expect("an older version");
        return;
    }
    if arguments.iter().any(|argument| argument == "--list") {
        scenarios::ALL
            .iter()
            .chain(exports::ALL)
            .chain(verify::ALL)
            .chain(undo::ALL)
            .chain(modes::ALL)
            .for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    assert!(rustix::process::geteuid().is_root(), "these tests mount file systems: run them as root");
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let mut count = 0;
    let all = scenarios::ALL.iter().chain(exports::ALL).chain(verify::ALL).chain(undo::ALL).chain(modes::ALL);
    for (name, scenario) in all {
        if wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str())) {
            let began = Instant::now();
            // A panic ends the program with 101; what was started is taken down by the hosts' drop.
            scenario();
            println!("test {name} ... ok ({:.1} s)", began.elapsed().as_secs_f32());
            count += 1;
        }
    }
    println!("test result: ok. {count} passed");
}
