//! Cases for the `Mailboxes` seam.

use std::time::Duration;

use bytes::Bytes;
use roost_types::{
    Command, CommandResult, CommandSpec, CommandState as S, DeviceId, DeviceKey, Payload, Progress,
    ResultStatus, SessionId, Text, UnixMillis,
};

use super::{
    Fixture, MINUTE, before_its_end, claim, close, command_id, device, eventually, settings, spec,
    tenant,
};
use crate::{
    Cancelled, CommandFilter, Dispatch, Enqueued, Offer, PageRequest, Report, Reported, Store,
    StoreError, StoreSettings, SweepFinding, Tally,
};

pub(super) fn succeeded() -> Report {
    Report::Result(CommandResult {
        payload: Some(Payload::json(Text::from("[1, 2]"))),
        ..CommandResult::new(ResultStatus::Succeeded)
    })
}

pub(super) async fn enqueue(
    store: &Store,
    key: &DeviceKey,
    spec: &CommandSpec,
) -> (Command, Option<Dispatch>) {
    match store.mailboxes.enqueue(key, Offer::new(spec)).await.unwrap() {
        Enqueued::Accepted { command, dispatch, .. } => (*command, dispatch),
        other => panic!("not accepted: {other:?}"),
    }
}

pub(super) async fn send(fx: &Fixture, key: &DeviceKey, id: &str) -> (Command, Option<Dispatch>) {
    enqueue(&fx.store_a, key, &spec(&fx.store_a, id, MINUTE)).await
}

pub(super) async fn read(
    fx: &Fixture,
    key: &DeviceKey,
    session: SessionId,
    after: u64,
) -> Vec<Command> {
    fx.store_a.mailboxes.read(key, session, after).await.unwrap().commands
}

pub(super) async fn state(fx: &Fixture, key: &DeviceKey, id: &str) -> S {
    let found = fx.store_b.mailboxes.get(key, &command_id(id), None).await.unwrap();
    found.unwrap().state
}

pub(super) async fn report(
    fx: &Fixture,
    key: &DeviceKey,
    session: SessionId,
    id: &str,
    report: &Report,
) -> Reported {
    let mail = &fx.store_a.mailboxes;
    mail.report(key, session, &command_id(id), report).await.unwrap()
}

pub(super) fn ids(commands: &[Command]) -> Vec<&str> {
    commands.iter().map(|command| command.spec.id.as_str()).collect()
}

fn states(command: &Command) -> Vec<S> {
    command.transitions.iter().map(|step| step.state).collect()
}

pub async fn a_command_waits_for_its_device<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let key = device("d");
    for id in ["c1", "c2", "c3"] {
        let (command, dispatch) = send(&fx, &key, id).await;
        assert_eq!((command.state, dispatch), (S::Queued, None));
        assert_eq!((command.attempt, command.session), (0, None));
    }
    let seen = fx.store_a.sessions.get(&key).await.unwrap();
    assert_eq!(seen, None, "commands that wait do not make a device known");
    let claim = claim(&fx.store_b, &key, &fx.b);
    let claimed = fx.store_b.sessions.claim(&claim).await.unwrap();
    assert_eq!(claimed.pending, 3);
    let batch = fx.store_b.mailboxes.read(&key, claim.session, 0).await.unwrap();
    assert_eq!(ids(&batch.commands), ["c1", "c2", "c3"]);
    assert!(!batch.more && batch.ended.is_empty());
    for command in &batch.commands {
        assert_eq!((command.state, command.attempt), (S::Dispatched, 1));
        assert_eq!(command.session, Some(claim.session));
    }
    assert!(batch.commands.is_sorted_by(|a, b| a.seq < b.seq));
    let shown = fx.store_a.sessions.get(&key).await.unwrap().unwrap();
    assert_eq!(shown.pending, 3);
    let last = batch.commands[2].seq;
    assert_eq!(read(&fx, &key, claim.session, last).await, []);
    // A second reading from the start repeats, and charges no attempt.
    assert_eq!(read(&fx, &key, claim.session, 0).await, batch.commands);
}

