//! Following a command: what is heard of it (`waiters.rs`), and looking for oneself whenever something
//! may have been missed, so that a lost update costs time only. Who follows: calls that wait (here),
//! and streams (`stream.rs`).

use std::sync::Arc;
use std::time::Duration;

use roost_proto::convert::{Wait, WatchCursor};
use roost_types::Command;
use tokio::time::{Instant, sleep_until, timeout};

use crate::Control;
use crate::commands::no_such_command;
use crate::refusal::Refusal;
use crate::waiters::{Heard, Waiter, is_newer};

/// How long the last look at the record may hold up an answer that is due.
const LAST_LOOK: Duration = Duration::from_millis(300);
/// When to look again after a look that failed, or came a little too early.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How often to look though nothing says that something was missed: an update may be lost without a
/// trace, or the store's list of nodes to tell be full.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// One command as its follower knows it.
#[derive(Debug)]
pub(crate) struct Follower {
    control: Arc<Control>,
    waiter: Waiter,
    command: Command,
    /// When to read the record unless something is heard before.
    look_at: Instant,
}

/// How a wait ended.
#[derive(Debug)]
pub(crate) struct Followed {
    /// As last seen.
    pub(crate) command: Command,
    /// Whether it had not come far enough.
    pub(crate) timed_out: bool,
}

// === impl Follower ===

impl Follower {
    /// Follows a command that was read after `waiter` began to listen.
    pub(crate) fn new(control: Arc<Control>, waiter: Waiter, known: Command) -> Self {
        let look_at = control.next_look(&known);
        Self { control, waiter, command: known, look_at }
    }

    /// As last seen.
    pub(crate) fn command(&self) -> &Command {
        &self.command
    }

    /// Waits until the command has changed. Fails where the record cannot be read, or is gone; what
    /// comes later can still be waited for. Cancel safe.
    pub(crate) async fn news(&mut self) -> Result<(), Refusal> {
        loop {
            tokio::select! {
                biased;
                // News first: it may be what is waited for, at the very last moment.
                heard = self.waiter.hear() => match heard {
                    Heard::Update(update) if is_newer(&update, &self.command) => {
                        self.command = (*update).clone();
                        return Ok(());
                    }
                    Heard::Update(_) => continue,
                    // Should the look below be cut short, it is made up for.
                    Heard::Interruption => self.look_at = Instant::now(),
                },
                // It is over by now, though nobody may have said so; or it is time to make sure.
                () = sleep_until(self.look_at) => {}
            }
            if self.look().await? {
                return Ok(());
            }
        }
    }

    /// Reads the record, and has this node told of what follows. Gives whether it has changed.
    ///
    /// What is read counts even where it is older than what was heard, which was before the reading
    /// began: the store has lost what came after.
    pub(crate) async fn look(&mut self) -> Result<bool, Refusal> {
        let control = &self.control;
        let (node, known) = (&control.config.node.id, &self.command);
        let found = control.store.mailboxes.get(&known.device, &known.spec.id, Some(node));
        let found = control.read(found).await;
        self.look_at = Instant::now() + LOOK_AGAIN;
        let found = found?.ok_or_else(no_such_command)?;
        self.look_at = self.look_at.max(control.next_look(&found));
        let resurrected = known.state.is_terminal() && !found.state.is_terminal();
        if resurrected || WatchCursor::of(&found) == WatchCursor::of(known) {
            return Ok(false);
        }
        self.command = found;
        Ok(true)
    }
}

// === impl Control ===

impl Control {
    /// Waits from `since` on. A shutdown cuts the wait short, as if its time were over.
    pub(crate) async fn follow(
        self: &Arc<Self>,
        waiter: Waiter,
        known: Command,
        wait: Wait,
        since: Instant,
    ) -> Followed {
        let deadline = since + wait.timeout;
        let mut follower = Follower::new(Arc::clone(self), waiter, known);
        while !has_reached(follower.command(), wait) {
            tokio::select! {
                biased;
                // First, for the same reason as above.
                news = follower.news() => if let Err(refusal) = news {
                    tracing::debug!(?refusal, "could not look at an awaited command");
                },
                () = sleep_until(deadline) => break,
                () = self.hurry.cancelled() => break,
            }
        }
        if !has_reached(follower.command(), wait) {
            // What was missed until now is found here; a store that is slow does not hold up the answer.
            let _late = timeout(LAST_LOOK, follower.look()).await.is_err();
        }
        let timed_out = !has_reached(follower.command(), wait);
        Followed { command: follower.command, timed_out }
    }

    /// When to look at a command though nothing is heard of it: when it is over by hub time, and a
    /// little later so that it is over for the store too, or after a while.
    fn next_look(&self, command: &Command) -> Instant {
        let left = command.spec.expires.since(self.store.clock.now());
        Instant::now() + (left + Duration::from_millis(5)).min(LOOK_EVERY)
    }
}

/// Whether the command stands where the caller wants it, or has been there before it was queued again.
fn has_reached(command: &Command, wait: Wait) -> bool {
    let steps = command.transitions.iter().map(|step| step.state);
    steps.chain([command.state]).any(|state| state.satisfies(wait.until))
}
