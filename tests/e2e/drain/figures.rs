//! What was measured, and what it has to be.
//!
//! A machine that is busy with other things may make a drain slower, never faster: so the pace is held
//! from above without mercy, counted from before the signal was sent; from below it is shown, and what is
//! held is that the process ends within its grace period with nobody cut off.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

use super::fleet::{Load, Summary};

/// A pace may be so much above what was set.
const MARGIN: f64 = 1.2;
/// And so much below it, on a machine that has nothing else to do.
const SLOWEST: f64 = 0.8;
/// The hub waits two seconds for the answer to a close frame.
const ANSWERS: Duration = Duration::from_secs(1);
/// A device may be away for so long, on whatever machine.
const AWAY: Duration = Duration::from_secs(60);

/// All restarts.
#[derive(Debug, Default)]
pub(super) struct Figures {
    restarts: Vec<Restart>,
    /// Codes of every close.
    codes: Vec<u16>,
}

/// How an edge went.
#[derive(Debug)]
pub(super) struct Went<'a> {
    pub(super) edge: &'a str,
    /// By SIGKILL, or by SIGTERM.
    pub(super) killed: bool,
    /// Just before the signal was sent.
    pub(super) began: Instant,
    /// From there to the end of the process.
    pub(super) took: Duration,
}

/// One edge's restart.
#[derive(Debug)]
pub(super) struct Restart {
    pub(super) edge: String,
    killed: bool,
    pub(super) took: Duration,
    closed: usize,
    /// Devices a second that were to be closed.
    set: f64,
    /// From the signal to the last close: never faster than it was.
    at_most: f64,
    /// Between the first and the last close.
    measured: f64,
    /// How long each device was away, in order.
    away: Vec<Duration>,
}

// === impl Figures ===

impl Figures {
    /// Takes down what a restart did to the devices of an edge.
    #[expect(clippy::cast_precision_loss, reason = "a few thousand devices")]
    pub(super) fn restarted(&mut self, went: &Went<'_>, over: Duration, load: &Load) {
        let Went { edge, killed, began, took } = *went;
        let ends = load.ends(edge, began);
        let closed = ends.len();
        let times = ends.iter().map(|end| end.at);
        let (first, last) = (times.clone().min(), times.max());
        let span = |from: Instant| last.map_or(0.0, |last| last.duration_since(from).as_secs_f64());
        let mut away: Vec<Duration> = ends.iter().filter_map(|end| end.away).collect();
        away.sort_unstable();
        self.codes = load.all_ends().iter().map(|end| end.code).collect();
        self.restarts.push(Restart {
            edge: edge.to_owned(),
            killed,
            took,
            closed,
            set: closed as f64 / over.as_secs_f64(),
            at_most: closed as f64 / span(began).max(0.001),
            measured: closed.saturating_sub(1) as f64 / first.map_or(0.0, span).max(0.001),
            away,
        });
    }

    pub(super) fn in_order(&self) -> impl Iterator<Item = &Restart> {
        self.restarts.iter().filter(|restart| !restart.killed)
    }

    /// For people.
    pub(super) fn table(&self, summary: &Summary) -> String {
        let mut text = String::from(
            "\nedge  how      devices  set/s  closed/s  of set  exit s  away p50  p99    max\n",
        );
        for it in &self.restarts {
            let how = if it.killed { "SIGKILL" } else { "SIGTERM" };
            let (set, closed, share) = if it.killed {
                ("-".to_owned(), "-".to_owned(), "-".to_owned())
            } else {
                let share = format!("{:.0} %", 100.0 * it.measured / it.set.max(0.001));
                (format!("{:.1}", it.set), format!("{:.1}", it.measured), share)
            };
            writeln!(
                text,
                "{:<5} {how:<8} {:>7} {set:>6} {closed:>9} {share:>7} {:>7.1} {:>9.2} {:>5.2} {:>6.2}",
                it.edge,
                it.closed,
                it.took.as_secs_f64(),
                seconds(&it.away, 0.5),
                seconds(&it.away, 0.99),
                seconds(&it.away, 1.0),
            )
            .unwrap();
        }
        let mut codes: Vec<(u16, usize)> = vec![];
        for code in &self.codes {
            match codes.iter_mut().find(|(known, _)| known == code) {
                Some((_, count)) => *count += 1,
                None => codes.push((*code, 1)),
            }
        }
        writeln!(
            text,
            "{} devices, {} commands accepted: {} lost, {} done twice, {} of another end; {} came again \
             and were known\nclose codes {codes:?}; {} connections refused; {} publications received; \
             longest stall of this test {:.2} s",
            summary.devices,
            summary.accepted,
            summary.lost.len(),
            summary.twice.len(),
            summary.unfinished.len(),
            summary.repeated,
            summary.refused,
            summary.news,
            summary.stall.as_secs_f64(),
        )
        .unwrap();
        text
    }

    /// What has to hold on whatever machine.
    pub(super) fn check(&self, summary: &Summary, crashed: bool) {
        assert!(summary.accepted > 0 && summary.news > 0, "the fleet was busy");
        assert_eq!(summary.lost, Vec::<String>::new(), "accepted, and never done");
        assert_eq!(summary.twice, Vec::<String>::new(), "done twice");
        assert_eq!(summary.unfinished, Vec::<String>::new(), "done, and not known as done");
        let others: Vec<u16> = self.codes.iter().copied().filter(|code| *code != 1012).collect();
        let cut = others.iter().filter(|code| **code == 1006).count();
        let killed: usize = self.restarts.iter().filter(|it| it.killed).map(|it| it.closed).sum();
        assert_eq!(others.len(), cut, "codes beside 1012 {others:?}");
        // A device that does not run for so long does not answer a close frame in time.
        if summary.stall < ANSWERS {
            assert_eq!((cut > 0, cut), (crashed, killed), "only the crash cuts devices off");
        }
        for it in self.in_order() {
            assert!(it.closed > 0, "edge {} had devices", it.edge);
            assert!(
                it.at_most <= it.set * MARGIN,
                "edge {} closed {:.1} a second where {:.1} were set",
                it.edge,
                it.at_most,
                it.set
            );
        }
        for it in &self.restarts {
            assert_eq!(it.away.len(), it.closed, "every device of edge {} came back", it.edge);
            let longest = it.away.last().copied().unwrap_or_default();
            assert!(longest <= AWAY, "a device of edge {} was away for {longest:?}", it.edge);
        }
    }
}

// === impl Restart ===

impl Restart {
    /// Whether the pace was about what was set.
    pub(super) fn is_fast_enough(&self) -> bool {
        self.measured >= self.set * SLOWEST
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a few thousand devices"
)]
fn seconds(sorted: &[Duration], share: f64) -> f64 {
    let at = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted.get(at).map_or(0.0, Duration::as_secs_f64)
}
