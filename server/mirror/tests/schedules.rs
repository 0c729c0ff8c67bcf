//! Random schedules over two mirrors: no acknowledged write is lost, no difference is unknown, everything heals.

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
    let many: u64 = std::env::var("SEEDS").ok().and_then(|seed| seed.parse().ok()).unwrap_or(40);
    let (mut acknowledged, mut switches, mut rebuilds) = (0, 0, 0);
    for seed in first..first + many {
        match run(seed, 4_000, Faults::default()) {
            Ok(world) => {
                acknowledged += world.acknowledged;
                switches += world.switches;
                rebuilds += world.rebuilds;
            }
            Err((fault, trace)) => {
                let tail = trace.len().saturating_sub(400);
                panic!("seed {seed}: {fault}\n{}", trace[tail..].join("\n"));
            }
        }
    }
    // The schedules must have done something for this to mean anything.
    assert!(acknowledged > 100 * many && switches > many && rebuilds > many / 2, "{acknowledged} {switches} {rebuilds}");
}
