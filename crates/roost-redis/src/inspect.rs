//! Whether a Redis is fit for a hub, in words: for `roost redis check`. What a node itself insists on when
//! it starts is in `check.rs`; here all of it is looked at, and nothing is changed.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Value};
use tokio::time::Instant;

use crate::acl::COMMANDS;
use crate::check::{Setup, judge_arrangement, judge_info};
use crate::config::RedisConfig;
use crate::error::{StartError, refused};
use crate::keys::Keys;
use crate::link::survey;
use crate::target::{Address, Shape, Target};

/// How often a server is asked, to see how long it takes.
const PINGS: usize = 20;
/// A median beyond this makes each command slow: there is at least one round trip in each.
const SLOW: Duration = Duration::from_millis(5);
/// Masters whose clocks are further apart refuse writes too early, or expire commands late.
const APART_MS: u64 = 300;
/// What a subscriber may be behind before Redis cuts it off; its default.
const PUBSUB_BYTES: u64 = 32 << 20;

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gravity {
    /// No hub starts there.
    Unfit,
    /// A hub starts, and something that it promises is worth less.
    Warning,
}

/// Something to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How grave it is.
    pub gravity: Gravity,
    /// Which server, `host:port`; empty for all of them together.
    pub server: String,
    /// What is so, and what to do.
    pub text: String,
}

/// One master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerReport {
    /// `host:port`.
    pub address: String,
    /// What it says it is.
    pub version: String,
    /// How many replicas follow it.
    pub replicas: u32,
    /// The median of some round trips, and the longest.
    pub round_trip: (Duration, Duration),
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// `standalone`, `sentinel` or `cluster`.
    pub shape: &'static str,
    /// Each master that answered.
    pub servers: Vec<ServerReport>,
    /// What is to be changed, the gravest first.
    pub findings: Vec<Finding>,
}

/// A look at one master.
struct Looked {
    report: ServerReport,
    findings: Vec<Finding>,
    /// Its clock, less ours, in ms.
    ahead_ms: i64,
}

// === impl Report ===

impl Report {
    /// Whether a hub would start.
    pub fn is_fit(&self) -> bool {
        self.findings.iter().all(|finding| finding.gravity != Gravity::Unfit)
    }
}

/// Looks at every master. An error says why there is nothing to look at: `Unreachable` may pass.
pub async fn inspect(config: &RedisConfig) -> Result<Report, StartError> {
    let keys = Keys::new(&config.prefix)?;
    let target = Target::new(config)?;
    let (masters, whole) = survey(&target, config.connect_timeout).await?;
    let shape = match target.shape {
        Shape::Standalone => "standalone",
        Shape::Sentinel { .. } => "sentinel",
        Shape::Cluster => "cluster",
    };
    let mut report = Report { shape, servers: Vec::new(), findings: Vec::new() };
    let mut clocks = Vec::new();
    for master in &masters {
        match look(&target, config, &keys, master).await {
            Ok(looked) => {
                report.servers.push(looked.report);
                report.findings.extend(looked.findings);
                clocks.push(looked.ahead_ms);
            }
            Err(error) if masters.len() == 1 => return Err(error),
            Err(error) => report.note(Gravity::Unfit, master.to_string(), error.to_string()),
        }
    }
    report.judge_whole(&target, whole, &clocks);
    report.findings.sort_by_key(|finding| finding.gravity == Gravity::Warning);
    Ok(report)
}

impl Report {
    fn note(&mut self, gravity: Gravity, server: String, text: impl Into<String>) {
        self.findings.push(Finding { gravity, server, text: text.into() });
    }

    /// What only shows in all of them together.
    fn judge_whole(&mut self, target: &Target, whole: bool, clocks: &[i64]) {
        let all = String::new;
        if !whole {
            let text = "some slots have no master: give all 16,384 to masters (CLUSTER ADDSLOTSRANGE), \
                        and see why a master is gone (CLUSTER NODES)";
            self.note(Gravity::Unfit, all(), text);
        }
        if target.is_cluster() && self.servers.len() < 3 {
            let text = "a cluster of less than 3 masters cannot agree on a failover: add masters";
            self.note(Gravity::Warning, all(), text);
        }
        if matches!(target.shape, Shape::Sentinel { .. }) && target.seeds.len() < 3 {
            let text = "the URL names less than 3 sentinels: name all, so that one is found whichever is gone";
            self.note(Gravity::Warning, all(), text);
        }
        for server in self.servers.clone() {
            if target.shape != Shape::Standalone && server.replicas == 0 {
                let text = "no replica follows it: nothing takes over when it is lost; add one";
                self.note(Gravity::Warning, server.address, text);
            }
        }
        if let (Some(first), Some(last)) = (clocks.iter().min(), clocks.iter().max())
            && first.abs_diff(*last) > APART_MS
        {
            let text = format!(
                "the masters' clocks are {} ms apart: writes are refused too early, or commands expire \
                 late; run NTP",
                first.abs_diff(*last)
            );
            self.note(Gravity::Warning, all(), text);
        }
    }
}

