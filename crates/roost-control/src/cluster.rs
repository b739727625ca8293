//! `ClusterService`: the hub's own nodes.

use std::sync::Arc;

use roost_proto::control::v1::{self, cluster_service_server::ClusterService};
use tonic::{Request, Response, Status};

use crate::auth::caller;
use crate::{Control, shown};

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
        let mut records = self.0.read(self.0.store.nodes.list()).await?;
        records.sort_by(|a, b| a.info.node.id.cmp(&b.info.node.id));
        Ok(Response::new(v1::ListNodesResponse {
            nodes: records.iter().map(shown::node).collect(),
        }))
    }
}
