//! What nodes write on channels: envelopes, and the events and publications in them. The parts that also
//! stand in records are in `codec.rs`.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use roost_cluster::{NodeEvent, StoreError};
use roost_proto::internal::v1 as wire;
use roost_types::{
    Command, CommandId, DeviceId, Message, NodeId, Origin, Position, Qos, TenantId, Topic,
    Transition, UnixMillis,
};

use crate::codec::{
    body, device, device_key, headers, late, late_of, payload, progress, progress_of, read_headers,
    read_payload, result, result_of, session, session_bytes, spec, state, state_number,
};
use crate::error::corrupt;
use crate::store::millis;

/// The version of what is written on channels.
pub(crate) const VERSION: u8 = 1;

type Result<T> = std::result::Result<T, StoreError>;

/// The bytes of an envelope on a channel.
pub(crate) fn seal(incarnation: u64, kind: wire::node_envelope::Kind) -> Vec<u8> {
    let envelope = wire::NodeEnvelope { incarnation, kind: Some(kind) };
    let mut bytes = Vec::with_capacity(1 + envelope.encoded_len());
    bytes.push(VERSION);
    envelope.encode(&mut bytes).expect("a vector grows");
    bytes
}

/// Reads [`seal`]ed bytes; `Corrupt` for a version or a shape that is not ours.
pub(crate) fn open(bytes: &Bytes) -> Result<wire::NodeEnvelope> {
    match bytes.first() {
        Some(&VERSION) => {}
        Some(other) => return Err(corrupt(format!("an envelope of the unknown version {other}"))),
        None => return Err(corrupt("an empty envelope")),
    }
    wire::NodeEnvelope::decode(bytes.slice(1..)).map_err(corrupt)
}

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
        revision: command.revision,
        late: command.late.as_ref().map(late),
        redriven_as: command.redriven_as.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

fn read_command(command: Option<wire::Command>) -> Result<Box<Command>> {
    let command = command.ok_or_else(|| corrupt("an envelope without its command"))?;
    let step = |step: wire::Step| {
        Ok(Transition { state: state(step.state)?, time: UnixMillis(step.time_ms) })
    };
    let id = CommandId::new(command.id).map_err(corrupt)?;
    let successor = (!command.redriven_as.is_empty()).then(|| CommandId::new(command.redriven_as));
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
        revision: command.revision,
        late: command.late.map(late_of).transpose()?,
        redriven_as: successor.transpose().map_err(corrupt)?,
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
        NodeEvent::DrainNode { over } => {
            Kind::DrainNode(wire::DrainNode { over_ms: millis(*over) })
        }
        NodeEvent::UndrainNode => Kind::UndrainNode(wire::UndrainNode {}),
        NodeEvent::Rebalance { surplus, over } => {
            Kind::Rebalance(wire::Rebalance { surplus: *surplus, over_ms: millis(*over) })
        }
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
        Kind::DrainNode(found) => {
            NodeEvent::DrainNode { over: Duration::from_millis(found.over_ms) }
        }
        Kind::UndrainNode(_) => NodeEvent::UndrainNode,
        Kind::Rebalance(found) => NodeEvent::Rebalance {
            surplus: found.surplus,
            over: Duration::from_millis(found.over_ms),
        },
        Kind::Publication(_) | Kind::FilterChange(_) | Kind::FilterAck(_) => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use roost_types::{
        CommandResult, CommandSpec, CommandState, DeviceKey, LateResult, Payload, Progress,
        ResultStatus, SessionId,
    };

    #[test]
    fn the_wire_format_is_pinned() {
        let done = NodeEvent::ReplacedDone { session: SessionId::from_bytes([0xab; 16]) };
        let bytes = seal(7, event(&done));
        let head = [0x01, 0x08, 0x07, 0x32, 0x12, 0x0a, 0x10];
        assert_eq!(bytes, [&head[..], &[0xab; 16]].concat());
        let device = DeviceKey::new(TenantId::default(), DeviceId::new("d").unwrap());
        let drain = NodeEvent::Drain { device, session: SessionId::from_bytes([1; 16]) };
        let envelope = open(&seal(0, event(&drain)).into()).unwrap();
        assert_eq!(envelope.incarnation, 0);
        assert_eq!(read_event(envelope.kind.unwrap()).unwrap(), Some(drain));
    }

    #[test]
    fn a_command_passes_with_all_that_is_known_of_it() {
        let result = CommandResult {
            payload: Some(Payload::text("x".into())),
            error: Some("jammed".into()),
            payload_dropped: true,
            ..CommandResult::new(ResultStatus::Failed)
        };
        let id = CommandId::new("c1").unwrap();
        let whole = Command {
            device: DeviceKey::new(TenantId::default(), DeviceId::new("d").unwrap()),
            spec: CommandSpec {
                ordering_key: Some("valve-3".into()),
                max_attempts: 3,
                headers: vec![("a".into(), "b".into())],
                ..CommandSpec::new(id.clone(), "go", UnixMillis(9))
            },
            seq: 7,
            state: CommandState::Dead,
            attempt: 3,
            session: Some(SessionId::from_bytes([1; 16])),
            created: UnixMillis(1),
            transitions: vec![Transition { state: CommandState::Queued, time: UnixMillis(1) }],
            progress: Some(Progress { percent: Some(1), note: None, time: UnixMillis(2) }),
            late: Some(LateResult { result: result.clone(), time: UnixMillis(3), count: 2 }),
            result: Some(result),
            redriven_as: Some(CommandId::new("c1~2").unwrap()),
            revision: 12,
        };
        let plain = Command { late: None, redriven_as: None, result: None, ..whole.clone() };
        for command in [whole, plain] {
            let update = NodeEvent::CommandUpdate(Box::new(command));
            assert_eq!(read_event(event(&update)).unwrap(), Some(update));
        }
    }

    #[test]
    fn foreign_words_are_refused_and_never_panic() {
        let good = seal(7, event(&NodeEvent::ReplacedDone { session: SessionId::random() }));
        let mut newer = good.clone();
        newer[0] = 2;
        for bad in [vec![], vec![0], newer, good[..5].to_vec()] {
            assert!(matches!(open(&bad.clone().into()), Err(StoreError::Corrupt(_))), "{bad:?}");
        }
        let short = wire::ReplacedDone { session: vec![1; 15].into() };
        let short = wire::node_envelope::Kind::ReplacedDone(short);
        assert!(matches!(read_event(short), Err(StoreError::Corrupt(_))));
        let nobody = wire::Publication::default();
        assert!(matches!(read_publication(nobody), Err(StoreError::Corrupt(_))));
    }
}
