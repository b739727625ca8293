//! Whether a run kept the hub's promises. Each promise is one file here; what they share, one pass
//! over the history that gathers what is known of each command, is in `facts.rs` and `sightings.rs`.

mod commands;
mod facts;
mod order;
mod rules;
mod sessions;
mod sightings;
mod topics;

use std::time::Duration;

use crate::history::History;

pub use rules::{Report, Rule, Violation};

/// What a run may take for granted.
#[derive(Debug, Clone)]
pub struct Options {
    /// How far a node's idea of hub time may be off.
    pub clock_error: Duration,
    /// How long a command may be on its way from the hub's write to the device, where the history
    /// does not tell when the write was.
    pub in_flight: Duration,
    /// How long after it was made a claim may still take effect: the store refuses it later
    /// (`not_after`).
    pub claim_limit: Duration,
    /// How many violations are kept; all are counted.
    pub kept: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clock_error: Duration::from_millis(50),
            in_flight: Duration::from_secs(1),
            claim_limit: Duration::from_secs(1),
            kept: 100,
        }
    }
}

/// Checks a run against every rule. Takes time in the order of n log n.
///
/// The history is brought into the order of time first, as writers may have been appended.
pub fn check(history: &mut History, options: &Options) -> Report {
    history.sort();
    let mut report = Report::new(history.len(), options.kept);
    let facts = facts::Facts::gather(history, options, &mut report);
    commands::check(history, options, &facts, &mut report);
    order::check(history, &facts, &mut report);
    sessions::check(history, options, &mut report);
    topics::check(history, &mut report);
    report
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// A time of the monotonic clock as a signed number, so that differences have no end to fall off.
fn signed(t: u64) -> i64 {
    i64::try_from(t).unwrap_or(i64::MAX)
}
