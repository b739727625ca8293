//! What the hub promises, shown end to end: real sockets, real Redis servers, real processes. A module
//! for each thing shown; `scripts/test.sh --list` names them, and `--only NAME` runs one.
#![allow(clippy::unwrap_used, reason = "a failed set-up step should fail the test")]
#![allow(clippy::float_cmp, reason = "what is counted is whole")]

/// Runs scenarios, functions from a [`roost_testkit::target::Target`], on one node in memory, one
/// node on Redis, and two edges with a control node on Redis.
macro_rules! on_every_topology {
    ($($scenario:ident),* $(,)?) => {
        on_every_topology!(@ one_node_in_memory, in_memory, $($scenario)*);
        on_every_topology!(@ one_node_on_redis, on_redis, $($scenario)*);
        on_every_topology!(@ two_edges_and_a_control_on_redis, two_edges, $($scenario)*);
    };
    (@ $name:ident, $start:ident, $($scenario:ident)*) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $scenario() {
                    let hub = roost_testkit::hub::TestHub::$start().await;
                    super::$scenario(hub.target()).await;
                    hub.shutdown().await;
                }
            )*
        }
    };
}
pub(crate) use on_every_topology;

mod admission;
mod cli;
mod commands;
mod drain;
mod edge_killed;
mod hostile;
mod mailbox;
mod metrics;
mod payloads;
mod redis_outage;
mod shutdown;
mod tls;
mod topologies;
mod tracing;
mod two_edges;
