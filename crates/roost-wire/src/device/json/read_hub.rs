//! Which fields the hub's messages have, read by clients.
//!
//! Strict as towards a device, so that tests of the hub catch what it writes wrongly; the
//! device's messages are in `read_device.rs`.

use std::sync::Arc;

use roost_types::{DeviceId, HubError, Message, Origin, SessionId};

use super::fields::{Field, Fields};
use super::read_device::{kind, unknown_type};
use super::value::{invalid, required, shown};
use super::{headers, payload};
use crate::device::{PayloadLimits, ToDevice, WelcomeLimits};

/// What `type` may be, for errors.
const TYPES: &str = "welcome, ack, message, command, cancel, error, gap, goaway or pong";

/// Makes a message of the fields of one object.
pub(super) fn read(fields: &Fields<'_>, limits: &PayloadLimits) -> Result<ToDevice, HubError> {
    let kind = kind(fields, TYPES)?;
    Ok(match &*kind {
        "welcome" => welcome(fields, limits)?,
        "ack" => ToDevice::Ack {
            id: fields.u32(Field::Id)?,
            command_id: fields.optional_command_id()?,
            position: fields.position(Field::Position)?,
        },
        "message" => ToDevice::Message(message(fields, limits)?),
        "command" => command(fields, limits)?,
        "cancel" => ToDevice::Cancel { command_id: fields.command_id()? },
        "error" => error(fields)?,
        "gap" => ToDevice::Gap {
            topic: fields.filter()?,
            from: fields.position(Field::From)?,
            to: fields.position(Field::To)?,
        },
        "goaway" => ToDevice::Goaway {
            reason: text(fields, Field::Reason)?.into(),
            retry_after_ms: fields.integer(Field::RetryAfterMs, 0..=u64::MAX)?,
        },
        "pong" => {
            ToDevice::Pong { id: fields.u32(Field::Id)?, time_ms: fields.time(Field::TimeMs)? }
        }
        unknown => return Err(unknown_type(unknown, TYPES)),
    })
}

fn text(fields: &Fields<'_>, field: Field) -> Result<String, HubError> {
    required(field, fields.string(field)?).map(std::borrow::Cow::into_owned)
}

fn welcome(fields: &Fields<'_>, limits: &PayloadLimits) -> Result<ToDevice, HubError> {
    let device_id = text(fields, Field::DeviceId)?;
    let session_id = text(fields, Field::SessionId)?;
    let nested = required(Field::Limits, fields.raw(Field::Limits))?;
    let inner = Fields::of(nested, limits.depth)
        .ok_or_else(|| invalid(Field::Limits, shown(nested), "an object"))?;
    inner.check()?;
    let size = |field| required(field, inner.integer(field, 0..=u64::MAX)?);
    Ok(ToDevice::Welcome {
        device_id: DeviceId::new(device_id).map_err(|e| HubError::from(e).at("device_id"))?,
        session_id: session_id
            .parse::<SessionId>()
            .map_err(|e| HubError::from(e).at("session_id"))?,
        time_ms: fields.time(Field::TimeMs)?,
        keepalive_ms: required(Field::KeepaliveMs, fields.u32(Field::KeepaliveMs)?)?,
        limits: WelcomeLimits {
            payload_bytes: size(Field::PayloadBytes)?,
            frame_bytes: size(Field::FrameBytes)?,
        },
    })
}

fn message(fields: &Fields<'_>, limits: &PayloadLimits) -> Result<Message, HubError> {
    Ok(Message {
        topic: fields.topic()?,
        payload: payload::read_required(fields, limits)?,
        headers: headers::read(fields)?,
        qos: fields.qos()?,
        time: fields.time(Field::TimeMs)?,
        from: origin(&text(fields, Field::From)?)?,
        position: fields.position(Field::Position)?,
    })
}

fn origin(text: &str) -> Result<Origin, HubError> {
    match text.split_once(':') {
        Some(("device", id)) => {
            DeviceId::new(id).map(Origin::Device).map_err(|e| HubError::from(e).at("from"))
        }
        Some(("service", name)) => Ok(Origin::Service(name.into())),
        _ => Err(invalid(Field::From, "neither", "device:ID or service:NAME")),
    }
}

fn command(fields: &Fields<'_>, limits: &PayloadLimits) -> Result<ToDevice, HubError> {
    let remaining = fields.integer(Field::ExpiresInMs, 0..=u64::MAX)?;
    Ok(ToDevice::Command {
        command_id: fields.command_id()?,
        name: Arc::from(text(fields, Field::Name)?),
        payload: payload::read(fields, limits)?,
        headers: headers::read(fields)?,
        expires_ms: fields.time(Field::ExpiresMs)?,
        expires_in_ms: required(Field::ExpiresInMs, remaining)?,
        attempt: required(Field::Attempt, fields.u32(Field::Attempt)?)?,
    })
}

fn error(fields: &Fields<'_>) -> Result<ToDevice, HubError> {
    Ok(ToDevice::Error {
        id: fields.u32(Field::Id)?,
        command_id: fields.optional_command_id()?,
        code: text(fields, Field::Code)?.into(),
        message: text(fields, Field::Message)?.into(),
        field: fields.string(Field::Where)?.map(|field| field.into_owned().into()),
        retryable: fields.boolean(Field::Retryable)?.unwrap_or(false),
    })
}
