//! A worker's timers: thousands of connections on one tick, a few bytes each, instead of a timer
//! entry per connection. What a connection waits for is in `conn/timers.rs`.

use std::time::Duration;

/// How finely time is told here: every deadline is met within this much after it.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// How far ahead the wheel reaches; what is further off is looked at again then. 256 s.
const SLOTS: u32 = 1024;

/// Ticks since the worker started.
pub(crate) type Ticks = u32;

/// `duration` in ticks, at least one, rounded up: never early.
pub(crate) fn ticks(duration: Duration) -> Ticks {
    let whole = duration.as_millis().div_ceil(TICK.as_millis());
    u32::try_from(whole).unwrap_or(u32::MAX / 4).clamp(1, u32::MAX / 4)
}

/// Who is to be looked at when.
#[derive(Debug)]
pub(crate) struct Wheel<T> {
    slots: Vec<Vec<(Ticks, T)>>,
    now: Ticks,
}

// === impl Wheel ===

impl<T> Wheel<T> {
    pub(crate) fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| Vec::new()).collect(), now: 0 }
    }

    /// Arranges for `who` to come up at `at`, or where that is past the wheel's reach, as late as
    /// possible before. Returns the tick at which it will.
    pub(crate) fn schedule(&mut self, at: Ticks, who: T) -> Ticks {
        let at = at.clamp(self.now + 1, self.now + SLOTS - 1);
        self.slots[(at % SLOTS) as usize].push((at, who));
        at
    }

    /// Moves time on to `to` and gives everybody who came up, with their ticks.
    pub(crate) fn advance(&mut self, to: Ticks) -> Vec<(Ticks, T)> {
        let mut due = Vec::new();
        // After a long stall each slot is emptied once, not once per tick missed.
        let steps = to.saturating_sub(self.now).min(SLOTS);
        for step in 1..=steps {
            due.append(&mut self.slots[((self.now + step) % SLOTS) as usize]);
        }
        self.now = self.now.max(to);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_comes_up_once_and_never_early() {
        let mut wheel = Wheel::new();
        for at in [1, 3, 3, 700] {
            assert_eq!(wheel.schedule(at, at), at);
        }
        assert_eq!(wheel.advance(2), [(1, 1)]);
        assert_eq!(wheel.advance(3), [(3, 3), (3, 3)]);
        assert_eq!(wheel.advance(699), []);
        assert_eq!(wheel.advance(5_000), [(700, 700)]);
        assert_eq!(wheel.schedule(4_000, 1), 5_001, "what is past comes next");
        assert_eq!(wheel.advance(20_000), [(5_001, 1)]);
    }

    #[test]
    fn what_is_far_off_comes_up_before_its_time() {
        let mut wheel = Wheel::new();
        assert_eq!(wheel.schedule(1_000_000, ()), SLOTS - 1);
        assert_eq!(wheel.advance(SLOTS), [(SLOTS - 1, ())]);
    }

    #[test]
    fn durations_round_up() {
        assert_eq!(ticks(Duration::ZERO), 1);
        assert_eq!(ticks(Duration::from_millis(250)), 1);
        assert_eq!(ticks(Duration::from_millis(251)), 2);
        assert_eq!(ticks(Duration::from_secs(5)), 20);
    }
}
