//! As a rebuild's target that keeps what is overwritten: what is read, written and flushed, and what may then be overwritten.

use super::desk::{Desk, G1, G2};
use mirror::input::{LocalResult, PayloadId};
use mirror::{Faults, Input};
use peer::block::{Body, KeepOld};

/// The operation at this place of those under way is done.
fn done(desk: &mut Desk, place: usize, result: LocalResult) -> Vec<String> {
    let op = desk.ops.remove(place);
    desk.input(Input::LocalDone { op, result: Ok(result) })
}

fn read(desk: &mut Desk) -> Vec<String> {
    done(desk, 0, LocalResult::Hashes(vec![[1; 16]]))
}

fn kept_in_order(faults: Faults) {
    let mut desk = Desk::with_store(1 << 20, G2, faults);
    desk.meet_active(vec![G1]);
    desk.twin(Body::BuildBegin { generation: G1, old: KeepOld::UntilEqual });
    desk.local();
    assert_eq!(desk.local(), ["send BuildReady"]);
    // What the twin announces is read at once; two batches are.
    assert_eq!(desk.twin(Body::Ahead { runs: vec![(0, 1)] }), ["gather 1"]);
    assert_eq!(desk.twin(Body::Ahead { runs: vec![(10, 1)] }), ["gather 1"]);
    let copy = |offset| Body::Copy { offset, length: 4096 };
    assert_eq!(desk.twin_with(copy(0), Some(PayloadId(1))), [""; 0]);
    assert_eq!(desk.twin_with(copy(40_960), Some(PayloadId(2))), [""; 0]);
    // Each goes to the store with its header, behind the one before.
    let size = desk.size;
    assert_eq!(read(&mut desk)[0], format!("write {} 4096 from buffer from 0", size + 4096));
    assert_eq!(read(&mut desk)[0], format!("write {} 4096 from buffer from 0", size + 3 * 4096));
    assert_eq!(desk.ops.len(), 4);
    // The second is written first: it counts only with the first.
    assert_eq!(done(&mut desk, 2, LocalResult::Done), [""; 0]);
    assert_eq!(done(&mut desk, 2, LocalResult::Done), [""; 0]);
    assert_eq!(desk.local(), [""; 0]);
    assert_eq!(desk.local(), ["flush"]);
    // Both are durable with one flush, and may be overwritten.
    let next = desk.local();
    let copies = ["write 0 4096 from payload 1", "write 40960 4096 from payload 2"];
    assert_eq!(next, [["release buffer"; 2], copies].concat());
}

#[test]
fn what_is_kept_counts_with_all_that_lies_before_it() {
    kept_in_order(Faults::default());
    let gaps = Faults { keep_with_gaps: true, ..Faults::default() };
    assert!(std::panic::catch_unwind(|| kept_in_order(gaps)).is_err(), "keep_with_gaps is not seen");
}