pub async fn commands_for_a_connected_device_go_at_once<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let key = device("d");
    let session = fx.connect(&key).await;
    let mut prev = 0;
    for id in ["c1", "c2", "c3"] {
        let (command, dispatch) = send(&fx, &key, id).await;
        let expected = Dispatch { node: fx.a.clone(), session, prev };
        assert_eq!(dispatch, Some(expected));
        assert_eq!((command.state, command.attempt), (S::Dispatched, 1));
        assert!(command.seq > prev);
        prev = command.seq;
    }
    assert_eq!(fx.store_a.sessions.get(&key).await.unwrap().unwrap().pending, 3);
}

pub async fn the_window_holds_back_and_opens<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(StoreSettings { window: 2, ..settings() }).await.joined().await;
    let key = device("d");
    let session = fx.connect(&key).await;
    let (_, first) = send(&fx, &key, "c1").await;
    let (second, _) = send(&fx, &key, "c2").await;
    let (_, third) = send(&fx, &key, "c3").await;
    send(&fx, &key, "c4").await;
    assert!(first.is_some() && third.is_none());
    assert_eq!(read(&fx, &key, session, second.seq).await, []);
    let Reported::Applied { more, .. } = report(&fx, &key, session, "c1", &succeeded()).await
    else {
        panic!("a result for a command that is out is applied");
    };
    assert!(more, "the window opened for one that waits");
    // c4 waits still, so c5 must not overtake it although the window is open.
    assert_eq!(send(&fx, &key, "c5").await.1, None);
    let next = read(&fx, &key, session, second.seq).await;
    assert_eq!(ids(&next), ["c3"]);
    report(&fx, &key, session, "c3", &succeeded()).await;
    report(&fx, &key, session, "c2", &succeeded()).await;
    assert_eq!(ids(&read(&fx, &key, session, next[0].seq).await), ["c4", "c5"]);
}

/// What one sweep after another finds, until it is a call to read this session's mailbox.
async fn until_to_be_read(fx: &Fixture, key: &DeviceKey, session: SessionId) {
    let call = SweepFinding::Undelivered { device: key.clone(), session, node: fx.a.clone() };
    eventually("a sweep asks for a reading", || async {
        fx.store_b.mailboxes.sweep().await.unwrap().contains(&call)
    })
    .await;
}

pub async fn a_window_that_opened_unheard_is_found<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let brief = Duration::from_millis(100);
    let bounds = StoreSettings { window: 1, undelivered_after: brief, ..settings() };
    let fx = make(bounds).await.joined().await;
    let key = device("d");
    let session = fx.connect(&key).await;
    let (first, _) = send(&fx, &key, "c1").await;
    report(&fx, &key, session, "c1", &Report::Sent).await;
    send(&fx, &key, "c2").await;
    // The edge that reported this did not hear the answer: its next report is late, and says nothing.
    report(&fx, &key, session, "c1", &succeeded()).await;
    let again = report(&fx, &key, session, "c1", &succeeded()).await;
    assert_eq!(again, Reported::Late { state: S::Succeeded });
    until_to_be_read(&fx, &key, session).await;
    assert_eq!(ids(&read(&fx, &key, session, first.seq).await), ["c2"]);
}

pub async fn the_end_of_a_commands_time_opens_the_window<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(StoreSettings { window: 1, ..settings() }).await.joined().await;
    let mut tries = 0;
    let (key, session, first, dispatch, held_back) = before_its_end(&fx.store_a, async |ttl| {
        tries += 1;
        let key = device(&format!("d{tries}"));
        let session = fx.connect(&key).await;
        let brief = spec(&fx.store_a, "brief", ttl);
        let (first, dispatch) = enqueue(&fx.store_a, &key, &brief).await;
        report(&fx, &key, session, "brief", &Report::Sent).await;
        let held_back = send(&fx, &key, "next").await.1;
        (brief.expires, (key, session, first, dispatch, held_back))
    })
    .await;
    assert!(dispatch.is_some());
    assert_eq!(held_back, None);
    until_to_be_read(&fx, &key, session).await;
    assert_eq!(state(&fx, &key, "brief").await, S::Expired);
    assert_eq!(ids(&read(&fx, &key, session, first.seq).await), ["next"]);
}

