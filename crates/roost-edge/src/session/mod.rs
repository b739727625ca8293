//! The session core: what a device's messages do. It speaks `FromDevice` and `ToDevice`, never a
//! wire format, and reaches others only through the seams of `roost-cluster`.
//!
//! Here: what a session is, and who handles which message. `hello.rs` begins one, `topics.rs`
//! subscribes and publishes, `history.rs` notes what was refused, `mail.rs` delivers commands, `reports.rs` takes what devices say of
//! them, `traces.rs` has the spans of traced ones, `takeover.rs` makes the old session go, `end.rs` gives everything back.

pub(crate) mod end;
mod hello;
pub(crate) mod history;
pub(crate) mod mail;
pub(crate) mod reports;
mod takeover;
mod topics;
mod traces;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use roost_cluster::{SessionClaim, StoreError};
use roost_telemetry::metrics::SessionGuard;
use roost_telemetry::metrics::labels::GapCause;
use roost_types::{
    CommandResult, DeviceKey, ErrorCode, HubError, SessionId, TopicFilter, UnixMillis,
};
use roost_wire::device::{FromDevice, ToDevice};

use crate::conn::{Conn, Stage};
use crate::wheel::Ticks;

pub(crate) use takeover::Takeovers;

/// A device's session on its connection.
#[derive(Debug)]
pub(crate) struct Session {
    /// Whose.
    pub(crate) device: DeviceKey,
    /// Its fencing token.
    pub(crate) id: SessionId,
    /// When it was claimed first, by hub time.
    pub(crate) claimed_at: UnixMillis,
    /// The `seq` of the last command delivered, or found expired.
    cursor: Cell<u64>,
    /// Whether the mailbox is being read.
    mail: Cell<mail::Reading>,
    /// Whether the store was told of its end before its connection ended.
    released: Cell<bool>,
    /// When its last refusal was noted in its device's history, in the worker's ticks.
    noted: Cell<Ticks>,
    /// The spans of traced commands that the device has.
    traces: traces::Traces,
    /// What it is subscribed to, each once.
    subscriptions: RefCell<Vec<TopicFilter>>,
    /// Counts this session.
    pub(crate) counted: RefCell<SessionGuard>,
}

// === impl Session ===

impl Session {
    /// As it was claimed, to be confirmed after an interruption.
    pub(crate) fn claim(&self, conn: &Conn) -> SessionClaim {
        SessionClaim {
            device: self.device.clone(),
            session: self.id,
            node: conn.worker.edge.node.clone(),
            protocol: conn.worker.edge.protocol.clone(),
            address: conn.peer.to_string().into(),
            claimed_at: self.claimed_at,
        }
    }

    /// Whether the store was told of its end.
    pub(crate) fn is_released(&self) -> bool {
        self.released.get()
    }

    pub(crate) fn set_released(&self) {
        self.released.set(true);
    }
}

/// Does what one message asks.
pub(crate) async fn handle(conn: &Rc<Conn>, message: FromDevice) {
    match (conn.session.get(), message) {
        (None, FromDevice::Hello { keepalive_ms, token, subscriptions, .. }) => {
            let hello = hello::Hello { keepalive_ms, token, subscriptions };
            hello::greet(conn, hello).await;
        }
        (None, _) => {
            let text = "the first message of a connection is a hello";
            conn.close(HubError::new(ErrorCode::HelloExpected, text));
        }
        (Some(_), FromDevice::Hello { id, .. }) => {
            let text = "this connection had its hello; its settings last as long as it does";
            conn.refuse(id, HubError::new(ErrorCode::HelloRepeated, text));
        }
        (Some(session), message) => request(conn, session, message).await,
    }
}

async fn request(conn: &Rc<Conn>, session: &Session, message: FromDevice) {
    match message {
        FromDevice::Hello { .. } => {}
        FromDevice::Ping { id } => {
            let time_ms = conn.worker.edge.store.clock.now();
            conn.say(&ToDevice::Pong { id, time_ms });
        }
        FromDevice::Subscribe { id, topic, qos, position } => {
            let wanted = topics::Wanted { topic, qos, position };
            topics::subscribe(conn, session, id, wanted).await;
        }
        FromDevice::Unsubscribe { id, topic } => topics::unsubscribe(conn, session, id, &topic),
        FromDevice::Publish { id, topic, payload, qos, headers } => {
            let publication = topics::Publication { topic, payload, qos, headers };
            topics::publish(conn, session, id, publication).await;
        }
        FromDevice::Received { id, command_id } => {
            reports::received(conn, session, id, command_id).await;
        }
        FromDevice::Progress { id, command_id, percent, note } => {
            reports::progress(conn, session, (id, command_id), percent, note).await;
        }
        FromDevice::Result { id, command_id, status, payload, error, trace } => {
            let result = CommandResult { payload, error, ..CommandResult::new(status) };
            reports::result(conn, session, (id, command_id), result, trace).await;
        }
    }
}

/// Tells of a gap in those subscriptions that are `affected`.
pub(crate) fn tell_gap(conn: &Rc<Conn>, cause: GapCause, affected: impl Fn(&TopicFilter) -> bool) {
    let Some(session) = conn.live_session() else {
        return;
    };
    let subscriptions = session.subscriptions.borrow();
    let topics: Vec<_> = subscriptions.iter().filter(|filter| affected(filter)).cloned().collect();
    drop(subscriptions);
    for topic in topics {
        conn.say_gap(topic, cause);
    }
}

/// The answer while this node's lease is not valid: nothing may be acknowledged now.
fn suspended() -> HubError {
    HubError::new(
        ErrorCode::Unavailable,
        "the hub cannot confirm anything at the moment; send it again in a few seconds",
    )
}

/// A store that failed, as the device is told. A session that is no longer the owner ends.
fn store_failed(conn: &Rc<Conn>, error: StoreError) -> Option<HubError> {
    match error {
        StoreError::Fenced => {
            conn.worker.edge.telemetry.node.fenced_writes.increment(1);
            let text = "a newer session of this device took over";
            conn.close(HubError::new(ErrorCode::Fenced, text));
            None
        }
        // What the store said names its address: for the log, not for devices.
        error => {
            tracing::debug!(peer = %conn.peer, %error, "the store failed a device's request");
            let code = match error {
                // For a device there is no difference to the other ways of being out of reach.
                StoreError::NotSent(_) | StoreError::Stale => ErrorCode::Unavailable,
                error => error.code(),
            };
            Some(HubError::new(
                code,
                "the hub's store did not take it; send it again in a few seconds",
            ))
        }
    }
}

/// Whether this connection may act for its session now.
fn may_act(conn: &Conn) -> bool {
    conn.stage() == Stage::Live && conn.worker.edge.lease.is_valid()
}
