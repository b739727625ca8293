//! Commands that are followed, sent to many, given up and driven again, and answered too late. The same
//! on every topology; and a watch that goes on at another control node.

use std::collections::BTreeMap;
use std::time::Duration;

use roost::config::RoleChoice;
use roost_proto::control::v1 as pb;
use roost_proto::control::v1::CommandState;
use roost_proto::control::v1::batch_send_commands_response::Outcome;
use roost_testkit::backend::{TestBackend, command, waiting, with_id, with_ttl};
use roost_testkit::device::{Command, TestDevice};
use roost_testkit::hub::TestHub;
use roost_testkit::target::Target;
use roost_testkit::{eventually, soon};
use roost_wire::device::FromDevice;

crate::on_every_topology![
    a_stream_tells_from_the_acceptance_to_the_result,
    a_batch_answers_for_each_device,
    a_poisonous_command_ends_dead_and_is_driven_again,
    a_result_that_comes_too_late_is_kept_beside_the_end,
];

/// Longer than anything takes that works.
const HANGS: Duration = Duration::from_secs(60);

/// The device says that it has the command, and the hub has noted it.
async fn receive(device: &mut TestDevice, command: &Command) {
    let (id, command_id) = (1_000_001, command.id.clone());
    device.connection.queue(&FromDevice::Received { id: Some(id), command_id });
    device.answer(id).await.unwrap();
}

async fn progress(device: &mut TestDevice, command: &Command, percent: u8) {
    let (id, command_id, note) = (1_000_002, command.id.clone(), Some("flushing".into()));
    let percent = Some(percent);
    device.connection.queue(&FromDevice::Progress { id: Some(id), command_id, percent, note });
    device.answer(id).await.unwrap();
}

pub(crate) async fn a_stream_tells_from_the_acceptance_to_the_result(hub: Target) {
    let backend = hub.backend().await;
    let mut device = hub.on_b("told").await;
    let request = with_id("c", command("told", "update"));
    let request = pb::SendAndWatchCommandRequest { command: Some(request) };
    let answer = backend.backend.commands().send_and_watch_command(request).await;
    let mut stream = answer.unwrap().into_inner();
    let mut next = async || soon("the next item", stream.message()).await.unwrap();

    let first = next().await.unwrap();
    assert_ne!(first.durability(), pb::Durability::Unspecified);
    assert!(!first.already_existed);
    let got = device.command().await;
    receive(&mut device, &got).await;
    progress(&mut device, &got, 40).await;
    let running = loop {
        let item = next().await.unwrap().command.unwrap();
        if item.state() == CommandState::Running {
            break item;
        }
        assert!(item.state() < CommandState::Running, "{item:?}");
    };
    let reported = running.progress.unwrap();
    assert_eq!((reported.percent, &*reported.note), (Some(40), "flushing"));
    device.succeed(&got, None).await;
    let last = next().await.unwrap().command.unwrap();
    assert_eq!(last.state(), CommandState::Succeeded);
    assert_eq!(next().await, None);
}

pub(crate) async fn a_batch_answers_for_each_device(hub: Target) {
    let backend = hub.backend().await;
    let fleet = hub.fleet("fleet", 298).await;
    // One has another command of that id, one has no room.
    backend.send(with_id("b", command("taken", "other"))).await;
    let large = pb::payload::Body::Binary(vec![0; 65_536].into());
    for _ in 0..64 {
        let mut filling = command("full", "fill");
        filling.payload = Some(roost_testkit::backend::payload(large.clone()));
        backend.send(filling).await;
    }
    let mut asked = waiting(HANGS, with_id("b", command("", "reboot")));
    asked.payload = Some(roost_testkit::backend::payload(pb::payload::Body::Json("1".into())));
    let names = fleet.devices().iter().map(|(name, _)| name.clone());
    let device_ids = names.chain(["taken".to_owned(), "full".to_owned()]).collect();
    let request = pb::BatchSendCommandsRequest { device_ids, command: Some(asked) };
    let answer = backend.backend.commands().batch_send_commands(request).await;
    let mut stream = answer.unwrap().into_inner();
    let mut outcomes = BTreeMap::new();
    while let Some(answer) = soon("an answer", stream.message()).await.unwrap() {
        let what = match answer.outcome.unwrap() {
            Outcome::Sent(sent) => sent.command.unwrap().state().as_str_name().to_owned(),
            Outcome::Error(error) => error.reason,
        };
        *outcomes.entry(what).or_insert(0) += 1;
    }
    let expected = [("ALREADY_EXISTS", 1), ("COMMAND_STATE_SUCCEEDED", 298), ("QUEUE_FULL", 1)];
    assert_eq!(outcomes, expected.map(|(what, count)| (what.to_owned(), count)).into());
    assert_eq!(fleet.answered(), 298);
}

