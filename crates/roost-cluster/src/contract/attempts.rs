//! Cases for what a lost session costs a command: probation, attempts, dead commands and what takes
//! their place; and for what comes after an end.

use std::time::Duration;

use roost_types::{
    Command, CommandResult, CommandSpec, CommandState as S, DeviceKey, Progress, ResultStatus,
    UnixMillis,
};

use super::mailboxes::{enqueue, ids, read, report, send, state, succeeded};
use super::{Fixture, MINUTE, close, command_id, device, eventually, settings, spec, tenant};
use crate::{CommandFilter, Enqueued, Offer, PageRequest, Report, Reported, StoreSettings};

fn attempts(commands: &[Command]) -> Vec<(&str, u32)> {
    commands.iter().map(|command| (command.spec.id.as_str(), command.attempt)).collect()
}

/// A command that is given up after so many attempts.
fn bounded(fx: &Fixture, id: &str, max_attempts: u32) -> CommandSpec {
    CommandSpec { max_attempts, ..spec(&fx.store_a, id, MINUTE) }
}

async fn get(fx: &Fixture, key: &DeviceKey, id: &str) -> Command {
    fx.store_b.mailboxes.get(key, &command_id(id), None).await.unwrap().unwrap()
}

async fn dead(fx: &Fixture, of: &str) -> Vec<String> {
    let mut page = PageRequest { size: 2, token: None };
    let mut found = Vec::new();
    loop {
        let part = fx.store_b.mailboxes.dead(&tenant(of), &page).await.unwrap();
        found.extend(part.items.iter().map(|command| command.spec.id.to_string()));
        page.token = part.next;
        if page.token.is_none() {
            found.sort();
            return found;
        }
    }
}

pub async fn after_a_lost_session_commands_come_one_at_a_time<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let key = device("d");
    let first = fx.connect(&key).await;
    for id in ["c1", "c2", "c3"] {
        send(&fx, &key, id).await;
        report(&fx, &key, first, id, &Report::Sent).await;
    }
    // A takeover loses the old session like an end does.
    let second = fx.connect(&key).await;
    let head = read(&fx, &key, second, 0).await;
    assert_eq!(attempts(&head), [("c1", 2)], "the head may be what broke the session");
    let cursor = head[0].seq;
    assert_eq!(read(&fx, &key, second, cursor).await, []);
    assert_eq!(send(&fx, &key, "c4").await.1, None, "the window is one");
    let sent = report(&fx, &key, second, "c1", &Report::Sent).await;
    assert!(
        matches!(sent, Reported::Applied { more: false, .. }),
        "no sign of the device: {sent:?}"
    );
    let received = report(&fx, &key, second, "c1", &Report::Received).await;
    assert!(matches!(received, Reported::Applied { more: true, .. }), "{received:?}");
    let rest = read(&fx, &key, second, cursor).await;
    assert_eq!(attempts(&rest), [("c2", 1), ("c3", 1), ("c4", 1)]);
}

pub async fn a_session_that_was_given_nothing_ends_no_probation<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let key = device("d");
    let first = fx.connect(&key).await;
    send(&fx, &key, "c1").await;
    send(&fx, &key, "c2").await;
    fx.store_a.sessions.release(&key, first, &close(&fx.store_a)).await.unwrap();
    // It comes and goes before anything is read.
    let second = fx.connect(&key).await;
    fx.store_a.sessions.release(&key, second, &close(&fx.store_a)).await.unwrap();
    let third = fx.connect(&key).await;
    assert_eq!(attempts(&read(&fx, &key, third, 0).await), [("c1", 2)]);
    // Its end lets the next one through, and is an acknowledgement.
    report(&fx, &key, third, "c1", &succeeded()).await;
    assert_eq!(attempts(&read(&fx, &key, third, 0).await), [("c2", 1)]);
    assert!(send(&fx, &key, "c3").await.1.is_some(), "the window is open again");
}

pub async fn a_session_without_commands_leaves_no_probation<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let key = device("d");
    let first = fx.connect(&key).await;
    send(&fx, &key, "c1").await;
    report(&fx, &key, first, "c1", &succeeded()).await;
    fx.store_a.sessions.release(&key, first, &close(&fx.store_a)).await.unwrap();
    send(&fx, &key, "c2").await;
    send(&fx, &key, "c3").await;
    let second = fx.connect(&key).await;
    assert_eq!(attempts(&read(&fx, &key, second, 0).await), [("c2", 1), ("c3", 1)]);
}

