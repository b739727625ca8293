//! Keeping the connections for commands: signs of life, giving up, connecting again; and the table of
//! masters, which is looked up again whenever something says that it is no longer true.
//!
//! A connection that does not answer a PING in time is given up: a paused Redis accepts TCP but answers
//! nothing. One whose server says that it is a replica is given up too.

use std::sync::Arc;
use std::time::Duration;

use redis::{AsyncConnectionConfig, RedisResult, Value};
use roost_cluster::StoreHealth;
use roost_telemetry::metrics::labels::{RedisCommand, RedisOutcome, RedisRole};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::check;
use crate::error::{StartError, refused};
use crate::target::Shape;

use super::Link;
use super::lane::{self, Lane};
use super::master::Master;
use super::route::{Map, View};

/// How often a connection is asked for a sign of life. With the connect timeout, at which a PING
/// counts as unanswered, an outage is noticed within a second.
const PING_EVERY: Duration = Duration::from_millis(400);
/// A timer that is late by so much says that this process did not run: throttled, paused, moved.
const STALL: Duration = Duration::from_millis(100);
/// How often it is asked who is master, if nothing else gives a reason to: sentinels, a cluster.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// How often while a master does not answer.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Reasons to look are gathered for so long: a slot that moves brings many.
const GATHER: Duration = Duration::from_millis(50);
/// How many requests wait to be written together: 50, the default, halves the rate of PUBLISH.
const PIPELINE_BUFFER: usize = 1_000;
/// Reconnection waits a random time up to a bound that doubles between these two.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A master that is not watched yet, and what waits for its lane.
pub(super) type Newborn = (Arc<Master>, mpsc::Receiver<lane::Job>);

impl Link {
    pub(super) async fn first_connect(&self) -> Result<(), StartError> {
        let view = self.viewer.look().await?;
        let mut newborn = Vec::new();
        for address in &view.masters {
            let (lane, jobs) = Lane::new(self.promise);
            let master =
                Arc::new(Master::new(address.clone(), Arc::clone(&self.config.metrics), lane));
            self.connect_master(&master).await?;
            newborn.push((master, jobs));
        }
        let masters = newborn.iter().map(|(master, _)| Arc::clone(master)).collect();
        let map = Map::new(&view, masters);
        if self.target.is_cluster() && !map.is_sharded() {
            return Err(StartError::Unreachable("no node of the cluster has slots yet".into()));
        }
        self.map.store(Arc::new(map));
        self.newborn.lock().extend(newborn);
        self.settle();
        Ok(())
    }

    /// Watches the connections and replaces them when they fail, until told to stop.
    pub(crate) async fn supervise(self: Arc<Self>, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        let newborn = std::mem::take(&mut *self.newborn.lock());
        for newborn in newborn {
            self.attend(newborn, &mut tasks);
        }
        let ringing = Arc::clone(&self);
        tasks.spawn(async move { ringing.ring_bells().await });
        if let Shape::Sentinel { .. } = self.target.shape {
            let hearing = Arc::clone(&self);
            tasks.spawn(async move {
                loop {
                    hearing.viewer.hear_of_a_switch().await;
                    hearing.look_again();
                }
            });
        }
        let work = async {
            if self.target.shape == Shape::Standalone {
                return std::future::pending().await;
            }
            loop {
                self.until_there_is_a_reason_to_look().await;
                match self.viewer.look().await {
                    Ok(view) => self.adopt(&view, &mut tasks).await,
                    Err(error) => tracing::debug!(%error, "cannot find out who is master"),
                }
                while tasks.try_join_next().is_some() {}
            }
        };
        // Only waits and socket reads are cut short here.
        stop.run_until_cancelled(work).await;
        tasks.shutdown().await;
        for master in &self.map.load().masters {
            master.goes_down("the node stops".into());
        }
    }

    async fn until_there_is_a_reason_to_look(&self) {
        let every = match (&*self.health.borrow(), self.target.is_cluster()) {
            (StoreHealth::Down { .. }, _) => LOOK_AGAIN,
            (StoreHealth::Up, false) => LOOK_EVERY.0,
            (StoreHealth::Up, true) => LOOK_EVERY.1,
        };
        tokio::select! {
            biased;
            // What a caller met, or a sentinel said: at once, and then not again for a moment.
            () = self.refresh.notified() => tokio::time::sleep(GATHER).await,
            () = tokio::time::sleep(every) => {}
        }
    }

