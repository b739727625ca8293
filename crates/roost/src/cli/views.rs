//! The hub's answers as JSON for machines: one shape per thing, the same in every command. Names are
//! those of the protos, times RFC 3339, a payload as devices see it (`payload`, `text` or `base64`).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use roost_proto::control::v1 as pb;
use roost_proto::control::v1::payload::Body;
use serde::Serialize;
use serde_json::value::RawValue;

/// A payload, in whichever field fits it.
#[derive(Debug, Default, Serialize)]
pub(super) struct PayloadView {
    /// JSON, byte for byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct CommandView {
    device_id: String,
    command_id: String,
    name: String,
    state: &'static str,
    #[serde(flatten)]
    payload: PayloadView,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    attempt: u32,
    create_time: String,
    update_time: String,
    expire_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<ProgressView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<ResultView>,
    transitions: Vec<TransitionView>,
    #[serde(skip_serializing_if = "String::is_empty")]
    session_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    ordering_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    late_result: Option<LateResultView>,
    #[serde(skip_serializing_if = "String::is_empty")]
    redriven_as: String,
}

#[derive(Debug, Serialize)]
struct LateResultView {
    #[serde(flatten)]
    result: ResultView,
    time: String,
    count: u32,
}

#[derive(Debug, Serialize)]
struct ProgressView {
    percent: Option<u32>,
    note: String,
    time: String,
}

#[derive(Debug, Serialize)]
struct ResultView {
    status: &'static str,
    #[serde(flatten)]
    payload: PayloadView,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    payload_dropped: bool,
}

#[derive(Debug, Serialize)]
struct TransitionView {
    state: &'static str,
    time: String,
}

#[derive(Debug, Serialize)]
pub(super) struct DeviceView {
    device_id: String,
    presence: &'static str,
    session: Option<SessionView>,
    last_seen_time: String,
    last_close: Option<LastCloseView>,
    pending_commands: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct SessionView {
    session_id: String,
    node_id: String,
    node_incarnation: u64,
    address: String,
    protocol: String,
    connect_time: String,
}

#[derive(Debug, Serialize)]
pub(super) struct LastCloseView {
    code: u32,
    reason: String,
    initiator: &'static str,
    time: String,
}

#[derive(Debug, Serialize)]
pub(super) struct NodeView {
    node_id: String,
    roles: Vec<&'static str>,
    state: &'static str,
    address: String,
    version: String,
    connected_devices: u64,
    start_time: String,
    last_heartbeat_time: String,
    incarnation: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct MessageView {
    topic: String,
    from: String,
    #[serde(flatten)]
    payload: PayloadView,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    time: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    position: String,
}

/// A time as RFC 3339; empty where there is none.
pub(super) fn time(time: Option<&impl ToString>) -> String {
    time.map(ToString::to_string).unwrap_or_default()
}

/// `QUEUED`.
pub(super) fn state(state: i32) -> &'static str {
    let state = pb::CommandState::try_from(state).unwrap_or_default();
    state.as_str_name().trim_start_matches("COMMAND_STATE_")
}

/// Whether a command in this state has ended.
pub(super) fn is_terminal(state: i32) -> bool {
    state >= i32::from(pb::CommandState::Succeeded)
}

/// `SUCCEEDED`.
pub(super) fn result_status(status: i32) -> &'static str {
    let status = pb::CommandResultStatus::try_from(status).unwrap_or_default();
    status.as_str_name().trim_start_matches("COMMAND_RESULT_STATUS_")
}

/// `ONLINE`.
pub(super) fn presence(presence: i32) -> &'static str {
    let presence = pb::Presence::try_from(presence).unwrap_or_default();
    presence.as_str_name().trim_start_matches("PRESENCE_")
}

/// `DEVICE`, `HUB`, `OPERATOR`.
pub(super) fn initiator(initiator: i32) -> &'static str {
    let initiator = pb::CloseInitiator::try_from(initiator).unwrap_or_default();
    initiator.as_str_name().trim_start_matches("CLOSE_INITIATOR_")
}

fn role(role: i32) -> &'static str {
    let role = pb::NodeRole::try_from(role).unwrap_or_default();
    role.as_str_name().trim_start_matches("NODE_ROLE_")
}

