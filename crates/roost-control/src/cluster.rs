//! `ClusterService`: the hub's own nodes, and moving devices between them. How an edge sends its devices
//! away is in `roost-edge`; nodes as callers see them are in `shown.rs`.

use std::sync::Arc;
use std::time::Duration;

use roost_cluster::{NodeEvent, NodeRecord, NodeRef};
use roost_proto::control::v1::{self, cluster_service_server::ClusterService};
use roost_proto::convert::{Violation, duration, node_id};
use roost_types::{ErrorCode, NodeId};
use tokio::time::{Instant, sleep};
use tonic::{Request, Response, Status};

use crate::auth::caller;
use crate::refusal::{Refusal, all_of};
use crate::{Control, shown};

/// Over how long devices are sent away where the caller does not say.
const OVER: Duration = Duration::from_secs(5 * 60);
/// Over how long at the most.
const MAX_OVER: Duration = Duration::from_secs(24 * 3600);
/// How long a node may take to say that it does as it was told.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks at what it says.
const LOOK: Duration = Duration::from_millis(50);
/// After so many looks it is told again, since what nodes tell each other may be lost.
const TELL_AGAIN: u32 = 20;

/// The service, for any number of callers.
#[derive(Debug, Clone)]
pub(crate) struct Cluster(pub(crate) Arc<Control>);

#[tonic::async_trait]
impl ClusterService for Cluster {
    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        caller(&request)?;
        let records = self.nodes().await?;
        Ok(Response::new(v1::ListNodesResponse {
            nodes: records.iter().map(shown::node).collect(),
        }))
    }

    async fn drain_node(
        &self,
        request: Request<v1::DrainNodeRequest>,
    ) -> Result<Response<v1::DrainNodeResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let (id, over, ()) =
            all_of((node_id(&request.node_id), over(request.over.as_ref()), Ok(())))?;
        let node = self.edge(&id).await?;
        tracing::info!(by = %caller.name, %node, ?over, "a node is to be drained");
        let record = self.tell(&node, &NodeEvent::DrainNode { over }, true).await?;
        Ok(Response::new(v1::DrainNodeResponse { node: Some(shown::node(&record)) }))
    }

    async fn undrain_node(
        &self,
        request: Request<v1::UndrainNodeRequest>,
    ) -> Result<Response<v1::UndrainNodeResponse>, Status> {
        let caller = caller(&request)?;
        let id = node_id(&request.get_ref().node_id).map_err(Refusal::from)?;
        let node = self.edge(&id).await?;
        tracing::info!(by = %caller.name, %node, "a drain is to be taken back");
        let record = self.tell(&node, &NodeEvent::UndrainNode, false).await?;
        Ok(Response::new(v1::UndrainNodeResponse { node: Some(shown::node(&record)) }))
    }

    async fn rebalance_nodes(
        &self,
        request: Request<v1::RebalanceNodesRequest>,
    ) -> Result<Response<v1::RebalanceNodesResponse>, Status> {
        let caller = caller(&request)?;
        let over = over(request.get_ref().over.as_ref()).map_err(Refusal::from)?;
        let records = self.nodes().await?;
        let ready =
            |record: &&NodeRecord| record.live && record.info.roles.edge && !record.info.draining;
        let edges: Vec<&NodeRecord> = records.iter().filter(ready).collect();
        let surplus = surplus(&edges.iter().map(|it| it.info.devices).collect::<Vec<_>>());
        tracing::info!(by = %caller.name, ?surplus, ?over, "devices are to be spread over the edges");
        let mut nodes = Vec::with_capacity(edges.len());
        for (record, surplus) in edges.into_iter().zip(surplus) {
            let node = &record.info.node;
            if surplus > 0 {
                let event = NodeEvent::Rebalance { surplus, over };
                self.0.change(self.0.store.bus.send(node, &event)).await?;
            }
            nodes.push(v1::NodeSurplus {
                node_id: node.id.to_string(),
                connected_devices: record.info.devices,
                surplus,
            });
        }
        Ok(Response::new(v1::RebalanceNodesResponse { nodes }))
    }
}

