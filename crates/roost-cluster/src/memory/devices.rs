//! Devices of the embedded store: sessions, presence events, and the mailbox heads.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;

use roost_types::{CommandId, DeviceId, DeviceKey, SessionId, TenantId, UnixMillis};
use tokio::sync::mpsc;

use super::commands::Stored;
use crate::{
    Claimed, DeviceFilter, DeviceRecord, LastClose, NodeRef, Page, PageRequest, PresenceEvent,
    PresenceItem, PresenceKind, PresenceWatcher, Revalidated, SessionClaim, SessionInfo,
    StoreError,
};

/// How many presence events are kept for watches that resume.
const KEPT_EVENTS: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Devices(BTreeMap<DeviceKey, Device>);

/// One device. `dispatched` divides `order`: unfinished commands up to it are with the session.
#[derive(Debug, Default)]
pub(super) struct Device {
    pub(super) session: Option<SessionClaim>,
    last_close: Option<LastClose>,
    last_seen: UnixMillis,
    pub(super) seq: u64,
    pub(super) dispatched: u64,
    pub(super) order: BTreeMap<u64, CommandId>,
    pub(super) bytes: u64,
    pub(super) commands: HashMap<CommandId, Stored>,
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

    pub(super) fn entry(&mut self, key: &DeviceKey) -> &mut Device {
        self.0.entry(key.clone()).or_default()
    }

    pub(super) fn claim(
        &mut self,
        claim: &SessionClaim,
        events: &mut EventLog,
        now: UnixMillis,
    ) -> Claimed {
        let device = self.entry(&claim.device);
        let pending = device.order.len() as u64;
        // A repeated claim, whose first answer was lost.
        if device.check(claim.session).is_ok() {
            return Claimed { replaced: None, pending };
        }
        let old = device.session.replace(claim.clone());
        device.dispatched = 0;
        let kind = match &old {
            Some(_) => PresenceKind::TakenOver,
            None => PresenceKind::Connected,
        };
        events.add(claim, kind, None, now);
        Claimed { replaced: old.map(|old| (old.session, old.node)), pending }
    }

    pub(super) fn release(
        &mut self,
        key: &DeviceKey,
        session: SessionId,
        close: &LastClose,
        events: &mut EventLog,
    ) -> Result<(), StoreError> {
        let device = self.0.get_mut(key).ok_or(StoreError::Fenced)?;
        let ended =
            device.session.take_if(|claim| claim.session == session).ok_or(StoreError::Fenced)?;
        device.dispatched = 0;
        device.last_seen = close.time;
        device.last_close = Some(close.clone());
        events.add(&ended, PresenceKind::Disconnected, Some(close), close.time);
        Ok(())
    }

    pub(super) fn revalidate(
        &mut self,
        claim: &SessionClaim,
        events: &mut EventLog,
        now: UnixMillis,
    ) -> Revalidated {
        match self.get(&claim.device).and_then(|device| device.session.as_ref()) {
            Some(current) if current.session == claim.session => return Revalidated::Kept,
            Some(current) if current.claimed_at >= claim.claimed_at => return Revalidated::Lost,
            _ => {}
        }
        self.claim(claim, events, now);
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

    /// `Fenced` unless this is the device's session.
    pub(super) fn check(&self, session: SessionId) -> Result<(), StoreError> {
        match &self.session {
            Some(claim) if claim.session == session => Ok(()),
            _ => Err(StoreError::Fenced),
        }
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