pub async fn one_id_is_one_command<F: Future<Output = Fixture>>(make: impl Fn(StoreSettings) -> F) {
    let fx = make(settings()).await.joined().await;
    let key = device("d");
    let mail = &fx.store_b.mailboxes;
    let spec = spec(&fx.store_a, "c1", MINUTE);
    let (first, _) = enqueue(&fx.store_a, &key, &spec).await;
    let mut again = spec.clone();
    again.expires = again.expires.plus(MINUTE);
    let Enqueued::Existing { command: found, .. } =
        mail.enqueue(&key, Offer::new(&again)).await.unwrap()
    else {
        panic!("the same command again");
    };
    assert_eq!(*found, first);
    let mut other = spec.clone();
    other.name = "explode".into();
    assert_eq!(mail.enqueue(&key, Offer::new(&other)).await.unwrap(), Enqueued::Conflict);
    let (elsewhere, _) = enqueue(&fx.store_a, &device("e"), &other).await;
    assert_eq!(elsewhere.spec, other);
    let session = fx.connect(&key).await;
    assert_eq!(ids(&read(&fx, &key, session, 0).await), ["c1"]);
    report(&fx, &key, session, "c1", &succeeded()).await;
    let Enqueued::Existing { command: found, .. } =
        mail.enqueue(&key, Offer::new(&spec)).await.unwrap()
    else {
        panic!("the same command after its end");
    };
    assert_eq!(found.state, S::Succeeded);
    assert_eq!(read(&fx, &key, session, 0).await, []);
}

pub async fn a_full_mailbox_refuses_and_recovers<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let bounds = StoreSettings { mailbox_commands: 3, mailbox_bytes: 100, ..settings() };
    let fx = make(bounds).await.joined().await;
    let key = device("d");
    let session = fx.connect(&key).await;
    let mail = &fx.store_a.mailboxes;
    for id in ["c1", "c2", "c3"] {
        send(&fx, &key, id).await;
    }
    let fourth = spec(&fx.store_a, "c4", MINUTE);
    let size = fourth.payload.as_ref().unwrap().len() as u64;
    let refused = mail.enqueue(&key, Offer::new(&fourth)).await.unwrap();
    assert_eq!(refused, Enqueued::QueueFull { commands: 3, bytes: 3 * size });
    assert_eq!(mail.get(&key, &command_id("c4"), None).await.unwrap(), None);
    report(&fx, &key, session, "c2", &succeeded()).await;
    enqueue(&fx.store_a, &key, &fourth).await;
    report(&fx, &key, session, "c1", &succeeded()).await;
    let mut large = spec(&fx.store_a, "large", MINUTE);
    let room = usize::try_from(100 - 2 * size).unwrap();
    large.payload = Some(Payload::binary(Bytes::from(vec![0; room + 1])));
    let refused = mail.enqueue(&key, Offer::new(&large)).await.unwrap();
    assert_eq!(refused, Enqueued::QueueFull { commands: 2, bytes: 2 * size });
    large.payload = Some(Payload::binary(Bytes::from(vec![0; room])));
    enqueue(&fx.store_a, &key, &large).await;
}

pub async fn a_command_goes_through_its_states<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let key = device("d");
    let session = fx.connect(&key).await;
    send(&fx, &key, "c1").await;
    let progress =
        Progress { percent: Some(40), note: Some("flushing".into()), time: UnixMillis(7) };
    for (step, expected) in [
        (Report::Sent, S::Sent),
        (Report::Received, S::Received),
        (Report::Progress(progress.clone()), S::Running),
        (Report::Progress(Progress { percent: None, ..progress.clone() }), S::Running),
        (succeeded(), S::Succeeded),
    ] {
        let Reported::Applied { command, more, .. } = report(&fx, &key, session, "c1", &step).await
        else {
            panic!("{step:?} was not applied");
        };
        assert_eq!((command.state, more), (expected, false));
        assert_eq!(state(&fx, &key, "c1").await, expected);
    }
    for late in [Report::Sent, Report::Received, Report::Progress(progress.clone()), succeeded()] {
        let found = report(&fx, &key, session, "c1", &late).await;
        assert_eq!(found, Reported::Late { state: S::Succeeded });
    }
    assert_eq!(report(&fx, &key, session, "never", &succeeded()).await, Reported::Unknown);
    let command = fx.store_b.mailboxes.get(&key, &command_id("c1"), None).await.unwrap().unwrap();
    let steps = [S::Queued, S::Dispatched, S::Sent, S::Received, S::Running, S::Succeeded];
    assert_eq!(states(&command), steps);
    assert!(command.transitions.is_sorted_by(|a, b| a.time <= b.time));
    assert_eq!(command.progress, Some(Progress { percent: None, ..progress }));
    let Report::Result(result) = succeeded() else { unreachable!() };
    assert_eq!(command.result, Some(result));
    assert_eq!(fx.store_a.sessions.get(&key).await.unwrap().unwrap().pending, 0);
    for (status, error) in [(ResultStatus::Failed, "jammed"), (ResultStatus::Rejected, "not now")] {
        let id = format!("{status:?}");
        send(&fx, &key, &id).await;
        let result = CommandResult { error: Some(error.into()), ..CommandResult::new(status) };
        report(&fx, &key, session, &id, &Report::Result(result.clone())).await;
        let found = fx.store_b.mailboxes.get(&key, &command_id(&id), None).await.unwrap().unwrap();
        assert_eq!((found.state, found.result), (status.state(), Some(result)));
    }
}

