//! The connection for what must be durable, one for each master: what waits is written together, with one
//! WAIT behind it, and all are answered together. It is never replaced under a request: WAIT counts what
//! *this* connection wrote, and on a fresh one it answers at once.
//!
//! Every command that comes before WAIT on a connection makes it wait for all that the master has written
//! by then (measured on Redis 7.0: a GET too), and a batch is one pipeline on one connection. Scripts of
//! which another version of Redis might think that they wrote nothing write all the same.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, RedisResult, Value};
use roost_cluster::{Durability, StoreError};
use roost_telemetry::metrics::labels::RedisCommand;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::config::RedisConfig;
use crate::error::judge;
use crate::target::Target;

use super::master::{Master, MasterState};
use super::spans::spanned;

/// How many requests may wait for the next batch. Beyond it their makers wait.
const WAITING: usize = 1_024;
/// How many commands one batch has at most: about 25 ms of work for Redis.
const BATCH: usize = 512;

/// What a request got: each command's answer, and what all of them are worth.
type Answers = (Vec<RedisResult<Value>>, Durability);

/// A request.
pub(super) struct Job {
    command: RedisCommand,
    cmds: Vec<Cmd>,
    since: Instant,
    done: oneshot::Sender<Result<Answers, StoreError>>,
}

/// Where requests wait.
pub(super) struct Lane {
    jobs: mpsc::Sender<Job>,
    /// How long a request may wait for its turn.
    patience: Duration,
}

/// What the hub promises, and how long it may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Promise {
    pub(super) durability: Durability,
    replicas: u32,
    wait: Duration,
    response: Duration,
}

// === impl Promise ===

impl Promise {
    pub(super) fn of(config: &RedisConfig) -> Self {
        Self {
            durability: config.durability,
            replicas: config.replicas,
            wait: config.wait_timeout,
            response: config.response_timeout,
        }
    }

    /// Whether anything is promised that a plain answer of Redis does not mean.
    pub(super) fn is_more_than_memory(&self) -> bool {
        matches!(self.durability, Durability::Replicated | Durability::Fsync)
    }

    fn wait(&self) -> Cmd {
        let millis = u64::try_from(self.wait.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut cmd = Cmd::new();
        match self.durability {
            Durability::Fsync => cmd.arg("WAITAOF").arg(1).arg(self.replicas).arg(millis),
            _ => cmd.arg("WAIT").arg(self.replicas).arg(millis),
        };
        cmd
    }

    /// What the answer to [`Promise::wait`] says.
    fn reached(&self, answer: Option<&RedisResult<Value>>) -> Durability {
        let enough = |number: &Value| matches!(number, Value::Int(n) if *n >= self.replicas.into());
        match (self.durability, answer) {
            (Durability::Replicated, Some(Ok(number))) if enough(number) => Durability::Replicated,
            (Durability::Fsync, Some(Ok(Value::Array(both)))) => match both.as_slice() {
                [Value::Int(local), replicas] if *local >= 1 && enough(replicas) => {
                    Durability::Fsync
                }
                _ => Durability::Memory,
            },
            _ => Durability::Memory,
        }
    }
}

// === impl Lane ===

impl Lane {
    pub(super) fn new(promise: Promise) -> (Self, mpsc::Receiver<Job>) {
        let (jobs, receiver) = mpsc::channel(WAITING);
        (Self { jobs, patience: promise.response }, receiver)
    }

    /// Has commands executed and waited for; an outage ends the waiting for a turn, and so does time: with
    /// the replicas away each batch takes as long as it may.
    pub(super) async fn send(
        &self,
        master: &Master,
        command: RedisCommand,
        cmds: Vec<Cmd>,
    ) -> Result<Answers, StoreError> {
        let (done, answer) = oneshot::channel();
        let job = Job { command, cmds, since: Instant::now(), done };
        let queued = tokio::select! {
            biased;
            // A place is free, or becomes free when the batch before is answered.
            queued = self.jobs.send(job) => queued.is_ok(),
            () = master.until_down() => false,
            () = tokio::time::sleep(self.patience) => return Err(crowded()),
        };
        if !queued {
            return Err(master.not_sent());
        }
        let gone = |_| StoreError::Indeterminate("the node stops".into());
        spanned(master, command, async { answer.await.map_err(gone)? }).await
    }
}

/// Connects the lane of a master; `None` where none is needed.
pub(super) async fn connect(
    target: &Target,
    master: &Master,
    promise: Promise,
) -> Result<Option<MultiplexedConnection>, redis::RedisError> {
    if !promise.is_more_than_memory() {
        return Ok(None);
    }
    let client = target.client(&master.address).map_err(std::io::Error::other)?;
    let limit = promise.response + promise.wait;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(promise.response))
        .set_response_timeout(Some(limit));
    client.get_multiplexed_async_connection_with_config(&config).await.map(Some)
}