    /// Has a master watched, and its lane.
    fn attend(self: &Arc<Self>, (master, jobs): Newborn, tasks: &mut JoinSet<()>) {
        let (link, watched) = (Arc::clone(self), Arc::clone(&master));
        tasks.spawn(async move {
            let retired = watched.retired.clone();
            // Only waits and socket reads are cut short here.
            retired.run_until_cancelled(link.watch(&watched)).await;
            watched.goes_down("it is no longer a master".into());
        });
        let link = Arc::clone(self);
        tasks.spawn(async move { link.keep_lane(&master, jobs).await });
    }

    /// Takes a new table over.
    async fn adopt(self: &Arc<Self>, view: &View, tasks: &mut JoinSet<()>) {
        let before = self.map.load_full();
        let mut masters = Vec::new();
        let mut newborn = Vec::new();
        for address in &view.masters {
            if let Some(known) = before.at(address) {
                masters.push(Arc::clone(known));
                continue;
            }
            let (lane, jobs) = Lane::new(self.promise);
            let master =
                Arc::new(Master::new(address.clone(), Arc::clone(&self.config.metrics), lane));
            if let Err(error) = self.connect_master(&master).await {
                tracing::debug!(%error, %address, "cannot use a new master yet");
                if !self.target.is_cluster() {
                    // Sentinels may name one that is not yet, or no longer, a master.
                    return;
                }
            }
            masters.push(Arc::clone(&master));
            newborn.push((master, jobs));
        }
        let map = Map::new(view, masters);
        if map.masters.is_empty() || map.same_as(&before) {
            return;
        }
        let gone: Vec<_> =
            before.masters.iter().filter(|old| map.at(&old.address).is_none()).cloned().collect();
        let failed_over = !gone.is_empty() && !newborn.is_empty();
        self.map.store(Arc::new(map));
        for master in &gone {
            tracing::info!(master = %master.address, "it is no longer a master");
            master.retired.cancel();
        }
        for newborn in newborn {
            tracing::info!(master = %newborn.0.address, "there is a new master");
            self.attend(newborn, tasks);
        }
        if failed_over {
            self.note_failover();
            self.pulse();
        }
        self.settle();
        self.moved.send_modify(|moves| *moves += 1);
    }

    async fn watch(&self, master: &Master) {
        loop {
            if !master.is_up() {
                self.reconnect(master).await;
            }
            let reason = self.until_it_fails(master).await;
            master.goes_down(reason);
            self.settle();
            self.look_again();
        }
    }

    /// Asks for a sign of life now and then, and at once when a command had none.
    async fn until_it_fails(&self, master: &Master) -> String {
        let mut ping = redis::pipe();
        ping.cmd("PING").cmd("ROLE");
        // The last one had no answer, and this process is to blame.
        let mut stalled = false;
        loop {
            tokio::select! {
                biased;
                // A suspicion is looked at before it is time anyway.
                () = master.suspicion.notified() => {}
                () = tokio::time::sleep(PING_EVERY) => {}
            }
            let Some(mut connection) = master.connection() else {
                return "there is no connection".into();
            };
            let asked = Instant::now();
            let answer = ping.ignore_errors().query_async(&mut connection);
            match tokio::time::timeout(self.config.connect_timeout, answer).await {
                Ok(Ok(answers)) => {
                    if let Some(reason) = unfit(answers) {
                        return reason;
                    }
                    self.metrics().observe(RedisCommand::Ping, RedisOutcome::Ok, asked.elapsed());
                    stalled = false;
                }
                Ok(Err(error)) => return error.to_string(),
                // The answer may be here and not read yet: it is this process that did not run.
                Err(_) if asked.elapsed() > self.config.connect_timeout + STALL && !stalled => {
                    stalled = true;
                    master.suspicion.notify_one();
                }
                Err(_) => return "Redis does not answer".into(),
            }
        }
    }

