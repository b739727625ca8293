//! The acts of the demo: what is tried, and how it is told.

use roost_proto::control::v1 as pb;
use roost_proto::control::v1::CommandState as S;
use roost_proto::control::v1::payload::Body;
use roost_proto::control::v1::watch_devices_response::Event;
use tokio::time::Instant;

use super::Show;
use super::stage::{Stage, patiently, visitor};
use crate::cli::Failure;
use crate::cli::output::{Style, elapsed};
use crate::cli::payload::shown;
use crate::cli::views;
use crate::simulated::Seen;

/// The devices, and how each hears of the fleet's news. The last connects late.
const DEVICES: [(&str, &str); 5] = [
    ("thermo-1", "fleet/news"),
    ("thermo-2", "fleet/news"),
    ("door-1", "fleet/+"),
    ("pump-1", "fleet/#"),
    ("lamp-1", "fleet/news"),
];
/// How many are there from the beginning.
const EARLY: usize = 4;
/// The one that loses its connection.
const UNPLUGGED: &str = "door-1";
/// The one that connects late.
const LATE: &str = "lamp-1";

/// Where everything is, and the first devices.
pub(super) async fn opening(show: &mut Show, stage: &mut Stage) -> Result<(), Failure> {
    let addresses = stage.addresses;
    let grpc = addresses.grpc.map(|address| address.to_string());
    show.say(format!(
        "{} · one node, which keeps everything in its memory\n",
        show.output.paint(Style::Bold, "A Roost hub"),
    ))?;
    show.say(format!("  devices    {}", stage.url()))?;
    show.say(format!("  back ends  http://{}", grpc.unwrap_or_default()))?;
    show.say(format!("  metrics    http://{}/metrics", addresses.admin))?;

    show.heading("Devices connect, each with a token of its own")?;
    let began = Instant::now();
    for (name, filter) in &DEVICES[..EARLY] {
        stage.connect(name, filter)?;
    }
    let mut names = stage.wait_for(EARLY, came_online).await;
    names.sort();
    let took = elapsed(began.elapsed());
    let all = names.len() == EARLY;
    show.tried(all, format!("{} are online after {took}", names.join(", ")))
}

fn came_online(seen: &Seen) -> Option<String> {
    match seen {
        Seen::Online(name) => Some(name.clone()),
        _ => None,
    }
}

