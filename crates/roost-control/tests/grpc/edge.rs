//! An edge without sockets: it claims sessions and answers the commands that are pushed to it, the way
//! the real one does: report to the mailbox, then tell the nodes that wait.

use std::sync::Arc;

use parking_lot::Mutex;
use roost_cluster::{
    LastClose, NodeEvent, NodeInfo, NodeRef, NodeSink, Report, Reported, Roles, SessionClaim,
    Store, Switchboard,
};
use roost_types::{
    Command, CommandId, CommandResult, DeviceId, DeviceKey, Message, NodeId, ResultStatus,
    SessionId, TenantId,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) struct Edge {
    pub(crate) store: Store,
    pub(crate) node: NodeRef,
    /// What came for this node and was no command to answer.
    pub(crate) others: tokio::sync::Mutex<mpsc::Receiver<NodeEvent>>,
    tasks: Mutex<JoinSet<()>>,
}

struct Inbox(mpsc::Sender<NodeEvent>);

impl NodeSink for Inbox {
    fn message(&self, _: &TenantId, _: &Arc<Message>) {}
    fn gap(&self) {}
    fn node_event(&self, event: &NodeEvent) {
        self.0.try_send(event.clone()).unwrap();
    }
    fn resubscribed(&self) {}
}

impl Edge {
    pub(crate) async fn start(store: Store, node: NodeRef) -> Arc<Self> {
        let (inbox, mut events) = mpsc::channel(1_000);
        let (other, others) = mpsc::channel(1_000);
        let board = Arc::new(Switchboard::new(Arc::clone(&store.bus)));
        board.attach(Arc::new(Inbox(inbox)));
        let bus = store.bus.take_events().unwrap();
        let edge = Arc::new(Self {
            store,
            node,
            others: tokio::sync::Mutex::new(others),
            tasks: Mutex::default(),
        });
        let worker = Arc::downgrade(&edge);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { board.run(bus, CancellationToken::new()).await });
        tasks.spawn(async move {
            while let Some(event) = events.recv().await {
                let Some(edge) = worker.upgrade() else { return };
                match event {
                    NodeEvent::Deliver { session, command, .. } => {
                        edge.deliver(session, &command).await;
                    }
                    event => other.send(event).await.unwrap(),
                }
            }
        });
        *edge.tasks.lock() = tasks;
        edge.beat(false).await;
        edge
    }

    /// Renews its lease, without which its sessions do not count.
    pub(crate) async fn beat(&self, draining: bool) {
        let info = NodeInfo {
            node: self.node.clone(),
            roles: Roles { edge: true, control: false },
            version: "0.1.0".into(),
            address: "10.0.3.7:7080".into(),
            started: self.store.clock.now(),
            devices: 3,
            draining,
        };
        self.store.nodes.heartbeat(&info).await.unwrap();
    }

    /// A device of the tenant connects.
    pub(crate) async fn connect(&self, tenant: &str, device: &str) -> (DeviceKey, SessionId) {
        let (device, session) = (key(tenant, device), SessionId::random());
        let claim = SessionClaim {
            device: device.clone(),
            session,
            node: self.node.clone(),
            protocol: "roost.v1.json".into(),
            address: "192.0.2.7:51034".into(),
            claimed_at: self.store.clock.now(),
        };
        self.store.sessions.claim(&claim).await.unwrap();
        (device, session)
    }

    pub(crate) async fn disconnect(&self, device: &DeviceKey, session: SessionId) {
        let close = LastClose {
            code: 1000,
            reason: "bye".into(),
            initiator: roost_cluster::Initiator::Device,
            time: self.store.clock.now(),
        };
        let released = self.store.sessions.release(device, session, &close);
        released.await.unwrap();
    }

    /// What the device with this command's name would do.
    async fn deliver(&self, session: SessionId, command: &Command) {
        let (device, id) = (&command.device, &command.spec.id);
        self.report(device, session, id, Report::Sent, true).await;
        let (status, error) = match &*command.spec.name {
            "echo" => (ResultStatus::Succeeded, None),
            "fail" => (ResultStatus::Failed, Some("it broke".into())),
            "receive" => {
                return self.report(device, session, id, Report::Received, true).await;
            }
            // What a test does by itself.
            _ => return,
        };
        let payload = command.spec.payload.clone();
        let result = CommandResult { status, payload, error, payload_dropped: false };
        self.report(device, session, id, Report::Result(result), true).await;
    }

    /// Reports, and tells who waits unless the message is to be lost on the way.
    pub(crate) async fn report(
        &self,
        device: &DeviceKey,
        session: SessionId,
        id: &CommandId,
        report: Report,
        tell: bool,
    ) {
        let reported = self.store.mailboxes.report(device, session, id, &report);
        if let Reported::Applied { command, waiting, .. } = reported.await.unwrap()
            && tell
        {
            let event = NodeEvent::CommandUpdate(command);
            for node in waiting {
                self.store.bus.send_to(&node, &event).await.unwrap();
            }
        }
    }

    /// The next event that is no command.
    pub(crate) async fn event(&self) -> NodeEvent {
        self.others.lock().await.recv().await.unwrap()
    }
}

pub(crate) fn key(tenant: &str, device: &str) -> DeviceKey {
    DeviceKey::new(TenantId::new(tenant).unwrap(), DeviceId::new(device).unwrap())
}

pub(crate) fn node(name: &str) -> NodeRef {
    NodeRef::start(NodeId::new(name).unwrap())
}

pub(crate) fn succeeded() -> Report {
    ended(ResultStatus::Succeeded)
}

pub(crate) fn ended(status: ResultStatus) -> Report {
    let result = CommandResult { status, payload: None, error: None, payload_dropped: false };
    Report::Result(result)
}
