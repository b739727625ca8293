//! Commands: accepted, waited for, found later, cancelled, refused.

use std::time::Duration;

use roost_cluster::{NodeEvent, NodeSink as _, Offer, Report, StoreSettings};
use roost_proto::control::v1::payload::Body;
use roost_proto::control::v1::send_command_request::Expiry;
use roost_proto::control::v1::{
    CancelCommandRequest, CancelOutcome, Command, CommandState, CommandTransition, Durability,
    GetCommandRequest, ListCommandsRequest, Payload, SendCommandRequest, SendCommandResponse,
};
use roost_types::{CommandId, CommandSpec, Text};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::edge::succeeded;
use crate::hub::{Hub, THEIRS, fields, reason};

#[expect(clippy::unnecessary_wraps, reason = "as the fields of requests have it")]
pub(crate) fn json(text: &str) -> Option<Payload> {
    Some(Payload { body: Some(Body::Json(text.to_owned())), content_type: String::new() })
}

pub(crate) fn span(milliseconds: u64) -> prost_types::Duration {
    Duration::from_millis(milliseconds).try_into().unwrap()
}

pub(crate) fn command(id: &str, name: &str) -> SendCommandRequest {
    SendCommandRequest {
        device_id: "d1".into(),
        command_id: id.into(),
        name: name.into(),
        payload: json(" {\"a\": 1.00}"),
        ..SendCommandRequest::default()
    }
}

pub(crate) fn waiting(
    id: &str,
    name: &str,
    until: CommandState,
    milliseconds: u64,
) -> SendCommandRequest {
    SendCommandRequest {
        wait_until: until.into(),
        wait_timeout: Some(span(milliseconds)),
        ..command(id, name)
    }
}

pub(crate) async fn send(hub: &Hub, request: SendCommandRequest) -> SendCommandResponse {
    hub.commands().send_command(request).await.unwrap().into_inner()
}

pub(crate) async fn get(hub: &Hub, id: &str) -> Command {
    let request = GetCommandRequest { device_id: "d1".into(), command_id: id.into() };
    let answer = hub.commands().get_command(request).await.unwrap();
    answer.into_inner().command.unwrap()
}

fn state(answer: &SendCommandResponse) -> CommandState {
    answer.command.as_ref().unwrap().state()
}

#[tokio::test]
async fn a_device_answers_and_the_caller_gets_it_byte_for_byte() {
    let hub = Hub::start().await;
    hub.edge.connect("default", "d1").await;
    let answer = send(&hub, waiting("c1", "echo", CommandState::Succeeded, 60_000)).await;
    assert_eq!(state(&answer), CommandState::Succeeded);
    assert!(!answer.wait_timed_out && !answer.already_existed);
    assert_eq!(answer.durability(), Durability::Process);
    let command = answer.command.unwrap();
    assert_eq!(command.result.unwrap().payload, json(" {\"a\": 1.00}"));
    let steps: Vec<_> = command.transitions.iter().map(CommandTransition::state).collect();
    assert_eq!(steps[0], CommandState::Queued);
    assert_eq!(get(&hub, "c1").await.state(), CommandState::Succeeded);
    assert_eq!(hub.metric("roost_command_round_trip_seconds_count"), 1);
    assert_eq!(hub.metric("roost_commands_in_flight"), 0);
}

#[tokio::test]
async fn a_failure_ends_a_wait_for_success() {
    let hub = Hub::start().await;
    hub.edge.connect("default", "d1").await;
    let answer = send(&hub, waiting("", "fail", CommandState::Succeeded, 60_000)).await;
    assert_eq!(state(&answer), CommandState::Failed);
    assert!(!answer.wait_timed_out);
    let command = answer.command.unwrap();
    assert_eq!(command.command_id.len(), 26, "a ULID");
    assert_eq!(command.result.unwrap().error_message, "it broke");
}

#[tokio::test]
async fn a_wait_ends_at_the_state_asked_for() {
    let hub = Hub::start().await;
    hub.edge.connect("default", "d1").await;
    let answer = send(&hub, waiting("c1", "receive", CommandState::Received, 60_000)).await;
    assert_eq!(state(&answer), CommandState::Received);
    assert!(!answer.wait_timed_out);
}

#[tokio::test]
async fn a_wait_that_times_out_is_ok_and_the_result_is_found_later() {
    let hub = Hub::start().await;
    let (device, session) = hub.edge.connect("default", "d1").await;
    let answer = send(&hub, waiting("c1", "silent", CommandState::Succeeded, 100)).await;
    assert!(answer.wait_timed_out);
    assert!(state(&answer) < CommandState::Succeeded);
    let id = CommandId::new("c1").unwrap();
    hub.edge.report(&device, session, &id, succeeded(), true).await;
    assert_eq!(get(&hub, "c1").await.state(), CommandState::Succeeded);
}

