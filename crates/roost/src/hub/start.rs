//! Starting a node: ports first (so that a mistake shows at once), then the store, then the parts
//! that use it, and the listeners' accept loops last.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use roost_auth::{ApiKeys, DeviceAuthenticator, InsecureAuthenticator, TokenAuthenticator};
use roost_cluster::{
    HubClock, Keeper, Lease, MemoryHub, NodeInfo, NodeRef, Roles, SessionHolder, Store,
    StoreSettings, Switchboard,
};
use roost_control::{Control, ControlConfig};
use roost_edge::{ConnectRate, Edge, EdgeConfig, EdgeHandle, EdgeParts};
use roost_redis::{RedisRuntime, RedisStore};
use roost_telemetry::trace::{SpanExport, Tracer, TracingConfig};
use roost_telemetry::{HealthRegistry, LogControl, Telemetry, serve_admin};
use roost_types::NodeId;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::health::Checks;
use super::running::{Parts, RunningHub, Tasks};
use super::{Addresses, Phase, StartError};
use crate::config::{AuthMode, Config, Credentials};
use crate::tls::TlsPorts;

/// How much of `shutdown.grace` is left for gRPC calls to end once the devices are gone.
const CALLS: Duration = Duration::from_secs(5);

/// The ports of a node, bound.
struct Listeners {
    edge: Option<roost_edge::Listeners>,
    grpc: Option<TcpListener>,
    tls: TlsPorts,
    admin: TcpListener,
    addresses: Addresses,
}

/// What both roles are made of.
struct Shared {
    node: NodeRef,
    store: Store,
    switchboard: Arc<Switchboard>,
    lease: Arc<Lease>,
    telemetry: Telemetry,
}

pub(super) async fn start(
    config: Config,
    memory: Option<Arc<MemoryHub>>,
    log: Option<LogControl>,
) -> Result<RunningHub, StartError> {
    let credentials = config.credentials()?;
    warn_if_insecure(&config, &credentials);
    let listeners = bind(&config).await?;
    let addresses = listeners.addresses;
    let name = config.node.id.clone().unwrap_or_else(|| NodeId::generate("node"));
    let node = NodeRef::start(name);
    let (telemetry, spans) = open_telemetry(&config, &node, log)?;

    let mut tasks = Tasks::new();
    let health = HealthRegistry::new();
    let checks = Checks::new(&health, config.node.role);
    let (admin, stop) = (telemetry.clone(), tasks.admin_stop.clone());
    let stopped = async move { stop.cancelled().await };
    tasks.last("admin", serve_admin(listeners.admin, admin, Arc::new(health), stopped));

    let (store, lease, redis) = open_store(&config, &node, &telemetry, memory).await?;
    let switchboard = Arc::new(Switchboard::new(Arc::clone(&store.bus)));
    let shared = Shared {
        node: node.clone(),
        store: store.clone(),
        switchboard: Arc::clone(&switchboard),
        lease: Arc::clone(&lease),
        telemetry: telemetry.clone(),
    };
    let edge = listeners.edge.is_some().then(|| make_edge(&config, &shared, &credentials));
    let control = listeners.grpc.is_some();
    let control = control.then(|| make_control(&config, &shared, credentials.api_keys));

    let holder = edge.clone().map(|edge| edge as Arc<dyn SessionHolder>);
    let info = node_info(&config, &shared, &addresses);
    let (counted, shown) = (Arc::clone(&telemetry.control), Arc::clone(&telemetry.node));
    let mut keeper = Keeper::new(store.clone(), info, lease, config.store.lease, holder)
        .on_end(move |state| counted.ended(state))
        .on_tally(move |tally, age| shown.set_mailboxes(tally.pending, age));
    keeper.join().await.map_err(|source| StartError::Join { node: node.clone(), source })?;
    let events = store.bus.take_events().expect("taken once for each node");
    let stop = tasks.core_stop.clone();
    let board = Arc::clone(&switchboard);
    tasks.last("switchboard", async move { board.run(events, stop).await });
    let stop = tasks.core_stop.clone();
    tasks.last("keeper", keeper.run(stop));

    let grpc_tls = listeners.tls.grpc.as_ref().map(|setup| Arc::clone(&setup.server));
    let parts = Parts {
        addresses,
        node,
        certificates: watch_certificates(listeners.tls, &telemetry, &mut tasks),
        telemetry,
        shutdown: config.shutdown.clone(),
        redis,
        spans,
        edge: serve_edge(edge, listeners.edge)?,
    };
    if let (Some(control), Some(listener)) = (control, listeners.grpc) {
        let stop = tasks.grpc_stop.clone();
        tasks.grpc(control.serve(listener, grpc_tls, stop));
    }
    let mut hub = RunningHub::new(parts, tasks);
    hub.advance(Phase::Ready);
    hub.follow_health(checks, store.health);
    say_ready(&config, hub.node(), addresses);
    Ok(hub)
}

