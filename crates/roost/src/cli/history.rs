//! `roost device history`: what happened to a device, as a timeline to be read from top to bottom.

use clap::Args;
use roost_proto::control::v1 as pb;
use roost_proto::control::v1::device_history_entry::Event;
use serde_json::{Value, json};

use super::args::ClientArgs;
use super::client::connect;
use super::output::{Output, Style};
use super::views::{self, LastCloseView, SessionView, time};
use super::{Exit, Failure};

#[derive(Debug, Args)]
pub(super) struct HistoryArgs {
    /// The device.
    device: String,
    /// At most so many of the latest entries.
    #[arg(long, default_value = "64", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    limit: i32,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) async fn history(args: HistoryArgs) -> Result<Exit, Failure> {
    let output = Output::new(args.client.json);
    let mut client = connect(&args.client).await?.devices();
    let request = pb::GetDeviceHistoryRequest { device_id: args.device.clone(), limit: args.limit };
    let mut entries = client.get_device_history(request).await?.into_inner().entries;
    // The latest is what is looked for, and stands where the eye is when the command ends.
    entries.reverse();
    if output.json {
        entries.iter().try_for_each(|entry| output.json_line(&entry_json(entry)))?;
        return Ok(Exit::Ok);
    }
    if entries.is_empty() {
        output.line(format!("nothing is known of what happened to {}", args.device))?;
    }
    for entry in &entries {
        if let Some(line) = entry_line(output, entry) {
            output.line(line)?;
        }
    }
    Ok(Exit::Ok)
}

/// `2026-11-20T03:12:44.017Z  DISCONNECTED  1012 draining (HUB), session 4f2c…`.
fn entry_line(output: Output, entry: &pb::DeviceHistoryEntry) -> Option<String> {
    let (style, what, text) = told(entry.event.as_ref()?);
    let what = output.paint(style, format!("{what:<12}"));
    Some(format!("{}  {what}  {text}", time(entry.time.as_ref())))
}

fn told(event: &Event) -> (Style, &'static str, String) {
    match event {
        Event::Connected(it) => (Style::Good, "CONNECTED", began(it.session.as_ref())),
        Event::TakenOver(it) => {
            let text = began(it.session.as_ref());
            let text = format!("{text}, replaced session {}", short(&it.replaced_session_id));
            (Style::Bad, "TAKEN_OVER", text)
        }
        Event::Reclaimed(it) => {
            let text = format!("on {}, session {}", it.node_id, short(&it.session_id));
            (Style::Dim, "RECLAIMED", text)
        }
        Event::Disconnected(it) => {
            let close = it.close.clone().unwrap_or_default();
            let who = views::initiator(close.initiator);
            let session = short(&it.session_id);
            let text = format!("{} {} (by {who}), session {session}", close.code, close.reason);
            (Style::Dim, "DISCONNECTED", text.replace("  ", " "))
        }
        Event::Command(it) => {
            let on = match &*it.session_id {
                "" => String::new(),
                session => format!(", session {}", short(session)),
            };
            let text = format!("{} {}{on}", it.command_id, views::state(it.state));
            (Style::Bold, "COMMAND", text)
        }
        Event::Refused(it) => {
            let about = if it.about.is_empty() { String::new() } else { format!(" {}", it.about) };
            let text =
                format!("{}{about}: {}, session {}", it.what, it.code, short(&it.session_id));
            (Style::Bad, "REFUSED", text)
        }
    }
}

fn began(session: Option<&pb::Session>) -> String {
    let session = session.cloned().unwrap_or_default();
    let pb::Session { node_id, address, protocol, session_id, .. } = session;
    format!("on {node_id} from {address}, {protocol}, session {}", short(&session_id))
}

/// Enough of a session's id to tell it from its neighbours; `--json` has all of it.
fn short(session: &str) -> &str {
    session.get(..8).unwrap_or(session)
}

fn entry_json(entry: &pb::DeviceHistoryEntry) -> Value {
    let mut shown = json!({ "time": time(entry.time.as_ref()) });
    let (name, value) = match entry.event.clone() {
        Some(Event::Connected(it)) => ("connected", session_json(it.session)),
        Some(Event::TakenOver(it)) => {
            let mut value = session_json(it.session);
            value["replaced_session_id"] = it.replaced_session_id.into();
            ("taken_over", value)
        }
        Some(Event::Reclaimed(it)) => {
            let value = json!({
                "session_id": it.session_id, "node_id": it.node_id,
                "replaced_session_id": it.replaced_session_id,
            });
            ("reclaimed", value)
        }
        Some(Event::Disconnected(it)) => {
            let close = it.close.map(LastCloseView::from);
            ("disconnected", json!({ "session_id": it.session_id, "close": close }))
        }
        Some(Event::Command(it)) => {
            let value = json!({
                "command_id": it.command_id, "state": views::state(it.state),
                "session_id": it.session_id,
            });
            ("command", value)
        }
        Some(Event::Refused(it)) => {
            let value = json!({
                "session_id": it.session_id, "what": it.what, "code": it.code, "about": it.about,
            });
            ("refused", value)
        }
        None => return shown,
    };
    shown[name] = value;
    shown
}

fn session_json(session: Option<pb::Session>) -> Value {
    json!(session.map(SessionView::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_when_what_by_whom_and_where() {
        let entry = |event| pb::DeviceHistoryEntry {
            time: Some(prost_types::Timestamp { seconds: 1_000_000_000, nanos: 17_000_000 }),
            event: Some(event),
        };
        let session = pb::Session {
            session_id: "4f2c000011112222".into(),
            node_id: "edge-a".into(),
            address: "192.0.2.7:51034".into(),
            protocol: "roost.v1.json".into(),
            ..Default::default()
        };
        let close = pb::LastClose {
            code: 1012,
            reason: "draining".into(),
            initiator: pb::CloseInitiator::Hub.into(),
            time: None,
        };
        let session_id = session.session_id.clone();
        let events = [
            Event::Connected(pb::DeviceConnected { session: Some(session) }),
            Event::Disconnected(pb::DeviceDisconnected {
                session_id: session_id.clone(),
                close: Some(close),
            }),
            Event::Refused(pb::DeviceRefused {
                session_id,
                what: "publish".into(),
                code: "PERMISSION_DENIED".into(),
                about: "$sys".into(),
            }),
        ];
        let lines: Vec<String> =
            events.map(|event| entry_line(Output::new(true), &entry(event)).unwrap()).into();
        let expected = [
            "2001-09-09T01:46:40.017Z  CONNECTED     on edge-a from 192.0.2.7:51034, roost.v1.json, session 4f2c0000",
            "2001-09-09T01:46:40.017Z  DISCONNECTED  1012 draining (by HUB), session 4f2c0000",
            "2001-09-09T01:46:40.017Z  REFUSED       publish $sys: PERMISSION_DENIED, session 4f2c0000",
        ];
        assert_eq!(lines, expected);
    }
}
