//! The traits of the embedded store: lock, call, answer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use roost_types::{
    Command, CommandId, DeviceKey, Message, NodeId, SessionId, TenantId, TopicFilter,
};
use tokio::sync::mpsc;

use super::devices::{Devices, Happening};
use super::mailroom::Mailroom;
use super::{MemoryNode, State};
use crate::{
    Batch, Bus, BusEvent, Cancelled, Claimed, CommandFilter, DeviceFilter, DeviceRecord, Enqueued,
    HistoryEntry, Initiator, LastClose, Mailboxes, NodeEvent, NodeInfo, NodeRecord, NodeRef, Nodes,
    Offer, Page, PageRequest, PresenceItem, Refusal, Report, Reported, Revalidated, SessionClaim,
    Sessions, StoreError, SweepFinding, Tally,
};

/// How many sessions of a node are ended before whoever asks looks at the node again.
const ENDED_AT_ONCE: usize = 1_000;

impl MemoryNode {
    fn mail<T>(&self, work: impl FnOnce(&mut Mailroom<'_>) -> T) -> T {
        let mut state = self.hub.state.lock();
        let State { devices, due, .. } = &mut *state;
        work(&mut Mailroom { devices, due, settings: &self.hub.settings, now: self.hub.now() })
    }

    fn house<T>(&self, work: impl FnOnce(&mut Devices, &mut Happening<'_>) -> T) -> T {
        let mut state = self.hub.state.lock();
        let State { devices, events, .. } = &mut *state;
        let (now, history) = (self.hub.now(), self.hub.settings.history);
        work(devices, &mut Happening { events, now, history })
    }
}

#[async_trait]
impl Sessions for MemoryNode {
    async fn claim(&self, claim: &SessionClaim) -> Result<Claimed, StoreError> {
        Ok(self.house(|devices, at| devices.claim(claim, at)))
    }

    async fn release(
        &self,
        device: &DeviceKey,
        session: SessionId,
        close: &LastClose,
    ) -> Result<(), StoreError> {
        self.house(|devices, at| devices.release(device, session, close, at))
    }

    async fn revalidate(&self, claims: &[SessionClaim]) -> Result<Vec<Revalidated>, StoreError> {
        Ok(self.house(|devices, at| {
            claims.iter().map(|claim| devices.revalidate(claim, at)).collect()
        }))
    }

    async fn get(&self, device: &DeviceKey) -> Result<Option<DeviceRecord>, StoreError> {
        let state = self.hub.state.lock();
        let (now, lease) = (self.hub.now(), self.hub.settings.lease);
        let live = |node: &NodeRef| state.members.is_live(node, lease, now);
        let found = state.devices.get(device).filter(|found| found.was_seen());
        Ok(found.map(|found| found.record(device, live, now)))
    }

    async fn list(
        &self,
        tenant: &TenantId,
        filter: &DeviceFilter,
        page: &PageRequest,
    ) -> Result<Page<DeviceRecord>, StoreError> {
        let state = self.hub.state.lock();
        let (now, lease) = (self.hub.now(), self.hub.settings.lease);
        let live = |node: &NodeRef| state.members.is_live(node, lease, now);
        state.devices.list(tenant, filter, page, |key, device| device.record(key, live, now))
    }

    async fn watch(
        &self,
        tenant: &TenantId,
        cursor: Option<&str>,
    ) -> Result<mpsc::Receiver<PresenceItem>, StoreError> {
        self.hub.state.lock().events.watch(tenant, cursor)
    }

    async fn end_sessions_of(&self, node: &NodeRef) -> Result<u64, StoreError> {
        self.house(|devices, at| {
            let close = LastClose {
                code: 1006,
                reason: "the node that held the connection is gone".into(),
                initiator: Initiator::Hub,
                time: at.now,
            };
            let mut sessions = devices.sessions_of(node);
            sessions.truncate(ENDED_AT_ONCE);
            for (device, session) in &sessions {
                devices.release(device, *session, &close, at)?;
            }
            Ok(sessions.len() as u64)
        })
    }

    async fn history(
        &self,
        device: &DeviceKey,
        limit: usize,
    ) -> Result<Vec<HistoryEntry>, StoreError> {
        let state = self.hub.state.lock();
        Ok(state.devices.get(device).map(|found| found.history(limit)).unwrap_or_default())
    }

    async fn note_refusal(
        &self,
        device: &DeviceKey,
        session: SessionId,
        refusal: &Refusal,
    ) -> Result<(), StoreError> {
        self.house(|devices, at| {
            let device = devices.get_mut(device).ok_or(StoreError::Fenced)?;
            device.refuse(session, refusal, at)
        })
    }
}

#[async_trait]
impl Mailboxes for MemoryNode {
    async fn enqueue(&self, device: &DeviceKey, offer: Offer<'_>) -> Result<Enqueued, StoreError> {
        Ok(self.mail(|mail| mail.enqueue(device, offer)))
    }

    async fn read(
        &self,
        device: &DeviceKey,
        session: SessionId,
        after: u64,
    ) -> Result<Batch, StoreError> {
        self.mail(|mail| mail.read(device, session, after))
    }

    async fn report(
        &self,
        device: &DeviceKey,
        session: SessionId,
        id: &CommandId,
        report: &Report,
    ) -> Result<Reported, StoreError> {
        self.mail(|mail| mail.report(device, session, id, report))
    }

    async fn cancel(&self, device: &DeviceKey, id: &CommandId) -> Result<Cancelled, StoreError> {
        Ok(self.mail(|mail| mail.cancel(device, id)))
    }

    async fn get(
        &self,
        device: &DeviceKey,
        id: &CommandId,
        waiting: Option<&NodeId>,
    ) -> Result<Option<Command>, StoreError> {
        Ok(self.mail(|mail| mail.get(device, id, waiting)))
    }

    async fn list(
        &self,
        device: &DeviceKey,
        filter: &CommandFilter,
        page: &PageRequest,
    ) -> Result<Page<Command>, StoreError> {
        self.mail(|mail| mail.list(device, filter, page))
    }

    async fn dead(
        &self,
        tenant: &TenantId,
        page: &PageRequest,
    ) -> Result<Page<Command>, StoreError> {
        self.mail(|mail| mail.dead(tenant, page))
    }

    async fn settle_dead(
        &self,
        device: &DeviceKey,
        id: &CommandId,
        redriven_as: &CommandId,
    ) -> Result<bool, StoreError> {
        Ok(self.mail(|mail| mail.settle_dead(device, id, redriven_as)))
    }

    async fn sweep(&self) -> Result<Vec<SweepFinding>, StoreError> {
        self.mail(|mail| Ok(mail.sweep()))
    }

    async fn tally(&self) -> Result<Tally, StoreError> {
        self.mail(|mail| Ok(mail.devices.tally()))
    }
}

#[async_trait]
impl Bus for MemoryNode {
    async fn publish(&self, tenant: &TenantId, message: Arc<Message>) -> Result<(), StoreError> {
        self.hub.state.lock().ports.publish(tenant, &message);
        Ok(())
    }

    async fn declare(&self, tenant: &TenantId, filter: &TopicFilter) -> Result<(), StoreError> {
        self.hub.state.lock().ports.declare(&self.node, tenant, filter);
        Ok(())
    }

    async fn withdraw(&self, tenant: &TenantId, filter: &TopicFilter) -> Result<(), StoreError> {
        self.hub.state.lock().ports.withdraw(&self.node, tenant, filter);
        Ok(())
    }

    async fn send(&self, node: &NodeRef, event: &NodeEvent) -> Result<(), StoreError> {
        let mut state = self.hub.state.lock();
        state.ports.send(&node.id, Some(node.incarnation), event);
        Ok(())
    }

    async fn send_to(&self, node: &NodeId, event: &NodeEvent) -> Result<(), StoreError> {
        self.hub.state.lock().ports.send(node, None, event);
        Ok(())
    }

    fn take_events(&self) -> Option<mpsc::Receiver<BusEvent>> {
        self.hub.state.lock().ports.take(&self.node)
    }
}

#[async_trait]
impl Nodes for MemoryNode {
    async fn heartbeat(&self, info: &NodeInfo) -> Result<(), StoreError> {
        let (lease, now) = (self.hub.settings.lease, self.hub.now());
        self.hub.state.lock().members.beat(info, lease, now)
    }

    async fn leave(&self, node: &NodeRef) -> Result<(), StoreError> {
        self.hub.state.lock().members.remove(node);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<NodeRecord>, StoreError> {
        let (lease, now) = (self.hub.settings.lease, self.hub.now());
        Ok(self.hub.state.lock().members.list(lease, now))
    }

    async fn dead(&self) -> Result<Vec<NodeRef>, StoreError> {
        let dead = Nodes::list(self).await?.into_iter().filter(|record| !record.live);
        Ok(dead.map(|record| record.info.node).collect())
    }

    async fn forget(&self, node: &NodeRef) -> Result<(), StoreError> {
        self.leave(node).await
    }

    async fn take_turn(&self, job: &str, ttl: Duration) -> Result<bool, StoreError> {
        let now = self.hub.now();
        Ok(self.hub.state.lock().members.take_turn(job, ttl, now))
    }

    async fn shed(&self, wanted: u32, per_second: u32) -> Result<u32, StoreError> {
        let now = self.hub.now();
        Ok(self.hub.state.lock().members.shed(wanted, per_second, now))
    }
}
