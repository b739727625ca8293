//! Everything that a run is made of, put together and started: Redis, nodes, devices, back ends. What is
//! done to it is a scenario's; how a run goes is in `run.rs`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use roost_checker::{Event, Kind, monotonic_us};
use roost_testredis::{DeafProxy, FaultProxy};
use tempfile::TempDir;

use crate::backend::Backends;
use crate::device::Surroundings;
use crate::fleet::Fleet;
use crate::journal::Journal;
use crate::names::{Keys, Name};
use crate::node::{Node, NodeSettings};
use crate::rng::Rng;
use crate::run::Plant;
use crate::scale::Scale;
use crate::store::Store;

/// How many edges and control nodes a hub has.
const EDGES: usize = 3;
const CONTROLS: usize = 2;
/// How many entries of its history a device is to keep: all that a run makes.
const HISTORY: usize = 100_000;
/// Topics that are published to.
const TOPICS: usize = 4;

/// What a scenario may change about how a run is set up.
#[derive(Debug)]
pub struct Setup {
    /// The Redis.
    pub store: Store,
    /// Put a proxy between each node and Redis.
    pub proxied: bool,
    /// Put a proxy there that can swallow what is published.
    pub deaf: bool,
    /// Where the nodes' wall clocks are read from.
    pub clock: Option<TempDir>,
    /// Further variables of every node.
    pub env: Vec<(&'static str, String)>,
    /// How many devices, where the scale does not fit.
    pub devices: Option<usize>,
    /// How many commands a second, where the scale does not fit.
    pub rate: Option<u32>,
}

/// What every run is given.
#[derive(Debug, Clone)]
pub struct Options {
    /// The hub's program.
    pub program: PathBuf,
    /// Where logs and histories go.
    pub directory: PathBuf,
    /// How large.
    pub scale: Scale,
    /// What chance begins with.
    pub seed: u64,
    /// Whether the hub can be told how many entries of its history a device keeps.
    pub keeps_history: bool,
    /// Keep the history of every run, not only of those where something was broken.
    pub keep: bool,
    /// A fault to pretend.
    pub plant: Option<Plant>,
}

/// A run's parts. Dropping it ends them.
#[derive(Debug)]
pub struct World {
    /// How large it is.
    pub scale: Scale,
    /// Where everything is written down.
    pub journal: Arc<Journal>,
    /// Chance.
    pub rng: Arc<Rng>,
    /// The devices.
    pub fleet: Fleet,
    /// The back ends.
    pub backends: Arc<Backends>,
    /// Edges.
    pub edges: Vec<Node>,
    /// Control nodes.
    pub controls: Vec<Node>,
    /// Between node and Redis, edges first; empty where none were asked for.
    pub proxies: Vec<FaultProxy>,
    /// The same that swallow messages.
    pub deaf: Vec<DeafProxy>,
    /// Where the nodes' wall clocks are read from.
    pub clock: Option<TempDir>,
    /// Redis, after the nodes, so that it goes last.
    pub store: Store,
    /// Topics that are published to.
    pub topics: Vec<String>,
    /// Commands a second.
    pub rate: u32,
    /// How many devices the load is for.
    pub loaded: usize,
    /// How many entries of its history a device keeps.
    pub history: usize,
    /// How often something was broken.
    pub faults: u64,
    /// Up to when the store may have lost what was acknowledged at a durability that says so.
    pub may_lose: Option<u64>,
    /// What the scenario has to say beside the table.
    pub notes: Vec<String>,
}

// === impl Setup ===

impl Setup {
    /// With this Redis, and everything else as usual.
    pub fn new(store: Store) -> Self {
        let (env, clock) = (vec![], None);
        Self { store, proxied: false, deaf: false, clock, env, devices: None, rate: None }
    }
}

// === impl World ===

impl World {
    /// Starts everything, and waits until every device is connected.
    pub async fn start(options: &Options, setup: Setup) -> anyhow::Result<Self> {
        let scale = options.scale.clone();
        let keys = Arc::new(Keys::generate()?);
        let settings = Arc::new(settings(options, &setup, &keys));
        let (journal, rng) = (Arc::new(Journal::new()), Arc::new(Rng::new(options.seed)));
        let (mut proxies, mut deaf) = (vec![], vec![]);
        let mut nodes = vec![];
        for number in 0..EDGES + CONTROLS {
            let url = redis_of(&setup, &mut proxies, &mut deaf).await?;
            let (role, name) = match number {
                0..EDGES => ("edge", format!("e{number}")),
                _ => ("control", format!("c{}", number - EDGES)),
            };
            let mut node = Node::new(&settings, role, &name, &url);
            node.start().await?;
            nodes.push(node);
        }
        let controls = nodes.split_off(EDGES);
        let topics: Vec<_> = (0..TOPICS).map(|number| format!("faults/t/{number}")).collect();
        let around = Surroundings {
            edges: nodes.iter().map(Node::edge_url).collect(),
            journal: Arc::clone(&journal),
            keys: Arc::clone(&keys),
            rng: Arc::clone(&rng),
            topics: topics.clone(),
        };
        let grpc: Vec<_> = controls.iter().map(Node::grpc).collect();
        let backends = Backends::new(&grpc, &keys, Arc::clone(&journal), Arc::clone(&rng))?;
        let devices = setup.devices.unwrap_or(scale.devices);
        let fleet = Fleet::start(Arc::new(around), devices).await?;
        Ok(Self {
            rate: setup.rate.unwrap_or(scale.rate),
            scale,
            journal,
            rng,
            fleet,
            backends: Arc::new(backends),
            edges: nodes,
            controls,
            proxies,
            deaf,
            clock: setup.clock,
            store: setup.store,
            topics,
            loaded: devices,
            history: if options.keeps_history { HISTORY } else { 64 },
            faults: 0,
            may_lose: None,
            notes: vec![],
        })
    }

