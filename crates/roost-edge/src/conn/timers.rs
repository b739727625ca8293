//! What a connection waits for, as a few numbers on its worker's wheel. What happens when the time
//! comes is in `conn/ending.rs`.

use std::cell::Cell;

use crate::wheel::Ticks;

/// No deadline.
pub(super) const NEVER: Ticks = Ticks::MAX;

/// A connection's deadlines, in its worker's ticks.
#[derive(Debug)]
pub(super) struct Timers {
    /// When the last byte came.
    heard: Cell<Ticks>,
    /// The silence after which a ping is due.
    keepalive: Cell<Ticks>,
    /// Whether a ping was sent in this silence.
    pinged: Cell<bool>,
    /// Whether a ping has had no pong yet; bytes of other kinds do not answer it.
    awaits_pong: Cell<bool>,
    /// When the present phase (waiting for `hello`, for the peer's close frame) is over.
    pub(super) phase_by: Cell<Ticks>,
    /// When the send queue must have been empty once.
    pub(super) stalled_by: Cell<Ticks>,
    /// When the credential ends.
    pub(super) expires_by: Cell<Ticks>,
    /// When the connection is old enough.
    pub(super) aged_by: Cell<Ticks>,
    /// For when the wheel is set; other entries of this connection are outdated.
    pub(super) armed: Cell<Ticks>,
}

/// What the time has come for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing yet.
    Nothing,
    /// The phase is over.
    Phase,
    /// The send queue was never empty for too long.
    Stalled,
    /// The credential's time is over.
    Expired,
    /// The connection is old enough.
    Aged,
    /// Nothing was heard, not even a pong.
    Silent,
    /// A ping.
    Ping,
}

// === impl Timers ===

impl Timers {
    /// Those of a connection that was accepted `now`.
    pub(super) fn new(now: Ticks, keepalive: Ticks, phase_by: Ticks) -> Self {
        Self {
            heard: Cell::new(now),
            keepalive: Cell::new(keepalive),
            pinged: Cell::new(false),
            awaits_pong: Cell::new(false),
            phase_by: Cell::new(phase_by),
            stalled_by: Cell::new(NEVER),
            expires_by: Cell::new(NEVER),
            aged_by: Cell::new(NEVER),
            armed: Cell::new(NEVER),
        }
    }

    /// Any byte is a sign of life.
    pub(super) fn hear(&self, now: Ticks) {
        self.heard.set(now);
        self.pinged.set(false);
    }

    /// The worker did not run for `stall`: what the peer sent then is not read yet, so none of that
    /// time counts against it. A credential's end stays where it is.
    pub(super) fn forgive(&self, stall: Ticks) {
        self.heard.set(self.heard.get().saturating_add(stall));
        // `NEVER` stays what it is.
        for by in [&self.phase_by, &self.stalled_by] {
            by.set(by.get().saturating_add(stall));
        }
    }

    /// A pong came: whether it is the first after a ping.
    pub(super) fn take_pong(&self) -> bool {
        self.awaits_pong.take()
    }

    pub(super) fn set_keepalive(&self, keepalive: Ticks) {
        self.keepalive.set(keepalive);
    }

    fn ping_at(&self) -> Ticks {
        self.heard.get().saturating_add(self.keepalive.get())
    }

    fn silent_at(&self) -> Ticks {
        // Two ticks early, as the wheel may be late by as much: silence is to be found out within one
        // and a half intervals.
        let patience = (self.keepalive.get() / 2).saturating_sub(2).max(1);
        self.ping_at().saturating_add(patience)
    }

    /// What is due; of several things the one that ends the connection soonest.
    pub(super) fn due(&self, now: Ticks) -> Due {
        if now >= self.phase_by.get() {
            Due::Phase
        } else if now >= self.stalled_by.get() {
            Due::Stalled
        } else if now >= self.expires_by.get() {
            Due::Expired
        } else if now >= self.aged_by.get() {
            Due::Aged
        } else if now >= self.silent_at() && self.pinged.get() {
            Due::Silent
        } else if now >= self.ping_at() && !self.pinged.get() {
            self.pinged.set(true);
            // One that comes late leaves no less time for its answer.
            self.heard.set(now - self.keepalive.get());
            self.awaits_pong.set(true);
            Due::Ping
        } else {
            Due::Nothing
        }
    }

    /// When to look again.
    pub(super) fn next(&self) -> Ticks {
        let life = if self.pinged.get() { self.silent_at() } else { self.ping_at() };
        let ends = [&self.phase_by, &self.stalled_by, &self.expires_by, &self.aged_by];
        ends.into_iter().map(Cell::get).fold(life, Ticks::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_brings_one_ping_and_then_the_end() {
        let timers = Timers::new(10, 40, NEVER);
        assert_eq!((timers.next(), timers.due(49)), (50, Due::Nothing));
        assert_eq!(timers.due(50), Due::Ping);
        assert_eq!((timers.next(), timers.due(51)), (68, Due::Nothing));
        assert_eq!(timers.due(68), Due::Silent);
        timers.hear(70);
        assert_eq!((timers.next(), timers.due(70)), (110, Due::Nothing));
    }

    #[test]
    fn nobody_is_silent_who_was_not_pinged() {
        let timers = Timers::new(0, 40, NEVER);
        assert_eq!(timers.due(500), Due::Ping, "the worker was late");
        assert_eq!((timers.next(), timers.due(517)), (518, Due::Nothing));
        assert_eq!(timers.due(518), Due::Silent);
    }

    #[test]
    fn a_stall_of_the_worker_counts_against_nobody() {
        let timers = Timers::new(0, 40, 20);
        timers.expires_by.set(200);
        timers.forgive(240);
        assert_eq!((timers.phase_by.get(), timers.stalled_by.get()), (260, NEVER));
        assert_eq!(timers.due(240), Due::Expired);
        timers.expires_by.set(NEVER);
        assert_eq!((timers.due(240), timers.due(260)), (Due::Nothing, Due::Phase));
    }

    #[test]
    fn a_credential_ends_however_long_the_age_is_put_off() {
        let timers = Timers::new(0, 40_000, NEVER);
        timers.expires_by.set(200);
        timers.aged_by.set(100);
        assert_eq!((timers.next(), timers.due(100)), (100, Due::Aged));
        timers.aged_by.set(300);
        assert_eq!((timers.next(), timers.due(199)), (200, Due::Nothing));
        assert_eq!(timers.due(300), Due::Expired);
    }

    #[test]
    fn the_nearest_deadline_counts() {
        let timers = Timers::new(0, 40, 20);
        assert_eq!((timers.next(), timers.due(20)), (20, Due::Phase));
        timers.phase_by.set(NEVER);
        timers.stalled_by.set(12);
        assert_eq!((timers.next(), timers.due(12)), (12, Due::Stalled));
        timers.stalled_by.set(NEVER);
        timers.expires_by.set(5);
        assert_eq!((timers.next(), timers.due(5)), (5, Due::Expired));
    }
}
