//! What bounds a command: its attempts and its durability; and what becomes of the dead.

use std::sync::Arc;
use std::time::Duration;

use roost_cluster::{Durability as Given, Mailboxes, Report, Store, StoreError, StoreSettings};
use roost_proto::control::v1::{
    CommandState, Durability, ListCommandsRequest, ListDeadCommandsRequest, RedriveCommandRequest,
    SendCommandRequest,
};
use roost_types::{CommandId, ResultStatus};
use tonic::{Code, Status};

use crate::commands::{command, get, send, span, wait_for};
use crate::edge::ended;
use crate::hub::{Hub, THEIRS, fields, reason};

/// A hub that gives a device that returns no time to answer its last attempt.
async fn without_grace() -> Hub {
    Hub::with(no_grace(), |_| {}, |_| {}).await
}

fn no_grace() -> StoreSettings {
    StoreSettings { undelivered_after: Duration::ZERO, ..StoreSettings::default() }
}

/// A command that broke the session of its device as often as it may.
async fn kill(hub: &Hub, device: &str, id: &str) {
    let request = SendCommandRequest {
        device_id: device.into(),
        max_attempts: 1,
        ordering_key: "valve".into(),
        headers: [("trace".to_owned(), "7".to_owned())].into(),
        ..command(id, "silent")
    };
    let (key, session) = hub.edge.connect("default", device).await;
    // Once its edge has said so, the edge is done with it.
    let request = SendCommandRequest {
        wait_until: CommandState::Sent.into(),
        wait_timeout: Some(span(60_000)),
        ..request
    };
    hub.commands().send_command(request).await.unwrap();
    let command = CommandId::new(id).unwrap();
    hub.edge.report(&key, session, &command, Report::Received, true).await;
    hub.edge.disconnect(&key, session).await;
    let (_, again) = hub.edge.connect("default", device).await;
    let read = hub.edge.store.mailboxes.read(&key, again, 0).await.unwrap();
    assert_eq!((read.commands.len(), read.ended.len()), (0, 1), "{read:?}");
    hub.edge.disconnect(&key, again).await;
}

async fn dead(hub: &Hub, device: &str) -> Vec<String> {
    let mut request = ListDeadCommandsRequest {
        device_id: device.into(),
        page_size: 2,
        ..ListDeadCommandsRequest::default()
    };
    let mut found = vec![];
    loop {
        let page = hub.commands().list_dead_commands(request.clone()).await.unwrap().into_inner();
        assert!(page.commands.len() <= 2);
        let names = page.commands.iter().map(|c| format!("{}/{}", c.device_id, c.command_id));
        found.extend(names);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            found.sort();
            return found;
        }
    }
}

fn again(id: &str) -> RedriveCommandRequest {
    RedriveCommandRequest {
        device_id: "d1".into(),
        command_id: id.into(),
        ..RedriveCommandRequest::default()
    }
}

async fn refused(hub: &Hub, request: RedriveCommandRequest) -> Status {
    hub.commands().redrive_command(request).await.unwrap_err()
}

#[tokio::test]
async fn the_dead_are_listed_by_tenant_and_by_device() {
    let hub = without_grace().await;
    for (device, id) in [("d1", "a"), ("d1", "b"), ("d1", "c"), ("d2", "a")] {
        kill(&hub, device, id).await;
    }
    assert_eq!(dead(&hub, "").await, ["d1/a", "d1/b", "d1/c", "d2/a"]);
    assert_eq!(dead(&hub, "d1").await, ["d1/a", "d1/b", "d1/c"]);
    assert_eq!(dead(&hub, "nobody").await, [""; 0]);
    let shown = get(&hub, "a").await;
    assert_eq!((shown.state(), shown.attempt, shown.max_attempts), (CommandState::Dead, 1, 1));
    let mut theirs = hub.commands_of(Some(THEIRS));
    let none = theirs.list_dead_commands(ListDeadCommandsRequest::default()).await.unwrap();
    assert_eq!(none.into_inner().commands, []);

    let request = ListDeadCommandsRequest {
        device_id: "a/b".into(),
        page_size: -1,
        ..ListDeadCommandsRequest::default()
    };
    let status = hub.commands().list_dead_commands(request).await.unwrap_err();
    assert_eq!(fields(&status), ["device_id", "page_size"]);
    for device_id in ["", "d1"] {
        let request = ListDeadCommandsRequest {
            device_id: device_id.into(),
            page_token: "not ours".into(),
            ..ListDeadCommandsRequest::default()
        };
        let status = hub.commands().list_dead_commands(request).await.unwrap_err();
        assert_eq!(
            (&*reason(&status), fields(&status)),
            ("CURSOR_INVALID", vec!["page_token".into()])
        );
    }
}

