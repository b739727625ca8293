//! `roost simulate`: one device, or a thousand. What a device does is in `crate::simulated`.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use roost_auth::{DEFAULT_AUDIENCE, TokenKey, mint_device_token};
use roost_client::Trust;
use roost_client::device::DeviceOptions;
use roost_types::{DeviceId, TenantId};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::args::duration;
use super::output::Output;
use super::serve::Signals;
use super::token::wall_clock;
use super::{Exit, Failure};
use crate::simulated::{Counts, Seen, Simulated, VOCABULARY};

/// How long a minted token is good for; a new one is made for each connection.
const TOKEN_TTL: Duration = Duration::from_secs(3_600);
/// Reasons that wait to be shown; more at once say nothing new.
const SEEN: usize = 256;

/// Connect simulated devices.
#[derive(Debug, Clone, Args)]
#[command(after_help = VOCABULARY)]
pub(super) struct SimulateArgs {
    /// Where devices connect: ws://, or wss:// by TLS.
    #[arg(long, env = "ROOST_URL", default_value = "ws://127.0.0.1:7080", value_name = "URL")]
    url: String,
    /// A file with the certificate of the CA that the hub's comes from, for wss. [default: the system's CAs]
    #[arg(long, env = "ROOST_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// How many.
    #[arg(long, alias = "n", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=50_000))]
    count: u32,
    /// Their name; several are NAME-1, NAME-2 and so on.
    #[arg(long, default_value = "sim")]
    device: DeviceId,
    /// Their tenant.
    #[arg(long, default_value = "default")]
    tenant: TenantId,
    /// The hub's token key: each device makes its own tokens with it.
    #[arg(long, value_name = "FILE", conflicts_with = "token_file")]
    token_key_file: Option<PathBuf>,
    /// A device's token, for one device. Without either, devices claim who they are, which a hub
    /// with --auth insecure believes.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The hub's auth.audience, for tokens made here.
    #[arg(long, default_value = DEFAULT_AUDIENCE)]
    audience: String,
    /// How often each publishes a temperature to telemetry/NAME; 0s for never.
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = duration)]
    telemetry: Duration,
    /// How many connect each second.
    #[arg(long, default_value = "500", value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// End after this long; until then, or an interrupt.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    duration: Option<Duration>,
    /// JSON lines: a count each second.
    #[arg(long)]
    json: bool,
}

/// How devices prove who they are.
#[derive(Debug, Clone)]
pub(crate) enum Proof {
    /// By tokens made here.
    Key(Arc<TokenKey>, String),
    /// By this token.
    Token(String),
    /// Not at all.
    Claim,
}

// === impl Proof ===

impl Proof {
    /// Options for a device that proves itself so.
    pub(crate) fn options(
        &self,
        url: &str,
        device: &DeviceId,
        tenant: &TenantId,
    ) -> Result<DeviceOptions, Failure> {
        Ok(match self.clone() {
            Self::Key(key, audience) => {
                let (device, tenant) = (device.clone(), tenant.clone());
                let mint = move || {
                    let now = wall_clock();
                    mint_device_token(&key, &device, &tenant, &audience, TOKEN_TTL, now)
                };
                let options = DeviceOptions::new(url).map_err(Failure::usage)?;
                options.token_source(move || Some(mint()))
            }
            Self::Token(token) => DeviceOptions::new(url).map_err(Failure::usage)?.token(token),
            Self::Claim => {
                let joint = if url.contains('?') { '&' } else { '?' };
                let url = format!("{url}{joint}device={device}&tenant={tenant}");
                DeviceOptions::new(&url).map_err(Failure::usage)?
            }
        })
    }
}

// === impl SimulateArgs ===

impl SimulateArgs {
    fn proof(&self) -> Result<Proof, Failure> {
        if let Some(file) = &self.token_key_file {
            let key = TokenKey::read(file).map_err(Failure::usage)?;
            return Ok(Proof::Key(Arc::new(key), self.audience.clone()));
        }
        let Some(file) = &self.token_file else {
            return Ok(Proof::Claim);
        };
        if self.count > 1 {
            let text = "one token is one device's: --count needs --token-key-file";
            return Err(Failure::usage(text));
        }
        let read = std::fs::read_to_string(file);
        let token = read.map_err(|error| {
            Failure::usage(format!("cannot read the token {}: {error}", file.display()))
        })?;
        Ok(Proof::Token(token.trim().to_owned()))
    }

    fn name(&self, index: u32) -> Result<DeviceId, Failure> {
        if self.count == 1 {
            return Ok(self.device.clone());
        }
        DeviceId::new(format!("{}-{}", self.device, index + 1)).map_err(Failure::usage)
    }
}

