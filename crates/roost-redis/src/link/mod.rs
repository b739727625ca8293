//! The way to Redis for commands, whatever stands there: one server, one that sentinels name, or the
//! masters of a cluster. Callers name keys; which master has them is seen to here.
//!
//! `master.rs` is one connection, `route.rs` says which master has which key, `view.rs` asks who is
//! master, `supervisor.rs` keeps all of it true, `redirect.rs` follows a cluster's redirections, and
//! `lane.rs` waits for copies. Subscriptions have connections of their own, in `bus/feed/`.

mod lane;
mod master;
mod redirect;
mod route;
mod spans;
mod supervisor;
mod view;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use redis::{Cmd, Pipeline, RedisError, RedisResult, Value};
use roost_cluster::{Clock, Durability, HubClock, StoreError, StoreHealth};
use roost_telemetry::metrics::RedisMetrics;
use roost_telemetry::metrics::labels::{RedisCommand, RedisOutcome};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::config::RedisConfig;
use crate::error::{StartError, is_no_script, judge};
use crate::keys::Keys;
use crate::reply::Reply;
use crate::script::{Call, Script};
use crate::target::{Address, Target};

use lane::Promise;
use master::Master;
use redirect::Way;
use route::Map;
use view::Viewer;

pub(crate) use route::slot;
pub(crate) use supervisor::back_off;

/// How many bells may wait to be rung on another master. One that does not fit is lost, as a bell may be.
const BELLS: usize = 1_024;

/// What a script answered: its first word, and the rest.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) tag: String,
    pub(crate) rest: Reply,
}

/// What came of one command.
type Found = Result<Value, Fault>;

/// What went wrong with one command.
#[derive(Debug)]
enum Fault {
    /// Redis answered with an error.
    Answered(RedisError),
    /// There was no answer.
    Unanswered(StoreError),
}

