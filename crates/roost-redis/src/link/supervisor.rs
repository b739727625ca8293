//! Keeping the connection for commands: signs of life, giving up, connecting again.
//!
//! A connection that does not answer a PING in time is given up: a paused Redis accepts TCP but answers
//! nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::AsyncConnectionConfig;
use roost_cluster::StoreHealth;
use roost_telemetry::metrics::labels::{RedisCommand, RedisOutcome, RedisRole};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::check;
use crate::error::StartError;

use super::Link;

/// How often a connection is asked for a sign of life. With the connect timeout, at which a PING
/// counts as unanswered, an outage is noticed within a second.
const PING_EVERY: Duration = Duration::from_millis(400);
/// How many requests wait to be written together: 50, the default, halves the rate of PUBLISH.
const PIPELINE_BUFFER: usize = 1_000;
/// Reconnection waits a random time up to a bound that doubles between these two.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

impl Link {
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

    pub(crate) async fn try_connect(&self) -> Result<(), StartError> {
        let work = async {
            let config = AsyncConnectionConfig::new()
                .set_pipeline_buffer_size(PIPELINE_BUFFER)
                .set_connection_timeout(Some(self.config.connect_timeout))
                .set_response_timeout(Some(self.config.response_timeout));
            let mut connection = self
                .client
                .get_multiplexed_async_connection_with_config(&config)
                .await
                .map_err(|error| StartError::Unreachable(error.to_string()))?;
            let facts = check::check(&mut connection, &self.keys, &self.clock).await?;
            if !self.was_interrupted() {
                check::warn_without_persistence(&mut connection).await;
            }
            Ok((connection, facts))
        };
        let limit = self.config.connect_timeout;
        let (connection, facts) = tokio::time::timeout(limit, work)
            .await
            .map_err(|_| StartError::Unreachable(format!("no answer within {limit:?}")))??;
        let before = std::mem::replace(&mut *self.facts.lock(), Arc::new(facts));
        if before.replid.is_some() && before.replid != self.facts().replid {
            self.metrics().failovers.increment(1);
        }
        self.metrics().set_hub_time_error(self.clock.error_bound());
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
