//! The checker against random histories of a tiny hub that keeps every promise, and against the same
//! ones with one thing made wrong. Hand-made ones are in `planted.rs`.

mod model;

use std::borrow::Cow;

use model::{Rng, run};
use roost_checker::{Event, History, Kind, Options, Report, Rule, check};
use roost_types::CommandState;

const SEEDS: u64 = 60;

fn report(events: &[Event<'_>]) -> (History, Report) {
    let mut history = History::new();
    for event in events {
        history.add(event).expect("the model makes events");
    }
    let report = check(&mut history, &Options::default());
    (history, report)
}

#[test]
fn what_keeps_every_promise_is_clean() {
    let mut deliveries = 0;
    for seed in 0..SEEDS {
        let (history, report) = report(&run(seed));
        assert!(report.is_clean(), "seed {seed}: {}", report.explain(&history, 2));
        deliveries += report.deliveries;
    }
    assert!(deliveries > 3_000, "the model does something: {deliveries}");
}

/// Makes one thing wrong at a place that the generator draws; `None` where the run has no such place.
type Mutation = fn(&mut Vec<Event<'static>>, &mut Rng) -> Option<()>;

fn each_run_is_caught(rule: Rule, mutate: Mutation) {
    let mut applied = 0;
    for seed in 0..SEEDS {
        let mut events = run(seed);
        if mutate(&mut events, &mut Rng::new(seed ^ 0x5eed)).is_none() {
            continue;
        }
        applied += 1;
        let (history, report) = report(&events);
        let found = report.of(rule);
        assert!(found.is_some(), "seed {seed}: no {rule:?}; {}", report.explain(&history, 3));
    }
    assert!(applied > SEEDS / 2, "{rule:?} was tried {applied} times");
}

/// A random event that this holds for.
fn any(
    events: &[Event<'_>],
    rng: &mut Rng,
    wanted: impl Fn(usize, &Event<'_>) -> bool,
) -> Option<usize> {
    let places: Vec<usize> = (0..events.len()).filter(|&i| wanted(i, &events[i])).collect();
    (!places.is_empty()).then(|| places[rng.below(places.len())])
}

fn same_command(a: &Event<'_>, b: &Event<'_>) -> bool {
    (&a.tenant, &a.device, &a.id) == (&b.tenant, &b.device, &b.id)
}

/// The event that answers with a place, and the place, of a command.
fn seq_of(events: &[Event<'_>], command: &Event<'_>) -> Option<u64> {
    let sends = events.iter().filter(|e| e.e == Kind::Send && same_command(e, command));
    let ops: Vec<u64> = sends.filter_map(|send| send.op).collect();
    let answered = |e: &&Event<'_>| e.e == Kind::Ok && e.op.is_some_and(|op| ops.contains(&op));
    events.iter().find(answered)?.seq
}

fn is_first_delivery(events: &[Event<'_>], at: usize) -> bool {
    let delivered = |e: &Event<'_>| e.e == Kind::Deliver && same_command(e, &events[at]);
    events[at].e == Kind::Deliver && !events[..at].iter().any(delivered)
}

#[test]
fn a_command_without_a_trace_is_caught() {
    each_run_is_caught(Rule::NothingLost, |events, rng| {
        let delivered =
            |_: usize, e: &Event<'_>| e.e == Kind::Deliver && seq_of(events, e).is_some();
        let at = any(events, rng, delivered)?;
        let gone = events[at].clone();
        let traces = [Kind::Deliver, Kind::Execute, Kind::Observe, Kind::Result];
        let ops: Vec<u64> = (events.iter())
            .filter(|e| e.e == Kind::Result && same_command(e, &gone))
            .filter_map(|e| e.op)
            .collect();
        let of_it = |e: &Event<'_>| traces.contains(&e.e) && same_command(e, &gone);
        let answer = |e: &Event<'_>| e.op.is_some_and(|op| ops.contains(&op));
        events.retain(|e| !of_it(e) && !answer(e));
        Some(())
    });
}

#[test]
fn an_exchanged_order_is_caught() {
    each_run_is_caught(Rule::Order, |events, rng| {
        let firsts: Vec<usize> =
            (0..events.len()).filter(|&at| is_first_delivery(events, at)).collect();
        let mut pairs = Vec::new();
        for (n, &one) in firsts.iter().enumerate() {
            let next = firsts[n + 1..].iter().copied().find(|&other| {
                (&events[one].tenant, &events[one].device)
                    == (&events[other].tenant, &events[other].device)
            });
            let placed = |at: usize| seq_of(events, &events[at]).is_some();
            pairs.extend(next.filter(|&other| placed(one) && placed(other)).map(|two| (one, two)));
        }
        let (one, two) = *pairs.get(rng.below(pairs.len().max(1)))?;
        // Whichever repeats come between, the second one now comes first.
        let (t, handed) = (events[one].t, events[one].handed);
        let mut early = events[two].clone();
        (early.t, early.handed) = (t, handed);
        events.insert(one, early);
        // A body cannot come before it was sent; then it is that which is caught.
        let sent = |e: &Event<'_>| e.e == Kind::Send && same_command(e, &events[one]);
        events[..one].iter().any(sent).then_some(())
    });
}

#[test]
fn a_session_that_was_replaced_and_acts_is_caught() {
    each_run_is_caught(Rule::OneSession, |events, rng| {
        let at = any(events, rng, |_, e| e.e == Kind::Claimed && !e.replaced.is_empty())?;
        let mut stale = events[at].clone();
        stale.e = Kind::Apply;
        stale.session = std::mem::take(&mut stale.replaced);
        stale.claimed_ms = None;
        events.insert(at + 1, stale);
        Some(())
    });
}

#[test]
fn a_command_that_comes_late_is_caught() {
    each_run_is_caught(Rule::Deadline, |events, rng| {
        let at = any(events, rng, |_, e| e.e == Kind::Deliver)?;
        let mut late = events[at].clone();
        late.t = events.last()?.t;
        late.handed = Some(late.t);
        events.push(late);
        Some(())
    });
}

#[test]
fn a_second_end_is_caught() {
    each_run_is_caught(Rule::OneEnd, |events, rng| {
        let ended = |_: usize, e: &Event<'_>| e.e == Kind::Observe && e.state == "SUCCEEDED";
        let at = any(events, rng, ended)?;
        let mut second = events[at].clone();
        second.t = events.last()?.t;
        events.push(second.state(CommandState::Expired));
        Some(())
    });
}

#[test]
fn a_doubled_key_is_caught() {
    each_run_is_caught(Rule::Idempotency, |events, rng| {
        let repeated = |_: usize, e: &Event<'_>| e.e == Kind::Ok && e.created == Some(false);
        let at = any(events, rng, repeated)?;
        let send = events.iter().find(|e| e.e == Kind::Send && e.op == events[at].op)?.clone();
        // Only where the one that made it was answered too.
        let ops: Vec<u64> =
            events.iter().filter(|e| same_command(e, &send)).filter_map(|e| e.op).collect();
        events
            .iter()
            .find(|e| e.created == Some(true) && e.op.is_some_and(|op| ops.contains(&op)))?;
        events[at].created = Some(true);
        Some(())
    });
}

#[test]
fn a_crossing_is_caught() {
    each_run_is_caught(Rule::Tenants, |events, rng| {
        let at = any(events, rng, |_, e| e.e == Kind::Deliver)?;
        let other = if events[at].tenant == "a" { "b" } else { "a" };
        events[at].tenant = Cow::Borrowed(other);
        Some(())
    });
}

#[test]
fn a_foreign_body_and_an_uncaused_end_are_caught() {
    each_run_is_caught(Rule::NoPhantom, |events, rng| {
        let at = any(events, rng, |_, e| e.e == Kind::Deliver)?;
        events[at].body = Cow::Borrowed("never sent");
        Some(())
    });
    each_run_is_caught(Rule::NoPhantom, |events, rng| {
        let at = any(events, rng, |_, e| e.e == Kind::Observe && e.state == "SUCCEEDED")?;
        events[at].state = Cow::Borrowed("REJECTED");
        Some(())
    });
}
