//! Nodes that go away, or give devices away, under load: a whole row of edges restarted one after the
//! other, the same with a crash among them, a drain by an operator, and a new node that fills up. The
//! devices are in `fleet.rs`, the edges in `row.rs`, what was measured in `figures.rs`.
//!
//! `ROOST_TEST_DRAIN_DEVICES` says how many devices take part in the restarts: 240 if it is not set, 2,000
//! in a full run. With `ROOST_TEST_DRAIN_STRICT` set, on a machine that does nothing else, the pace is held
//! from below too (80 % of what was set); else it is only shown, since a busy machine makes it slower.

mod figures;
mod fleet;
mod operators;
mod row;

use std::time::Duration;

use roost_testkit::process::Signal;
use tokio::time::Instant;

use self::figures::{Figures, Went};
use self::fleet::Load;
use self::row::{GRACE, Row};

/// How the one edge goes that is second in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Second {
    /// As the others, by SIGTERM.
    InOrder,
    /// By SIGKILL.
    Killed,
}

/// How many devices take part.
fn devices() -> usize {
    let given = std::env::var("ROOST_TEST_DRAIN_DEVICES").ok();
    given.map_or(240, |given| given.parse().expect("ROOST_TEST_DRAIN_DEVICES is a number"))
}

/// Whether the pace is held from below.
fn is_strict() -> bool {
    std::env::var_os("ROOST_TEST_DRAIN_STRICT").is_some()
}

#[expect(clippy::print_stdout, reason = "the figures are what this is run for")]
fn show(table: &str) {
    println!("{table}");
}

/// Restarts three edges one after the other while devices get commands and publications.
async fn restart_all(second: Second) {
    let count = devices();
    // A share of the devices is on each edge; so many seconds are enough for it to be paced.
    let over = Duration::from_secs(if count > 1_000 { 10 } else { 5 });
    let mut row = Row::start(over).await;
    let load = Load::start(&row, count).await;
    let mut figures = Figures::default();
    for (turn, name) in ["a", "b", "c"].into_iter().enumerate() {
        let killed = turn == 1 && second == Second::Killed;
        load.settle().await;
        let (mut process, devices) = row.take_out(name);
        let began = Instant::now();
        if killed {
            process.kill();
        } else {
            process.signal(Signal::TERM);
            let status = process.ended().await;
            assert_eq!(status.code(), Some(0), "edge {name} ends in order");
        }
        let took = began.elapsed();
        load.gone_from(name, began, devices).await;
        load.all_back().await;
        figures.restarted(&Went { edge: name, killed, began, took }, over, &load);
        row.put_back(name);
    }
    let summary = load.finish().await;
    show(&figures.table(&summary));
    figures.check(&summary, second == Second::Killed);
    for restart in figures.in_order() {
        assert!(restart.took <= GRACE, "edge {} took {:?}", restart.edge, restart.took);
        assert!(!is_strict() || restart.is_fast_enough(), "too slow: {restart:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_edges_are_restarted_one_after_the_other() {
    restart_all(Second::InOrder).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_edges_are_restarted_and_one_of_them_crashes() {
    restart_all(Second::Killed).await;
}
