//! The connection that carries commands: what is sent over it, and what the answers mean. It is watched
//! and replaced in `supervisor.rs`. Subscriptions have a connection of their own, in `bus/subscriber/`.
//!
//! There is one connection, or none; with none everything fails at once with `NotSent`.

mod supervisor;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisResult, Value};
use roost_cluster::{Clock, HubClock, StoreError, StoreHealth};
use roost_telemetry::metrics::RedisMetrics;
use roost_telemetry::metrics::labels::{RedisCommand, RedisOutcome};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio::time::Instant;

use crate::check::Facts;
use crate::config::RedisConfig;
use crate::error::{StartError, Verdict, is_no_script, judge};
use crate::keys::Keys;
use crate::reply::Reply;
use crate::script::{Call, Script};

pub(crate) use supervisor::back_off;

/// How many requests may be on their way at once: about 25 ms of work for Redis. Beyond it they wait
/// here, so that when everybody reconnects at once neither answers nor the PING behind them come too
/// late.
const TURNS: usize = 512;

/// What a script answered: its first word, and the rest.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) tag: String,
    pub(crate) rest: Reply,
}

/// The connection for commands, whoever replaces it meanwhile.
pub(crate) struct Link {
    client: redis::Client,
    config: RedisConfig,
    pub(crate) keys: Keys,
    pub(crate) clock: Arc<HubClock>,
    live: ArcSwapOption<MultiplexedConnection>,
    facts: Mutex<Arc<Facts>>,
    /// Since when Redis has answered without an interruption that this node knows of; `None` while down.
    up_since: Mutex<Option<Instant>>,
    /// Set once Redis was lost, for good.
    interrupted: AtomicBool,
    /// Turns to send.
    turns: Semaphore,
    /// Rung when a command had no answer.
    suspicion: Notify,
    health: watch::Sender<StoreHealth>,
}

// === impl Link ===

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({:?})", *self.health.borrow())
    }
}

impl Link {
    /// Connects for the first time; an error says why this Redis cannot be used.
    pub(crate) async fn connect(
        config: RedisConfig,
        clock: Arc<HubClock>,
    ) -> Result<Self, StartError> {
        let keys = Keys::new(&config.prefix)?;
        let client = redis::Client::open(config.url.as_str())
            .map_err(|error| StartError::Url(error.to_string()))?;
        let reason = "not connected yet".to_owned();
        let link = Self {
            client,
            config,
            keys,
            clock,
            live: ArcSwapOption::empty(),
            facts: Mutex::default(),
            up_since: Mutex::new(None),
            interrupted: AtomicBool::new(false),
            turns: Semaphore::new(TURNS),
            suspicion: Notify::new(),
            health: watch::Sender::new(StoreHealth::Down { reason }),
        };
        link.try_connect().await?;
        Ok(link)
    }

    pub(crate) fn client(&self) -> &redis::Client {
        &self.client
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        self.config.connect_timeout
    }

    pub(crate) fn metrics(&self) -> &RedisMetrics {
        &self.config.metrics
    }

    pub(crate) fn health(&self) -> watch::Receiver<StoreHealth> {
        self.health.subscribe()
    }

    /// What the last connection learned about this Redis.
    pub(crate) fn facts(&self) -> Arc<Facts> {
        Arc::clone(&self.facts.lock())
    }

