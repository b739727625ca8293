//! Recording from many threads, and histories as files. What is checked in them is in `planted.rs`.

use roost_checker::{Event, History, Kind, Options, Recorder, check, monotonic_us};

fn send<'a>(id: &'a str, body: &'a str) -> Event<'a> {
    Event { expires_ms: Some(u64::MAX / 2_000), ..Event::of_device(Kind::Send, "t", "d") }
        .command(id)
        .body(body)
}

#[test]
fn threads_record_one_history_in_the_order_of_one_clock() {
    let recorder = Recorder::new();
    let before = monotonic_us();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let recorder = &recorder;
            scope.spawn(move || {
                for n in 0..250 {
                    let id = format!("c{thread}-{n}");
                    let op = recorder.invoke(send(&id, &id)).unwrap();
                    let kind = [Kind::Ok, Kind::Fail, Kind::Unknown][n % 3];
                    recorder.answer(kind, op).unwrap();
                }
            });
        }
    });
    let mut history = recorder.take();
    let times: Vec<u64> = (0..history.len()).map(|at| history.event(at).t).collect();
    assert!(times.is_sorted() && times[0] >= before && times[1_999] <= monotonic_us());
    let report = check(&mut history, &Options::default());
    assert!(report.is_clean(), "{}", report.explain(&history, 3));
    assert_eq!((report.operations, report.commands, report.unknown), (1_000, 1_000, 332));
    assert!(recorder.take().is_empty());
}

#[test]
fn a_history_is_read_as_it_was_written() {
    let mut history = History::new();
    let events = [
        Event { hub_ms: Some(7), ..Event::new(Kind::Clock) },
        Event { key: "k".into(), ..send("c", "b") }.op(1).at(5),
        Event { seq: Some(3), created: Some(true), volatile: true, ..Event::answer(Kind::Ok, 1) }
            .at(6),
        Event { handed: Some(6), ..Event::of_device(Kind::Deliver, "t", "d") }.command("c").at(7),
        Event { since: Some(8), state: "SENT".into(), ..Event::of_device(Kind::Observe, "t", "d") }
            .at(9),
        Event {
            claimed_ms: Some(4),
            replaced: "s1".into(),
            ..Event::of_device(Kind::Claimed, "t", "d").session("s2").pos(11)
        }
        .at(10),
        Event { back_to: Some(1), ..Event::new(Kind::Failover).pos(12) }.at(11),
        Event {
            tenant: "t".into(),
            subscriber: "x".into(),
            topic: "a/b".into(),
            ..Event::new(Kind::Message).body("\"quoted\"\n")
        }
        .at(12),
        Event { topic: "a/b".into(), qos: 1, ..Event::new(Kind::Publish) }.op(2).at(13),
    ];
    for event in &events {
        history.add(event).unwrap();
    }
    let mut file = Vec::new();
    history.write(&mut file).unwrap();
    let again = History::read(&file[..]).unwrap();
    assert_eq!(again.len(), events.len());
    for (at, event) in events.iter().enumerate() {
        assert_eq!(again.event(at), *event, "{}", history.line(at));
    }
}

#[test]
fn writers_are_put_together_by_time_with_operations_of_their_own() {
    let writer = |t: u64, id: &str| {
        let mut history = History::new();
        history.add(&send(id, id).op(1).at(t)).unwrap();
        history.add(&Event::answer(Kind::Ok, 1).at(t + 10)).unwrap();
        history
    };
    let mut whole = writer(100, "c1");
    whole.append(&writer(95, "c2")).unwrap();
    let report = check(&mut whole, &Options::default());
    assert!(report.is_clean(), "{}", report.explain(&whole, 3));
    assert_eq!((report.operations, report.accepted, report.pending), (2, 2, 2));
    assert_eq!(whole.event(0).id, "c2");
    assert_eq!(whole.event(2).op, whole.event(0).op);
}