/// Writes batches until the connection is no good, or the master was lost since `state` was looked at,
/// however soon it came back: there may be another server at its address. Says why.
pub(super) async fn work(
    master: &Arc<Master>,
    (mut connection, mut state): (MultiplexedConnection, MasterState),
    jobs: &mut mpsc::Receiver<Job>,
    promise: Promise,
) -> String {
    loop {
        let batch = tokio::select! {
            biased;
            // What waits is refused by `refuse`, which comes next. The sender lives as long as the master.
            _ = state.changed() => return "its master was lost".into(),
            batch = gather(jobs) => batch,
        };
        if batch.is_empty() {
            return "the node stops".into();
        }
        if let Err(reason) = write(master, &mut connection, batch, promise).await {
            return reason;
        }
    }
}

/// Refuses what waits and comes, until the master is back or gone for good.
pub(super) async fn refuse(master: &Master, jobs: &mut mpsc::Receiver<Job>) {
    while let Some(job) = jobs.recv().await {
        // Nobody is told if its maker is gone.
        drop(job.done.send(Err(master.not_sent())));
    }
}

/// The next request and all that wait behind it, as far as they fit.
async fn gather(jobs: &mut mpsc::Receiver<Job>) -> Vec<Job> {
    let mut batch: Vec<Job> = jobs.recv().await.into_iter().collect();
    let mut count = batch.iter().map(|job| job.cmds.len()).sum::<usize>();
    while count < BATCH
        && let Ok(job) = jobs.try_recv()
    {
        count += job.cmds.len();
        batch.push(job);
    }
    batch
}

async fn write(
    master: &Master,
    connection: &mut MultiplexedConnection,
    batch: Vec<Job>,
    promise: Promise,
) -> Result<(), String> {
    let (batch, late): (Vec<Job>, Vec<Job>) =
        batch.into_iter().partition(|job| job.since.elapsed() < promise.response);
    for job in late {
        // Nobody is told if its maker is gone.
        drop(job.done.send(Err(crowded())));
    }
    if batch.is_empty() {
        return Ok(());
    }
    let mut pipe = redis::pipe();
    for cmd in batch.iter().flat_map(|job| &job.cmds) {
        pipe.add_command(cmd.clone());
    }
    pipe.add_command(promise.wait());
    let asked = Instant::now();
    let found = pipe.ignore_errors().query_async::<Vec<RedisResult<Value>>>(connection).await;
    let took = asked.elapsed();
    if let Some(job) = batch.first() {
        master.note(job.command, &found, took);
    }
    match found {
        Ok(mut answers) => {
            let reached = promise.reached(answers.pop().as_ref());
            let mut answers = answers.into_iter();
            for job in batch {
                let own = answers.by_ref().take(job.cmds.len()).collect();
                // Nobody is told if its maker is gone.
                drop(job.done.send(Ok((own, reached))));
            }
            Ok(())
        }
        Err(error) => {
            let told = judge(&error).error;
            for job in batch {
                drop(job.done.send(Err(told.clone())));
            }
            Err(error.to_string())
        }
    }
}

fn crowded() -> StoreError {
    StoreError::NotSent("too many wait for the replicas".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_confirmed_is_reached() {
        let promise = |durability, replicas| Promise {
            durability,
            replicas,
            wait: Duration::from_millis(500),
            response: Duration::from_millis(700),
        };
        let replicated = promise(Durability::Replicated, 2);
        assert_eq!(replicated.reached(Some(&Ok(Value::Int(2)))), Durability::Replicated);
        assert_eq!(replicated.reached(Some(&Ok(Value::Int(1)))), Durability::Memory);
        assert_eq!(replicated.reached(Some(&Ok(Value::Nil))), Durability::Memory);
        assert_eq!(replicated.reached(None), Durability::Memory);
        let both =
            |local, replicas| Ok(Value::Array(vec![Value::Int(local), Value::Int(replicas)]));
        let fsync = promise(Durability::Fsync, 1);
        assert_eq!(fsync.reached(Some(&both(1, 1))), Durability::Fsync);
        assert_eq!(fsync.reached(Some(&both(0, 1))), Durability::Memory);
        assert_eq!(fsync.reached(Some(&both(1, 0))), Durability::Memory);
        assert_eq!(fsync.reached(Some(&Ok(Value::Int(1)))), Durability::Memory);
        let words = |promise: Promise| {
            String::from_utf8_lossy(&promise.wait().get_packed_command()).into_owned()
        };
        assert!(words(fsync).contains("WAITAOF\r\n$1\r\n1\r\n$1\r\n1\r\n$3\r\n500"));
        assert!(words(replicated).contains("WAIT\r\n$1\r\n2\r\n$3\r\n500"));
    }
}