    /// How long Redis has answered without a known interruption.
    pub(crate) fn up_for(&self) -> Duration {
        self.up_since.lock().map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Whether there ever was a known interruption.
    pub(crate) fn was_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Acquire)
    }

    /// The hub time after which a write that is sent now is to be refused.
    pub(crate) fn not_after(&self) -> u64 {
        self.clock.now().plus(self.config.write_validity).0
    }

    /// Runs a script, once.
    pub(crate) async fn run(&self, script: &Script, call: &Call) -> Result<Answer, StoreError> {
        self.run_then(script, call, None).await
    }

    /// Runs a script, and another command behind it on the same way, whose answer nobody needs.
    pub(crate) async fn run_then(
        &self,
        script: &Script,
        call: &Call,
        then: Option<Cmd>,
    ) -> Result<Answer, StoreError> {
        let mut pipe = redis::pipe();
        pipe.add_command(script.evalsha(call));
        if let Some(then) = then {
            pipe.add_command(then);
        }
        let mut found = self.ask_all(script.command, &mut pipe).await?;
        let mut answer = if found.is_empty() {
            return Err(StoreError::Corrupt("Redis answered nothing".into()));
        } else {
            found.swap_remove(0)
        };
        if answer.as_ref().is_err_and(is_no_script) {
            answer = self.ask_one(script.command, script.eval(call)).await?;
        }
        self.conclude(script, answer)
    }

    /// Runs a script once for each call, all on one way.
    pub(crate) async fn run_all(
        &self,
        script: &Script,
        calls: &[Call],
    ) -> Result<Vec<Result<Answer, StoreError>>, StoreError> {
        let mut pipe = redis::pipe();
        for call in calls {
            pipe.add_command(script.evalsha(call));
        }
        let found = self.ask_all(script.command, &mut pipe).await?;
        let mut answers = Vec::with_capacity(found.len());
        for (call, mut answer) in calls.iter().zip(found) {
            if answer.as_ref().is_err_and(is_no_script) {
                answer = self.ask_one(script.command, script.eval(call)).await?;
            }
            answers.push(self.conclude(script, answer));
        }
        Ok(answers)
    }

    /// Sends commands that are not scripts; an error among the answers is an error of the whole.
    pub(crate) async fn ask(
        &self,
        command: RedisCommand,
        pipe: &mut Pipeline,
    ) -> Result<Vec<Value>, StoreError> {
        let found = self.ask_all(command, pipe).await?;
        found.into_iter().map(|one| one.map_err(|error| judge(&error).error)).collect()
    }

    async fn ask_one(
        &self,
        command: RedisCommand,
        cmd: Cmd,
    ) -> Result<RedisResult<Value>, StoreError> {
        Self::only(self.ask_all(command, redis::pipe().add_command(cmd)).await?)
    }

    fn only(mut found: Vec<RedisResult<Value>>) -> Result<RedisResult<Value>, StoreError> {
        found.pop().ok_or_else(|| StoreError::Corrupt("Redis answered nothing".into()))
    }

    /// Sends a pipeline. Errors that Redis answered stand at their place.
    pub(crate) async fn ask_all(
        &self,
        command: RedisCommand,
        pipe: &mut Pipeline,
    ) -> Result<Vec<RedisResult<Value>>, StoreError> {
        if pipe.is_empty() {
            return Ok(Vec::new());
        }
        let _turn = self.turn().await?;
        self.exchange(command, pipe).await
    }

    /// Sends a pipeline without waiting for a turn.
    async fn exchange(
        &self,
        command: RedisCommand,
        pipe: &mut Pipeline,
    ) -> Result<Vec<RedisResult<Value>>, StoreError> {
        let Some(mut connection) = self.live.load().as_deref().cloned() else {
            return Err(StoreError::NotSent(self.down_reason()));
        };
        let asked = Instant::now();
        let found =
            pipe.ignore_errors().query_async::<Vec<RedisResult<Value>>>(&mut connection).await;
        let outcome = match &found {
            Ok(answers) if answers.iter().any(Result::is_err) => RedisOutcome::Error,
            Ok(_) => RedisOutcome::Ok,
            Err(error) => judge(error).outcome,
        };
        self.metrics().observe(command, outcome, asked.elapsed());
        self.count_errors(&found);
        found.map_err(|error| self.blame(judge(&error)))
    }

    fn count_errors(&self, found: &RedisResult<Vec<RedisResult<Value>>>) {
        let one = |error: &redis::RedisError| {
            if !is_no_script(error) {
                self.metrics().errors.inc(judge(error).kind);
            }
        };
        match found {
            Ok(answers) => answers.iter().filter_map(|one| one.as_ref().err()).for_each(one),
            Err(error) => one(error),
        }
    }

    /// Waits for a turn to send; an outage ends the waiting.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, StoreError> {
        let not_sent = || StoreError::NotSent(self.down_reason());
        if self.live.load().is_none() {
            return Err(not_sent());
        }
        if let Ok(turn) = self.turns.try_acquire() {
            return Ok(turn);
        }
        let mut health = self.health.subscribe();
        tokio::select! {
            biased;
            // Who has a turn gets an answer, or finds out that there is none.
            turn = self.turns.acquire() => turn.map_err(|_| not_sent()),
            _ = health.wait_for(|health| *health != StoreHealth::Up) => Err(not_sent()),
        }
    }

    fn blame(&self, verdict: Verdict) -> StoreError {
        if verdict.suspect {
            self.suspicion.notify_one();
        }
        verdict.error
    }

    /// Runs the heartbeat: a refused one brings the time along too. It waits for no turn: behind
    /// everybody who reconnects it would come too late.
    pub(crate) async fn beat(&self, call: &Call) -> Result<Answer, StoreError> {
        let script = &crate::script::HEARTBEAT;
        let send = async |cmd: Cmd| {
            let found = self.exchange(script.command, redis::pipe().add_command(cmd)).await;
            found.and_then(Self::only)
        };
        let mut answer = send(script.evalsha(call)).await?;
        if answer.as_ref().is_err_and(is_no_script) {
            answer = send(script.eval(call)).await?;
        }
        self.read(answer)
    }

    fn read(&self, answer: RedisResult<Value>) -> Result<Answer, StoreError> {
        let value = answer.map_err(|error| self.blame(judge(&error)))?;
        let mut rest = Reply::new(value)?;
        Ok(Answer { tag: rest.text()?, rest })
    }

    fn conclude(&self, script: &Script, answer: RedisResult<Value>) -> Result<Answer, StoreError> {
        let Answer { tag, rest } = self.read(answer)?;
        let refused = match tag.as_str() {
            "STALE" => StoreError::Stale,
            "FENCED" => StoreError::Fenced,
            _ => return Ok(Answer { tag, rest }),
        };
        self.metrics().observe(script.command, RedisOutcome::Fenced, Duration::ZERO);
        Err(refused)
    }

    fn down_reason(&self) -> String {
        match &*self.health.borrow() {
            StoreHealth::Down { reason } => reason.clone(),
            StoreHealth::Up => "the connection is being replaced".into(),
        }
    }
}
