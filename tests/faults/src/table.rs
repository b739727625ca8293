//! The table at the end: one line a scenario, and what was broken under it.

use std::fmt::Write as _;
use std::time::Duration;

use crate::run::Verdict;

/// How many violations are shown of each run.
const SHOWN: usize = 6;

/// A line for each run, and under those that failed what was broken.
pub fn table(verdicts: &[Verdict]) -> String {
    let mut text = format!(
        "{:<24} {:>10} {:>7} {:>8} {:>7} {:>10} {:>8} {:>8} {:>7}\n",
        "scenario",
        "operations",
        "faults",
        "unknown",
        "lost ok",
        "violations",
        "95 %",
        "all",
        "took"
    );
    for verdict in verdicts {
        let (most, all) =
            verdict.recovery.map_or((None, None), |(most, all)| (Some(most), Some(all)));
        let line = format!(
            "{:<24} {:>10} {:>7} {:>8} {:>7} {:>10} {:>8} {:>8} {:>7}\n",
            verdict.name,
            verdict.operations,
            verdict.faults,
            verdict.unknown,
            verdict.given_up,
            verdict.violations.len(),
            shown(most),
            shown(all),
            shown(Some(verdict.took)),
        );
        text.push_str(&line);
        for note in &verdict.notes {
            writeln!(text, "  {note}").expect("a String takes everything");
        }
    }
    for verdict in verdicts.iter().filter(|verdict| !verdict.violations.is_empty()) {
        writeln!(text, "\n{}:", verdict.name).expect("a String takes everything");
        for violation in verdict.violations.iter().take(SHOWN) {
            writeln!(text, "- {violation}").expect("a String takes everything");
        }
        let more = verdict.violations.len().saturating_sub(SHOWN);
        if more > 0 {
            writeln!(text, "… and {more} more").expect("a String takes everything");
        }
    }
    text
}

fn shown(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()))
}