pub async fn a_poison_command_dies_and_the_others_get_through<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let key = device("d");
    enqueue(&fx.store_a, &key, &bounded(&fx, "poison", 3)).await;
    enqueue(&fx.store_a, &key, &bounded(&fx, "good", 1)).await;
    for attempt in 1..=3 {
        let session = fx.connect(&key).await;
        let handed = read(&fx, &key, session, 0).await;
        assert_eq!((handed[0].spec.id.as_str(), handed[0].attempt), ("poison", attempt));
        assert_eq!(handed.len(), if attempt == 1 { 2 } else { 1 });
        // The device crashes.
    }
    let session = fx.connect(&key).await;
    let batch = fx.store_a.mailboxes.read(&key, session, 0).await.unwrap();
    assert_eq!(attempts(&batch.commands), [("good", 1)], "it was never charged for the crashes");
    let ended: Vec<_> =
        batch.ended.iter().map(|(command, _)| (command.spec.id.as_str(), command.state)).collect();
    assert_eq!(ended, [("poison", S::Dead)]);
    report(&fx, &key, session, "good", &succeeded()).await;
    let poison = get(&fx, &key, "poison").await;
    assert_eq!((poison.state, poison.attempt), (S::Dead, 3));
    assert_eq!(dead(&fx, "default").await, ["poison"]);
    assert_eq!(dead(&fx, "other").await, Vec::<String>::new());
}

pub async fn a_received_command_is_charged_for_each_lost_session<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let no_grace = StoreSettings { undelivered_after: Duration::ZERO, ..settings() };
    let fx = make(no_grace).await.joined().await;
    let key = device("d");
    let first = fx.connect(&key).await;
    enqueue(&fx.store_a, &key, &bounded(&fx, "c1", 9)).await;
    enqueue(&fx.store_a, &key, &bounded(&fx, "c2", 1)).await;
    enqueue(&fx.store_a, &key, &bounded(&fx, "c3", 1)).await;
    for id in ["c1", "c2"] {
        report(&fx, &key, first, id, &Report::Received).await;
    }
    let second = fx.connect(&key).await;
    report(&fx, &key, second, "c1", &succeeded()).await;
    let batch = fx.store_a.mailboxes.read(&key, second, 0).await.unwrap();
    assert_eq!(attempts(&batch.commands), [("c3", 1)]);
    assert_eq!(batch.ended[0].0.state, S::Dead, "c2 was received, and had one attempt");
    assert_eq!(state(&fx, &key, "c2").await, S::Dead);
}

pub async fn a_device_that_returns_may_answer_its_last_attempt<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let grace = Duration::from_secs(600);
    let fx = make(StoreSettings { undelivered_after: grace, ..settings() }).await.joined().await;
    let key = device("d");
    let first = fx.connect(&key).await;
    enqueue(&fx.store_a, &key, &bounded(&fx, "c1", 1)).await;
    enqueue(&fx.store_a, &key, &bounded(&fx, "c2", 1)).await;
    report(&fx, &key, first, "c1", &Report::Received).await;
    // The mailbox is read before the answer that the device comes back with is looked at.
    let second = fx.connect(&key).await;
    let batch = fx.store_a.mailboxes.read(&key, second, 0).await.unwrap();
    assert_eq!((batch.commands, batch.ended), (vec![], vec![]));
    let answered = report(&fx, &key, second, "c1", &succeeded()).await;
    assert!(matches!(answered, Reported::Applied { more: true, .. }), "{answered:?}");
    assert_eq!(state(&fx, &key, "c1").await, S::Succeeded);
    assert_eq!(attempts(&read(&fx, &key, second, 0).await), [("c2", 1)]);
}

pub async fn dead_commands_are_listed_until_they_are_settled<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    for n in 0..5 {
        let key = device(&format!("d{n}"));
        enqueue(&fx.store_a, &key, &bounded(&fx, &format!("c{n}"), 1)).await;
        for _ in 0..2 {
            let session = fx.connect(&key).await;
            fx.store_a.mailboxes.read(&key, session, 0).await.unwrap();
        }
    }
    assert_eq!(dead(&fx, "default").await, ["c0", "c1", "c2", "c3", "c4"]);
    let (key, id, next) = (device("d3"), command_id("c3"), command_id("c3~2"));
    let mail = &fx.store_b.mailboxes;
    for _ in 0..2 {
        assert!(mail.settle_dead(&key, &id, &next).await.unwrap());
    }
    assert_eq!(get(&fx, &key, "c3").await.redriven_as, Some(next.clone()));
    assert_eq!(dead(&fx, "default").await, ["c0", "c1", "c2", "c4"]);
    send(&fx, &key, "alive").await;
    assert!(!mail.settle_dead(&key, &command_id("alive"), &next).await.unwrap());
    assert!(!mail.settle_dead(&key, &command_id("never"), &next).await.unwrap());
    let foreign = PageRequest { size: 2, token: Some("not a place".into()) };
    assert!(mail.dead(&tenant("default"), &foreign).await.is_err());
}

