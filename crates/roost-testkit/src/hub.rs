//! Hubs in this process: the same nodes that `roost serve` runs, on free ports, with keys of their
//! own. Nodes that must die or stop are in `process.rs`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use roost::config::{Config, RedisUrl, RoleChoice};
use roost::hub::{Hub, RunningHub};

use crate::admin::Admin;
use crate::keys::Keys;
use crate::redis::RedisServer;
use crate::target::Target;

/// A hub of one node or several.
#[derive(Debug)]
pub struct TestHub {
    /// Before Redis, so that they go first.
    nodes: Vec<RunningHub>,
    keys: Arc<Keys>,
    redis: Option<RedisServer>,
}

// === impl TestHub ===

impl TestHub {
    /// One node that keeps everything in its memory.
    pub async fn in_memory() -> Self {
        let mut hub = Self { nodes: vec![], keys: Arc::new(Keys::generate()), redis: None };
        hub.add(RoleChoice::All).await;
        hub
    }

    /// One node on a Redis of its own.
    pub async fn on_redis() -> Self {
        let mut hub = Self::with_redis().await;
        hub.add(RoleChoice::All).await;
        hub
    }

    /// Two edges and a control node on a Redis of their own.
    pub async fn two_edges() -> Self {
        let mut hub = Self::with_redis().await;
        for role in [RoleChoice::Edge, RoleChoice::Edge, RoleChoice::Control] {
            hub.add(role).await;
        }
        hub
    }

    async fn with_redis() -> Self {
        let redis = RedisServer::start().await.unwrap();
        Self { nodes: vec![], keys: Arc::new(Keys::generate()), redis: Some(redis) }
    }

    /// Starts one more node.
    pub async fn add(&mut self, role: RoleChoice) {
        let config = self.config(role);
        self.nodes.push(Hub::start(config).await.unwrap());
    }

    fn config(&self, role: RoleChoice) -> Config {
        let mut config = Config::default();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        config.node.role = role;
        (config.edge.addr, config.grpc.addr, config.admin.addr) = (any, any, any);
        config.edge.workers = 2;
        config.redis.url = self.redis.as_ref().map(|redis| RedisUrl(redis.url()));
        config.auth.token_key_file = Some(self.keys.token_key_file());
        config.auth.api_key_file = Some(self.keys.api_key_file());
        config.shutdown.drain = Duration::from_secs(1);
        config
    }

    /// Where clients find it.
    pub fn target(&self) -> Target {
        let edges = self.nodes.iter().filter_map(|node| node.addresses().edge);
        let mut controls = self.nodes.iter().filter_map(|node| node.addresses().grpc);
        Target {
            edges: edges.map(|address| format!("ws://{address}")).collect(),
            grpc: controls.next().expect("each hub here has a control node").to_string(),
            keys: Arc::clone(&self.keys),
        }
    }

    /// Its Redis, to be broken.
    pub fn redis(&mut self) -> &mut RedisServer {
        self.redis.as_mut().expect("this hub has a Redis")
    }

    /// The nodes, in the order in which they were started.
    pub fn nodes(&self) -> &[RunningHub] {
        &self.nodes
    }

    /// The admin port of a node.
    pub fn admin(&self, node: usize) -> Admin {
        Admin(self.nodes[node].addresses().admin)
    }

    /// Ends every node in order.
    pub async fn shutdown(self) {
        for node in self.nodes {
            node.shutdown().await;
        }
    }
}
