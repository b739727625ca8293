//! `roost redis`: whether a Redis is fit for a hub, and what a user of it must be allowed. What is looked
//! at is in `roost-redis`.

use std::time::Duration;

use clap::{Args, Subcommand};
use roost_redis::{Gravity, Report, StartError};
use serde_json::json;

use super::output::{Output, Style};
use super::serve::ConfigArgs;
use super::{Exit, Failure};
use crate::config::{Problem, Problems, RedisUrl};

/// Longer than a node waits: somebody looks because something is wrong.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, Subcommand)]
pub(super) enum RedisCommand {
    /// Say whether a Redis is fit for a hub, and what to change. Changes nothing. Exit code: 0 fit, 1 unfit,
    /// 4 not reached.
    Check(Box<CheckArgs>),
    /// Print the ACL rule for a user that a hub can use.
    Acl(AclArgs),
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Which Redis, as redis.url says it; otherwise that of the configuration.
    url: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
    /// JSON for machines.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct AclArgs {
    /// The user's name.
    #[arg(long, default_value = "roost")]
    user: String,
    /// What every key begins with: redis.prefix.
    #[arg(long, default_value = "roost")]
    prefix: String,
    /// With what redis.durability "fsync" needs; for Redis 7.2 and newer.
    #[arg(long)]
    fsync: bool,
    /// The rule for sentinels instead.
    #[arg(long)]
    sentinel: bool,
}

// === impl RedisCommand ===

impl RedisCommand {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        match self {
            Self::Check(args) => args.run().await,
            Self::Acl(args) => args.run(),
        }
    }
}

// === impl AclArgs ===

impl AclArgs {
    fn run(&self) -> Result<Exit, Failure> {
        let rule = if self.sentinel {
            roost_redis::sentinel_acl_rule(&self.user)
        } else {
            roost_redis::acl_rule(&self.prefix, &self.user, self.fsync).map_err(Failure::usage)?
        };
        Output::new(false).line(format_args!("ACL SETUSER {rule}"))?;
        Ok(Exit::Ok)
    }
}

// === impl CheckArgs ===

impl CheckArgs {
    async fn run(self) -> Result<Exit, Failure> {
        // What else the configuration lacks is not asked here.
        let (mut config, problems) = crate::config::Config::read_anyway(&self.config.sources());
        if let Some(url) = &self.url {
            config.redis.url = Some(RedisUrl(url.clone()));
        } else if let Some(problem) = problems.and_then(of_redis) {
            return Err(Failure::usage(problem));
        }
        let Some(url) = config.redis.url.clone() else {
            return Err(Failure::usage(
                "which Redis? Give its URL, or a configuration with redis.url",
            ));
        };
        let metrics = roost_telemetry::Telemetry::noop().redis;
        let redis = crate::redis::config(&config.redis, &url, metrics).map_err(Failure::usage)?;
        let redis = roost_redis::RedisConfig {
            connect_timeout: PATIENCE,
            response_timeout: PATIENCE,
            ..redis
        };
        let output = Output::new(self.json);
        match roost_redis::inspect(&redis).await {
            Ok(report) => {
                output.show(&as_json(&report), || as_text(&report, output))?;
                Ok(if report.is_fit() { Exit::Ok } else { Exit::Failed })
            }
            Err(error) => Err(match &error {
                StartError::Unreachable(_) => Failure::unavailable(error),
                StartError::Url(_) | StartError::Prefix(_) | StartError::Tls(_) => {
                    Failure::usage(error)
                }
                _ => Failure::failed(error),
            }),
        }
    }
}

/// What is wrong with the section that is asked about.
fn of_redis(problems: Problems) -> Option<Problems> {
    let own = |problem: &Problem| problem.0.contains("redis.");
    let problems: Vec<Problem> = problems.0.into_iter().filter(own).collect();
    (!problems.is_empty()).then_some(Problems(problems))
}

fn as_json(report: &Report) -> serde_json::Value {
    let servers = report.servers.iter().map(|server| {
        json!({
            "address": server.address,
            "version": server.version,
            "replicas": server.replicas,
            "round_trip_us": micros(server.round_trip.0),
            "longest_round_trip_us": micros(server.round_trip.1),
        })
    });
    let findings = report.findings.iter().map(|finding| {
        json!({
            "gravity": gravity(finding.gravity),
            "server": finding.server,
            "text": finding.text,
        })
    });
    json!({
        "fit": report.is_fit(),
        "topology": report.shape,
        "servers": servers.collect::<Vec<_>>(),
        "findings": findings.collect::<Vec<_>>(),
    })
}

fn as_text(report: &Report, output: Output) -> String {
    let mut lines = Vec::new();
    for server in &report.servers {
        let (median, longest) = server.round_trip;
        lines.push(format!(
            "{}: Redis {}, {} replicas, round trip {median:.1?} (at most {longest:.1?})",
            server.address, server.version, server.replicas
        ));
    }
    for finding in &report.findings {
        let style = match finding.gravity {
            Gravity::Unfit => Style::Bad,
            Gravity::Warning => Style::Bold,
        };
        let at =
            if finding.server.is_empty() { String::new() } else { format!("{}: ", finding.server) };
        lines.push(format!(
            "{}: {at}{}",
            output.paint(style, gravity(finding.gravity)),
            finding.text
        ));
    }
    lines.push(if report.is_fit() {
        output.paint(Style::Good, format_args!("fit for a hub ({})", report.shape))
    } else {
        output.paint(Style::Bad, format_args!("not fit for a hub ({})", report.shape))
    });
    lines.join("\n")
}

fn gravity(gravity: Gravity) -> &'static str {
    match gravity {
        Gravity::Unfit => "unfit",
        Gravity::Warning => "warning",
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
