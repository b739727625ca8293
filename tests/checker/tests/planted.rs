//! The checker against hand-made histories: each fault is found by its rule, and the same history
//! without the fault is clean. Random ones are in `random.rs`.

use roost_checker::{History, Options, Report, Rule, check};

/// A line for each event, times in ms for reading's sake.
fn run(lines: &[&str]) -> (History, Report) {
    let text = lines.join("\n");
    let mut history = History::read(text.as_bytes()).expect("a planted history is readable");
    let report = check(&mut history, &Options::default());
    (history, report)
}

fn clean(lines: &[&str]) {
    let (history, report) = run(lines);
    assert!(report.is_clean(), "{}", report.explain(&history, 5));
}

/// The history breaks exactly this rule; gives what is said of it.
fn caught(rule: Rule, lines: &[&str]) -> String {
    let (history, report) = run(lines);
    let text = report.explain(&history, 5);
    assert_eq!(report.found, 1, "{text}");
    let violation = report.of(rule).unwrap_or_else(|| panic!("no {rule:?} in {text}"));
    let shown = violation.explain(&history);
    for &event in &violation.events {
        assert!(shown.contains(&history.line(event)), "{shown}");
    }
    violation.what.clone()
}

const SEND_1: &str = r#"{"t":1000,"e":"send","op":1,"tenant":"a","device":"d","id":"c1","body":"b1","expires_ms":60}"#;
const OK_1: &str = r#"{"t":2000,"e":"ok","op":1,"seq":1,"created":true}"#;
const SEND_2: &str = r#"{"t":3000,"e":"send","op":2,"tenant":"a","device":"d","id":"c2","body":"b2","expires_ms":60}"#;
const OK_2: &str = r#"{"t":4000,"e":"ok","op":2,"seq":2,"created":true}"#;
const DELIVER_1: &str =
    r#"{"t":5000,"e":"deliver","tenant":"a","device":"d","id":"c1","body":"b1","handed":4900}"#;
const DELIVER_2: &str =
    r#"{"t":6000,"e":"deliver","tenant":"a","device":"d","id":"c2","body":"b2","handed":5900}"#;
const RESULT_1: &str = r#"{"t":7000,"e":"result","op":3,"tenant":"a","device":"d","session":"s1","id":"c1","state":"SUCCEEDED"}"#;
const OK_3: &str = r#"{"t":8000,"e":"ok","op":3}"#;
const DONE_1: &str = r#"{"t":9000,"e":"observe","tenant":"a","device":"d","id":"c1","state":"SUCCEEDED","since":8500}"#;
const END: &str = r#"{"t":200000000,"e":"clock","hub_ms":200000}"#;

#[test]
fn a_run_without_faults_is_clean_and_counted() {
    let lines = [SEND_1, OK_1, SEND_2, OK_2, DELIVER_1, DELIVER_2, RESULT_1, OK_3, DONE_1, END];
    clean(&lines);
    let (_, report) = run(&lines);
    assert_eq!((report.events, report.operations, report.unknown), (10, 3, 0));
    assert_eq!((report.commands, report.accepted, report.deliveries), (2, 2, 2));
}

#[test]
fn an_accepted_command_that_never_comes_is_lost() {
    let said = caught(Rule::NothingLost, &[SEND_1, OK_1, SEND_2, OK_2, DELIVER_2, END]);
    assert!(said.contains("a/d command c1"), "{said}");
    clean(&[SEND_1, OK_1, SEND_2, OK_2, DELIVER_1, DELIVER_2, END]);
    // Nobody promised anything where the answer is missing, or the run ends before the command.
    clean(&[SEND_1, SEND_2, OK_2, DELIVER_2, END]);
    let (_, report) = run(&[SEND_1, OK_1]);
    assert_eq!((report.found, report.pending), (0, 1));
    // It may also end in words.
    let expired =
        r#"{"t":190000000,"e":"observe","tenant":"a","device":"d","id":"c1","state":"EXPIRED"}"#;
    clean(&[SEND_1, OK_1, expired, END]);
}

#[test]
fn a_result_that_was_acknowledged_and_is_gone_is_lost() {
    let base = [SEND_1, OK_1, DELIVER_1, RESULT_1, OK_3];
    let seen = |state: &str, t: u64, since: u64| {
        DONE_1
            .replace("SUCCEEDED", state)
            .replace("9000", &t.to_string())
            .replace("8500", &since.to_string())
    };
    let (sent, expired) = (seen("SENT", 9_000, 8_500), seen("EXPIRED", 99_000, 98_000));
    caught(Rule::NothingLost, &[&base[..], &[&sent]].concat());
    clean(&[&base[..], &[&seen("SENT", 9_000, 7_500)]].concat());
    let in_time = SEND_1.replace(":60}", ":90}");
    caught(Rule::NothingLost, &[&[&*in_time], &base[1..], &[&*expired]].concat());
    // Acknowledged after the end: it came late.
    let late = OK_3.replace("8000", "95000");
    clean(&[&[&*in_time], &base[1..4], &[&*late, &*expired]].concat());
}

