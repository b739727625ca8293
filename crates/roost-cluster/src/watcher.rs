//! One watch of presence, as every store hands events to it: bounded, and never silent about what it
//! missed. Where events come from is each store's affair.

use roost_types::TenantId;
use tokio::sync::mpsc;

use crate::{PresenceEvent, PresenceItem};

/// How many events a watch may lag behind before it gets a gap: a second of a reconnect storm.
const QUEUE: usize = 4_096;

/// The sending side of a watch.
#[derive(Debug)]
pub struct PresenceWatcher {
    tenant: TenantId,
    sender: mpsc::Sender<PresenceItem>,
    /// Something was missed; to be said before the next event.
    lagged: bool,
}

// === impl PresenceWatcher ===

impl PresenceWatcher {
    /// A watch of a tenant's devices, with room for `backlog` more events than usual.
    pub fn new(tenant: TenantId, backlog: usize) -> (Self, mpsc::Receiver<PresenceItem>) {
        let (sender, receiver) = mpsc::channel(QUEUE + backlog);
        (Self { tenant, sender, lagged: false }, receiver)
    }

    /// Hands an event on if it is of the watch's tenant. Says whether the watch is still wanted.
    pub fn offer(&mut self, event: &PresenceEvent) -> bool {
        if event.device.tenant == self.tenant {
            self.say_gap();
            let item = PresenceItem::Event(event.clone());
            self.lagged |= self.sender.try_send(item).is_err();
        }
        self.is_wanted()
    }

    /// Notes that events may be missing here.
    pub fn lag(&mut self) {
        self.lagged = true;
    }

    /// Tells of what is missing, as soon as there is room.
    pub fn say_gap(&mut self) {
        if self.lagged {
            self.lagged = self.sender.try_send(PresenceItem::Gap).is_err();
        }
    }

    /// Whether anybody still receives.
    pub fn is_wanted(&self) -> bool {
        !self.sender.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PresenceKind;
    use roost_types::{DeviceId, DeviceKey, NodeId, SessionId, UnixMillis};

    fn event(tenant: &str) -> PresenceEvent {
        PresenceEvent {
            id: "1".into(),
            cursor: "1".into(),
            device: DeviceKey::new(TenantId::new(tenant).unwrap(), DeviceId::new("d").unwrap()),
            kind: PresenceKind::Connected,
            session: SessionId::from_bytes([1; 16]),
            node: NodeId::new("n").unwrap(),
            time: UnixMillis(1),
            close: None,
        }
    }

    #[test]
    fn a_slow_watch_gets_a_gap_where_events_are_missing() {
        let (mut watcher, mut receiver) = PresenceWatcher::new(TenantId::new("t").unwrap(), 0);
        for _ in 0..QUEUE + 3 {
            assert!(watcher.offer(&event("t")) && watcher.offer(&event("other")));
        }
        for _ in 0..QUEUE {
            assert_eq!(receiver.try_recv(), Ok(PresenceItem::Event(event("t"))));
        }
        watcher.say_gap();
        watcher.offer(&event("t"));
        assert_eq!(receiver.try_recv(), Ok(PresenceItem::Gap));
        assert_eq!(receiver.try_recv(), Ok(PresenceItem::Event(event("t"))));
        drop(receiver);
        assert!(!watcher.offer(&event("t")));
    }
}
