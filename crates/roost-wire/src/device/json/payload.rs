//! The three ways a payload travels in JSON, its content type, and how deep JSON is.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use roost_types::{ErrorCode, HubError, Payload, Text};
use serde_json::value::RawValue;

use super::fields::{Field, Fields};
use super::value::{invalid, string};
use super::{MAX_CONTENT_TYPE_BYTES, PayloadLimits};

/// Checks that `text` is one JSON value within the limits and makes a payload of it, byte for
/// byte but for the space around it. For payloads that come another way than in this protocol.
pub fn json_payload(text: &str, limits: &PayloadLimits) -> Result<Payload, HubError> {
    let value: &RawValue = serde_json::from_str(text).map_err(|error| {
        let message = format!("the payload is not one JSON value: {error}");
        HubError::new(ErrorCode::FieldInvalid, message).at("payload")
    })?;
    if let Some(depth) = depth_over(value.get(), limits.depth) {
        let is = format_args!("nested {depth} levels deep");
        let want = format_args!("at most {}", limits.depth);
        return Err(invalid(Field::Payload, is, want));
    }
    json(value.get(), limits)
}

/// The payload among `fields`: `payload`, `text` or `base64`, at most one of them.
pub(super) fn read(
    fields: &Fields<'_>,
    limits: &PayloadLimits,
) -> Result<Option<Payload>, HubError> {
    // `"payload": null` is the JSON value null; for the other two null means absent.
    let given = [
        (Field::Payload, fields.json(Field::Payload)),
        (Field::Text, fields.raw(Field::Text)),
        (Field::Base64, fields.raw(Field::Base64)),
    ];
    let mut given = given.iter().filter_map(|(field, raw)| Some((*field, (*raw)?)));
    let Some((field, raw)) = given.next() else {
        return Ok(None);
    };
    if let Some((second, _)) = given.next() {
        let (one, two) = (field.name(), second.name());
        let message = format!("{one} and {two} are both given; give one of payload, text, base64");
        return Err(HubError::new(ErrorCode::FieldInvalid, message).at(two));
    }
    let payload = match field {
        Field::Text => text(raw, limits)?,
        Field::Base64 => binary(raw, limits)?,
        _ => json(raw, limits)?,
    };
    let content_type = content_type(fields)?;
    Ok(Some(payload.with_content_type(content_type.as_deref())))
}

/// The same where a message must have one.
pub(super) fn read_required(
    fields: &Fields<'_>,
    limits: &PayloadLimits,
) -> Result<Payload, HubError> {
    read(fields, limits)?.ok_or_else(|| {
        let message = "the payload is missing; give payload (any JSON), text (a string) or base64";
        HubError::new(ErrorCode::FieldMissing, message).at("payload")
    })
}

fn json(raw: &str, limits: &PayloadLimits) -> Result<Payload, HubError> {
    within(raw.len(), Field::Payload, limits)?;
    Ok(Payload::json(Text::from(raw)))
}

fn text(raw: &str, limits: &PayloadLimits) -> Result<Payload, HubError> {
    let text = string(Field::Text, raw)?;
    within(text.len(), Field::Text, limits)?;
    Ok(Payload::text(match text {
        Cow::Borrowed(text) => Text::from(text),
        Cow::Owned(text) => Text::from(text),
    }))
}

fn binary(raw: &str, limits: &PayloadLimits) -> Result<Payload, HubError> {
    let text = string(Field::Base64, raw)?;
    // Known before decoding: four characters make three bytes, less the padding.
    let padding = text.bytes().rev().take(2).filter(|b| *b == b'=').count();
    within((text.len() / 4 * 3).saturating_sub(padding), Field::Base64, limits)?;
    let data = STANDARD.decode(text.as_bytes()).map_err(|error| {
        let is = format!("not readable ({error})");
        invalid(Field::Base64, is, "base64 in the standard alphabet, padded with =")
    })?;
    Ok(Payload::binary(Bytes::from(data)))
}

fn within(bytes: usize, field: Field, limits: &PayloadLimits) -> Result<(), HubError> {
    let most = limits.payload_bytes;
    if bytes <= most {
        return Ok(());
    }
    let message = format!("the payload has {bytes} bytes (decoded); at most {most} are taken");
    Err(HubError::new(ErrorCode::PayloadTooLarge, message).at(field.name()))
}

fn content_type<'a>(fields: &Fields<'a>) -> Result<Option<Cow<'a, str>>, HubError> {
    let text = fields.short(Field::ContentType, MAX_CONTENT_TYPE_BYTES)?;
    let printable = |text: &str| text.bytes().all(|b| matches!(b, b' '..=b'~'));
    match text {
        Some(text) if !printable(&text) => {
            let is = "not printable ASCII";
            Err(invalid(Field::ContentType, is, "a media type such as application/xml"))
        }
        text => Ok(text),
    }
}

/// How deep valid JSON is nested, if deeper than `most`: the brackets open at once at most.
/// Counted without recursion.
pub(super) fn depth_over(json: &str, most: usize) -> Option<usize> {
    // Each level takes two bytes, so short values need no look.
    if json.len() / 2 <= most {
        return None;
    }
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    (deepest > most).then_some(deepest)
}
