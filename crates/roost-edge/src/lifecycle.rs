//! Where an edge stands in its life. What makes it move on is in `edge.rs` and `drain.rs`.

use tokio::sync::watch;

/// A stage in an edge's life; it only ever moves to a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Workers are being started.
    Starting,
    /// Devices can connect.
    Ready,
    /// Devices are told to go, new ones are refused.
    Draining,
    /// The listeners are closed, the last connections forced.
    Closing,
    /// Every worker has ended.
    Stopped,
}

/// Publishes the phase to whoever watches.
#[derive(Debug)]
pub(crate) struct Lifecycle(watch::Sender<Phase>);

// === impl Lifecycle ===

impl Lifecycle {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Phase::Starting))
    }

    pub(crate) fn now(&self) -> Phase {
        *self.0.borrow()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Phase> {
        self.0.subscribe()
    }

    /// Moves on; going back is no move at all.
    pub(crate) fn advance(&self, next: Phase) {
        self.0.send_if_modified(|now| {
            let moves = next > *now;
            if moves {
                *now = next;
            }
            moves
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_never_go_back() {
        let life = Lifecycle::new();
        life.advance(Phase::Draining);
        life.advance(Phase::Ready);
        assert_eq!(life.now(), Phase::Draining);
        assert_eq!(*life.watch().borrow(), Phase::Draining);
    }
}
