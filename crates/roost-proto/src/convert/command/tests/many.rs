//! The requests around a command: batches, watches, lists, redrives.

use super::*;

fn batch(device_ids: &[&str]) -> v1::BatchSendCommandsRequest {
    let command = v1::SendCommandRequest { device_id: String::new(), ..request() };
    v1::BatchSendCommandsRequest {
        device_ids: device_ids.iter().map(|&id| id.to_owned()).collect(),
        command: Some(command),
    }
}

fn read_batch(request: v1::BatchSendCommandsRequest) -> Result<BatchSend, Violations> {
    BatchSend::from_request(request, NOW, MAX_PAYLOAD)
}

fn fields(violations: &Violations) -> Vec<&str> {
    violations.iter().map(|violation| violation.field.as_str()).collect()
}

#[test]
fn a_batch_is_one_command_under_one_id_for_each_device() {
    let mut asked = batch(&["a", "b"]);
    let sent = read_batch(asked.clone()).unwrap();
    assert_eq!(sent.devices.iter().map(DeviceId::as_str).collect::<Vec<_>>(), ["a", "b"]);
    let later = NOW.plus(Duration::from_secs(5));
    let (now, then) = (sent.spec_at(NOW).unwrap(), sent.spec_at(later).unwrap());
    assert_eq!((now.id.as_str(), now.digest()), ("c1", then.digest()));
    // A ttl counts from the acceptance.
    assert_eq!(then.expires, later.plus(DEFAULT_TTL));

    let command = asked.command.as_mut().unwrap();
    command.command_id.clear();
    command.expiry = Some(Expiry::ExpireTime(timestamp_out(later)));
    let sent = read_batch(asked).unwrap();
    assert_eq!(sent.spec_at(NOW).unwrap().id, *sent.command_id());
    assert_eq!(sent.spec_at(NOW).unwrap().expires, later);
    assert_eq!(sent.spec_at(later).unwrap_err().field, "expire_time");
}

#[test]
fn each_mistake_of_a_batch_is_named_with_its_place() {
    let mut bad = batch(&["a", "b/c", "a", ""]);
    let command = bad.command.as_mut().unwrap();
    command.device_id = "d".into();
    command.name.clear();
    command.payload = Some(v1::Payload::default());
    let violations = read_batch(bad).unwrap_err();
    let expected = [
        "device_ids[1]",
        "device_ids[2]",
        "device_ids[3]",
        "command.device_id",
        "command.name",
        "command.payload.body",
    ];
    assert_eq!(fields(&violations), expected);
    let codes: Vec<_> = violations.iter().map(|violation| violation.code).collect();
    assert_eq!(codes[..2], [ErrorCode::IdInvalid, ErrorCode::FieldInvalid]);
    assert_eq!(codes[2..4], [ErrorCode::FieldMissing, ErrorCode::FieldInvalid]);

    let empty = v1::BatchSendCommandsRequest::default();
    assert_eq!(fields(&read_batch(empty).unwrap_err()), ["device_ids", "command"]);
}

