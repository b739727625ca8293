//! Streams that tell of one command: `SendAndWatchCommand` and `WatchCommand`.

use roost_cluster::{NodeSink as _, Report, StoreHealth, StoreSettings};
use roost_proto::control::v1::send_command_request::Expiry;
use roost_proto::control::v1::{
    CommandState, Durability, SendAndWatchCommandRequest, SendCommandRequest, WatchCommandRequest,
    WatchCommandResponse,
};
use roost_types::{CommandId, DeviceKey, Progress, ResultStatus, SessionId};
use tokio::sync::watch;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::commands::{command, get, send, span, wait_for, waiting};
use crate::edge::{ended, succeeded};
use crate::hub::{Hub, THEIRS, fields, reason};

fn watching(cursor: &str) -> WatchCommandRequest {
    WatchCommandRequest {
        device_id: "d1".into(),
        command_id: "c1".into(),
        cursor: cursor.to_owned(),
    }
}

async fn watch(hub: &Hub, cursor: &str) -> Streaming<WatchCommandResponse> {
    hub.commands().watch_command(watching(cursor)).await.unwrap().into_inner()
}

async fn refused(hub: &Hub, request: WatchCommandRequest) -> Status {
    hub.commands().watch_command(request).await.unwrap_err()
}

fn about(request: SendCommandRequest) -> SendAndWatchCommandRequest {
    SendAndWatchCommandRequest { command: Some(request) }
}

/// The next item: its state and cursor.
async fn next(stream: &mut Streaming<WatchCommandResponse>) -> (CommandState, String) {
    let item = stream.message().await.unwrap().unwrap();
    (item.command.unwrap().state(), item.cursor)
}

fn progress(hub: &Hub, percent: u8) -> Report {
    let time = hub.edge.store.clock.now();
    Report::Progress(Progress { percent: Some(percent), note: Some("halfway".into()), time })
}

/// A device with the command `c1`, sent and not answered.
async fn unanswered(hub: &Hub) -> (DeviceKey, SessionId, CommandId) {
    let (device, session) = hub.edge.connect("default", "d1").await;
    send(hub, waiting("c1", "silent", CommandState::Sent, 60_000)).await;
    (device, session, CommandId::new("c1").unwrap())
}

#[tokio::test]
async fn a_stream_tells_from_the_acceptance_to_the_end() {
    let hub = Hub::start().await;
    let (device, session) = hub.edge.connect("default", "d1").await;
    let mut client = hub.commands();
    let answer = client.send_and_watch_command(about(command("c1", "silent"))).await;
    let mut stream = answer.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(first.durability(), Durability::Process);
    assert!(!first.already_existed && !first.cursor.is_empty());
    assert!(first.command.unwrap().state() <= CommandState::Dispatched);

    let id = wait_for(&hub, "c1", CommandState::Sent).await;
    hub.edge.report(&device, session, &id, progress(&hub, 40), true).await;
    let mut item = stream.message().await.unwrap().unwrap();
    while item.command.as_ref().unwrap().state() < CommandState::Running {
        assert_eq!(item.durability(), Durability::Unspecified);
        item = stream.message().await.unwrap().unwrap();
    }
    let told = item.command.unwrap().progress.unwrap();
    assert_eq!((told.percent, &*told.note), (Some(40), "halfway"));
    hub.edge.report(&device, session, &id, succeeded(), true).await;
    let last = stream.message().await.unwrap().unwrap();
    assert_eq!(last.command.unwrap().state(), CommandState::Succeeded);
    // OK, and nothing more.
    assert!(stream.message().await.unwrap().is_none());
    while hub.metric("roost_commands_in_flight") > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(hub.metric("roost_command_round_trip_seconds_count"), 1);

    let answer = client.send_and_watch_command(about(command("c1", "silent"))).await;
    let mut again = answer.unwrap().into_inner();
    let only = again.message().await.unwrap().unwrap();
    assert!(only.already_existed);
    assert_eq!(only.command.unwrap().state(), CommandState::Succeeded);
    assert!(again.message().await.unwrap().is_none());
}