/// The way to Redis, whoever is master meanwhile.
pub(crate) struct Link {
    config: RedisConfig,
    promise: Promise,
    target: Target,
    viewer: Viewer,
    pub(crate) keys: Keys,
    pub(crate) clock: Arc<HubClock>,
    map: ArcSwap<Map>,
    /// Moves when the map does.
    moved: watch::Sender<u64>,
    /// Rung when somebody met an answer that the map did not foresee.
    refresh: Notify,
    /// Since when all masters have answered without an interruption that this node knows of; `None`
    /// while one does not.
    up_since: Mutex<Option<Instant>>,
    /// How often any of them was lost, or replaced.
    interruptions: AtomicU64,
    /// How often a master took the place of another history.
    histories: AtomicU64,
    /// Masters of the first map, to be watched, and what waits for the lanes of new ones.
    newborn: Mutex<Vec<supervisor::Newborn>>,
    bells: mpsc::Sender<Cmd>,
    rung: Mutex<Option<mpsc::Receiver<Cmd>>>,
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
        let target = Target::new(&config)?;
        let reason = "not connected yet".to_owned();
        let (bells, rung) = mpsc::channel(BELLS);
        let link = Self {
            promise: Promise::of(&config),
            viewer: Viewer::new(&target, config.connect_timeout),
            config,
            target,
            keys,
            clock,
            map: ArcSwap::from_pointee(Map::empty()),
            moved: watch::Sender::new(0),
            refresh: Notify::new(),
            up_since: Mutex::new(None),
            interruptions: AtomicU64::new(0),
            histories: AtomicU64::new(0),
            newborn: Mutex::default(),
            bells,
            rung: Mutex::new(Some(rung)),
            health: watch::Sender::new(StoreHealth::Down { reason }),
        };
        link.first_connect().await?;
        Ok(link)
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        self.config.connect_timeout
    }

    pub(crate) fn confirm_timeout(&self) -> Duration {
        self.config.confirm_timeout
    }

    pub(crate) fn wildcard_timeout(&self) -> Duration {
        self.config.wildcard_timeout
    }

    pub(crate) fn metrics(&self) -> &RedisMetrics {
        &self.config.metrics
    }

    pub(crate) fn health(&self) -> watch::Receiver<StoreHealth> {
        self.health.subscribe()
    }

    /// What "accepted" is to be worth.
    pub(crate) fn durability(&self) -> Durability {
        self.promise.durability
    }

    /// Which master has this channel, if it is known.
    pub(crate) fn owner(&self, channel: &str) -> Option<Address> {
        let map = self.map.load();
        map.master_of(slot(channel.as_bytes())).map(|master| master.address.clone())
    }

    /// All masters.
    pub(crate) fn owners(&self) -> Vec<Address> {
        self.map.load().masters.iter().map(|master| master.address.clone()).collect()
    }

    /// Changes whenever a key or channel may have another owner.
    pub(crate) fn moves(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// Has somebody look who is master.
    pub(crate) fn look_again(&self) {
        self.refresh.notify_one();
    }

    /// Which data this is: a random number that is new whenever the data is.
    pub(crate) fn epoch(&self) -> u64 {
        let epoch = |master: &Arc<Master>| master.facts.lock().as_ref()?.epoch;
        self.map.load().masters.iter().find_map(epoch).unwrap_or(0)
    }

    /// How often a master took the place of one that may have had more.
    pub(crate) fn histories(&self) -> u64 {
        self.histories.load(Ordering::Acquire)
    }

    /// How long all of Redis has answered without a known interruption.
    pub(crate) fn up_for(&self) -> Duration {
        self.up_since.lock().map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Whether there ever was a known interruption.
    pub(crate) fn was_interrupted(&self) -> bool {
        self.interruptions.load(Ordering::Acquire) > 0
    }

    /// The hub time after which a write that is sent now is to be refused.
    pub(crate) fn not_after(&self) -> u64 {
        self.clock.now().plus(self.config.write_validity).0
    }

    // === scripts ===

    /// Runs a script, once.
    pub(crate) async fn run(&self, script: &Script, call: &Call) -> Result<Answer, StoreError> {
        self.run_then(script, call, None).await
    }

    /// Runs a script, and another command behind it on the same way, whose answer nobody needs.
    pub(crate) async fn run_then(
        &self,
        script: &Script,
        call: &Call,
        mut then: Option<Cmd>,
    ) -> Result<Answer, StoreError> {
        let mut pipe = redis::pipe();
        pipe.add_command(script.evalsha(call));
        let sharded = self.map.load().is_sharded();
        if let Some(then) = then.take_if(|_| !sharded) {
            pipe.add_command(then);
        }
        let mut answer = first(self.each(script.command, &mut pipe, Way::Plain).await.0)?;
        if is_unknown(&answer) {
            answer = self.in_full(script, call, Way::Plain).await?.0;
        }
        if let Some(then) = then {
            // It may be another master's: rung beside, and lost if too many wait.
            drop(self.bells.try_send(then));
        }
        self.conclude(script, answer)
    }

    /// Runs a script once for each call, all on one way to each master.
    pub(crate) async fn run_all(
        &self,
        script: &Script,
        calls: &[Call],
    ) -> Result<Vec<Result<Answer, StoreError>>, StoreError> {
        let answers = self.run_each(script, calls, Way::Plain).await?;
        Ok(answers.into_iter().map(|(answer, _)| answer).collect())
    }

    /// Runs a script whose effect is to be worth what the hub's durability promises, and says what was
    /// reached. `Memory` where fewer copies than asked confirmed in time.
    pub(crate) async fn run_durable(
        &self,
        script: &Script,
        call: &Call,
    ) -> Result<(Answer, Durability), StoreError> {
        let mut pipe = redis::pipe();
        pipe.add_command(script.evalsha(call));
        let (found, reached) = self.each(script.command, &mut pipe, self.durable_way()).await;
        let (mut answer, mut reached) = (first(found)?, reached);
        if is_unknown(&answer) {
            (answer, reached) = self.in_full(script, call, self.durable_way()).await?;
        }
        Ok((self.conclude(script, answer)?, reached))
    }

    /// The same once for each call, all on one way to each master.
    pub(crate) async fn run_all_durable(
        &self,
        script: &Script,
        calls: &[Call],
    ) -> Result<Vec<Result<(Answer, Durability), StoreError>>, StoreError> {
        let answers = self.run_each(script, calls, self.durable_way()).await?;
        let with = |(answer, reached): (Result<Answer, _>, _)| answer.map(|found| (found, reached));
        Ok(answers.into_iter().map(with).collect())
    }

    fn durable_way(&self) -> Way {
        if self.promise.is_more_than_memory() { Way::Durable } else { Way::Plain }
    }

    /// An error of one call stands at its place; where all have the same lack of an answer, it is the
    /// error of the whole.
    async fn run_each(
        &self,
        script: &Script,
        calls: &[Call],
        way: Way,
    ) -> Result<Vec<(Result<Answer, StoreError>, Durability)>, StoreError> {
        let mut pipe = redis::pipe();
        for call in calls {
            pipe.add_command(script.evalsha(call));
        }
        let (found, reached) = self.each(script.command, &mut pipe, way).await;
        let lost = |found: &Found| matches!(found, Err(Fault::Unanswered(_)));
        if !found.is_empty() && found.iter().all(lost) {
            return first(found).map(|_| Vec::new());
        }
        let mut answers = Vec::with_capacity(found.len());
        for (call, mut answer) in calls.iter().zip(found) {
            let mut reached = reached;
            if is_unknown(&answer) {
                (answer, reached) = match self.in_full(script, call, way).await {
                    Ok(again) => again,
                    Err(error) => (Err(Fault::Unanswered(error)), Durability::Memory),
                };
            }
            answers.push((self.conclude(script, answer), reached));
        }
        Ok(answers)
    }

    /// Sends a script that a server did not know by its hash.
    async fn in_full(
        &self,
        script: &Script,
        call: &Call,
        way: Way,
    ) -> Result<(Found, Durability), StoreError> {
        let mut pipe = redis::pipe();
        pipe.add_command(script.eval(call));
        let (found, reached) = self.each(script.command, &mut pipe, way).await;
        Ok((first(found)?, reached))
    }

    /// Runs the heartbeat: a refused one brings the time along too. It waits for no turn: behind
    /// everybody who reconnects it would come too late.
    pub(crate) async fn beat(&self, call: &Call) -> Result<Answer, StoreError> {
        let script = &crate::script::HEARTBEAT;
        let send = async |cmd: Cmd| {
            let mut pipe = redis::pipe();
            pipe.add_command(cmd);
            first(self.each(script.command, &mut pipe, Way::First).await.0)
        };
        let mut answer = send(script.evalsha(call)).await?;
        if is_unknown(&answer) {
            answer = send(script.eval(call)).await?;
        }
        Self::read(answer)
    }

    // === other commands ===

    /// Sends commands that are not scripts; an error among the answers is an error of the whole.
    pub(crate) async fn ask(
        &self,
        command: RedisCommand,
        pipe: &mut Pipeline,
    ) -> Result<Vec<Value>, StoreError> {
        let found = self.each(command, pipe, Way::Plain).await.0;
        let plain = |found: Found| found.map_err(Fault::error);
        found.into_iter().map(plain).collect()
    }

    /// Sends a pipeline. Errors that Redis answered stand at their place.
    pub(crate) async fn ask_all(
        &self,
        command: RedisCommand,
        pipe: &mut Pipeline,
    ) -> Result<Vec<RedisResult<Value>>, StoreError> {
        let found = self.each(command, pipe, Way::Plain).await.0;
        let told = |found: Found| match found {
            Ok(value) => Ok(Ok(value)),
            Err(Fault::Answered(error)) => Ok(Err(error)),
            Err(Fault::Unanswered(error)) => Err(error),
        };
        found.into_iter().map(told).collect()
    }

    /// Sends each command to the master that has its key, and gives what came of it, in order, with
    /// what all of it is worth.
    async fn each(
        &self,
        command: RedisCommand,
        pipe: &mut Pipeline,
        way: Way,
    ) -> (Vec<Found>, Durability) {
        let count = pipe.len();
        if count == 0 {
            return (Vec::new(), Durability::Memory);
        }
        let map = self.map.load_full();
        if map.is_sharded() {
            return self.scatter(command, pipe.cmd_iter().cloned().collect(), way).await;
        }
        let Some(master) = map.masters.first() else {
            let error = StoreError::NotSent(self.down_reason());
            return (vec![Err(Fault::Unanswered(error)); count], Durability::Memory);
        };
        let sent = match way {
            Way::Plain => master.send(command, pipe).await.map(plain),
            Way::First => master.exchange(command, pipe).await.map(plain),
            Way::Durable => {
                master.lane.send(master, command, pipe.cmd_iter().cloned().collect()).await
            }
        };
        match sent {
            Ok((found, reached)) => {
                let found = found.into_iter().map(|one| one.map_err(Fault::Answered));
                (found.collect(), reached)
            }
            Err(error) => (vec![Err(Fault::Unanswered(error)); count], Durability::Memory),
        }
    }

    fn read(answer: Found) -> Result<Answer, StoreError> {
        let mut rest = Reply::new(answer.map_err(Fault::error)?)?;
        Ok(Answer { tag: rest.text()?, rest })
    }

    fn conclude(&self, script: &Script, answer: Found) -> Result<Answer, StoreError> {
        let Answer { tag, rest } = Self::read(answer)?;
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

// === impl Fault ===

impl Clone for Fault {
    fn clone(&self) -> Self {
        match self {
            Self::Answered(error) => Self::Answered(error.clone()),
            Self::Unanswered(error) => Self::Unanswered(error.clone()),
        }
    }
}

impl Fault {
    fn error(self) -> StoreError {
        match self {
            Self::Answered(error) => judge(&error).error,
            Self::Unanswered(error) => error,
        }
    }
}

/// Who is master, asked once: for a look from outside. With it comes whether every slot is somebody's.
pub(crate) async fn survey(
    target: &Target,
    limit: Duration,
) -> Result<(Vec<Address>, bool), StartError> {
    let view = Viewer::new(target, limit).look().await?;
    let covered: usize = view
        .ranges
        .iter()
        .map(|(first, last, _)| usize::from(last.saturating_sub(*first)) + 1)
        .sum();
    let whole = !target.is_cluster() || covered == usize::from(route::SLOTS);
    Ok((view.masters, whole))
}

fn plain(found: Vec<RedisResult<Value>>) -> (Vec<RedisResult<Value>>, Durability) {
    (found, Durability::Memory)
}

/// The first of the answers; no answer at all is an error.
fn first(mut found: Vec<Found>) -> Result<Found, StoreError> {
    if found.is_empty() {
        return Err(StoreError::Corrupt("Redis answered nothing".into()));
    }
    match found.swap_remove(0) {
        Err(Fault::Unanswered(error)) => Err(error),
        answered => Ok(answered),
    }
}

/// Whether a script has to be sent in full.
fn is_unknown(found: &Found) -> bool {
    matches!(found, Err(Fault::Answered(error)) if is_no_script(error))
}
