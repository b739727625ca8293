//! One `BatchSendCommands` stream: a command to each of many devices, an answer for each as it comes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use roost_auth::Caller;
use roost_proto::control::v1::batch_send_commands_response::Outcome;
use roost_proto::control::v1::{self, BatchSendCommandsResponse};
use roost_proto::convert::{BatchSend, SendCommand};
use roost_types::{DeviceId, TenantId};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use crate::Control;
use crate::control::draining;
use crate::refusal::Refusal;
use crate::stream::Items;

/// How many commands of one batch are being accepted at once: enough to keep the store busy, too few
/// to keep others from it.
const ACCEPTING: usize = 64;
/// How many commands of one batch are under way at once: accepted or awaited. With results of the
/// largest size they take 64 MiB.
const UNDER_WAY: usize = 1_024;
/// How many answers wait for a client that reads slowly; beyond it no further command is sent.
const QUEUE: usize = 64;
/// How long a client that does not read may hold up the last word to it.
const LAST_WORD: Duration = Duration::from_secs(1);

/// A batch at work.
struct Batch {
    control: Arc<Control>,
    tenant: TenantId,
    asked: BatchSend,
    accepting: Semaphore,
}

/// Checks a batch and begins with it.
pub(crate) fn open(
    control: &Arc<Control>,
    caller: Caller,
    request: v1::BatchSendCommandsRequest,
) -> Result<Items<BatchSendCommandsResponse>, Refusal> {
    let (now, most) = (control.store.clock.now(), control.config.max_payload);
    let asked = BatchSend::from_request(request, now, most).map_err(Refusal::from);
    let asked = control.counted(asked)?;
    // Wrong for one, wrong for all.
    control.counted(control.durability(asked.durability))?;
    let accepting = Semaphore::new(ACCEPTING);
    let batch = Batch { control: Arc::clone(control), tenant: caller.tenant, asked, accepting };
    let (out, stream) = mpsc::channel(QUEUE);
    control.tasks.spawn(async move { batch.run(out).await });
    Ok(ReceiverStream::new(stream))
}

// === impl Batch ===

impl Batch {
    /// Ends early when the client leaves or the node stops: what was accepted stays accepted, further
    /// commands are not sent.
    async fn run(&self, out: mpsc::Sender<Result<BatchSendCommandsResponse, tonic::Status>>) {
        let answers = async {
            let devices = futures_util::stream::iter(self.asked.devices.clone());
            let mut answers = devices.map(|device| self.one(device)).buffer_unordered(UNDER_WAY);
            while let Some(answer) = answers.next().await {
                if out.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            // Stopping comes first, or a long batch would keep the node alive.
            () = self.control.stopping.cancelled() => {}
            () = out.closed() => return,
            () = answers => return,
        }
        if timeout(LAST_WORD, out.send(Err(draining().into()))).await.is_err() {
            tracing::debug!(tenant = %self.tenant, "the caller of a batch did not read to the end");
        }
    }

    async fn one(&self, device: DeviceId) -> BatchSendCommandsResponse {
        let outcome = match self.send(&device).await {
            Ok(sent) => Outcome::Sent(sent),
            Err(refusal) => Outcome::Error(refusal.into()),
        };
        BatchSendCommandsResponse {
            device_id: device.to_string(),
            command_id: self.asked.command_id().to_string(),
            outcome: Some(outcome),
        }
    }

    async fn send(&self, device: &DeviceId) -> Result<v1::SendCommandResponse, Refusal> {
        let sent = {
            // Never closed; without a permit there would merely be no bound.
            let _permit = self.accepting.acquire().await.ok();
            let spec = self.asked.spec_at(self.control.store.clock.now());
            let spec = self.control.counted(spec.map_err(Refusal::from))?;
            let BatchSend { wait, durability, .. } = self.asked;
            let asked = SendCommand { device: device.clone(), spec, wait, durability };
            self.control.send(self.tenant.clone(), asked).await?
        };
        Ok(self.control.answer(sent).await)
    }
}
