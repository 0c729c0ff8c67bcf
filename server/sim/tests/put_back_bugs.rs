//! The test of the tests: bugs put back on purpose are found, rules taken out of the register are found.

use sim::bugs;
use sim::register_rules;

/// Seeds within which each of these is found.
const SEEDS: u64 = 400;

fn is_found(name: &str) {
    let Some((_, bug)) = bugs::all().into_iter().find(|(known, _)| *known == name) else {
        panic!("{name} is no bug of the list")
    };
    let found = bugs::find(bug, SEEDS, 2);
    let (tried, ended) = found.unwrap_or_else(|| panic!("{name} is not found in {SEEDS} seeds"));
    println!("{name}: {tried} seeds, {:?}", ended.failure);
}

#[test]
fn ack_before_twin() {
    is_found("ack_before_twin");
}

#[test]
fn flush_local_only() {
    is_found("flush_local_only");
}

#[test]
fn forget_unstable_on_put_out() {
    is_found("forget_unstable_on_put_out");
}

#[test]
fn skip_hot_extents_after_crash() {
    is_found("skip_hot_extents_after_crash");
}

#[test]
fn skip_generation_on_alone() {
    is_found("skip_generation_on_alone");
}

#[test]
fn never_fence() {
    is_found("never_fence");
}

#[test]
fn skip_store_before_send() {
    is_found("skip_store_before_send");
}

#[test]
fn every_rule_of_the_register_is_needed() {
    for rule in register_rules::rules() {
        assert!(register_rules::find(&rule).is_some(), "{}", rule.name);
    }
}