pub(super) fn payload(payload: Option<pb::Payload>) -> PayloadView {
    let Some(payload) = payload else {
        return PayloadView::default();
    };
    let mut view = PayloadView::default();
    let usual = match payload.body {
        Some(Body::Json(text)) => {
            // What the hub hands out as JSON is JSON; else it is shown as the text that it is.
            match RawValue::from_string(text.trim().to_owned()) {
                Ok(raw) => view.payload = Some(raw),
                Err(_) => view.text = Some(text),
            }
            "application/json"
        }
        Some(Body::Text(text)) => {
            view.text = Some(text);
            "text/plain; charset=utf-8"
        }
        Some(Body::Binary(bytes)) => {
            view.base64 = Some(STANDARD.encode(bytes));
            "application/octet-stream"
        }
        None => "",
    };
    let own = !payload.content_type.is_empty() && payload.content_type != usual;
    view.content_type = own.then_some(payload.content_type);
    view
}

// === impl From … ===

impl From<pb::Command> for CommandView {
    fn from(command: pb::Command) -> Self {
        let transition = |step: &pb::CommandTransition| TransitionView {
            state: state(step.state),
            time: time(step.time.as_ref()),
        };
        Self {
            state: state(command.state),
            create_time: time(command.create_time.as_ref()),
            update_time: time(command.update_time.as_ref()),
            expire_time: time(command.expire_time.as_ref()),
            transitions: command.transitions.iter().map(transition).collect(),
            progress: command.progress.map(|progress| ProgressView {
                percent: progress.percent,
                time: time(progress.time.as_ref()),
                note: progress.note,
            }),
            result: command.result.map(Into::into),
            late_result: command.late_result.map(|late| {
                let result = late.result.unwrap_or_default();
                let time = time(result.time.as_ref());
                LateResultView { time, result: result.into(), count: late.count }
            }),
            max_attempts: Some(command.max_attempts).filter(|most| *most > 0),
            ordering_key: command.ordering_key,
            redriven_as: command.redriven_as,
            payload: payload(command.payload),
            headers: command.headers.into_iter().collect(),
            device_id: command.device_id,
            command_id: command.command_id,
            name: command.name,
            attempt: command.attempt,
            session_id: command.session_id,
        }
    }
}

impl From<pb::CommandResult> for ResultView {
    fn from(result: pb::CommandResult) -> Self {
        Self {
            status: result_status(result.status),
            payload: payload(result.payload),
            error: result.error_message,
            payload_dropped: result.payload_dropped,
        }
    }
}

impl From<pb::Session> for SessionView {
    fn from(session: pb::Session) -> Self {
        Self {
            connect_time: time(session.connect_time.as_ref()),
            session_id: session.session_id,
            node_id: session.node_id,
            node_incarnation: session.node_incarnation,
            address: session.address,
            protocol: session.protocol,
        }
    }
}

impl From<pb::LastClose> for LastCloseView {
    fn from(close: pb::LastClose) -> Self {
        Self {
            code: close.code,
            initiator: initiator(close.initiator),
            time: time(close.time.as_ref()),
            reason: close.reason,
        }
    }
}

impl From<pb::Device> for DeviceView {
    fn from(device: pb::Device) -> Self {
        Self {
            presence: presence(device.presence),
            last_seen_time: time(device.last_seen_time.as_ref()),
            session: device.session.map(Into::into),
            last_close: device.last_close.map(Into::into),
            pending_commands: device.pending_commands,
            device_id: device.device_id,
        }
    }
}

impl From<pb::Node> for NodeView {
    fn from(node: pb::Node) -> Self {
        let state = pb::NodeState::try_from(node.state).unwrap_or_default();
        Self {
            roles: node.roles.iter().map(|&number| role(number)).collect(),
            state: state.as_str_name().trim_start_matches("NODE_STATE_"),
            start_time: time(node.start_time.as_ref()),
            last_heartbeat_time: time(node.last_heartbeat_time.as_ref()),
            node_id: node.node_id,
            address: node.address,
            version: node.version,
            connected_devices: node.connected_devices,
            incarnation: node.incarnation,
        }
    }
}

impl From<pb::Message> for MessageView {
    fn from(message: pb::Message) -> Self {
        Self {
            time: time(message.time.as_ref()),
            payload: payload(message.payload),
            headers: message.headers.into_iter().collect(),
            topic: message.topic,
            from: message.from,
            position: message.position,
        }
    }
}

// === impl NodeView ===

impl NodeView {
    /// As a row of a table: see `nodes.rs` for the heading.
    pub(super) fn row(&self) -> Vec<String> {
        vec![
            self.node_id.clone(),
            self.roles.join("+"),
            self.state.to_owned(),
            self.address.clone(),
            self.connected_devices.to_string(),
            self.version.clone(),
            self.start_time.clone(),
        ]
    }
}