#[test]
fn what_a_failover_takes_is_lost_only_where_it_was_promised() {
    let volatile = r#"{"t":2000,"e":"ok","op":1,"seq":1,"created":true,"volatile":true}"#;
    let failover = r#"{"t":3000,"e":"failover","pos":9,"back_to":3}"#;
    let (_, report) = run(&[SEND_1, volatile, failover, END]);
    assert_eq!((report.found, report.given_up), (0, 1));
    caught(Rule::NothingLost, &[SEND_1, OK_1, failover, END]);
    caught(Rule::NothingLost, &[SEND_1, volatile, END]);
    // What was asked for after it is not its business.
    let before = failover.replace("3000", "500");
    caught(Rule::NothingLost, &[SEND_1, volatile, &before, END]);
    // It may take an end back, where that was not promised to stay.
    let back = r#"{"t":10000,"e":"observe","tenant":"a","device":"d","id":"c1","state":"SENT","since":9500}"#;
    let run = [DELIVER_1, RESULT_1, OK_3, DONE_1, back];
    clean(&[&[SEND_1, volatile, failover], &run[..]].concat());
    caught(Rule::OneEnd, &[&[SEND_1, OK_1, failover], &run[..]].concat());
}

#[test]
fn a_reordering_is_caught_by_place_and_by_time() {
    let late_1 = r#"{"t":6500,"e":"deliver","tenant":"a","device":"d","id":"c1","body":"b1"}"#;
    let said = caught(Rule::Order, &[SEND_1, OK_1, SEND_2, OK_2, DELIVER_2, late_1]);
    assert!(said.contains("c2 was delivered before"), "{said}");
    let no_seq = |line: &str| line.replace(r#","seq":1"#, "").replace(r#","seq":2"#, "");
    let (ok_1, ok_2) = (no_seq(OK_1), no_seq(OK_2));
    caught(Rule::Order, &[SEND_1, &ok_1, SEND_2, &ok_2, DELIVER_2, late_1]);
    // At the same time, without a place: either order.
    let ok_1_later = ok_1.replace("2000", "3500");
    clean(&[SEND_1, SEND_2, &ok_1_later, &ok_2, DELIVER_2, late_1]);
    // A redelivery repeats, it does not overtake; another key has an order of its own.
    clean(&[SEND_1, OK_1, SEND_2, OK_2, DELIVER_1, DELIVER_2, late_1]);
    let other_key = SEND_2.replace(r#""id":"#, r#""key":"k","id":"#);
    clean(&[SEND_1, OK_1, &other_key, OK_2, DELIVER_2, late_1]);
}

#[test]
fn what_nobody_sent_is_a_phantom() {
    caught(Rule::NoPhantom, &[DELIVER_1]);
    caught(Rule::NoPhantom, &[DELIVER_1, &SEND_1.replace("1000", "5500"), END]);
    caught(Rule::NoPhantom, &[&DELIVER_1.replace("deliver", "execute")]);
    let other_body = DELIVER_1.replace("b1", "b9");
    caught(Rule::NoPhantom, &[SEND_1, OK_1, &other_body]);
    // Refused is refused.
    let refused = r#"{"t":2000,"e":"fail","op":1}"#;
    caught(Rule::NoPhantom, &[SEND_1, refused, DELIVER_1]);
    clean(&[SEND_1, refused]);
    // A result for nothing, and a state without a result.
    caught(Rule::NoPhantom, &[RESULT_1, OK_3]);
    caught(Rule::NoPhantom, &[SEND_1, OK_1, DELIVER_1, DONE_1]);
    let failed = DONE_1.replace("SUCCEEDED", "FAILED");
    caught(Rule::NoPhantom, &[SEND_1, OK_1, DELIVER_1, RESULT_1, OK_3, &failed]);
    let cancelled = DONE_1.replace("SUCCEEDED", "CANCELLED");
    caught(Rule::NoPhantom, &[SEND_1, OK_1, &cancelled]);
    // What is refused to the device is not its fault.
    clean(&[RESULT_1, r#"{"t":8000,"e":"fail","op":3}"#]);
}

#[test]
fn a_command_of_another_tenant_or_device_is_told_apart() {
    let other = SEND_1.replace(r#""tenant":"a""#, r#""tenant":"b""#);
    let said = caught(Rule::Tenants, &[&other, OK_1, DELIVER_1]);
    assert!(said.contains("which is b/d command c1"), "{said}");
    let neighbour = SEND_1.replace(r#""device":"d""#, r#""device":"e""#);
    caught(Rule::NoPhantom, &[&neighbour, OK_1, DELIVER_1]);
    // The same id in both tenants, and the other's body.
    let own = SEND_2.replace("c2", "c1");
    caught(Rule::Tenants, &[&other, OK_1, &own, OK_2, DELIVER_1]);
}

const CLAIM_1: &str =
    r#"{"t":100,"e":"claimed","tenant":"a","device":"d","session":"s1","pos":1,"claimed_ms":1000}"#;
const CLAIM_2: &str = r#"{"t":200,"e":"claimed","tenant":"a","device":"d","session":"s2","pos":5,"claimed_ms":9000,"replaced":"s1"}"#;
const END_2: &str = r#"{"t":300,"e":"released","tenant":"a","device":"d","session":"s2","pos":9}"#;

fn apply(session: &str, pos: u64) -> String {
    format!(
        r#"{{"t":{},"e":"apply","tenant":"a","device":"d","session":"{session}","pos":{pos}}}"#,
        400 + pos
    )
}

#[test]
fn a_stale_session_changes_nothing() {
    let (old, new) = (apply("s1", 4), apply("s2", 8));
    // The file's order is not the store's: places decide.
    clean(&[CLAIM_1, CLAIM_2, END_2, &new, &old]);
    let said = caught(Rule::OneSession, &[CLAIM_1, CLAIM_2, &apply("s1", 6)]);
    assert!(said.contains("s1 while s2 had the device"), "{said}");
    caught(Rule::OneSession, &[CLAIM_1, CLAIM_2, END_2, &apply("s2", 10)]);
    caught(Rule::OneSession, &[CLAIM_1, &apply("s2", 3)]);
    let ended_by_old = END_2.replace("s2", "s1");
    caught(Rule::OneSession, &[CLAIM_1, CLAIM_2, &ended_by_old]);
    // A claim that says that it replaced somebody else.
    let wrong = CLAIM_2.replace(r#""replaced":"s1""#, r#""replaced":"s0""#);
    caught(Rule::OneSession, &[CLAIM_1, &wrong]);
}

#[test]
fn an_older_claim_does_not_win_against_a_newer() {
    let abandoned = r#"{"t":300,"e":"claimed","tenant":"a","device":"d","session":"s0","pos":7,"claimed_ms":500,"replaced":"s2"}"#;
    let said = caught(Rule::OneSession, &[CLAIM_1, CLAIM_2, abandoned]);
    assert!(said.contains("8500 ms newer"), "{said}");
    // Two devices fighting over one id within the time of a request: either may be the last.
    let close = abandoned.replace("500", "8500");
    clean(&[CLAIM_1, CLAIM_2, &close]);
    caught(Rule::OneSession, &[CLAIM_1, CLAIM_2, &close.replace("\"claimed\"", "\"reclaimed\"")]);
}

#[test]
fn a_failover_brings_an_earlier_session_back() {
    let failover = r#"{"t":350,"e":"failover","pos":6,"back_to":3}"#;
    let (of_1, of_2) = (apply("s1", 7), apply("s2", 7));
    clean(&[CLAIM_1, CLAIM_2, failover, &of_1]);
    caught(Rule::OneSession, &[CLAIM_1, CLAIM_2, failover, &of_2]);
    let again = CLAIM_2.replace("\"claimed\"", "\"reclaimed\"").replace("\"pos\":5", "\"pos\":7");
    clean(&[CLAIM_1, CLAIM_2, failover, &again, &apply("s2", 8)]);
}

#[test]
fn nothing_is_handed_over_or_executed_after_its_deadline() {
    let late = r#"{"t":250000,"e":"deliver","tenant":"a","device":"d","id":"c1","handed":210000}"#;
    let said = caught(Rule::Deadline, &[SEND_1, OK_1, late]);
    assert!(said.contains("150 ms after it was over"), "{said}");
    // In time at the hub, late by the network; within the error of the clock.
    clean(&[SEND_1, OK_1, &late.replace("210000", "59000")]);
    clean(&[SEND_1, OK_1, &late.replace("210000", "105000")]);
    let executed = r#"{"t":120000,"e":"execute","tenant":"a","device":"d","id":"c1"}"#;
    caught(Rule::Deadline, &[SEND_1, OK_1, DELIVER_1, executed]);
    // Hub time runs apart from the clock of the run: here the command is over at 1,060 ms of it.
    let clock = r#"{"t":500,"e":"clock","hub_ms":60}"#;
    caught(Rule::Deadline, &[clock, SEND_1, OK_1, DELIVER_1, executed]);
    clean(&[&clock.replace("60", "0"), SEND_1, OK_1, DELIVER_1, &executed.replace("120", "99")]);
    let too_early =
        r#"{"t":7000,"e":"observe","tenant":"a","device":"d","id":"c1","state":"EXPIRED"}"#;
    let far = SEND_1.replace(":60}", ":60000}");
    caught(Rule::Deadline, &[&far, OK_1, too_early]);
}

#[test]
fn a_command_ends_once() {
    let failed = DONE_1.replace("SUCCEEDED", "EXPIRED").replace("9000", "100000");
    let base = [SEND_1, OK_1, DELIVER_1, RESULT_1, OK_3, DONE_1];
    clean(&[&base[..], &[DONE_1]].concat());
    let said = caught(Rule::OneEnd, &[&base[..], &[&failed]].concat());
    assert!(said.contains("ended twice: SUCCEEDED and EXPIRED"), "{said}");
    // Back from the end; an answer to an earlier question is not.
    let back = r#"{"t":9900,"e":"observe","tenant":"a","device":"d","id":"c1","state":"QUEUED","since":9500}"#;
    caught(Rule::OneEnd, &[&base[..], &[back]].concat());
    clean(&[&base[..], &[&back.replace("9500", "8800")]].concat());
}

#[test]
fn a_cancelled_command_stays_where_it_is() {
    let cancel = r#"{"t":2500,"e":"cancel","op":9,"tenant":"a","device":"d","id":"c1"}"#;
    let ok = r#"{"t":2600,"e":"ok","op":9,"state":"CANCELLED"}"#;
    clean(&[SEND_1, OK_1, cancel, ok]);
    let after = DELIVER_1.replace("4900", "54900").replace("5000,", "55000,");
    caught(Rule::OneEnd, &[SEND_1, OK_1, cancel, ok, &after]);
    clean(&[SEND_1, OK_1, cancel, r#"{"t":2600,"e":"ok","op":9,"state":"SENT"}"#, &after]);
}

#[test]
fn one_id_is_one_command() {
    let again = SEND_2.replace("c2", "c1").replace("b2", "b1");
    let found = r#"{"t":4000,"e":"ok","op":2,"seq":1,"created":false}"#;
    clean(&[SEND_1, OK_1, &again, found, DELIVER_1]);
    caught(Rule::Idempotency, &[SEND_1, OK_1, &again, OK_2, DELIVER_1]);
    let elsewhere = OK_2.replace("true", "false");
    caught(Rule::Idempotency, &[SEND_1, OK_1, &again, &elsewhere, DELIVER_1]);
    // Another body under the same id is refused.
    let other = SEND_2.replace("c2", "c1");
    caught(Rule::Idempotency, &[SEND_1, OK_1, &other, found, DELIVER_1]);
    clean(&[SEND_1, OK_1, &other, r#"{"t":4000,"e":"fail","op":2}"#, DELIVER_1]);
}

#[test]
fn publications_reach_their_subscribers_and_nobody_else() {
    let sub = r#"{"t":1,"e":"subscribed","tenant":"a","subscriber":"x","topic":"t/1"}"#;
    let publish = r#"{"t":2,"e":"publish","op":1,"tenant":"a","topic":"t/1","body":"m1","qos":1}"#;
    let ok = r#"{"t":3,"e":"ok","op":1}"#;
    let message =
        r#"{"t":4,"e":"message","tenant":"a","subscriber":"x","topic":"t/1","body":"m1"}"#;
    let gap = r#"{"t":5,"e":"gap","tenant":"a","subscriber":"x","topic":"t/1"}"#;
    clean(&[sub, publish, ok, message]);
    clean(&[sub, publish, ok, gap]);
    clean(&[sub, publish]);
    caught(Rule::Publications, &[sub, publish, ok]);
    caught(Rule::NoPhantom, &[sub, message]);
    caught(Rule::NoPhantom, &[sub, publish, ok, message, &message.replace("t/1", "t/2")]);
    let foreign = message.replace(r#""tenant":"a""#, r#""tenant":"b""#);
    caught(Rule::Tenants, &[sub, publish, ok, message, &foreign]);
}

#[test]
fn a_history_that_contradicts_itself_is_said_to() {
    caught(Rule::History, &[OK_1]);
    caught(Rule::History, &[SEND_1, OK_1, OK_1, DELIVER_1]);
    let twice = SEND_2.replace("\"op\":2", "\"op\":1");
    caught(Rule::History, &[SEND_1, &twice, DELIVER_1, DELIVER_2]);
    for (line, part) in [
        ("{\"t\":1", "line 1"),
        (r#"{"t":1,"e":"sent"}"#, "unknown variant"),
        (r#"{"t":1,"e":"observe","state":"DONE"}"#, "\"DONE\""),
    ] {
        let error = History::read(line.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}
