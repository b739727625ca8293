//! Between the hub's types and their protobuf: bodies in records, envelopes on channels.

use bytes::Bytes;
use prost::Message as _;
use roost_cluster::{NodeEvent, StoreError};
use roost_proto::internal::v1 as wire;
use roost_types::{
    Command, CommandId, CommandResult, CommandSpec, CommandState, DeviceId, DeviceKey, Headers,
    Message, NodeId, Origin, Payload, PayloadKind, Position, Progress, Qos, ResultStatus,
    SessionId, TenantId, Topic, Transition, UnixMillis,
};

use crate::error::corrupt;

/// The version of what is written on channels.
pub(crate) const VERSION: u8 = 1;

type Result<T> = std::result::Result<T, StoreError>;

// --- envelopes ---

/// The bytes of an envelope on a channel.
pub(crate) fn seal(incarnation: u64, kind: wire::node_envelope::Kind) -> Vec<u8> {
    let envelope = wire::NodeEnvelope { incarnation, kind: Some(kind) };
    let mut bytes = Vec::with_capacity(1 + envelope.encoded_len());
    bytes.push(VERSION);
    envelope.encode(&mut bytes).expect("a vector grows");
    bytes
}

/// Reads [`seal`]ed bytes; `Corrupt` for a version or a shape that is not ours.
pub(crate) fn open(bytes: Vec<u8>) -> Result<wire::NodeEnvelope> {
    match bytes.first() {
        Some(&VERSION) => {}
        Some(other) => return Err(corrupt(format!("an envelope of the unknown version {other}"))),
        None => return Err(corrupt("an empty envelope")),
    }
    wire::NodeEnvelope::decode(Bytes::from(bytes).slice(1..)).map_err(corrupt)
}

// --- parts ---

pub(crate) fn state_number(state: CommandState) -> u32 {
    CommandState::ALL
        .iter()
        .position(|one| *one == state)
        .and_then(|at| u32::try_from(at).ok())
        .expect("every state is among all")
}

pub(crate) fn state(number: u32) -> Result<CommandState> {
    usize::try_from(number)
        .ok()
        .and_then(|at| CommandState::ALL.get(at))
        .copied()
        .ok_or_else(|| corrupt(format!("{number} is no command state")))
}

fn device(key: &DeviceKey) -> wire::Device {
    wire::Device { tenant: key.tenant.to_string(), device: key.device.to_string() }
}

fn device_key(device: Option<wire::Device>) -> Result<DeviceKey> {
    let device = device.ok_or_else(|| corrupt("an envelope names no device"))?;
    let tenant = TenantId::new(device.tenant).map_err(corrupt)?;
    Ok(DeviceKey::new(tenant, DeviceId::new(device.device).map_err(corrupt)?))
}

fn session(bytes: &[u8]) -> Result<SessionId> {
    let bytes = bytes.try_into().map_err(|_| corrupt("a session id needs 16 bytes"))?;
    Ok(SessionId::from_bytes(bytes))
}

fn session_bytes(session: SessionId) -> Bytes {
    Bytes::copy_from_slice(session.as_bytes())
}

fn payload(payload: &Payload) -> wire::Payload {
    let kind = match payload.kind() {
        PayloadKind::Json => wire::payload::Kind::Json,
        PayloadKind::Text => wire::payload::Kind::Text,
        PayloadKind::Binary => wire::payload::Kind::Binary,
    };
    wire::Payload {
        kind: kind.into(),
        data: payload.data().clone(),
        content_type: payload.own_content_type().unwrap_or_default().to_owned(),
    }
}

fn read_payload(payload: wire::Payload) -> Result<Payload> {
    let kind = match payload.kind() {
        wire::payload::Kind::Json => PayloadKind::Json,
        wire::payload::Kind::Text => PayloadKind::Text,
        wire::payload::Kind::Binary => PayloadKind::Binary,
        wire::payload::Kind::Unspecified => return Err(corrupt("a payload without a kind")),
    };
    Payload::from_parts(kind, payload.data, Some(&payload.content_type))
        .ok_or_else(|| corrupt("a text payload is not UTF-8"))
}

fn headers(headers: &Headers) -> Vec<wire::Header> {
    let header = |(name, value): &(std::sync::Arc<str>, std::sync::Arc<str>)| wire::Header {
        name: name.to_string(),
        value: value.to_string(),
    };
    headers.iter().map(header).collect()
}

fn read_headers(headers: Vec<wire::Header>) -> Headers {
    headers.into_iter().map(|header| (header.name.into(), header.value.into())).collect()
}

// --- what stands in records ---