async fn look(
    target: &Target,
    config: &RedisConfig,
    keys: &Keys,
    master: &Address,
) -> Result<Looked, StartError> {
    let wrong = |error: redis::RedisError| refused(master, &error);
    let limit = config.connect_timeout;
    let settings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(limit))
        .set_response_timeout(Some(config.response_timeout));
    let client = target.client(master)?;
    let mut connection =
        client.get_multiplexed_async_connection_with_config(&settings).await.map_err(wrong)?;
    let setup = Setup::read(&mut connection).await.map_err(wrong)?;
    let mut findings = Vec::new();
    let mut note = |gravity, text: String| {
        findings.push(Finding { gravity, server: master.to_string(), text });
    };
    let judged = judge_info(&setup.info, master, config.durability)
        .and_then(|()| judge_arrangement(&setup.info, master, &config.url));
    if let Err(error) = judged {
        note(Gravity::Unfit, error.to_string());
    }
    for lack in setup.lacks(config.durability, config.replicas) {
        note(Gravity::Warning, lack);
    }
    if let Some(text) = pubsub_limit(&setup) {
        note(Gravity::Warning, text);
    }
    if setup.config.is_empty() {
        let text =
            "CONFIG GET is not allowed: whether it saves to disk is not known; allow +config|get";
        note(Gravity::Warning, text.to_owned());
    }
    let missing = missing_rights(&mut connection, keys).await.map_err(wrong)?;
    if !missing.is_empty() {
        let text = format!(
            "this user may not use {}; `roost redis acl` prints the rule that it needs",
            missing.join(", ")
        );
        note(Gravity::Unfit, text);
    }
    let (round_trip, ahead_ms) = round_trips(&mut connection).await.map_err(wrong)?;
    if round_trip.0 > SLOW {
        let text =
            format!("a round trip takes {:?}: have the hub's nodes nearer to it", round_trip.0);
        note(Gravity::Warning, text);
    }
    let number = |name| setup.line(name).and_then(|text| text.parse().ok());
    let report = ServerReport {
        address: master.to_string(),
        version: setup.line("redis_version").unwrap_or("unknown").to_owned(),
        replicas: number("connected_slaves").unwrap_or(0),
        round_trip,
    };
    Ok(Looked { report, findings, ahead_ms })
}

/// Whether subscribers are cut off sooner than by default: `pubsub HARD SOFT SECONDS` among others.
fn pubsub_limit(setup: &Setup) -> Option<String> {
    let all = setup.config("client-output-buffer-limit")?;
    let mut words = all.split_ascii_whitespace().skip_while(|word| *word != "pubsub").skip(1);
    let hard: u64 = words.next()?.parse().ok()?;
    (hard != 0 && hard < PUBSUB_BYTES).then(|| {
        format!(
            "a subscriber is cut off at {hard} bytes that wait: a busy node misses what is published; \
             set client-output-buffer-limit pubsub 32mb 8mb 60 or more"
        )
    })
}

/// Which commands this user may not use, on keys and channels of the hub's.
async fn missing_rights(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
) -> redis::RedisResult<Vec<String>> {
    const ASK: &str = "local no = {}\n\
        for _, name in ipairs(ARGV) do\n\
          local cmd, sub = name:match('^([^|]+)|?(.*)$')\n\
          local may = sub ~= '' and redis.acl_check_cmd(cmd, sub, KEYS[1]) \
            or sub == '' and redis.acl_check_cmd(cmd, KEYS[1])\n\
          if not may then no[#no + 1] = name end\n\
        end\n\
        return no";
    let key = format!("{}check", keys.nodes());
    let mut ask = redis::cmd("EVAL");
    ask.arg(ASK).arg(1).arg(&key).arg(COMMANDS);
    match ask.query_async(connection).await {
        Ok(missing) => Ok(missing),
        Err(error) if error.code() == Some("NOPERM") => Ok(vec!["eval".to_owned()]),
        // In a cluster the key may be another master's, which is asked too.
        Err(error)
            if matches!(error.code(), Some("MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN")) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// The median and the longest round trip, and how far the clock is ahead of ours.
async fn round_trips(
    connection: &mut MultiplexedConnection,
) -> redis::RedisResult<((Duration, Duration), i64)> {
    let mut times = Vec::with_capacity(PINGS);
    let mut ahead = 0;
    for _ in 0..PINGS {
        let asked = Instant::now();
        let told: Value = redis::cmd("TIME").query_async(connection).await?;
        times.push(asked.elapsed());
        let (seconds, micros): (i64, i64) = redis::from_redis_value(told)?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = i64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(i64::MAX);
        ahead = seconds * 1_000 + micros / 1_000 - now;
    }
    times.sort_unstable();
    Ok(((times[PINGS / 2], times[PINGS - 1]), ahead))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_limit_for_subscribers_is_told() {
        let setup = |limit: &str| {
            let mut setup = Setup::default();
            setup.config.insert("client-output-buffer-limit".into(), limit.into());
            setup
        };
        let usual = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60";
        assert_eq!(pubsub_limit(&setup(usual)), None);
        assert_eq!(pubsub_limit(&setup("pubsub 0 0 0")), None);
        assert!(pubsub_limit(&setup("normal 0 0 0 pubsub 1048576 0 0")).is_some());
        assert_eq!(pubsub_limit(&Setup::default()), None);
    }
}
