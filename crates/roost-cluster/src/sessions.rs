//! The `Sessions` seam: which node has which device, by which session.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use roost_types::{DeviceKey, NodeId, SessionId, TenantId, UnixMillis};
use tokio::sync::mpsc;

use crate::{HistoryEntry, NodeRef, Page, PageRequest, Refusal, StoreError};

/// A connection's claim to be its device's session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionClaim {
    /// The device, as authenticated.
    pub device: DeviceKey,
    /// The new session's random id.
    pub session: SessionId,
    /// The node that holds the connection, in this life of it.
    pub node: NodeRef,
    /// The subprotocol spoken: `roost.v1.json`.
    pub protocol: Arc<str>,
    /// The peer's address.
    pub address: Arc<str>,
    /// When it was claimed first, by hub time: after a store failover the newest wins.
    pub claimed_at: UnixMillis,
}

/// A claim that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The session that this one replaced, to be told to close. `None` where there was none.
    pub replaced: Option<(SessionId, NodeRef)>,
    /// How many commands wait in the mailbox.
    pub pending: u64,
    /// Sessions replaced each other so often that two devices seem to use one identity. Said at every
    /// [`CONTEST_TAKEOVERS`]th takeover within [`CONTEST_WINDOW`], with a presence event beside it.
    pub contested: bool,
}

/// As many takeovers within the window are a fight.
pub const CONTEST_TAKEOVERS: u32 = 5;
/// How long takeovers are counted together, from the first on.
pub const CONTEST_WINDOW: Duration = Duration::from_secs(60);

/// What became of a session that was asked about after an interruption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revalidated {
    /// It is the device's session still.
    Kept,
    /// The store had lost it, or had an older one, and has it again.
    Reclaimed,
    /// A newer session has the device.
    Lost,
}

/// Who ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Initiator {
    /// The device, or its network.
    Device,
    /// The hub, by a rule of its own.
    Hub,
    /// A back end or an operator.
    Operator,
}

impl Initiator {
    /// As stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Hub => "hub",
            Self::Operator => "operator",
        }
    }

    /// The initiator of this name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Device, Self::Hub, Self::Operator].into_iter().find(|who| who.as_str() == text)
    }
}

/// How a device's last connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastClose {
    /// The WebSocket close code; 1006 where none was exchanged.
    pub code: u16,
    /// In words, at most 123 bytes.
    pub reason: Arc<str>,
    /// Who ended it.
    pub initiator: Initiator,
    /// When, by hub time.
    pub time: UnixMillis,
}

/// A session as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// Its id.
    pub session: SessionId,
    /// Where it is.
    pub node: NodeRef,
    /// The subprotocol spoken.
    pub protocol: Arc<str>,
    /// The peer's address.
    pub address: Arc<str>,
    /// Since when.
    pub connected_at: UnixMillis,
}

/// What the hub knows of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRecord {
    /// Which device.
    pub device: DeviceKey,
    /// Its session, where it has one on a node whose lease is live.
    pub session: Option<SessionInfo>,
    /// When it was last known to be connected: now for a connected one.
    pub last_seen: UnixMillis,
    /// How its last connection ended; `None` before the first end.
    pub last_close: Option<LastClose>,
    /// How many unfinished commands its mailbox holds.
    pub pending: u64,
}

/// Which devices are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceFilter {
    /// Only connected (`true`) or disconnected (`false`) ones.
    pub online: Option<bool>,
    /// Only those connected to this node.
    pub node: Option<NodeId>,
}

/// What happened to a device's presence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PresenceKind {
    /// It has a session where it had none.
    Connected,
    /// It has none any more.
    Disconnected,
    /// A new session replaced the old one.
    TakenOver,
    /// Sessions keep replacing each other: two devices seem to use one identity. Comes beside the
    /// `TakenOver` that made it obvious.
    Contested,
}

impl PresenceKind {
    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::TakenOver => "taken_over",
            Self::Contested => "contested",
        }
    }

    /// The kind of this name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Connected, Self::Disconnected, Self::TakenOver, Self::Contested]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

/// One change of presence, delivered at least once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceEvent {
    /// Unique among the hub's events: a consumer that sees it twice knows it.
    pub id: String,
    /// Where a watch can resume after this event; opaque.
    pub cursor: String,
    /// Whose presence.
    pub device: DeviceKey,
    /// What happened.
    pub kind: PresenceKind,
    /// The session that began, or ended.
    pub session: SessionId,
    /// Its node.
    pub node: NodeId,
    /// When, by hub time.
    pub time: UnixMillis,
    /// How it ended, where it did.
    pub close: Option<LastClose>,
}

/// What a watch brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresenceItem {
    /// A change.
    Event(PresenceEvent),
    /// Changes may be missing here: the cursor was too old, or the watcher too slow.
    Gap,
}

/// Who is connected where. Each operation on one device is atomic.
#[async_trait]
pub trait Sessions: Send + Sync + std::fmt::Debug {
    /// Makes the claim the device's session, whoever had it before.
    ///
    /// Unfinished commands that were with the old session are queued again, and handed out one at a
    /// time until the device acknowledges one.
    async fn claim(&self, claim: &SessionClaim) -> Result<Claimed, StoreError>;

    /// Ends a session. `Fenced` where it is no longer the device's session; then nothing changes.
    async fn release(
        &self,
        device: &DeviceKey,
        session: SessionId,
        close: &LastClose,
    ) -> Result<(), StoreError>;

    /// Asks, after an interruption, which of these sessions still stand; claims again what the store
    /// lost. One answer for each claim, in order.
    async fn revalidate(&self, claims: &[SessionClaim]) -> Result<Vec<Revalidated>, StoreError>;

    /// What is known of a device; `None` for one never seen, or forgotten since.
    async fn get(&self, device: &DeviceKey) -> Result<Option<DeviceRecord>, StoreError>;

    /// Walks a tenant's devices. Weakly consistent: a device that changes meanwhile is shown in
    /// either state.
    async fn list(
        &self,
        tenant: &TenantId,
        filter: &DeviceFilter,
        page: &PageRequest,
    ) -> Result<Page<DeviceRecord>, StoreError>;

    /// Follows a tenant's presence from after `cursor`, or from now. At least once, in order per
    /// device. Ends when the receiver is dropped.
    async fn watch(
        &self,
        tenant: &TenantId,
        cursor: Option<&str>,
    ) -> Result<mpsc::Receiver<PresenceItem>, StoreError>;

    /// Ends about a thousand of the sessions that a node left behind, each conditional on its session id;
    /// gives how many it ended, 0 once none is left. Whoever asks because the node is dead looks again
    /// whether it is before asking for more: it may have come back. Repeats are harmless.
    async fn end_sessions_of(&self, node: &NodeRef) -> Result<u64, StoreError>;

    /// What happened to a device lately, newest first, in the order in which the store let it happen:
    /// at most `limit`, and what [`StoreSettings::history`](crate::StoreSettings) keeps. Empty for one
    /// that nothing is known of.
    async fn history(
        &self,
        device: &DeviceKey,
        limit: usize,
    ) -> Result<Vec<HistoryEntry>, StoreError>;

    /// Adds to a device's history what its edge refused. `Fenced` for a stale session.
    async fn note_refusal(
        &self,
        device: &DeviceKey,
        session: SessionId,
        refusal: &Refusal,
    ) -> Result<(), StoreError>;
}
