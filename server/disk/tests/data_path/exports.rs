//! What the NBD export must do, told as one story each.

use crate::host::{Pair, SIZE, admit};
use crate::nbd::{Client, DISCONNECT, FLUSH, FUA, READ, TRIM, WRITE, ZERO};
use crate::scenarios::{bytes, open, promote, read};
use disk::{DiskOptions, ExportOptions};
use peer::control::{DiskOrder, OrderFault, Role};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use wire::{Epoch, Generation, NodeId};

/// Every story.
pub const ALL: &[(&str, fn())] = &[
    ("an_export_and_the_device_are_one_disk_and_every_request_is_answered_right", requests),
    ("many_clients_at_once_share_one_order_and_slots_are_bounded", many),
    ("over_tcp_only_clients_with_the_sets_papers_are_let_in_and_speak_tls", secured),
    ("what_a_client_wrote_durably_survives_the_power_loss_of_the_active_side", durable),
    ("an_export_is_there_only_while_its_set_is_active_and_a_fence_cuts_its_clients", comes_and_goes),
];

fn path(options: &DiskOptions) -> PathBuf {
    options.state.with_extension("nbd")
}

fn exported(options: &mut DiskOptions) {
    options.nbd =
        Some(ExportOptions { name: "data".into(), unix: Some(path(options)), tcp: Vec::new(), tls: false });
}

const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;

fn requests() {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut pair = Pair::new(|options| {
        exported(options);
        if options.side == NodeId(1) {
            options.nbd.as_mut().unwrap().tcp = vec![address];
        }
    });
    pair.build();
    let places = pair.one.status().exports;
    let unix = path(&pair.one.options);
    assert_eq!(
        places,
        [format!("nbd+unix:///data?socket={}", unix.display()), format!("nbd://127.0.0.1:{port}/data")]
    );
    let (mut one, mut two) = (Client::unix(&unix).unwrap(), Client::tcp(address).unwrap());
    assert_eq!((one.size, two.size), (SIZE, SIZE));
    let device = pair.one.device();
    // Written by one, seen by the other and by the device, of every size that takes another way.
    let mut offset = 0;
    for (seed, length) in (1..).zip([512, 4096, 16 << 10, 20 << 10, 256 << 10, 1 << 20]) {
        let payload = bytes(seed, length);
        let flags = if seed % 2 == 0 { FUA } else { 0 };
        assert_eq!(one.write(flags, offset, &payload), 0);
        assert_eq!(two.read(offset, length as u32), payload);
        assert_eq!(read(&device, offset, length), payload);
        offset += length as u64;
    }
    open(&device).write_all_at(&bytes(9, 4096), 8192).unwrap();
    assert_eq!(two.read(8192, 4096), bytes(9, 4096));
    // A write to be durable is in both images when it is answered.
    assert_eq!(two.write(FUA, 50 << 20, &bytes(10, 8192)), 0);
    for host in [&pair.one, &pair.two] {
        assert!(host.data()[50 << 20..].starts_with(&bytes(10, 8192)));
    }
    // Zeroes over more than one piece, by both commands.
    one.write(0, 49 << 20, &bytes(11, 1 << 20));
    assert_eq!(one.ask(ZERO, FUA, 10 << 20, 40 << 20, &[]).unwrap().0, 0);
    assert!(two.read(49 << 20, 1 << 20).iter().all(|byte| *byte == 0));
    assert_eq!(two.read(50 << 20, 8192), bytes(10, 8192));
    assert_eq!(one.ask(TRIM, 0, 50 << 20, 4096, &[]).unwrap().0, 0);
    assert!(two.read(50 << 20, 4096).iter().all(|byte| *byte == 0));
    // More at once than may be under way, and nothing after: none is left lying.
    let asked: Vec<u64> = (0..100).map(|_| one.send(READ, 0, 0, 512, &[]).unwrap()).collect();
    let mut answered: Vec<u64> = asked.iter().map(|_| one.reply().unwrap().0).collect();
    answered.sort_unstable();
    assert_eq!(answered, asked);
    // What cannot be is refused, payload and all, and the connection goes on.
    assert_eq!(one.write(0, 1, &bytes(1, 512)), EINVAL);
    assert_eq!(one.write(0, 0, &bytes(1, 100)), EINVAL);
    assert_eq!(one.write(0, 0, &bytes(1, (1 << 20) + 512)), EINVAL);
    assert_eq!(one.write(0, SIZE - 512, &bytes(1, 1024)), ENOSPC);
    assert_eq!(one.ask(READ, 0, SIZE, 512, &[]).unwrap().0, EINVAL);
    assert_eq!(one.ask(READ, 0, 0, 2 << 20, &[]).unwrap().0, EINVAL);
    assert_eq!(one.ask(ZERO, 0, 0, 100, &[]).unwrap().0, EINVAL);
    assert_eq!(one.ask(77, 0, 0, 512, &[]).unwrap().0, EINVAL);
    assert_eq!(one.read(0, 512), bytes(1, 512));
    assert_eq!(one.ask(FLUSH, 0, 0, 0, &[]).unwrap().0, 0);
    one.send(DISCONNECT, 0, 0, 0, &[]).unwrap();
    assert!(one.reply().is_err(), "still connected");
    // Not the protocol: cut off.
    two.send(READ, 0, 0, 512, &[0xff; 28]).unwrap();
    // The read before may be answered or not.
    assert!(two.reply().and_then(|_| two.reply()).is_err());
    pair.one.order(DiskOrder::Deactivate).unwrap();
    assert!(pair.one.data() == pair.two.data(), "the images differ");
}

