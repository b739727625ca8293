//! The spans of a control node: one for a call, one for each push to an edge. What a span is, and where
//! it goes, is in `roost-telemetry`.

use roost_cluster::Dispatch;
use roost_proto::control::v1;
use roost_telemetry::trace::{self, Span, SpanKind};
use roost_types::{Command, TraceContext};
use tonic::Code;
use tonic::metadata::MetadataMap;

use crate::Control;
use crate::refusal::Refusal;

/// What callers name their trace in, as W3C Trace Context has it.
const TRACEPARENT: &str = "traceparent";

impl Control {
    /// The span of a call of `CommandService`, after the trace that the caller named. Only for callers
    /// that have shown who they are: whoever names a trace has it recorded.
    pub(crate) fn span_of(&self, method: &'static str, metadata: &MetadataMap) -> Span {
        if !self.tracer.is_on() {
            return Span::none();
        }
        let named = metadata.get(TRACEPARENT).and_then(|value| value.to_str().ok());
        let parent = named.and_then(TraceContext::parse);
        let span = self.tracer.start(method, SpanKind::Server, parent);
        span.set("rpc.system", "grpc");
        span.set("rpc.service", "roost.control.v1.CommandService");
        span.set("rpc.method", method);
        span
    }
}

/// Notes how a `SendCommand` call was answered.
pub(crate) fn answered(span: &Span, answer: &Result<v1::SendCommandResponse, Refusal>) {
    if !span.is_recorded() {
        return;
    }
    match answer {
        Ok(answer) => {
            span.set_number("rpc.grpc.status_code", Code::Ok as i32);
            span.set_flag("roost.command.already_existed", answer.already_existed);
            span.set_flag("roost.command.wait_timed_out", answer.wait_timed_out);
            if let Some(command) = &answer.command {
                span.set("roost.device_id", &command.device_id);
                span.set("roost.command_id", &command.command_id);
                span.set("roost.command.state", command.state().as_str_name());
            }
        }
        Err(refusal) => {
            span.set_number("rpc.grpc.status_code", refusal.code.grpc_code());
            span.fail(refusal.code.as_str());
        }
    }
}

/// The span of a push; what the edge does with the command comes after it.
pub(crate) fn push(command: &mut Command, dispatch: &Dispatch) -> Span {
    let span = trace::child("push to edge", SpanKind::Producer);
    span.set("roost.command_id", command.spec.id.as_str());
    span.set("roost.node_id", dispatch.node.id.as_str());
    command.spec.trace = span.context().or(command.spec.trace);
    span
}
