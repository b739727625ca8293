//! Reading commands and findings out of what the mailbox scripts answer.

use roost_cluster::{Dispatch, StoreError, SweepFinding};
use roost_types::{
    Command, CommandId, CommandState, DeviceKey, LateResult, NodeId, Progress, Transition,
    UnixMillis,
};

use crate::codec;
use crate::error::corrupt;
use crate::keys::{command_id, parse_dev};
use crate::link::Answer;
use crate::reply::{Fields, Reply, parse};
use crate::sessions::{node_ref, session_id};

/// A command as its record has it.
pub(crate) fn stored(
    device: &DeviceKey,
    id: CommandId,
    mut fields: Fields,
) -> Result<Command, StoreError> {
    let body = fields.bytes("b").ok_or_else(|| corrupt("a command's record has no body"))?;
    let expires = UnixMillis(fields.needed("x")?);
    let progress: Option<Progress> = fields.bytes("p").map(codec::read_progress).transpose()?;
    let late = match fields.bytes("l") {
        Some(result) => Some(late(result, &fields.needed_text("k")?)?),
        None => None,
    };
    Ok(Command {
        device: device.clone(),
        spec: codec::read_body(body, id, expires)?,
        seq: fields.needed("q")?,
        state: codec::state(fields.needed("s")?)?,
        attempt: fields.needed("a")?,
        session: fields.text("o")?.as_deref().map(session_id).transpose()?,
        created: UnixMillis(fields.needed("c")?),
        transitions: steps(&fields.needed_text("t")?)?,
        progress,
        result: fields.bytes("r").map(codec::read_result).transpose()?,
        late,
        redriven_as: fields.text("n")?.as_deref().map(command_id).transpose()?,
        // A record that an older version wrote has none.
        revision: fields.parse("v")?.unwrap_or_default(),
    })
}

/// A late result; `times` says how many there were and when the last came: `count@ms`.
fn late(result: Vec<u8>, times: &str) -> Result<LateResult, StoreError> {
    let (count, time) = times
        .split_once('@')
        .ok_or_else(|| corrupt(format!("{times:?} does not count late results")))?;
    let result = codec::read_result(result)?;
    Ok(LateResult { result, time: UnixMillis(parse(time)?), count: parse(count)? })
}

/// The steps of a command: `state@ms,state@ms`.
fn steps(text: &str) -> Result<Vec<Transition>, StoreError> {
    let step = |step: &str| {
        let (state, time) =
            step.split_once('@').ok_or_else(|| corrupt(format!("{step:?} is no step")))?;
        Ok(Transition { state: codec::state(parse(state)?)?, time: UnixMillis(parse(time)?) })
    };
    text.split(',').map(step).collect()
}

/// `now, mark, record` as others see it.
pub(crate) fn seen(
    rest: &mut Reply,
    device: &DeviceKey,
    id: CommandId,
) -> Result<Command, StoreError> {
    let (now, mark) = (UnixMillis(rest.number()?), rest.number()?);
    Ok(as_seen(stored(device, id, rest.fields()?)?, mark, now))
}

/// Over where its time is, queued where its session was lost: `mark` is the greatest `seq` that is
/// with the device's session.
pub(crate) fn as_seen(mut command: Command, mark: u64, now: UnixMillis) -> Command {
    if command.state.is_terminal() {
        return command;
    }
    if command.spec.expires <= now {
        let (state, time) = (CommandState::Expired, command.spec.expires);
        command.state = state;
        command.transitions.push(Transition { state, time });
    } else if command.seq > mark {
        command.state = CommandState::Queued;
    }
    command
}

pub(crate) fn dispatch(rest: &mut Reply) -> Result<Option<Dispatch>, StoreError> {
    let Some(session) = rest.optional_text()? else {
        return Ok(None);
    };
    let session = session_id(&session)?;
    Ok(Some(Dispatch { session, node: node_ref(rest)?, prev: rest.number()? }))
}

/// Node names between spaces.
pub(crate) fn nodes(text: &str) -> Result<Vec<NodeId>, StoreError> {
    text.split_whitespace().map(|name| NodeId::new(name).map_err(corrupt)).collect()
}

fn finding(mut found: Reply) -> Result<SweepFinding, StoreError> {
    let kind = found.text()?;
    let name = found.text()?;
    let device = parse_dev(&name).ok_or_else(|| corrupt(format!("{name:?} is no device")))?;
    match kind.as_str() {
        "E" => {
            let id = command_id(&found.text()?)?;
            let command = Box::new(stored(&device, id, found.fields()?)?);
            Ok(SweepFinding::Expired { command, waiting: nodes(&found.text()?)? })
        }
        "U" => {
            let session = session_id(&found.text()?)?;
            Ok(SweepFinding::Undelivered { device, session, node: node_ref(&mut found)? })
        }
        other => Err(corrupt(format!("a sweep found {other:?}"))),
    }
}

/// Adds what a sweep of a partition found; gives whether there is more.
pub(crate) fn take_findings(
    mut answer: Answer,
    findings: &mut Vec<SweepFinding>,
) -> Result<bool, StoreError> {
    let more = answer.rest.number()? == 1;
    let mut found = answer.rest.list()?;
    while !found.is_done() {
        match finding(found.list()?) {
            Ok(found) => note(findings, found),
            Err(error) => tracing::error!(%error, "a sweep found a spoiled record"),
        }
    }
    Ok(more)
}

/// Adds a finding; one drain of a mailbox serves all its commands.
fn note(findings: &mut Vec<SweepFinding>, found: SweepFinding) {
    let again =
        matches!(found, SweepFinding::Undelivered { .. }) && findings.last() == Some(&found);
    if !again {
        findings.push(found);
    }
}