    async fn reconnect(&self, master: &Master) {
        let mut bound = BACK_OFF.0;
        loop {
            tokio::time::sleep(jitter(bound)).await;
            bound = (bound * 2).min(BACK_OFF.1);
            match self.connect_master(master).await {
                Ok(()) => break,
                Err(error) => {
                    master.goes_down(error.to_string());
                    self.settle();
                }
            }
        }
        self.metrics().reconnects.inc(RedisRole::Primary);
        self.settle();
    }

    async fn connect_master(&self, master: &Master) -> Result<(), StartError> {
        let limit = self.config.connect_timeout;
        let client = self.target.client(&master.address)?;
        let first = master.facts.lock().is_none();
        let work = async {
            let config = AsyncConnectionConfig::new()
                .set_pipeline_buffer_size(PIPELINE_BUFFER)
                .set_connection_timeout(Some(limit))
                .set_response_timeout(Some(self.config.response_timeout));
            let mut connection = client
                .get_multiplexed_async_connection_with_config(&config)
                .await
                .map_err(|error| refused(&master.address, &error))?;
            let look = check::Look { address: &master.address, config: &self.config };
            let facts = look.facts(&mut connection, &self.keys).await?;
            if first && !self.was_interrupted() {
                look.warn(&mut connection).await;
            }
            Ok((connection, facts))
        };
        let (connection, facts) = tokio::time::timeout(limit, work).await.map_err(|_| {
            StartError::Unreachable(format!("{} did not answer within {limit:?}", master.address))
        })??;
        self.take_time(master, &facts);
        let before = master.facts.lock().as_ref().and_then(|facts| facts.replid.clone());
        if before.is_some() && before != facts.replid {
            self.note_failover();
        }
        master.goes_up(connection, facts);
        Ok(())
    }

    async fn keep_lane(&self, master: &Arc<Master>, mut jobs: mpsc::Receiver<lane::Job>) {
        while !master.retired.is_cancelled() {
            let state = master.state();
            if !master.is_up() {
                tokio::select! {
                    biased;
                    // It is back, or gone for good.
                    () = master.until_up() => {}
                    () = master.retired.cancelled() => {}
                    () = lane::refuse(master, &mut jobs) => {}
                }
                continue;
            }
            match lane::connect(&self.target, master, self.promise).await {
                Ok(Some(connection)) => {
                    let reason =
                        lane::work(master, (connection, state), &mut jobs, self.promise).await;
                    tracing::debug!(reason, "the connection for durable writes ended");
                    master.suspicion.notify_one();
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "cannot connect for durable writes");
                    let pause = tokio::time::sleep(jitter(BACK_OFF.1));
                    tokio::select! {
                        biased;
                        // Then it is tried again.
                        () = pause => {}
                        () = lane::refuse(master, &mut jobs) => {}
                    }
                }
            }
        }
    }

    /// Rings on other masters what a script's caller left to be rung.
    async fn ring_bells(&self) {
        let Some(mut rung) = self.rung.lock().take() else {
            return;
        };
        while let Some(bell) = rung.recv().await {
            let mut pipe = redis::pipe();
            pipe.add_command(bell);
            // Those that wait ring for the same: some at once.
            while pipe.len() < 64
                && let Ok(bell) = rung.try_recv()
            {
                pipe.add_command(bell);
            }
            if let Err(error) = self.ask(RedisCommand::Publish, &mut pipe).await {
                tracing::debug!(%error, "could not ring a bell");
            }
        }
    }
}

/// Why a connection that answers is to be given up, if it is.
fn unfit(answers: Vec<RedisResult<Value>>) -> Option<String> {
    let mut answers = answers.into_iter();
    if let Some(Err(error)) = answers.next() {
        return Some(error.to_string());
    }
    // Without the right to ask nothing is known.
    let role = match answers.next() {
        Some(Ok(Value::Array(role))) => role.into_iter().next(),
        _ => None,
    };
    match role {
        Some(Value::BulkString(role)) if role == b"slave" => {
            Some("it is a replica now, and no longer the master".into())
        }
        _ => None,
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
