//! A device's history as callers see it.

use roost_cluster::{HistoryEntry, HistoryEvent, NodeRef};
use roost_proto::control::v1;
use roost_proto::control::v1::device_history_entry::Event;
use roost_proto::convert::timestamp_out;
use roost_types::{SessionId, UnixMillis};

use crate::shown;

/// One thing that happened.
pub(crate) fn entry(entry: HistoryEntry) -> v1::DeviceHistoryEntry {
    let HistoryEntry { time, event } = entry;
    v1::DeviceHistoryEntry {
        time: Some(timestamp_out(time)),
        event: Some(shown_event(event, time)),
    }
}

fn shown_event(event: HistoryEvent, time: UnixMillis) -> Event {
    match event {
        HistoryEvent::Connected { session, node, protocol, address } => {
            let session = began(session, &node, (&protocol, &address), time);
            Event::Connected(v1::DeviceConnected { session: Some(session) })
        }
        HistoryEvent::TakenOver { session, node, protocol, address, replaced } => {
            let session = began(session, &node, (&protocol, &address), time);
            let replaced_session_id = replaced.to_string();
            Event::TakenOver(v1::DeviceTakenOver { session: Some(session), replaced_session_id })
        }
        HistoryEvent::Reclaimed { session, node, replaced } => {
            Event::Reclaimed(v1::DeviceReclaimed {
                session_id: session.to_string(),
                node_id: node.id.to_string(),
                replaced_session_id: named(replaced),
            })
        }
        HistoryEvent::Disconnected { session, close } => {
            Event::Disconnected(v1::DeviceDisconnected {
                session_id: session.to_string(),
                close: Some(shown::last_close(&close)),
            })
        }
        HistoryEvent::Command { id, state, session } => Event::Command(v1::DeviceCommand {
            command_id: id.to_string(),
            state: v1::CommandState::from(state).into(),
            session_id: named(session),
        }),
        HistoryEvent::Refused { session, refusal } => Event::Refused(v1::DeviceRefused {
            session_id: session.to_string(),
            what: refusal.what.to_string(),
            code: refusal.code.to_string(),
            about: refusal.about.to_string(),
        }),
    }
}

fn named(session: Option<SessionId>) -> String {
    session.map(|session| session.to_string()).unwrap_or_default()
}

/// A session as it was when it began.
fn began(
    session: SessionId,
    node: &NodeRef,
    (protocol, address): (&str, &str),
    time: UnixMillis,
) -> v1::Session {
    v1::Session {
        session_id: session.to_string(),
        node_id: node.id.to_string(),
        node_incarnation: node.incarnation,
        address: address.to_owned(),
        protocol: protocol.to_owned(),
        connect_time: Some(timestamp_out(time)),
    }
}
