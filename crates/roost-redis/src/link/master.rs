//! The connection for commands to one master: what is sent over it, and what comes back. It is watched
//! and replaced in `supervisor.rs`. There is one connection, or none; with none everything fails at
//! once with `NotSent`.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisResult, Value};
use roost_cluster::StoreError;
use roost_telemetry::metrics::RedisMetrics;
use roost_telemetry::metrics::labels::{RedisCommand, RedisOutcome};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::check::Facts;
use crate::error::{Verdict, is_no_script, judge};
use crate::target::Address;

use super::lane::Lane;
use super::spans::spanned;

/// How many requests may be on their way at once: about 25 ms of work for Redis. Beyond it they wait
/// here, so that when everybody reconnects at once neither answers nor the PING behind them come too
/// late.
const TURNS: usize = 512;

/// Whether a master answers: `None`, or why not.
pub(super) type MasterState = watch::Receiver<Option<String>>;

/// One master, whichever connection it has meanwhile.
pub(crate) struct Master {
    pub(crate) address: Address,
    pub(super) metrics: Arc<RedisMetrics>,
    live: ArcSwapOption<MultiplexedConnection>,
    /// What the last connection learned; `None` before the first.
    pub(super) facts: Mutex<Option<Facts>>,
    /// `None` while it answers; else why not.
    down: watch::Sender<Option<String>>,
    turns: Semaphore,
    /// Rung when a command had no answer.
    pub(super) suspicion: Notify,
    /// The connection for what must be durable, if any is asked for.
    pub(super) lane: Lane,
    /// Ends with its place among the masters.
    pub(super) retired: CancellationToken,
}

// === impl Master ===

impl std::fmt::Debug for Master {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Master({})", self.address)
    }
}

impl Master {
    pub(super) fn new(address: Address, metrics: Arc<RedisMetrics>, lane: Lane) -> Self {
        Self {
            address,
            metrics,
            live: ArcSwapOption::empty(),
            facts: Mutex::default(),
            down: watch::Sender::new(Some("not connected yet".to_owned())),
            turns: Semaphore::new(TURNS),
            suspicion: Notify::new(),
            lane,
            retired: CancellationToken::new(),
        }
    }

    pub(super) fn connection(&self) -> Option<MultiplexedConnection> {
        self.live.load().as_deref().cloned()
    }

    /// Changes whenever it is lost or back.
    pub(super) fn state(&self) -> MasterState {
        self.down.subscribe()
    }

    pub(super) fn is_up(&self) -> bool {
        self.down.borrow().is_none()
    }

    /// Why it does not answer, if it does not.
    pub(super) fn trouble(&self) -> Option<String> {
        self.down.borrow().clone()
    }

    pub(super) fn goes_up(&self, connection: MultiplexedConnection, facts: Facts) {
        *self.facts.lock() = Some(facts);
        self.live.store(Some(Arc::new(connection)));
        self.down.send_replace(None);
    }

    pub(super) fn goes_down(&self, reason: String) {
        self.live.store(None);
        self.down.send_replace(Some(reason));
    }

    /// Returns once it does not answer.
    pub(super) async fn until_down(&self) {
        // The sender lives as long as this.
        drop(self.down.subscribe().wait_for(Option::is_some).await);
    }

    /// Returns once it answers.
    pub(super) async fn until_up(&self) {
        drop(self.down.subscribe().wait_for(Option::is_none).await);
    }

    pub(super) fn not_sent(&self) -> StoreError {
        let reason = self.trouble();
        StoreError::NotSent(reason.unwrap_or_else(|| "the connection is being replaced".into()))
    }

    /// Sends a pipeline when it is its turn. Errors that Redis answered stand at their place.
    pub(super) async fn send(
        &self,
        command: RedisCommand,
        pipe: &mut Pipeline,
    ) -> Result<Vec<RedisResult<Value>>, StoreError> {
        let _turn = self.turn().await?;
        self.exchange(command, pipe).await
    }

    /// Sends a pipeline without waiting for a turn.
    pub(super) async fn exchange(
        &self,
        command: RedisCommand,
        pipe: &mut Pipeline,
    ) -> Result<Vec<RedisResult<Value>>, StoreError> {
        let Some(mut connection) = self.connection() else {
            return Err(self.not_sent());
        };
        let asked = Instant::now();
        let found = pipe.ignore_errors().query_async::<Vec<RedisResult<Value>>>(&mut connection);
        let found = spanned(self, command, found).await;
        self.note(command, &found, asked.elapsed());
        found.map_err(|error| self.blame(judge(&error)))
    }

    /// Counts an exchange, and looks at the connection again if the answers say that this is not the
    /// master that it was.
    pub(super) fn note(
        &self,
        command: RedisCommand,
        found: &RedisResult<Vec<RedisResult<Value>>>,
        took: Duration,
    ) {
        let outcome = match found {
            Ok(answers) if answers.iter().any(Result::is_err) => RedisOutcome::Error,
            Ok(_) => RedisOutcome::Ok,
            Err(error) => judge(error).outcome,
        };
        self.metrics.observe(command, outcome, took);
        let one = |error: &redis::RedisError| {
            if !is_no_script(error) {
                let verdict = judge(error);
                self.metrics.errors.inc(verdict.kind);
                if verdict.suspect {
                    self.suspicion.notify_one();
                }
            }
        };
        match found {
            Ok(answers) => answers.iter().filter_map(|one| one.as_ref().err()).for_each(one),
            Err(error) => one(error),
        }
    }

    pub(super) fn blame(&self, verdict: Verdict) -> StoreError {
        if verdict.suspect {
            self.suspicion.notify_one();
        }
        verdict.error
    }

    /// Waits for a turn to send; an outage ends the waiting.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, StoreError> {
        if self.live.load().is_none() {
            return Err(self.not_sent());
        }
        if let Ok(turn) = self.turns.try_acquire() {
            return Ok(turn);
        }
        tokio::select! {
            biased;
            // Who has a turn gets an answer, or finds out that there is none.
            turn = self.turns.acquire() => turn.map_err(|_| self.not_sent()),
            () = self.until_down() => Err(self.not_sent()),
        }
    }
}
