//! `CommandService`: which call does what. How a command is accepted is in `accept.rs`, how callers wait
//! in `follow.rs`; streams are in `stream.rs` and `batch.rs`, lists in `pages.rs`, `redrive.rs` drives
//! dead ones again. What makes a request valid is in `roost-proto`.

use std::sync::Arc;

use roost_auth::Caller;
use roost_cluster::{Cancelled, NodeEvent};
use roost_proto::control::v1::{self, command_service_server::CommandService};
use roost_proto::convert::{CommandRef, SendCommand};
use roost_telemetry::metrics::labels::CommandOutcome;
use roost_types::{Command, CommandId, CommandState, DeviceKey, ErrorCode};
use tonic::{Request, Response, Status};

use crate::auth::caller;
use crate::refusal::Refusal;
use crate::stream::Items;
use crate::{Control, batch, stream, traced};

/// The service, for any number of callers.
#[derive(Debug, Clone)]
pub(crate) struct Commands(pub(crate) Arc<Control>);

#[tonic::async_trait]
impl CommandService for Commands {
    type SendAndWatchCommandStream = Items<v1::SendAndWatchCommandResponse>;
    type BatchSendCommandsStream = Items<v1::BatchSendCommandsResponse>;
    type WatchCommandStream = Items<v1::WatchCommandResponse>;

    async fn send_command(
        &self,
        request: Request<v1::SendCommandRequest>,
    ) -> Result<Response<v1::SendCommandResponse>, Status> {
        let caller = caller(&request)?;
        let span = self.0.span_of("SendCommand", request.metadata());
        let reply = span.within(self.send(caller, request.into_inner())).await;
        traced::answered(&span, &reply);
        Ok(Response::new(reply?))
    }

    async fn send_and_watch_command(
        &self,
        request: Request<v1::SendAndWatchCommandRequest>,
    ) -> Result<Response<Self::SendAndWatchCommandStream>, Status> {
        let caller = caller(&request)?;
        let span = self.0.span_of("SendAndWatchCommand", request.metadata());
        let stream = stream::send(&self.0, caller, request.into_inner());
        Ok(Response::new(span.within(stream).await?))
    }

    async fn batch_send_commands(
        &self,
        request: Request<v1::BatchSendCommandsRequest>,
    ) -> Result<Response<Self::BatchSendCommandsStream>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(batch::open(&self.0, caller, request.into_inner())?))
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

    async fn watch_command(
        &self,
        request: Request<v1::WatchCommandRequest>,
    ) -> Result<Response<Self::WatchCommandStream>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(stream::watch(&self.0, caller, request.get_ref()).await?))
    }

    async fn list_commands(
        &self,
        request: Request<v1::ListCommandsRequest>,
    ) -> Result<Response<v1::ListCommandsResponse>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(self.0.list_commands(caller, request.get_ref()).await?))
    }

    async fn cancel_command(
        &self,
        request: Request<v1::CancelCommandRequest>,
    ) -> Result<Response<v1::CancelCommandResponse>, Status> {
        let caller = caller(&request)?;
        let wanted = CommandRef::try_from(request.get_ref()).map_err(Refusal::from)?;
        Ok(Response::new(self.cancel(caller, wanted).await?))
    }

    async fn list_dead_commands(
        &self,
        request: Request<v1::ListDeadCommandsRequest>,
    ) -> Result<Response<v1::ListDeadCommandsResponse>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(self.0.list_dead(caller, request.get_ref()).await?))
    }

    async fn redrive_command(
        &self,
        request: Request<v1::RedriveCommandRequest>,
    ) -> Result<Response<v1::RedriveCommandResponse>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(self.0.redrive(caller, request.get_ref()).await?))
    }
}

// === impl Commands ===

impl Commands {
    async fn send(
        &self,
        caller: Caller,
        request: v1::SendCommandRequest,
    ) -> Result<v1::SendCommandResponse, Refusal> {
        let (now, most) = (self.0.store.clock.now(), self.0.config.max_payload);
        let asked = SendCommand::from_request(request, now, most).map_err(Refusal::from);
        let asked = self.0.counted(asked)?;
        let sent = self.0.send(caller.tenant, asked).await?;
        Ok(self.0.answer(sent).await)
    }

    async fn cancel(
        &self,
        caller: Caller,
        wanted: CommandRef,
    ) -> Result<v1::CancelCommandResponse, Refusal> {
        let device = DeviceKey::new(caller.tenant, wanted.device);
        let control = Arc::clone(&self.0);
        // To its end, or who waits for the command would not be told.
        let task = async move { control.cancel(&device, &wanted.command).await };
        let (outcome, command) = self.0.to_its_end(task).await?;
        Ok(v1::CancelCommandResponse { outcome: outcome.into(), command: Some((&command).into()) })
    }
}

// === impl Control ===

impl Control {
    async fn cancel(
        &self,
        device: &DeviceKey,
        id: &CommandId,
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

/// What is asked for and cannot be found.
pub(crate) fn no_such_command() -> Refusal {
    Refusal::new(
        ErrorCode::NotFound,
        "the device has no command of this id, or its record has outlived its retention",
    )
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
