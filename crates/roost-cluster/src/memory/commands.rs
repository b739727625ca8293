//! Mailboxes of the embedded store: the rules for each step of a command. See `mailboxes.rs` of
//! this crate for what they promise.

use std::collections::BTreeSet;

use roost_types::{
    Command, CommandId, CommandSpec, CommandState, DeviceKey, NodeId, SessionId, Transition,
    UnixMillis,
};

use super::devices::{Device, Devices};
use crate::{
    Batch, Cancelled, Dispatch, Enqueued, Page, PageRequest, Report, Reported, StoreError,
    StoreSettings, SweepFinding,
};

/// How many commands one read hands out.
const BATCH: usize = 32;
/// How many steps of a command are kept; a device that crashes on it each time makes many.
const KEPT_STEPS: usize = 32;
/// How many nodes may wait for one command.
const KEPT_WAITING: usize = 8;

/// A command with what only the store knows of it.
#[derive(Debug)]
pub(super) struct Stored {
    command: Command,
    digest: [u8; 16],
    waiting: Vec<NodeId>,
    /// Its entry in [`Due`].
    due: UnixMillis,
}

/// When each command is to be looked at next: unfinished ones for expiry or a lost push, finished
/// ones to be forgotten.
#[derive(Debug, Default)]
pub(super) struct Due(BTreeSet<(UnixMillis, DeviceKey, CommandId)>);

// === impl Due ===

impl Due {
    fn set(&mut self, stored: &mut Stored, at: UnixMillis) {
        let id = stored.command.spec.id.clone();
        let mut entry = (stored.due, stored.command.device.clone(), id);
        self.0.remove(&entry);
        entry.0 = at;
        stored.due = at;
        self.0.insert(entry);
    }

    fn pop(&mut self, now: UnixMillis) -> Option<(DeviceKey, CommandId)> {
        if self.0.first()?.0 > now {
            return None;
        }
        self.0.pop_first().map(|(_, device, id)| (device, id))
    }
}

// === impl Stored ===

impl Stored {
    fn new(
        key: &DeviceKey,
        spec: &CommandSpec,
        seq: u64,
        digest: [u8; 16],
        now: UnixMillis,
    ) -> Self {
        let mut stored = Self {
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
            },
            digest,
            waiting: Vec::new(),
            due: spec.expires,
        };
        stored.step(CommandState::Queued, now);
        stored
    }

    fn step(&mut self, state: CommandState, time: UnixMillis) {
        self.command.state = state;
        self.command.transitions.push(Transition { state, time });
        if self.command.transitions.len() > KEPT_STEPS {
            // The first one says when it was accepted.
            self.command.transitions.remove(1);
        }
    }

    fn add_waiting(&mut self, node: Option<&NodeId>) {
        if let Some(node) = node
            && !self.command.state.is_terminal()
            && !self.waiting.contains(node)
            && self.waiting.len() < KEPT_WAITING
        {
            self.waiting.push(node.clone());
        }
    }

    fn is_over(&self, now: UnixMillis) -> bool {
        !self.command.state.is_terminal() && self.command.spec.expires <= now
    }

    fn size(&self) -> u64 {
        self.command.spec.payload.as_ref().map_or(0, |payload| payload.len() as u64)
    }

    /// As others see it: over where its time is, queued where its session was lost.
    fn view(&self, dispatched: u64, now: UnixMillis) -> Box<Command> {
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

// === impl Device: its mailbox ===

impl Device {
    fn with_session(&self) -> u64 {
        self.order.range(..=self.dispatched).count() as u64
    }

    fn waits(&self) -> bool {
        self.order.range(self.dispatched + 1..).next().is_some()
    }

    fn dispatch(
        &mut self,
        id: &CommandId,
        session: SessionId,
        due: &mut Due,
        now: UnixMillis,
        settings: &StoreSettings,
    ) {
        let stored = self.commands.get_mut(id).expect("an ordered command is stored");
        stored.command.attempt += 1;
        stored.command.session = Some(session);
        stored.step(CommandState::Dispatched, now);
        let look = now.plus(settings.undelivered_after);
        let at = look.min(stored.command.spec.expires);
        due.set(stored, at);
        self.dispatched = stored.command.seq;
    }

    /// Whether commands wait that may be dispatched now. Should nobody hear of it, the sweep finds the
    /// first of them.
    fn has_next(&mut self, due: &mut Due, now: UnixMillis, settings: &StoreSettings) -> bool {
        let open = self.with_session() < u64::from(settings.window);
        let Some((_, id)) = self.order.range(self.dispatched + 1..).next().filter(|_| open) else {
            return false;
        };
        let stored = self.commands.get_mut(id).expect("an ordered command is stored");
        let at = now.plus(settings.undelivered_after).min(stored.command.spec.expires);
        due.set(stored, at);
        true
    }

    /// The device's session is to read the mailbox.
    fn to_be_read(&self, key: &DeviceKey) -> Option<SweepFinding> {
        self.session.as_ref().map(|claim| SweepFinding::Undelivered {
            device: key.clone(),
            session: claim.session,
            node: claim.node.clone(),
        })
    }

    /// Ends a command: out of the order, to be forgotten after the retention.
    fn end(
        &mut self,
        id: &CommandId,
        state: CommandState,
        due: &mut Due,
        now: UnixMillis,
        settings: &StoreSettings,
    ) -> (Box<Command>, Vec<NodeId>) {
        let stored = self.commands.get_mut(id).expect("the caller found it");
        stored.step(state, now);
        due.set(stored, now.plus(settings.retention));
        self.order.remove(&stored.command.seq);
        self.bytes -= stored.size();
        (Box::new(stored.command.clone()), std::mem::take(&mut stored.waiting))
    }
}

/// One operation's context: what it may change, and when it happens.
pub(super) struct Mailroom<'a> {
    pub(super) devices: &'a mut Devices,
    pub(super) due: &'a mut Due,
    pub(super) settings: &'a StoreSettings,
    pub(super) now: UnixMillis,
}

