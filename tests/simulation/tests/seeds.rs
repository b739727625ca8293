//! What the simulation shows: no violation with all rules in place, one with a rule taken out, and the
//! same run from the same seed.

use roost_simulation::{Settings, run};

/// How many seeds are tried here; `examples/seeds.rs` runs as many as one likes.
const SEEDS: u64 = 150;

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

/// The first seed of a thousand that finds something.
fn first_violation(settings: &Settings) -> Option<(u64, String)> {
    (0..1_000).find_map(|seed| {
        let outcome = run(seed, settings);
        let found = outcome.report.violations.first()?;
        Some((seed, found.explain(&outcome.history)))
    })
}

#[test]
fn without_the_comparison_of_sessions_a_violation_is_found() {
    let settings = Settings { compare_sessions: false, ..Settings::default() };
    let (seed, shown) = first_violation(&settings).expect("a violation within 1,000 seeds");
    assert!(shown.starts_with("OneSession"), "seed {seed}: {shown}");
    assert!(shown.lines().count() < 25, "a short history: {shown}");
}

#[test]
fn without_not_after_a_violation_is_found() {
    let settings = Settings { not_after: false, ..Settings::default() };
    let (seed, shown) = first_violation(&settings).expect("a violation within 1,000 seeds");
    assert!(shown.starts_with("OneSession"), "seed {seed}: {shown}");
    assert!(shown.lines().count() < 25, "a short history: {shown}");
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
