//! One node's connection to Redis put together: the link, the bus, the watches, and the tasks that
//! keep them going. What each seam does is in the module of its name.

use std::sync::Arc;
use std::time::Duration;

use roost_cluster::{HubClock, NodeRef, Store, StoreSettings};
use roost_types::{DeviceKey, Partition};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::bus::BusNode;
use crate::config::RedisConfig;
use crate::error::StartError;
use crate::keys::dev;
use crate::link::Link;
use crate::nodes::NodesView;
use crate::presence::{self, WatchRequest};
use crate::script::Call;

/// How many watches may wait to be set up.
const WATCH_REQUESTS: usize = 64;

/// How many partitions one pipeline works on in what concerns all: so that it keeps neither Redis nor
/// the commands behind it waiting for long.
pub(crate) const PARTITIONS_AT_ONCE: usize = 32;

/// A node's seams on Redis: one server, one that sentinels name, or a cluster.
#[derive(Debug)]
pub struct RedisStore {
    pub(crate) link: Arc<Link>,
    pub(crate) settings: StoreSettings,
    pub(crate) view: NodesView,
    pub(crate) bus: Arc<BusNode>,
    pub(crate) watches: mpsc::Sender<WatchRequest>,
}

/// Owns the tasks behind a [`Store`]; dropping it stops them at once.
#[derive(Debug)]
pub struct RedisRuntime {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

// === impl RedisStore ===

impl RedisStore {
    /// Connects a node. An error says why this Redis cannot be used; an outage later on is waited out.
    pub async fn connect(
        config: RedisConfig,
        settings: StoreSettings,
        node: NodeRef,
    ) -> Result<(Store, RedisRuntime), StartError> {
        let clock = Arc::new(HubClock::new());
        let link = Arc::new(Link::connect(config, Arc::clone(&clock)).await?);
        let (bus, bus_task) = BusNode::open(Arc::clone(&link), node).await?;
        let (watches, requests) = mpsc::channel(WATCH_REQUESTS);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (supervised, ended) = (Arc::clone(&link), stop.clone());
        tasks.spawn(async move { supervised.supervise(ended).await });
        tasks.spawn(bus_task.run(stop.clone()));
        tasks.spawn(presence::run(Arc::clone(&link), Arc::clone(&bus), requests, stop.clone()));
        let (health, durability) = (link.health(), link.durability());
        let handle = Arc::new(Self { link, settings, view: NodesView::default(), bus, watches });
        let store = Store {
            sessions: Arc::clone(&handle) as _,
            mailboxes: Arc::clone(&handle) as _,
            bus: Arc::clone(&handle) as _,
            nodes: handle,
            clock,
            health,
            durability,
        };
        Ok((store, RedisRuntime { stop, tasks }))
    }

    /// A call of a script on a device: key, base, `not_after` and the device are filled in.
    pub(crate) fn call(&self, device: &DeviceKey) -> Call {
        let base = self.link.keys.base(Partition::of(device));
        let key = self.link.keys.session(device);
        Call::new(key, &base, self.link.not_after()).arg(dev(device))
    }
}

// === impl RedisRuntime ===

impl RedisRuntime {
    /// Stops the tasks and waits for their end. Operations fail with `NotSent` from now on.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// A duration in whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
