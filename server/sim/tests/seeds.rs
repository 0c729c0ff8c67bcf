//! Seeds: a fixed list, among them every one that once found something, and fresh ones whose number is printed.

use sim::runner;
use sim::world::Options;

/// Seeds that each found a fault of a core or of a page, and some that did not.
const FIXED: [u64; 50] = [
    1, 4, 9, 21, 24, 25, 28, 30, 37, 40, 45, 70, 96, 112, 115, 120, 123, 139, 213, 228, 239, 244, 248, 293,
    299, 357, 545, 549, 633, 792, 970, 1297, 2745, 3132, 3548, 4376, 4616, 5106, 5257, 7427, 7503, 8500,
    9013, 11432, 11550, 17243, 4239, 10237, 4047, 1377,
];
/// Fresh ones: a few seconds' worth without optimisation.
const FRESH: u64 = 24;

fn none_fails(from: u64, seeds: u64) {
    runner::run_many(from, seeds, 2, &Options::default(), |ended| {
        assert_eq!(ended.failure, None, "seed {}: cargo run --release -p sim -- {}", ended.seed, ended.seed);
        true
    });
}

#[test]
fn fixed_seeds() {
    for seed in FIXED {
        none_fails(seed, 1);
    }
}

#[test]
fn fresh_seeds() {
    let since =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
    let from = since.as_secs() * 1_000_000;
    println!("fresh seeds from {from}");
    none_fails(from, FRESH);
}