/// Commands that succeed, fail, are declined, and wait for a device that is not there.
pub(super) async fn commands(show: &mut Show, stage: &mut Stage) -> Result<(), Failure> {
    show.heading("Commands: gRPC → device → gRPC")?;
    for (device, name, payload, expected) in [
        ("thermo-1", "echo", Some(r#"{"hello":"world"}"#), S::Succeeded),
        ("thermo-2", "read", None, S::Succeeded),
        ("pump-1", "reboot", Some(r#"{"delay_s":0}"#), S::Succeeded),
        ("door-1", "fail", None, S::Failed),
        ("door-1", "dance", None, S::Rejected),
    ] {
        let began = Instant::now();
        let request = request(device, name, payload, S::Succeeded);
        let command = send(stage, request).await?;
        let took = elapsed(began.elapsed());
        let text = told(device, name, payload, &command);
        show.tried(command.state() == expected, format!("{text}  {took}"))?;
    }
    let request = request(LATE, "echo", Some(r#"{"late":true}"#), S::Queued);
    let command = send(stage, request).await?;
    let queued = command.state() == S::Queued;
    show.tried(queued, format!("{LATE} is offline: its echo is {}", state(&command)))?;
    let began = Instant::now();
    let (_, filter) = DEVICES[EARLY];
    stage.connect(LATE, filter)?;
    let command = finished(stage, command).await?;
    let took = elapsed(began.elapsed());
    let text = told(LATE, "connects, and its echo", None, &command);
    show.tried(command.state() == S::Succeeded, format!("{text}  {took}"))
}

fn request(
    device: &str,
    name: &str,
    payload: Option<&str>,
    wait_until: pb::CommandState,
) -> pb::SendCommandRequest {
    let body = |json: &str| pb::Payload {
        body: Some(Body::Json(json.to_owned())),
        content_type: String::new(),
    };
    pb::SendCommandRequest {
        device_id: device.to_owned(),
        name: name.to_owned(),
        payload: payload.map(body),
        wait_until: wait_until.into(),
        ..pb::SendCommandRequest::default()
    }
}

async fn send(stage: &Stage, request: pb::SendCommandRequest) -> Result<pb::Command, Failure> {
    let mut client = stage.backend.commands();
    let answer = patiently(client.send_command(request)).await??;
    Ok(answer.into_inner().command.unwrap_or_default())
}

/// Sends a command again, which finds the same one, to wait for its end.
async fn finished(stage: &Stage, command: pb::Command) -> Result<pb::Command, Failure> {
    let again = pb::SendCommandRequest {
        device_id: command.device_id,
        command_id: command.command_id,
        name: command.name,
        payload: command.payload,
        wait_until: pb::CommandState::Succeeded.into(),
        ..pb::SendCommandRequest::default()
    };
    send(stage, again).await
}

fn state(command: &pb::Command) -> &'static str {
    views::state(command.state)
}

/// `thermo-1  echo {"hello":"world"} → SUCCEEDED {"hello":"world"}`.
fn told(device: &str, name: &str, payload: Option<&str>, command: &pb::Command) -> String {
    let result = command.result.clone().unwrap_or_default();
    let answer = match result.error_message.as_str() {
        "" => shown(result.payload.as_ref()),
        error => error.split(';').next().unwrap_or(error).to_owned(),
    };
    let asked = [name, payload.unwrap_or_default()].join(" ");
    format!("{device:<8}  {:<24} → {} {answer}", asked.trim(), state(command))
}

/// One publication to everybody, and telemetry the other way.
pub(super) async fn broadcast(show: &mut Show, stage: &mut Stage) -> Result<(), Failure> {
    show.heading("Topics: one publication, every subscriber")?;
    let mut telemetry = subscribe(stage, "telemetry/+").await?;
    let began = Instant::now();
    let json = r#"{"headline":"a new hub in town"}"#;
    let request = pb::PublishRequest {
        topic: "fleet/news".to_owned(),
        payload: Some(pb::Payload {
            body: Some(Body::Json(json.to_owned())),
            content_type: String::new(),
        }),
        ..pb::PublishRequest::default()
    };
    patiently(stage.backend.messages().publish(request)).await??;
    let heard = |seen: &Seen| match seen {
        Seen::Message(name, message) if message.topic.as_str() == "fleet/news" => {
            Some(name.clone())
        }
        _ => None,
    };
    let heard = stage.wait_for(DEVICES.len(), heard).await.len();
    let took = elapsed(began.elapsed());
    let text = format!("fleet/news {json} → {heard} of {} devices  {took}", DEVICES.len());
    show.tried(heard == DEVICES.len(), text)?;
    let message = patiently(next_message(&mut telemetry)).await??;
    let payload = shown(message.payload.as_ref());
    let text = format!("{} {payload} from {} → the back end", message.topic, message.from);
    show.tried(message.from.starts_with("device:"), text)
}

type Messages = tonic::Streaming<pb::SubscribeResponse>;

async fn subscribe(stage: &Stage, filter: &str) -> Result<Messages, Failure> {
    let request = pb::SubscribeRequest {
        subscriptions: vec![pb::TopicSubscription { topic_filter: filter.to_owned() }],
    };
    let mut client = stage.backend.messages();
    Ok(patiently(client.subscribe(request)).await??.into_inner())
}

async fn next_message(messages: &mut Messages) -> Result<pb::Message, Failure> {
    use pb::subscribe_response::Event;
    loop {
        match messages.message().await?.and_then(|item| item.event) {
            Some(Event::Message(message)) => return Ok(message),
            Some(_) => {}
            None => return Err(Failure::failed("the subscription ended")),
        }
    }
}

/// Who is there, and that somebody left.
pub(super) async fn presence(show: &mut Show, stage: &mut Stage) -> Result<(), Failure> {
    show.heading("Presence: who is there, and who left")?;
    let request = pb::ListDevicesRequest {
        presence: pb::Presence::Online.into(),
        ..pb::ListDevicesRequest::default()
    };
    let mut client = stage.backend.devices();
    let page = patiently(client.list_devices(request)).await??.into_inner();
    let mut names: Vec<String> = page.devices.into_iter().map(|device| device.device_id).collect();
    names.sort();
    let all = names.len() == DEVICES.len();
    show.tried(all, format!("{} online: {}", names.len(), names.join(", ")))?;

    let request = pb::WatchDevicesRequest::default();
    let mut events = patiently(client.watch_devices(request)).await??.into_inner();
    patiently(events.message()).await??;
    let began = Instant::now();
    stage.pull_the_plug(UNPLUGGED);
    let event = loop {
        match patiently(events.message()).await??.and_then(|item| item.event) {
            Some(Event::DeviceEvent(event)) => break event,
            Some(_) => {}
            None => return Err(Failure::failed("the watch ended")),
        }
    };
    let took = elapsed(began.elapsed());
    let left = event.device_id == UNPLUGGED && event.r#type() == pb::DeviceEventType::Disconnected;
    let close = event.close.unwrap_or_default();
    let text =
        format!("{} pulled the plug → OFFLINE, close code {}  {took}", event.device_id, close.code);
    show.tried(left, text)
}

/// What to do next, to be copied and pasted.
pub(super) fn invitation(show: &Show, stage: &mut Stage) -> Result<(), Failure> {
    // Whose plug was pulled comes back, so that everybody is there.
    stage.connect(UNPLUGGED, "fleet/+")?;
    let program = std::env::args().next().unwrap_or_else(|| "roost".to_owned());
    let url = stage.url();
    let (api, token) = (stage.key_file("api.key"), stage.key_file("device.token"));
    let grpc = stage.addresses.grpc.map(|address| address.to_string()).unwrap_or_default();
    let server = format!("--server http://{grpc} --api-key-file {api}");
    let me = visitor();
    show.heading("The hub stays up until Ctrl-C. Try it:")?;
    for (what, line) in [
        ("a command", format!("{program} command send thermo-1 echo '{{\"hi\":1}}' {server}")),
        ("who is there", format!("{program} device watch {server}")),
        ("a device", format!("{program} simulate --device {me} --token-file {token} --url {url}")),
        (
            "a device, by hand",
            format!(
                "npx wscat -s roost.v1.json -H \"Authorization: Bearer $(cat {token})\" -c '{url}?hello=auto'"
            ),
        ),
        ("to that device", format!("{program} command send {me} echo '\"hello\"' {server}")),
    ] {
        let what = show.output.paint(Style::Dim, format!("# {what}"));
        show.say(format!("  {what}\n  {line}"))?;
    }
    Ok(())
}
