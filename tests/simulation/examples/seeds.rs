//! Runs seeds of the simulation: `cargo run -p roost-simulation --example seeds [COUNT] [FIRST]
//! [no-session-comparison|no-not-after|no-leases|no-wait-accepted|no-wait-read|no-wait-result|no-wait-seen]...`.
//! Stops at the first violation and shows it.
#![expect(clippy::print_stdout, reason = "this is a program whose output is its purpose")]

use std::process::ExitCode;

use roost_simulation::{Promise, Settings, run};

fn main() -> ExitCode {
    let mut numbers = Vec::new();
    let (mut settings, mut whole) = (Settings::default(), false);
    for argument in std::env::args().skip(1) {
        match (argument.as_str(), argument.parse::<u64>()) {
            ("whole", _) => whole = true,
            ("no-session-comparison", _) => settings.compare_sessions = false,
            ("no-not-after", _) => settings.not_after = false,
            ("no-leases", _) => settings.leases = false,
            ("no-wait-accepted", _) => settings.hasty.push(Promise::Accepted),
            ("no-wait-read", _) => settings.hasty.push(Promise::Read),
            ("no-wait-result", _) => settings.hasty.push(Promise::Result),
            ("no-wait-seen", _) => settings.hasty.push(Promise::Seen),
            (_, Ok(number)) => numbers.push(number),
            (_, Err(error)) => {
                println!("{argument:?} is neither a number nor a rule to take out: {error}");
                return ExitCode::from(2);
            }
        }
    }
    let count = numbers.first().copied().unwrap_or(1_000);
    let first = numbers.get(1).copied().unwrap_or(0);
    let mut deliveries = 0;
    for seed in first..first + count {
        let outcome = run(seed, &settings);
        deliveries += outcome.report.deliveries;
        for index in 0..if whole { outcome.history.len() } else { 0 } {
            println!("{}", outcome.history.line(index));
        }
        if !outcome.report.is_clean() {
            println!("seed {seed}: {}", outcome.report.explain(&outcome.history, 1));
            return ExitCode::FAILURE;
        }
        if (seed + 1) % 1_000 == 0 {
            println!("up to seed {seed}: nothing; this one: {}", outcome.report);
        }
    }
    println!("{count} seeds from {first}: no violation, {deliveries} deliveries");
    ExitCode::SUCCESS
}
