//! Between the hub's types and their protobuf: bodies in records, envelopes on channels.

use bytes::Bytes;
use prost::Message as _;
use roost_cluster::StoreError;
use roost_proto::internal::v1 as wire;
use roost_types::{
    CommandId, CommandResult, CommandSpec, CommandState, DeviceId, DeviceKey, Headers, LateResult,
    Payload, PayloadKind, Progress, ResultStatus, SessionId, TenantId, TraceContext, UnixMillis,
};

use crate::error::corrupt;

type Result<T> = std::result::Result<T, StoreError>;

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

pub(crate) fn device(key: &DeviceKey) -> wire::Device {
    wire::Device { tenant: key.tenant.to_string(), device: key.device.to_string() }
}

pub(crate) fn device_key(device: Option<wire::Device>) -> Result<DeviceKey> {
    let device = device.ok_or_else(|| corrupt("an envelope names no device"))?;
    let tenant = TenantId::new(device.tenant).map_err(corrupt)?;
    Ok(DeviceKey::new(tenant, DeviceId::new(device.device).map_err(corrupt)?))
}

pub(crate) fn session(bytes: &[u8]) -> Result<SessionId> {
    let bytes = bytes.try_into().map_err(|_| corrupt("a session id needs 16 bytes"))?;
    Ok(SessionId::from_bytes(bytes))
}

pub(crate) fn session_bytes(session: SessionId) -> Bytes {
    Bytes::copy_from_slice(session.as_bytes())
}

pub(crate) fn payload(payload: &Payload) -> wire::Payload {
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

pub(crate) fn read_payload(payload: wire::Payload) -> Result<Payload> {
    let kind = match payload.kind() {
        wire::payload::Kind::Json => PayloadKind::Json,
        wire::payload::Kind::Text => PayloadKind::Text,
        wire::payload::Kind::Binary => PayloadKind::Binary,
        wire::payload::Kind::Unspecified => return Err(corrupt("a payload without a kind")),
    };
    Payload::from_parts(kind, payload.data, Some(&payload.content_type))
        .ok_or_else(|| corrupt("a text payload is not UTF-8"))
}

pub(crate) fn headers(headers: &Headers) -> Vec<wire::Header> {
    let header = |(name, value): &(std::sync::Arc<str>, std::sync::Arc<str>)| wire::Header {
        name: name.to_string(),
        value: value.to_string(),
    };
    headers.iter().map(header).collect()
}

pub(crate) fn read_headers(headers: Vec<wire::Header>) -> Headers {
    headers.into_iter().map(|header| (header.name.into(), header.value.into())).collect()
}

// --- what stands in records ---

pub(crate) fn body(spec: &CommandSpec) -> wire::CommandBody {
    wire::CommandBody {
        name: spec.name.to_string(),
        payload: spec.payload.as_ref().map(payload),
        headers: headers(&spec.headers),
        ordering_key: spec.ordering_key.as_deref().map(str::to_owned),
        max_attempts: spec.max_attempts,
        trace: spec.trace.map(|trace| trace.to_bytes().to_vec().into()).unwrap_or_default(),
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

pub(crate) fn spec(
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
        ordering_key: body.ordering_key.map(Into::into),
        max_attempts: body.max_attempts,
        expires,
        // What is none is no reason to lose a command.
        trace: TraceContext::from_bytes(&body.trace),
    })
}

pub(crate) fn progress(progress: &Progress) -> wire::Progress {
    wire::Progress {
        percent: progress.percent.map(u32::from),
        note: progress.note.as_deref().map(str::to_owned),
        time_ms: progress.time.0,
    }
}

pub(crate) fn progress_of(progress: wire::Progress) -> Progress {
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

pub(crate) fn result(result: &CommandResult) -> wire::Result {
    wire::Result {
        state: state_number(result.status.state()),
        payload: result.payload.as_ref().map(payload),
        error: result.error.as_deref().map(str::to_owned),
        payload_dropped: result.payload_dropped,
    }
}

pub(crate) fn result_of(result: wire::Result) -> Result<CommandResult> {
    let reached = state(result.state)?;
    let status = [ResultStatus::Succeeded, ResultStatus::Failed, ResultStatus::Rejected]
        .into_iter()
        .find(|status| status.state() == reached)
        .ok_or_else(|| corrupt(format!("{} is no result", reached.as_str())))?;
    Ok(CommandResult {
        status,
        payload: result.payload.map(read_payload).transpose()?,
        error: result.error.map(Into::into),
        payload_dropped: result.payload_dropped,
    })
}

pub(crate) fn late(late: &LateResult) -> wire::LateResult {
    wire::LateResult { result: Some(result(&late.result)), time_ms: late.time.0, count: late.count }
}

pub(crate) fn late_of(late: wire::LateResult) -> Result<LateResult> {
    let result = late.result.ok_or_else(|| corrupt("a late result without a result"))?;
    Ok(LateResult { result: result_of(result)?, time: UnixMillis(late.time_ms), count: late.count })
}

pub(crate) fn read_result(bytes: Vec<u8>) -> Result<CommandResult> {
    wire::Result::decode(Bytes::from(bytes)).map_err(corrupt).and_then(result_of)
}
