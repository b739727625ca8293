//! The `Mailboxes` seam. The rules are in the scripts; here they are called and their answers read.
//! Lists are in `listing.rs`.

use async_trait::async_trait;
use roost_cluster::{
    Batch, Cancelled, CommandFilter, Durability, Enqueued, Mailboxes, Offer, Page, PageRequest,
    Report, Reported, StoreError, SweepFinding, Tally,
};
use roost_types::{Command, CommandId, DeviceKey, NodeId, Partition, SessionId, TenantId};

use crate::codec;
use crate::error::corrupt;
use crate::keys::command_id;
use crate::link::Answer;
use crate::records::{dispatch, nodes, seen, stored, take_findings};
use crate::report::Told;
use crate::script::{self, Call, Script};
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

#[async_trait]
impl Mailboxes for RedisStore {
    async fn enqueue(&self, device: &DeviceKey, offer: Offer<'_>) -> Result<Enqueued, StoreError> {
        let (spec, settings) = (offer.spec, &self.settings);
        let size = spec.payload.as_ref().map_or(0, |payload| payload.len() as u64);
        let call = self
            .call(device)
            .arg(spec.id.as_str())
            .arg(spec.digest())
            .arg(codec::body_bytes(spec))
            .number(size)
            .number(spec.expires.0)
            .arg(offer.waiting.map_or("", NodeId::as_str))
            .number(settings.window.into())
            .number(settings.mailbox_commands.into())
            .number(settings.mailbox_bytes)
            .number(millis(settings.retention))
            .number(millis(settings.undelivered_after))
            .number(spec.max_attempts.into())
            .number(settings.history.into());
        let (mut answer, durability) = self.link.run_durable(&script::ENQUEUE, &call).await?;
        let (rest, full) = (&mut answer.rest, self.link.durability());
        match answer.tag.as_str() {
            "CONFLICT" => return Ok(Enqueued::Conflict),
            "FULL" => {
                return Ok(Enqueued::QueueFull { commands: rest.number()?, bytes: rest.number()? });
            }
            _ => reach(durability, offer.durability.unwrap_or(full))?,
        }
        match answer.tag.as_str() {
            "EXISTING" => {
                let command = Box::new(seen(rest, device, spec.id.clone())?);
                Ok(Enqueued::Existing { command, durability })
            }
            "ACCEPTED" => {
                let (_now, _mark) = (rest.number()?, rest.number()?);
                let command = Box::new(stored(device, spec.id.clone(), rest.fields()?)?);
                // What is less durable than this hub promises is not handed out before it is.
                let dispatch = dispatch(rest)?.filter(|_| durability >= full);
                Ok(Enqueued::Accepted { command, dispatch, durability })
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
            .number(BATCH_BYTES)
            .number(settings.history.into());
        let mut answer = self.durable(&script::READ, &call).await?;
        let more = answer.rest.number()? == 1;
        let (mut found, mut over) = (answer.rest.list()?, answer.rest.list()?);
        let (mut commands, mut ended) = (Vec::new(), Vec::new());
        while !found.is_done() {
            let id = command_id(&found.text()?)?;
            commands.push(stored(device, id, found.fields()?)?);
        }
        while !over.is_done() {
            let id = command_id(&over.text()?)?;
            let command = stored(device, id, over.fields()?)?;
            ended.push((command, nodes(&over.text()?)?));
        }
        Ok(Batch { commands, more, ended })
    }

    async fn report(
        &self,
        device: &DeviceKey,
        session: SessionId,
        id: &CommandId,
        report: &Report,
    ) -> Result<Reported, StoreError> {
        let told = Told::new(report);
        let call = |told: &Told| {
            let call = self
                .call(device)
                .arg(session.to_string())
                .arg(id.as_str())
                .number(codec::state_number(report.state()).into());
            told.args(call)
                .number(self.settings.window.into())
                .number(millis(self.settings.retention))
                .number(millis(self.settings.undelivered_after))
                .number(self.settings.history.into())
        };
        let found = match &told {
            told if told.is_small() => self.durable(&script::REPORT_WHEN_FULL, &call(told)).await,
            told => self.durable(&script::REPORT, &call(told)).await,
        };
        let mut answer = match found {
            Err(StoreError::Full(_)) => {
                self.durable(&script::REPORT_WHEN_FULL, &call(&told.smaller())).await?
            }
            found => found?,
        };
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
        let call = self
            .call(device)
            .arg(id.as_str())
            .number(millis(self.settings.retention))
            .number(self.settings.history.into());
        let mut answer = self.durable(&script::CANCEL, &call).await?;
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
        let durable = self.link.durability() > Durability::Memory;
        let call = self
            .call(device)
            .arg(id.as_str())
            .arg(waiting.map_or("", NodeId::as_str))
            .number(durable.into());
        let mut answer = self.durable(&script::GET, &call).await?;
        match answer.tag.as_str() {
            "NONE" => Ok(None),
            "OK" => seen(&mut answer.rest, device, id.clone()).map(Some),
            other => Err(corrupt(format!("get answered {other:?}"))),
        }
    }

    async fn list(
        &self,
        device: &DeviceKey,
        filter: &CommandFilter,
        page: &PageRequest,
    ) -> Result<Page<Command>, StoreError> {
        self.list_commands(device, filter, page).await
    }

    async fn dead(
        &self,
        tenant: &TenantId,
        page: &PageRequest,
    ) -> Result<Page<Command>, StoreError> {
        self.list_dead(tenant, page).await
    }

    async fn settle_dead(
        &self,
        device: &DeviceKey,
        id: &CommandId,
        redriven_as: &CommandId,
    ) -> Result<bool, StoreError> {
        let call = self.call(device).arg(id.as_str()).arg(redriven_as.as_str());
        match self.durable(&script::SETTLE, &call).await?.tag.as_str() {
            "OK" => Ok(true),
            "NONE" => Ok(false),
            other => Err(corrupt(format!("settle answered {other:?}"))),
        }
    }

    async fn tally(&self) -> Result<Tally, StoreError> {
        self.tally_all().await
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

/// `Indeterminate` where a write survives less than it has to.
fn reach(reached: Durability, needed: Durability) -> Result<(), StoreError> {
    if reached >= needed {
        return Ok(());
    }
    Err(StoreError::Indeterminate("Redis has it, but not as durably as it has to in time".into()))
}

impl RedisStore {
    /// Runs a script whose answer is only to be believed once it is as durable as this hub promises.
    pub(crate) async fn durable(&self, script: &Script, call: &Call) -> Result<Answer, StoreError> {
        let (answer, durability) = self.link.run_durable(script, call).await?;
        reach(durability, self.link.durability())?;
        Ok(answer)
    }

    /// Sweeps some partitions, a batch of each; gives those that have more.
    async fn sweep_some(
        &self,
        partitions: &[Partition],
        findings: &mut Vec<SweepFinding>,
    ) -> Result<Vec<Partition>, StoreError> {
        let calls: Vec<Call> = partitions.iter().map(|p| self.due_call(*p)).collect();
        let answers = self.link.run_all_durable(&script::DUE, &calls).await?;
        let (mut more, mut reached, mut lacking) = (Vec::new(), false, None);
        for (partition, answer) in partitions.iter().zip(answers) {
            let sure = answer.and_then(|(answer, durability)| {
                reach(durability, self.link.durability())
                    .inspect_err(|error| lacking = Some(error.clone()))?;
                Ok(answer)
            });
            reached |= sure.is_ok();
            match sure.and_then(|answer| take_findings(answer, findings)) {
                Ok(true) => more.push(*partition),
                Ok(false) => {}
                // Its master is away, or that one's replica; the others have theirs.
                Err(error @ (StoreError::NotSent(_) | StoreError::Indeterminate(_))) => {
                    tracing::debug!(%partition, %error, "a sweep could not look into a partition");
                }
                // What one record spoils must not hold up the others.
                Err(error) => {
                    tracing::error!(%partition, %error, "a sweep passed a partition over");
                }
            }
        }
        // A cluster's other masters may have their replicas.
        match lacking.filter(|_| !reached) {
            Some(error) => Err(error),
            None => Ok(more),
        }
    }

    fn due_call(&self, partition: Partition) -> Call {
        let base = self.link.keys.base(partition);
        Call::new(format!("{base}due"), &base, self.link.not_after())
            .number(DUE_BATCH)
            .number(millis(self.settings.undelivered_after))
            .number(millis(self.settings.retention))
            .number(self.settings.window.into())
            .number(self.settings.history.into())
    }
}