fn body(spec: &CommandSpec) -> wire::CommandBody {
    wire::CommandBody {
        name: spec.name.to_string(),
        payload: spec.payload.as_ref().map(payload),
        headers: headers(&spec.headers),
    }
}

/// The body of a command, for its record.
pub(crate) fn body_bytes(spec: &CommandSpec) -> Vec<u8> {
    body(spec).encode_to_vec()
}

pub(crate) fn read_body(bytes: Vec<u8>, id: CommandId, expires: UnixMillis) -> Result<CommandSpec> {
    let body = wire::CommandBody::decode(Bytes::from(bytes)).map_err(corrupt)?;
    spec(Some(body), id, expires)
}

fn spec(
    body: Option<wire::CommandBody>,
    id: CommandId,
    expires: UnixMillis,
) -> Result<CommandSpec> {
    let body = body.ok_or_else(|| corrupt("a command without a body"))?;
    Ok(CommandSpec {
        id,
        name: body.name.into(),
        payload: body.payload.map(read_payload).transpose()?,
        headers: read_headers(body.headers),
        expires,
    })
}

fn progress(progress: &Progress) -> wire::Progress {
    wire::Progress {
        percent: progress.percent.map(u32::from),
        note: progress.note.as_deref().map(str::to_owned),
        time_ms: progress.time.0,
    }
}

fn progress_of(progress: wire::Progress) -> Progress {
    Progress {
        percent: progress.percent.map(|percent| u8::try_from(percent).unwrap_or(100)),
        note: progress.note.map(Into::into),
        time: UnixMillis(progress.time_ms),
    }
}

pub(crate) fn progress_bytes(found: &Progress) -> Vec<u8> {
    progress(found).encode_to_vec()
}

pub(crate) fn read_progress(bytes: Vec<u8>) -> Result<Progress> {
    wire::Progress::decode(Bytes::from(bytes)).map(progress_of).map_err(corrupt)
}

fn result(result: &CommandResult) -> wire::Result {
    wire::Result {
        state: state_number(result.status.state()),
        payload: result.payload.as_ref().map(payload),
        error: result.error.as_deref().map(str::to_owned),
    }
}

fn result_of(result: wire::Result) -> Result<CommandResult> {
    let reached = state(result.state)?;
    let status = [ResultStatus::Succeeded, ResultStatus::Failed, ResultStatus::Rejected]
        .into_iter()
        .find(|status| status.state() == reached)
        .ok_or_else(|| corrupt(format!("{} is no result", reached.as_str())))?;
    Ok(CommandResult {
        status,
        payload: result.payload.map(read_payload).transpose()?,
        error: result.error.map(Into::into),
    })
}

pub(crate) fn result_bytes(found: &CommandResult) -> Vec<u8> {
    result(found).encode_to_vec()
}

pub(crate) fn read_result(bytes: Vec<u8>) -> Result<CommandResult> {
    wire::Result::decode(Bytes::from(bytes)).map_err(corrupt).and_then(result_of)
}

// --- commands and messages in full ---

fn command(command: &Command) -> wire::Command {
    let step =
        |step: &Transition| wire::Step { state: state_number(step.state), time_ms: step.time.0 };
    wire::Command {
        device: Some(device(&command.device)),
        id: command.spec.id.to_string(),
        body: Some(body(&command.spec)),
        expires_ms: command.spec.expires.0,
        seq: command.seq,
        state: state_number(command.state),
        attempt: command.attempt,
        session: command.session.map(session_bytes).unwrap_or_default(),
        created_ms: command.created.0,
        steps: command.transitions.iter().map(step).collect(),
        progress: command.progress.as_ref().map(progress),
        result: command.result.as_ref().map(result),
    }
}

fn read_command(command: Option<wire::Command>) -> Result<Box<Command>> {
    let command = command.ok_or_else(|| corrupt("an envelope without its command"))?;
    let step = |step: wire::Step| {
        Ok(Transition { state: state(step.state)?, time: UnixMillis(step.time_ms) })
    };
    let id = CommandId::new(command.id).map_err(corrupt)?;
    let handed_to = (!command.session.is_empty()).then(|| session(&command.session));
    Ok(Box::new(Command {
        device: device_key(command.device)?,
        spec: spec(command.body, id, UnixMillis(command.expires_ms))?,
        seq: command.seq,
        state: state(command.state)?,
        attempt: command.attempt,
        session: handed_to.transpose()?,
        created: UnixMillis(command.created_ms),
        transitions: command.steps.into_iter().map(step).collect::<Result<_>>()?,
        progress: command.progress.map(progress_of),
        result: command.result.map(result_of).transpose()?,
    }))
}

