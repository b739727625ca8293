#![doc = include_str!("../README.md")]

mod control;
mod device;
mod edge;
mod faults;
mod mail;
mod network;
mod rng;
mod settings;
mod store;
mod world;

use roost_checker::{History, Options, Report, check};

pub use settings::{Part, Rates, Settings};

/// What became of one run.
#[derive(Debug)]
pub struct Outcome {
    /// Everything that happened.
    pub history: History,
    /// What the checker says of it.
    pub report: Report,
}

/// The run that this seed determines, checked.
pub fn run(seed: u64, settings: &Settings) -> Outcome {
    let mut history = world::World::new(seed, settings.clone()).run();
    let options = Options {
        clock_error: settings::CLOCK_ERROR,
        in_flight: std::time::Duration::ZERO,
        claim_limit: settings::CALL_LIMIT,
        kept: 10,
    };
    let report = check(&mut history, &options);
    Outcome { history, report }
}
