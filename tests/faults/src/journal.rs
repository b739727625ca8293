//! What the run writes down: each event of the history under the names that the checker knows, and what
//! is counted for the table.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use roost_checker::{Event, History, Kind, Recorder, monotonic_us};
use roost_types::CommandState;

use crate::names::Name;

/// The history of a run and its counts. Shared by everything that takes part.
#[derive(Debug)]
pub struct Journal {
    recorder: Recorder,
    /// Events that were learned of afterwards.
    later: Mutex<History>,
    /// What hub time was, in ms, when the run's clock stood at the second, in µs.
    clock: (u64, u64),
    /// Broken promises that are no matter of the history: each in words.
    broken: Mutex<Vec<String>>,
    /// Commands answered INDETERMINATE, or not answered.
    pub unknown: Count,
    /// Commands refused for sure.
    pub refused: Count,
    /// Commands accepted, each once.
    pub accepted: Count,
    /// Acceptances that a failover may undo.
    pub volatile: Count,
    /// Commands that devices executed.
    pub executed: Count,
    /// Commands that devices got again.
    pub repeated: Count,
    /// Connections that devices opened.
    pub connections: Count,
    /// Connections that were closed because a newer session took the device.
    pub replaced: Count,
}

/// Something counted.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

// === impl Count ===

impl Count {
    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

// === impl Journal ===

impl Default for Journal {
    fn default() -> Self {
        Self::new()
    }
}

impl Journal {
    /// An empty one, which begins with what time it is.
    pub fn new() -> Self {
        let recorder = Recorder::new();
        let clock = (wall_ms(), monotonic_us());
        let journal = Self {
            recorder,
            later: Mutex::default(),
            clock,
            broken: Mutex::default(),
            unknown: Count::default(),
            refused: Count::default(),
            accepted: Count::default(),
            volatile: Count::default(),
            executed: Count::default(),
            repeated: Count::default(),
            connections: Count::default(),
            replaced: Count::default(),
        };
        journal.add(Event { hub_ms: Some(journal.hub_ms()), ..Event::new(Kind::Clock) });
        journal
    }

    /// Hub time, in ms: that of this machine's wall clock when the run began, carried on.
    pub fn hub_ms(&self) -> u64 {
        self.clock.0 + (monotonic_us() - self.clock.1) / 1_000
    }

    /// A time of the hub, in ms, on the run's clock.
    pub fn at_hub_ms(&self, hub_ms: u64) -> u64 {
        let since = i128::from(hub_ms) - i128::from(self.clock.0);
        u64::try_from(i128::from(self.clock.1) + since * 1_000).unwrap_or(0)
    }

    /// Notes an event as happening now.
    pub fn add(&self, event: Event<'_>) {
        self.recorder.add(event).expect("states are written by CommandState");
    }

    /// Notes an event as having happened at this time of the hub, in ms.
    pub fn add_at(&self, event: Event<'_>, hub_ms: u64) {
        let mut later = self.later.lock();
        later.add(&event.at(self.at_hub_ms(hub_ms))).expect("states are written by CommandState");
    }

    /// Notes the start of an operation; gives its number.
    pub fn invoke(&self, event: Event<'_>) -> u64 {
        self.recorder.invoke(event).expect("states are written by CommandState")
    }

    /// Notes the answer of an operation: `Ok`, `Fail` or `Unknown`.
    pub fn answer(&self, kind: Kind, op: u64) {
        self.add(Event::answer(kind, op));
    }

    /// Notes that a back end, which asked at `since`, saw a state.
    pub fn observe(&self, device: &Name, id: &str, state: CommandState, since: u64) {
        let event = device.event(Kind::Observe).command(id).state(state);
        self.add(Event { since: Some(since), ..event });
    }

    /// Notes a broken promise that the history does not show.
    pub fn broken(&self, what: String) {
        self.broken.lock().push(what);
    }

    /// Takes the history as it is so far.
    pub fn take(&self) -> History {
        let mut history = self.recorder.take();
        let later = std::mem::take(&mut *self.later.lock());
        history.append(&later).expect("it was a history before");
        history
    }

    /// The promises that [`Journal::broken`] was told of.
    pub fn take_broken(&self) -> Vec<String> {
        std::mem::take(&mut self.broken.lock())
    }
}

/// The machine's wall clock in ms.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
