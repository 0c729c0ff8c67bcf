//! Exact actions of one side for a write, a flush, a put-out, a re-admission, a rebuild: the twin is played by hand.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test fails by panicking")]

mod desk;
mod keeping;
mod modes;

use desk::{Desk, G1, G2, SIZE, in_sync};
use mirror::input::{LocalFault, LocalResult, PayloadId, Range, RequestId};
use mirror::{Faults, Input};
use peer::block::{Body, KeepOld};
use peer::control::DiskOrder;
use wire::{Epoch, Generation, NodeId, Session, Time};

#[test]
fn a_write_in_sync_goes_to_both_and_is_answered_by_both() {
    let mut desk = in_sync(Faults::default());
    // The first write to an extent: hot on disk before anything else.
    assert_eq!(desk.write(1, 4096, 4096), ["store log"]);
    assert_eq!(desk.local(), ["send Write of request 1", "write 4096 4096 from request 1"]);
    assert_eq!(desk.local(), [""; 0]);
    assert_eq!(desk.written(), ["reply 1 0"]);
    // A hot extent: exactly one write and one frame, the reply when both are done, in either order.
    assert_eq!(desk.write(2, 8192, 512), ["send Write of request 2", "write 8192 512 from request 2"]);
    assert_eq!(desk.written(), [""; 0]);
    assert_eq!(desk.local(), ["reply 2 0"]);
    // Overlapping ones go one after the other.
    assert_eq!(desk.write(3, 8192, 512).len(), 2);
    assert_eq!(desk.write(4, 4096, 8192), [""; 0]);
    assert_eq!(desk.write(5, 20_480, 512).len(), 2);
    desk.local();
    let next = desk.written();
    assert_eq!(next, ["reply 3 0", "send Write of request 4", "write 4096 8192 from request 4"]);
}

#[test]
fn zeroes_go_to_both_without_payload_in_order_with_writes_and_again_after_a_break() {
    zeroes(Faults::default());
}

fn zeroes(faults: Faults) {
    let mut desk = in_sync(faults);
    let zero = |desk: &mut Desk, request, offset, length, unmap| {
        let range = Range { offset, length };
        desk.input(Input::Zero { request: RequestId(request), range, unmap })
    };
    // 32 MiB from the middle of an extent: 33 extents made hot at once, before anything else.
    assert_eq!(zero(&mut desk, 1, 512, 32 << 20, true), ["store log"]);
    // Its far end is waited for, what lies behind is not.
    assert_eq!(desk.write(2, 32 << 20, 512), [""; 0]);
    assert_eq!(desk.write(3, (32 << 20) + 512, 512), [""; 0]);
    assert_eq!(
        desk.local(),
        [
            "send Zero",
            "zero 512 33554432 unmap",
            "send Write of request 3",
            "write 33554944 512 from request 3"
        ]
    );
    desk.local();
    assert_eq!(desk.written(), ["reply 1 0", "send Write of request 2", "write 33554432 512 from request 2"]);
    // Longer than one may be, outside, not whole sectors: refused.
    assert_eq!(zero(&mut desk, 4, 0, (32 << 20) + 512, true), ["reply 4 22"]);
    assert_eq!(zero(&mut desk, 5, SIZE - 512, 1024, false), ["reply 5 22"]);
    assert_eq!(zero(&mut desk, 6, 0, 100, false), ["reply 6 22"]);
    // Sent again when the twin is back; the whole range is unstable until then.
    desk.local();
    desk.local();
    desk.written();
    desk.written();
    assert_eq!(zero(&mut desk, 7, 0, 4096, false), ["send Zero", "zero 0 4096"]);
    assert_eq!(desk.local(), [""; 0]);
    desk.input(Input::LinkLost);
    desk.asked.clear();
    let again = desk.meet(&[G1], true);
    assert!(again.contains(&"send Zero".into()), "{again:?}");
    assert_eq!(desk.written(), ["reply 7 0"]);
    // Put out: every block of the three is recorded.
    desk.input(Input::LinkLost);
    desk.order(DiskOrder::PutOut { generation: G2 });
    desk.local();
    assert_eq!(desk.mirror.status().dirty_blocks, (32 << 20) / 4096 + 1);
}

