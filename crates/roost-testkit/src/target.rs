//! Where clients find a hub, however it runs: what a scenario needs to be run on any of them.

use std::sync::Arc;

use crate::backend::TestBackend;
use crate::device::TestDevice;
use crate::fleet::Fleet;
use crate::keys::Keys;

/// The way into a hub.
#[derive(Debug, Clone)]
pub struct Target {
    /// `ws://host:port` of each edge, A and B first; at least one.
    pub edges: Vec<String>,
    /// `host:port` of a control node.
    pub grpc: String,
    /// The keys that it takes.
    pub keys: Arc<Keys>,
}

// === impl Target ===

impl Target {
    /// A connected back end.
    pub async fn backend(&self) -> TestBackend {
        TestBackend::connect(&self.grpc, self.keys.api_key()).await
    }

    /// Edge A.
    pub fn a(&self) -> &str {
        &self.edges[0]
    }

    /// Edge B, or A again where there is one edge: a scenario for two runs on one too.
    pub fn b(&self) -> &str {
        self.edges.get(1).unwrap_or(&self.edges[0])
    }

    /// A device, connected to edge A.
    pub async fn on_a(&self, name: &str) -> TestDevice {
        TestDevice::connect(self.a(), &self.keys.token(name)).await
    }

    /// A device, connected to edge B.
    pub async fn on_b(&self, name: &str) -> TestDevice {
        TestDevice::connect(self.b(), &self.keys.token(name)).await
    }

    /// Devices that answer by themselves, on all edges in turn.
    pub async fn fleet(&self, prefix: &str, count: usize) -> Fleet {
        Fleet::connect(&self.edges, &self.keys, prefix, count).await
    }
}
