//! `roost serve`: a hub node as a process. The node itself is in `crate::hub`.

use std::path::PathBuf;

use clap::Args;
use roost_telemetry::{LogControl, LogFormat, init_tracing};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::output::Output;
use super::{Exit, Failure};
use crate::config::{Config, LogStyle, Sources};
use crate::hub::{Hub, RunningHub, StartError};

/// How many flags there are: with a value, and without.
const TEXTS: usize = 11;
const SWITCHES: usize = 2;

/// Where the configuration is, and what of it is said here.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct ConfigArgs {
    /// The configuration file; `roost config print` shows what can be in it. Each key can be
    /// overridden by a variable `ROOST_SECTION__KEY`, and some by the flags below.
    #[arg(long, env = "ROOST_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where devices connect. [default: 127.0.0.1:7080]
    #[arg(long, value_name = "ADDR")]
    edge_addr: Option<String>,
    /// Where back ends call. [default: 127.0.0.1:7050]
    #[arg(long, value_name = "ADDR")]
    grpc_addr: Option<String>,
    /// Where probes and metrics are. [default: 127.0.0.1:7090]
    #[arg(long, value_name = "ADDR")]
    admin_addr: Option<String>,
    /// The Redis that nodes share; without it this node keeps everything in its memory.
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// all, edge or control. [default: all]
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
    /// token, or insecure: everybody is believed. [default: token]
    #[arg(long, value_name = "MODE")]
    auth: Option<String>,
    /// The key that signs device tokens.
    #[arg(long, value_name = "FILE")]
    token_key_file: Option<String>,
    /// The keys of back ends.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<String>,
    /// This node's name. [default: a random one]
    #[arg(long, value_name = "ID")]
    node_id: Option<String>,
    /// human or json. [default: human]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// error, warn, info, debug or trace, or a list by target. [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Serve /v1/echo, without authentication, for conformance suites.
    #[arg(long)]
    enable_echo: bool,
    /// Let --auth insecure listen on addresses that others can reach.
    #[arg(long)]
    allow_insecure_remote: bool,
}

/// Run a hub node.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

// === impl ConfigArgs ===

impl ConfigArgs {
    /// The configuration in force: file, environment, flags.
    pub(super) fn load(&self) -> Result<Config, Failure> {
        Config::load(&self.sources()).map_err(Failure::usage)
    }

    /// Where the configuration comes from.
    pub(super) fn sources(&self) -> Sources {
        let mut sources = Sources::of_process(self.config.clone());
        for (key, flag, value) in self.texts() {
            sources.flags.extend(value.clone().map(|value| (key, flag, value)));
        }
        for (key, flag, given) in self.switches() {
            sources.flags.extend(given.then(|| (key, flag, "true".to_owned())));
        }
        sources
    }

    /// Every key that has a flag, with it.
    pub(super) fn flags() -> Vec<(&'static str, &'static str)> {
        let none = Self::default();
        let texts = none.texts().map(|(key, flag, _)| (key, flag));
        let switches = none.switches().map(|(key, flag, _)| (key, flag));
        texts.into_iter().chain(switches).collect()
    }

    /// Flags with a value: the key that each stands for, and what was given.
    fn texts(&self) -> [(&'static str, &'static str, &Option<String>); TEXTS] {
        [
            ("edge.addr", "--edge-addr", &self.edge_addr),
            ("grpc.addr", "--grpc-addr", &self.grpc_addr),
            ("admin.addr", "--admin-addr", &self.admin_addr),
            ("redis.url", "--redis", &self.redis),
            ("node.role", "--role", &self.role),
            ("auth.mode", "--auth", &self.auth),
            ("auth.token_key_file", "--token-key-file", &self.token_key_file),
            ("auth.api_key_file", "--api-key-file", &self.api_key_file),
            ("node.id", "--node-id", &self.node_id),
            ("log.format", "--log-format", &self.log_format),
            ("log.level", "--log-level", &self.log_level),
        ]
    }

    /// Flags without one.
    fn switches(&self) -> [(&'static str, &'static str, bool); SWITCHES] {
        [
            ("edge.enable_echo", "--enable-echo", self.enable_echo),
            ("edge.allow_insecure_remote", "--allow-insecure-remote", self.allow_insecure_remote),
        ]
    }
}

pub(super) fn run(args: &ServeArgs) -> Result<Exit, Failure> {
    let config = args.config.load()?;
    let format = match config.log.format {
        LogStyle::Human => LogFormat::Human,
        LogStyle::Json => LogFormat::Json,
    };
    let log = init_tracing(format, &config.log.level).map_err(Failure::usage)?;
    let files = roost_bench::raise_file_limit();
    tracing::debug!(files, "raised the number of sockets that this process may have open");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(config, log))
}

async fn serve(config: Config, log: LogControl) -> Result<Exit, Failure> {
    let mut signals = Signals::new()?;
    let mut hub = tokio::select! {
        biased;
        // A node that cannot reach its store yet can still be told to go away.
        () = signals.next() => return Ok(Exit::Ok),
        hub = Hub::start_logging(config, log) => hub?,
    };
    announce(&hub)?;
    let mut hangups = signal(SignalKind::hangup())?;
    let ended = loop {
        tokio::select! {
            biased;
            // What an operator asks for comes before what broke at the same moment.
            () = signals.next() => break None,
            failure = hub.failed() => break Some(failure),
            Some(()) = hangups.recv() => hub.reload_certificates(),
        }
    };
    let hurry = hub.hurry();
    tokio::select! {
        biased;
        () = hub.shutdown() => {}
        // A second signal skips ahead, and from then on the end comes as fast as it can.
        () = signals.hurried(&hurry) => {}
    }
    match ended {
        None => Ok(Exit::Ok),
        Some(failure) => Err(Failure::failed(failure)),
    }
}

/// Says on standard output where the node listens: one JSON line, for scripts that asked for port 0.
fn announce(hub: &RunningHub) -> Result<(), Failure> {
    let addresses = hub.addresses();
    let text = |address: Option<std::net::SocketAddr>| address.map(|address| address.to_string());
    let line = json!({
        "event": "listening",
        "node_id": hub.node().id.as_str(),
        "edge": text(addresses.edge),
        "edge_tls": text(addresses.edge_tls),
        "grpc": text(addresses.grpc),
        "admin": text(Some(addresses.admin)),
    });
    Ok(Output::new(true).json_line(&line)?)
}

/// SIGTERM and SIGINT alike.
pub(super) struct Signals {
    term: Signal,
    int: Signal,
}

// === impl Signals ===

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    /// The next of either. Cancel safe.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }

    /// Hurries with every further signal; never ends.
    async fn hurried(&mut self, hurry: &tokio_util::sync::CancellationToken) {
        loop {
            self.next().await;
            tracing::warn!("told again to stop: skipping ahead");
            hurry.cancel();
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Config(problems) => Self::usage(problems),
            StartError::Store(_) => Self::unavailable(error),
            _ => Self::failed(error),
        }
    }
}