#[test]
fn a_flush_in_sync_flushes_both() {
    let mut desk = in_sync(Faults::default());
    desk.write(9, 0, 4096);
    desk.local();
    desk.local();
    assert_eq!(desk.written(), ["reply 9 0"]);
    assert_eq!(desk.input(Input::Flush { request: RequestId(1) }), ["send Flush", "flush"]);
    // One that comes meanwhile shares the round, for nothing was written since; after a write one waits for the next.
    assert_eq!(desk.input(Input::Flush { request: RequestId(2) }), [""; 0]);
    assert_eq!(desk.write(3, 0, 4096), ["send Write of request 3", "write 0 4096 from request 3"]);
    assert_eq!(desk.flushed(), [""; 0]);
    let write = desk.ops.remove(1);
    desk.input(Input::LocalDone { op: write, result: Ok(LocalResult::Done) });
    assert_eq!(desk.written(), ["reply 3 0"]);
    assert_eq!(desk.input(Input::Flush { request: RequestId(4) }), [""; 0]);
    assert_eq!(desk.input(Input::Flush { request: RequestId(5) }), [""; 0]);
    assert_eq!(desk.local(), ["reply 1 0", "reply 2 0", "send Flush", "flush"]);
    assert_eq!(desk.flushed(), [""; 0]);
    assert_eq!(desk.local(), ["reply 4 0", "reply 5 0"]);
    // Everything is durable on both: there is nothing to do.
    assert_eq!(desk.input(Input::Flush { request: RequestId(6) }), ["reply 6 0"]);
}

#[test]
fn a_flush_that_usually_follows_is_begun_before_it_is_asked_for() {
    let mut desk = in_sync(Faults::default());
    let written = |desk: &mut Desk, request: u64| {
        desk.write(request, 0, 4096);
        if request == 0 {
            desk.local();
        }
        desk.local();
        desk.written()
    };
    for request in (0..10).step_by(2) {
        assert_eq!(written(&mut desk, request), [format!("reply {request} 0")]);
        let flush = Input::Flush { request: RequestId(request + 1) };
        assert_eq!(desk.input(flush), ["send Flush", "flush"]);
        desk.local();
        assert_eq!(desk.flushed(), [format!("reply {} 0", request + 1)]);
    }
    assert_eq!(written(&mut desk, 20), ["reply 20 0", "send Flush", "flush"]);
    assert_eq!(desk.input(Input::Flush { request: RequestId(21) }), [""; 0]);
    desk.local();
    assert_eq!(desk.flushed(), ["reply 21 0"]);
    // Complete before it is asked for: answered at once. But not for a write that was answered after its beginning.
    assert_eq!(written(&mut desk, 22), ["reply 22 0", "send Flush", "flush"]);
    desk.local();
    assert_eq!(desk.flushed(), [""; 0]);
    assert_eq!(desk.input(Input::Flush { request: RequestId(23) }), ["reply 23 0"]);
    assert_eq!(written(&mut desk, 24), ["reply 24 0", "send Flush", "flush"]);
    assert_eq!(desk.flushed(), [""; 0]);
    desk.write(26, 0, 4096);
    let write = desk.ops.remove(1);
    desk.input(Input::LocalDone { op: write, result: Ok(LocalResult::Done) });
    assert_eq!(desk.written(), ["reply 26 0"]);
    assert_eq!(desk.input(Input::Flush { request: RequestId(27) }), [""; 0]);
    assert_eq!(desk.local(), ["send Flush", "flush"]);
    desk.local();
    assert_eq!(desk.flushed(), ["reply 27 0"]);
    // Another habit: nothing is begun until it is one.
    assert_eq!(written(&mut desk, 28), ["reply 28 0"]);
}