/// The first thing that whoever reads the log wants to know.
fn say_ready(config: &Config, node: &NodeRef, addresses: Addresses) {
    let shown = |address: Option<SocketAddr>| address.map_or("none".to_owned(), |a| a.to_string());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        %node,
        edge = shown(addresses.edge),
        edge_tls = shown(addresses.edge_tls),
        grpc = shown(addresses.grpc),
        admin = %addresses.admin,
        auth = ?config.auth.mode,
        store = if config.redis.url.is_some() { "redis" } else { "memory" },
        "ready"
    );
}

fn warn_if_insecure(config: &Config, credentials: &Credentials) {
    if config.auth.mode == AuthMode::Insecure {
        let back_ends = match credentials.api_keys {
            Some(_) => "back ends need a key",
            None => "back ends need no key",
        };
        tracing::warn!(
            "auth.mode is INSECURE: every device is believed to be what it says, and {back_ends}. \
             For trying out only"
        );
    }
}

fn serve_edge(
    edge: Option<Arc<Edge>>,
    listeners: Option<roost_edge::Listeners>,
) -> Result<Option<EdgeHandle>, StartError> {
    let both = edge.zip(listeners);
    both.map(|(edge, listeners)| edge.serve(listeners).map_err(StartError::Edge)).transpose()
}

/// Has the certificates looked after. Gives what asks for a look at once.
fn watch_certificates(
    tls: TlsPorts,
    telemetry: &Telemetry,
    tasks: &mut Tasks,
) -> Option<Arc<Notify>> {
    let watch = tls.watch(Arc::clone(&telemetry.node))?;
    let (asking, stop) = (watch.asking(), tasks.core_stop.clone());
    tasks.last("certificates", watch.run(stop));
    Some(asking)
}

async fn bind(config: &Config) -> Result<Listeners, StartError> {
    let role = config.node.role;
    let tls = TlsPorts::of(config)?;
    let mut edge = roost_edge::Listeners::default();
    if role.has_edge() && config.edge.plain.0 {
        edge.plain = bind_edge("edge.addr", config.edge.addr, config)?;
    }
    if let Some(setup) = &tls.edge {
        let listeners = bind_edge("edge.tls_addr", config.edge.tls_addr, config)?;
        edge.tls = Some((listeners, Arc::clone(&setup.server)));
    }
    let mut grpc = None;
    if role.has_control() {
        grpc = Some(bind_one("grpc.addr", config.grpc.addr).await?);
    }
    let admin = bind_one("admin.addr", config.admin.addr).await?;
    let bound = "a listener that was just bound has an address";
    let addresses = Addresses {
        edge: edge.plain.first().map(|listener| listener.local_addr().expect(bound)),
        edge_tls: edge.tls.as_ref().map(|(all, _)| all[0].local_addr().expect(bound)),
        grpc: grpc.as_ref().map(|listener| listener.local_addr().expect(bound)),
        admin: admin.local_addr().expect(bound),
    };
    let edge = role.has_edge().then_some(edge);
    Ok(Listeners { edge, grpc, tls, admin, addresses })
}

fn bind_edge(
    key: &'static str,
    addr: SocketAddr,
    config: &Config,
) -> Result<Vec<StdListener>, StartError> {
    let listen = |source| StartError::Listen { key, addr, source };
    roost_edge::bind_workers(addr, workers(config)).map_err(listen)
}

async fn bind_one(key: &'static str, addr: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(addr).await;
    bound.map_err(|source| StartError::Listen { key, addr, source })
}

fn workers(config: &Config) -> usize {
    match config.edge.workers {
        // More than 64 are never of use here, and the edge refuses them.
        0 => std::thread::available_parallelism().map_or(1, |cores| cores.get().min(64)),
        given => given,
    }
}

fn open_telemetry(
    config: &Config,
    node: &NodeRef,
    log: Option<LogControl>,
) -> Result<(Telemetry, Option<SpanExport>), StartError> {
    let version = env!("CARGO_PKG_VERSION");
    let telemetry = Telemetry::new(version).with_log(log);
    let Some(endpoint) = &config.tracing.otlp_endpoint else {
        return Ok((telemetry, None));
    };
    let tracing = TracingConfig {
        endpoint: endpoint.0.clone(),
        sample: config.tracing.sample.0,
        instance: node.id.to_string(),
        version: version.to_owned(),
    };
    let (tracer, spans) = Tracer::exporting(&tracing, Arc::clone(&telemetry.node))?;
    Ok((telemetry.with_tracer(tracer), Some(spans)))
}

