//! Streams that tell of one command until it has ended: `WatchCommand` and `SendAndWatchCommand`. How
//! they learn of it is in `follow.rs`.

use std::sync::Arc;
use std::time::Duration;

use roost_auth::Caller;
use roost_cluster::StoreHealth;
use roost_proto::control::v1;
use roost_proto::convert::{WatchCommand, WatchCursor, send_and_watch};
use roost_telemetry::metrics::CommandGuard;
use roost_types::{Command, DeviceKey, ErrorCode};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::Control;
use crate::accept::{Accepted, durability_out};
use crate::commands::no_such_command;
use crate::control::draining;
use crate::follow::Follower;
use crate::refusal::Refusal;

/// How many items wait for a client that reads slowly; what happens meanwhile is told as one.
const QUEUE: usize = 4;
/// How long a client that does not read may hold up the last word to it.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What a stream of commands is made of.
pub(crate) type Items<T> = ReceiverStream<Result<T, Status>>;

/// One stream.
struct Telling<T> {
    follower: Follower,
    /// What the client knows.
    told: Option<WatchCursor>,
    out: mpsc::Sender<Result<T, Status>>,
    item: fn(&Command) -> T,
}

/// Why a stream stopped before the command had ended.
enum Stopped {
    /// The client has gone.
    Left,
    /// The client is to be told.
    Refused(Refusal),
}

/// Opens a `WatchCommand` stream.
pub(crate) async fn watch(
    control: &Arc<Control>,
    caller: Caller,
    request: &v1::WatchCommandRequest,
) -> Result<Items<v1::WatchCommandResponse>, Refusal> {
    let WatchCommand { target, cursor } = WatchCommand::try_from(request)?;
    let device = DeviceKey::new(caller.tenant, target.device);
    // Before the record is read, or what happens in between would go unheard.
    let waiter = control.waiters.register(&device, &target.command);
    let node = &control.config.node.id;
    let found = control.store.mailboxes.get(&device, &target.command, Some(node));
    let found = control.read(found).await?.ok_or_else(no_such_command)?;
    let follower = Follower::new(Arc::clone(control), waiter, found);
    let (out, stream) = mpsc::channel(QUEUE);
    let telling = Telling { follower, told: cursor, out, item: watched };
    let control_ = Arc::clone(control);
    control.tasks.spawn(async move { drop(telling.run(&control_).await) });
    Ok(ReceiverStream::new(stream))
}

/// Accepts a command and opens a stream about it.
pub(crate) async fn send(
    control: &Arc<Control>,
    caller: Caller,
    request: v1::SendAndWatchCommandRequest,
) -> Result<Items<v1::SendAndWatchCommandResponse>, Refusal> {
    let (now, most) = (control.store.clock.now(), control.config.max_payload);
    let asked = control.counted(send_and_watch(request, now, most).map_err(Refusal::from))?;
    let device = DeviceKey::new(caller.tenant, asked.device);
    let waiter = control.waiters.register(&device, &asked.spec.id);
    let guard = control.metrics.command_started();
    let accepted = control.accept(device, asked.spec, asked.durability, true).await?;
    let Accepted { command, already_existed, durability } = accepted;
    let (out, stream) = mpsc::channel(QUEUE);
    let first = v1::SendAndWatchCommandResponse {
        durability: durability_out(durability).into(),
        already_existed,
        ..sent(&command)
    };
    // There is room: it is the first. Only a client that left already goes without.
    let _left = out.try_send(Ok(first)).is_err();
    let told = Some(WatchCursor::of(&command));
    let had_ended = command.state.is_terminal();
    let follower = Follower::new(Arc::clone(control), waiter, command);
    let telling = Telling { follower, told, out, item: sent };
    let control_ = Arc::clone(control);
    control.tasks.spawn(async move { count(telling.run(&control_).await, had_ended, guard) });
    Ok(ReceiverStream::new(stream))
}

/// Counts the round trip of a command that was seen to its end.
fn count(seen: Option<Command>, had_ended: bool, guard: CommandGuard) {
    if !had_ended && seen.is_some_and(|command| command.result.is_some()) {
        guard.answered();
    }
}

fn watched(command: &Command) -> v1::WatchCommandResponse {
    let cursor = WatchCursor::of(command).to_string();
    v1::WatchCommandResponse { command: Some(command.into()), cursor }
}

fn sent(command: &Command) -> v1::SendAndWatchCommandResponse {
    let cursor = WatchCursor::of(command).to_string();
    let command = Some(command.into());
    v1::SendAndWatchCommandResponse { command, cursor, ..Default::default() }
}

// === impl Telling ===

impl<T> Telling<T> {
    /// Tells of every change; gives the command once its end was told.
    async fn run(mut self, control: &Control) -> Option<Command> {
        let until = Instant::now() + control.config.jittered_age();
        let out = self.out.clone();
        let refusal = tokio::select! {
            biased;
            // Stopping comes first, or a stream of changes would keep the node alive.
            () = control.stopping.cancelled() => draining(),
            () = out.closed() => return None,
            () = sleep_until(until) => draining(),
            // Before what follows would find out by its next look.
            refusal = store_lost(control) => refusal,
            told = self.tell() => match told {
                Ok(()) => return Some(self.follower.command().clone()),
                Err(Stopped::Left) => return None,
                Err(Stopped::Refused(refusal)) => refusal,
            },
        };
        if timeout(LAST_WORD, out.send(Err(refusal.into()))).await.is_err() {
            tracing::debug!("who followed a command did not read to the end");
        }
        None
    }

    async fn tell(&mut self) -> Result<(), Stopped> {
        loop {
            if self.told != Some(WatchCursor::of(self.follower.command())) {
                self.say().await?;
            }
            if self.follower.command().state.is_terminal() {
                return Ok(());
            }
            self.follower.news().await.map_err(Stopped::Refused)?;
        }
    }

    /// Tells of the command as it is when the client has room for it.
    async fn say(&mut self) -> Result<(), Stopped> {
        let room = loop {
            tokio::select! {
                biased;
                // First, or a client that reads would wait for the news after these.
                room = self.out.reserve() => break room.map_err(|_| Stopped::Left)?,
                news = self.follower.news() => news.map_err(Stopped::Refused)?,
            }
        };
        let command = self.follower.command();
        self.told = Some(WatchCursor::of(command));
        room.send(Ok((self.item)(command)));
        Ok(())
    }
}

/// Ends when the store is out of reach.
async fn store_lost(control: &Control) -> Refusal {
    let mut health = control.store.health.clone();
    let lost = health.wait_for(|health| *health != StoreHealth::Up).await.is_ok();
    if !lost {
        // Nobody tells of the store any more: it stays as it is.
        std::future::pending::<()>().await;
    }
    let what = "the hub lost its store; watch the command again, with the last cursor";
    Refusal::new(ErrorCode::Unavailable, what)
}