pub async fn a_new_session_gets_unfinished_commands_again<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let key = device("d");
    let first = fx.connect(&key).await;
    for id in ["c1", "c2", "c3"] {
        send(&fx, &key, id).await;
        report(&fx, &key, first, id, &Report::Sent).await;
    }
    report(&fx, &key, first, "c1", &Report::Received).await;
    report(&fx, &key, first, "c2", &succeeded()).await;
    fx.store_a.sessions.release(&key, first, &close(&fx.store_a)).await.unwrap();
    assert_eq!(state(&fx, &key, "c1").await, S::Queued, "a lost session queues it again");
    assert_eq!(send(&fx, &key, "c4").await.1, None);
    let second = claim(&fx.store_a, &key, &fx.a);
    assert_eq!(fx.store_a.sessions.claim(&second).await.unwrap().pending, 3);
    let again = read(&fx, &key, second.session, 0).await;
    assert_eq!(ids(&again), ["c1"], "one at a time until it acknowledges one");
    assert_eq!(again[0].attempt, 2);
    assert_eq!(state(&fx, &key, "c1").await, S::Dispatched);
    // What was begun on the old session may end on the new one, or before it was handed out again.
    let third = fx.connect(&key).await;
    let ended = report(&fx, &key, third, "c1", &succeeded()).await;
    assert!(matches!(ended, Reported::Applied { more: true, .. }), "{ended:?}");
    let rest = read(&fx, &key, third, 0).await;
    assert_eq!(ids(&rest), ["c3", "c4"]);
    assert_eq!(rest.iter().map(|c| c.attempt).collect::<Vec<_>>(), [1, 1], "only on their way");
}

pub async fn cancel_wins_only_over_waiting<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let key = device("d");
    let mail = &fx.store_b.mailboxes;
    let waiter = spec(&fx.store_a, "c1", MINUTE);
    fx.store_a
        .mailboxes
        .enqueue(&key, Offer { waiting: Some(&fx.a.id), ..Offer::new(&waiter) })
        .await
        .unwrap();
    send(&fx, &key, "c2").await;
    let Cancelled::Cancelled { command, waiting } =
        mail.cancel(&key, &command_id("c1")).await.unwrap()
    else {
        panic!("a waiting command can be cancelled");
    };
    assert_eq!((command.state, states(&command)), (S::Cancelled, vec![S::Queued, S::Cancelled]));
    assert_eq!(waiting, std::slice::from_ref(&fx.a.id));
    let session = fx.connect(&key).await;
    assert_eq!(
        ids(&read(&fx, &key, session, 0).await),
        ["c2"],
        "a cancelled one is never handed out"
    );
    let Cancelled::TooLate { command, forward } =
        mail.cancel(&key, &command_id("c2")).await.unwrap()
    else {
        panic!("it is with the device");
    };
    assert_eq!(command.state, S::Dispatched);
    assert_eq!(forward, Some((session, fx.a.clone())));
    report(&fx, &key, session, "c2", &succeeded()).await;
    let ended = mail.cancel(&key, &command_id("c2")).await.unwrap();
    assert!(matches!(ended, Cancelled::Ended(command) if command.state == S::Succeeded));
    assert_eq!(mail.cancel(&key, &command_id("never")).await.unwrap(), Cancelled::Unknown);
    assert_eq!(mail.cancel(&device("nobody"), &command_id("c")).await.unwrap(), Cancelled::Unknown);
}