pub(crate) async fn a_poisonous_command_ends_dead_and_is_driven_again(hub: Target) {
    let backend = hub.backend().await;
    let poison = pb::SendCommandRequest { max_attempts: 2, ..command("mortal", "crash") };
    let mut device = hub.on_a("mortal").await;
    backend.send(with_ttl(Duration::from_secs(600), with_id("poison", poison))).await;
    for attempt in [1, 2] {
        let got = device.command().await;
        assert_eq!((got.id.as_str(), got.attempt), ("poison", attempt));
        receive(&mut device, &got).await;
        drop(device);
        device = hub.on_b("mortal").await;
    }
    let dead = async || {
        let found = backend.get("mortal", "poison").await;
        (found.state() == CommandState::Dead).then_some(found)
    };
    let dead = eventually("it is given up", HANGS, dead).await;
    assert_eq!((dead.attempt, dead.result), (2, None));
    assert_eq!(listed_dead(&backend, "").await, ["poison"]);
    assert_eq!(listed_dead(&backend, "mortal").await, ["poison"]);

    let request = pb::RedriveCommandRequest {
        device_id: "mortal".into(),
        command_id: "poison".into(),
        ..Default::default()
    };
    let mut commands = backend.backend.commands();
    let driven = commands.redrive_command(request.clone()).await.unwrap().into_inner();
    assert!(!driven.already_existed);
    let got = device.command().await;
    assert_eq!((got.id.as_str(), &*got.name, got.attempt), ("poison~2", "crash", 1));
    device.succeed(&got, None).await;
    let found = backend.get("mortal", "poison~2").await;
    assert_eq!((found.state(), found.max_attempts), (CommandState::Succeeded, 2));
    assert_eq!(backend.get("mortal", "poison").await.redriven_as, "poison~2");
    assert_eq!(listed_dead(&backend, "").await, [""; 0]);
    let again = commands.redrive_command(request).await.unwrap().into_inner();
    assert!(again.already_existed);
    assert_eq!(again.command.unwrap().state(), CommandState::Succeeded);
}

async fn listed_dead(backend: &TestBackend, device: &str) -> Vec<String> {
    let mut request =
        pb::ListDeadCommandsRequest { device_id: device.to_owned(), ..Default::default() };
    let mut found = vec![];
    loop {
        let answer = backend.backend.commands().list_dead_commands(request.clone()).await;
        let page = answer.unwrap().into_inner();
        found.extend(page.commands.into_iter().map(|command| command.command_id));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return found;
        }
    }
}

pub(crate) async fn a_result_that_comes_too_late_is_kept_beside_the_end(hub: Target) {
    let backend = hub.backend().await;
    let mut device = hub.on_a("late").await;
    let short = with_ttl(Duration::from_secs(10), with_id("c", command("late", "do")));
    backend.send(short).await;
    let got = device.command().await;
    let over = async || {
        let found = backend.get("late", "c").await;
        (found.state() == CommandState::Expired).then_some(())
    };
    eventually("its time is over", HANGS, over).await;
    // Acknowledged, so that the device need not say it again; and not applied.
    device.succeed(&got, None).await;
    device.succeed(&got, None).await;
    let told = async || {
        let found = backend.get("late", "c").await;
        assert_eq!(found.state(), CommandState::Expired);
        found.late_result.map(|late| (late.count, late.result.unwrap().status()))
    };
    let late = eventually("the late result is recorded", HANGS, told).await;
    assert_eq!(late, (1, pb::CommandResultStatus::Succeeded));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_at_another_control_node() {
    let mut hub = TestHub::two_edges().await;
    hub.add(RoleChoice::Control).await;
    let target = hub.target();
    let one = target.backend().await;
    let other = hub.nodes().last().unwrap().addresses().grpc.unwrap().to_string();
    let other = TestBackend::connect(&other, target.keys.api_key()).await;
    let mut device = target.on_a("followed").await;
    let request = with_id("c", command("followed", "update"));
    let request = pb::SendAndWatchCommandRequest { command: Some(request) };
    let answer = one.backend.commands().send_and_watch_command(request).await;
    let mut stream = answer.unwrap().into_inner();
    let got = device.command().await;
    receive(&mut device, &got).await;
    let cursor = loop {
        let item = soon("an item", stream.message()).await.unwrap().unwrap();
        if item.command.unwrap().state() == CommandState::Received {
            break item.cursor;
        }
    };
    drop(stream);

    let request =
        pb::WatchCommandRequest { device_id: "followed".into(), command_id: "c".into(), cursor };
    let answer = other.backend.commands().watch_command(request).await;
    let mut stream = answer.unwrap().into_inner();
    // What the cursor knows is not told again: the first item is what happens now.
    progress(&mut device, &got, 70).await;
    let item = soon("an item", stream.message()).await.unwrap().unwrap();
    let running = item.command.unwrap();
    assert_eq!(running.state(), CommandState::Running);
    assert_eq!(running.progress.unwrap().percent, Some(70));
    device.succeed(&got, None).await;
    let item = soon("an item", stream.message()).await.unwrap().unwrap();
    assert_eq!(item.command.unwrap().state(), CommandState::Succeeded);
    assert_eq!(soon("the end", stream.message()).await.unwrap(), None);
    hub.shutdown().await;
}