#[tokio::test]
async fn a_lost_update_is_found_before_the_wait_ends() {
    let hub = Hub::start().await;
    let (device, session) = hub.edge.connect("default", "d1").await;
    let mut client = hub.commands();
    let call = client.send_command(waiting("c1", "silent", CommandState::Succeeded, 5_000));
    let silently = async {
        let id = wait_for(&hub, "c1", CommandState::Sent).await;
        hub.edge.report(&device, session, &id, succeeded(), false).await;
    };
    let (answer, ()) = tokio::join!(call, silently);
    let answer = answer.unwrap().into_inner();
    assert_eq!(state(&answer), CommandState::Succeeded);
    assert!(!answer.wait_timed_out);
}

#[tokio::test]
async fn an_interruption_makes_callers_look_for_themselves() {
    let hub = Hub::start().await;
    let (device, session) = hub.edge.connect("default", "d1").await;
    let mut client = hub.commands();
    let call = client.send_command(waiting("c1", "silent", CommandState::Succeeded, 60_000));
    let silently = async {
        let id = wait_for(&hub, "c1", CommandState::Sent).await;
        hub.edge.report(&device, session, &id, succeeded(), false).await;
        hub.control.resubscribed();
    };
    let (answer, ()) = tokio::join!(call, silently);
    assert_eq!(state(&answer.unwrap().into_inner()), CommandState::Succeeded);
}

