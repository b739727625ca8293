//! The `Mailboxes` seam. The rules are in the scripts; here they are called and their answers read.

use async_trait::async_trait;
use redis::Value;
use roost_cluster::{
    Batch, Cancelled, Clock, Enqueued, Mailboxes, Page, PageRequest, Report, Reported, StoreError,
    SweepFinding,
};
use roost_telemetry::metrics::labels::RedisCommand;
use roost_types::{
    Command, CommandId, CommandSpec, CommandState, DeviceKey, NodeId, Partition, SessionId,
};

use crate::codec;
use crate::error::corrupt;
use crate::keys::command_id;
use crate::records::{as_seen, dispatch, nodes, seen, stored, take_findings};
use crate::reply::{Fields, Reply, parse};
use crate::script::{self, Call};
use crate::sessions::{node_ref, session_id};
use crate::store::{PARTITIONS_AT_ONCE, RedisStore, millis};

/// How many commands one read hands out.
const BATCH: u64 = 32;
/// How many payload bytes one read hands out, if it has more than one command.
const BATCH_BYTES: u64 = 512 << 10;
/// How many due commands one script looks at, so that none blocks Redis for long.
const DUE_BATCH: u64 = 50;
/// How much one sweep may find before it gives that back; what is left is found by the next.
const FINDINGS: usize = 5_000;
/// How often a list looks further when a filter left too few for a page.
const LIST_ROUNDS: usize = 4;

#[async_trait]
impl Mailboxes for RedisStore {
    async fn enqueue(
        &self,
        device: &DeviceKey,
        spec: &CommandSpec,
        waiting: Option<&NodeId>,
    ) -> Result<Enqueued, StoreError> {
        let settings = &self.settings;
        let size = spec.payload.as_ref().map_or(0, |payload| payload.len() as u64);
        let call = self
            .call(device)
            .arg(spec.id.as_str())
            .arg(spec.digest())
            .arg(codec::body_bytes(spec))
            .number(size)
            .number(spec.expires.0)
            .arg(waiting.map_or("", NodeId::as_str))
            .number(settings.window.into())
            .number(settings.mailbox_commands.into())
            .number(settings.mailbox_bytes)
            .number(millis(settings.retention))
            .number(millis(settings.undelivered_after));
        let mut answer = self.link.run(&script::ENQUEUE, &call).await?;
        let rest = &mut answer.rest;
        match answer.tag.as_str() {
            "CONFLICT" => Ok(Enqueued::Conflict),
            "FULL" => Ok(Enqueued::QueueFull { commands: rest.number()?, bytes: rest.number()? }),
            "EXISTING" => Ok(Enqueued::Existing(Box::new(seen(rest, device, spec.id.clone())?))),
            "ACCEPTED" => {
                let (_now, _mark) = (rest.number()?, rest.number()?);
                let command = Box::new(stored(device, spec.id.clone(), rest.fields()?)?);
                Ok(Enqueued::Accepted { command, dispatch: dispatch(rest)? })
            }
            other => Err(corrupt(format!("enqueue answered {other:?}"))),
        }
    }

    async fn read(
        &self,
        device: &DeviceKey,
        session: SessionId,
        after: u64,
    ) -> Result<Batch, StoreError> {
        let settings = &self.settings;
        let call = self
            .call(device)
            .arg(session.to_string())
            .number(after)
            .number(settings.window.into())
            .number(millis(settings.undelivered_after))
            .number(millis(settings.retention))
            .number(BATCH)
            .number(BATCH_BYTES);
        let mut answer = self.link.run(&script::READ, &call).await?;
        let more = answer.rest.number()? == 1;
        let (mut found, mut over) = (answer.rest.list()?, answer.rest.list()?);
        let (mut commands, mut expired) = (Vec::new(), Vec::new());
        while !found.is_done() {
            let id = command_id(&found.text()?)?;
            commands.push(stored(device, id, found.fields()?)?);
        }
        while !over.is_done() {
            let id = command_id(&over.text()?)?;
            let command = stored(device, id, over.fields()?)?;
            expired.push((command, nodes(&over.text()?)?));
        }
        Ok(Batch { commands, more, expired })
    }

