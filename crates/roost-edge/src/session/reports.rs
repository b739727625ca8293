//! What devices say of their commands, on its way to the store and to the nodes that wait.

use std::rc::Rc;
use std::sync::Arc;

use roost_cluster::{NodeEvent, Report, Reported};
use roost_telemetry::trace::{self, Span};
use roost_types::{
    Command, CommandId, CommandResult, ErrorCode, HubError, NodeId, Progress, TraceContext,
};
use roost_wire::device::ToDevice;

use super::{Session, mail, may_act, store_failed, suspended, traces};
use crate::conn::Conn;
use crate::edge::Edge;

/// A request's number and the command that it is about.
pub(super) type About = (Option<u32>, CommandId);

pub(super) async fn received(
    conn: &Rc<Conn>,
    session: &Session,
    id: Option<u32>,
    command: CommandId,
) {
    let wants_ack = id.is_some();
    session.traces.note(&command, "received");
    report(conn, session, (id, command), Report::Received, wants_ack).await;
}

pub(super) async fn progress(
    conn: &Rc<Conn>,
    session: &Session,
    about: About,
    percent: Option<u8>,
    note: Option<Arc<str>>,
) {
    let time = conn.worker.edge.store.clock.now();
    let progress = Progress { percent, note, time };
    let wants_ack = about.0.is_some();
    session.traces.note(&about.1, "progress");
    report(conn, session, about, Report::Progress(progress), wants_ack).await;
}

/// A result is acknowledged always: until then the device sends it again. `said` is where the device's
/// part of the trace ended, where it takes part.
pub(super) async fn result(
    conn: &Rc<Conn>,
    session: &Session,
    about: About,
    result: CommandResult,
    said: Option<TraceContext>,
) {
    let tracer = &conn.worker.edge.telemetry.tracer;
    let span = session.traces.answered(tracer, &about.1, result.status, said);
    let result = Report::Result(result);
    if span.is_recorded() {
        // In a box, so that connections need no room for what few of them ever do.
        Box::pin(span.within(report(conn, session, about, result, true))).await;
    } else {
        report(conn, session, about, result, true).await;
    }
}

async fn report(conn: &Rc<Conn>, session: &Session, about: About, report: Report, wants_ack: bool) {
    if !may_act(conn) {
        return refuse(conn, about, suspended());
    }
    let mailboxes = &conn.worker.edge.store.mailboxes;
    let reported = mailboxes.report(&session.device, session.id, &about.1, &report).await;
    match reported {
        Ok(Reported::Applied { command, waiting, more }) => {
            // Handed out by an earlier session, whose spans have ended: only now its trace is known.
            let span = match trace::current() {
                None if command.result.is_some() => {
                    traces::result(&conn.worker.edge.telemetry.tracer, command.spec.trace, None)
                }
                _ => Span::none(),
            };
            if span.is_recorded() {
                Box::pin(span.within(tell(conn, *command, &waiting))).await;
            } else {
                tell(conn, *command, &waiting).await;
            }
            if wants_ack {
                ack(conn, about);
            }
            if more {
                mail::read(conn);
            }
        }
        // It was recorded before, or comes after the end: the device need not repeat it.
        Ok(Reported::Late { .. }) if wants_ack => ack(conn, about),
        Ok(Reported::Late { .. }) => {}
        Ok(Reported::Unknown) => {
            let text = format!("there is no command {} for this device, or no longer", about.1);
            refuse(conn, about, HubError::new(ErrorCode::NotFound, text).at("command_id"));
        }
        Err(error) => {
            if let Some(error) = store_failed(conn, error) {
                refuse(conn, about, error);
            }
        }
    }
}

fn ack(conn: &Rc<Conn>, (id, command): About) {
    conn.say(&ToDevice::Ack { id, command_id: Some(command), position: None });
}

fn refuse(conn: &Rc<Conn>, (id, command): About, error: HubError) {
    conn.say(&ToDevice::Error {
        id,
        command_id: Some(command),
        code: error.code.as_str().into(),
        retryable: error.code.retryable(),
        message: error.message,
        field: error.field,
    });
}

/// Tells the nodes that wait for a command where it stands, and counts one that ended.
pub(super) async fn tell(conn: &Conn, command: Command, waiting: &[NodeId]) {
    tell_waiting(&conn.worker.edge, command, waiting).await;
}

/// See [`tell`].
pub(crate) async fn tell_waiting(edge: &Edge, command: Command, waiting: &[NodeId]) {
    edge.telemetry.control.ended(command.state);
    if waiting.is_empty() {
        return;
    }
    let event = NodeEvent::CommandUpdate(Box::new(command));
    for node in waiting {
        if let Err(error) = edge.store.bus.send_to(node, &event).await {
            // It looks the command up before its wait ends.
            tracing::debug!(%node, %error, "could not tell a waiting node of a command");
        }
    }
}
