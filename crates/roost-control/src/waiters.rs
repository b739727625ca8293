//! Who waits for which command on this node. How long, and for what, is in `follow.rs`.

use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use roost_types::{Command, CommandId, CommandState, DeviceKey};
use tokio::sync::watch;

type Key = (DeviceKey, CommandId);
type Latest = Option<Arc<Command>>;

/// The commands that callers wait for, each with the newest that was heard of it.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    awaited: DashMap<Key, Awaited>,
    /// Counts interruptions of this node's channel: after each, updates may be missing.
    interruptions: watch::Sender<u64>,
}

#[derive(Debug)]
struct Awaited {
    /// How many wait; the entry goes with the last.
    waiters: usize,
    latest: watch::Sender<Latest>,
}

/// One caller that waits; until it is dropped it hears of every update.
#[derive(Debug)]
pub(crate) struct Waiter {
    waiters: Arc<Waiters>,
    key: Key,
    latest: watch::Receiver<Latest>,
    interruptions: watch::Receiver<u64>,
}

/// What a waiter hears.
#[derive(Debug)]
pub(crate) enum Heard {
    /// The command, as it stood at some time.
    Update(Arc<Command>),
    /// Updates may be missing.
    Interruption,
}

// === impl Waiters ===

impl Waiters {
    /// Hears of this command from now on.
    pub(crate) fn register(self: &Arc<Self>, device: &DeviceKey, id: &CommandId) -> Waiter {
        let key = (device.clone(), id.clone());
        let latest = match self.awaited.entry(key.clone()) {
            Entry::Occupied(mut entry) => {
                let awaited = entry.get_mut();
                awaited.waiters += 1;
                awaited.latest.subscribe()
            }
            Entry::Vacant(entry) => {
                let (sender, receiver) = watch::channel(None);
                entry.insert(Awaited { waiters: 1, latest: sender });
                receiver
            }
        };
        Waiter {
            waiters: Arc::clone(self),
            key,
            latest,
            interruptions: self.interruptions.subscribe(),
        }
    }

    /// A command moved on.
    pub(crate) fn update(&self, command: &Command) {
        let key = (command.device.clone(), command.spec.id.clone());
        if let Some(awaited) = self.awaited.get(&key) {
            awaited.latest.send_if_modified(|latest| {
                let news = latest.as_ref().is_none_or(|known| is_newer(command, known));
                if news {
                    *latest = Some(Arc::new(command.clone()));
                }
                news
            });
        }
    }

    /// Updates may be missing: everybody should look for themselves.
    pub(crate) fn interrupted(&self) {
        self.interruptions.send_modify(|count| *count += 1);
    }

    /// How many commands are awaited.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.awaited.len()
    }
}

/// Whether `one` is a later sight of the same command than `other`. Updates travel by different ways
/// and may overtake each other.
///
/// Every change of the record raises its revision. Without a change of it, a command is queued again
/// once its session is lost, and over once its time has come.
pub(crate) fn is_newer(one: &Command, other: &Command) -> bool {
    let age = |command: &Command| {
        let queued = command.state == CommandState::Queued;
        (command.state.is_terminal(), command.revision, queued)
    };
    age(one) > age(other)
}

// === impl Waiter ===

impl Waiter {
    /// The next that is heard. Cancel safe.
    pub(crate) async fn hear(&mut self) -> Heard {
        loop {
            tokio::select! {
                biased;
                // The senders of both live as long as this waiter is counted.
                Ok(()) = self.latest.changed() => {
                    if let Some(command) = self.latest.borrow_and_update().clone() {
                        return Heard::Update(command);
                    }
                }
                // After updates, which may say already what would be looked for.
                Ok(()) = self.interruptions.changed() => return Heard::Interruption,
                else => std::future::pending().await,
            }
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.waiters.awaited.entry(self.key.clone()) {
            entry.get_mut().waiters -= 1;
            if entry.get().waiters == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roost_types::{CommandSpec, DeviceId, TenantId, Transition, UnixMillis};

    fn command(state: CommandState, revision: u64) -> Command {
        let id = CommandId::new("c").unwrap();
        Command {
            device: DeviceKey::new(TenantId::default(), DeviceId::new("d").unwrap()),
            spec: CommandSpec::new(id, "n", UnixMillis(1_000)),
            seq: 1,
            state,
            attempt: 0,
            session: None,
            created: UnixMillis(0),
            transitions: vec![Transition { state, time: UnixMillis(5) }],
            progress: None,
            result: None,
            late: None,
            redriven_as: None,
            revision,
        }
    }

    #[tokio::test]
    async fn all_waiters_hear_the_newest_and_leave_nothing_behind() {
        let waiters = Arc::new(Waiters::default());
        let sent = command(CommandState::Sent, 5);
        let mut one = waiters.register(&sent.device, &sent.spec.id);
        let mut two = waiters.register(&sent.device, &sent.spec.id);
        waiters.update(&command(CommandState::Succeeded, 7));
        waiters.update(&sent);
        for waiter in [&mut one, &mut two] {
            let heard = waiter.hear().await;
            assert!(
                matches!(heard, Heard::Update(command) if command.state == CommandState::Succeeded)
            );
        }
        drop(one);
        assert_eq!(waiters.len(), 1);
        drop(two);
        assert_eq!(waiters.len(), 0);
        waiters.update(&sent);
        assert_eq!(waiters.len(), 0);
    }

    #[tokio::test]
    async fn an_interruption_reaches_who_waits() {
        let waiters = Arc::new(Waiters::default());
        let sent = command(CommandState::Sent, 5);
        let mut waiter = waiters.register(&sent.device, &sent.spec.id);
        waiters.interrupted();
        assert!(matches!(waiter.hear().await, Heard::Interruption));
    }

    #[test]
    fn a_later_revision_is_newer_and_an_end_is_final() {
        use CommandState::{Expired, Failed, Queued, Running, Sent};
        for (one, other, newer) in [
            ((Running, 6), (Sent, 5), true),
            ((Sent, 5), (Running, 6), false),
            // More progress, or a redelivery.
            ((Running, 7), (Running, 6), true),
            ((Queued, 7), (Running, 6), true),
            // The session is lost, the time is over: no change of the record.
            ((Queued, 6), (Running, 6), true),
            ((Running, 6), (Queued, 6), false),
            ((Expired, 6), (Queued, 6), true),
            ((Expired, 7), (Expired, 6), true),
            // Said by a store that has lost what came last.
            ((Failed, 3), (Running, 6), true),
            ((Running, 9), (Failed, 3), false),
            ((Sent, 5), (Sent, 5), false),
        ] {
            let (seen, known) = (command(one.0, one.1), command(other.0, other.1));
            assert_eq!(is_newer(&seen, &known), newer, "{one:?} after {other:?}");
        }
    }
}
