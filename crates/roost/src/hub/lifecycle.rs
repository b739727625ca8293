//! Where a node stands in its life.

use tokio::sync::watch;

/// A stage of a node's life; it only ever moves to a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Listeners are bound, the store is being joined.
    Starting,
    /// It serves.
    Ready,
    /// It is not ready any more; devices are sent elsewhere.
    Draining,
    /// No devices are left; gRPC, the lease and the admin server end.
    Closing,
    /// Nothing runs any more.
    Stopped,
}

/// Publishes the phase.
#[derive(Debug)]
pub(super) struct Lifecycle(watch::Sender<Phase>);

// === impl Lifecycle ===

impl Lifecycle {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Phase::Starting))
    }

    pub(super) fn watch(&self) -> watch::Receiver<Phase> {
        self.0.subscribe()
    }

    /// Moves on; going back is no move at all.
    pub(super) fn advance(&self, next: Phase) {
        let moved = self.0.send_if_modified(|now| {
            let moves = next > *now;
            *now = next.max(*now);
            moves
        });
        if moved {
            tracing::debug!(phase = ?next, "the node moved on");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_never_go_back() {
        let life = Lifecycle::new();
        let seen = life.watch();
        life.advance(Phase::Closing);
        life.advance(Phase::Ready);
        assert_eq!(*seen.borrow(), Phase::Closing);
    }
}