pub async fn an_expired_command_is_never_handed_out<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let key = device("d");
    let short = Duration::from_millis(150);
    let brief = spec(&fx.store_a, "brief", short);
    fx.store_a
        .mailboxes
        .enqueue(&key, Offer { waiting: Some(&fx.b.id), ..Offer::new(&brief) })
        .await
        .unwrap();
    send(&fx, &key, "long").await;
    eventually("it is over", || async { state(&fx, &key, "brief").await == S::Expired }).await;
    let session = fx.connect(&key).await;
    let batch = fx.store_a.mailboxes.read(&key, session, 0).await.unwrap();
    assert_eq!(ids(&batch.commands), ["long"]);
    let (expired, waiting) = &batch.ended[0];
    assert_eq!((expired.state, expired.spec.id.as_str()), (S::Expired, "brief"));
    assert_eq!(waiting, std::slice::from_ref(&fx.b.id));
    let found = report(&fx, &key, session, "brief", &succeeded()).await;
    assert_eq!(found, Reported::Late { state: S::Expired });
    // One that is with the device when its time is over ends too; its result comes late.
    let mut tries = 0;
    let (running, dispatch) = before_its_end(&fx.store_a, async |ttl| {
        tries += 1;
        let running = format!("running{tries}");
        let brief = spec(&fx.store_a, &running, ttl);
        let (_, dispatch) = enqueue(&fx.store_a, &key, &brief).await;
        report(&fx, &key, session, &running, &Report::Received).await;
        (brief.expires, (running, dispatch))
    })
    .await;
    assert!(dispatch.is_some());
    eventually("it is over", || async { state(&fx, &key, &running).await == S::Expired }).await;
    let found = report(&fx, &key, session, &running, &succeeded()).await;
    assert_eq!(found, Reported::Late { state: S::Expired });
}

pub async fn a_sweep_ends_what_is_over_and_finds_the_undelivered<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let brief = Duration::from_millis(100);
    let fx = make(StoreSettings { undelivered_after: brief, ..settings() }).await.joined().await;
    let key = device("d");
    let offline = device("offline");
    let over = spec(&fx.store_a, "over", brief);
    fx.store_a
        .mailboxes
        .enqueue(&offline, Offer { waiting: Some(&fx.b.id), ..Offer::new(&over) })
        .await
        .unwrap();
    let session = fx.connect(&key).await;
    send(&fx, &key, "lost").await;
    send(&fx, &key, "sent").await;
    report(&fx, &key, session, "sent", &Report::Sent).await;
    let (mut expired, mut undelivered) = (0, 0);
    while expired == 0 || undelivered == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        for finding in fx.store_b.mailboxes.sweep().await.unwrap() {
            match finding {
                SweepFinding::Expired { command, waiting } => {
                    assert_eq!((command.spec.id.as_str(), command.state), ("over", S::Expired));
                    assert_eq!(waiting, std::slice::from_ref(&fx.b.id));
                    expired += 1;
                }
                SweepFinding::Undelivered { device, session: to, node } => {
                    assert_eq!((&device, to, &node), (&key, session, &fx.a));
                    undelivered += 1;
                }
            }
        }
    }
    assert_eq!(expired, 1);
    assert_eq!(state(&fx, &offline, "over").await, S::Expired);
    assert_eq!(state(&fx, &key, "lost").await, S::Dispatched);
    // The edge reads again from where it stands and gets both, the sent one too.
    assert_eq!(ids(&read(&fx, &key, session, 0).await), ["lost", "sent"]);
}

pub async fn seq_grows_through_an_emptied_mailbox<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let key = device("d");
    let session = fx.connect(&key).await;
    let mut last = 0;
    for n in 0..5 {
        let id = format!("c{n}");
        let (command, dispatch) = send(&fx, &key, &id).await;
        assert!(command.seq > last, "an edge's cursor must never be ahead of a new command");
        assert!(dispatch.unwrap().prev <= last);
        last = command.seq;
        report(&fx, &key, session, &id, &succeeded()).await;
    }
}

