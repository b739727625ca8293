//! Commands as the embedded store keeps them: each with its steps, and when it is looked at next.
//! What may happen to one is in `mailroom.rs`.

use std::collections::BTreeSet;

use roost_types::{
    Command, CommandId, CommandResult, CommandSpec, CommandState, DeviceKey, LateResult, NodeId,
    SessionId, Transition, UnixMillis,
};

use crate::{HistoryEntry, HistoryEvent};

/// How many steps of a command are kept; a device that crashes on it each time makes many.
const KEPT_STEPS: usize = 32;
/// How many nodes may wait for one command.
const KEPT_WAITING: usize = 8;

/// A command with what only the store knows of it.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) command: Command,
    pub(super) digest: [u8; 16],
    pub(super) waiting: Vec<NodeId>,
    /// Its entry in [`Due`].
    due: UnixMillis,
}

/// When each command is to be looked at next: unfinished ones for expiry or a lost push, finished
/// ones to be forgotten.
#[derive(Debug, Default)]
pub(super) struct Due(BTreeSet<(UnixMillis, DeviceKey, CommandId)>);

// === impl Due ===

impl Due {
    pub(super) fn set(&mut self, stored: &mut Stored, at: UnixMillis) {
        let id = stored.command.spec.id.clone();
        let mut entry = (stored.due, stored.command.device.clone(), id);
        self.0.remove(&entry);
        entry.0 = at;
        stored.due = at;
        self.0.insert(entry);
    }

    pub(super) fn pop(&mut self, now: UnixMillis) -> Option<(DeviceKey, CommandId)> {
        if self.0.first()?.0 > now {
            return None;
        }
        self.0.pop_first().map(|(_, device, id)| (device, id))
    }
}

// === impl Stored ===

impl Stored {
    pub(super) fn new(key: &DeviceKey, spec: &CommandSpec, seq: u64, now: UnixMillis) -> Self {
        Self {
            digest: spec.digest(),
            waiting: Vec::new(),
            due: spec.expires,
            command: Command {
                device: key.clone(),
                spec: spec.clone(),
                seq,
                state: CommandState::Queued,
                attempt: 0,
                session: None,
                created: now,
                transitions: Vec::new(),
                progress: None,
                result: None,
                late: None,
                redriven_as: None,
                revision: 0,
            },
        }
    }

    /// Puts it in a state; gives what the device's history has to say of it.
    pub(super) fn step(
        &mut self,
        state: CommandState,
        by: Option<SessionId>,
        time: UnixMillis,
    ) -> HistoryEntry {
        self.command.state = state;
        self.command.revision += 1;
        self.command.transitions.push(Transition { state, time });
        if self.command.transitions.len() > KEPT_STEPS {
            // The first one says when it was accepted.
            self.command.transitions.remove(1);
        }
        let id = self.command.spec.id.clone();
        HistoryEntry { time, event: HistoryEvent::Command { id, state, session: by } }
    }

    pub(super) fn add_waiting(&mut self, node: Option<&NodeId>) {
        if let Some(node) = node
            && !self.command.state.is_terminal()
            && !self.waiting.contains(node)
            && self.waiting.len() < KEPT_WAITING
        {
            self.waiting.push(node.clone());
        }
    }

    pub(super) fn is_over(&self, now: UnixMillis) -> bool {
        !self.command.state.is_terminal() && self.command.spec.expires <= now
    }

    pub(super) fn size(&self) -> u64 {
        self.command.spec.payload.as_ref().map_or(0, |payload| payload.len() as u64)
    }

    /// The number of the attempt that begins, or goes on, when it is handed out now; `None` where it
    /// has none left. What was only on its way when a session was lost is not charged for that, except
    /// for the `head` of the order, which may be what broke the session.
    pub(super) fn next_attempt(&self, head: Option<u64>) -> Option<u32> {
        let command = &self.command;
        let received = matches!(command.state, CommandState::Received | CommandState::Running);
        let charged = command.attempt == 0 || received || head == Some(command.seq);
        let next = command.attempt + u32::from(charged);
        let most = command.spec.max_attempts;
        (most == 0 || next <= most).then_some(next)
    }

    /// Keeps a result that came after the end, unless it only repeats what is known.
    pub(super) fn record_late(&mut self, result: &CommandResult, now: UnixMillis) {
        let command = &mut self.command;
        let late = command.late.as_ref();
        let same = |known: &CommandResult| {
            (known.status, &known.error) == (result.status, &result.error)
                && (known.payload_dropped || known.payload == result.payload)
        };
        if command.result.as_ref().is_some_and(same) || late.is_some_and(|late| same(&late.result))
        {
            return;
        }
        let count = late.map_or(0, |late| late.count).saturating_add(1);
        command.late = Some(LateResult { result: result.clone(), time: now, count });
        command.revision += 1;
    }

    /// As others see it: over where its time is, queued where its session was lost.
    pub(super) fn view(&self, dispatched: u64, now: UnixMillis) -> Box<Command> {
        let mut command = self.command.clone();
        if self.is_over(now) {
            let (state, time) = (CommandState::Expired, command.spec.expires);
            command.state = state;
            command.transitions.push(Transition { state, time });
        } else if !command.state.is_terminal() && command.seq > dispatched {
            command.state = CommandState::Queued;
        }
        Box::new(command)
    }
}
