//! `roost device`: who is there. A device's history is in `history.rs`.

use clap::{Args, Subcommand};
use roost_proto::control::v1 as pb;
use roost_proto::control::v1::watch_devices_response::Event;
use serde_json::json;

use super::args::ClientArgs;
use super::client::connect;
use super::output::{Output, Style};
use super::views::{self, DeviceView, LastCloseView, SessionView, time};
use super::{Exit, Failure, history};

/// How many devices a page has.
const PAGE: i32 = 1_000;

#[derive(Debug, Subcommand)]
pub(super) enum DeviceCommand {
    /// List devices.
    List(ListArgs),
    /// Show one device: where it is, since when, how its last connection ended.
    Get(GetArgs),
    /// Follow devices as they come and go, those online first.
    Watch(WatchArgs),
    /// Show what happened to a device lately: sessions, closes, commands, refusals.
    History(history::HistoryArgs),
    /// Close a device's connection. It may connect again at once.
    Disconnect(DisconnectArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only those that are connected.
    #[arg(long, conflicts_with = "offline")]
    online: bool,
    /// Only those that are not connected.
    #[arg(long)]
    offline: bool,
    /// Only those that are connected to this node.
    #[arg(long, value_name = "NODE", conflicts_with = "offline")]
    node: Option<String>,
    /// At most this many.
    #[arg(long, default_value = "10000")]
    limit: usize,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// The device.
    device: String,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// Only what happens from now on, not who is online.
    #[arg(long)]
    no_snapshot: bool,
    /// Resume after the event that this cursor came with (implies --no-snapshot).
    #[arg(long)]
    cursor: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(super) struct DisconnectArgs {
    /// The device.
    device: String,
    /// Only if it still has this session.
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// What to tell the device.
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

// === impl DeviceCommand ===

impl DeviceCommand {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        match self {
            Self::List(args) => list(args).await,
            Self::Get(args) => get(args).await,
            Self::Watch(args) => watch(args).await,
            Self::History(args) => history::history(args).await,
            Self::Disconnect(args) => disconnect(args).await,
        }
    }
}

async fn list(args: ListArgs) -> Result<Exit, Failure> {
    let output = Output::new(args.client.json);
    let mut client = connect(&args.client).await?.devices();
    let presence = match (args.online, args.offline) {
        (true, _) => pb::Presence::Online,
        (_, true) => pb::Presence::Offline,
        _ => pb::Presence::Unspecified,
    };
    let mut devices = vec![];
    let mut page_token = String::new();
    while devices.len() < args.limit {
        let request = pb::ListDevicesRequest {
            page_size: PAGE,
            page_token,
            presence: presence.into(),
            node_id: args.node.clone().unwrap_or_default(),
        };
        let page = client.list_devices(request).await?.into_inner();
        devices.extend(page.devices);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    devices.truncate(args.limit);
    if output.json {
        for device in devices {
            output.json_line(&DeviceView::from(device))?;
        }
        return Ok(Exit::Ok);
    }
    devices.sort_by(|a, b| a.device_id.cmp(&b.device_id));
    let rows: Vec<Vec<String>> = devices.iter().map(row).collect();
    let heading = ["DEVICE", "PRESENCE", "NODE", "ADDRESS", "LAST SEEN", "LAST CLOSE"];
    output.list(&heading, &rows, Clone::clone)?;
    Ok(Exit::Ok)
}

fn row(device: &pb::Device) -> Vec<String> {
    let session = device.session.clone().unwrap_or_default();
    vec![
        device.device_id.clone(),
        views::presence(device.presence).to_owned(),
        session.node_id,
        session.address,
        last_seen(device),
        device.last_close.as_ref().map(close).unwrap_or_default(),
    ]
}

/// A device that only ever was sent commands was never seen.
fn last_seen(device: &pb::Device) -> String {
    let seen = device.last_seen_time.as_ref();
    match seen.filter(|time| time.seconds > 0) {
        Some(_) => time(seen),
        None => "never".to_owned(),
    }
}

fn close(close: &pb::LastClose) -> String {
    let who = views::initiator(close.initiator);
    let text = format!("{} {} ({who})", close.code, close.reason);
    text.replace("  ", " ")
}

async fn get(args: GetArgs) -> Result<Exit, Failure> {
    let output = Output::new(args.client.json);
    let mut client = connect(&args.client).await?.devices();
    let device_id = args.device;
    let answer = client.get_device(pb::GetDeviceRequest { device_id }).await?;
    let device = answer.into_inner().device.unwrap_or_default();
    output.show(&DeviceView::from(device.clone()), || details(output, &device))?;
    Ok(Exit::Ok)
}

fn details(output: Output, device: &pb::Device) -> String {
    let online = device.presence() == pb::Presence::Online;
    let style = if online { Style::Good } else { Style::Dim };
    let presence = output.paint(style, views::presence(device.presence));
    let mut lines = vec![format!("{} is {presence}", device.device_id)];
    if let Some(session) = &device.session {
        lines.push(format!("  node        {}", session.node_id));
        lines.push(format!("  address     {}", session.address));
        lines.push(format!("  protocol    {}", session.protocol));
        lines.push(format!("  connected   {}", time(session.connect_time.as_ref())));
        lines.push(format!("  session     {}", session.session_id));
    }
    lines.push(format!("  last seen   {}", last_seen(device)));
    if let Some(last) = &device.last_close {
        lines.push(format!("  last close  {} at {}", close(last), time(last.time.as_ref())));
    }
    lines.push(format!("  pending     {} commands", device.pending_commands));
    lines.join("\n")
}

async fn watch(args: WatchArgs) -> Result<Exit, Failure> {
    let output = Output::new(args.client.json);
    let mut client = connect(&args.client).await?.devices();
    let request = pb::WatchDevicesRequest {
        snapshot: !args.no_snapshot && args.cursor.is_none(),
        cursor: args.cursor.unwrap_or_default(),
    };
    let mut events = client.watch_devices(request).await?.into_inner();
    while let Some(item) = events.message().await? {
        if output.json {
            output.json_line(&item_json(item))?;
        } else if let Some(line) = item_shown(output, &item) {
            output.line(line)?;
        }
    }
    Ok(Exit::Ok)
}

fn item_json(item: pb::WatchDevicesResponse) -> serde_json::Value {
    let mut shown = match item.event {
        Some(Event::Snapshot(device)) => json!({ "snapshot": DeviceView::from(device) }),
        Some(Event::Synced(_)) => json!({ "synced": {} }),
        Some(Event::Gap(gap)) => json!({ "gap": { "reason": gap.reason } }),
        Some(Event::DeviceEvent(event)) => json!({ "device_event": {
            "event_id": event.event_id,
            "device_id": event.device_id,
            "type": event_type(&event),
            "time": time(event.time.as_ref()),
            "session_id": event.session_id,
            "node_id": event.node_id,
            "close": event.close.map(LastCloseView::from),
        } }),
        None => json!({}),
    };
    if !item.cursor.is_empty() {
        shown["cursor"] = item.cursor.into();
    }
    shown
}

fn event_type(event: &pb::DeviceEvent) -> &'static str {
    event.r#type().as_str_name().trim_start_matches("DEVICE_EVENT_TYPE_")
}

fn item_shown(output: Output, item: &pb::WatchDevicesResponse) -> Option<String> {
    Some(match item.event.as_ref()? {
        Event::Snapshot(device) => {
            let node = device.session.as_ref().map(|session| session.node_id.as_str());
            format!("{}  ONLINE  on {}", device.device_id, node.unwrap_or("?"))
        }
        Event::Synced(_) => output.paint(Style::Dim, "— from here on, as it happens —"),
        Event::Gap(gap) => output.paint(Style::Bad, format!("events are missing: {}", gap.reason)),
        Event::DeviceEvent(event) => {
            let kind = event_type(event);
            let how = match &event.close {
                Some(last) => close(last),
                None => format!("on {}", event.node_id),
            };
            let at = time(event.time.as_ref());
            let line = format!("{at}  {}  {kind}  {how}", event.device_id);
            let fights = event.r#type() == pb::DeviceEventType::Contested;
            if fights { output.paint(Style::Bad, line) } else { line }
        }
    })
}

async fn disconnect(args: DisconnectArgs) -> Result<Exit, Failure> {
    let output = Output::new(args.client.json);
    let mut client = connect(&args.client).await?.devices();
    let request = pb::DisconnectDeviceRequest {
        device_id: args.device,
        session_id: args.session.unwrap_or_default(),
        reason: args.reason.unwrap_or_default(),
    };
    let session = client.disconnect_device(request).await?.into_inner().session;
    let json = json!({ "session": session.clone().map(SessionView::from) });
    output.show(&json, || match &session {
        Some(session) => format!("node {} closes session {}", session.node_id, session.session_id),
        None => "nothing to do: it is not connected, or has another session".to_owned(),
    })?;
    Ok(Exit::Ok)
}
