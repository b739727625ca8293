//! Which fields the messages of a device have, and what they must be.
//!
//! How a field is read is in `fields.rs`; the hub's messages are in `read_hub.rs`.

use std::borrow::Cow;
use std::sync::Arc;

use roost_types::{ErrorCode, HubError, ResultStatus, TraceContext};

use super::fields::{Field, Fields};
use super::value::{invalid, required, shown, string};
use super::{MAX_ERROR_BYTES, MAX_NOTE_BYTES, headers, payload};
use crate::device::{FromDevice, HelloSubscription, PayloadLimits, Token};

/// What `type` may be, for errors.
const TYPES: &str = "hello, subscribe, unsubscribe, publish, received, progress, result or ping";
/// The most entries of `features`; each is as short as an id.
const MAX_FEATURES: usize = 64;
const MAX_FEATURE_BYTES: usize = 128;

/// Makes a message of the fields of one object.
pub(super) fn read(fields: &Fields<'_>, limits: &PayloadLimits) -> Result<FromDevice, HubError> {
    let kind = kind(fields, TYPES)?;
    let id = fields.u32(Field::Id)?;
    Ok(match &*kind {
        "hello" => hello(id, fields, limits)?,
        "subscribe" => FromDevice::Subscribe {
            id,
            topic: fields.filter()?,
            qos: fields.qos()?,
            position: fields.position(Field::Position)?,
        },
        "unsubscribe" => FromDevice::Unsubscribe { id, topic: fields.filter()? },
        "publish" => FromDevice::Publish {
            id,
            topic: fields.topic()?,
            qos: fields.qos()?,
            headers: headers::read(fields)?,
            payload: payload::read_required(fields, limits)?,
        },
        "received" => FromDevice::Received { id, command_id: fields.command_id()? },
        "progress" => progress(id, fields)?,
        "result" => result(id, fields, limits)?,
        "ping" => FromDevice::Ping { id },
        unknown => return Err(unknown_type(unknown, TYPES)),
    })
}

/// `type`, a string that every message has.
pub(super) fn kind<'a>(fields: &Fields<'a>, types: &str) -> Result<Cow<'a, str>, HubError> {
    fields.string(Field::Type)?.ok_or_else(|| {
        let message = format!("type is missing; it must be {types}");
        HubError::new(ErrorCode::FieldMissing, message).at("type")
    })
}

/// The error for a `type` that is none of `types`.
pub(super) fn unknown_type(unknown: &str, types: &str) -> HubError {
    let start: String = unknown.chars().take(40).collect();
    let message = format!("the type {start:?} is not known; it must be {types}");
    HubError::new(ErrorCode::UnknownType, message).at("type")
}

fn hello(
    id: Option<u32>,
    fields: &Fields<'_>,
    limits: &PayloadLimits,
) -> Result<FromDevice, HubError> {
    let mut subscriptions = Vec::new();
    for (index, raw) in fields.array(Field::Subscriptions)?.into_iter().enumerate() {
        let subscription = subscription(raw, limits)
            .map_err(|error| within(error, format_args!("subscriptions[{index}]")))?;
        subscriptions.push(subscription);
    }
    Ok(FromDevice::Hello {
        id,
        keepalive_ms: fields.u32(Field::KeepaliveMs)?,
        token: fields.string(Field::Token)?.map(|token| Token(token.into_owned())),
        subscriptions,
        features: features(fields)?,
    })
}

fn subscription(raw: &str, limits: &PayloadLimits) -> Result<HelloSubscription, HubError> {
    let fields = Fields::of(raw, limits.depth).ok_or_else(|| {
        let message =
            format!("a subscription is {}; it must be an object with a topic", shown(raw));
        HubError::new(ErrorCode::FieldInvalid, message)
    })?;
    fields.check()?;
    Ok(HelloSubscription {
        topic: fields.filter()?,
        qos: fields.qos()?,
        position: fields.position(Field::Position)?,
    })
}

/// The error of something inside, with the path to it.
fn within(mut error: HubError, path: std::fmt::Arguments<'_>) -> HubError {
    error.field = Some(match error.field {
        Some(field) => format!("{path}.{field}").into(),
        None => path.to_string().into(),
    });
    error
}

fn features(fields: &Fields<'_>) -> Result<Vec<String>, HubError> {
    let elements = fields.array(Field::Features)?;
    let bounded = |text: &str| text.len() <= MAX_FEATURE_BYTES;
    let features: Option<Vec<String>> = elements
        .iter()
        .map(|raw| string(Field::Features, raw).ok().filter(|text| bounded(text)))
        .map(|text| text.map(Cow::into_owned))
        .collect();
    features.filter(|features| features.len() <= MAX_FEATURES).ok_or_else(|| {
        let is = match elements.len() {
            0..=MAX_FEATURES => "an array with something else in it".to_owned(),
            many => format!("an array of {many} values"),
        };
        let want = format!(
            "an array of at most {MAX_FEATURES} strings of at most {MAX_FEATURE_BYTES} bytes"
        );
        invalid(Field::Features, is, want)
    })
}

fn progress(id: Option<u32>, fields: &Fields<'_>) -> Result<FromDevice, HubError> {
    let percent = fields.integer(Field::Percent, 0..=100)?;
    Ok(FromDevice::Progress {
        id,
        command_id: fields.command_id()?,
        percent: percent.and_then(|percent| u8::try_from(percent).ok()),
        note: fields.short(Field::Note, MAX_NOTE_BYTES)?.map(Arc::from),
    })
}

fn result(
    id: Option<u32>,
    fields: &Fields<'_>,
    limits: &PayloadLimits,
) -> Result<FromDevice, HubError> {
    let command_id = fields.command_id()?;
    let status = required(Field::Status, fields.raw(Field::Status))?;
    let status = match &*string(Field::Status, status)? {
        "succeeded" => ResultStatus::Succeeded,
        "failed" => ResultStatus::Failed,
        "rejected" => ResultStatus::Rejected,
        _ => {
            let want = "\"succeeded\", \"failed\" or \"rejected\"";
            return Err(invalid(Field::Status, shown(status), want));
        }
    };
    Ok(FromDevice::Result {
        id,
        command_id,
        status,
        payload: payload::read(fields, limits)?,
        error: fields.short(Field::Error, MAX_ERROR_BYTES)?.map(Arc::from),
        // What is none is to be ignored, says W3C: a trace is no reason to lose a result.
        trace: fields.string(Field::Traceparent)?.and_then(|text| TraceContext::parse(&text)),
    })
}
