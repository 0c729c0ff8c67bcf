//! The other ways to acknowledge (C4): what waits for what, and what a standby owes.

use crate::desk::{Desk, G1, G2, SIZE, in_sync_with};
use mirror::input::{LocalResult, PayloadId, RequestId};
use mirror::{Faults, Input};
use peer::block::{Body, KeepOld};
use peer::control::DiskOrder;
use wire::traffic::WriteMode;

#[test]
fn semi_synchronous_a_write_is_answered_when_the_twin_has_received_it() {
    let mut desk = in_sync_with(WriteMode::SemiSynchronous);
    desk.write(1, 4096, 4096);
    desk.local();
    let of = desk.asked[0];
    assert_eq!(desk.twin(Body::Got { of }), [""; 0], "not before the own disk has it");
    assert_eq!(desk.local(), ["reply 1 0"]);
    // It is still under way on the twin: what overlaps follows it there, and a flush is one of both disks.
    assert_eq!(desk.write(2, 4096, 512), ["send Write of request 2", "write 4096 512 from request 2"]);
    assert_eq!(desk.input(Input::Flush { request: RequestId(3) }), ["send Flush", "flush"]);
    assert_eq!(desk.written(), [""; 0]);
    assert_eq!(desk.local(), [""; 0], "the second one has not come to the twin");
    assert_eq!(desk.written(), ["reply 2 0"]);
    assert_eq!(desk.local(), [""; 0]);
    assert_eq!(desk.flushed(), ["reply 3 0"]);
    assert_eq!(desk.mirror.status().dirty_blocks, 0);
}

#[test]
fn semi_synchronous_what_was_answered_is_recorded_when_the_link_goes() {
    let mut desk = in_sync_with(WriteMode::SemiSynchronous);
    desk.write(1, 4096, 4096);
    desk.local();
    desk.local();
    let of = desk.of();
    assert_eq!(desk.twin(Body::Got { of }), ["reply 1 0"]);
    desk.write(2, 8192, 4096);
    desk.local();
    desk.input(Input::LinkLost);
    desk.asked.clear();
    let status = desk.mirror.status();
    assert_eq!(
        (status.dirty_blocks, status.needs_twin),
        (1, true),
        "answered: recorded; the other is sent again"
    );
    desk.order(DiskOrder::PutOut { generation: G2 });
    let mut told = Vec::new();
    while !desk.ops.is_empty() && told.len() < 20 {
        told.extend(desk.local());
    }
    assert!(told.contains(&"reply 2 0".to_string()), "{told:?}");
    assert_eq!(desk.mirror.status().dirty_blocks, 2);
}

#[test]
fn semi_synchronous_a_standby_keeps_what_it_promised() {
    let mut desk = Desk::with(WriteMode::SemiSynchronous);
    desk.meet_active(vec![G1]);
    desk.twin(Body::BuildBegin { generation: G1, old: KeepOld::Not });
    desk.local();
    desk.local();
    desk.twin(Body::BuildDone { history: vec![G1] });
    assert_eq!(desk.local(), ["send BuildStored"]);
    let write = |offset, length| Body::Write { offset, length };
    let first = desk.twin_with(write(0, 8192), Some(PayloadId(1)));
    assert_eq!(first, ["send Got", "write 0 8192 from payload 1"]);
    assert_eq!(desk.twin_with(write(4096, 512), Some(PayloadId(2))), ["send Got"]);
    // A flush covers what was promised before it, and so waits for it; what comes later does not hold it up.
    assert_eq!(desk.twin(Body::Flush), [""; 0]);
    let later = desk.twin_with(write(65_536, 512), Some(PayloadId(3)));
    assert_eq!(later, ["send Got", "write 65536 512 from payload 3"]);
    assert_eq!(desk.local(), ["release payload 1", "send Written", "write 4096 512 from payload 2"]);
    let last = desk.ops.remove(1);
    let done = desk.input(Input::LocalDone { op: last, result: Ok(LocalResult::Done) });
    assert_eq!(done, ["flush", "release payload 2", "send Written"]);
    assert_eq!(desk.twin_with(write(65_536, 512), Some(PayloadId(4))), ["send Got"]);
    assert_eq!(desk.input(Input::LinkLost), [""; 0], "nothing promised is dropped");
    assert_eq!(desk.local(), ["release payload 3", "write 65536 512 from payload 4"]);
    assert_eq!(desk.local(), [""; 0], "the flush");
    assert_eq!(desk.local(), ["release payload 4"]);
}

#[test]
fn asynchronous_nothing_waits_for_the_twin_and_a_flush_is_a_barrier_for_it() {
    let mut desk = in_sync_with(WriteMode::Asynchronous);
    desk.write(1, 4096, 4096);
    desk.local();
    assert_eq!(desk.local(), ["reply 1 0"]);
    assert_eq!(desk.input(Input::Flush { request: RequestId(2) }), ["send Barrier", "flush"]);
    assert_eq!(desk.write(3, 4096, 512), ["send Write of request 3", "write 4096 512 from request 3"]);
    assert_eq!(desk.local(), ["reply 2 0"]);
    assert_eq!(desk.local(), ["reply 3 0"]);
    assert_eq!(desk.mirror.status().behind.map(|behind| behind.bytes), Some(4608));
    assert_eq!(desk.input(Input::Flush { request: RequestId(4) }), ["send Barrier", "flush"]);
    assert_eq!(desk.local(), ["reply 4 0"]);
    assert_eq!(desk.input(Input::Flush { request: RequestId(5) }), ["flush"], "nothing to divide");
    assert_eq!(desk.local(), ["reply 5 0"]);
    // The link goes: the map remembers, and writers still do not wait.
    desk.input(Input::LinkLost);
    let status = desk.mirror.status();
    assert_eq!((status.dirty_blocks, status.needs_twin), (1, true));
    desk.write(6, 8192, 4096);
    assert_eq!(desk.local(), ["reply 6 0"]);
    assert_eq!(desk.mirror.status().behind.map(|behind| behind.bytes), Some(4608 + 4096));
    // Nothing is copied to a twin that counts as in sync and lacks something: first it is put out.
    desk.asked.clear();
    desk.meet(&[G1], false);
    assert!(!desk.mirror.status().equal);
    assert_eq!(desk.asked, [0; 0]);
}

