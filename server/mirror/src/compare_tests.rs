//! Situations in which two copies meet, each with what the active side may do.

use super::*;

const A: Generation = Generation([0xa; 16]);
const B: Generation = Generation([0xb; 16]);
const C: Generation = Generation([0xc; 16]);
const D: Generation = Generation([0xd; 16]);

fn copy(history: &[Generation], base: Option<Generation>) -> Standing {
    let (session, twin_session) = (Session(5), Session(5));
    let (consistent, alone, undone) = (true, false, false);
    Standing { history: history.to_vec(), base, consistent, alone, undone, session, twin_session }
}

fn alone(standing: Standing) -> Standing {
    Standing { alone: true, ..standing }
}

fn undone(standing: Standing) -> Standing {
    Standing { undone: true, ..standing }
}

fn target(standing: Standing) -> Standing {
    Standing { consistent: false, ..standing }
}

#[test]
fn every_situation_has_its_verdict() {
    use RebuildKind::{FullExchanged, FullFirst, FullUnknown};
    use Verdict::{Ahead, Behind, Equal, Split, Unknown};
    let in_sync = copy(&[A], Some(A));
    let went_on = alone(copy(&[B, A], Some(A)));
    let first = alone(copy(&[A], None));
    let table: Vec<(&str, Standing, Standing, Verdict)> = vec![
        ("in sync", in_sync.clone(), in_sync.clone(), Equal),
        ("the twin was put out", went_on.clone(), in_sync.clone(), Behind),
        ("put out twice", alone(copy(&[C, B, A], Some(A))), in_sync.clone(), Behind),
        ("the twin was alone, then this side took over", copy(&[A], Some(A)), went_on.clone(), Ahead),
        ("both went on from A", went_on.clone(), alone(copy(&[C, A], Some(A))), Split),
        ("the very first build", first, copy(&[], None), Unknown(FullFirst)),
        ("the first build was broken off", alone(copy(&[A], Some(A))), target(copy(&[A], None)), Behind),
        ("a rebuild was broken off", went_on.clone(), target(copy(&[A], None)), Behind),
        (
            "a rebuild's target was put back",
            went_on.clone(),
            undone(copy(&[A], Some(A))),
            Unknown(FullUnknown),
        ),
        ("it is going back", went_on.clone(), undone(target(copy(&[A], None))), Unknown(FullUnknown)),
        (
            "the loser of a split brain was put back",
            went_on.clone(),
            undone(alone(copy(&[C, A], None))),
            Split,
        ),
        ("put back, and serves by force", alone(copy(&[C, A], None)), went_on.clone(), Split),
        ("a rebuild to another side was broken off", went_on, target(copy(&[D], None)), Unknown(FullUnknown)),
        (
            "re-admission broke after the twin stored it",
            alone(copy(&[B, A], Some(B))),
            copy(&[B, A], Some(B)),
            Behind,
        ),
        (
            "the same, but the twin was forced on",
            alone(copy(&[B, A], Some(B))),
            alone(copy(&[C, B], Some(B))),
            Split,
        ),
        (
            "the twin missed a whole cycle",
            alone(copy(&[C, B, A], Some(B))),
            in_sync.clone(),
            Unknown(FullUnknown),
        ),
        ("this side missed a whole cycle", in_sync.clone(), copy(&[C, B, A], Some(C)), Ahead),
        ("nothing in common", in_sync.clone(), copy(&[D], Some(D)), Split),
        (
            "the twin is forced on alone under the same generation",
            in_sync.clone(),
            alone(in_sync.clone()),
            Ahead,
        ),
        (
            "both acknowledged alone under one generation",
            alone(in_sync.clone()),
            alone(in_sync.clone()),
            Split,
        ),
        ("this side has no history, the twin has", copy(&[], None), in_sync.clone(), Ahead),
    ];
    for (name, mine, twin, verdict) in table {
        assert_eq!(compare(&mine, &twin), verdict, "{name}");
    }
    let back = Standing { session: Session(4), ..in_sync.clone() };
    assert_eq!(compare(&in_sync, &back), Unknown(FullExchanged), "the twin's disk was set back");
    let fresh = Standing { session: Session(0), ..copy(&[], None) };
    assert_eq!(compare(&in_sync, &fresh), Unknown(FullExchanged), "the twin's disk was exchanged");
    let knows_more = Standing { twin_session: Session(6), ..in_sync.clone() };
    assert_eq!(compare(&in_sync, &knows_more), Ahead, "this side's disk was set back");
}

/// Whatever two histories say, at most one side would overwrite the other.
#[test]
fn never_do_both_sides_copy_over_each_other() {
    let generations = [A, B, C];
    let mut all = Vec::new();
    for current in generations {
        for older in [None, Some(A), Some(B)] {
            for base in [None, Some(A), Some(B), Some(C)] {
                for went_alone in [false, true] {
                    let mut history = vec![current];
                    history.extend(older.filter(|older| *older != current));
                    // The map counts from something in the history; if not from its end, the copy went on alone.
                    let known = base.is_some_and(|base| history.contains(&base));
                    if known && (base == Some(current) || went_alone) {
                        all.push(Standing { alone: went_alone, ..copy(&history, base) });
                    }
                }
            }
        }
    }
    for mine in &all {
        for twin in &all {
            let behind = |verdict| matches!(verdict, Verdict::Behind | Verdict::Unknown(_));
            let both = behind(compare(mine, twin)) && behind(compare(twin, mine));
            assert!(!both, "{mine:?} {twin:?}");
        }
    }
}