    async fn report(
        &self,
        device: &DeviceKey,
        session: SessionId,
        id: &CommandId,
        report: &Report,
    ) -> Result<Reported, StoreError> {
        let (progress, result) = match report {
            Report::Progress(progress) => (codec::progress_bytes(progress), Vec::new()),
            Report::Result(result) => (Vec::new(), codec::result_bytes(result)),
            Report::Sent | Report::Received => (Vec::new(), Vec::new()),
        };
        let call = self
            .call(device)
            .arg(session.to_string())
            .arg(id.as_str())
            .number(codec::state_number(report.state()).into())
            .arg(progress)
            .arg(result)
            .number(self.settings.window.into())
            .number(millis(self.settings.retention))
            .number(millis(self.settings.undelivered_after));
        let mut answer = self.link.run(&script::REPORT, &call).await?;
        let rest = &mut answer.rest;
        match answer.tag.as_str() {
            "UNKNOWN" => Ok(Reported::Unknown),
            "LATE" => {
                let number = u32::try_from(rest.number()?).map_err(corrupt)?;
                Ok(Reported::Late { state: codec::state(number)? })
            }
            "APPLIED" => {
                let (_now, more) = (rest.number()?, rest.number()? == 1);
                let command = Box::new(stored(device, id.clone(), rest.fields()?)?);
                Ok(Reported::Applied { command, waiting: nodes(&rest.text()?)?, more })
            }
            other => Err(corrupt(format!("report answered {other:?}"))),
        }
    }

    async fn cancel(&self, device: &DeviceKey, id: &CommandId) -> Result<Cancelled, StoreError> {
        let call = self.call(device).arg(id.as_str()).number(millis(self.settings.retention));
        let mut answer = self.link.run(&script::CANCEL, &call).await?;
        let rest = &mut answer.rest;
        match answer.tag.as_str() {
            "UNKNOWN" => Ok(Cancelled::Unknown),
            "ENDED" => Ok(Cancelled::Ended(Box::new(seen(rest, device, id.clone())?))),
            "CANCELLED" => {
                let _now = rest.number()?;
                let command = Box::new(stored(device, id.clone(), rest.fields()?)?);
                Ok(Cancelled::Cancelled { command, waiting: nodes(&rest.text()?)? })
            }
            "LATE" => {
                let command = Box::new(seen(rest, device, id.clone())?);
                let forward = match rest.optional_text()? {
                    Some(session) => Some((session_id(&session)?, node_ref(rest)?)),
                    None => None,
                };
                Ok(Cancelled::TooLate { command, forward })
            }
            other => Err(corrupt(format!("cancel answered {other:?}"))),
        }
    }

    async fn get(
        &self,
        device: &DeviceKey,
        id: &CommandId,
        waiting: Option<&NodeId>,
    ) -> Result<Option<Command>, StoreError> {
        let call = self.call(device).arg(id.as_str()).arg(waiting.map_or("", NodeId::as_str));
        let mut answer = self.link.run(&script::GET, &call).await?;
        match answer.tag.as_str() {
            "NONE" => Ok(None),
            "OK" => seen(&mut answer.rest, device, id.clone()).map(Some),
            other => Err(corrupt(format!("get answered {other:?}"))),
        }
    }

    async fn list(
        &self,
        device: &DeviceKey,
        state: Option<CommandState>,
        page: &PageRequest,
    ) -> Result<Page<Command>, StoreError> {
        let unreadable = |_| StoreError::Invalid("this page token is not one of this hub's".into());
        let mut before: Option<u64> =
            page.token.as_deref().map(str::parse).transpose().map_err(unreadable)?;
        let size = page.size.max(1);
        let mut items = Vec::new();
        for _ in 0..LIST_ROUNDS {
            let (found, next) = self.list_round(device, before, size).await?;
            let wanted = found
                .into_iter()
                .filter(|command| state.is_none_or(|state| command.state == state));
            for command in wanted {
                if items.len() == size {
                    // More than fit: the next page begins behind the last that did.
                    let next = items.last().map(|last: &Command| last.seq.to_string());
                    return Ok(Page { items, next });
                }
                items.push(command);
            }
            before = next;
            if before.is_none() || items.len() == size {
                break;
            }
        }
        let next = before.map(|before| before.to_string());
        Ok(Page { items, next })
    }

