//! What an idle device costs the hub: resident memory of the hub's process with and without N
//! devices, each with a token, a session and one subscription, divided by N.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use roost_auth::{DEFAULT_AUDIENCE, mint_device_token};
use roost_client::device::{Connection, Hello};
use roost_types::{DeviceId, TenantId, TopicFilter, UnixMillis};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::hub::HubProcess;
use crate::process::{self, Memory, raise_file_limit};
use crate::redis::OwnRedis;

/// How many devices connect at a time.
const AT_ONCE: usize = 128;
/// Files that this process and the hub have open beside the devices' sockets.
const OTHER_FILES: u64 = 256;
/// Between two looks at the hub's memory while it comes to rest.
const LOOK: Duration = Duration::from_millis(500);
/// After how many looks without a change worth mentioning it is at rest.
const QUIET_LOOKS: u32 = 4;
/// After how many looks it is measured in any case.
const MAX_LOOKS: u32 = 60;

/// What to measure.
#[derive(Debug, Clone)]
pub struct IdleOptions {
    /// The `roost` program.
    pub program: PathBuf,
    /// How many devices.
    pub devices: u32,
    /// The hub's store.
    pub store: BenchStore,
    /// Whether devices connect by TLS.
    pub tls: bool,
}

/// Where the hub keeps what it must.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BenchStore {
    /// A Redis of the benchmark's own: `redis-server` from the PATH.
    OwnRedis,
    /// This Redis.
    Redis(String),
    /// The hub's memory, which is then measured with it.
    Memory,
}

/// What came out.
#[derive(Debug, Clone, Serialize)]
pub struct IdleReport {
    /// How many devices were connected.
    pub devices: u32,
    /// `redis` or `memory`.
    pub store: &'static str,
    /// Whether they connected by TLS.
    pub tls: bool,
    /// The hub without devices.
    pub before: Memory,
    /// The hub with them, at rest.
    pub after: Memory,
    /// Resident bytes for each device.
    pub resident_bytes_per_device: f64,
    /// Allocated bytes for each device.
    pub anonymous_bytes_per_device: f64,
    /// How long connecting them took.
    pub connect_seconds: f64,
    /// CPU time of the hub for each connect, in microseconds.
    pub connect_cpu_us: f64,
}

/// Measures. `progress` is told how many devices are connected.
pub async fn run(options: IdleOptions, progress: impl Fn(u64)) -> anyhow::Result<IdleReport> {
    let files = raise_file_limit();
    let most = files.saturating_sub(OTHER_FILES);
    if u64::from(options.devices) > most {
        bail!(
            "{} devices need as many sockets in one process, and {files} files are allowed: \
             at most {most} devices, or raise the limit (ulimit -Hn)",
            options.devices
        );
    }
    let own = match &options.store {
        BenchStore::OwnRedis => Some(tokio::task::spawn_blocking(OwnRedis::start).await??),
        BenchStore::Redis(_) | BenchStore::Memory => None,
    };
    let redis = match &options.store {
        BenchStore::Redis(url) => Some(url.clone()),
        BenchStore::OwnRedis | BenchStore::Memory => own.as_ref().map(|own| own.url.clone()),
    };
    let (program, url, tls) = (options.program.clone(), redis.clone(), options.tls);
    let starting = move || HubProcess::start(&program, url.as_deref(), tls);
    let hub = Arc::new(tokio::task::spawn_blocking(starting).await??);
    let before = at_rest(hub.pid()).await?;
    let cpu_before = process::cpu_time(hub.pid())?;

    let began = Instant::now();
    let mut devices = connect(&hub, options.devices, progress).await?;
    let connect_seconds = began.elapsed().as_secs_f64();
    let cpu = process::cpu_time(hub.pid())?.saturating_sub(cpu_before);
    let after = at_rest(hub.pid()).await?;
    if let Some(lost) = devices.try_join_next() {
        bail!("a device lost its connection: {}", lost?);
    }
    devices.shutdown().await;
    let hub = Arc::into_inner(hub).expect("all who shared it have ended");
    tokio::task::spawn_blocking(|| hub.stop()).await??;

    #[expect(clippy::cast_precision_loss, reason = "a figure for people; memory is far below 2^52")]
    let each =
        |after: u64, before: u64| after.saturating_sub(before) as f64 / f64::from(options.devices);
    Ok(IdleReport {
        devices: options.devices,
        store: if redis.is_some() { "redis" } else { "memory" },
        tls,
        resident_bytes_per_device: each(after.resident, before.resident),
        anonymous_bytes_per_device: each(after.anonymous, before.anonymous),
        before,
        after,
        connect_seconds,
        connect_cpu_us: cpu.as_secs_f64() * 1e6 / f64::from(options.devices),
    })
}

/// Connects the devices. Each lives on in a task that ends only with its connection, saying why.
async fn connect(
    hub: &Arc<HubProcess>,
    count: u32,
    progress: impl Fn(u64),
) -> anyhow::Result<JoinSet<String>> {
    let url = &hub.url;
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut opening = JoinSet::new();
    let mut open = JoinSet::new();
    for index in 0..count {
        let place = Arc::clone(&places).acquire_owned().await?;
        let token = token(hub, index)?;
        let url = url.clone();
        let hello = Hello {
            // Nothing is to move while memory is measured.
            keepalive: Some(Duration::from_secs(20 * 60)),
            // A topic of its own is what costs most: nothing of it is shared with other devices.
            subscriptions: vec![TopicFilter::new(&format!("fleet/idle-{index}/config"))?],
        };
        opening.spawn(async move {
            let opened = Connection::open(&url, Some(&token), &hello).await;
            drop(place);
            opened
        });
        while let Some(opened) = opening.try_join_next() {
            hold(&mut open, opened?.context("a device could not connect")?.0);
        }
        progress(open.len() as u64);
    }
    while let Some(opened) = opening.join_next().await {
        hold(&mut open, opened?.context("a device could not connect")?.0);
        progress(open.len() as u64);
    }
    Ok(open)
}

fn hold(open: &mut JoinSet<String>, mut connection: Connection) {
    open.spawn(async move {
        loop {
            if let Err(closed) = connection.next().await {
                return closed.to_string();
            }
        }
    });
}

fn token(hub: &HubProcess, index: u32) -> anyhow::Result<String> {
    let device = DeviceId::new(format!("idle-{index}"))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let now = UnixMillis(u64::try_from(now.as_millis())?);
    let (tenant, ttl) = (TenantId::default(), Duration::from_secs(3_600));
    Ok(mint_device_token(&hub.token_key, &device, &tenant, DEFAULT_AUDIENCE, ttl, now))
}

/// The hub's memory once it no longer moves.
async fn at_rest(pid: u32) -> anyhow::Result<Memory> {
    let mut last = Memory::of(pid)?;
    let mut quiet = 0;
    for _ in 0..MAX_LOOKS {
        tokio::time::sleep(LOOK).await;
        let now = Memory::of(pid)?;
        let moved = now.resident.abs_diff(last.resident) > last.resident / 1000;
        quiet = if moved { 0 } else { quiet + 1 };
        last = now;
        if quiet == QUIET_LOOKS {
            break;
        }
    }
    Ok(last)
}