#[test]
fn putting_out_stores_the_generation_before_any_answer() {
    let mut desk = in_sync(Faults::default());
    desk.write(1, 0, 4096);
    desk.local();
    desk.local();
    assert_eq!(desk.written(), ["reply 1 0"]);
    desk.write(2, 65_536, 4096);
    desk.local();
    desk.input(Input::Flush { request: RequestId(3) });
    desk.local();
    assert_eq!(desk.input(Input::LinkLost), [""; 0]);
    assert!(desk.mirror.status().needs_twin);
    let put_out = DiskOrder::PutOut { generation: G2 };
    assert_eq!(desk.order(put_out), ["store superblock"]);
    let answers = desk.local();
    assert_eq!(answers, ["reply 2 0", "done", "flush"]);
    assert_eq!(desk.local(), ["reply 3 0"]);
    let status = desk.mirror.status();
    // What the twin may have in its cache only, and what it never had.
    assert_eq!((status.dirty_blocks, status.history[0], status.history[1]), (2, G2, G1));
    assert!(!status.needs_twin);
    // Alone: a hot extent costs nothing but the write.
    assert_eq!(desk.write(4, 4096, 4096), ["write 4096 4096 from request 4"]);
    assert_eq!(desk.local(), ["reply 4 0"]);
    assert_eq!(desk.mirror.status().dirty_blocks, 3);
}

#[test]
fn a_twin_put_out_is_rebuilt_from_the_map_and_readmitted() {
    rebuilt(Faults::default());
}

fn rebuilt(faults: Faults) {
    let mut desk = in_sync(faults);
    desk.write(1, 0, 8192);
    desk.local();
    desk.local();
    desk.written();
    desk.input(Input::LinkLost);
    desk.order(DiskOrder::AllowRebuild { allowed: false });
    desk.order(DiskOrder::PutOut { generation: G2 });
    desk.local();
    assert_eq!(desk.meet(&[G1], true), [""; 0]);
    let waiting = desk.mirror.status().rebuild.unwrap();
    assert_eq!((waiting.running, waiting.total), (false, 2));
    let begins = desk.order(DiskOrder::AllowRebuild { allowed: true });
    assert_eq!(begins, ["done", "store page"]);
    assert_eq!(desk.local(), ["store superblock"]);
    assert_eq!(desk.local(), ["send BuildBegin"]);
    assert_eq!(desk.twin(Body::BuildReady), ["read 0 8192 into buffer"]);
    // A write that overlaps the run waits for it; another goes to both and needs no answer of the twin.
    assert_eq!(desk.write(2, 4096, 512), [""; 0]);
    assert_eq!(desk.write(3, 16_384, 512), ["send Write of request 3", "write 16384 512 from request 3"]);
    assert_eq!(desk.local(), ["send Copy of buffer from 0", "release buffer"]);
    assert_eq!(desk.local(), ["reply 3 0"]);
    assert_eq!(desk.written(), [""; 0]);
    let next = desk.copied();
    assert_eq!(next, ["send Write of request 2", "write 4096 512 from request 2", "send Flush", "flush"]);
    assert_eq!(desk.mirror.status().dirty_blocks, 2, "not before the flush");
    assert_eq!(desk.local(), ["reply 2 0"]);
    assert_eq!(desk.local(), [""; 0]);
    assert_eq!(desk.written(), [""; 0]);
    assert_eq!(desk.flushed(), [""; 0]);
    assert!(desk.mirror.status().equal);
    assert_eq!(desk.mirror.status().dirty_blocks, 0);
}

#[test]
fn a_standby_applies_overlapping_writes_in_order_and_answers_each() {
    overlapping(Faults::default());
}

fn overlapping(faults: Faults) {
    let mut desk = Desk::new(faults);
    desk.meet_active(vec![G1]);
    // Not before it has marked itself.
    assert_eq!(
        desk.twin(Body::BuildBegin { generation: G1, old: KeepOld::UntilEqual }),
        ["store superblock"]
    );
    assert_eq!(desk.local(), ["store superblock"]);
    assert_eq!(desk.local(), ["send BuildReady"]);
    assert!(!desk.mirror.status().consistent);
    let write = |offset, length| Body::Write { offset, length };
    assert_eq!(desk.twin_with(write(0, 8192), Some(PayloadId(1))), ["write 0 8192 from payload 1"]);
    assert_eq!(desk.twin_with(write(4096, 512), Some(PayloadId(2))), [""; 0]);
    assert_eq!(desk.twin_with(write(65_536, 512), Some(PayloadId(3))), ["write 65536 512 from payload 3"]);
    let zero = Body::Zero { offset: 4096, length: 32 << 20, unmap: true };
    assert_eq!(desk.twin(zero), [""; 0], "after the writes it overlaps");
    assert_eq!(desk.local(), ["release payload 1", "send Written", "write 4096 512 from payload 2"]);
    assert_eq!(desk.twin(Body::Flush), ["flush"]);
    assert_eq!(
        desk.order(DiskOrder::Activate { epoch: Epoch(4), alone: true, generation: G2 }),
        ["refused Inconsistent"]
    );
    // The link goes: what was begun comes to its end unanswered.
    assert_eq!(desk.twin_with(write(4096, 512), Some(PayloadId(4))), [""; 0]);
    assert_eq!(desk.local(), ["release payload 3", "send Written"]);
    assert_eq!(desk.local(), ["release payload 2", "send Written", "zero 4096 33554432 unmap"]);
    assert_eq!(desk.input(Input::LinkLost), ["release payload 4"]);
    assert_eq!(desk.local(), [""; 0]);
}