pub(crate) fn publication(
    tenant: &TenantId,
    message: &Message,
    also: Vec<String>,
) -> wire::Publication {
    let from = match &message.from {
        Origin::Device(device) => wire::publication::From::Device(device.to_string()),
        Origin::Service(name) => wire::publication::From::Service(name.to_string()),
    };
    wire::Publication {
        tenant: tenant.to_string(),
        topic: message.topic.to_string(),
        payload: Some(payload(&message.payload)),
        headers: headers(&message.headers),
        qos: u32::from(message.qos == Qos::AtLeastOnce),
        time_ms: message.time.0,
        from: Some(from),
        position: message.position.as_ref().map(|position| position.as_str().to_owned()),
        also,
    }
}

pub(crate) fn read_publication(found: wire::Publication) -> Result<(TenantId, Message)> {
    let from = match found.from {
        Some(wire::publication::From::Device(id)) => {
            Origin::Device(DeviceId::new(id).map_err(corrupt)?)
        }
        Some(wire::publication::From::Service(name)) => Origin::Service(name.into()),
        None => return Err(corrupt("a publication from nobody")),
    };
    let payload = found.payload.ok_or_else(|| corrupt("a publication without a payload"))?;
    let message = Message {
        topic: Topic::new(&found.topic).map_err(corrupt)?,
        payload: read_payload(payload)?,
        headers: read_headers(found.headers),
        qos: if found.qos == 0 { Qos::BestEffort } else { Qos::AtLeastOnce },
        time: UnixMillis(found.time_ms),
        from,
        position: found.position.as_deref().and_then(Position::parse),
    };
    Ok((TenantId::new(found.tenant).map_err(corrupt)?, message))
}

// --- events ---

pub(crate) fn event(event: &NodeEvent) -> wire::node_envelope::Kind {
    use wire::node_envelope::Kind;
    match event {
        NodeEvent::Deliver { session, command: found, prev } => Kind::Deliver(wire::Deliver {
            session: session_bytes(*session),
            command: Some(command(found)),
            prev: *prev,
        }),
        NodeEvent::Drain { device: key, session } => {
            Kind::Drain(wire::Drain { device: Some(device(key)), session: session_bytes(*session) })
        }
        NodeEvent::Cancel { device: key, session, command } => Kind::Cancel(wire::Cancel {
            device: Some(device(key)),
            session: session_bytes(*session),
            command_id: command.to_string(),
        }),
        NodeEvent::Replaced { device: key, session, by } => Kind::Replaced(wire::Replaced {
            device: Some(device(key)),
            session: session_bytes(*session),
            by: by.to_string(),
        }),
        NodeEvent::ReplacedDone { session } => {
            Kind::ReplacedDone(wire::ReplacedDone { session: session_bytes(*session) })
        }
        NodeEvent::Disconnect { device: key, session, reason } => {
            Kind::Disconnect(wire::Disconnect {
                device: Some(device(key)),
                session: session_bytes(*session),
                reason: reason.to_string(),
            })
        }
        NodeEvent::CommandUpdate(found) => Kind::CommandUpdate(command(found)),
    }
}

/// An event out of an envelope; `None` for kinds that are not events.
pub(crate) fn read_event(kind: wire::node_envelope::Kind) -> Result<Option<NodeEvent>> {
    use wire::node_envelope::Kind;
    Ok(Some(match kind {
        Kind::Deliver(found) => NodeEvent::Deliver {
            session: session(&found.session)?,
            command: read_command(found.command)?,
            prev: found.prev,
        },
        Kind::Drain(found) => NodeEvent::Drain {
            device: device_key(found.device)?,
            session: session(&found.session)?,
        },
        Kind::Cancel(found) => NodeEvent::Cancel {
            device: device_key(found.device)?,
            session: session(&found.session)?,
            command: CommandId::new(found.command_id).map_err(corrupt)?,
        },
        Kind::Replaced(found) => NodeEvent::Replaced {
            device: device_key(found.device)?,
            session: session(&found.session)?,
            by: NodeId::new(found.by).map_err(corrupt)?,
        },
        Kind::ReplacedDone(found) => NodeEvent::ReplacedDone { session: session(&found.session)? },
        Kind::Disconnect(found) => NodeEvent::Disconnect {
            device: device_key(found.device)?,
            session: session(&found.session)?,
            reason: found.reason.into(),
        },
        Kind::CommandUpdate(found) => NodeEvent::CommandUpdate(read_command(Some(found))?),
        Kind::Publication(_) | Kind::FilterChange(_) | Kind::FilterAck(_) => return Ok(None),
    }))
}
