//! `roost node`: the hub's nodes, and moving devices between them.

use std::time::Duration;

use clap::{Args, Subcommand};
use roost_client::backend::Backend;
use roost_proto::control::v1 as pb;
use roost_proto::convert::duration_out;
use serde_json::json;

use super::args::{ClientArgs, duration};
use super::client::connect;
use super::output::Output;
use super::views::NodeView;
use super::{Exit, Failure};

/// Between two looks at how many devices a drain has left.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
pub(super) enum NodeCommand {
    /// List the nodes whose lease is live.
    List(NodeListArgs),
    /// Send a node's devices away and let no new ones in. Its process stays.
    Drain(DrainArgs),
    /// Take a drain back: the node lets devices in again.
    Undrain(UndrainArgs),
    /// Have edges with more devices than the mean send the surplus away, so that new nodes fill up.
    Rebalance(RebalanceArgs),
}

#[derive(Debug, Args)]
pub(super) struct NodeListArgs {
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    /// The node, as `roost node list` shows it.
    node: String,
    /// Over how long, at the pace that the hub as a whole allows (`shutdown.shed_rate`); 0s: all at once.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    over: Duration,
    /// Do not wait until the last device has gone.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(super) struct UndrainArgs {
    /// The node, as `roost node list` shows it.
    node: String,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(super) struct RebalanceArgs {
    /// Over how long, at the pace that the hub as a whole allows (`shutdown.shed_rate`); 0s: all at once.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    over: Duration,
    #[command(flatten)]
    client: ClientArgs,
}

// === impl NodeCommand ===

impl NodeCommand {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        match self {
            Self::List(args) => list(args).await,
            Self::Drain(args) => drain(args).await,
            Self::Undrain(args) => undrain(args).await,
            Self::Rebalance(args) => rebalance(args).await,
        }
    }
}

async fn list(args: NodeListArgs) -> Result<Exit, Failure> {
    let output = Output::new(args.client.json);
    let nodes = nodes(&connect(&args.client).await?).await?;
    let nodes: Vec<NodeView> = nodes.into_iter().map(Into::into).collect();
    let heading = ["NODE", "ROLES", "STATE", "ADDRESS", "DEVICES", "VERSION", "STARTED"];
    output.list(&heading, &nodes, NodeView::row)?;
    Ok(Exit::Ok)
}

async fn nodes(backend: &Backend) -> Result<Vec<pb::Node>, Failure> {
    let answer = backend.cluster().list_nodes(pb::ListNodesRequest {}).await?;
    Ok(answer.into_inner().nodes)
}

async fn drain(args: DrainArgs) -> Result<Exit, Failure> {
    let output = Output::new(args.client.json);
    let backend = connect(&args.client).await?;
    let over = Some(duration_out(args.over));
    let request = pb::DrainNodeRequest { node_id: args.node, over };
    let answer = backend.cluster().drain_node(request).await?.into_inner();
    let node = answer.node.unwrap_or_default();
    say_left(output, &node)?;
    if args.no_wait || node.connected_devices == 0 {
        return Ok(Exit::Ok);
    }
    let mut left = node.connected_devices;
    loop {
        tokio::time::sleep(LOOK).await;
        let found = nodes(&backend)
            .await?
            .into_iter()
            .find(|other| other.node_id == node.node_id && other.incarnation == node.incarnation);
        let Some(now) = found else {
            output.show(&json!({ "node_id": node.node_id, "state": "GONE" }), || {
                format!("{} has ended", node.node_id)
            })?;
            return Ok(Exit::Ok);
        };
        match now.state() {
            pb::NodeState::Draining => {}
            pb::NodeState::Lost => {
                let what =
                    "its lease ended before it was drained; its devices connect to other nodes";
                return Err(Failure::failed(format!("{}: {what}", node.node_id)));
            }
            _ => {
                let what = format!("{}: the drain was taken back", node.node_id);
                return Err(Failure::failed(what));
            }
        }
        if now.connected_devices != left {
            left = now.connected_devices;
            say_left(output, &now)?;
        }
        if left == 0 {
            return Ok(Exit::Ok);
        }
    }
}

fn say_left(output: Output, node: &pb::Node) -> Result<(), Failure> {
    output.show(&NodeView::from(node.clone()), || match node.connected_devices {
        0 => format!(
            "{id} is drained: no device is left, and none is let in. It stays so until its process ends, \
             or `roost node undrain {id}`",
            id = node.node_id
        ),
        left => format!("{} drains: {left} devices are left", node.node_id),
    })?;
    Ok(())
}

async fn undrain(args: UndrainArgs) -> Result<Exit, Failure> {
    let output = Output::new(args.client.json);
    let backend = connect(&args.client).await?;
    let request = pb::UndrainNodeRequest { node_id: args.node };
    let answer = backend.cluster().undrain_node(request).await?.into_inner();
    let node = answer.node.unwrap_or_default();
    output.show(&NodeView::from(node.clone()), || {
        format!("{} lets devices in again", node.node_id)
    })?;
    Ok(Exit::Ok)
}

async fn rebalance(args: RebalanceArgs) -> Result<Exit, Failure> {
    let output = Output::new(args.client.json);
    let backend = connect(&args.client).await?;
    let request = pb::RebalanceNodesRequest { over: Some(duration_out(args.over)) };
    let answer = backend.cluster().rebalance_nodes(request).await?.into_inner();
    if output.json {
        for node in answer.nodes {
            output.json_line(&json!({
                "node_id": node.node_id,
                "connected_devices": node.connected_devices,
                "surplus": node.surplus,
            }))?;
        }
        return Ok(Exit::Ok);
    }
    let row = |node: &pb::NodeSurplus| {
        vec![node.node_id.clone(), node.connected_devices.to_string(), node.surplus.to_string()]
    };
    let rows: Vec<Vec<String>> = answer.nodes.iter().map(row).collect();
    output.list(&["NODE", "DEVICES", "SENDS AWAY"], &rows, Clone::clone)?;
    Ok(Exit::Ok)
}