    async fn sweep(&self) -> Result<Vec<SweepFinding>, StoreError> {
        let mut left: Vec<Partition> = Partition::all().collect();
        let mut findings = Vec::new();
        while !left.is_empty() && findings.len() < FINDINGS {
            let mut more = Vec::new();
            for some in left.chunks(PARTITIONS_AT_ONCE) {
                match self.sweep_some(some, &mut findings).await {
                    Ok(unfinished) => more.extend(unfinished),
                    // What was found is struck off already: whoever waits for it is to be told.
                    Err(error) if !findings.is_empty() => {
                        tracing::debug!(%error, "a sweep was cut short; the next one goes on");
                        return Ok(findings);
                    }
                    Err(error) => return Err(error),
                }
            }
            left = more;
        }
        Ok(findings)
    }
}

impl RedisStore {
    /// Sweeps some partitions, a batch of each; gives those that have more.
    async fn sweep_some(
        &self,
        partitions: &[Partition],
        findings: &mut Vec<SweepFinding>,
    ) -> Result<Vec<Partition>, StoreError> {
        let calls: Vec<Call> = partitions.iter().map(|p| self.due_call(*p)).collect();
        let answers = self.link.run_all(&script::DUE, &calls).await?;
        let mut more = Vec::new();
        for (partition, answer) in partitions.iter().zip(answers) {
            match answer.and_then(|answer| take_findings(answer, findings)) {
                Ok(true) => more.push(*partition),
                Ok(false) => {}
                // What one record spoils must not hold up the others.
                Err(error) => {
                    tracing::error!(%partition, %error, "a sweep passed a partition over");
                }
            }
        }
        Ok(more)
    }

    fn due_call(&self, partition: Partition) -> Call {
        let base = self.link.keys.base(partition);
        Call::new(format!("{base}due"), &base, self.link.not_after())
            .number(DUE_BATCH)
            .number(millis(self.settings.undelivered_after))
            .number(millis(self.settings.retention))
            .number(self.settings.window.into())
    }

    /// Up to `size` commands older than `before`, as they stand, and where the next round begins.
    async fn list_round(
        &self,
        device: &DeviceKey,
        before: Option<u64>,
        size: usize,
    ) -> Result<(Vec<Command>, Option<u64>), StoreError> {
        let keys = &self.link.keys;
        let most = before.map_or("+inf".to_owned(), |before| format!("({before}"));
        let mut pipe = redis::pipe();
        pipe.cmd("ZREVRANGEBYSCORE").arg(keys.history(device)).arg(most).arg("-inf");
        pipe.arg("WITHSCORES").arg("LIMIT").arg(0).arg(size + 1);
        pipe.cmd("HMGET").arg(keys.session(device)).arg("d");
        let found = self.link.ask(RedisCommand::Read, &mut pipe).await?;
        let mut found = Reply::new(Value::Array(found))?;
        let mut ids = found.list()?;
        let mark = found.list()?.optional_text()?.map_or(Ok(0), |mark| parse(&mark))?;
        let mut rows = Vec::new();
        while !ids.is_done() {
            rows.push((ids.text()?, ids.number()?));
        }
        let more = rows.len() > size;
        rows.truncate(size);
        let next = rows.last().filter(|_| more).map(|(_, seq)| *seq);
        let mut pipe = redis::pipe();
        for (id, _) in &rows {
            pipe.cmd("HGETALL").arg(keys.command(device, id));
        }
        let records = self.link.ask(RedisCommand::Read, &mut pipe).await?;
        let now = self.link.clock.now();
        let mut commands = Vec::new();
        for ((id, _), record) in rows.into_iter().zip(records) {
            let fields = Fields::new(record)?;
            if !fields.is_empty() {
                let command = stored(device, command_id(&id)?, fields)?;
                commands.push(as_seen(command, mark, now));
            }
        }
        Ok((commands, next))
    }
}
