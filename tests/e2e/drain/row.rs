//! Three edges and a control node around a Redis, each a process, and what stands in for their load
//! balancer: devices go to the edge that has the fewest of them among those that take any.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use roost_testkit::backend::TestBackend;
use roost_testkit::keys::Keys;
use roost_testkit::process::{HubProcess, NodeOptions};
use roost_testkit::redis::RedisServer;

/// How long a node may take to end.
pub(super) const GRACE: Duration = Duration::from_secs(60);
/// How long a node counts as alive after it was killed.
const LEASE: &str = "8s";

/// The hub.
pub(super) struct Row {
    edges: Vec<(String, HubProcess)>,
    control: HubProcess,
    redis: RedisServer,
    pub(super) keys: Arc<Keys>,
    pub(super) balancer: Arc<Balancer>,
    over: Duration,
}

/// Who sends devices to edges.
#[derive(Debug, Default)]
pub(super) struct Balancer(Mutex<Vec<Backend>>);

#[derive(Debug)]
struct Backend {
    edge: String,
    url: String,
    devices: usize,
}

/// A device at an edge; gone when this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    balancer: Arc<Balancer>,
    pub(super) edge: String,
    pub(super) url: String,
}

// === impl Row ===

impl Row {
    /// Starts the edges `a`, `b` and `c`, which send their devices away over so long.
    pub(super) async fn start(over: Duration) -> Self {
        let mut row = Self::start_with(&["a", "b", "c"], over).await;
        row.over = over;
        row
    }

    /// Starts these edges.
    pub(super) async fn start_with(edges: &[&str], over: Duration) -> Self {
        let redis = RedisServer::start().await.unwrap();
        let keys = Arc::new(Keys::generate());
        let control = node(&keys, &redis, "control", "control", over);
        let balancer = Arc::default();
        let mut row = Self { edges: vec![], control, redis, keys, balancer, over };
        for name in edges {
            row.put_back(name);
        }
        row
    }

    /// Starts an edge, and devices find it.
    pub(super) fn put_back(&mut self, name: &str) {
        let (keys, redis, over) = (&self.keys, &self.redis, self.over);
        // It waits for the node's first words, in the case of a killed one until its lease is over.
        let edge = tokio::task::block_in_place(|| node(keys, redis, "edge", name, over));
        self.balancer.add(name, &edge.edge());
        self.edges.push((name.to_owned(), edge));
    }

    /// An edge that is to end, and how many devices it has: they no longer find it.
    pub(super) fn take_out(&mut self, name: &str) -> (HubProcess, usize) {
        let devices = self.balancer.remove(name);
        let at = self.edges.iter().position(|(known, _)| known == name).unwrap();
        (self.edges.remove(at).1, devices)
    }

    /// `host:port` of the control node.
    pub(super) fn grpc(&self) -> String {
        self.control.grpc()
    }

    pub(super) async fn backend(&self) -> TestBackend {
        TestBackend::connect(&self.grpc(), self.keys.api_key()).await
    }
}

fn node(keys: &Keys, redis: &RedisServer, role: &str, id: &str, over: Duration) -> HubProcess {
    let over = format!("{}ms", over.as_millis());
    let grace = format!("{}s", GRACE.as_secs());
    let env = [
        ("ROOST_SHUTDOWN__DRAIN", &*over),
        ("ROOST_SHUTDOWN__GRACE", &*grace),
        ("ROOST_STORE__LEASE", LEASE),
    ];
    let redis = Some(redis.url());
    HubProcess::start(keys, &NodeOptions { role, id, redis, env: &env, flags: &[] })
}

// === impl Balancer ===

impl Balancer {
    fn add(&self, edge: &str, url: &str) {
        let backend = Backend { edge: edge.to_owned(), url: url.to_owned(), devices: 0 };
        self.0.lock().unwrap().push(backend);
    }

    fn remove(&self, edge: &str) -> usize {
        let mut backends = self.0.lock().unwrap();
        let at = backends.iter().position(|backend| backend.edge == edge).unwrap();
        backends.remove(at).devices
    }

    /// How many devices each edge has.
    pub(super) fn devices(&self) -> Vec<(String, usize)> {
        let backends = self.0.lock().unwrap();
        backends.iter().map(|backend| (backend.edge.clone(), backend.devices)).collect()
    }

    /// Where the next device is to go.
    pub(super) fn seat(self: &Arc<Self>) -> Seat {
        let mut backends = self.0.lock().unwrap();
        let least = backends.iter_mut().min_by_key(|backend| backend.devices);
        let least = least.expect("some edge takes devices");
        least.devices += 1;
        let (edge, url) = (least.edge.clone(), least.url.clone());
        Seat { balancer: Arc::clone(self), edge, url }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut backends = self.balancer.0.lock().unwrap();
        if let Some(backend) = backends.iter_mut().find(|backend| backend.url == self.url) {
            backend.devices -= 1;
        }
    }
}