#[test]
fn asynchronous_writers_wait_when_the_twin_is_too_far_behind() {
    let mut desk = in_sync_with(WriteMode::Asynchronous);
    let most = u64::from(peer::block::PAYLOAD_BYTES_MAX);
    let fit = mirror::config::JOURNAL_BYTES_MAX / most;
    let mut answered = 0;
    for number in 0..=fit {
        desk.write(number + 1, 0, most as u32);
        while !desk.ops.is_empty() {
            answered += desk.local().iter().filter(|line| line.starts_with("reply")).count() as u64;
        }
    }
    assert_eq!(answered, fit, "the last one waits");
    assert!(desk.written().contains(&format!("reply {} 0", fit + 1)));
}

#[test]
fn asynchronous_a_standby_begins_nothing_behind_a_barrier_before_what_came_earlier_is_flushed() {
    behind_barriers(Faults::default());
}

/// Of the `rules_taken_out_are_seen` too.
pub fn behind_barriers(faults: Faults) {
    let mut desk = Desk::made(SIZE, WriteMode::Asynchronous, faults);
    desk.meet_active(vec![G1]);
    desk.twin(Body::BuildBegin { generation: G1, old: KeepOld::Not });
    desk.local();
    desk.local();
    desk.twin(Body::BuildDone { history: vec![G1] });
    assert_eq!(desk.local(), ["send BuildStored"]);
    let write = |offset, length| Body::Write { offset, length };
    assert_eq!(desk.twin_with(write(0, 512), Some(PayloadId(1))), ["write 0 512 from payload 1"]);
    assert_eq!(desk.twin(Body::Barrier), [""; 0]);
    assert_eq!(desk.twin_with(write(4096, 512), Some(PayloadId(2))), [""; 0]);
    assert_eq!(desk.twin(Body::Barrier), [""; 0]);
    assert_eq!(desk.twin_with(write(8192, 512), Some(PayloadId(3))), [""; 0]);
    assert_eq!(desk.local(), ["flush", "release payload 1", "send Written"]);
    assert_eq!(
        desk.input(Input::LinkLost),
        [""; 0],
        "what was received is written all the same, in its order"
    );
    assert_eq!(desk.local(), ["write 4096 512 from payload 2"]);
    assert_eq!(desk.local(), ["flush", "release payload 2"]);
    assert_eq!(desk.local(), ["write 8192 512 from payload 3"]);
    assert_eq!(desk.local(), ["release payload 3"]);
}

#[test]
fn a_looser_mode_is_stored_before_anything_is_answered_by_it() {
    let mut desk = in_sync_with(WriteMode::Synchronous);
    assert_eq!(desk.order(DiskOrder::Mode { mode: WriteMode::Asynchronous }), ["done", "store superblock"]);
    let status = desk.mirror.status();
    assert_eq!((status.mode, status.mode_in_force), (WriteMode::Asynchronous, WriteMode::Synchronous));
    let store = desk.ops.remove(0);
    desk.write(1, 4096, 4096);
    while !desk.ops.is_empty() {
        assert_eq!(desk.local().iter().filter(|line| line.starts_with("reply")).count(), 0);
    }
    let stored = desk.input(Input::LocalDone { op: store, result: Ok(LocalResult::Done) });
    assert!(desk.mirror.status().mode_in_force == WriteMode::Asynchronous, "{stored:?}");
    desk.write(2, 65_536, 4096);
    let mut told = Vec::new();
    while !desk.ops.is_empty() {
        told.extend(desk.local());
    }
    assert!(told.contains(&"reply 2 0".to_string()), "{told:?}");
}

#[test]
fn a_stricter_mode_rules_at_once_and_is_in_force_when_the_twin_has_flushed_what_came_before() {
    let mut desk = in_sync_with(WriteMode::Asynchronous);
    desk.write(1, 4096, 4096);
    desk.local();
    assert_eq!(desk.local(), ["reply 1 0"]);
    assert_eq!(desk.order(DiskOrder::Mode { mode: WriteMode::Synchronous }), ["done"]);
    assert_eq!(desk.write(2, 8192, 4096), ["send Write of request 2", "write 8192 4096 from request 2"]);
    assert_eq!(desk.local(), [""; 0], "the twin lacks it");
    assert_eq!(desk.mirror.status().mode_in_force, WriteMode::Asynchronous, "the twin lacks the first one");
    assert_eq!(desk.written(), ["send Flush", "flush"]);
    assert_eq!(desk.local(), [""; 0]);
    assert_eq!(desk.mirror.status().mode_in_force, WriteMode::Asynchronous, "it has not flushed it");
    assert_eq!(desk.written(), ["reply 2 0"]);
    assert_eq!(desk.flushed(), ["store superblock"]);
    let status = desk.mirror.status();
    assert_eq!((status.mode_in_force, status.behind), (WriteMode::Synchronous, None));
}
