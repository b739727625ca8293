//! Starting a node: ports first (so that a mistake shows at once), then the store, then the parts
//! that use it, and the listeners' accept loops last.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use roost_auth::{ApiKeys, DeviceAuthenticator, InsecureAuthenticator, TokenAuthenticator};
use roost_cluster::{
    HubClock, Keeper, Lease, MemoryHub, NodeInfo, NodeRef, Roles, SessionHolder, Store,
    StoreSettings, Switchboard,
};
use roost_control::{Control, ControlConfig};
use roost_edge::{Edge, EdgeConfig, EdgeParts};
use roost_redis::{RedisRuntime, RedisStore};
use roost_telemetry::{HealthRegistry, Telemetry, serve_admin};
use roost_types::NodeId;
use tokio::net::TcpListener;

use super::health::Checks;
use super::running::{Parts, RunningHub, Tasks};
use super::{Addresses, Phase, StartError};
use crate::config::{AuthMode, Config, Credentials};

/// How much of `shutdown.grace` is left for gRPC calls to end once the devices are gone.
const CALLS: Duration = Duration::from_secs(5);

/// The ports of a node, bound.
struct Listeners {
    edge: Vec<StdListener>,
    grpc: Option<TcpListener>,
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
) -> Result<RunningHub, StartError> {
    let credentials = config.credentials()?;
    warn_if_insecure(&config, &credentials);
    let listeners = bind(&config).await?;
    let addresses = listeners.addresses;
    let name = config.node.id.clone();
    let node = NodeRef::start(name.unwrap_or_else(|| NodeId::generate("node")));
    let telemetry = Telemetry::new(env!("CARGO_PKG_VERSION"));

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
    let has_edge = !listeners.edge.is_empty();
    let edge = has_edge.then(|| make_edge(&config, &shared, &credentials));
    let control = listeners.grpc.is_some();
    let control = control.then(|| make_control(&config, &shared, credentials.api_keys));

    let holder = edge.clone().map(|edge| edge as Arc<dyn SessionHolder>);
    let info = node_info(&config, &shared, &addresses);
    let counted = Arc::clone(&telemetry.control);
    let mut keeper = Keeper::new(store.clone(), info, lease, config.store.lease, holder)
        .on_end(move |state| counted.ended(state));
    keeper.join().await.map_err(|source| StartError::Join { node: node.clone(), source })?;
    let events = store.bus.take_events().expect("taken once for each node");
    let stop = tasks.core_stop.clone();
    let board = Arc::clone(&switchboard);
    tasks.last("switchboard", async move { board.run(events, stop).await });
    let stop = tasks.core_stop.clone();
    tasks.last("keeper", keeper.run(stop));

    let parts = Parts {
        addresses,
        node,
        telemetry,
        shutdown: config.shutdown.clone(),
        redis,
        edge: match edge {
            Some(edge) => Some(edge.serve(listeners.edge).map_err(StartError::Edge)?),
            None => None,
        },
    };
    if let (Some(control), Some(listener)) = (control, listeners.grpc) {
        let stop = tasks.grpc_stop.clone();
        tasks.grpc(control.serve(listener, stop));
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

async fn bind(config: &Config) -> Result<Listeners, StartError> {
    let role = config.node.role;
    let mut edge = vec![];
    if role.has_edge() {
        let addr = config.edge.addr;
        let listen = |source| StartError::Listen { key: "edge.addr", addr, source };
        edge = roost_edge::bind_workers(addr, workers(config)).map_err(listen)?;
    }
    let mut grpc = None;
    if role.has_control() {
        grpc = Some(bind_one("grpc.addr", config.grpc.addr).await?);
    }
    let admin = bind_one("admin.addr", config.admin.addr).await?;
    let bound = "a listener that was just bound has an address";
    let addresses = Addresses {
        edge: edge.first().map(|listener| listener.local_addr().expect(bound)),
        grpc: grpc.as_ref().map(|listener| listener.local_addr().expect(bound)),
        admin: admin.local_addr().expect(bound),
    };
    Ok(Listeners { edge, grpc, admin, addresses })
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
        ..StoreSettings::default()
    };
    if let Some(memory) = memory {
        return Ok((memory.node(node.clone()), Arc::new(Lease::new()), None));
    }
    let Some(url) = &config.redis.url else {
        let memory = MemoryHub::new(settings, Arc::new(HubClock::new()));
        return Ok((memory.node(node.clone()), Arc::new(Lease::perpetual()), None));
    };
    let redis = roost_redis::RedisConfig {
        prefix: config.redis.prefix.clone(),
        metrics: Arc::clone(&telemetry.redis),
        ..roost_redis::RedisConfig::new(url.0.clone())
    };
    let connected = RedisStore::connect(redis, settings, node.clone()).await;
    let (store, runtime) = connected.map_err(StartError::Store)?;
    Ok((store, Arc::new(Lease::new()), Some(runtime)))
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
        max_connections: config.edge.max_connections,
        send_queue_bytes: config.edge.send_queue_bytes,
        ..EdgeConfig::default()
    };
    edge.limits.payload_bytes = config.edge.payload_bytes;
    edge.limits.frame_bytes = config.edge.frame_bytes;
    edge.limits.subscriptions = config.edge.subscriptions;
    edge.timeouts.keepalive = config.edge.keepalive;
    edge
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
    let main = addresses.edge.or(addresses.grpc);
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
