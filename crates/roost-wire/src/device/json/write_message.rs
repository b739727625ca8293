//! Which fields a message has when it is written, in the order of the protocol's description.
//!
//! Absent means default: `qos` 0, no headers, the payload kind's own content type.

use roost_types::{CommandId, Message, Origin, Payload, Position, Qos, ResultStatus};

use super::write::{Object, Sink, string};
use crate::device::{FromDevice, HelloSubscription, ToDevice};

// === messages to a device ===

pub(super) fn to_device(message: &ToDevice, sink: &mut dyn Sink) {
    match message {
        ToDevice::Message(publication) => self::message(publication, sink),
        ToDevice::Welcome { .. } => welcome(message, sink),
        ToDevice::Command { .. } => command(message, sink),
        ToDevice::Error { .. } => error(message, sink),
        ToDevice::Ack { id, command_id, position } => {
            let mut object = request(sink, "ack", *id);
            object.optional_text("command_id", command_id.as_ref().map(CommandId::as_str));
            object.optional_text("position", position.as_ref().map(Position::as_str));
            object.end();
        }
        ToDevice::Cancel { command_id } => {
            let mut object = Object::message(sink, "cancel");
            object.text("command_id", command_id.as_str());
            object.end();
        }
        ToDevice::Gap { topic, from, to } => {
            let mut object = Object::message(sink, "gap");
            object.text("topic", topic.as_str());
            object.optional_text("from", from.as_ref().map(Position::as_str));
            object.optional_text("to", to.as_ref().map(Position::as_str));
            object.end();
        }
        ToDevice::Goaway { reason, retry_after_ms } => {
            let mut object = Object::message(sink, "goaway");
            object.text("reason", reason);
            object.optional_number("retry_after_ms", *retry_after_ms);
            object.end();
        }
        ToDevice::Pong { id, time_ms } => {
            let mut object = request(sink, "pong", *id);
            object.number("time_ms", time_ms.0);
            object.end();
        }
    }
}

pub(super) fn message(message: &Message, sink: &mut dyn Sink) {
    let mut object = Object::message(sink, "message");
    object.text("topic", message.topic.as_str());
    match &message.from {
        Origin::Device(id) => object.joined("from", ["device:", id.as_str()]),
        Origin::Service(name) => object.joined("from", ["service:", name]),
    }
    object.payload(&message.payload);
    object.headers(&message.headers);
    qos(&mut object, message.qos);
    object.optional_text("position", message.position.as_ref().map(Position::as_str));
    object.number("time_ms", message.time.0);
    object.end();
}

fn welcome(message: &ToDevice, sink: &mut dyn Sink) {
    let ToDevice::Welcome { device_id, session_id, time_ms, keepalive_ms, limits } = message else {
        return;
    };
    let mut object = Object::message(sink, "welcome");
    object.text("device_id", device_id.as_str());
    object.text("session_id", &session_id.to_string());
    object.number("time_ms", time_ms.0);
    object.number("keepalive_ms", u64::from(*keepalive_ms));
    let mut inner = Object::open(object.key("limits"));
    inner.number("payload_bytes", limits.payload_bytes);
    inner.number("frame_bytes", limits.frame_bytes);
    inner.end();
    object.end();
}

fn command(message: &ToDevice, sink: &mut dyn Sink) {
    let ToDevice::Command {
        command_id,
        name,
        payload,
        headers,
        expires_ms,
        expires_in_ms,
        attempt,
    } = message
    else {
        return;
    };
    let mut object = Object::message(sink, "command");
    object.text("command_id", command_id.as_str());
    object.text("name", name);
    optional_payload(&mut object, payload.as_ref());
    object.headers(headers);
    object.number("expires_ms", expires_ms.0);
    object.number("expires_in_ms", *expires_in_ms);
    object.number("attempt", u64::from(*attempt));
    object.end();
}

fn error(message: &ToDevice, sink: &mut dyn Sink) {
    let ToDevice::Error { id, command_id, code, message, field, retryable } = message else {
        return;
    };
    let mut object = request(sink, "error", *id);
    object.optional_text("command_id", command_id.as_ref().map(CommandId::as_str));
    object.text("code", code);
    object.text("message", message);
    object.optional_text("field", field.as_deref());
    object.boolean("retryable", *retryable);
    object.end();
}

// === messages from a device ===

pub(super) fn from_device(message: &FromDevice, sink: &mut dyn Sink) {
    if let FromDevice::Hello { .. } = message {
        return hello(message, sink);
    }
    let mut object = request(sink, message.kind(), message.id());
    object.optional_text("command_id", message.command_id().map(CommandId::as_str));
    match message {
        FromDevice::Subscribe { topic, qos, position, .. } => {
            subscription(&mut object, topic.as_str(), *qos, position.as_ref());
        }
        FromDevice::Unsubscribe { topic, .. } => object.text("topic", topic.as_str()),
        FromDevice::Publish { topic, payload, qos, headers, .. } => {
            object.text("topic", topic.as_str());
            object.payload(payload);
            object.headers(headers);
            self::qos(&mut object, *qos);
        }
        FromDevice::Progress { percent, note, .. } => {
            object.optional_number("percent", percent.map(u64::from));
            object.optional_text("note", note.as_deref());
        }
        FromDevice::Result { status, payload, error, trace, .. } => {
            object.text("status", self::status(*status));
            optional_payload(&mut object, payload.as_ref());
            object.optional_text("error", error.as_deref());
            let trace = trace.as_ref().map(ToString::to_string);
            object.optional_text("traceparent", trace.as_deref());
        }
        FromDevice::Hello { .. } | FromDevice::Received { .. } | FromDevice::Ping { .. } => {}
    }
    object.end();
}

fn hello(message: &FromDevice, sink: &mut dyn Sink) {
    let FromDevice::Hello { id, keepalive_ms, token, subscriptions, features } = message else {
        return;
    };
    let mut object = request(sink, "hello", *id);
    object.optional_number("keepalive_ms", keepalive_ms.map(u64::from));
    object.optional_text("token", token.as_ref().map(|token| token.0.as_str()));
    if !subscriptions.is_empty() {
        object.array("subscriptions", subscriptions, hello_subscription);
    }
    if !features.is_empty() {
        object.array("features", features, |text, sink| string(text, sink));
    }
    object.end();
}

fn hello_subscription(wanted: &HelloSubscription, sink: &mut dyn Sink) {
    let mut object = Object::open(sink);
    let position = wanted.position.as_ref();
    subscription(&mut object, wanted.topic.as_str(), wanted.qos, position);
    object.end();
}

// === what several messages have ===

fn request<'s>(sink: &'s mut dyn Sink, kind: &str, id: Option<u32>) -> Object<'s> {
    let mut object = Object::message(sink, kind);
    object.optional_number("id", id.map(u64::from));
    object
}

fn subscription(object: &mut Object<'_>, topic: &str, qos: Qos, position: Option<&Position>) {
    object.text("topic", topic);
    self::qos(object, qos);
    object.optional_text("position", position.map(Position::as_str));
}

fn qos(object: &mut Object<'_>, qos: Qos) {
    if qos == Qos::AtLeastOnce {
        object.number("qos", 1);
    }
}

fn optional_payload(object: &mut Object<'_>, payload: Option<&Payload>) {
    if let Some(payload) = payload {
        object.payload(payload);
    }
}

const fn status(status: ResultStatus) -> &'static str {
    match status {
        ResultStatus::Succeeded => "succeeded",
        ResultStatus::Failed => "failed",
        ResultStatus::Rejected => "rejected",
    }
}
