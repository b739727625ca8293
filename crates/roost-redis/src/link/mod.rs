//! The way to Redis for commands, whatever stands there: one server, one that sentinels name, or the
//! masters of a cluster. Callers name keys; which master has them is seen to here.
//!
//! `master.rs` is one connection, `route.rs` says which master has which key, `view.rs` asks who is
//! master, `supervisor.rs` keeps all of it true (`health.rs` says what it amounts to), `redirect.rs` follows a cluster's redirections, and
//! `lane.rs` waits for copies; `scripts.rs` is how scripts are run. Subscriptions have connections of their own, in `bus/feed/`.

mod health;
mod lane;
mod master;
mod redirect;
mod route;
mod scripts;
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
use roost_telemetry::metrics::labels::RedisCommand;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::config::RedisConfig;
use crate::error::{StartError, judge};
use crate::keys::Keys;
use crate::reply::Reply;
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
    /// Since when all masters have answered, and this node could renew its lease, without an interruption
    /// that it knows of; `None` while one does not.
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
    /// what each is worth.
    async fn each(
        &self,
        command: RedisCommand,
        pipe: &mut Pipeline,
        way: Way,
    ) -> (Vec<Found>, Vec<Durability>) {
        let count = pipe.len();
        if count == 0 {
            return (Vec::new(), Vec::new());
        }
        let none = vec![Durability::Memory; count];
        let map = self.map.load_full();
        if map.is_sharded() {
            return self.scatter(command, pipe.cmd_iter().cloned().collect(), way).await;
        }
        let Some(master) = map.masters.first() else {
            let error = StoreError::NotSent(self.down_reason());
            return (vec![Err(Fault::Unanswered(error)); count], none);
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
                (found.collect(), vec![reached; count])
            }
            Err(error) => (vec![Err(Fault::Unanswered(error)); count], none),
        }
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