#[test]
fn frames_of_an_older_session_end_the_connection() {
    let mut desk = in_sync(Faults::default());
    desk.session = Session(desk.session.0 - 1);
    assert_eq!(desk.twin(Body::BuildReady), ["close Stale"]);
}

#[test]
fn a_higher_epoch_fences_and_a_fenced_side_serves_nothing() {
    let mut desk = in_sync(Faults::default());
    desk.write(1, 0, 4096);
    let learn = DiskOrder::LearnEpoch { epoch: Epoch(2), holder: NodeId(2) };
    let actions = desk.order(learn);
    assert_eq!(actions, ["send Leaving", "close Restart", "reply 1 5", "fenced", "flush"]);
    assert_eq!(desk.write(2, 0, 4096), ["reply 2 5"]);
    let activate = DiskOrder::Activate { epoch: Epoch(3), alone: true, generation: G2 };
    assert_eq!(desk.order(activate), ["refused Fenced"]);
    assert_eq!(desk.local(), [""; 0]);
    assert_eq!(desk.local(), ["store superblock"]);
    assert_eq!(desk.local(), ["done"]);
    assert_eq!(desk.mirror.status().epoch, Epoch(2));
    assert_eq!(desk.input(Input::LinkConnected { dialled: true }), ["close Restart"]);
}

#[test]
fn at_the_end_of_the_lease_requests_are_held_and_later_they_fail() {
    lease_ends(Faults::default());
}

fn lease_ends(faults: Faults) {
    let mut desk = Desk::active_alone(SIZE, faults);
    let until = Time(desk.now + 1_000);
    desk.order(DiskOrder::Lease { until: Some(until), fence_after_us: 5_000 });
    assert_eq!(desk.mirror.next_deadline(), Some(until));
    desk.write(1, 0, 4096);
    desk.local();
    desk.now = until.0;
    assert_eq!(desk.input(Input::DeadlineReached), ["lease ended"]);
    assert_eq!(desk.local(), [""; 0], "the answer is held too");
    assert_eq!(desk.write(2, 4096, 4096), [""; 0]);
    let again = DiskOrder::Lease { until: Some(Time(desk.now + 1_000)), fence_after_us: 5_000 };
    assert_eq!(desk.order(again), ["lease runs", "done", "write 4096 4096 from request 2", "reply 1 0"]);
    desk.now += 7_000;
    assert_eq!(desk.input(Input::DeadlineReached), ["lease ended", "reply 2 5", "fenced"]);
    assert!(desk.mirror.next_deadline().is_none_or(|at| at.0 > desk.now));
}

#[test]
fn grants_over_the_link_renew_the_lease_from_when_the_nonce_was_sent() {
    let mut desk = in_sync(Faults::default());
    let start = Time(desk.now);
    desk.order(DiskOrder::Lease { until: Some(start.plus(1_000_000)), fence_after_us: 500_000 });
    desk.now += 100_000;
    let sent = Time(desk.now + 1);
    desk.input(Input::DeadlineReached);
    let (nonce, _) = desk.alive.unwrap();
    desk.now += 400_000;
    desk.twin(Body::Alive { nonce: 1, grant: None });
    assert_eq!(desk.mirror.status().lease, Some(start.plus(1_000_000)), "a keep-alive is no grant");
    desk.twin(Body::Alive { nonce: 2, grant: Some(nonce + 50) });
    assert_eq!(
        desk.mirror.status().lease,
        Some(start.plus(1_000_000)),
        "nor is an echo of what was never sent"
    );
    desk.twin(Body::Alive { nonce: 3, grant: Some(nonce) });
    assert_eq!(desk.mirror.lease(), Some(Some(sent.plus(1_300_000))));
    // The engine's own order never shortens it.
    desk.order(DiskOrder::Lease { until: Some(start.plus(1_100_000)), fence_after_us: 500_000 });
    assert_eq!(desk.mirror.status().lease, Some(sent.plus(1_300_000)));
}