#[tokio::test]
async fn a_stream_that_cannot_begin_is_refused_as_a_send_is() {
    let hub = Hub::start().await;
    let mut client = hub.commands();
    let mut refused = async |request| client.send_and_watch_command(request).await.unwrap_err();
    let status = refused(SendAndWatchCommandRequest::default()).await;
    assert_eq!(
        (reason(&status), fields(&status)),
        ("FIELD_MISSING".into(), vec!["command".into()])
    );
    let mut request = waiting("c1", "echo", CommandState::Sent, 1_000);
    request.device_id = "a/b".into();
    let status = refused(about(request)).await;
    let named = ["command.device_id", "command.wait_until", "command.wait_timeout"];
    assert_eq!((&*reason(&status), fields(&status)), ("ID_INVALID", named.map(Into::into).into()));
    send(&hub, command("c1", "echo")).await;
    let status = refused(about(command("c1", "fail"))).await;
    assert_eq!(reason(&status), "ALREADY_EXISTS");
    let mut request = command("c2", "echo");
    request.set_durability(Durability::Memory);
    let status = refused(about(request)).await;
    assert_eq!(reason(&status), "DURABILITY_UNSUPPORTED");
    assert_eq!(hub.metric("roost_commands_in_flight"), 0);
}

#[tokio::test]
async fn a_watch_begins_with_the_command_as_it_is_and_resumes_by_its_cursor() {
    let hub = Hub::start().await;
    let (device, session, id) = unanswered(&hub).await;
    let mut stream = watch(&hub, "").await;
    let (state, sent) = next(&mut stream).await;
    assert_eq!(state, CommandState::Sent);
    drop(stream);

    // Nothing happened: the first item is the next change.
    let mut stream = watch(&hub, &sent).await;
    hub.edge.report(&device, session, &id, Report::Received, true).await;
    let (state, received) = next(&mut stream).await;
    assert_eq!(state, CommandState::Received);
    drop(stream);
    // Something happened meanwhile: the first item is how it stands.
    hub.edge.report(&device, session, &id, progress(&hub, 1), true).await;
    hub.edge.report(&device, session, &id, progress(&hub, 2), true).await;
    let mut stream = watch(&hub, &received).await;
    assert_eq!(next(&mut stream).await.0, CommandState::Running);
    hub.edge.report(&device, session, &id, ended(ResultStatus::Failed), true).await;
    let (state, failed) = next(&mut stream).await;
    assert_eq!(state, CommandState::Failed);
    assert!(stream.message().await.unwrap().is_none());
    // The end is known: nothing is left to say.
    assert!(watch(&hub, &failed).await.message().await.unwrap().is_none());
    // What comes after the end changes it no more, and is no secret.
    hub.edge.report(&device, session, &id, succeeded(), true).await;
    let mut stream = watch(&hub, &failed).await;
    let late = stream.message().await.unwrap().unwrap().command.unwrap();
    assert_eq!(late.state(), CommandState::Failed);
    assert_eq!(late.late_result.unwrap().count, 1);
    assert!(stream.message().await.unwrap().is_none());
}

#[tokio::test]
async fn every_report_of_progress_is_a_change() {
    let hub = Hub::start().await;
    let (device, session, id) = unanswered(&hub).await;
    let mut stream = watch(&hub, "").await;
    next(&mut stream).await;
    for percent in [10, 20, 30] {
        hub.edge.report(&device, session, &id, progress(&hub, percent), true).await;
        let item = stream.message().await.unwrap().unwrap().command.unwrap();
        assert_eq!(item.progress.unwrap().percent, Some(percent.into()));
    }
}

#[tokio::test]
async fn a_lost_update_is_found_when_the_channel_is_back() {
    let hub = Hub::start().await;
    let (device, session, id) = unanswered(&hub).await;
    let mut stream = watch(&hub, "").await;
    next(&mut stream).await;
    hub.edge.report(&device, session, &id, succeeded(), false).await;
    hub.control.resubscribed();
    assert_eq!(next(&mut stream).await.0, CommandState::Succeeded);
    assert!(stream.message().await.unwrap().is_none());
}

