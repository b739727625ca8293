//! The native protocol in JSON (`roost.v1.json`): text in, messages out, and back.
//!
//! Here: the public functions and the batch. `fields.rs` and `value.rs` take an object apart,
//! `payload.rs` and `headers.rs` read what a message carries, `read_device.rs` and `read_hub.rs`
//! make messages of fields, `write.rs` writes JSON and `write_message.rs` knows which fields a
//! message has.
//!
//! Nothing here recurses on input: a value is taken apart one level at a time, and what is deeper
//! is skipped by a parser that keeps its own stack.

mod fields;
mod headers;
mod payload;
mod read_device;
mod read_hub;
#[cfg(test)]
mod tests;
mod value;
mod write;
mod write_message;

use std::fmt;

use bytes::Bytes;
use roost_types::{CommandId, HubError, Message};
use serde::de::{DeserializeSeed as _, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use self::fields::{Field, Fields, FieldsSeed};
use super::{FromDevice, PayloadLimits, Reject, ToDevice};

pub use self::payload::json_payload;

/// The most headers of one message.
pub const MAX_HEADERS: usize = 32;
/// The most bytes of a header's name; it has at least one.
pub const MAX_HEADER_NAME_BYTES: usize = 128;
/// The most bytes of a header's value.
pub const MAX_HEADER_VALUE_BYTES: usize = 1024;
/// The most bytes of a content type, which is printable ASCII.
pub const MAX_CONTENT_TYPE_BYTES: usize = 255;
/// The most bytes of a `progress` note.
pub const MAX_NOTE_BYTES: usize = 1024;
/// The most bytes of a `result` error.
pub const MAX_ERROR_BYTES: usize = 4096;

/// Reads what a device sent: one object, or a batch of them, in order. Good and bad messages of a
/// batch stand side by side; a fatal refusal stands alone, and nothing of its text is to be done.
/// An empty batch gives nothing.
pub fn decode(text: &str, limits: &PayloadLimits) -> Vec<Result<FromDevice, Reject>> {
    decode_with(text, limits, read_device::read)
}

/// Reads what the hub sent, for clients. A newer hub may send types that this does not know
/// (`UNKNOWN_TYPE`): a client passes over them.
pub fn decode_to_device(text: &str, limits: &PayloadLimits) -> Vec<Result<ToDevice, Reject>> {
    decode_with(text, limits, read_hub::read)
}

/// One message to a device as JSON text.
pub fn encode(message: &ToDevice) -> Vec<u8> {
    write::to_vec(&|sink| write_message::to_device(message, sink))
}

/// One message to a device as a whole, unmasked WebSocket text frame: one allocation of exactly
/// its size.
pub fn frame(message: &ToDevice) -> Bytes {
    write::to_frame(&|sink| write_message::to_device(message, sink))
}

/// A publication as a whole, unmasked WebSocket text frame: encoded once, shared by every
/// subscriber. The same bytes as [`frame`] of [`ToDevice::Message`].
pub fn message_frame(message: &Message) -> Bytes {
    write::to_frame(&|sink| write_message::message(message, sink))
}

/// One message from a device as JSON text, for clients.
pub fn encode_from_device(message: &FromDevice) -> Vec<u8> {
    write::to_vec(&|sink| write_message::from_device(message, sink))
}

/// A batch of messages from a device as JSON text, for clients; the hub takes up to 64.
pub fn encode_batch(messages: &[FromDevice]) -> Vec<u8> {
    write::to_vec(&|sink| {
        for (index, message) in messages.iter().enumerate() {
            sink.raw(if index == 0 { b"[" } else { b"," });
            write_message::from_device(message, sink);
        }
        sink.raw(if messages.is_empty() { b"[]" } else { b"]" });
    })
}

/// Makes a message of the fields of one object.
type Read<T> = fn(&Fields<'_>, &PayloadLimits) -> Result<T, HubError>;

fn decode_with<T>(text: &str, limits: &PayloadLimits, read: Read<T>) -> Vec<Result<T, Reject>> {
    let whole = match text.trim_ascii_start().bytes().next() {
        Some(b'{') => one(text, limits, read).map(|message| vec![message]),
        Some(b'[') => batch(text, limits, read),
        Some(_) => Err(not_json("it starts as neither an object nor an array", limits)),
        None => Err(not_json("it is empty", limits)),
    };
    whole.unwrap_or_else(|fatal| vec![Err(fatal)])
}

fn not_json(what: impl fmt::Display, limits: &PayloadLimits) -> Reject {
    Reject::fatal(format!(
        "the message cannot be read: {what}; send one JSON object, or an array of up to {}",
        limits.batch
    ))
}

/// One object. The outer error is fatal for the whole text.
fn one<T>(text: &str, limits: &PayloadLimits, read: Read<T>) -> Result<Result<T, Reject>, Reject> {
    let mut json = serde_json::Deserializer::from_str(text);
    let fields = FieldsSeed::new(limits.depth)
        .deserialize(&mut json)
        .and_then(|fields| json.end().map(|()| fields))
        .map_err(|error| not_json(error, limits))?;
    let message = fields.check().and_then(|()| read(&fields, limits));
    Ok(message.map_err(|error| {
        let id = fields.u32(Field::Id).ok().flatten();
        let command_id = fields.string(Field::CommandId).ok().flatten();
        let command_id = command_id.and_then(|text| CommandId::new(text).ok());
        Reject::of(id, command_id, error)
    }))
}

fn batch<T>(
    text: &str,
    limits: &PayloadLimits,
    read: Read<T>,
) -> Result<Vec<Result<T, Reject>>, Reject> {
    let mut json = serde_json::Deserializer::from_str(text);
    let (elements, count) = serde::Deserializer::deserialize_seq(&mut json, Elements(limits.batch))
        .and_then(|found| json.end().map(|()| found))
        .map_err(|error| not_json(error, limits))?;
    if let Some(at) = elements.iter().position(|e| !e.get().starts_with('{')) {
        let what = format!("element {} of the array is not an object", at + 1);
        return Err(not_json(what, limits));
    }
    if count > limits.batch {
        return Ok(vec![Err(too_many(count, limits))]);
    }
    elements.into_iter().map(|element| one(element.get(), limits, read)).collect()
}

fn too_many(count: usize, limits: &PayloadLimits) -> Reject {
    let message = format!(
        "the batch has {count} messages, none of which was done; at most {} are taken",
        limits.batch
    );
    let error = HubError::new(roost_types::ErrorCode::LimitExceeded, message);
    Reject::of(None, None, error)
}

/// Collects an array's elements up to a number, and counts the rest.
struct Elements(usize);

impl<'de> Visitor<'de> for Elements {
    type Value = (Vec<&'de RawValue>, usize);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while elements.len() < self.0 {
            match array.next_element::<&RawValue>()? {
                Some(element) => elements.push(element),
                None => break,
            }
        }
        let mut count = elements.len();
        while count >= self.0 && array.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok((elements, count))
    }
}