/// Until the command is in this state.
pub(crate) async fn wait_for(hub: &Hub, id: &str, wanted: CommandState) -> CommandId {
    let request = GetCommandRequest { device_id: "d1".into(), command_id: id.into() };
    loop {
        let found = hub.commands().get_command(request.clone()).await;
        let state = found.ok().map(|found| found.into_inner().command.unwrap().state());
        if state == Some(wanted) {
            return CommandId::new(id).unwrap();
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_command_for_nobody_expires_while_the_caller_waits() {
    let hub = Hub::start().await;
    let mut request = waiting("c1", "echo", CommandState::Succeeded, 60_000);
    request.expiry = Some(Expiry::Ttl(span(150)));
    let answer = send(&hub, request).await;
    assert_eq!(state(&answer), CommandState::Expired);
    assert!(!answer.wait_timed_out);
}

#[tokio::test]
async fn a_repetition_finds_the_same_command_and_waits_for_it_too() {
    let hub = Hub::start().await;
    let (device, session) = hub.edge.connect("default", "d1").await;
    let request = waiting("c1", "silent", CommandState::Succeeded, 60_000);
    let (mut one, mut two) = (hub.commands(), hub.commands());
    let calls = async {
        tokio::join!(one.send_command(request.clone()), two.send_command(request.clone()))
    };
    let answering = async {
        let id = wait_for(&hub, "c1", CommandState::Sent).await;
        while hub.metric("roost_commands_in_flight") < 2 {
            tokio::task::yield_now().await;
        }
        hub.edge.report(&device, session, &id, succeeded(), true).await;
    };
    let ((one, two), ()) = tokio::join!(calls, answering);
    let (one, two) = (one.unwrap().into_inner(), two.unwrap().into_inner());
    assert_eq!(state(&one), CommandState::Succeeded);
    assert_eq!(state(&two), CommandState::Succeeded);
    assert!(one.already_existed != two.already_existed);

    let again = send(&hub, request).await;
    assert!(again.already_existed && !again.wait_timed_out);
}

#[tokio::test]
async fn a_repetition_rings_for_a_command_whose_first_push_never_came() {
    let hub = Hub::start().await;
    let (device, session) = hub.edge.connect("default", "d1").await;
    // Accepted and dispatched by a control node that died before its push.
    let expires = hub.edge.store.clock.now().plus(Duration::from_secs(60));
    let spec = CommandSpec {
        payload: Some(roost_types::Payload::json(Text::from(" {\"a\": 1.00}"))),
        ..CommandSpec::new(CommandId::new("c1").unwrap(), "silent", expires)
    };
    let offer = Offer { spec: &spec, waiting: None, durability: None };
    hub.edge.store.mailboxes.enqueue(&device, offer).await.unwrap();
    let again = send(&hub, command("c1", "silent")).await;
    assert!(again.already_existed);
    assert_eq!(hub.edge.event().await, NodeEvent::Drain { device, session });
}

#[tokio::test]
async fn another_body_under_the_same_id_is_refused() {
    let hub = Hub::start().await;
    send(&hub, command("c1", "echo")).await;
    let status = hub.commands().send_command(command("c1", "fail")).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    assert_eq!(reason(&status), "ALREADY_EXISTS");
    assert_eq!(hub.metric("roost_commands_total{outcome=\"invalid\"}"), 1);
}

#[tokio::test]
async fn a_full_mailbox_refuses_what_is_new() {
    let settings = StoreSettings { mailbox_commands: 1, ..StoreSettings::default() };
    let hub = Hub::with(settings, |_| {}, |_| {}).await;
    send(&hub, command("c1", "echo")).await;
    let status = hub.commands().send_command(command("c2", "echo")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(reason(&status), "QUEUE_FULL");
    assert!(status.get_details_retry_info().is_some());
    assert_eq!(hub.metric("roost_commands_total{outcome=\"queue_full\"}"), 1);
}

#[tokio::test]
async fn everything_that_is_wrong_is_listed_at_once() {
    let hub = Hub::start().await;
    let request = SendCommandRequest {
        device_id: "a/b".into(),
        command_id: "c d".into(),
        name: String::new(),
        payload: json("{"),
        headers: [(String::new(), String::new())].into(),
        wait_until: 99,
        wait_timeout: Some(span(3_600_000)),
        expiry: Some(Expiry::ExpireTime(prost_types::Timestamp::default())),
        ordering_key: "\n".into(),
        max_attempts: 9_999,
        durability: -1,
    };
    let status = hub.commands().send_command(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(reason(&status), "ID_INVALID");
    let named = fields(&status);
    for field in [
        "device_id",
        "command_id",
        "name",
        "payload.json",
        "headers",
        "expire_time",
        "wait_until",
        "ordering_key",
        "max_attempts",
        "durability",
    ] {
        assert!(named.iter().any(|one| one.starts_with(field)), "{field} in {named:?}");
    }
    assert!(status.get_details_retry_info().is_none());
    assert_eq!(hub.metric("roost_commands_total{outcome=\"invalid\"}"), 1);
}

#[tokio::test]
async fn payloads_fit_to_the_byte_and_json_is_not_too_deep() {
    let hub = Hub::start().await;
    let bytes = |count: usize| {
        Some(Payload {
            body: Some(Body::Binary(vec![7; count].into())),
            content_type: String::new(),
        })
    };
    let mut request = command("", "echo");
    request.payload = bytes(65_536);
    let answer = send(&hub, request.clone()).await;
    assert_eq!(answer.command.unwrap().payload, request.payload);
    request.payload = bytes(65_537);
    let status = hub.commands().send_command(request.clone()).await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::InvalidArgument, "PAYLOAD_TOO_LARGE"));
    assert_eq!(fields(&status), ["payload.binary"]);
    request.payload = bytes(4 << 20);
    let status = hub.commands().send_command(request.clone()).await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::InvalidArgument, "PAYLOAD_TOO_LARGE"));
    let deep = |levels: usize| json(&("[".repeat(levels) + &"]".repeat(levels)));
    request.payload = deep(128);
    send(&hub, request.clone()).await;
    request.payload = deep(10_000);
    let status = hub.commands().send_command(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(fields(&status), ["payload.json"]);
}

#[tokio::test]
async fn a_queued_command_is_cancelled_and_who_waits_is_told() {
    let hub = Hub::start().await;
    let cancel = CancelCommandRequest { device_id: "d1".into(), command_id: "c1".into() };
    let status = hub.commands().cancel_command(cancel.clone()).await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::NotFound, "NOT_FOUND"));

    let mut client = hub.commands();
    let call = client.send_command(waiting("c1", "echo", CommandState::Succeeded, 60_000));
    let cancelling = async {
        wait_for(&hub, "c1", CommandState::Queued).await;
        let answer = hub.commands().cancel_command(cancel.clone()).await;
        answer.unwrap().into_inner()
    };
    let (sent, cancelled) = tokio::join!(call, cancelling);
    assert_eq!(state(&sent.unwrap().into_inner()), CommandState::Cancelled);
    assert_eq!(cancelled.outcome(), CancelOutcome::Cancelled);
    assert_eq!(hub.metric("roost_commands_total{outcome=\"cancelled\"}"), 1);

    let again = hub.commands().cancel_command(cancel).await.unwrap().into_inner();
    assert_eq!(again.outcome(), CancelOutcome::Cancelled);
    assert_eq!(hub.metric("roost_commands_total{outcome=\"cancelled\"}"), 1);
}