#[tokio::test]
async fn a_dead_command_is_driven_again_once() {
    let hub = without_grace().await;
    kill(&hub, "d1", "c1").await;
    let mut client = hub.commands();
    let first = client.redrive_command(again("c1")).await.unwrap().into_inner();
    assert!(!first.already_existed);
    assert_eq!(first.durability(), Durability::Process);
    let (new, old) = (first.command.unwrap(), get(&hub, "c1").await);
    assert_eq!((&*new.command_id, new.state()), ("c1~2", CommandState::Queued));
    assert_eq!((&*old.redriven_as, old.state()), ("c1~2", CommandState::Dead));
    assert_eq!((&new.name, &new.payload, &new.headers), (&old.name, &old.payload, &old.headers));
    assert_eq!((&*new.ordering_key, new.max_attempts), ("valve", 1));
    assert_eq!(dead(&hub, "").await, [""; 0]);
    assert_eq!(dead(&hub, "d1").await, [""; 0]);

    for mut repeated in [again("c1"), again("c1")] {
        let found = client.redrive_command(repeated.clone()).await.unwrap().into_inner();
        assert!(found.already_existed);
        assert_eq!(found.command.unwrap().command_id, "c1~2");
        // Named or derived, it is the same one.
        repeated.new_command_id = "c1~2".into();
        let found = client.redrive_command(repeated).await.unwrap().into_inner();
        assert!(found.already_existed);
    }
    let mut other = again("c1");
    other.new_command_id = "another".into();
    let status = refused(&hub, other).await;
    assert_eq!((status.code(), &*reason(&status)), (Code::AlreadyExists, "ALREADY_EXISTS"));
    assert!(status.message().contains("c1~2"), "{}", status.message());
    // What the new one does is its own affair.
    let request = ListCommandsRequest { device_id: "d1".into(), ..Default::default() };
    let listed = client.list_commands(request).await.unwrap().into_inner();
    assert_eq!(listed.commands.len(), 2);
}

#[tokio::test]
async fn a_redrive_may_choose_its_id_and_its_bounds() {
    let hub = without_grace().await;
    kill(&hub, "d1", "c1").await;
    let mut request = again("c1");
    request.new_command_id = "second-try".into();
    request.max_attempts = 5;
    let answer = hub.commands().redrive_command(request).await.unwrap().into_inner();
    let new = answer.command.unwrap();
    assert_eq!((&*new.command_id, new.max_attempts), ("second-try", 5));
    // A device that is there gets it at once.
    let (key, session) = hub.edge.connect("default", "d1").await;
    let read = hub.edge.store.mailboxes.read(&key, session, 0).await.unwrap();
    assert_eq!(read.commands[0].spec.id.as_str(), "second-try");
    let id = CommandId::new("second-try").unwrap();
    hub.edge.report(&key, session, &id, ended(ResultStatus::Succeeded), true).await;
    assert_eq!(get(&hub, "second-try").await.state(), CommandState::Succeeded);
    // Without an id, what was chosen then is found.
    let mut repeated = again("c1");
    repeated.max_attempts = 5;
    let found = hub.commands().redrive_command(repeated).await.unwrap().into_inner();
    assert_eq!((found.command.unwrap().command_id, found.already_existed), (id.to_string(), true));
}

#[tokio::test]
async fn only_the_dead_are_driven_again() {
    let hub = without_grace().await;
    let status = refused(&hub, again("c1")).await;
    assert_eq!((status.code(), &*reason(&status)), (Code::NotFound, "NOT_FOUND"));
    send(&hub, command("c1", "echo")).await;
    wait_for(&hub, "c1", CommandState::Queued).await;
    let status = refused(&hub, again("c1")).await;
    assert_eq!((status.code(), &*reason(&status)), (Code::FailedPrecondition, "NOT_DEAD"));
    assert!(status.message().contains("QUEUED"), "{}", status.message());
    let mut same = again("c1");
    same.new_command_id = "c1".into();
    same.max_attempts = 1_001;
    let status = refused(&hub, same).await;
    assert_eq!(fields(&status), ["new_command_id", "max_attempts"]);
    let mut theirs = hub.commands_of(Some(THEIRS));
    let status = theirs.redrive_command(again("c1")).await.unwrap_err();
    assert_eq!(reason(&status), "NOT_FOUND");
}

/// The store, but that it fails at settling the dead.
#[derive(Debug)]
struct Unsettled(Arc<dyn Mailboxes>);

