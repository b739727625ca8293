//! A hub node put together out of its parts: store, edge, control, admin; how it starts, and how it
//! goes away. What `serve`, `demo` and tests start is the same thing.

mod health;
mod running;
mod start;

use std::net::SocketAddr;
use std::sync::Arc;

use roost_cluster::{MemoryHub, NodeRef, StoreError};
use roost_telemetry::LogControl;
use roost_telemetry::trace::TracingError;

use crate::config::{Config, Problems};

pub use roost_edge::Phase;
pub use running::RunningHub;

/// Starts hub nodes.
#[derive(Debug)]
pub struct Hub;

/// Where a node listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Devices without TLS; `None` without the edge role, or where they must use TLS.
    pub edge: Option<SocketAddr>,
    /// Devices by TLS; `None` without the edge role, or a certificate.
    pub edge_tls: Option<SocketAddr>,
    /// Back ends; `None` without the control role.
    pub grpc: Option<SocketAddr>,
    /// Probes and metrics.
    pub admin: SocketAddr,
}

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A key file of the configuration cannot be read.
    #[error(transparent)]
    Config(#[from] Problems),
    /// A port cannot be had.
    #[error("{key}: cannot listen on {addr}: {source}")]
    Listen {
        /// Which key of the configuration says so.
        key: &'static str,
        /// Where.
        addr: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The store cannot be used.
    #[error("redis.url: {0}")]
    Store(roost_redis::StartError),
    /// The store would not have this node.
    #[error("node.id: node {node} cannot join: {source}")]
    Join {
        /// Who.
        node: NodeRef,
        /// Why not; `Fenced` where another process has this name.
        source: StoreError,
    },
    /// Spans cannot be exported.
    #[error("tracing.otlp_endpoint: {0}")]
    Tracing(#[from] TracingError),
    /// The edge's threads cannot be started.
    #[error("cannot start the edge: {0}")]
    Edge(std::io::Error),
}

// === impl Hub ===

impl Hub {
    /// Starts a node on the current runtime (multi-threaded, please) and returns once it serves.
    pub async fn start(config: Config) -> Result<RunningHub, StartError> {
        start::start(config, None, None).await
    }

    /// The same where this process logs by `log`: the node's admin port can change how much.
    pub async fn start_logging(config: Config, log: LogControl) -> Result<RunningHub, StartError> {
        start::start(config, None, Some(log)).await
    }

    /// The same on an embedded store that is shared with other nodes of this process, whatever
    /// `redis.url` says: for tests of several nodes without Redis.
    pub async fn start_on(
        config: Config,
        memory: Arc<MemoryHub>,
    ) -> Result<RunningHub, StartError> {
        start::start(config, Some(memory), None).await
    }
}
