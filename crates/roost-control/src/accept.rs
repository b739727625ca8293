//! Accepting a command: into the mailbox, and pushed if it is to go out now. What makes a request valid
//! is in `roost-proto`; how a caller waits for what comes of it in `follow.rs`.

use std::sync::Arc;

use roost_cluster::{Durability, Enqueued, NodeEvent, Offer};
use roost_proto::control::v1;
use roost_proto::convert::{SendCommand, Wait};
use roost_telemetry::metrics::CommandGuard;
use roost_telemetry::metrics::labels::CommandOutcome;
use roost_telemetry::trace;
use roost_types::{Command, CommandSpec, CommandState, DeviceKey, ErrorCode, NodeId, TenantId};
use tokio::time::Instant;

use crate::Control;
use crate::follow::Followed;
use crate::refusal::Refusal;
use crate::traced;
use crate::waiters::Waiter;

/// A command that is in its device's mailbox, or was.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) command: Command,
    /// Whether an earlier call had brought it in.
    pub(crate) already_existed: bool,
    /// What the acceptance survives.
    pub(crate) durability: Durability,
}

/// A `SendCommand` that was accepted, between that and its answer.
#[derive(Debug)]
pub(crate) struct Sent {
    accepted: Accepted,
    waiter: Option<(Wait, Waiter)>,
    started: Instant,
    guard: CommandGuard,
}

// === impl Control ===

impl Control {
    /// The first half of `SendCommand`: accepts the command.
    pub(crate) async fn send(
        self: &Arc<Self>,
        tenant: TenantId,
        asked: SendCommand,
    ) -> Result<Sent, Refusal> {
        let SendCommand { device, spec, wait, durability } = asked;
        let (guard, started) = (self.metrics.command_started(), Instant::now());
        let device = DeviceKey::new(tenant, device);
        // Before the command exists, or its first updates would find nobody.
        let waiter = wait.map(|wait| (wait, self.waiters.register(&device, &spec.id)));
        let accepted = self.accept(device, spec, durability, waiter.is_some()).await?;
        Ok(Sent { accepted, waiter, started, guard })
    }

    /// The second half: waits as the caller asked.
    pub(crate) async fn answer(self: &Arc<Self>, sent: Sent) -> v1::SendCommandResponse {
        let Sent { accepted, waiter, started, guard } = sent;
        let Accepted { command, already_existed, durability } = accepted;
        let had_ended = command.state.is_terminal();
        let followed = match waiter {
            Some((wait, waiter)) => self.follow(waiter, command, wait, started).await,
            None => Followed { command, timed_out: false },
        };
        if !had_ended && followed.command.result.is_some() {
            guard.answered();
        }
        v1::SendCommandResponse {
            command: Some((&followed.command).into()),
            already_existed,
            wait_timed_out: followed.timed_out,
            durability: durability_out(durability).into(),
        }
    }

    /// Puts a command into the mailbox and pushes it if it is to go out now; `awaited` has this node
    /// told of its progress.
    ///
    /// To the end even if the caller goes away half way, or a command could be stored and not pushed.
    pub(crate) async fn accept(
        self: &Arc<Self>,
        device: DeviceKey,
        spec: CommandSpec,
        durability: Option<v1::Durability>,
        awaited: bool,
    ) -> Result<Accepted, Refusal> {
        let durability = self.counted(self.durability(durability))?;
        let control = Arc::clone(self);
        let spec = CommandSpec { trace: trace::current(), ..spec };
        let task = async move {
            let waiting = awaited.then_some(&control.config.node.id);
            control.enqueue(&device, Offer { spec: &spec, waiting, durability }).await
        };
        self.counted(self.to_its_end(task).await)
    }

    /// The durability asked, if this hub gives it.
    pub(crate) fn durability(
        &self,
        asked: Option<v1::Durability>,
    ) -> Result<Option<Durability>, Refusal> {
        let asked = asked.and_then(durability_in);
        let most = self.store.durability;
        if asked.is_none_or(|asked| asked <= most) {
            return Ok(asked);
        }
        let remedy = match most {
            Durability::Process => {
                "run it on Redis (redis.url) to keep commands beyond its process"
            }
            _ => "its operator can set redis.durability (and redis.replicas) for more",
        };
        let name = |durability| durability_out(durability).as_str_name().to_owned();
        let (wanted, given) = (asked.map(name).unwrap_or_default(), name(most));
        let what = format!("{wanted} is asked, and this hub gives {given} at the most; {remedy}");
        Err(Refusal::new(ErrorCode::DurabilityUnsupported, what))
    }

