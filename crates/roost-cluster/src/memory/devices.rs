//! Devices of the embedded store: sessions, presence events, and the mailbox heads.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;

use roost_types::{CommandId, DeviceId, DeviceKey, SessionId, TenantId, UnixMillis};
use tokio::sync::mpsc;

use super::stored::Stored;
use crate::{
    CONTEST_TAKEOVERS, CONTEST_WINDOW, Claimed, DeviceFilter, DeviceRecord, HistoryEntry,
    HistoryEvent, LastClose, NodeRef, Page, PageRequest, PresenceEvent, PresenceItem, PresenceKind,
    PresenceWatcher, Refusal, Revalidated, SessionClaim, SessionInfo, StoreError, Tally,
};

/// How many presence events are kept for watches that resume.
const KEPT_EVENTS: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Devices(BTreeMap<DeviceKey, Device>);

/// One device. `dispatched` divides `order`: unfinished commands up to it are with the session.
#[derive(Debug, Default)]
pub(super) struct Device {
    pub(super) session: Option<SessionClaim>,
    takeovers: Takeovers,
    history: VecDeque<HistoryEntry>,
    last_close: Option<LastClose>,
    last_seen: UnixMillis,
    pub(super) seq: u64,
    pub(super) dispatched: u64,
    /// The oldest command that was with a session when it was lost: until the device acknowledges one
    /// it gets them one at a time.
    pub(super) probation: Option<u64>,
    pub(super) order: BTreeMap<u64, CommandId>,
    pub(super) bytes: u64,
    pub(super) commands: HashMap<CommandId, Stored>,
}

/// Takeovers since the first of a row.
#[derive(Debug, Default)]
struct Takeovers {
    since: UnixMillis,
    count: u32,
}

/// What a change of sessions touches beside the device.
pub(super) struct Happening<'a> {
    pub(super) events: &'a mut EventLog,
    pub(super) now: UnixMillis,
    /// How many entries of its history a device keeps.
    pub(super) history: u32,
}

#[derive(Debug, Default)]
pub(super) struct EventLog {
    next: u64,
    kept: VecDeque<PresenceEvent>,
    watchers: Vec<PresenceWatcher>,
}

// === impl Devices ===

impl Devices {
    pub(super) fn get(&self, key: &DeviceKey) -> Option<&Device> {
        self.0.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &DeviceKey) -> Option<&mut Device> {
        self.0.get_mut(key)
    }