#[test]
fn a_batch_is_bounded_and_so_is_what_is_said_of_it() {
    let ids: Vec<_> = (0..=MAX_BATCH).map(|number| format!("d{number}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    assert_eq!(read_batch(batch(&ids[1..])).unwrap().devices.len(), MAX_BATCH);
    assert_eq!(fields(&read_batch(batch(&ids)).unwrap_err()), ["device_ids"]);

    let same = vec!["d"; 1_000];
    let violations = read_batch(batch(&same)).unwrap_err();
    assert_eq!(violations.iter().count(), 11);
    let last = violations.iter().last().unwrap();
    assert_eq!(last.description, "has 989 more that are wrong or named twice");
}

#[test]
fn a_stream_waits_for_nothing_but_the_end() {
    let read =
        |command| send_and_watch(v1::SendAndWatchCommandRequest { command }, NOW, MAX_PAYLOAD);
    assert_eq!(read(Some(request())).unwrap(), super::read(request()).unwrap());
    assert_eq!(fields(&read(None).unwrap_err()), ["command"]);
    let mut bad = request();
    bad.device_id.clear();
    bad.set_wait_until(v1::CommandState::Sent);
    bad.wait_timeout = Some(seconds(1));
    let violations = read(Some(bad)).unwrap_err();
    let expected = ["command.device_id", "command.wait_until", "command.wait_timeout"];
    assert_eq!(fields(&violations), expected);
}

#[test]
fn a_cursor_comes_back_and_tells_every_change_apart() {
    let read = |cursor: &str| {
        let request = v1::WatchCommandRequest {
            device_id: "d".into(),
            command_id: "c".into(),
            cursor: cursor.into(),
        };
        WatchCommand::try_from(&request).map(|watch| watch.cursor)
    };
    let known = finished();
    let cursor = WatchCursor::of(&known);
    assert_eq!(read(&cursor.to_string()), Ok(Some(cursor)));
    assert_eq!(read(""), Ok(None));
    let changes: [fn(&mut Command); 3] = [
        |command| command.revision += 1,
        |command| command.state = CommandState::Queued,
        |command| command.created = UnixMillis(1),
    ];
    for change in changes {
        let mut other = known.clone();
        change(&mut other);
        assert_ne!(WatchCursor::of(&other), cursor);
    }
    for foreign in ["x", "1", "1.2.3", "2.1.1.SENT", "1.1.-1.SENT", "1.1.1.LUNCH", "1.1.1.SENT.1"] {
        let violations = read(foreign).unwrap_err();
        assert_eq!(violations.code(), ErrorCode::CursorInvalid, "{foreign}");
        assert_eq!(fields(&violations), ["cursor"], "{foreign}");
    }
}

#[test]
fn lists_say_what_they_are_narrowed_to() {
    let listed = ListCommands::try_from(&v1::ListCommandsRequest {
        device_id: "d".into(),
        state: v1::CommandState::Failed.into(),
        since_time: Some(timestamp_out(NOW)),
        ..Default::default()
    });
    let listed = listed.unwrap();
    assert_eq!(listed.state, Some(CommandState::Failed));
    assert_eq!((listed.since, listed.until), (Some(NOW), None));
    let bad = v1::ListCommandsRequest {
        page_size: -1,
        state: 77,
        since_time: Some(prost_types::Timestamp { seconds: -1, nanos: 0 }),
        until_time: Some(prost_types::Timestamp { seconds: 0, nanos: -1 }),
        ..Default::default()
    };
    let violations = ListCommands::try_from(&bad).unwrap_err();
    let expected = ["device_id", "page_size", "state", "since_time", "until_time"];
    assert_eq!(fields(&violations), expected);

    let all = ListDead::try_from(&v1::ListDeadCommandsRequest::default()).unwrap();
    assert_eq!((all.device, all.size), (None, crate::convert::DEFAULT_PAGE));
    let bad = v1::ListDeadCommandsRequest {
        device_id: "a b".into(),
        page_size: -1,
        ..Default::default()
    };
    assert_eq!(fields(&ListDead::try_from(&bad).unwrap_err()), ["device_id", "page_size"]);
}

#[test]
fn a_redrive_has_an_expiry_of_its_own_and_another_id() {
    use v1::redrive_command_request::Expiry;
    let mut asked = v1::RedriveCommandRequest {
        device_id: "d".into(),
        command_id: "c".into(),
        ..Default::default()
    };
    let read = |request: &_| Redrive::from_request(request, NOW);
    let plain = read(&asked).unwrap();
    assert_eq!((plain.new_id, plain.max_attempts), (None, None));
    assert_eq!(plain.expires, NOW.plus(DEFAULT_TTL));
    asked.new_command_id = "c-again".into();
    asked.expiry = Some(Expiry::Ttl(seconds(7)));
    asked.max_attempts = 5;
    let chosen = read(&asked).unwrap();
    assert_eq!(chosen.new_id.unwrap().as_str(), "c-again");
    assert_eq!(chosen.expires, NOW.plus(Duration::from_secs(7)));
    assert_eq!(chosen.max_attempts, Some(5));

    asked.new_command_id = "c".into();
    assert_eq!(fields(&read(&asked).unwrap_err()), ["new_command_id"]);
    let bad = v1::RedriveCommandRequest {
        new_command_id: "a b".into(),
        expiry: Some(Expiry::ExpireTime(timestamp_out(NOW))),
        max_attempts: 1_001,
        ..Default::default()
    };
    let expected = ["device_id", "command_id", "new_command_id", "expire_time", "max_attempts"];
    assert_eq!(fields(&read(&bad).unwrap_err()), expected);
}