    async fn enqueue(&self, device: &DeviceKey, offer: Offer<'_>) -> Result<Accepted, Refusal> {
        let offered = self.store.mailboxes.enqueue(device, offer);
        match self.change(offered).await? {
            Enqueued::Accepted { mut command, dispatch, durability } => {
                if let Some(dispatch) = dispatch {
                    let span = traced::push(&mut command, &dispatch);
                    let event = NodeEvent::Deliver {
                        session: dispatch.session,
                        command: command.clone(),
                        prev: dispatch.prev,
                    };
                    let sent = self.store.bus.send(&dispatch.node, &event);
                    span.within(self.nudge(sent)).await;
                }
                Ok(Accepted { command: *command, already_existed: false, durability })
            }
            Enqueued::Existing { command, durability } => {
                trace::link(command.spec.trace);
                self.ring_again(&command).await;
                let command = self.rejoin(*command, offer.waiting).await;
                Ok(Accepted { command, already_existed: true, durability })
            }
            Enqueued::Conflict => Err(conflict(offer.spec)),
            Enqueued::QueueFull { commands, bytes } => Err(Refusal::new(
                ErrorCode::QueueFull,
                format!(
                    "the device's mailbox is full: {commands} unfinished commands, {bytes} payload bytes"
                ),
            )),
        }
    }

    /// A command that was dispatched and never sent may be one whose first call ended before its push:
    /// its edge is told to read the mailbox now, not only at the next sweep. A push too many is
    /// harmless.
    async fn ring_again(&self, command: &Command) {
        let Some(session) = command.session.filter(|_| command.state == CommandState::Dispatched)
        else {
            return;
        };
        let found = self.read(self.store.sessions.get(&command.device)).await;
        let holder = found.ok().flatten().and_then(|device| device.session);
        if let Some(holder) = holder.filter(|holder| holder.session == session) {
            let event = NodeEvent::Drain { device: command.device.clone(), session };
            self.nudge(self.store.bus.send(&holder.node, &event)).await;
        }
    }

    /// Has this node told of a command that another call brought in, and looks what happened to it
    /// meanwhile.
    async fn rejoin(&self, command: Command, waiting: Option<&NodeId>) -> Command {
        if waiting.is_none() || command.state.is_terminal() {
            return command;
        }
        let mailboxes = &self.store.mailboxes;
        let found = mailboxes.get(&command.device, &command.spec.id, waiting);
        self.read(found).await.ok().flatten().unwrap_or(command)
    }

    /// Counts a command that was refused.
    pub(crate) fn counted<T>(&self, accepted: Result<T, Refusal>) -> Result<T, Refusal> {
        accepted.inspect_err(|refusal| self.metrics.commands.inc(outcome(refusal.code)))
    }
}

fn conflict(spec: &CommandSpec) -> Refusal {
    let what = format!(
        "the command id {:?} was used for this device with another name, payload, headers, ordering key or number of attempts; a new command needs a new id",
        spec.id
    );
    Refusal::new(ErrorCode::AlreadyExists, what)
}

/// As the metric of refused commands tells them apart.
fn outcome(code: ErrorCode) -> CommandOutcome {
    match code {
        ErrorCode::QueueFull => CommandOutcome::QueueFull,
        ErrorCode::Indeterminate => CommandOutcome::Indeterminate,
        ErrorCode::NotEnqueued
        | ErrorCode::StoreFull
        | ErrorCode::Unavailable
        | ErrorCode::Internal => CommandOutcome::NotEnqueued,
        _ => CommandOutcome::Invalid,
    }
}

/// As callers read it.
pub(crate) fn durability_out(durability: Durability) -> v1::Durability {
    match durability {
        Durability::Process => v1::Durability::Process,
        Durability::Memory => v1::Durability::Memory,
        Durability::Replicated => v1::Durability::Replicated,
        Durability::Fsync => v1::Durability::Fsync,
    }
}

fn durability_in(durability: v1::Durability) -> Option<Durability> {
    match durability {
        v1::Durability::Unspecified => None,
        v1::Durability::Process => Some(Durability::Process),
        v1::Durability::Memory => Some(Durability::Memory),
        v1::Durability::Replicated => Some(Durability::Replicated),
        v1::Durability::Fsync => Some(Durability::Fsync),
    }
}
