//! Runs seeds of the simulation: `cargo run -p roost-simulation --example seeds [COUNT] [FIRST]
//! [no-PART...] [whole]`. Stops at the first violation and shows it; `whole` prints each history.
#![expect(clippy::print_stdout, reason = "this is a program whose output is its purpose")]

use std::process::ExitCode;

use roost_simulation::{Part, Settings, run};

fn main() -> ExitCode {
    let mut numbers = Vec::new();
    let (mut settings, mut whole) = (Settings::default(), false);
    for argument in std::env::args().skip(1) {
        let part = Part::ALL.into_iter().find(|part| argument == format!("no-{}", part.as_str()));
        match (part, argument.parse::<u64>()) {
            (Some(part), _) => settings.without.push(part),
            (None, Ok(number)) => numbers.push(number),
            (None, Err(_)) if argument == "whole" => whole = true,
            (None, Err(error)) => {
                println!("{argument:?} is neither a number ({error}) nor `no-` and one of");
                println!("{:?}", Part::ALL.map(Part::as_str));
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
