//! What a control node counts: commands and RPCs. Both are counted by guards, so that a call whose
//! caller goes away is counted too.

use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram};
use roost_types::CommandState;
use tokio::time::Instant;

use super::catalog as c;
use super::family::{Family, Registrar};
use super::labels::{CommandOutcome, GrpcCode, GrpcMethod};

/// The metrics of the control role; one set per hub.
#[derive(Debug)]
pub struct ControlMetrics {
    /// `roost_commands_total`: incremented by the node that writes the final state, or refuses.
    pub commands: Family<Counter, CommandOutcome>,
    commands_in_flight: Gauge,
    command_round_trip: Histogram,
    grpc_handled: Family<Counter, (GrpcMethod, GrpcCode)>,
    grpc_handling: Family<Histogram, GrpcMethod>,
}

/// One `SendCommand` call: in flight while this lives.
#[derive(Debug)]
pub struct CommandGuard {
    metrics: Arc<ControlMetrics>,
    started: Instant,
}

/// One RPC: counted when [`RpcGuard::finish`] is called, or as `CANCELLED` when dropped before.
#[derive(Debug)]
pub struct RpcGuard {
    metrics: Arc<ControlMetrics>,
    method: GrpcMethod,
    code: GrpcCode,
    started: Instant,
}

// === impl ControlMetrics ===

impl ControlMetrics {
    pub(crate) fn new(r: &Registrar) -> Self {
        Self {
            commands: Family::eager(r, &c::COMMANDS),
            commands_in_flight: r.single(&c::COMMANDS_IN_FLIGHT),
            command_round_trip: r.single(&c::COMMAND_ROUND_TRIP),
            grpc_handled: Family::lazy(r, &c::GRPC_HANDLED),
            grpc_handling: Family::lazy(r, &c::GRPC_HANDLING),
        }
    }

    /// A command reached this state, by a write of this node's; only final ones count.
    pub fn ended(&self, state: CommandState) {
        let outcome = match state {
            CommandState::Succeeded => CommandOutcome::Succeeded,
            CommandState::Failed => CommandOutcome::Failed,
            CommandState::Rejected => CommandOutcome::Rejected,
            CommandState::Expired => CommandOutcome::Expired,
            CommandState::Cancelled => CommandOutcome::Cancelled,
            CommandState::Dead => CommandOutcome::Dead,
            _ => return,
        };
        self.commands.inc(outcome);
    }

    /// A `SendCommand` call starts.
    pub fn command_started(self: &Arc<Self>) -> CommandGuard {
        self.commands_in_flight.increment(1);
        CommandGuard { metrics: Arc::clone(self), started: Instant::now() }
    }

    /// An RPC starts.
    pub fn rpc_started(self: &Arc<Self>, method: GrpcMethod) -> RpcGuard {
        RpcGuard {
            metrics: Arc::clone(self),
            method,
            code: GrpcCode::Cancelled,
            started: Instant::now(),
        }
    }
}

// === impl CommandGuard ===

impl CommandGuard {
    /// The device's result arrived: records the round trip. Calls that did not wait for a result,
    /// or did not get one, just drop the guard.
    pub fn answered(self) {
        self.metrics.command_round_trip.record(self.started.elapsed());
    }
}

impl Drop for CommandGuard {
    fn drop(&mut self) {
        self.metrics.commands_in_flight.decrement(1);
    }
}

// === impl RpcGuard ===

impl RpcGuard {
    /// The answer, or a stream's end, was sent with this status.
    pub fn finish(mut self, code: GrpcCode) {
        self.code = code;
    }
}

impl Drop for RpcGuard {
    fn drop(&mut self) {
        self.metrics.grpc_handled.inc((self.method, self.code));
        self.metrics.grpc_handling.with(self.method).record(self.started.elapsed());
    }
}