macro_rules! passed_on {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        #[tonic::async_trait]
        impl Mailboxes for Unsettled {
            $(async fn $name(&self, $($arg: $type),*) -> Result<$result, StoreError> {
                self.0.$name($($arg),*).await
            })*
            async fn settle_dead(
                &self,
                _: &roost_types::DeviceKey,
                _: &CommandId,
                _: &CommandId,
            ) -> Result<bool, StoreError> {
                Err(StoreError::NotSent("gone away half way".into()))
            }
        }
    };
}
passed_on! {
    enqueue(device: &roost_types::DeviceKey, offer: roost_cluster::Offer<'_>) -> roost_cluster::Enqueued;
    read(device: &roost_types::DeviceKey, session: roost_types::SessionId, after: u64) -> roost_cluster::Batch;
    report(device: &roost_types::DeviceKey, session: roost_types::SessionId, id: &CommandId, report: &Report) -> roost_cluster::Reported;
    cancel(device: &roost_types::DeviceKey, id: &CommandId) -> roost_cluster::Cancelled;
    get(device: &roost_types::DeviceKey, id: &CommandId, waiting: Option<&roost_types::NodeId>) -> Option<roost_types::Command>;
    list(device: &roost_types::DeviceKey, filter: &roost_cluster::CommandFilter, page: &roost_cluster::PageRequest) -> roost_cluster::Page<roost_types::Command>;
    dead(tenant: &roost_types::TenantId, page: &roost_cluster::PageRequest) -> roost_cluster::Page<roost_types::Command>;
    sweep() -> Vec<roost_cluster::SweepFinding>;
}

#[tokio::test]
async fn a_redrive_that_broke_off_is_healed_by_the_next() {
    let tamper = |store: &mut Store| {
        store.mailboxes = Arc::new(Unsettled(Arc::clone(&store.mailboxes)));
    };
    let hub = Hub::with(no_grace(), |_| {}, tamper).await;
    kill(&hub, "d1", "c1").await;
    // The successor is accepted; that the dead one names it is not sure.
    let status = refused(&hub, again("c1")).await;
    assert_eq!((status.code(), &*reason(&status)), (Code::Unavailable, "INDETERMINATE"));
    assert_eq!(dead(&hub, "d1").await, ["d1/c1"]);
    let status = refused(&hub, again("c1")).await;
    assert_eq!(reason(&status), "INDETERMINATE");
    // However often it breaks off, there is one successor.
    let request = ListCommandsRequest { device_id: "d1".into(), ..Default::default() };
    let listed = hub.commands().list_commands(request).await.unwrap().into_inner();
    assert_eq!(listed.commands.len(), 2);
    assert_eq!(listed.commands[0].command_id, "c1~2");
}

#[tokio::test]
async fn durability_is_given_or_refused_with_what_to_do() {
    let hub = without_grace().await;
    let asking = |durability: Durability| {
        let mut request = command("", "echo");
        request.set_durability(durability);
        request
    };
    for durability in [Durability::Unspecified, Durability::Process] {
        assert_eq!(send(&hub, asking(durability)).await.durability(), Durability::Process);
    }
    for durability in [Durability::Memory, Durability::Replicated, Durability::Fsync] {
        let status = hub.commands().send_command(asking(durability)).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(reason(&status), "DURABILITY_UNSUPPORTED");
        for said in [durability.as_str_name(), "DURABILITY_PROCESS", "redis.url"] {
            assert!(status.message().contains(said), "{said}: {}", status.message());
        }
    }
    let replicated = |store: &mut Store| store.durability = Given::Replicated;
    let hub = Hub::with(StoreSettings::default(), |_| {}, replicated).await;
    let status = hub.commands().send_command(asking(Durability::Fsync)).await.unwrap_err();
    assert!(status.message().contains("redis.durability"), "{}", status.message());
    hub.commands().send_command(asking(Durability::Replicated)).await.unwrap();
}

#[tokio::test]
async fn commands_are_listed_by_the_time_of_their_acceptance() {
    let hub = without_grace().await;
    let mut client = hub.commands();
    let mut times = vec![];
    for number in 0..3 {
        let sent = send(&hub, command(&format!("c{number}"), "echo")).await;
        let created = sent.command.unwrap().create_time.unwrap();
        times.push(created);
        // Until the next has another time.
        while hub.edge.store.clock.now().0 <= millis(&created) {
            tokio::task::yield_now().await;
        }
    }
    let mut list = async |since_time, until_time| {
        let request = ListCommandsRequest {
            device_id: "d1".into(),
            since_time,
            until_time,
            ..ListCommandsRequest::default()
        };
        let listed = client.list_commands(request).await.unwrap().into_inner();
        listed.commands.into_iter().map(|command| command.command_id).collect::<Vec<_>>()
    };
    assert_eq!(list(Some(times[1]), None).await, ["c2", "c1"]);
    assert_eq!(list(None, Some(times[1])).await, ["c0"]);
    assert_eq!(list(Some(times[1]), Some(times[2])).await, ["c1"]);
    assert_eq!(list(Some(times[2]), Some(times[1])).await, [""; 0]);
}

fn millis(time: &prost_types::Timestamp) -> u64 {
    u64::try_from(time.seconds * 1_000 + i64::from(time.nanos / 1_000_000)).unwrap()
}
