//! Commands that do not end at once: for a device that is away, that nobody fetches, that are called
//! back, that take longer than their caller waits. The same on every topology.

use std::time::Duration;

use roost_proto::control::v1::payload::Body;
use roost_proto::control::v1::{CancelOutcome, CommandState};
use roost_testkit::backend::{command, payload, states, waiting, with_id, with_ttl};
use roost_testkit::target::Target;
use roost_testkit::{HANGS, eventually};
use roost_types::{Payload, Text};
use roost_wire::device::ToDevice;

crate::on_every_topology![
    a_command_waits_and_is_delivered_in_order,
    a_command_that_nobody_fetches_expires,
    a_cancelled_command_is_never_delivered,
    a_caller_that_times_out_finds_the_result_later,
    an_id_is_one_command,
    an_unfinished_command_is_handed_out_again,
];

pub(crate) async fn a_command_waits_and_is_delivered_in_order(hub: Target) {
    let backend = hub.backend().await;
    let ids: Vec<String> = (0..20).map(|number| format!("c-{number}")).collect();
    for id in &ids {
        let sent = backend.send(with_id(id, command("late", "do"))).await;
        assert_eq!(sent.command.unwrap().state(), CommandState::Queued);
    }
    assert_eq!(backend.get("late", "c-0").await.state(), CommandState::Queued);
    let mut device = hub.on_b("late").await;
    for id in &ids {
        let got = device.command().await;
        assert_eq!(got.id.as_str(), id);
        device.succeed(&got, None).await;
    }
    for id in &ids {
        let done = backend.get("late", id).await;
        let states = states(&done);
        assert_eq!(states.first(), Some(&CommandState::Queued));
        assert!(states.contains(&CommandState::Dispatched), "{states:?}");
        assert_eq!(states.last(), Some(&CommandState::Succeeded));
    }
}

pub(crate) async fn a_command_that_nobody_fetches_expires(hub: Target) {
    let backend = hub.backend().await;
    let request = with_ttl(Duration::from_secs(1), with_id("short", command("away", "do")));
    backend.send(request).await;
    let expired = async || {
        let found = backend.get("away", "short").await;
        (found.state() == CommandState::Expired).then_some(found)
    };
    let expired = eventually("it expires", HANGS, expired).await;
    assert_eq!(states(&expired), [CommandState::Queued, CommandState::Expired]);
    // A device that comes too late never sees it.
    let mut device = hub.on_a("away").await;
    backend.send(with_id("next", command("away", "do"))).await;
    assert_eq!(device.command().await.id.as_str(), "next");
}

pub(crate) async fn a_cancelled_command_is_never_delivered(hub: Target) {
    let backend = hub.backend().await;
    for id in ["first", "unwanted", "last"] {
        backend.send(with_id(id, command("away", "do"))).await;
    }
    let cancelled = backend.cancel("away", "unwanted").await;
    assert_eq!(cancelled.outcome(), CancelOutcome::Cancelled);
    assert_eq!(backend.cancel("away", "unwanted").await.outcome(), CancelOutcome::Cancelled);
    let found = backend.get("away", "unwanted").await;
    assert_eq!(states(&found), [CommandState::Queued, CommandState::Cancelled]);

    let mut device = hub.on_a("away").await;
    let got = [device.command().await, device.command().await];
    assert_eq!(got.each_ref().map(|command| command.id.as_str()), ["first", "last"]);
    for command in &got {
        // What the device has is not taken back; the wish is forwarded.
        let cancelled = backend.cancel("away", command.id.as_str()).await;
        assert_eq!(cancelled.outcome(), CancelOutcome::TooLate);
        let said = device.next().await.unwrap();
        assert_eq!(said, ToDevice::Cancel { command_id: command.id.clone() });
        device.succeed(command, None).await;
        let cancelled = backend.cancel("away", command.id.as_str()).await;
        assert_eq!(cancelled.outcome(), CancelOutcome::AlreadyTerminal);
    }
}

pub(crate) async fn a_caller_that_times_out_finds_the_result_later(hub: Target) {
    let backend = hub.backend().await;
    let mut device = hub.on_b("slow").await;
    let request = waiting(Duration::from_millis(300), with_id("long", command("slow", "bake")));
    let answer = backend.send(request).await;
    assert!(answer.wait_timed_out);
    let reached = answer.command.unwrap();
    assert!(!reached.state().as_str_name().ends_with("SUCCEEDED"), "{reached:?}");

    let got = device.command().await;
    device.succeed(&got, Some(Payload::text(Text::from("crisp")))).await;
    let found = backend.get("slow", "long").await;
    assert_eq!(found.state(), CommandState::Succeeded);
    let result = found.result.unwrap().payload.unwrap();
    assert_eq!(result.body, Some(Body::Text("crisp".to_owned())));
    // The same call again finds the same command, ended.
    let again = waiting(Duration::from_secs(60), with_id("long", command("slow", "bake")));
    let again = backend.send(again).await;
    assert!(again.already_existed && !again.wait_timed_out);
}

pub(crate) async fn an_id_is_one_command(hub: Target) {
    let backend = hub.backend().await;
    let request = || with_id("once", command("away", "do"));
    assert!(!backend.send(request()).await.already_existed);
    assert!(backend.send(request()).await.already_existed);
    let mut other = request();
    other.payload = Some(payload(Body::Json("1".to_owned())));
    let error = backend.try_send(other).await.unwrap_err();
    assert_eq!(error.reason, "ALREADY_EXISTS");
    let mut device = hub.on_a("away").await;
    assert_eq!(device.command().await.id.as_str(), "once");
    backend.send(with_id("next", command("away", "do"))).await;
    assert_eq!(device.command().await.id.as_str(), "next");
}

pub(crate) async fn an_unfinished_command_is_handed_out_again(hub: Target) {
    let backend = hub.backend().await;
    let mut device = hub.on_a("shaky").await;
    backend.send(with_id("again", command("shaky", "do"))).await;
    let got = device.command().await;
    assert_eq!(got.attempt, 1);
    drop(device);
    let mut device = hub.on_b("shaky").await;
    let got = device.command().await;
    assert_eq!((got.id.as_str(), got.attempt), ("again", 2));
    device.succeed(&got, None).await;
    assert_eq!(backend.get("shaky", "again").await.state(), CommandState::Succeeded);
}