pub async fn a_reading_past_the_batch_goes_on<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(StoreSettings { window: 90, ..settings() }).await.joined().await;
    let key = device("d");
    for n in 0..90 {
        send(&fx, &key, &format!("c{n}")).await;
    }
    let session = fx.connect(&key).await;
    let (mut cursor, mut seen) = (0, Vec::new());
    loop {
        let batch = fx.store_a.mailboxes.read(&key, session, cursor).await.unwrap();
        seen.extend(batch.commands.iter().map(|command| command.spec.id.to_string()));
        let Some(last) = batch.commands.last() else {
            break;
        };
        cursor = last.seq;
        if !batch.more {
            break;
        }
    }
    assert_eq!(seen, (0..90).map(|n| format!("c{n}")).collect::<Vec<_>>());
}

pub async fn commands_are_listed_newest_first<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let key = device("d");
    let session = fx.connect(&key).await;
    for n in 0..10 {
        let id = format!("c{n}");
        send(&fx, &key, &id).await;
        if n % 2 == 0 {
            report(&fx, &key, session, &id, &succeeded()).await;
        }
    }
    for (state, size, expected) in [
        (None, 3, (0..10).rev().collect::<Vec<_>>()),
        (Some(S::Succeeded), 2, vec![8, 6, 4, 2, 0]),
        (Some(S::Cancelled), 2, vec![]),
    ] {
        let mut page = PageRequest { size, token: None };
        let mut seen = Vec::new();
        loop {
            let filter = CommandFilter { state, ..CommandFilter::default() };
            let found = fx.store_b.mailboxes.list(&key, &filter, &page).await.unwrap();
            assert!(found.items.len() <= size);
            seen.extend(found.items.iter().map(|command| command.spec.id.to_string()));
            page.token = found.next;
            if page.token.is_none() {
                break;
            }
        }
        assert_eq!(seen, expected.iter().map(|n| format!("c{n}")).collect::<Vec<_>>());
    }
    let page = PageRequest { size: 5, token: None };
    let nobody = fx
        .store_b
        .mailboxes
        .list(&device("nobody"), &CommandFilter::default(), &page)
        .await
        .unwrap();
    assert_eq!((nobody.items, nobody.next), (vec![], None));
}

pub async fn payloads_pass_unchanged<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let key = device("d");
    let session = fx.connect(&key).await;
    let binary = Payload::binary(Bytes::from((0..=255).collect::<Vec<u8>>()));
    for (n, payload) in [
        None,
        Some(Payload::json(Text::from("{ \"a\":1.0 ,\"b\" : [ ] }"))),
        Some(Payload::text("<x>é</x>\r\n\0".into()).with_content_type(Some("application/xml"))),
        Some(binary.clone()),
        Some(Payload::binary(Bytes::new())),
        Some(Payload::binary(Bytes::from(vec![7; 65_536]))),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("c{n}");
        let mut spec = spec(&fx.store_a, &id, MINUTE);
        spec.payload = payload.clone();
        spec.headers = vec![("a".into(), "".into()), ("b".into(), "é\n".into())];
        let (sent, _) = enqueue(&fx.store_a, &key, &spec).await;
        assert_eq!(sent.spec, spec);
        assert_eq!(read(&fx, &key, session, sent.seq - 1).await[0].spec, spec);
        let result = CommandResult { payload, ..CommandResult::new(ResultStatus::Succeeded) };
        report(&fx, &key, session, &id, &Report::Result(result.clone())).await;
        let found = fx.store_b.mailboxes.get(&key, &spec.id, None).await.unwrap().unwrap();
        assert_eq!((found.spec, found.result), (spec, Some(result)));
    }
}

pub async fn whoever_waits_is_named<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let key = device("d");
    let session = fx.connect(&key).await;
    let spec = spec(&fx.store_a, "c1", MINUTE);
    let mail = &fx.store_a.mailboxes;
    mail.enqueue(&key, Offer { waiting: Some(&fx.a.id), ..Offer::new(&spec) }).await.unwrap();
    mail.enqueue(&key, Offer { waiting: Some(&fx.a.id), ..Offer::new(&spec) }).await.unwrap();
    mail.get(&key, &spec.id, Some(&fx.b.id)).await.unwrap();
    for step in [Report::Sent, succeeded()] {
        let Reported::Applied { mut waiting, .. } = report(&fx, &key, session, "c1", &step).await
        else {
            panic!("{step:?} was not applied");
        };
        waiting.sort();
        assert_eq!(waiting, [fx.a.id.clone(), fx.b.id.clone()]);
    }
}