#[test]
fn while_the_node_is_away_renewals_count_for_its_grace_only() {
    let mut desk = in_sync(Faults::default());
    desk.order(DiskOrder::Lease { until: Some(Time(desk.now + 1_000_000)), fence_after_us: 500_000 });
    desk.input(Input::NodePresent(false));
    let left = Time(desk.now);
    for turn in 0..200 {
        desk.now += 100_000;
        desk.input(Input::DeadlineReached);
        let grant = desk.alive.map(|(nonce, _)| nonce);
        desk.twin(Body::Alive { nonce: turn + 1, grant });
        if desk.mirror.lease().is_none_or(|lease| lease.is_some_and(|end| end.0 < desk.now)) {
            break;
        }
    }
    let served = Time(desk.now).since(left);
    assert!((10_000_000..10_300_000).contains(&served), "{served}");
    // A node that is back before the fence goes on: the twin has granted all the while.
    assert_eq!(desk.input(Input::NodePresent(true)), ["lease runs"]);
}

#[test]
fn a_standby_grants_only_while_it_is_allowed() {
    let mut desk = Desk::new(Faults::default());
    desk.meet_active(vec![G1]);
    desk.twin(Body::Alive { nonce: 7, grant: None });
    let alive = |desk: &mut Desk| {
        desk.now += 100_000;
        desk.input(Input::DeadlineReached);
        desk.twin(Body::Alive { nonce: 8, grant: None });
        desk.alive.unwrap().1
    };
    assert_eq!(alive(&mut desk), None);
    // The lease counts from the nonce, however late it is echoed.
    let came = desk.now;
    assert_eq!(desk.order(DiskOrder::Grant { allowed: true }), ["done"]);
    assert_eq!(alive(&mut desk), Some(8));
    assert_eq!(desk.stop_grants(), Some(Time(came)));
    assert_eq!(alive(&mut desk), None);
}

#[test]
fn deactivation_leaves_nothing_hot_and_nothing_to_compare() {
    let mut desk = in_sync(Faults::default());
    desk.write(1, 0, 4096);
    desk.local();
    desk.local();
    desk.written();
    assert_eq!(desk.order(DiskOrder::Deactivate), ["close front end"]);
    assert_eq!(desk.local(), ["send Flush", "flush"]);
    desk.local();
    assert_eq!(desk.flushed(), ["store log superblock"]);
    assert_eq!(desk.local(), ["close Restart", "done"]);
    assert_eq!(desk.write(2, 0, 4096), ["reply 2 5"]);
}

#[test]
fn an_answer_of_the_wrong_kind_ends_the_connection() {
    let mut desk = in_sync(Faults::default());
    desk.write(1, 0, 4096);
    desk.local();
    let of = desk.of();
    assert_eq!(desk.twin(Body::Flushed { of }), ["close Protocol"]);
    assert_eq!(desk.local(), [""; 0], "not on the twin: no reply");
}

#[test]
fn a_device_in_use_is_not_deactivated() {
    let mut desk = in_sync(Faults::default());
    desk.order(DiskOrder::Deactivate);
    let op = desk.ops.remove(0);
    let result = Err(LocalFault { errno: 16 });
    assert_eq!(desk.input(Input::LocalDone { op, result }), ["refused InUse"]);
    assert_eq!(desk.write(1, 0, 4096), ["store log"]);
}

#[test]
fn a_twin_that_dies_while_the_set_is_left_is_put_out_and_the_set_is_left_alone() {
    let mut desk = in_sync(Faults::default());
    desk.write(1, 0, 4096);
    desk.local();
    desk.local();
    desk.written();
    assert_eq!(desk.order(DiskOrder::Deactivate), ["close front end"]);
    assert_eq!(desk.local(), ["send Flush", "flush"]);
    desk.local();
    let put_out = DiskOrder::PutOut { generation: Generation([9; 16]) };
    let first = desk.order(put_out.clone());
    assert!(first.contains(&"close Restart".to_string()), "{first:?}");
    assert_eq!(desk.order(put_out), ["refused WrongRole"], "one is under way");
    let mut told = Vec::new();
    for _ in 0..16 {
        if desk.ops.is_empty() {
            break;
        }
        told.extend(desk.local());
    }
    assert_eq!(told.iter().filter(|word| *word == "done").count(), 2, "put out, then left: {told:?}");
    assert!(told.contains(&"flush".to_string()), "flushed once more, alone: {told:?}");
    assert!(told.iter().any(|word| word.contains("page")), "what the twin may lack is recorded: {told:?}");
}

