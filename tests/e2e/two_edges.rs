//! Two `roost serve --role edge` and one `--role control` around a `redis-server`: what newcomers do
//! by hand, as processes. The same scenarios run in this process in `topologies.rs`.

use roost_testkit::process::{TwoEdges, run_roost};
use serde_json::Value;

use crate::topologies;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_on_a_answers_a_command_that_came_through_control() {
    let hub = TwoEdges::start(&[]).await;
    topologies::a_command_is_answered(hub.target()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_messages_from_a_reach_a_and_b_and_grpc_once() {
    let hub = TwoEdges::start(&[]).await;
    topologies::a_thousand_messages_reach_every_subscriber_once(hub.target()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_connection_on_b_leaves_one_session_on_b() {
    let hub = TwoEdges::start(&[]).await;
    let target = hub.target();
    let first = target.on_a("twice").await;
    let second = target.on_b("twice").await;
    let (_, closed) = first.end().await;
    assert_eq!(closed.code, 4409);

    let output = run_roost(&hub.keys, &target.grpc, &["device", "list", "--online", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let listed = String::from_utf8(output.stdout).unwrap();
    let devices: Vec<Value> =
        listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(devices.len(), 1, "{listed}");
    assert_eq!(devices[0]["device_id"], "twice");
    assert_eq!(devices[0]["session"]["node_id"], "b");
    assert_eq!(devices[0]["session"]["session_id"], second.welcome.session_id.to_string());
}