    /// The devices that the load is for.
    pub fn loaded_devices(&self) -> Vec<Name> {
        let members = &self.fleet.members()[..self.loaded];
        members.iter().map(|member| member.name.clone()).collect()
    }

    /// The proxy between an edge and Redis.
    pub fn edge_proxy(&self, edge: usize) -> &FaultProxy {
        &self.proxies[edge]
    }

    /// The proxy between a control node and Redis.
    pub fn control_proxy(&self, control: usize) -> &FaultProxy {
        &self.proxies[EDGES + control]
    }

    /// The places of those devices of the fleet that are connected to an edge.
    pub fn devices_on(&self, edge: usize) -> Vec<usize> {
        let members = self.fleet.members().iter().enumerate();
        let on = members.filter(|(_, member)| *member.seen.edge.lock() == Some(edge));
        on.map(|(place, _)| place).collect()
    }

    /// Notes that the store lost what it had not replicated: what was acknowledged as volatile until now
    /// may be gone.
    pub fn note_failover(&mut self) {
        self.may_lose = Some(monotonic_us());
        self.journal.add(Event { pos: Some(u64::MAX >> 12), ..Event::new(Kind::Failover) });
    }

    /// What nodes said, where one ended by itself.
    pub fn ended_nodes(&mut self) -> Vec<String> {
        let nodes = self.edges.iter_mut().chain(&mut self.controls);
        let ended = nodes.filter_map(|node| node.has_ended().then(|| (node.id(), node.log())));
        ended.map(|(id, log)| format!("node {id} ended by itself; its log:\n{log}")).collect()
    }
}

fn settings(options: &Options, setup: &Setup, keys: &Arc<Keys>) -> NodeSettings {
    let seconds = |time: Duration| format!("{}s", time.as_secs());
    let mut env = vec![("ROOST_STORE__LEASE".to_owned(), seconds(options.scale.lease))];
    if options.keeps_history {
        env.push(("ROOST_STORE__HISTORY".to_owned(), HISTORY.to_string()));
    }
    env.extend(setup.env.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    NodeSettings {
        program: options.program.clone(),
        directory: options.directory.clone(),
        keys: Arc::clone(keys),
        env,
    }
}

/// Where a further node finds Redis: behind a proxy of its own, where they are asked for.
async fn redis_of(
    setup: &Setup,
    proxies: &mut Vec<FaultProxy>,
    deaf: &mut Vec<DeafProxy>,
) -> anyhow::Result<String> {
    let Store::Single(server) = &setup.store else {
        return Ok(setup.store.url());
    };
    if setup.deaf {
        let proxy = DeafProxy::to_port(server.port()).await?;
        let url = server.url_via(proxy.port());
        deaf.push(proxy);
        return Ok(url);
    }
    if !setup.proxied {
        return Ok(server.url());
    }
    let proxy = FaultProxy::to_port(server.port()).await?;
    let url = server.url_via(proxy.port());
    proxies.push(proxy);
    Ok(url)
}
