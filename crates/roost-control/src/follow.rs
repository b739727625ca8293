//! Waiting for a command until it has come far enough, or the caller's time is over. What it hears of
//! updates is in `waiters.rs`; a lost update costs time only, since the record is read again whenever
//! something may have been missed.

use std::time::Duration;

use roost_proto::convert::Wait;
use roost_types::Command;
use tokio::time::{Instant, sleep_until, timeout};

use crate::Control;
use crate::waiters::{Heard, Waiter, is_newer};

/// How long the last look at the record may hold up an answer that is due.
const LAST_LOOK: Duration = Duration::from_millis(300);
/// When to look again after a look that failed, or came a little too early.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How a wait ended.
#[derive(Debug)]
pub(crate) struct Followed {
    /// As last seen.
    pub(crate) command: Command,
    /// Whether it had not come far enough.
    pub(crate) timed_out: bool,
}

// === impl Control ===

impl Control {
    /// Waits from `since` on. A shutdown cuts the wait short, as if its time were over.
    pub(crate) async fn follow(
        &self,
        mut waiter: Waiter,
        known: Command,
        wait: Wait,
        since: Instant,
    ) -> Followed {
        let deadline = since + wait.timeout;
        let mut look_at = self.expiry_of(&known);
        let mut command = known;
        while !has_reached(&command, wait) {
            tokio::select! {
                biased;
                // News first: it may be what is waited for, at the very last moment.
                heard = waiter.hear() => if let Heard::Update(update) = heard {
                    take_newer(&mut command, (*update).clone());
                    continue;
                }, // Else updates may be missing: read below.
                // It is over by now, though nobody may have said so: read below.
                () = sleep_until(look_at.min(deadline)), if look_at < deadline => {}
                () = sleep_until(deadline) => break,
                () = self.hurry.cancelled() => break,
            }
            self.look(&mut command).await;
            look_at = self.expiry_of(&command).max(Instant::now() + LOOK_AGAIN);
        }
        if !has_reached(&command, wait) {
            // What was missed until now is found here; a store that is slow does not hold up the answer.
            let _late = timeout(LAST_LOOK, self.look(&mut command)).await.is_err();
        }
        let timed_out = !has_reached(&command, wait);
        Followed { command, timed_out }
    }

    /// Reads the record, and has this node told of what follows.
    async fn look(&self, command: &mut Command) {
        let node = &self.config.node.id;
        let mailboxes = &self.store.mailboxes;
        let found = mailboxes.get(&command.device, &command.spec.id, Some(node));
        match self.read(found).await {
            Ok(Some(found)) => take_newer(command, found),
            Ok(None) => {
                tracing::debug!(command.id = %command.spec.id, "an awaited command is gone");
            }
            Err(refusal) => tracing::debug!(?refusal, "could not look at an awaited command"),
        }
    }

    /// When the command is over by hub time, and a little later so that it is over for the store too.
    fn expiry_of(&self, command: &Command) -> Instant {
        let left = command.spec.expires.since(self.store.clock.now());
        Instant::now() + left + Duration::from_millis(5)
    }
}

/// Whether the command stands where the caller wants it, or has been there before it was queued again.
fn has_reached(command: &Command, wait: Wait) -> bool {
    let steps = command.transitions.iter().map(|step| step.state);
    steps.chain([command.state]).any(|state| state.satisfies(wait.until))
}

fn take_newer(known: &mut Command, seen: Command) {
    if is_newer(&seen, known) {
        *known = seen;
    }
}