pub async fn a_late_result_is_kept_beside_the_end<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let key = device("d");
    let session = fx.connect(&key).await;
    send(&fx, &key, "c1").await;
    report(&fx, &key, session, "c1", &succeeded()).await;
    let ended = get(&fx, &key, "c1").await;
    let late = Reported::Late { state: S::Succeeded };
    assert_eq!(report(&fx, &key, session, "c1", &succeeded()).await, late);
    assert_eq!(get(&fx, &key, "c1").await, ended, "a repetition is no news");
    let failed = CommandResult {
        error: Some("on second thoughts".into()),
        ..CommandResult::new(ResultStatus::Failed)
    };
    for _ in 0..2 {
        assert_eq!(report(&fx, &key, session, "c1", &Report::Result(failed.clone())).await, late);
    }
    let after = get(&fx, &key, "c1").await;
    assert_eq!((after.state, &after.result), (S::Succeeded, &ended.result), "the end stands");
    assert_eq!(after.transitions, ended.transitions);
    let kept = after.late.expect("what came late is kept");
    assert_eq!((kept.result, kept.count), (failed, 1));
    assert!(after.revision > ended.revision);
}

pub async fn a_revision_grows_with_every_change<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let key = device("d");
    let session = fx.connect(&key).await;
    let (accepted, _) = send(&fx, &key, "c1").await;
    let progress = |percent| {
        let time = UnixMillis(1);
        Report::Progress(Progress { percent: Some(percent), note: None, time })
    };
    let mut last = accepted.revision;
    let steps =
        [Report::Sent, Report::Received, progress(1), progress(2), progress(2), succeeded()];
    for step in steps {
        let Reported::Applied { command, .. } = report(&fx, &key, session, "c1", &step).await
        else {
            panic!("{step:?} changes it");
        };
        assert!(command.revision > last, "{step:?}");
        last = command.revision;
        assert_eq!(get(&fx, &key, "c1").await.revision, last);
    }
    report(&fx, &key, session, "c1", &Report::Received).await;
    assert_eq!(get(&fx, &key, "c1").await.revision, last, "nothing was changed");
}

pub async fn commands_are_listed_by_time<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let key = device("d");
    let mut times = Vec::new();
    for n in 0..3 {
        let (command, _) = send(&fx, &key, &format!("c{n}")).await;
        times.push(command.created);
        // The next one is accepted at a later millisecond.
        let later = command.created.plus(Duration::from_millis(40));
        eventually("time passes", || async { fx.store_a.clock.now() > later }).await;
    }
    let page = PageRequest { size: 10, token: None };
    let listed = async |since: Option<UnixMillis>, until: Option<UnixMillis>| {
        let filter = CommandFilter { since, until, state: Some(S::Queued) };
        let found = fx.store_b.mailboxes.list(&key, &filter, &page).await.unwrap();
        ids(&found.items).join(" ")
    };
    assert_eq!(listed(None, None).await, "c2 c1 c0");
    assert_eq!(listed(Some(times[1]), None).await, "c2 c1");
    assert_eq!(listed(None, Some(times[1])).await, "c0");
    assert_eq!(listed(Some(times[1]), Some(times[2])).await, "c1");
}

pub async fn what_is_asked_beside_the_body_is_kept_and_compared<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let key = device("d");
    let asked = CommandSpec { ordering_key: Some("valve-3".into()), ..bounded(&fx, "c1", 7) };
    let offer = Offer { durability: Some(fx.store_a.durability), ..Offer::new(&asked) };
    let accepted = fx.store_a.mailboxes.enqueue(&key, offer).await.unwrap();
    let Enqueued::Accepted { command, durability, .. } = accepted else {
        panic!("not accepted: {accepted:?}");
    };
    assert_eq!((&command.spec, durability), (&asked, fx.store_a.durability));
    assert_eq!(get(&fx, &key, "c1").await.spec, asked);
    let again = fx.store_b.mailboxes.enqueue(&key, offer).await.unwrap();
    assert!(
        matches!(again, Enqueued::Existing { durability, .. } if durability == fx.store_b.durability)
    );
    for other in [
        CommandSpec { ordering_key: None, ..asked.clone() },
        CommandSpec { max_attempts: 8, ..asked.clone() },
    ] {
        let answer = fx.store_b.mailboxes.enqueue(&key, Offer::new(&other)).await.unwrap();
        assert_eq!(answer, Enqueued::Conflict);
    }
}