pub(super) fn run(args: &SimulateArgs) -> Result<Exit, Failure> {
    let files = roost_bench::raise_file_limit();
    if u64::from(args.count) >= files {
        let text = format!(
            "{} devices need as many sockets, and {files} are allowed (ulimit -Hn)",
            args.count
        );
        return Err(Failure::usage(text));
    }
    let format = roost_telemetry::LogFormat::Human;
    // An embedding program may have set up logging; then that is where it goes.
    roost_telemetry::init_tracing(format, "warn").ok();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(simulate(args))
}

async fn simulate(args: &SimulateArgs) -> Result<Exit, Failure> {
    let proof = args.proof()?;
    let trust = args.ca_file.as_deref().map(Trust::file).transpose().map_err(Failure::usage)?;
    let counts = Arc::new(Counts::default());
    let (watcher, mut seen) = mpsc::channel(SEEN);
    let telemetry = (!args.telemetry.is_zero()).then_some(args.telemetry);
    let mut waiting = Vec::new();
    for index in 0..args.count {
        let name = args.name(index)?;
        let mut options = proof.options(&args.url, &name, &args.tenant)?;
        if let Some(trust) = &trust {
            options = options.trusting(trust.clone());
        }
        waiting.push(Simulated {
            options,
            name: name.to_string(),
            telemetry,
            counts: Arc::clone(&counts),
            watcher: Some(watcher.clone()),
        });
    }
    waiting.reverse();
    drop(watcher);
    let status = Status::new(args);
    let mut signals = Signals::new()?;
    let mut devices = JoinSet::new();
    let mut start = tokio::time::interval(Duration::from_secs(1) / args.rate);
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let end = tokio::time::sleep(args.duration.unwrap_or(Duration::from_secs(u64::from(u32::MAX))));
    tokio::pin!(end);
    loop {
        tokio::select! {
            biased;
            // Ends first, or a thousand devices would outshout them.
            () = &mut end => break,
            () = signals.next() => break,
            Some(event) = seen.recv() => status.say(&event),
            // A device ends only when the hub asks it not to come back.
            Some(_) = devices.join_next() => if devices.is_empty() && waiting.is_empty() {
                status.finish(&counts)?;
                return Err(Failure::failed("the hub turned every device away"));
            },
            _ = tick.tick() => status.show(&counts)?,
            _ = start.tick(), if !waiting.is_empty() => {
                let device = waiting.pop().expect("the branch asked");
                devices.spawn(device.live());
            }
        }
    }
    devices.shutdown().await;
    status.finish(&counts)?;
    if counts.connects.load(Ordering::Relaxed) == 0 {
        return Err(Failure::failed("no device could connect"));
    }
    Ok(Exit::Ok)
}

/// The line that says how they are.
struct Status {
    bar: Option<ProgressBar>,
    output: Output,
    count: u32,
}

// === impl Status ===

impl Status {
    fn new(args: &SimulateArgs) -> Self {
        let terminal = io::stderr().is_terminal() && !args.json;
        let bar = terminal.then(|| {
            let style = ProgressStyle::with_template("{bar:24} {pos}/{len} online  {msg}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(args.count.into()).with_style(style)
        });
        Self { bar, output: Output::new(args.json), count: args.count }
    }

    /// Why a device is not connected; of many devices the counts say enough.
    fn say(&self, seen: &Seen) {
        let Seen::Offline(name, reason) = seen else {
            return;
        };
        if self.count > 10 || self.output.json {
            return;
        }
        let line = format!("{name}: {reason}");
        match &self.bar {
            Some(bar) => bar.println(line),
            // Nothing can be done about a standard error that nobody reads.
            None => drop(writeln!(io::stderr(), "{line}")),
        }
    }

    fn show(&self, counts: &Counts) -> Result<(), Failure> {
        let get = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.set_position(get(&counts.online));
            bar.set_message(format!(
                "{} commands, {} telemetry, {} failed attempts",
                get(&counts.commands),
                get(&counts.telemetry),
                get(&counts.failures),
            ));
            return Ok(());
        }
        let json = json!({
            "online": get(&counts.online),
            "connects": get(&counts.connects),
            "commands": get(&counts.commands),
            "telemetry": get(&counts.telemetry),
            "failures": get(&counts.failures),
        });
        let human = || {
            format!(
                "{}/{} online, {} commands, {} telemetry, {} failed attempts",
                get(&counts.online),
                self.count,
                get(&counts.commands),
                get(&counts.telemetry),
                get(&counts.failures),
            )
        };
        Ok(self.output.show(&json, human)?)
    }

    fn finish(&self, counts: &Counts) -> Result<(), Failure> {
        self.show(counts)?;
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
        Ok(())
    }
}
