//! `CommandService`. What makes a request valid is in `roost-proto`; how a caller waits in `follow.rs`.

use std::sync::Arc;

use roost_auth::Caller;
use roost_cluster::{Cancelled, Durability, Enqueued, NodeEvent, PageRequest};
use roost_proto::control::v1::{self, command_service_server::CommandService};
use roost_proto::convert::{CommandRef, SendCommand, command_state, device_id, page_size};
use roost_telemetry::metrics::labels::CommandOutcome;
use roost_types::{Command, CommandSpec, CommandState, DeviceKey, ErrorCode, NodeId};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::Control;
use crate::auth::caller;
use crate::follow::Followed;
use crate::refusal::{Refusal, all_of};

/// How many commands are read from the store at once, so that a page is bounded in bytes too.
const READ_COMMANDS: usize = 8;
/// How often the store is read for one page at the most, should it give empty pages.
const MAX_READS: usize = 150;
/// A page of commands ends once it has as many payload bytes: clients refuse 4 MiB by default.
const PAGE_BYTES: usize = 2 << 20;

/// The service, for any number of callers.
#[derive(Debug, Clone)]
pub(crate) struct Commands(pub(crate) Arc<Control>);

#[tonic::async_trait]
impl CommandService for Commands {
    async fn send_command(
        &self,
        request: Request<v1::SendCommandRequest>,
    ) -> Result<Response<v1::SendCommandResponse>, Status> {
        let caller = caller(&request)?;
        let reply = self.send(&caller, request.into_inner()).await?;
        Ok(Response::new(reply))
    }

    async fn get_command(
        &self,
        request: Request<v1::GetCommandRequest>,
    ) -> Result<Response<v1::GetCommandResponse>, Status> {
        let caller = caller(&request)?;
        let wanted = CommandRef::try_from(request.get_ref()).map_err(Refusal::from)?;
        let device = DeviceKey::new(caller.tenant, wanted.device);
        let found = self.0.store.mailboxes.get(&device, &wanted.command, None);
        let found = self.0.read(found).await?;
        let command = found.as_ref().ok_or_else(no_such_command)?;
        Ok(Response::new(v1::GetCommandResponse { command: Some(command.into()) }))
    }

    async fn list_commands(
        &self,
        request: Request<v1::ListCommandsRequest>,
    ) -> Result<Response<v1::ListCommandsResponse>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(self.list(&caller, request.get_ref()).await?))
    }

    async fn cancel_command(
        &self,
        request: Request<v1::CancelCommandRequest>,
    ) -> Result<Response<v1::CancelCommandResponse>, Status> {
        let caller = caller(&request)?;
        let wanted = CommandRef::try_from(request.get_ref()).map_err(Refusal::from)?;
        Ok(Response::new(self.cancel(&caller, wanted).await?))
    }
}

// === impl Commands ===

impl Commands {
    async fn send(
        &self,
        caller: &Caller,
        request: v1::SendCommandRequest,
    ) -> Result<v1::SendCommandResponse, Refusal> {
        let metrics = &self.0.metrics;
        let guard = metrics.command_started();
        let started = Instant::now();
        let asked = self.check(request).inspect_err(|refusal| {
            metrics.commands.inc(outcome(refusal.code));
        })?;
        let device = DeviceKey::new(caller.tenant.clone(), asked.device);
        // Before the command exists, or its first updates would find nobody.
        let waiter =
            asked.wait.map(|wait| (wait, self.0.waiters.register(&device, &asked.spec.id)));
        let (command, already_existed) = self.accept(device, asked.spec, waiter.is_some()).await?;
        let had_ended = command.state.is_terminal();
        let followed = match waiter {
            Some((wait, waiter)) => self.0.follow(waiter, command, wait, started).await,
            None => Followed { command, timed_out: false },
        };
        if !had_ended && followed.command.result.is_some() {
            guard.answered();
        }
        Ok(v1::SendCommandResponse {
            command: Some((&followed.command).into()),
            already_existed,
            wait_timed_out: followed.timed_out,
            durability: durability(self.0.store.durability).into(),
        })
    }

    fn check(&self, request: v1::SendCommandRequest) -> Result<SendCommand, Refusal> {
        let (now, most) = (self.0.store.clock.now(), self.0.config.max_payload);
        Ok(SendCommand::from_request(request, now, most)?)
    }

    /// Accepts to the end even if the caller goes away half way, or a command could be stored and not
    /// pushed.
    async fn accept(
        &self,
        device: DeviceKey,
        spec: CommandSpec,
        awaited: bool,
    ) -> Result<(Command, bool), Refusal> {
        let control = Arc::clone(&self.0);
        let task = async move { control.enqueue(&device, &spec, awaited).await };
        self.0.to_its_end(task).await
    }