pub async fn fifty_at_once_with_one_id_are_one_command<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let key = device("d");
    let spec = spec(&fx.store_a, "c1", MINUTE);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..50 {
        let store = if n % 2 == 0 { &fx.store_a } else { &fx.store_b };
        let (mail, key, spec) = (store.mailboxes.clone(), key.clone(), spec.clone());
        tasks.spawn(async move {
            let enqueued = mail.enqueue(&key, Offer::new(&spec)).await.unwrap();
            matches!(enqueued, Enqueued::Accepted { .. })
        });
    }
    let accepted = tasks.join_all().await;
    assert_eq!(accepted.into_iter().filter(|accepted| *accepted).count(), 1);
    let session = fx.connect(&key).await;
    assert_eq!(ids(&read(&fx, &key, session, 0).await), ["c1"]);
}

pub async fn tenants_do_not_see_each_other<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let ours = device("d");
    let theirs = DeviceKey::new(tenant("other"), DeviceId::new("d").unwrap());
    send(&fx, &ours, "c1").await;
    let mail = &fx.store_a.mailboxes;
    let page = PageRequest { size: 10, token: None };
    assert_eq!(mail.get(&theirs, &command_id("c1"), None).await.unwrap(), None);
    assert_eq!(mail.list(&theirs, &CommandFilter::default(), &page).await.unwrap().items, []);
    assert_eq!(mail.cancel(&theirs, &command_id("c1")).await.unwrap(), Cancelled::Unknown);
    let session = fx.connect(&theirs).await;
    assert_eq!(read(&fx, &theirs, session, 0).await, []);
    let foreign = fx.store_a.mailboxes.read(&ours, session, 0).await;
    assert_eq!(foreign, Err(StoreError::Fenced));
}

pub async fn a_session_claimed_again_keeps_what_it_delivered<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let key = device("d");
    let held = claim(&fx.store_a, &key, &fx.a);
    fx.store_a.sessions.claim(&held).await.unwrap();
    let (first, _) = send(&fx, &key, "c1").await;
    report(&fx, &key, held.session, "c1", &Report::Received).await;
    // Swept by mistake of nobody: its node was silent for longer than its lease.
    fx.store_b.sessions.release(&key, held.session, &close(&fx.store_b)).await.unwrap();
    send(&fx, &key, "c2").await;
    let again = fx.store_a.sessions.revalidate(std::slice::from_ref(&held)).await.unwrap();
    assert_eq!(again, [crate::Revalidated::Reclaimed]);
    let next = read(&fx, &key, held.session, first.seq).await;
    assert_eq!(ids(&next), ["c2"], "the session has c1 and works on it");
    assert_eq!(state(&fx, &key, "c1").await, S::Received);
    let (_, dispatch) = send(&fx, &key, "c3").await;
    assert_eq!(dispatch.map(|dispatch| dispatch.prev), Some(next[0].seq));
    let ended = report(&fx, &key, held.session, "c1", &succeeded()).await;
    assert!(matches!(ended, Reported::Applied { .. }), "{ended:?}");
}

pub async fn what_waits_is_counted<F: Future<Output = Fixture>>(make: impl Fn(StoreSettings) -> F) {
    let fx = make(settings()).await.joined().await;
    let mail = &fx.store_b.mailboxes;
    assert_eq!(mail.tally().await.unwrap(), Tally::default());
    let session = fx.connect(&device("d-0")).await;
    let (first, _) = send(&fx, &device("d-0"), "c").await;
    let (second, _) = send(&fx, &device("d-0"), "c2").await;
    // More of one device than a store need look at each time.
    for n in 0..80 {
        send(&fx, &device("d-1"), &format!("c{n}")).await;
    }
    send(&fx, &DeviceKey::new(tenant("other"), DeviceId::new("d").unwrap()), "c").await;
    let found = mail.tally().await.unwrap();
    assert_eq!(found, Tally { pending: 83, oldest: Some(first.created) });
    report(&fx, &device("d-0"), session, "c", &succeeded()).await;
    let found = mail.tally().await.unwrap();
    assert_eq!(found, Tally { pending: 82, oldest: Some(second.created) });
}