#[tokio::test]
async fn a_cancellation_that_is_too_late_is_forwarded_to_the_session() {
    let hub = Hub::start().await;
    let (device, session) = hub.edge.connect("default", "d1").await;
    send(&hub, waiting("c1", "silent", CommandState::Sent, 60_000)).await;
    let cancel = CancelCommandRequest { device_id: "d1".into(), command_id: "c1".into() };
    let answer = hub.commands().cancel_command(cancel.clone()).await.unwrap();
    assert_eq!(answer.into_inner().outcome(), CancelOutcome::TooLate);
    let id = CommandId::new("c1").unwrap();
    let expected = NodeEvent::Cancel { device: device.clone(), session, command: id.clone() };
    assert_eq!(hub.edge.event().await, expected);
    hub.edge.report(&device, session, &id, succeeded(), true).await;
    let answer = hub.commands().cancel_command(cancel).await.unwrap();
    assert_eq!(answer.into_inner().outcome(), CancelOutcome::AlreadyTerminal);
}

#[tokio::test]
async fn a_call_that_is_given_up_leaves_the_command_alone() {
    let hub = Hub::start().await;
    let mut client = hub.commands();
    let call = client.send_command(waiting("c1", "echo", CommandState::Succeeded, 60_000));
    tokio::select! {
        biased;
        _ = call => panic!("nobody answers"),
        _ = wait_for(&hub, "c1", CommandState::Queued) => {}
    }
    while hub.metric("roost_commands_in_flight") > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(get(&hub, "c1").await.state(), CommandState::Queued);
    let gone = "roost_grpc_server_handled_total{method=\"SendCommand\",code=\"CANCELLED\"}";
    assert_eq!(hub.metric(gone), 1);
}

#[tokio::test]
async fn commands_are_listed_newest_first_by_page_and_state() {
    let hub = Hub::start().await;
    let (device, session) = hub.edge.connect("default", "d1").await;
    for number in 0..20 {
        send(&hub, waiting(&format!("c{number}"), "silent", CommandState::Sent, 60_000)).await;
    }
    let done = CommandId::new("c3").unwrap();
    hub.edge.report(&device, session, &done, Report::Received, true).await;
    let mut request = ListCommandsRequest {
        device_id: "d1".into(),
        page_size: 15,
        ..ListCommandsRequest::default()
    };
    let mut client = hub.commands();
    let mut list = async |request: &ListCommandsRequest| {
        client.list_commands(request.clone()).await.unwrap().into_inner()
    };
    let first = list(&request).await;
    assert_eq!(first.commands.len(), 15);
    assert_eq!(first.commands[0].command_id, "c19");
    request.page_token = first.next_page_token;
    let second = list(&request).await;
    assert_eq!(second.commands.len(), 5);
    assert_eq!(second.commands[4].command_id, "c0");
    assert_eq!(second.next_page_token, "");
    request.page_token = String::new();
    request.state = CommandState::Received.into();
    let received = list(&request).await;
    assert_eq!(received.commands.len(), 1);
    assert_eq!(received.commands[0].command_id, "c3");
}

#[tokio::test]
async fn a_list_request_names_all_its_mistakes() {
    let hub = Hub::start().await;
    let request = ListCommandsRequest {
        device_id: String::new(),
        page_size: -1,
        state: 77,
        since_time: Some(prost_types::Timestamp { seconds: -1, nanos: 0 }),
        ..ListCommandsRequest::default()
    };
    let status = hub.commands().list_commands(request).await.unwrap_err();
    assert_eq!(reason(&status), "FIELD_MISSING");
    assert_eq!(fields(&status), ["device_id", "page_size", "state", "since_time"]);
    let request = ListCommandsRequest {
        device_id: "d1".into(),
        page_token: "not ours".into(),
        ..ListCommandsRequest::default()
    };
    let status = hub.commands().list_commands(request).await.unwrap_err();
    assert_eq!(reason(&status), "CURSOR_INVALID");
    assert_eq!(fields(&status), ["page_token"]);
}

#[tokio::test]
async fn another_tenant_sees_none_of_it() {
    let hub = Hub::start().await;
    send(&hub, command("c1", "echo")).await;
    let request = GetCommandRequest { device_id: "d1".into(), command_id: "c1".into() };
    let mut theirs = hub.commands_of(Some(THEIRS));
    let status = theirs.get_command(request).await.unwrap_err();
    assert_eq!(reason(&status), "NOT_FOUND");
    let answer = theirs.send_command(command("c1", "fail")).await.unwrap();
    assert!(!answer.into_inner().already_existed);
}
