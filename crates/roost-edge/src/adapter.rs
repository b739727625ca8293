//! Between the session core's vocabulary (`FromDevice`, `ToDevice`) and what is on the wire of each
//! protocol. The core never sees bytes; a further protocol is a further [`Speech`] here.

use bytes::Bytes;
use roost_telemetry::metrics::labels::MessageKind;
use roost_types::Message;
use roost_wire::device::{FromDevice, PayloadLimits, Reject, ToDevice, json};

use crate::conn::Speech;

/// Reads what a device sent in one text frame.
pub(crate) fn decode(
    speech: Speech,
    text: &str,
    limits: &PayloadLimits,
) -> Vec<Result<FromDevice, Reject>> {
    match speech {
        Speech::Json => json::decode(text, limits),
        Speech::Echo => Vec::new(),
    }
}

/// One message to a device, as a whole frame.
pub(crate) fn encode(speech: Speech, message: &ToDevice) -> Bytes {
    match speech {
        Speech::Json => json::frame(message),
        Speech::Echo => Bytes::new(),
    }
}

/// A publication as a whole frame, once for all subscribers of a protocol.
pub(crate) fn encode_publication(message: &Message) -> Bytes {
    json::message_frame(message)
}

/// What a message to a device is counted as.
pub(crate) fn kind_of(message: &ToDevice) -> MessageKind {
    match message {
        ToDevice::Welcome { .. } => MessageKind::Welcome,
        ToDevice::Ack { .. } => MessageKind::Ack,
        ToDevice::Message(_) => MessageKind::Message,
        ToDevice::Command { .. } => MessageKind::Command,
        ToDevice::Cancel { .. } => MessageKind::Cancel,
        ToDevice::Error { .. } => MessageKind::Error,
        ToDevice::Gap { .. } => MessageKind::Gap,
        ToDevice::Goaway { .. } => MessageKind::Goaway,
        ToDevice::Pong { .. } => MessageKind::Pong,
    }
}

/// What a message from a device is counted as.
pub(crate) fn kind_from(message: &FromDevice) -> MessageKind {
    match message {
        FromDevice::Hello { .. } => MessageKind::Hello,
        FromDevice::Subscribe { .. } => MessageKind::Subscribe,
        FromDevice::Unsubscribe { .. } => MessageKind::Unsubscribe,
        FromDevice::Publish { .. } => MessageKind::Publish,
        FromDevice::Received { .. } => MessageKind::Received,
        FromDevice::Progress { .. } => MessageKind::Progress,
        FromDevice::Result { .. } => MessageKind::Result,
        FromDevice::Ping { .. } => MessageKind::Ping,
    }
}
