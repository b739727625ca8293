//! Subscribing and publishing. Who gets a message is in `fanout.rs` and `interests.rs`.

use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::join_all;
use roost_cluster::StoreError;
use roost_telemetry::metrics::labels::GapCause;
use roost_types::{
    ErrorCode, Headers, HubError, Message, Origin, Payload, Position, Qos, Topic, TopicFilter,
};
use roost_wire::device::{HelloSubscription, ToDevice};

use super::history::note_refusal;
use super::{Session, may_act, store_failed, suspended};
use crate::conn::Conn;

/// How many declarations of one hello are under way at once.
const DECLARED_AT_ONCE: usize = 64;

/// A subscription asked for.
pub(super) struct Wanted {
    pub(super) topic: TopicFilter,
    pub(super) qos: Qos,
    pub(super) position: Option<Position>,
}

/// A publication asked for.
pub(super) struct Publication {
    pub(super) topic: Topic,
    pub(super) payload: Payload,
    pub(super) qos: Qos,
    pub(super) headers: Headers,
}

pub(super) async fn subscribe(conn: &Rc<Conn>, session: &Session, id: Option<u32>, wanted: Wanted) {
    match add(conn, session, &wanted).await {
        Ok(()) => {
            ack(conn, id);
            tell_no_log(conn, wanted);
        }
        Err(Some(error)) => {
            note_refusal(conn, "subscribe", wanted.topic.as_str(), &error);
            conn.refuse(id, error);
        }
        Err(None) => {}
    }
}

/// The subscriptions of a `hello`; one that fails is told and does not stop the others.
pub(super) async fn subscribe_all(conn: &Rc<Conn>, subscriptions: Vec<HelloSubscription>) {
    let Some(session) = conn.session.get() else {
        return;
    };
    let mut numbered = subscriptions.into_iter().enumerate().peekable();
    while numbered.peek().is_some() && conn.is_open() {
        let some = numbered.by_ref().take(DECLARED_AT_ONCE);
        join_all(some.map(|(index, s)| async move {
            let HelloSubscription { topic, qos, position } = s;
            let wanted = Wanted { topic, qos, position };
            match add(conn, session, &wanted).await {
                Ok(()) => tell_no_log(conn, wanted),
                Err(Some(error)) => {
                    note_refusal(conn, "subscribe", wanted.topic.as_str(), &error);
                    conn.refuse(None, error.at(format!("subscriptions[{index}]")));
                }
                Err(None) => {}
            }
        }))
        .await;
    }
}

/// Adds a subscription; `Err(None)` where the connection is being closed for it.
async fn add(conn: &Rc<Conn>, session: &Session, wanted: &Wanted) -> Result<(), Option<HubError>> {
    check(conn, session, wanted)?;
    if session.subscriptions.borrow().contains(&wanted.topic) {
        return Ok(());
    }
    // Here first, then with the other nodes: what arrives in between is not missed.
    session.subscriptions.borrow_mut().push(wanted.topic.clone());
    let (worker, tenant) = (&conn.worker, &session.device.tenant);
    worker.subscribe(tenant, &wanted.topic, conn.place);
    match worker.edge.switchboard.subscribe(tenant, &wanted.topic).await {
        Ok(()) => Ok(()),
        Err(error) => {
            session.subscriptions.borrow_mut().retain(|topic| *topic != wanted.topic);
            worker.unsubscribe(tenant, &wanted.topic, conn.place);
            Err(store_failed(conn, error))
        }
    }
}

fn check(conn: &Conn, session: &Session, wanted: &Wanted) -> Result<(), HubError> {
    check_qos(wanted.qos)?;
    if wanted.topic.is_reserved() {
        return Err(reserved(wanted.topic.as_str()));
    }
    if !may_act(conn) {
        return Err(suspended());
    }
    let most = conn.worker.edge.config.limits.subscriptions;
    let subscriptions = session.subscriptions.borrow();
    if subscriptions.len() >= most && !subscriptions.contains(&wanted.topic) {
        let text = format!(
            "this connection has {most} subscriptions, the most allowed; unsubscribe from some, or use wildcards"
        );
        return Err(HubError::new(ErrorCode::LimitExceeded, text).at("topic"));
    }
    Ok(())
}

fn check_qos(qos: Qos) -> Result<(), HubError> {
    if qos == Qos::BestEffort {
        return Ok(());
    }
    let text =
        "this hub keeps no topic logs yet, so nothing can be acknowledged as kept; use qos 0";
    Err(HubError::new(ErrorCode::QosUnsupported, text).at("qos"))
}

fn reserved(topic: &str) -> HubError {
    let text =
        format!("{topic:?} is one of the hub's own topics, which start with $; devices use others");
    HubError::new(ErrorCode::PermissionDenied, text).at("topic")
}

/// A position in a topic without a log: everything since is a gap.
fn tell_no_log(conn: &Rc<Conn>, wanted: Wanted) {
    if wanted.position.is_some() {
        conn.worker.edge.metrics().gaps.inc(GapCause::NoLog);
        conn.say(&ToDevice::Gap { topic: wanted.topic, from: wanted.position, to: None });
    }
}

pub(super) fn unsubscribe(
    conn: &Rc<Conn>,
    session: &Session,
    id: Option<u32>,
    topic: &TopicFilter,
) {
    let place = session.subscriptions.borrow().iter().position(|known| known == topic);
    if let Some(place) = place {
        session.subscriptions.borrow_mut().swap_remove(place);
        withdraw(conn, session, topic);
    }
    // Unsubscribing from what one is not subscribed to leaves things as asked.
    ack(conn, id);
}

fn withdraw(conn: &Conn, session: &Session, topic: &TopicFilter) {
    let tenant = &session.device.tenant;
    conn.worker.unsubscribe(tenant, topic, conn.place);
    conn.worker.edge.switchboard.unsubscribe(tenant, topic);
}

/// Ends every subscription of a connection that is gone.
pub(super) fn withdraw_all(conn: &Conn, session: &Session) {
    for topic in session.subscriptions.take() {
        withdraw(conn, session, &topic);
    }
}

pub(super) async fn publish(
    conn: &Rc<Conn>,
    session: &Session,
    id: Option<u32>,
    publication: Publication,
) {
    if let Err(error) = check_publication(conn, &publication) {
        note_refusal(conn, "publish", publication.topic.as_str(), &error);
        return conn.refuse(id, error);
    }
    let edge = &conn.worker.edge;
    let message = Arc::new(Message {
        topic: publication.topic,
        payload: publication.payload,
        headers: publication.headers,
        qos: publication.qos,
        time: edge.store.clock.now(),
        from: Origin::Device(session.device.device.clone()),
        position: None,
    });
    let published: Result<(), StoreError> =
        edge.store.bus.publish(&session.device.tenant, message).await;
    match published {
        Ok(()) => ack(conn, id),
        Err(error) => {
            if let Some(error) = store_failed(conn, error) {
                conn.refuse(id, error);
            }
        }
    }
}

fn check_publication(conn: &Conn, publication: &Publication) -> Result<(), HubError> {
    check_qos(publication.qos)?;
    if publication.topic.is_reserved() {
        return Err(reserved(publication.topic.as_str()));
    }
    if may_act(conn) { Ok(()) } else { Err(suspended()) }
}

/// Acknowledges a request that has a number; one without asked for no answer.
fn ack(conn: &Rc<Conn>, id: Option<u32>) {
    if id.is_some() {
        let (command_id, position) = (None, None);
        conn.say(&ToDevice::Ack { id, command_id, position });
    }
}
