//! One command for many devices.

use std::collections::BTreeMap;

use roost_cluster::StoreSettings;
use roost_proto::control::v1::batch_send_commands_response::Outcome;
use roost_proto::control::v1::{
    BatchSendCommandsRequest, BatchSendCommandsResponse, CommandState, Durability,
    ListCommandsRequest, SendCommandRequest,
};
use tonic::{Code, Streaming};

use crate::commands::{command, waiting};
use crate::hub::{Hub, fields, reason};

fn batch<'a>(
    devices: impl IntoIterator<Item = &'a str>,
    command: SendCommandRequest,
) -> BatchSendCommandsRequest {
    let device_ids = devices.into_iter().map(str::to_owned).collect();
    let command = SendCommandRequest { device_id: String::new(), ..command };
    BatchSendCommandsRequest { device_ids, command: Some(command) }
}

async fn open(
    hub: &Hub,
    request: BatchSendCommandsRequest,
) -> Streaming<BatchSendCommandsResponse> {
    hub.commands().batch_send_commands(request).await.unwrap().into_inner()
}

/// All answers by device; each device has one.
async fn all(mut stream: Streaming<BatchSendCommandsResponse>) -> BTreeMap<String, Outcome> {
    let mut answers = BTreeMap::new();
    while let Some(answer) = stream.message().await.unwrap() {
        let before = answers.insert(answer.device_id.clone(), answer.outcome.unwrap());
        assert!(before.is_none(), "{} twice", answer.device_id);
    }
    answers
}

fn state(outcome: &Outcome) -> CommandState {
    match outcome {
        Outcome::Sent(sent) => sent.command.as_ref().unwrap().state(),
        Outcome::Error(error) => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn each_device_has_its_own_answer() {
    let settings = StoreSettings { mailbox_commands: 1, ..StoreSettings::default() };
    let hub = Hub::with(settings, |_| {}, |_| {}).await;
    hub.edge.connect("default", "on").await;
    let mut client = hub.commands();
    for (device, id, name) in [("full", "other", "echo"), ("taken", "c1", "another")] {
        let request = SendCommandRequest { device_id: device.into(), ..command(id, name) };
        client.send_command(request).await.unwrap();
    }
    let asked = waiting("c1", "echo", CommandState::Succeeded, 60_000);
    let asked = batch(["full", "on", "taken"], asked);
    let answers = all(open(&hub, asked.clone()).await).await;
    assert_eq!(answers.len(), 3);
    assert_eq!(state(&answers["on"]), CommandState::Succeeded);
    let Outcome::Error(full) = &answers["full"] else { panic!("{:?}", answers["full"]) };
    assert_eq!((full.code, &*full.reason, full.retryable), (8, "QUEUE_FULL", true));
    let Outcome::Error(taken) = &answers["taken"] else { panic!("{:?}", answers["taken"]) };
    assert_eq!((taken.code, &*taken.reason, taken.retryable), (6, "ALREADY_EXISTS", false));
    assert!(taken.message.contains("c1"), "{}", taken.message);
    assert_eq!(hub.metric("roost_commands_in_flight"), 0);
    assert_eq!(hub.metric("roost_commands_total{outcome=\"queue_full\"}"), 1);

    let asked_in_vain = batch(["off"], waiting("c1", "echo", CommandState::Succeeded, 100));
    let answers = all(open(&hub, asked_in_vain).await).await;
    let Outcome::Sent(off) = &answers["off"] else { panic!("{:?}", answers["off"]) };
    assert!(off.wait_timed_out && off.durability() == Durability::Process);

    // The same again finds the same commands.
    let again = all(open(&hub, asked).await).await;
    let Outcome::Sent(on) = &again["on"] else { panic!("{:?}", again["on"]) };
    assert!(on.already_existed);
}

#[tokio::test]
async fn one_id_is_made_up_for_all() {
    let hub = Hub::start().await;
    let devices: Vec<_> = (0..3_000).map(|number| format!("d{number}")).collect();
    let asked = batch(devices.iter().map(String::as_str), command("", "echo"));
    let mut stream = open(&hub, asked).await;
    let mut ids = BTreeMap::new();
    while let Some(answer) = stream.message().await.unwrap() {
        *ids.entry(answer.command_id).or_insert(0) += 1;
    }
    assert_eq!(ids.into_values().collect::<Vec<_>>(), [3_000]);
}

#[tokio::test]
async fn what_is_wrong_for_all_is_said_before_anything_is_sent() {
    let hub = Hub::start().await;
    let mut client = hub.commands();
    let mut wrong = batch(["a", "a b", "a"], command("c 1", ""));
    wrong.command.as_mut().unwrap().device_id = "d".into();
    let status = client.batch_send_commands(wrong).await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::InvalidArgument, "ID_INVALID"));
    let named = fields(&status);
    let expected = [
        "device_ids[1]",
        "device_ids[2]",
        "command.device_id",
        "command.command_id",
        "command.name",
    ];
    assert_eq!(named, expected);

    let mut durable = batch(["a"], command("c1", "echo"));
    durable.command.as_mut().unwrap().set_durability(Durability::Fsync);
    let status = client.batch_send_commands(durable).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(reason(&status), "DURABILITY_UNSUPPORTED");
    assert_eq!(hub.metric("roost_commands_total{outcome=\"invalid\"}"), 2);

    let ids: Vec<_> = (0..10_001).map(|number| format!("{number:0>128}")).collect();
    let many = batch(ids.iter().map(String::as_str), command("c1", "echo"));
    let status = client.batch_send_commands(many).await.unwrap_err();
    assert_eq!(fields(&status), ["device_ids"]);
    let list = ListCommandsRequest { device_id: "a".into(), ..ListCommandsRequest::default() };
    let none = client.list_commands(list).await.unwrap().into_inner();
    assert_eq!(none.commands, []);
}

#[tokio::test]
async fn who_leaves_stops_the_rest_and_keeps_what_was_accepted() {
    let hub = Hub::start().await;
    // They wait for nobody, so at most as many as may be under way are ever sent.
    let devices: Vec<_> = (0..5_000).map(|number| format!("d{number}")).collect();
    let asked = waiting("c1", "echo", CommandState::Succeeded, 300_000);
    let mut stream = open(&hub, batch(devices.iter().map(String::as_str), asked)).await;
    while hub.metric("roost_commands_in_flight") < 1_024 {
        tokio::select! {
            biased;
            answer = stream.message() => panic!("{answer:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    drop(stream);
    while hub.metric("roost_commands_in_flight") > 0 {
        tokio::task::yield_now().await;
    }
    let mut accepted = 0;
    for device in &devices {
        let request = ListCommandsRequest { device_id: device.clone(), ..Default::default() };
        let listed = hub.commands().list_commands(request).await.unwrap().into_inner();
        accepted += listed.commands.len();
        assert!(listed.commands.iter().all(|one| one.state() == CommandState::Queued));
    }
    assert!((1..=1_024).contains(&accepted), "{accepted}");
}

#[tokio::test]
async fn a_stop_ends_the_batch() {
    let hub = Hub::start().await;
    let asked = batch(["off"], waiting("c1", "echo", CommandState::Succeeded, 300_000));
    let mut stream = open(&hub, asked).await;
    while hub.metric("roost_commands_in_flight") < 1 {
        tokio::task::yield_now().await;
    }
    hub.stop.cancel();
    let status = stream.message().await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::Unavailable, "DRAINING"));
}
