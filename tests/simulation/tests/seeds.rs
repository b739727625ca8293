//! What the simulation shows: no violation with all rules in place, one with any of them taken out, and
//! the same run from the same seed.

use roost_checker::Rule;
use roost_simulation::{Part, Settings, run};

/// How many seeds are tried here; `examples/seeds.rs` runs as many as one likes.
const SEEDS: u64 = 300;

#[test]
fn no_seed_breaks_a_promise() {
    let (mut deliveries, mut unknown, mut accepted) = (0, 0, 0);
    for seed in 0..SEEDS {
        let outcome = run(seed, &Settings::default());
        let report = &outcome.report;
        assert!(report.is_clean(), "seed {seed}: {}", report.explain(&outcome.history, 1));
        assert_eq!((report.pending, report.given_up), (0, 0), "seed {seed}: {report}");
        deliveries += report.deliveries;
        unknown += report.unknown;
        accepted += report.accepted;
    }
    let seeds = usize::try_from(SEEDS).unwrap();
    assert!(accepted > 25 * seeds, "commands are accepted: {accepted}");
    assert!(deliveries > accepted / 2, "commands are delivered: {deliveries} of {accepted}");
    assert!(unknown > seeds, "faults are felt: {unknown}");
}

/// With a rule taken out a thousand seeds find what it prevents, and show it shortly.
fn finds(rule: Rule, part: Part) {
    let settings = Settings::without(part);
    let found = (0..1_000).find_map(|seed| {
        let outcome = run(seed, &settings);
        let found = outcome.report.of(rule)?;
        Some((seed, found.explain(&outcome.history)))
    });
    let (seed, shown) = found.expect("a violation within 1,000 seeds");
    assert!(shown.lines().count() < 25, "seed {seed}: a short history: {shown}");
}

#[test]
fn without_the_comparison_of_sessions_a_stale_one_acts() {
    finds(Rule::OneSession, Part::SessionComparison);
}

#[test]
fn without_not_after_an_abandoned_claim_wins() {
    finds(Rule::OneSession, Part::NotAfter);
}

#[test]
fn without_leases_a_cancelled_command_is_delivered() {
    finds(Rule::OneEnd, Part::Leases);
}

#[test]
fn what_is_promised_before_it_is_replicated_is_lost() {
    finds(Rule::NothingLost, Part::WaitAccepted);
    finds(Rule::NothingLost, Part::WaitResult);
    finds(Rule::Order, Part::WaitRead);
    finds(Rule::OneEnd, Part::WaitSeen);
}

#[test]
fn a_seed_is_a_run() {
    let lines = |seed| {
        let mut file = Vec::new();
        run(seed, &Settings::default()).history.write(&mut file).unwrap();
        file
    };
    for seed in [3, 77] {
        assert!(lines(seed) == lines(seed), "seed {seed} gives the same history twice");
    }
    assert!(lines(3) != lines(4));
}