#[test]
fn a_read_the_disk_refuses_is_served_by_the_twin_and_written_back() {
    let mut desk = in_sync(Faults::default());
    let range = Range { offset: 8192, length: 4096 };
    let read = Input::Read { request: RequestId(1), range };
    assert_eq!(desk.input(read), ["read 8192 4096 into request 1"]);
    let op = desk.ops.remove(0);
    assert_eq!(
        desk.input(Input::LocalDone { op, result: Err(LocalFault { errno: 5 }) }),
        ["send Read"],
        "no error for the application"
    );
    // A write to the same place waits until the block is whole again.
    assert_eq!(desk.write(2, 8192, 512), [""; 0]);
    let of = desk.of();
    let answered = desk.twin_with(Body::ReadData { of, length: 4096 }, Some(PayloadId(7)));
    assert_eq!(answered, ["fill 1 of payload 7", "reply 1 0", "store log"]);
    assert_eq!(desk.local(), ["write 8192 4096 from payload 7"]);
    let next = desk.local();
    assert_eq!(next, ["release payload 7", "send Write of request 2", "write 8192 512 from request 2"]);
    let status = desk.mirror.status();
    assert_eq!((status.failed, status.mended_blocks), (None, 1));
    assert!(status.equal);
}

#[test]
fn a_refused_read_is_asked_again_over_the_next_link_and_fails_without_a_twin() {
    let mut desk = in_sync(Faults::default());
    let range = Range { offset: 0, length: 512 };
    desk.input(Input::Read { request: RequestId(1), range });
    let op = desk.ops.remove(0);
    assert_eq!(desk.input(Input::LocalDone { op, result: Err(LocalFault { errno: 5 }) }), ["send Read"]);
    assert_eq!(desk.input(Input::LinkLost), [""; 0], "the twin may be back within the grace");
    desk.asked.clear();
    assert_eq!(desk.meet(&[G1], true), ["send Read"]);
    assert_eq!(desk.input(Input::LinkLost), [""; 0]);
    desk.order(DiskOrder::PutOut { generation: G2 });
    assert_eq!(desk.local(), ["done", "reply 1 5"]);
    assert!(desk.mirror.status().failed.is_some());
}

#[test]
fn in_sync_a_failed_write_is_held_for_the_engine_and_not_for_ever() {
    let mut desk = in_sync(Faults::default());
    desk.write(1, 4096, 4096);
    desk.local();
    let op = desk.ops.remove(0);
    assert_eq!(desk.input(Input::LocalDone { op, result: Err(LocalFault { errno: 5 }) }), [""; 0]);
    assert_eq!(desk.written(), [""; 0], "the twin has it, but this side may not say so");
    assert_eq!(desk.input(Input::Flush { request: RequestId(2) }), [""; 0]);
    let status = desk.mirror.status();
    assert!(status.failed.is_some() && status.waiting_since.is_none());
    // Nobody moved the work.
    let mut said = Vec::new();
    for _ in 0..30 {
        desk.now += 400_000;
        said.extend(desk.twin(Body::Alive { nonce: 1, grant: None }));
    }
    assert_eq!(said[..2], ["reply 1 5", "reply 2 5"]);
}

#[test]
fn a_disk_that_does_not_answer_counts_as_failed_but_a_process_that_stood_still_does_not() {
    let mut desk = in_sync(Faults::default());
    desk.write(1, 4096, 4096);
    desk.local();
    // The process stands still for a minute: the answer may be waiting for it.
    desk.now += 60_000_000;
    desk.twin(Body::Alive { nonce: 1, grant: None });
    assert_eq!(desk.mirror.status().failed, None);
    for _ in 0..8 {
        desk.now += 500_000;
        desk.twin(Body::Alive { nonce: 1, grant: None });
    }
    let status = desk.mirror.status();
    assert!(status.failed.is_some_and(|reason| reason.contains("not answered")));
}