async fn open_store(
    config: &Config,
    node: &NodeRef,
    telemetry: &Telemetry,
    memory: Option<Arc<MemoryHub>>,
) -> Result<(Store, Arc<Lease>, Option<RedisRuntime>), StartError> {
    let settings = StoreSettings {
        lease: config.store.lease,
        window: config.store.window,
        mailbox_commands: config.store.mailbox_commands,
        mailbox_bytes: config.store.mailbox_bytes,
        retention: config.store.retention,
        device_retention: config.store.device_retention,
        history: config.store.history,
        ..StoreSettings::default()
    };
    if let Some(memory) = memory {
        return Ok((memory.node(node.clone()), Arc::new(Lease::new()), None));
    }
    let Some(url) = &config.redis.url else {
        let memory = MemoryHub::new(settings, Arc::new(HubClock::new()));
        return Ok((memory.node(node.clone()), Arc::new(Lease::perpetual()), None));
    };
    let redis = crate::redis::config(&config.redis, url, Arc::clone(&telemetry.redis))?;
    let mut tries = 0;
    loop {
        match RedisStore::connect(redis.clone(), settings.clone(), node.clone()).await {
            Ok((store, runtime)) => return Ok((store, Arc::new(Lease::new()), Some(runtime))),
            // It may start, or be promoted, in a moment: this node is not ready till then.
            Err(error) if error.is_passing() => {
                if tries == 0 {
                    tracing::warn!(%error, "waiting for Redis");
                }
                tracing::debug!(%error, tries, "Redis cannot be used yet");
                tokio::time::sleep(start_pause(tries)).await;
                tries += 1;
            }
            Err(error) => return Err(StartError::Store(error)),
        }
    }
}

/// How long to wait for a Redis that could not be reached: 0.1 s, doubled up to 3.2 s.
fn start_pause(tries: u32) -> Duration {
    Duration::from_millis(100) * 2u32.pow(tries.min(5))
}

fn make_edge(config: &Config, shared: &Shared, credentials: &Credentials) -> Arc<Edge> {
    let authenticator: Arc<dyn DeviceAuthenticator> = match &credentials.token_key {
        Some(key) => Arc::new(TokenAuthenticator::new(key, config.auth.audience.clone())),
        None => Arc::new(InsecureAuthenticator),
    };
    let edge = Edge::new(EdgeParts {
        config: edge_config(config),
        node: shared.node.clone(),
        store: shared.store.clone(),
        switchboard: Arc::clone(&shared.switchboard),
        lease: Arc::clone(&shared.lease),
        authenticator,
        telemetry: shared.telemetry.clone(),
    });
    shared.switchboard.attach(Arc::clone(&edge) as _);
    edge
}

fn edge_config(config: &Config) -> EdgeConfig {
    let mut edge = EdgeConfig {
        enable_echo: config.edge.enable_echo.0,
        allowed_origins: config.edge.allowed_origins.clone().map(|origins| origins.0),
        connect_rate: connect_rate(config),
        max_connections: config.edge.max_connections,
        send_queue_bytes: config.edge.send_queue_bytes,
        shed_rate: config.shutdown.shed_rate,
        max_connection_age: config.edge.max_connection_age,
        max_connection_age_jitter: config.edge.max_connection_age_jitter,
        ..EdgeConfig::default()
    };
    edge.limits.payload_bytes = config.edge.payload_bytes;
    edge.limits.frame_bytes = config.edge.frame_bytes;
    edge.limits.subscriptions = config.edge.subscriptions;
    edge.timeouts.keepalive = config.edge.keepalive;
    edge
}

/// `None` where a rate of 0 says that there is no limit.
fn connect_rate(config: &Config) -> Option<ConnectRate> {
    let per_second = NonZeroU32::new(config.edge.connect_rate)?;
    let burst = NonZeroU32::new(config.edge.connect_burst)?;
    Some(ConnectRate { per_second, burst })
}

fn make_control(config: &Config, shared: &Shared, keys: Option<ApiKeys>) -> Arc<Control> {
    let settings = ControlConfig {
        max_payload: config.edge.payload_bytes,
        drain: CALLS,
        ..ControlConfig::new(shared.node.clone())
    };
    let control = Control::new(
        settings,
        shared.store.clone(),
        Arc::clone(&shared.switchboard),
        keys.unwrap_or_else(ApiKeys::insecure),
        &shared.telemetry,
    );
    shared.switchboard.attach(Arc::clone(&control) as _);
    control
}

fn node_info(config: &Config, shared: &Shared, addresses: &Addresses) -> NodeInfo {
    let role = config.node.role;
    let main = addresses.edge.or(addresses.edge_tls).or(addresses.grpc);
    let own = main.map(|address| address.to_string());
    NodeInfo {
        node: shared.node.clone(),
        roles: Roles { edge: role.has_edge(), control: role.has_control() },
        version: env!("CARGO_PKG_VERSION").to_owned(),
        address: config.node.address.clone().or(own).unwrap_or_default(),
        started: shared.store.clock.now(),
        devices: 0,
        draining: false,
    }
}