// === impl Mailroom ===

impl Mailroom<'_> {
    pub(super) fn enqueue(
        &mut self,
        key: &DeviceKey,
        spec: &CommandSpec,
        waiting: Option<&NodeId>,
    ) -> Enqueued {
        let (now, settings) = (self.now, self.settings);
        let device = self.devices.entry(key);
        let digest = spec.digest();
        if let Some(stored) = device.commands.get_mut(&spec.id) {
            if stored.digest != digest {
                return Enqueued::Conflict;
            }
            stored.add_waiting(waiting);
            return Enqueued::Existing(stored.view(device.dispatched, now));
        }
        let commands = device.order.len() as u64;
        let size = spec.payload.as_ref().map_or(0, |payload| payload.len() as u64);
        let bytes = device.bytes;
        if commands >= u64::from(settings.mailbox_commands) || bytes + size > settings.mailbox_bytes
        {
            return Enqueued::QueueFull { commands, bytes };
        }
        let may_go = !device.waits()
            && device.with_session() < u64::from(settings.window)
            && spec.expires > now;
        let prev = device.dispatched;
        device.seq += 1;
        device.bytes += size;
        device.order.insert(device.seq, spec.id.clone());
        let mut stored = Stored::new(key, spec, device.seq, digest, now);
        stored.add_waiting(waiting);
        self.due.set(&mut stored, spec.expires);
        device.commands.insert(spec.id.clone(), stored);
        let target = device.session.as_ref().filter(|_| may_go);
        let dispatch =
            target.map(|claim| Dispatch { node: claim.node.clone(), session: claim.session, prev });
        if let Some(dispatch) = &dispatch {
            device.dispatch(&spec.id, dispatch.session, self.due, now, settings);
        }
        let command = Box::new(device.commands[&spec.id].command.clone());
        Enqueued::Accepted { command, dispatch }
    }

    pub(super) fn read(
        &mut self,
        key: &DeviceKey,
        session: SessionId,
        after: u64,
    ) -> Result<Batch, StoreError> {
        let (now, settings) = (self.now, self.settings);
        let device = self.devices.get_mut(key).ok_or(StoreError::Fenced)?;
        device.check(session)?;
        // After a session was claimed again the mark is gone, but what it delivered it has.
        device.dispatched = device.dispatched.max(after);
        let mut batch = Batch { commands: Vec::new(), more: false, expired: Vec::new() };
        let later: Vec<_> =
            device.order.range(after + 1..).map(|(seq, id)| (*seq, id.clone())).collect();
        for (seq, id) in later {
            if device.commands[&id].is_over(now) {
                let (command, waiting) =
                    device.end(&id, CommandState::Expired, self.due, now, settings);
                batch.expired.push((*command, waiting));
                continue;
            }
            if batch.commands.len() == BATCH {
                batch.more = true;
                break;
            }
            if seq > device.dispatched {
                if device.with_session() >= u64::from(settings.window) {
                    break;
                }
                device.dispatch(&id, session, self.due, now, settings);
            }
            batch.commands.push(device.commands[&id].command.clone());
        }
        Ok(batch)
    }

    pub(super) fn report(
        &mut self,
        key: &DeviceKey,
        session: SessionId,
        id: &CommandId,
        report: &Report,
    ) -> Result<Reported, StoreError> {
        let (now, settings) = (self.now, self.settings);
        let device = self.devices.get_mut(key).ok_or(StoreError::Fenced)?;
        device.check(session)?;
        let Some(stored) = device.commands.get_mut(id) else {
            return Ok(Reported::Unknown);
        };
        if stored.is_over(now) {
            let state = CommandState::Expired;
            return Ok(Reported::Late { state });
        }
        let state = stored.command.state;
        let next = report.state();
        let again = matches!(report, Report::Progress(_)) && state == CommandState::Running;
        let foreign = *report == Report::Sent && stored.command.session != Some(session);
        if foreign || !(again || state.may_become(next)) {
            return Ok(Reported::Late { state });
        }
        match report {
            Report::Progress(progress) => stored.command.progress = Some(progress.clone()),
            Report::Result(result) => stored.command.result = Some(result.clone()),
            Report::Sent | Report::Received => {}
        }
        let (command, waiting) = if next.is_terminal() {
            device.end(id, next, self.due, now, settings)
        } else {
            if !again {
                stored.step(next, now);
            }
            let expires = stored.command.spec.expires;
            self.due.set(stored, expires);
            (stored.view(device.dispatched.max(stored.command.seq), now), stored.waiting.clone())
        };
        let more = device.has_next(self.due, now, settings);
        Ok(Reported::Applied { command, waiting, more })
    }

    pub(super) fn cancel(&mut self, key: &DeviceKey, id: &CommandId) -> Cancelled {
        let (now, settings) = (self.now, self.settings);
        let Some(device) = self.devices.get_mut(key) else {
            return Cancelled::Unknown;
        };
        let Some(stored) = device.commands.get(id) else {
            return Cancelled::Unknown;
        };
        let command = stored.view(device.dispatched, now);
        match command.state {
            state if state.is_terminal() => Cancelled::Ended(command),
            CommandState::Queued => {
                let (command, waiting) =
                    device.end(id, CommandState::Cancelled, self.due, now, settings);
                Cancelled::Cancelled { command, waiting }
            }
            _ => {
                let current = device.session.as_ref();
                let holder = current.filter(|claim| command.session == Some(claim.session));
                let forward = holder.map(|claim| (claim.session, claim.node.clone()));
                Cancelled::TooLate { command, forward }
            }
        }
    }

    pub(super) fn get(
        &mut self,
        key: &DeviceKey,
        id: &CommandId,
        waiting: Option<&NodeId>,
    ) -> Option<Command> {
        let device = self.devices.get_mut(key)?;
        let stored = device.commands.get_mut(id)?;
        stored.add_waiting(waiting);
        Some(*stored.view(device.dispatched, self.now))
    }

    pub(super) fn list(
        &self,
        key: &DeviceKey,
        state: Option<CommandState>,
        page: &PageRequest,
    ) -> Result<Page<Command>, StoreError> {
        let unreadable = |_| StoreError::Invalid("this page token is not one of this hub's".into());
        let before: Option<u64> =
            page.token.as_deref().map(str::parse).transpose().map_err(unreadable)?;
        let Some(device) = self.devices.get(key) else {
            return Ok(Page { items: vec![], next: None });
        };
        let mut items: Vec<Command> = device
            .commands
            .values()
            .filter(|stored| before.is_none_or(|before| stored.command.seq < before))
            .map(|stored| *stored.view(device.dispatched, self.now))
            .filter(|command| state.is_none_or(|state| command.state == state))
            .collect();
        items.sort_by_key(|command| std::cmp::Reverse(command.seq));
        let more = items.len() > page.size;
        items.truncate(page.size);
        let last = items.last().filter(|_| more);
        let next = last.map(|command| command.seq.to_string());
        Ok(Page { items, next })
    }

    pub(super) fn sweep(&mut self) -> Vec<SweepFinding> {
        let mut findings = Vec::new();
        while let Some((key, id)) = self.due.pop(self.now) {
            findings.extend(self.look_at(&key, &id));
        }
        let forgotten = self.now.minus(self.settings.device_retention);
        self.devices.forget_before(forgotten);
        findings
    }

    fn look_at(&mut self, key: &DeviceKey, id: &CommandId) -> Vec<SweepFinding> {
        let (now, settings) = (self.now, self.settings);
        let Some(device) = self.devices.get_mut(key) else {
            return Vec::new();
        };
        let Some(stored) = device.commands.get_mut(id) else {
            return Vec::new();
        };
        let (seq, expires) = (stored.command.seq, stored.command.spec.expires);
        if stored.command.state.is_terminal() {
            device.commands.remove(id);
            return Vec::new();
        }
        if stored.is_over(now) {
            let (command, waiting) = device.end(id, CommandState::Expired, self.due, now, settings);
            let mut found = vec![SweepFinding::Expired { command, waiting }];
            if seq <= device.dispatched && device.has_next(self.due, now, settings) {
                found.extend(device.to_be_read(key));
            }
            return found;
        }
        let lost = stored.command.state == CommandState::Dispatched
            && device.session.as_ref().is_some_and(|s| stored.command.session == Some(s.session));
        let left = seq > device.dispatched && device.with_session() < u64::from(settings.window);
        let finding = device.to_be_read(key).filter(|_| lost || left);
        let next = match &finding {
            Some(_) => expires.min(now.plus(settings.undelivered_after)),
            None => expires,
        };
        let stored = device.commands.get_mut(id).expect("it was just found");
        self.due.set(stored, next);
        finding.into_iter().collect()
    }
}

// === impl Report ===

impl Report {
    /// The state that this report puts a command in.
    pub fn state(&self) -> CommandState {
        match self {
            Self::Sent => CommandState::Sent,
            Self::Received => CommandState::Received,
            Self::Progress(_) => CommandState::Running,
            Self::Result(result) => result.status.state(),
        }
    }
}