// === impl Cluster ===

impl Cluster {
    /// Every node, in the order of their ids.
    async fn nodes(&self) -> Result<Vec<NodeRecord>, Refusal> {
        let mut records = self.0.read(self.0.store.nodes.list()).await?;
        records.sort_by(|a, b| a.info.node.id.cmp(&b.info.node.id));
        Ok(records)
    }

    async fn edge(&self, id: &NodeId) -> Result<NodeRef, Refusal> {
        let records = self.nodes().await?;
        let found = records.into_iter().find(|record| record.live && record.info.node.id == *id);
        match found {
            Some(record) if record.info.roles.edge => Ok(record.info.node),
            Some(_) => {
                let what = format!("node {id} has no devices: it is no edge");
                Err(Refusal::new(ErrorCode::FieldInvalid, what).at("node_id"))
            }
            None => {
                let what = format!("no node {id} lives; ListNodes shows those that do");
                Err(Refusal::new(ErrorCode::NotFound, what))
            }
        }
    }

    /// Tells a node to drain, or not to, until it says of itself that it does.
    async fn tell(
        &self,
        node: &NodeRef,
        event: &NodeEvent,
        draining: bool,
    ) -> Result<NodeRecord, Refusal> {
        let until = Instant::now() + CONFIRMED_WITHIN;
        for look in 0.. {
            if look % TELL_AGAIN == 0 {
                self.0.change(self.0.store.bus.send(node, event)).await?;
            }
            let records = self.nodes().await?;
            let found = records.into_iter().find(|record| record.info.node == *node);
            match found {
                // Before it could hear of it, a node may say the same for another reason.
                Some(record) if record.info.draining == draining && look > 0 => return Ok(record),
                Some(_) if Instant::now() < until => sleep(LOOK).await,
                Some(_) => break,
                None => {
                    let what = format!("node {node} ended before it could do anything");
                    return Err(Refusal::new(ErrorCode::NotFound, what));
                }
            }
        }
        let what = format!("node {node} was told, and did not say in time that it does it; repeat");
        Err(Refusal::new(ErrorCode::Unavailable, what))
    }
}

fn over(given: Option<&prost_types::Duration>) -> Result<Duration, Violation> {
    match given {
        None => Ok(OVER),
        Some(prost_types::Duration { seconds: 0, nanos: 0 }) => Ok(Duration::ZERO),
        Some(given) => duration(given, MAX_OVER, "over"),
    }
}

/// How many devices each edge has above the mean, rounded up so that nobody is moved for nothing.
fn surplus(devices: &[u64]) -> Vec<u64> {
    let all: u64 = devices.iter().sum();
    let mean = all.div_ceil(devices.len().max(1) as u64);
    devices.iter().map(|count| count.saturating_sub(mean)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_above_the_mean_moves() {
        assert_eq!(surplus(&[100, 100, 0]), [33, 33, 0]);
        assert_eq!(surplus(&[10, 10, 10]), [0, 0, 0]);
        assert_eq!(surplus(&[11, 10, 10]), [0, 0, 0]);
        assert_eq!(surplus(&[7]), [0]);
        assert_eq!(surplus(&[]), Vec::<u64>::new());
    }

    #[test]
    fn a_time_may_be_left_out_or_none() {
        let span = |seconds, nanos| prost_types::Duration { seconds, nanos };
        assert_eq!(over(None), Ok(OVER));
        assert_eq!(over(Some(&span(0, 0))), Ok(Duration::ZERO));
        assert_eq!(over(Some(&span(60, 0))), Ok(Duration::from_secs(60)));
        assert_eq!(over(Some(&span(25 * 3600, 0))).unwrap_err().field, "over");
        assert_eq!(over(Some(&span(-1, 0))).unwrap_err().field, "over");
    }
}