    /// What waits in all mailboxes.
    pub(super) fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for device in self.0.values() {
            let oldest = device.order.values().next();
            let oldest = oldest.and_then(|id| device.commands.get(id));
            tally.add(device.order.len() as u64, oldest.map(|stored| stored.command.created));
        }
        tally
    }

    /// A tenant's devices.
    pub(super) fn of(&self, tenant: &TenantId) -> impl Iterator<Item = &Device> {
        let start = Bound::Included(first_key_of(tenant));
        let of_tenant = self.0.range((start, Bound::Unbounded));
        of_tenant.take_while(move |(key, _)| key.tenant == *tenant).map(|(_, device)| device)
    }

    pub(super) fn entry(&mut self, key: &DeviceKey) -> &mut Device {
        self.0.entry(key.clone()).or_default()
    }

    pub(super) fn claim(&mut self, claim: &SessionClaim, at: &mut Happening<'_>) -> Claimed {
        let device = self.entry(&claim.device);
        let pending = device.order.len() as u64;
        // A repeated claim, whose first answer was lost.
        if device.check(claim.session).is_ok() {
            return Claimed { replaced: None, pending, contested: false };
        }
        let old = device.take(claim, at);
        device.keep(connected(claim, old.as_ref()), at);
        let contested = old.is_some() && device.takeovers.another(at.now);
        if contested {
            at.events.add(claim, PresenceKind::Contested, None, at.now);
        }
        Claimed { replaced: old.map(|old| (old.session, old.node)), pending, contested }
    }

    pub(super) fn release(
        &mut self,
        key: &DeviceKey,
        session: SessionId,
        close: &LastClose,
        at: &mut Happening<'_>,
    ) -> Result<(), StoreError> {
        let device = self.0.get_mut(key).ok_or(StoreError::Fenced)?;
        let ended =
            device.session.take_if(|claim| claim.session == session).ok_or(StoreError::Fenced)?;
        device.lose_session();
        device.last_seen = close.time;
        device.last_close = Some(close.clone());
        at.events.add(&ended, PresenceKind::Disconnected, Some(close), close.time);
        device.keep(HistoryEvent::Disconnected { session, close: close.clone() }, at);
        Ok(())
    }

    pub(super) fn revalidate(
        &mut self,
        claim: &SessionClaim,
        at: &mut Happening<'_>,
    ) -> Revalidated {
        match self.get(&claim.device).and_then(|device| device.session.as_ref()) {
            Some(current) if current.session == claim.session => return Revalidated::Kept,
            Some(current) if current.claimed_at >= claim.claimed_at => return Revalidated::Lost,
            _ => {}
        }
        let device = self.entry(&claim.device);
        let replaced = device.take(claim, at).map(|old| old.session);
        if replaced.is_none() {
            // Its connection stands: what was lost was the store's knowledge of it.
            device.probation = None;
        }
        let (session, node) = (claim.session, claim.node.clone());
        device.keep(HistoryEvent::Reclaimed { session, node, replaced }, at);
        Revalidated::Reclaimed
    }

    /// The devices whose session is on this node.
    pub(super) fn sessions_of(&self, node: &NodeRef) -> Vec<(DeviceKey, SessionId)> {
        let on_node = |device: &Device| {
            let claim = device.session.as_ref()?;
            (claim.node == *node).then(|| (claim.device.clone(), claim.session))
        };
        self.0.values().filter_map(on_node).collect()
    }

    pub(super) fn list(
        &self,
        tenant: &TenantId,
        filter: &DeviceFilter,
        page: &PageRequest,
        describe: impl Fn(&DeviceKey, &Device) -> DeviceRecord,
    ) -> Result<Page<DeviceRecord>, StoreError> {
        let after = page.token.as_deref().map(DeviceId::new).transpose();
        let after = after
            .map_err(|_| StoreError::Invalid("this page token is not one of this hub's".into()))?;
        let start = match after {
            Some(device) => Bound::Excluded(DeviceKey::new(tenant.clone(), device)),
            None => Bound::Included(first_key_of(tenant)),
        };
        let mut items: Vec<DeviceRecord> = self
            .0
            .range((start, Bound::Unbounded))
            .take_while(|(key, _)| key.tenant == *tenant)
            .filter(|(_, device)| device.was_seen())
            .map(|(key, device)| describe(key, device))
            .filter(|record| filter.accepts(record))
            .take(page.size.saturating_add(1))
            .collect();
        let more = items.len() > page.size;
        items.truncate(page.size);
        let last = items.last().filter(|_| more);
        let next = last.map(|record| record.device.device.to_string());
        Ok(Page { items, next })
    }

    /// Forgets devices that were gone for the retention time and have nothing kept.
    pub(super) fn forget_before(&mut self, time: UnixMillis) {
        self.0.retain(|_, device| {
            device.session.is_some() || !device.commands.is_empty() || device.last_seen > time
        });
    }
}

fn connected(claim: &SessionClaim, old: Option<&SessionClaim>) -> HistoryEvent {
    let SessionClaim { session, node, protocol, address, .. } = claim.clone();
    match old {
        Some(old) => {
            HistoryEvent::TakenOver { session, node, protocol, address, replaced: old.session }
        }
        None => HistoryEvent::Connected { session, node, protocol, address },
    }
}

fn first_key_of(tenant: &TenantId) -> DeviceKey {
    // "-" is the least of all characters that an id may have.
    let least = DeviceId::new("-").expect("a hyphen is a device id");
    DeviceKey::new(tenant.clone(), least)
}

// === impl Device ===

impl Device {
    /// As others see it; `live` says whether the node of its session is.
    pub(super) fn record(
        &self,
        key: &DeviceKey,
        live: impl Fn(&NodeRef) -> bool,
        now: UnixMillis,
    ) -> DeviceRecord {
        let session = self.session.as_ref().filter(|claim| live(&claim.node));
        DeviceRecord {
            device: key.clone(),
            last_seen: if session.is_some() { now } else { self.last_seen },
            session: session.map(|claim| SessionInfo {
                session: claim.session,
                node: claim.node.clone(),
                protocol: claim.protocol.clone(),
                address: claim.address.clone(),
                connected_at: claim.claimed_at,
            }),
            last_close: self.last_close.clone(),
            pending: self.order.len() as u64,
        }
    }

