//! Where an edge, or a whole node, stands in its life. What makes an edge move on is in `edge.rs`
//! and `worker/drain.rs`.

use tokio::sync::watch;

/// A stage in the life of an edge or of a node; it only ever moves to a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Listeners are bound, the rest is being started.
    Starting,
    /// Devices can connect.
    Ready,
    /// Devices are told to go, new ones are refused.
    Draining,
    /// The listeners are closed, the last connections forced; what else there is ends.
    Closing,
    /// Nothing runs any more.
    Stopped,
}

/// Publishes the phase to whoever watches.
#[derive(Debug)]
pub struct Lifecycle(watch::Sender<Phase>);

// === impl Lifecycle ===

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl Lifecycle {
    /// At the start.
    pub fn new() -> Self {
        Self(watch::Sender::new(Phase::Starting))
    }

    /// The phase now.
    pub fn now(&self) -> Phase {
        *self.0.borrow()
    }

    /// Follows the phase.
    pub fn watch(&self) -> watch::Receiver<Phase> {
        self.0.subscribe()
    }

    /// Moves on; going back is no move at all.
    pub fn advance(&self, next: Phase) {
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
