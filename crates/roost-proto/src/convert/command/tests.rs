//! What requests become, what is refused, and what a record looks like from outside.

use std::collections::BTreeMap;

use proptest::prelude::*;
use roost_types::{
    Command, CommandResult, DeviceKey, ErrorCode, LateResult, Payload, Progress, ResultStatus,
    SessionId, TenantId, Transition,
};

use super::*;
use crate::control::v1::payload::Body;
use crate::control::v1::send_command_request::Expiry;
use crate::convert::timestamp_out;

mod many;

const NOW: UnixMillis = UnixMillis(1_795_176_000_000);
const MAX_PAYLOAD: usize = 64;

fn request() -> v1::SendCommandRequest {
    v1::SendCommandRequest {
        device_id: "thermo-1".into(),
        command_id: "c1".into(),
        name: "reboot".into(),
        payload: Some(v1::Payload {
            body: Some(Body::Json("{\"delay_s\":5}".into())),
            content_type: String::new(),
        }),
        headers: BTreeMap::from([("trace".to_owned(), "1".to_owned())]),
        ..Default::default()
    }
}

fn read(request: v1::SendCommandRequest) -> Result<SendCommand, Violations> {
    SendCommand::from_request(request, NOW, MAX_PAYLOAD)
}

/// The only field that is wrong with the request once `spoil` has been at it.
fn only_violation(spoil: impl FnOnce(&mut v1::SendCommandRequest)) -> Violation {
    let mut bad = request();
    spoil(&mut bad);
    let violations = read(bad).unwrap_err();
    assert_eq!(violations.iter().count(), 1, "{violations}");
    violations.iter().next().unwrap().clone()
}

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

#[test]
fn a_plain_request_gets_the_documented_defaults() {
    let sent = read(request()).unwrap();
    assert_eq!(sent.device.as_str(), "thermo-1");
    assert_eq!(sent.spec.id.as_str(), "c1");
    assert_eq!(&*sent.spec.name, "reboot");
    assert_eq!(sent.spec.expires, NOW.plus(Duration::from_mins(1)));
    assert_eq!(sent.wait, None);
}

#[test]
fn without_an_id_each_request_is_a_command_of_its_own() {
    let mut anonymous = request();
    anonymous.command_id.clear();
    let first = read(anonymous.clone()).unwrap();
    assert_ne!(first.spec.id, read(anonymous).unwrap().spec.id);
}

#[test]
fn a_repetition_has_the_same_digest_whatever_its_expiry() {
    let mut later = request();
    later.expiry = Some(Expiry::Ttl(seconds(7)));
    let (first, again) = (read(request()).unwrap(), read(later).unwrap());
    assert_eq!(first.spec.digest(), again.spec.digest());
    assert_ne!(first.spec.expires, again.spec.expires);
}

#[test]
fn both_forms_of_expiry_reach_seven_days_and_no_further() {
    let week = i64::try_from(MAX_TTL.as_secs()).unwrap();
    let mut longest = request();
    longest.expiry = Some(Expiry::Ttl(seconds(week)));
    assert_eq!(read(longest.clone()).unwrap().spec.expires, NOW.plus(MAX_TTL));
    longest.expiry = Some(Expiry::ExpireTime(timestamp_out(NOW.plus(MAX_TTL))));
    assert_eq!(read(longest).unwrap().spec.expires, NOW.plus(MAX_TTL));

    for ttl in [0, -1, week + 1, i64::MAX, i64::MIN] {
        let violation = only_violation(|bad| bad.expiry = Some(Expiry::Ttl(seconds(ttl))));
        assert_eq!(violation.field, "ttl", "{ttl}");
    }
    for time in [
        timestamp_out(NOW),
        timestamp_out(UnixMillis(0)),
        timestamp_out(NOW.plus(MAX_TTL).plus(Duration::from_millis(1))),
        timestamp_out(UnixMillis(u64::MAX)),
        prost_types::Timestamp { seconds: -1, nanos: -1 },
    ] {
        let violation = only_violation(|bad| bad.expiry = Some(Expiry::ExpireTime(time)));
        assert_eq!(violation.field, "expire_time", "{time}");
    }
}

