//! Recording a run: many threads, one clock, one history. Checking it is in `check/`.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

use crate::{Event, History, Kind, ReadError};

/// The machine's monotonic clock in microseconds: the same for every process on the machine, and in
/// every language (`time.monotonic_ns() // 1000` in Python, `process.hrtime.bigint() / 1000n` in Node).
pub fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds * 1_000_000 + nanos / 1_000
}

/// Collects the events of one process. Share it by reference or `Arc`.
///
/// An event costs one short lock: its time is taken under it, so that the history is in order.
#[derive(Debug, Default)]
pub struct Recorder {
    next_op: AtomicU64,
    history: Mutex<History>,
}

// === impl Recorder ===

impl Recorder {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes an event as happening now, whatever time it bears. An error says that the event has a
    /// state that is none.
    pub fn add(&self, event: Event<'_>) -> Result<(), ReadError> {
        let mut history = self.history.lock();
        history.add(&event.at(monotonic_us()))
    }

    /// Notes the start of an operation as happening now; gives its number, which the answer needs.
    pub fn invoke(&self, event: Event<'_>) -> Result<u64, ReadError> {
        let op = self.next_op.fetch_add(1, Ordering::Relaxed) + 1;
        self.add(event.op(op))?;
        Ok(op)
    }

    /// Notes that operation `op` was answered by [`Kind::Ok`], [`Kind::Fail`] or [`Kind::Unknown`].
    pub fn answer(&self, kind: Kind, op: u64) -> Result<(), ReadError> {
        self.add(Event::answer(kind, op))
    }

    /// Takes what was recorded so far.
    pub fn take(&self) -> History {
        std::mem::take(&mut self.history.lock())
    }
}
