//! The spans of commands at an edge: `deliver` while one is handed to the socket, `device` from then
//! until the device says how it ended, `result` while that is told to the store and to who waits. What
//! is not traced has none, and costs a look.

use std::cell::RefCell;

use roost_telemetry::trace::{Span, SpanKind, Tracer};
use roost_types::{Command, CommandId, Headers, ResultStatus, TraceContext};
use roost_wire::device::json::MAX_HEADERS;

use super::Session;
use crate::conn::{Conn, Sent};

/// The header that devices find their place in the trace in, as W3C Trace Context has it.
const TRACEPARENT: &str = "traceparent";
/// Of so many commands a session keeps the span until the device answers; of more, of the latest.
const MOST: usize = 64;

/// The traced commands that a session's device has, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Traces(RefCell<Vec<(CommandId, Span)>>);

/// The spans of a command while it is handed to the socket.
pub(super) struct Handing {
    deliver: Span,
    device: Span,
}

// === impl Handing ===

impl Handing {
    pub(super) fn begin(conn: &Conn, session: &Session, command: &Command) -> Self {
        let tracer = &conn.worker.edge.telemetry.tracer;
        let deliver = tracer.follow("deliver", SpanKind::Consumer, command.spec.trace);
        let device = deliver.child("device", SpanKind::Client);
        if deliver.is_recorded() {
            deliver.set("roost.tenant", session.device.tenant.as_str());
            deliver.set("roost.session_id", &session.id.to_string());
            for span in [&deliver, &device] {
                span.set("roost.device_id", session.device.device.as_str());
                span.set("roost.command_id", command.spec.id.as_str());
                span.set_number("roost.command.attempt", command.attempt);
            }
            device.set("roost.command.name", &command.spec.name);
        }
        Self { deliver, device }
    }

    /// The command's headers, with the place that the device can go on from.
    pub(super) fn headers(&self, given: &Headers) -> Headers {
        with_place(given, self.device.context())
    }

    /// The socket took the command, or did not.
    pub(super) fn end(self, session: &Session, command: &CommandId, sent: Sent) {
        if !self.deliver.is_recorded() {
            return;
        }
        let went = matches!(sent, Sent::Written | Sent::Queued);
        self.deliver.set_flag("roost.sent", went);
        if went {
            session.traces.keep(command, self.device);
        } else {
            // It has it from a later reading of the mailbox, in spans of its own.
            self.device.set_flag("roost.sent", false);
        }
    }
}

/// A back end's own header of that name is left alone, and a full list as it is.
fn with_place(given: &Headers, place: Option<TraceContext>) -> Headers {
    let mut headers = given.clone();
    if let Some(place) = place
        && headers.len() < MAX_HEADERS
        && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(TRACEPARENT))
    {
        headers.push((TRACEPARENT.into(), place.to_string().into()));
    }
    headers
}

// === impl Traces ===

impl Traces {
    fn keep(&self, command: &CommandId, device: Span) {
        let mut kept = self.0.borrow_mut();
        kept.retain(|(id, _)| id != command);
        if kept.len() >= MOST {
            kept.remove(0);
        }
        kept.push((command.clone(), device));
    }

    /// Where the trace of a command stands that the device has.
    pub(super) fn place(&self, command: &CommandId) -> Option<TraceContext> {
        let kept = self.0.borrow();
        kept.iter().find(|(id, _)| id == command).and_then(|(_, device)| device.context())
    }

    /// The device said something of a command, which goes on.
    pub(super) fn note(&self, command: &CommandId, what: &'static str) {
        let kept = self.0.borrow();
        if let Some((_, device)) = kept.iter().find(|(id, _)| id == command) {
            device.event(what);
        }
    }

    /// The device ended a command: so does its span, and that of the result begins.
    pub(super) fn answered(
        &self,
        tracer: &Tracer,
        command: &CommandId,
        status: ResultStatus,
        said: Option<TraceContext>,
    ) -> Span {
        let mut kept = self.0.borrow_mut();
        let Some(at) = kept.iter().position(|(id, _)| id == command) else {
            return Span::none();
        };
        let (_, device) = kept.remove(at);
        device.set("roost.command.state", status.state().as_str());
        if status != ResultStatus::Succeeded {
            device.fail(status.state().as_str());
        }
        result(tracer, device.context(), said)
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        // The session ended first; the device answers on another one.
        for (_, device) in self.0.get_mut() {
            device.set_flag("roost.answered", false);
        }
    }
}

/// The span of a result, after `known`, or after the span of the device's that it `said`. Only within
/// the same trace: a device has no say over what else is recorded.
pub(super) fn result(
    tracer: &Tracer,
    known: Option<TraceContext>,
    said: Option<TraceContext>,
) -> Span {
    let same = |said: &TraceContext| known.is_some_and(|known| known.trace_id == said.trace_id);
    let own = said.filter(same).map(|said| TraceContext { sampled: true, ..said });
    tracer.follow("result", SpanKind::Consumer, own.or(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_one_more_header_where_there_is_room_and_none_of_its_name() {
        let place = TraceContext::from_bytes(&[1; 25]);
        let header = |name: &str| (name.into(), "x".into());
        let added = |given: &Headers| with_place(given, place).len() - given.len();
        assert_eq!(added(&vec![]), 1);
        let headers = with_place(&vec![header("a")], place);
        assert_eq!((&*headers[0].0, &*headers[1].0), ("a", "traceparent"));
        assert_eq!(TraceContext::parse(&headers[1].1), place);
        assert_eq!(added(&vec![header("TraceParent")]), 0);
        let many: Headers = (0..MAX_HEADERS).map(|n| header(&n.to_string())).collect();
        assert_eq!(added(&many), 0);
        assert_eq!(added(&many[1..].to_vec()), 1);
        assert_eq!(with_place(&vec![header("a")], None).len(), 1);
    }

    #[test]
    fn a_session_keeps_the_spans_of_its_latest_commands() {
        let traces = Traces::default();
        let id = |n: usize| CommandId::new(format!("c{n}")).expect("an id");
        for n in 0..=MOST {
            traces.keep(&id(n), Span::none());
        }
        traces.keep(&id(MOST), Span::none());
        let kept = traces.0.borrow();
        assert_eq!(kept.len(), MOST);
        assert!(kept.iter().all(|(kept, _)| *kept != id(0)), "the oldest went");
    }
}