#[test]
fn a_wait_needs_a_state_that_is_not_reached_at_once() {
    let wait = |until: v1::CommandState, timeout| {
        let mut waiting = request();
        waiting.set_wait_until(until);
        waiting.wait_timeout = timeout;
        read(waiting).unwrap().wait
    };
    let until = CommandState::Succeeded;
    let expected = |timeout| Some(Wait { until, timeout });
    assert_eq!(wait(v1::CommandState::Succeeded, None), expected(DEFAULT_WAIT));
    assert_eq!(wait(v1::CommandState::Succeeded, Some(seconds(300))), expected(MAX_WAIT));
    assert_eq!(wait(v1::CommandState::Queued, Some(seconds(1))), None);

    let unasked = only_violation(|bad| bad.wait_timeout = Some(seconds(1)));
    assert_eq!(unasked.field, "wait_timeout");
    for timeout in [0, -5, 301, i64::MAX] {
        let violation = only_violation(|bad| {
            bad.set_wait_until(v1::CommandState::Sent);
            bad.wait_timeout = Some(seconds(timeout));
        });
        assert_eq!(violation.field, "wait_timeout", "{timeout}");
    }
    for state in [-1, 12, i32::MAX] {
        let violation = only_violation(|bad| bad.wait_until = state);
        assert_eq!(violation.field, "wait_until");
    }
}

#[test]
fn what_bounds_delivery_is_taken_and_part_of_the_content() {
    let plain = read(request()).unwrap();
    assert_eq!((plain.spec.ordering_key.as_deref(), plain.spec.max_attempts), (None, 0));
    assert_eq!(plain.durability, None);
    let mut asked = request();
    asked.ordering_key = "é".repeat(128);
    asked.max_attempts = 1_000;
    asked.set_durability(v1::Durability::Replicated);
    let sent = read(asked.clone()).unwrap();
    assert_eq!(sent.spec.ordering_key.as_deref(), Some(&*asked.ordering_key));
    assert_eq!(
        (sent.spec.max_attempts, sent.durability),
        (1_000, Some(v1::Durability::Replicated))
    );
    assert_ne!(sent.spec.digest(), plain.spec.digest());

    for key in ["é".repeat(129), "x".repeat(1 << 20), "a\u{0}b".into()] {
        let violation = only_violation(|bad| bad.ordering_key = key);
        assert_eq!((violation.code, &*violation.field), (ErrorCode::FieldInvalid, "ordering_key"));
    }
    for most in [1_001, u32::MAX] {
        assert_eq!(only_violation(|bad| bad.max_attempts = most).field, "max_attempts");
    }
    for durability in [-1, 5, i32::MAX] {
        assert_eq!(only_violation(|bad| bad.durability = durability).field, "durability");
    }
}

#[test]
fn names_are_bounded_in_characters() {
    let mut long = request();
    long.name = "é".repeat(128);
    assert!(read(long).is_ok());
    for name in ["é".repeat(129), "x".repeat(1 << 20), "a\nb".into()] {
        let violation = only_violation(|bad| bad.name = name);
        assert_eq!(violation.code, ErrorCode::FieldInvalid);
        assert_eq!(violation.field, "name");
    }
    let missing = only_violation(|bad| bad.name.clear());
    assert_eq!(missing.code, ErrorCode::FieldMissing);
}

#[test]
fn everything_that_is_wrong_is_listed_in_the_order_of_the_fields() {
    let bad = v1::SendCommandRequest {
        device_id: "a/b".into(),
        command_id: "{p1}".into(),
        payload: Some(v1::Payload::default()),
        headers: BTreeMap::from([(String::new(), String::new())]),
        expiry: Some(Expiry::Ttl(seconds(0))),
        wait_until: 99,
        ordering_key: "a\tb".into(),
        max_attempts: 1_001,
        durability: 9,
        ..Default::default()
    };
    let violations = read(bad).unwrap_err();
    let fields: Vec<_> = violations.iter().map(|v| v.field.as_str()).collect();
    let expected = [
        "device_id",
        "command_id",
        "name",
        "payload.body",
        "headers",
        "ttl",
        "wait_until",
        "ordering_key",
        "max_attempts",
        "durability",
    ];
    assert_eq!(fields, expected);
    assert_eq!(violations.code(), ErrorCode::IdInvalid);
    let error = roost_types::HubError::from(violations);
    assert_eq!(error.field.as_deref(), Some("device_id"));
    assert!(error.message.contains("wait_until"), "{error}");
}

#[test]
fn states_come_back_and_unknown_ones_do_not_pass() {
    for state in CommandState::ALL {
        let out = v1::CommandState::from(state);
        assert_eq!(out.as_str_name(), format!("COMMAND_STATE_{}", state.as_str()));
        assert_eq!(command_state(out.into(), "s"), Ok(Some(state)));
    }
    assert_eq!(command_state(0, "s"), Ok(None));
    assert_eq!(command_state(12, "s").unwrap_err().field, "s");
}

#[test]
fn a_reference_needs_both_ids() {
    let get = |device_id: &str, command_id: &str| {
        CommandRef::try_from(&v1::GetCommandRequest {
            device_id: device_id.into(),
            command_id: command_id.into(),
        })
    };
    assert_eq!(get("d", "c").unwrap().command.as_str(), "c");
    assert_eq!(get("", "a b").unwrap_err().iter().count(), 2);
}