#[test]
fn a_twin_that_went_on_by_itself_is_overwritten_only_where_this_side_was_declared_good() {
    let mut desk = Desk::active_alone(SIZE, Faults::default());
    desk.meet(&[Generation([9; 16])], true);
    assert!(desk.mirror.status().split);
    assert_eq!(desk.order(DiskOrder::AllowRebuild { allowed: true }), ["done"]);
    assert_eq!(desk.order(DiskOrder::Overrule { replace: false }), ["done"]);
    assert!(desk.mirror.status().split, "serving by force overwrites nothing");
    let said = desk.order(DiskOrder::Overrule { replace: true });
    assert!(said.contains(&"store page".to_string()), "{said:?}");
    assert!(!desk.mirror.status().split);
    assert_eq!(desk.local(), ["store superblock"]);
    assert_eq!(desk.local(), ["send BuildBegin"]);
}

#[test]
fn a_slow_line_is_not_a_silent_one() {
    let mut desk = in_sync(Faults::default());
    for _ in 0..10 {
        // Part of a long frame, again and again, and never the whole of it.
        desk.now += 400_000;
        let said = desk.input(Input::LinkHeard);
        assert!(!said.iter().any(|word| word.starts_with("close")), "{said:?}");
    }
    desk.now += 700_000;
    assert_eq!(desk.input(Input::DeadlineReached), ["close Silent"]);
}

#[test]
fn a_session_begins_when_what_was_begun_in_the_last_one_has_ended() {
    session_begins(Faults::default());
}

fn session_begins(faults: Faults) {
    let mut desk = Desk::new(faults);
    desk.meet_active(vec![G1]);
    desk.twin(Body::BuildBegin { generation: G1, old: KeepOld::UntilEqual });
    desk.local();
    desk.local();
    let write = Body::Write { offset: 0, length: 4096 };
    assert_eq!(desk.twin_with(write, Some(PayloadId(1))), ["write 0 4096 from payload 1"]);
    desk.input(Input::LinkLost);
    // The twin may send that write once more, and a later one, in the next session: neither may be overtaken by this one.
    assert_eq!(desk.hear_active(vec![G1]), [""; 0]);
    assert_eq!(desk.local(), ["release payload 1", "flush"]);
    assert_eq!(desk.local(), ["store superblock"]);
    assert_eq!(desk.local(), ["send SessionStored"]);
}

#[test]
fn a_build_begins_when_every_page_of_what_differs_is_on_disk() {
    build_begins(Faults::default());
}

fn build_begins(faults: Faults) {
    // As many pages of blocks as take two stores to say that they differ.
    let mut desk = Desk::active_alone(5 << 30, faults);
    desk.meet(&[], true);
    assert_eq!(desk.order(DiskOrder::AllowRebuild { allowed: true }), ["done", "store page"]);
    assert_eq!(desk.local(), ["store page"]);
    assert_eq!(desk.local(), ["store superblock"]);
    assert_eq!(desk.local(), ["send BuildBegin"]);
}

/// A rule, its absence, and the story that is about it.
type Rule = (&'static str, Faults, fn(Faults));

/// Each rule whose absence loses nothing in the simulator, taken out, ends its story: the words compared are not the same.
#[test]
fn rules_taken_out_are_seen() {
    let none = Faults::default();
    let rules: [Rule; 7] = [
        ("forget_resend", Faults { forget_resend: true, ..none }, zeroes),
        ("apply_without_order", Faults { apply_without_order: true, ..none }, overlapping),
        ("reply_without_lease", Faults { reply_without_lease: true, ..none }, lease_ends),
        ("finish_with_map", Faults { finish_with_map: true, ..none }, rebuilt),
        ("session_without_drain", Faults { session_without_drain: true, ..none }, session_begins),
        ("join_before_saved", Faults { join_before_saved: true, ..none }, build_begins),
        ("drop_promised", Faults { drop_promised: true, ..none }, modes::behind_barriers),
    ];
    for (name, faults, story) in rules {
        story(none);
        let seen = std::panic::catch_unwind(|| story(faults));
        assert!(seen.is_err(), "{name} is not seen");
    }
}