    async fn list(
        &self,
        caller: &Caller,
        request: &v1::ListCommandsRequest,
    ) -> Result<v1::ListCommandsResponse, Refusal> {
        let (device, wanted, state) = all_of((
            device_id(&request.device_id),
            page_size(request.page_size),
            command_state(request.state, "state"),
        ))?;
        let device = DeviceKey::new(caller.tenant.clone(), device);
        let mut token = page_token(&request.page_token);
        let (mut commands, mut bytes) = (Vec::new(), 0);
        for _ in 0..MAX_READS {
            let size = READ_COMMANDS.min(wanted - commands.len());
            let page = PageRequest { size, token };
            let listed = self.0.store.mailboxes.list(&device, state, &page);
            let listed = self.0.read(listed).await.map_err(at_page_token)?;
            bytes += listed.items.iter().map(payload_bytes).sum::<usize>();
            commands.extend(listed.items.iter().map(v1::Command::from));
            token = listed.next;
            if token.is_none() || commands.len() >= wanted || bytes >= PAGE_BYTES {
                break;
            }
        }
        Ok(v1::ListCommandsResponse { commands, next_page_token: token.unwrap_or_default() })
    }

    async fn cancel(
        &self,
        caller: &Caller,
        wanted: CommandRef,
    ) -> Result<v1::CancelCommandResponse, Refusal> {
        let device = DeviceKey::new(caller.tenant.clone(), wanted.device);
        let control = Arc::clone(&self.0);
        // To its end, or who waits for the command would not be told.
        let task = async move { control.cancel(&device, &wanted.command).await };
        let (outcome, command) = self.0.to_its_end(task).await?;
        Ok(v1::CancelCommandResponse { outcome: outcome.into(), command: Some((&command).into()) })
    }
}

// === impl Control ===

impl Control {
    /// Puts a command into the mailbox and pushes it if it is to go out now. Gives the command and
    /// whether it existed before.
    async fn enqueue(
        &self,
        device: &DeviceKey,
        spec: &CommandSpec,
        awaited: bool,
    ) -> Result<(Command, bool), Refusal> {
        let waiting = awaited.then_some(&self.config.node.id);
        let offered = self.store.mailboxes.enqueue(device, spec, waiting);
        let accepted = match self.change(offered).await {
            Ok(Enqueued::Accepted { command, dispatch }) => {
                if let Some(dispatch) = dispatch {
                    let event = NodeEvent::Deliver {
                        session: dispatch.session,
                        command: command.clone(),
                        prev: dispatch.prev,
                    };
                    self.nudge(self.store.bus.send(&dispatch.node, &event)).await;
                }
                Ok((*command, false))
            }
            Ok(Enqueued::Existing(command)) => {
                self.ring_again(&command).await;
                Ok((self.rejoin(*command, waiting).await, true))
            }
            Ok(Enqueued::Conflict) => Err(conflict(spec)),
            Ok(Enqueued::QueueFull { commands, bytes }) => Err(Refusal::new(
                ErrorCode::QueueFull,
                format!(
                    "the device's mailbox is full: {commands} unfinished commands, {bytes} payload bytes"
                ),
            )),
            Err(refusal) => Err(refusal),
        };
        accepted.inspect_err(|refusal| self.metrics.commands.inc(outcome(refusal.code)))
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

    async fn cancel(
        &self,
        device: &DeviceKey,
        id: &roost_types::CommandId,
    ) -> Result<(v1::CancelOutcome, Command), Refusal> {
        let cancelled = self.store.mailboxes.cancel(device, id);
        match self.change(cancelled).await? {
            Cancelled::Cancelled { command, waiting } => {
                self.metrics.commands.inc(CommandOutcome::Cancelled);
                let event = NodeEvent::CommandUpdate(command.clone());
                for node in &waiting {
                    self.nudge(self.store.bus.send_to(node, &event)).await;
                }
                Ok((v1::CancelOutcome::Cancelled, *command))
            }
            Cancelled::TooLate { command, forward } => {
                if let Some((session, node)) = forward {
                    let event =
                        NodeEvent::Cancel { device: device.clone(), session, command: id.clone() };
                    self.nudge(self.store.bus.send(&node, &event)).await;
                }
                Ok((v1::CancelOutcome::TooLate, *command))
            }
            Cancelled::Ended(command) if command.state == CommandState::Cancelled => {
                Ok((v1::CancelOutcome::Cancelled, *command))
            }
            Cancelled::Ended(command) => Ok((v1::CancelOutcome::AlreadyTerminal, *command)),
            Cancelled::Unknown => Err(no_such_command()),
        }
    }
}

fn conflict(spec: &CommandSpec) -> Refusal {
    let what = format!(
        "the command id {:?} was used for this device with another name, payload or headers; a new command needs a new id",
        spec.id
    );
    Refusal::new(ErrorCode::AlreadyExists, what)
}

fn no_such_command() -> Refusal {
    Refusal::new(
        ErrorCode::NotFound,
        "the device has no command of this id, or its record has outlived its retention",
    )
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

fn durability(durability: Durability) -> v1::Durability {
    match durability {
        Durability::Process => v1::Durability::Process,
        Durability::Memory => v1::Durability::Memory,
    }
}

/// A page token as it came; empty is the first page.
pub(crate) fn page_token(token: &str) -> Option<String> {
    (!token.is_empty()).then(|| token.to_owned())
}

/// A token that the store did not give is the caller's mistake in that field.
pub(crate) fn at_page_token(refusal: Refusal) -> Refusal {
    if refusal.code == ErrorCode::CursorInvalid {
        return refusal.at("page_token");
    }
    refusal
}

fn payload_bytes(command: &Command) -> usize {
    let asked = command.spec.payload.as_ref();
    let answered = command.result.as_ref().and_then(|result| result.payload.as_ref());
    asked.into_iter().chain(answered).map(roost_types::Payload::len).sum()
}
