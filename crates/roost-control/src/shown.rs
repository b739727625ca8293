//! Devices, sessions, presence events and nodes as callers see them. Commands and messages are shown
//! by `roost-proto`.

use roost_cluster::{
    DeviceRecord, Initiator, LastClose, NodeInfo, NodeRecord, PresenceEvent, PresenceKind,
    SessionInfo,
};
use roost_proto::control::v1;
use roost_proto::convert::timestamp_out;

/// A device as recorded.
pub(crate) fn device(record: &DeviceRecord) -> v1::Device {
    let session = record.session.as_ref().map(session);
    v1::Device {
        device_id: record.device.device.to_string(),
        presence: presence(session.is_some()).into(),
        session,
        last_seen_time: Some(timestamp_out(record.last_seen)),
        last_close: record.last_close.as_ref().map(last_close),
        pending_commands: record.pending,
    }
}

pub(crate) fn session(session: &SessionInfo) -> v1::Session {
    v1::Session {
        session_id: session.session.to_string(),
        node_id: session.node.id.to_string(),
        node_incarnation: session.node.incarnation,
        address: session.address.to_string(),
        protocol: session.protocol.to_string(),
        connect_time: Some(timestamp_out(session.connected_at)),
    }
}

pub(crate) fn event(event: &PresenceEvent) -> v1::DeviceEvent {
    v1::DeviceEvent {
        event_id: event.id.clone(),
        device_id: event.device.device.to_string(),
        r#type: kind(event.kind).into(),
        session_id: event.session.to_string(),
        node_id: event.node.to_string(),
        time: Some(timestamp_out(event.time)),
        close: event.close.as_ref().map(last_close),
    }
}

fn kind(kind: PresenceKind) -> v1::DeviceEventType {
    match kind {
        PresenceKind::Connected => v1::DeviceEventType::Connected,
        PresenceKind::Disconnected => v1::DeviceEventType::Disconnected,
        PresenceKind::TakenOver => v1::DeviceEventType::TakenOver,
        PresenceKind::Contested => v1::DeviceEventType::Contested,
    }
}

fn presence(online: bool) -> v1::Presence {
    if online { v1::Presence::Online } else { v1::Presence::Offline }
}

pub(crate) fn last_close(close: &LastClose) -> v1::LastClose {
    let initiator = match close.initiator {
        Initiator::Device => v1::CloseInitiator::Device,
        Initiator::Hub => v1::CloseInitiator::Hub,
        Initiator::Operator => v1::CloseInitiator::Operator,
    };
    v1::LastClose {
        code: close.code.into(),
        reason: close.reason.to_string(),
        initiator: initiator.into(),
        time: Some(timestamp_out(close.time)),
    }
}

pub(crate) fn node(record: &NodeRecord) -> v1::Node {
    let NodeInfo { node, roles, version, address, started, devices, draining } = &record.info;
    let edge = roles.edge.then_some(v1::NodeRole::Edge);
    let control = roles.control.then_some(v1::NodeRole::Control);
    let state = match (record.live, draining) {
        (false, _) => v1::NodeState::Lost,
        (true, true) => v1::NodeState::Draining,
        (true, false) => v1::NodeState::Ready,
    };
    v1::Node {
        node_id: node.id.to_string(),
        incarnation: node.incarnation,
        roles: edge.into_iter().chain(control).map(Into::into).collect(),
        version: version.clone(),
        address: address.clone(),
        start_time: Some(timestamp_out(*started)),
        last_heartbeat_time: Some(timestamp_out(record.last_heartbeat)),
        connected_devices: *devices,
        state: state.into(),
    }
}
