//! The operations on mailboxes of the embedded store. See `mailboxes.rs` of this crate for what they
//! promise, `mailbox.rs` for what happens inside one mailbox.

use roost_types::{
    Command, CommandId, CommandState, DeviceKey, NodeId, SessionId, TenantId, UnixMillis,
};

use super::devices::Devices;
use super::mailbox::Desk;
use super::stored::{Due, Stored};
use crate::{
    Batch, Cancelled, CommandFilter, Dispatch, Durability, Enqueued, Offer, Page, PageRequest,
    Report, Reported, StoreError, StoreSettings, SweepFinding,
};

/// How many commands one read hands out.
const BATCH: usize = 32;

/// One operation's context: what it may change, and when it happens.
pub(super) struct Mailroom<'a> {
    pub(super) devices: &'a mut Devices,
    pub(super) due: &'a mut Due,
    pub(super) settings: &'a StoreSettings,
    pub(super) now: UnixMillis,
}

// === impl Mailroom ===

impl Mailroom<'_> {
    pub(super) fn enqueue(&mut self, key: &DeviceKey, offer: Offer<'_>) -> Enqueued {
        let Offer { spec, waiting, .. } = offer;
        let (durability, now, settings) = (Durability::Process, self.now, self.settings);
        let device = self.devices.entry(key);
        if let Some(stored) = device.commands.get_mut(&spec.id) {
            if stored.digest != spec.digest() {
                return Enqueued::Conflict;
            }
            stored.add_waiting(waiting);
            return Enqueued::Existing { command: stored.view(device.dispatched, now), durability };
        }
        let commands = device.order.len() as u64;
        let size = spec.payload.as_ref().map_or(0, |payload| payload.len() as u64);
        let bytes = device.bytes;
        if commands >= u64::from(settings.mailbox_commands) || bytes + size > settings.mailbox_bytes
        {
            return Enqueued::QueueFull { commands, bytes };
        }
        let may_go = !device.waits() && device.has_room(settings) && spec.expires > now;
        let prev = device.dispatched;
        let mut desk = Desk { due: self.due, settings, now };
        device.seq += 1;
        device.bytes += size;
        device.order.insert(device.seq, spec.id.clone());
        let mut stored = Stored::new(key, spec, device.seq, now);
        stored.add_waiting(waiting);
        desk.due.set(&mut stored, spec.expires);
        device.commands.insert(spec.id.clone(), stored);
        device.step(&spec.id, CommandState::Queued, None, &desk);
        let target = device.session.as_ref().filter(|_| may_go);
        let dispatch =
            target.map(|claim| Dispatch { node: claim.node.clone(), session: claim.session, prev });
        if let Some(dispatch) = &dispatch {
            device.dispatch(&spec.id, dispatch.session, &mut desk);
        }
        let command = Box::new(device.commands[&spec.id].command.clone());
        Enqueued::Accepted { command, dispatch, durability }
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
        let mut desk = Desk { due: self.due, settings, now };
        let mut batch = Batch { commands: Vec::new(), more: false, ended: Vec::new() };
        let later: Vec<_> =
            device.order.range(after + 1..).map(|(seq, id)| (*seq, id.clone())).collect();
        for (seq, id) in later {
            if device.commands[&id].is_over(now) {
                let (command, waiting) = device.end(&id, CommandState::Expired, None, &mut desk);
                batch.ended.push((*command, waiting));
                continue;
            }
            if batch.commands.len() == BATCH {
                batch.more = true;
                break;
            }
            if seq > device.dispatched {
                if !device.has_room(settings) {
                    break;
                }
                if let Some(answer_by) = device.may_answer_until(&id, &desk) {
                    let stored = device.commands.get_mut(&id).expect("it is in the order");
                    let look = answer_by.min(stored.command.spec.expires);
                    desk.due.set(stored, look);
                    break;
                }
                if !device.dispatch(&id, session, &mut desk) {
                    let (command, waiting) =
                        device.end(&id, CommandState::Dead, Some(session), &mut desk);
                    batch.ended.push((*command, waiting));
                    continue;
                }
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
        let now = self.now;
        let mut desk = Desk { due: self.due, settings: self.settings, now };
        let device = self.devices.get_mut(key).ok_or(StoreError::Fenced)?;
        device.check(session)?;
        let Some(stored) = device.commands.get_mut(id) else {
            return Ok(Reported::Unknown);
        };
        let state = if stored.is_over(now) { CommandState::Expired } else { stored.command.state };
        let next = report.state();
        let again = matches!(report, Report::Progress(_)) && state == CommandState::Running;
        let foreign = *report == Report::Sent && stored.command.session != Some(session);
        if foreign || !(again || state.may_become(next)) {
            if let Report::Result(result) = report
                && state.is_terminal()
            {
                stored.record_late(result, now);
            }
            return Ok(Reported::Late { state });
        }
        match report {
            Report::Progress(progress) => stored.command.progress = Some(progress.clone()),
            Report::Result(result) => stored.command.result = Some(result.clone()),
            Report::Sent | Report::Received => {}
        }
        if again {
            stored.command.revision += 1;
        }
        if *report != Report::Sent {
            device.probation = None;
        }
        let (command, waiting) = if next.is_terminal() {
            device.end(id, next, Some(session), &mut desk)
        } else {
            if !again {
                device.step(id, next, Some(session), &desk);
            }
            let stored = device.commands.get_mut(id).expect("it was just found");
            let expires = stored.command.spec.expires;
            desk.due.set(stored, expires);
            (stored.view(device.dispatched.max(stored.command.seq), now), stored.waiting.clone())
        };
        let more = device.has_next(&mut desk);
        Ok(Reported::Applied { command, waiting, more })
    }

    pub(super) fn cancel(&mut self, key: &DeviceKey, id: &CommandId) -> Cancelled {
        let mut desk = Desk { due: self.due, settings: self.settings, now: self.now };
        let Some(device) = self.devices.get_mut(key) else {
            return Cancelled::Unknown;
        };
        let Some(stored) = device.commands.get(id) else {
            return Cancelled::Unknown;
        };
        let command = stored.view(device.dispatched, desk.now);
        match command.state {
            state if state.is_terminal() => Cancelled::Ended(command),
            CommandState::Queued => {
                let (command, waiting) = device.end(id, CommandState::Cancelled, None, &mut desk);
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
        filter: &CommandFilter,
        page: &PageRequest,
    ) -> Result<Page<Command>, StoreError> {
        let before: Option<u64> =
            page.token.as_deref().map(str::parse).transpose().map_err(|_| unreadable())?;
        let Some(device) = self.devices.get(key) else {
            return Ok(Page { items: vec![], next: None });
        };
        let mut items: Vec<Command> = device
            .commands
            .values()
            .filter(|stored| before.is_none_or(|before| stored.command.seq < before))
            .map(|stored| *stored.view(device.dispatched, self.now))
            .filter(|command| filter.accepts(command))
            .collect();
        items.sort_by_key(|command| std::cmp::Reverse(command.seq));
        let more = items.len() > page.size;
        items.truncate(page.size);
        let last = items.last().filter(|_| more);
        let next = last.map(|command| command.seq.to_string());
        Ok(Page { items, next })
    }

    pub(super) fn dead(
        &self,
        tenant: &TenantId,
        page: &PageRequest,
    ) -> Result<Page<Command>, StoreError> {
        // A command by device and place: `seq.device`.
        let after = page.token.as_deref().map(|token| {
            let (seq, device) = token.split_once('.')?;
            Some((device.to_owned(), seq.parse::<u64>().ok()?))
        });
        let after = match after {
            Some(None) => return Err(unreadable()),
            Some(after) => after,
            None => None,
        };
        let place = |command: &Command| (command.device.device.to_string(), command.seq);
        let mut items: Vec<Command> = self
            .devices
            .of(tenant)
            .flat_map(|device| device.commands.values())
            .map(|stored| &stored.command)
            .filter(|command| command.state == CommandState::Dead && command.redriven_as.is_none())
            .filter(|command| after.as_ref().is_none_or(|after| place(command) > *after))
            .cloned()
            .collect();
        items.sort_by_key(place);
        let more = items.len() > page.size;
        items.truncate(page.size);
        let last = items.last().filter(|_| more);
        let next = last.map(|command| format!("{}.{}", command.seq, command.device.device));
        Ok(Page { items, next })
    }

    pub(super) fn settle_dead(
        &mut self,
        key: &DeviceKey,
        id: &CommandId,
        redriven_as: &CommandId,
    ) -> bool {
        let device = self.devices.get_mut(key);
        let stored = device.and_then(|device| device.commands.get_mut(id));
        let Some(stored) = stored.filter(|stored| stored.command.state == CommandState::Dead)
        else {
            return false;
        };
        if stored.command.redriven_as.as_ref() != Some(redriven_as) {
            stored.command.redriven_as = Some(redriven_as.clone());
            stored.command.revision += 1;
        }
        true
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
        let mut desk = Desk { due: self.due, settings, now };
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
            let (command, waiting) = device.end(id, CommandState::Expired, None, &mut desk);
            let mut found = vec![SweepFinding::Expired { command, waiting }];
            if seq <= device.dispatched && device.has_next(&mut desk) {
                found.extend(device.to_be_read(key));
            }
            return found;
        }
        let lost = stored.command.state == CommandState::Dispatched
            && device.session.as_ref().is_some_and(|s| stored.command.session == Some(s.session));
        let left = seq > device.dispatched && device.has_room(settings);
        let finding = device.to_be_read(key).filter(|_| lost || left);
        let next = match &finding {
            Some(_) => expires.min(now.plus(settings.undelivered_after)),
            None => expires,
        };
        let stored = device.commands.get_mut(id).expect("it was just found");
        desk.due.set(stored, next);
        finding.into_iter().collect()
    }
}

fn unreadable() -> StoreError {
    StoreError::Invalid("this page token is not one of this hub's".into())
}

// === impl CommandFilter ===

impl CommandFilter {
    /// Whether a command is among those wanted.
    pub fn accepts(&self, command: &Command) -> bool {
        self.state.is_none_or(|state| command.state == state)
            && self.since.is_none_or(|since| command.created >= since)
            && self.until.is_none_or(|until| command.created < until)
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