fn secured() {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut pair = Pair::new(|options| {
        exported(options);
        if options.side == NodeId(1) {
            let export = options.nbd.as_mut().unwrap();
            (export.tcp, export.tls) = (vec![address], true);
        }
    });
    pair.build();
    assert_eq!(pair.one.status().exports[1], format!("nbds://127.0.0.1:{port}/data"));
    let options = &pair.one.options;
    let issue = |set| disk::issue(&options.key_file, set, "test", 1).unwrap();
    let papers = issue(options.set);
    // In clear: told to speak TLS.
    let refused = Client::tcp(address).err().unwrap().to_string();
    assert!(refused.contains("80000005"), "{refused}");
    let other = issue(wire::SetId(options.set.0 + 1));
    let other = disk::Papers { authority: papers.authority.clone(), ..other };
    assert!(Client::secured(address, &other).is_err(), "papers of another set");
    let (mut one, mut two) =
        (Client::secured(address, &papers).unwrap(), Client::unix(&path(options)).unwrap());
    assert_eq!(one.size, SIZE);
    let mut offset = 0;
    for (seed, length) in (1..).zip([512, 4096, 16 << 10, 20 << 10, 256 << 10, 1 << 20]) {
        let payload = bytes(seed, length);
        assert_eq!(one.write(FUA, offset, &payload), 0);
        assert_eq!(two.read(offset, length as u32), payload);
        assert_eq!(one.read(offset, length as u32), payload);
        offset += length as u64;
    }
    // Many at once in both directions: answers come as records of their own size, however the bytes are cut.
    let mut asked = std::collections::BTreeSet::new();
    for n in 0..200_u64 {
        let length = [512, 64 << 10, 1 << 20, 20 << 10][n as usize % 4];
        let at = n % 60 * (1 << 20);
        asked.insert(one.send(WRITE, 0, at, length as u32, &bytes(n, length)).unwrap());
        // Short ones: a client that does not listen while it speaks must not need the slots of its own answers.
        asked.insert(one.send(READ, 0, at, length.min(16 << 10) as u32, &[]).unwrap());
        while asked.len() > 20 {
            let (cookie, error, _) = one.reply().unwrap();
            assert!(error == 0 && asked.remove(&cookie));
        }
    }
    while !asked.is_empty() {
        let (cookie, error, _) = one.reply().unwrap();
        assert!(error == 0 && asked.remove(&cookie));
    }
    for n in 140..200_u64 {
        let length = [512, 64 << 10, 1 << 20, 20 << 10][n as usize % 4];
        assert!(two.read(n % 60 * (1 << 20), length as u32) == bytes(n, length), "{n}");
    }
    pair.one.order(DiskOrder::Deactivate).unwrap();
    assert!(one.reply().is_err());
    assert!(pair.one.data() == pair.two.data(), "the images differ");
}

