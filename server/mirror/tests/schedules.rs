//! Random schedules over two mirrors: no acknowledged write is lost, no difference is unknown, everything heals.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a test reads its seed and prints its finds"
)]

mod world;

use mirror::Faults;
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::World;

fn run(seed: u64, steps: usize, faults: Faults) -> Result<World, (String, Vec<String>)> {
    let mut world = World::new(seed, faults);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..steps {
            world.step();
        }
        world.settle();
    }));
    match outcome {
        Ok(()) => Ok(world),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Err((text.unwrap_or_default(), world.trace))
        }
    }
}

#[test]
fn random_schedules_lose_nothing_and_heal() {
    let first: u64 = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let many: u64 = std::env::var("SEEDS").ok().and_then(|seed| seed.parse().ok()).unwrap_or(70);
    let (mut acknowledged, mut switches, mut rebuilds, mut mended, mut replaced) = (0, 0, 0, 0, 0);
    for seed in first..first + many {
        match run(seed, 4_000, Faults::default()) {
            Ok(world) => {
                acknowledged += world.acknowledged;
                switches += world.switches;
                rebuilds += world.rebuilds;
                mended += world.mended;
                replaced += world.replaced;
            }
            Err((fault, trace)) => {
                let tail = trace.len().saturating_sub(400);
                panic!("seed {seed}: {fault}\n{}", trace[tail..].join("\n"));
            }
        }
    }
    // The schedules must have done something for this to mean anything.
    assert!(
        acknowledged > 100 * many && switches > many && rebuilds > many / 2 && mended > 0,
        "{acknowledged} {switches} {rebuilds} {mended}"
    );
    assert!(replaced > many / 2, "{replaced}");
}

fn found(name: &str, faults: Faults, seeds: u64) {
    let found = (1..=seeds).find_map(|seed| run(seed, 4_000, faults).err().map(|(fault, _)| (seed, fault)));
    let (seed, fault) = found.unwrap_or_else(|| panic!("{name}: not found in {seeds} seeds"));
    println!("{name}: seed {seed}: {}", fault.chars().take(120).collect::<String>());
}

/// So are those of a successor.
#[test]
fn bugs_of_a_successor_are_found() {
    let none = Faults::default();
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = catch_unwind(|| {
        found("resume_without_ghosts", Faults { resume_without_ghosts: true, ..none }, 400);
        found("resume_without_unstable", Faults { resume_without_unstable: true, ..none }, 400);
        found("resume_without_trailing", Faults { resume_without_trailing: true, ..none }, 400);
    });
    drop(std::panic::take_hook());
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Each known bug put back is found: the checkers see what they are there for.
#[test]
fn bugs_put_back_are_found() {
    let none = Faults::default();
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = catch_unwind(|| {
        found("cool_before_bits", Faults { cool_before_bits: true, ..none }, 200);
        found("end_run_early", Faults { end_run_early: true, ..none }, 200);
        found("clear_bits_before_flush", Faults { clear_bits_before_flush: true, ..none }, 200);
        found("forget_unstable_on_put_out", Faults { forget_unstable_on_put_out: true, ..none }, 200);
        found("skip_generation_on_alone", Faults { skip_generation_on_alone: true, ..none }, 200);
        found("ack_before_twin", Faults { ack_before_twin: true, ..none }, 600);
        found("skip_hot_extents_after_crash", Faults { skip_hot_extents_after_crash: true, ..none }, 200);
        found("flush_local_only", Faults { flush_local_only: true, ..none }, 200);
        found("rebuild_without_order", Faults { rebuild_without_order: true, ..none }, 200);
    });
    drop(std::panic::take_hook());
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}
