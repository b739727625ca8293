//! The connection that carries commands: sent over, judged, watched and replaced. Subscriptions have
//! a connection of their own, in `bus/subscriber.rs`.
//!
//! There is one connection, or none; with none everything fails at once with `NotSent`. A connection
//! that does not answer a PING in time is given up: a paused Redis accepts TCP but answers nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Pipeline, RedisResult, Value};
use roost_cluster::{Clock, HubClock, StoreError, StoreHealth};
use roost_telemetry::metrics::RedisMetrics;
use roost_telemetry::metrics::labels::{RedisCommand, RedisOutcome, RedisRole};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::check::{self, Facts};
use crate::config::RedisConfig;
use crate::error::{StartError, Verdict, is_no_script, judge};
use crate::keys::Keys;
use crate::reply::Reply;
use crate::script::{Call, Script};

/// How often a connection is asked for a sign of life. With the connect timeout, at which a PING
/// counts as unanswered, an outage is noticed within a second.
const PING_EVERY: Duration = Duration::from_millis(400);
/// Reconnection waits a random time up to a bound that doubles between these two.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

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
        let mut found = self.ask_all(command, redis::pipe().add_command(cmd)).await?;
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
        found.map_err(|error| self.blame(judge(&error)))
    }

    fn blame(&self, verdict: Verdict) -> StoreError {
        if verdict.suspect {
            self.suspicion.notify_one();
        }
        verdict.error
    }

    /// Runs the heartbeat: a refused one brings the time along too.
    pub(crate) async fn beat(&self, call: &Call) -> Result<Answer, StoreError> {
        let script = &crate::script::HEARTBEAT;
        let mut answer = self.ask_one(script.command, script.evalsha(call)).await?;
        if answer.as_ref().is_err_and(is_no_script) {
            answer = self.ask_one(script.command, script.eval(call)).await?;
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

    /// Watches the connection and replaces it when it fails, until told to stop.
    pub(crate) async fn supervise(&self, stop: CancellationToken) {
        let work = async {
            loop {
                let reason = self.until_it_fails().await;
                self.go_down(reason);
                self.reconnect().await;
            }
        };
        // Only waits and socket reads are cut short here.
        stop.run_until_cancelled(work).await;
        self.live.store(None);
    }

    /// Asks for a sign of life now and then, and at once when a command had none.
    async fn until_it_fails(&self) -> String {
        loop {
            tokio::select! {
                biased;
                // A suspicion is looked at before it is time anyway.
                () = self.suspicion.notified() => {}
                () = tokio::time::sleep(PING_EVERY) => {}
            }
            let Some(mut connection) = self.live.load().as_deref().cloned() else {
                return "there is no connection".into();
            };
            let asked = Instant::now();
            let ping = redis::cmd("PING");
            let answer = ping.exec_async(&mut connection);
            match tokio::time::timeout(self.config.connect_timeout, answer).await {
                Ok(Ok(())) => {
                    self.metrics().observe(RedisCommand::Ping, RedisOutcome::Ok, asked.elapsed());
                }
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return "Redis does not answer".into(),
            }
        }
    }

    fn go_down(&self, reason: String) {
        self.live.store(None);
        *self.up_since.lock() = None;
        self.interrupted.store(true, Ordering::Release);
        self.metrics().set_up(RedisRole::Primary, false);
        tracing::warn!(reason, "lost Redis");
        self.health.send_replace(StoreHealth::Down { reason });
    }

    async fn reconnect(&self) {
        let mut bound = BACK_OFF.0;
        loop {
            tokio::time::sleep(jitter(bound)).await;
            bound = (bound * 2).min(BACK_OFF.1);
            match self.try_connect().await {
                Ok(()) => break,
                Err(error) => {
                    let reason = error.to_string();
                    self.health.send_replace(StoreHealth::Down { reason });
                }
            }
        }
        self.metrics().reconnects.inc(RedisRole::Primary);
        tracing::info!("Redis is back");
    }

    async fn try_connect(&self) -> Result<(), StartError> {
        let work = async {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(self.config.connect_timeout))
                .set_response_timeout(Some(self.config.response_timeout));
            let mut connection = self
                .client
                .get_multiplexed_async_connection_with_config(&config)
                .await
                .map_err(|error| StartError::Unreachable(error.to_string()))?;
            let facts = check::check(&mut connection, &self.keys, &self.clock).await?;
            Ok((connection, facts))
        };
        let limit = self.config.connect_timeout;
        let (connection, facts) = tokio::time::timeout(limit, work)
            .await
            .map_err(|_| StartError::Unreachable(format!("no answer within {limit:?}")))??;
        *self.facts.lock() = Arc::new(facts);
        *self.up_since.lock() = Some(Instant::now());
        self.live.store(Some(Arc::new(connection)));
        self.metrics().set_up(RedisRole::Primary, true);
        self.health.send_replace(StoreHealth::Up);
        Ok(())
    }
}

/// A random time up to a bound.
pub(crate) fn jitter(bound: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    bound.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// The next bound of a back-off.
pub(crate) fn back_off(tries: u32) -> Duration {
    jitter((BACK_OFF.0 * 2u32.saturating_pow(tries.min(5))).min(BACK_OFF.1))
}
