//! One device's mailbox in the embedded store: its order, its window, and how a command is handed out
//! or ends. `mailroom.rs` calls these from the operations of the seam.

use roost_types::{Command, CommandId, CommandState, DeviceKey, NodeId, SessionId, UnixMillis};

use super::devices::Device;
use super::stored::Due;
use crate::{StoreSettings, SweepFinding};

/// What an operation on a mailbox works with.
pub(super) struct Desk<'a> {
    pub(super) due: &'a mut Due,
    pub(super) settings: &'a StoreSettings,
    pub(super) now: UnixMillis,
}

// === impl Device: its mailbox ===

impl Device {
    fn with_session(&self) -> u64 {
        self.order.range(..=self.dispatched).count() as u64
    }

    /// Whether one more may be with the session.
    pub(super) fn has_room(&self, settings: &StoreSettings) -> bool {
        let window = if self.probation.is_some() { 1 } else { u64::from(settings.window) };
        self.with_session() < window
    }

    pub(super) fn waits(&self) -> bool {
        self.order.range(self.dispatched + 1..).next().is_some()
    }

    pub(super) fn step(
        &mut self,
        id: &CommandId,
        state: CommandState,
        by: Option<SessionId>,
        desk: &Desk<'_>,
    ) {
        let stored = self.commands.get_mut(id).expect("the caller found it");
        let entry = stored.step(state, by, desk.now);
        self.remember(entry, desk.settings.history);
    }

    /// Hands a command to a session; `false` where it has no attempt left.
    pub(super) fn dispatch(
        &mut self,
        id: &CommandId,
        session: SessionId,
        desk: &mut Desk<'_>,
    ) -> bool {
        let head = self.probation;
        let stored = self.commands.get_mut(id).expect("an ordered command is stored");
        let Some(attempt) = stored.next_attempt(head) else {
            return false;
        };
        stored.command.attempt = attempt;
        stored.command.session = Some(session);
        let look = desk.now.plus(desk.settings.undelivered_after);
        let at = look.min(stored.command.spec.expires);
        desk.due.set(stored, at);
        self.dispatched = stored.command.seq;
        self.step(id, CommandState::Dispatched, Some(session), desk);
        true
    }

    /// Until when after its return the device may answer a command that it was given and that has no
    /// attempt left; `None` where there is nothing to wait for.
    pub(super) fn may_answer_until(&self, id: &CommandId, desk: &Desk<'_>) -> Option<UnixMillis> {
        let stored = &self.commands[id];
        let given = stored.command.state >= CommandState::Sent;
        let answer_by = self.session.as_ref()?.claimed_at.plus(desk.settings.undelivered_after);
        let waits = given && stored.next_attempt(self.probation).is_none() && desk.now < answer_by;
        waits.then_some(answer_by)
    }

    /// Whether commands wait that may be dispatched now. Should nobody hear of it, the sweep finds the
    /// first of them.
    pub(super) fn has_next(&mut self, desk: &mut Desk<'_>) -> bool {
        let open = self.has_room(desk.settings);
        let Some((_, id)) = self.order.range(self.dispatched + 1..).next().filter(|_| open) else {
            return false;
        };
        let stored = self.commands.get_mut(id).expect("an ordered command is stored");
        let look = desk.now.plus(desk.settings.undelivered_after);
        let at = look.min(stored.command.spec.expires);
        desk.due.set(stored, at);
        true
    }

    /// The device's session is to read the mailbox.
    pub(super) fn to_be_read(&self, key: &DeviceKey) -> Option<SweepFinding> {
        self.session.as_ref().map(|claim| SweepFinding::Undelivered {
            device: key.clone(),
            session: claim.session,
            node: claim.node.clone(),
        })
    }

    /// Ends a command: out of the order, to be forgotten after the retention.
    pub(super) fn end(
        &mut self,
        id: &CommandId,
        state: CommandState,
        by: Option<SessionId>,
        desk: &mut Desk<'_>,
    ) -> (Box<Command>, Vec<NodeId>) {
        self.step(id, state, by, desk);
        let stored = self.commands.get_mut(id).expect("it took a step");
        desk.due.set(stored, desk.now.plus(desk.settings.retention));
        self.order.remove(&stored.command.seq);
        self.bytes -= stored.size();
        (Box::new(stored.command.clone()), std::mem::take(&mut stored.waiting))
    }
}