    /// Whether it ever connected. One that only has commands waiting did not.
    pub(super) fn was_seen(&self) -> bool {
        self.session.is_some() || self.last_close.is_some()
    }

    /// Makes a claim the session; gives the one before.
    fn take(&mut self, claim: &SessionClaim, at: &mut Happening<'_>) -> Option<SessionClaim> {
        let old = self.session.replace(claim.clone());
        self.lose_session();
        let kind = match &old {
            Some(_) => PresenceKind::TakenOver,
            None => PresenceKind::Connected,
        };
        at.events.add(claim, kind, None, at.now);
        old
    }

    /// Puts back what was with the session.
    fn lose_session(&mut self) {
        let head = self.order.range(..=self.dispatched).next();
        self.probation = head.map(|(seq, _)| *seq).or(self.probation);
        self.dispatched = 0;
    }

    fn keep(&mut self, event: HistoryEvent, at: &Happening<'_>) {
        self.remember(HistoryEntry { time: at.now, event }, at.history);
    }

    /// Adds to the history, of which the last `most` entries are kept.
    pub(super) fn remember(&mut self, entry: HistoryEntry, most: u32) {
        self.history.push_back(entry);
        while self.history.len() > most as usize {
            self.history.pop_front();
        }
    }

    pub(super) fn history(&self, limit: usize) -> Vec<HistoryEntry> {
        self.history.iter().rev().take(limit).cloned().collect()
    }

    pub(super) fn refuse(
        &mut self,
        session: SessionId,
        refusal: &Refusal,
        at: &Happening<'_>,
    ) -> Result<(), StoreError> {
        self.check(session)?;
        self.keep(HistoryEvent::Refused { session, refusal: refusal.clone() }, at);
        Ok(())
    }

    /// `Fenced` unless this is the device's session.
    pub(super) fn check(&self, session: SessionId) -> Result<(), StoreError> {
        match &self.session {
            Some(claim) if claim.session == session => Ok(()),
            _ => Err(StoreError::Fenced),
        }
    }
}

// === impl Takeovers ===

impl Takeovers {
    /// Counts one; gives whether it is one too many.
    fn another(&mut self, now: UnixMillis) -> bool {
        if self.count == 0 || now.since(self.since) > CONTEST_WINDOW {
            *self = Self { since: now, count: 0 };
        }
        self.count += 1;
        self.count.is_multiple_of(CONTEST_TAKEOVERS)
    }
}

// === impl EventLog ===

impl EventLog {
    fn add(
        &mut self,
        claim: &SessionClaim,
        kind: PresenceKind,
        close: Option<&LastClose>,
        time: UnixMillis,
    ) {
        self.next += 1;
        let event = PresenceEvent {
            id: format!("m-{}", self.next),
            cursor: self.next.to_string(),
            device: claim.device.clone(),
            kind,
            session: claim.session,
            node: claim.node.id.clone(),
            time,
            close: close.cloned(),
        };
        self.watchers.retain_mut(|watcher| watcher.offer(&event));
        self.kept.push_back(event);
        if self.kept.len() > KEPT_EVENTS {
            self.kept.pop_front();
        }
    }

    pub(super) fn watch(
        &mut self,
        tenant: &TenantId,
        cursor: Option<&str>,
    ) -> Result<mpsc::Receiver<PresenceItem>, StoreError> {
        let unreadable = |_| StoreError::Invalid("this cursor is not one of this hub's".into());
        let after: Option<u64> = cursor.map(str::parse).transpose().map_err(unreadable)?;
        let (mut watcher, receiver) = PresenceWatcher::new(tenant.clone(), 0);
        if let Some(after) = after {
            let first_kept = self.next - self.kept.len() as u64;
            if after < first_kept || after > self.next {
                watcher.lag();
            }
            let missed = usize::try_from(after.saturating_sub(first_kept)).unwrap_or(usize::MAX);
            for event in self.kept.iter().skip(missed) {
                watcher.offer(event);
            }
            watcher.say_gap();
        }
        self.watchers.push(watcher);
        Ok(receiver)
    }
}

// === impl DeviceFilter ===

impl DeviceFilter {
    /// Whether a record is among those wanted.
    pub fn accepts(&self, record: &DeviceRecord) -> bool {
        let session = record.session.as_ref();
        self.online.is_none_or(|online| online == session.is_some())
            && (self.node.as_ref()).is_none_or(|node| session.is_some_and(|s| s.node.id == *node))
    }
}