fn many() {
    let mut pair = Pair::new(exported);
    pair.build();
    let unix = path(&pair.one.options);
    // More requests under way than there are slots or than one client may have; a slow client in between.
    let mut slow = Client::unix(&unix).unwrap();
    slow.send(WRITE, 0, 60 << 20, 1 << 20, &bytes(1, 4096)).unwrap();
    let clients: Vec<_> = (0..6_u64)
        .map(|client| {
            let unix = unix.clone();
            std::thread::spawn(move || {
                let mut nbd = Client::unix(&unix).unwrap();
                let mut wanted = BTreeMap::new();
                let length = [4096, 512 << 10, 16 << 10][client as usize % 3];
                for n in 0..60_u64 {
                    let offset = (client * 60 + n) % 100 * (512 << 10);
                    let payload = bytes(client * 60 + n, length);
                    wanted.insert(nbd.send(WRITE, 0, offset, length as u32, &payload).unwrap(), ());
                    // Reads overlap the writes of all others.
                    wanted.insert(nbd.send(READ, 0, offset, 4096, &[]).unwrap(), ());
                    while wanted.len() > 70 {
                        let (cookie, error, _) = nbd.reply().unwrap();
                        assert_eq!((error, wanted.remove(&cookie)), (0, Some(())));
                    }
                }
                while !wanted.is_empty() {
                    let (cookie, error, _) = nbd.reply().unwrap();
                    assert_eq!((error, wanted.remove(&cookie)), (0, Some(())));
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    // More than may be connected: turned away, the others go on.
    let crowd: Vec<_> = (0..20).map(|_| Client::unix(&unix)).collect();
    let inside = crowd.iter().filter(|client| client.is_ok()).count();
    assert!((10..=16).contains(&inside), "{inside} inside");
    drop(crowd);
    let mut late = Client::unix(&unix);
    while late.is_err() {
        late = Client::unix(&unix);
    }
    assert_eq!(late.unwrap().ask(FLUSH, 0, 0, 0, &[]).unwrap().0, 0);
    // Withdrawn although a client stands in the middle of a write.
    pair.one.order(DiskOrder::Deactivate).unwrap();
    assert!(slow.reply().is_err());
    assert!(pair.one.data() == pair.two.data(), "the images differ");
}

fn durable() {
    let mut pair = Pair::new(|options| {
        exported(options);
        options.volatile = true;
    });
    pair.build();
    let mut client = Client::unix(&path(&pair.one.options)).unwrap();
    let offset = |n: u64| n * 777 * 4096 % SIZE;
    for n in 0..48 {
        assert_eq!(client.write(FUA, offset(n), &bytes(n + 1, 4096)), 0);
    }
    for n in 48..64 {
        assert_eq!(client.write(0, offset(n), &bytes(n + 1, 4096)), 0);
    }
    assert_eq!(client.ask(ZERO, FUA, offset(3), 4096, &[]).unwrap().0, 0);
    assert_eq!(client.ask(FLUSH, 0, 0, 0, &[]).unwrap().0, 0);
    // Both lose power: only what was flushed is anywhere.
    pair.one.kill();
    pair.two.kill();
    assert!(client.ask(FLUSH, 0, 0, 0, &[]).is_err());
    pair.two.start();
    promote(&mut pair.two, 2);
    let mut client = Client::unix(&path(&pair.two.options)).unwrap();
    for n in 0..64 {
        let wanted = if n == 3 { vec![0; 4096] } else { bytes(n + 1, 4096) };
        assert_eq!(client.read(offset(n), 4096), wanted, "write {n} was durable, but is lost");
    }
    pair.one.start();
    admit(&mut pair.two, &mut pair.one);
}

fn comes_and_goes() {
    let mut pair = Pair::new(|options| {
        exported(options);
        options.device = false;
    });
    let one = &mut pair.one;
    one.start();
    let unix = path(&one.options);
    assert!(UnixStream::connect(&unix).is_err(), "exported before it is active");
    one.order(DiskOrder::LearnEpoch { epoch: Epoch(1), holder: NodeId(1) }).unwrap();
    let activate = DiskOrder::Activate { epoch: Epoch(1), alone: true, generation: Generation([1; 16]) };
    one.order(activate).unwrap();
    // Without a lease requests wait.
    let mut early = Client::unix(&unix).unwrap();
    let asked = early.send(WRITE, 0, 0, 4096, &bytes(1, 4096)).unwrap();
    one.order(DiskOrder::Report).unwrap();
    assert!(one.data()[..4096].iter().all(|byte| *byte == 0), "served without a lease");
    one.order(DiskOrder::Lease { until: None, fence_after_us: 500_000 }).unwrap();
    assert_eq!(early.reply().unwrap(), (asked, 0, Vec::new()));
    let status = one.wait("active", |status| status.role == Role::Active);
    assert_eq!((status.device, status.exports.len()), (None, 1));
    // Withdrawn in order: what was asked is answered, then the client is cut.
    one.order(DiskOrder::Deactivate).unwrap();
    assert!(early.ask(FLUSH, 0, 0, 0, &[]).is_err());
    assert!(UnixStream::connect(&unix).is_err() && one.status().exports.is_empty());
    // Offered anew; a path that is taken fails the activation instead of serving half of it.
    let activate = DiskOrder::Activate { epoch: Epoch(1), alone: true, generation: Generation([2; 16]) };
    std::fs::create_dir(&unix).unwrap();
    assert!(matches!(one.order(activate.clone()), Err(fault) if fault != OrderFault::Fenced));
    std::fs::remove_dir(&unix).unwrap();
    one.order(activate).unwrap();
    one.order(DiskOrder::Lease { until: None, fence_after_us: 500_000 }).unwrap();
    let mut client = Client::unix(&unix).unwrap();
    assert_eq!(client.read(0, 4096), bytes(1, 4096));
    let _ = one.order(DiskOrder::LearnEpoch { epoch: Epoch(2), holder: NodeId(2) });
    let answered = client.ask(WRITE, 0, 0, 4096, &bytes(2, 4096));
    assert!(answered.is_err(), "{answered:?} after the fence");
    assert!(one.data().starts_with(&bytes(1, 4096)), "written after the fence");
}