#[tokio::test]
async fn a_lost_update_is_found_without_any_sign() {
    let hub = Hub::start().await;
    let (device, session, id) = unanswered(&hub).await;
    let mut stream = watch(&hub, "").await;
    next(&mut stream).await;
    hub.edge.report(&device, session, &id, succeeded(), false).await;
    // After ten seconds at the latest, whoever was not told.
    assert_eq!(next(&mut stream).await.0, CommandState::Succeeded);
}

#[tokio::test]
async fn a_lost_session_is_told_though_nothing_was_written() {
    let hub = Hub::start().await;
    let (device, session, _) = unanswered(&hub).await;
    let mut stream = watch(&hub, "").await;
    let (state, sent) = next(&mut stream).await;
    assert_eq!(state, CommandState::Sent);
    hub.edge.disconnect(&device, session).await;
    hub.control.resubscribed();
    let (state, queued) = next(&mut stream).await;
    assert_eq!(state, CommandState::Queued);
    assert_ne!(sent, queued);
}

#[tokio::test]
async fn a_passed_time_is_told_though_nothing_was_written() {
    let hub = Hub::start().await;
    let mut request = command("c1", "echo");
    request.expiry = Some(Expiry::Ttl(span(300)));
    send(&hub, request).await;
    let mut stream = watch(&hub, "").await;
    let mut states = vec![];
    while let Some(item) = stream.message().await.unwrap() {
        states.push(item.command.unwrap().state());
    }
    assert_eq!(states.last(), Some(&CommandState::Expired), "{states:?}");
    assert!(states.len() <= 2, "{states:?}");
}

#[tokio::test]
async fn a_watch_that_makes_no_sense_is_refused() {
    let hub = Hub::start().await;
    let status = refused(&hub, watching("")).await;
    assert_eq!((status.code(), &*reason(&status)), (Code::NotFound, "NOT_FOUND"));
    send(&hub, command("c1", "echo")).await;
    let status = refused(&hub, watching("not ours")).await;
    assert_eq!((&*reason(&status), fields(&status)), ("CURSOR_INVALID", vec!["cursor".into()]));
    let status = refused(&hub, WatchCommandRequest::default()).await;
    assert_eq!(fields(&status), ["device_id", "command_id"]);
    let mut theirs = hub.commands_of(Some(THEIRS));
    let status = theirs.watch_command(watching("")).await.unwrap_err();
    assert_eq!(reason(&status), "NOT_FOUND");
}

#[tokio::test]
async fn a_stop_ends_the_stream_and_the_cursor_leads_on() {
    let hub = Hub::start().await;
    let mut client = hub.commands();
    let answer = client.send_and_watch_command(about(command("c1", "echo"))).await;
    let mut stream = answer.unwrap().into_inner();
    let cursor = stream.message().await.unwrap().unwrap().cursor;
    hub.stop.cancel();
    let status = stream.message().await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::Unavailable, "DRAINING"));
    assert!(status.get_details_retry_info().is_some());
    assert!(cursor.ends_with("QUEUED"), "{cursor}");
}

#[tokio::test]
async fn a_lost_store_ends_the_stream_and_not_the_command() {
    let (health, told) = watch::channel(StoreHealth::Up);
    let hub = Hub::with(StoreSettings::default(), |_| {}, |store| store.health = told).await;
    let (device, session, id) = unanswered(&hub).await;
    let mut stream = watch(&hub, "").await;
    let (_, cursor) = next(&mut stream).await;
    health.send_replace(StoreHealth::Down { reason: "no answer".into() });
    let status = stream.message().await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::Unavailable, "UNAVAILABLE"));
    assert!(status.get_details_retry_info().is_some());
    health.send_replace(StoreHealth::Up);
    hub.edge.report(&device, session, &id, succeeded(), true).await;
    let mut stream = watch(&hub, &cursor).await;
    assert_eq!(next(&mut stream).await.0, CommandState::Succeeded);
    assert_eq!(get(&hub, "c1").await.state(), CommandState::Succeeded);
}