/// A command that was asked for as in `request` and has ended.
fn finished() -> Command {
    let sent = read(request()).unwrap();
    let step = |state, millis| Transition { state, time: NOW.plus(Duration::from_millis(millis)) };
    Command {
        device: DeviceKey::new(TenantId::default(), sent.device),
        spec: sent.spec,
        seq: 1,
        state: CommandState::Failed,
        attempt: 2,
        session: Some(SessionId::from_bytes([0xab; 16])),
        created: NOW,
        transitions: vec![step(CommandState::Queued, 0), step(CommandState::Failed, 20)],
        progress: Some(Progress {
            percent: Some(40),
            note: Some("flushing".into()),
            time: NOW.plus(Duration::from_millis(10)),
        }),
        result: Some(CommandResult {
            status: ResultStatus::Failed,
            payload: Some(Payload::binary(vec![0, 255].into())),
            error: Some("no power".into()),
            payload_dropped: false,
        }),
        late: None,
        redriven_as: None,
        revision: 7,
    }
}

#[test]
fn a_record_shows_what_was_asked_and_what_came_of_it() {
    let out = v1::Command::from(&finished());
    let asked = request();
    assert_eq!(out.device_id, asked.device_id);
    assert_eq!(out.command_id, asked.command_id);
    assert_eq!(out.name, asked.name);
    assert_eq!(out.payload, asked.payload);
    assert_eq!(out.headers, asked.headers);
    assert_eq!(out.state(), v1::CommandState::Failed);
    assert_eq!(out.attempt, 2);
    assert_eq!(out.session_id, "ab".repeat(16));

    let end = Some(timestamp_out(NOW.plus(Duration::from_millis(20))));
    assert_eq!((out.update_time, out.create_time), (end, Some(timestamp_out(NOW))));
    let result = out.result.unwrap();
    assert_eq!(result.status(), v1::CommandResultStatus::Failed);
    assert_eq!((result.time, &*result.error_message), (end, "no power"));
    let progress = out.progress.unwrap();
    assert_eq!((progress.percent, &*progress.note), (Some(40), "flushing"));
    let states: Vec<_> = out.transitions.iter().map(v1::CommandTransition::state).collect();
    assert_eq!(states, [v1::CommandState::Queued, v1::CommandState::Failed]);
}

#[test]
fn what_came_after_the_end_is_shown_beside_it() {
    let mut dead = finished();
    dead.state = CommandState::Dead;
    dead.spec.ordering_key = Some("valve-3".into());
    dead.spec.max_attempts = 2;
    dead.redriven_as = Some(CommandId::new("c1~2").unwrap());
    let result = dead.result.take().map(|result| CommandResult {
        payload: None,
        payload_dropped: true,
        ..result
    });
    let time = NOW.plus(Duration::from_millis(90));
    dead.late = result.map(|result| LateResult { result, time, count: 3 });
    let out = v1::Command::from(&dead);
    assert_eq!((&*out.ordering_key, out.max_attempts, &*out.redriven_as), ("valve-3", 2, "c1~2"));
    assert_eq!(out.result, None);
    let late = out.late_result.unwrap();
    let result = late.result.unwrap();
    assert_eq!((late.count, result.time), (3, Some(timestamp_out(time))));
    assert_eq!((result.payload, result.payload_dropped), (None, true));
}

#[test]
fn a_record_of_a_waiting_command_has_no_more_than_there_is() {
    let mut waiting = finished();
    waiting.state = CommandState::Queued;
    waiting.session = None;
    waiting.progress = None;
    waiting.result = None;
    waiting.transitions.truncate(1);
    let out = v1::Command::from(&waiting);
    assert_eq!((out.session_id.as_str(), out.result, out.progress), ("", None, None));
    assert_eq!(out.update_time, out.create_time);
}

proptest! {
    /// Whatever arrives, a request is either understood or refused by the field.
    #[test]
    fn nothing_from_outside_panics(
        ids in (".{0,4}", ".{0,4}", ".{0,4}"),
        secs: i64,
        nanos: i32,
        absolute: bool,
        wait_until: i32,
    ) {
        let (device_id, command_id, name) = ids;
        let expiry = if absolute {
            Expiry::ExpireTime(prost_types::Timestamp { seconds: secs, nanos })
        } else {
            Expiry::Ttl(prost_types::Duration { seconds: secs, nanos })
        };
        let request = v1::SendCommandRequest {
            device_id,
            command_id,
            name,
            expiry: Some(expiry),
            wait_until,
            wait_timeout: Some(prost_types::Duration { seconds: nanos.into(), nanos }),
            ..Default::default()
        };
        if let Err(violations) = read(request) {
            prop_assert!(violations.iter().all(|violation| !violation.field.is_empty()));
        }
    }
}
