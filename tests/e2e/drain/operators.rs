//! What operators do by the command line: drain a node and take that back, spread devices over nodes, read
//! what happened to a device.

use std::time::Duration;

use roost_proto::control::v1::Presence;
use roost_testkit::backend::command;
use roost_testkit::device::TestDevice;
use roost_testkit::eventually;
use roost_testkit::process::{TwoEdges, run_roost};
use roost_wire::device::ToDevice;
use serde_json::Value;
use tokio::task::JoinSet;

use super::fleet::Load;
use super::row::Row;

const PATIENCE: Duration = Duration::from_secs(120);

/// Runs `roost … --json`; gives its lines.
fn ask(hub: &TwoEdges, args: &[&str]) -> Vec<Value> {
    let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
    let output = run_roost(&hub.keys, &hub.target().grpc, &args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_drained_stays_and_is_taken_back() {
    let mut hub = TwoEdges::start(&[]).await;
    let target = hub.target();
    let backend = target.backend().await;
    let mut devices = vec![];
    for number in 0..20 {
        devices.push(target.on_a(&format!("d-{number}")).await);
    }
    let mut ends = JoinSet::new();
    for device in devices {
        ends.spawn(async move {
            let (said, closed) = device.end().await;
            let goaway = |said: &ToDevice| matches!(said, ToDevice::Goaway { .. });
            (closed.code, said.iter().any(goaway))
        });
    }
    let said = tokio::task::block_in_place(|| ask(&hub, &["node", "drain", "a", "--over", "1s"]));
    assert_eq!(said[0]["state"], "DRAINING");
    assert_eq!(said.last().unwrap()["connected_devices"], 0);
    for (code, goaway) in ends.join_all().await {
        assert_eq!((code, goaway), (1012, true));
    }
    // It lives, is not ready, and lets nobody in.
    assert_eq!(hub.a.admin().readiness().await.code, 503);
    assert_eq!(hub.a.admin().get("/livez").await.0, 200);
    let refused = TestDevice::open(target.a(), &target.keys.token("d-0"), &[]).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(backend.devices(Presence::Online).await, []);
    // What comes meanwhile waits for the device.
    backend.send(command("d-0", "do")).await;
    let mut device = target.on_b("d-0").await;
    let got = device.command().await;
    device.succeed(&got, None).await;

    let said = ask(&hub, &["node", "undrain", "a"]);
    assert_eq!(said[0]["state"], "READY");
    let ready = async || (hub.a.admin().readiness().await.code == 200).then_some(());
    eventually("it is ready again", PATIENCE, ready).await;
    target.on_a("d-1").await;
    // A drained node ends as any other.
    ask(&hub, &["node", "drain", "b", "--over", "0s", "--no-wait"]);
    assert_eq!(hub.b.terminate().await.code(), Some(0));
    let output = run_roost(&hub.keys, &target.grpc, &["node", "drain", "nobody"]);
    assert_eq!(output.status.code(), Some(1));
    let output = run_roost(&hub.keys, &target.grpc, &["node", "drain", "c"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("it is no edge"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_fills_up() {
    let mut row = Row::start_with(&["a", "b"], Duration::from_secs(5)).await;
    let load = Load::start(&row, 90).await;
    row.put_back("c");
    assert_eq!(row.balancer.devices(), [("a", 45), ("b", 45), ("c", 0)].map(named));
    let args = ["node", "rebalance", "--over", "2s", "--json"];
    let shown = async || {
        // What the nodes say of themselves is as old as a heartbeat.
        let output = run_roost(&row.keys, &row.grpc(), &["node", "list", "--json"]);
        let text = String::from_utf8(output.stdout).unwrap();
        let nodes = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let count = |node: Value| node["connected_devices"].as_u64().unwrap();
        let counts: Vec<u64> = nodes.map(count).collect();
        (counts == [45, 45, 0, 0]).then_some(())
    };
    eventually("the nodes say how many devices they have", PATIENCE, shown).await;
    let output = run_roost(&row.keys, &row.grpc(), &args);
    assert!(output.status.success(), "{output:?}");
    let even = async || {
        let counts = row.balancer.devices();
        counts.iter().all(|(_, count)| *count == 30).then_some(())
    };
    eventually("each has a third of the devices", PATIENCE, even).await;
    load.all_back().await;
    let ends = load.all_ends();
    assert_eq!(ends.len(), 30, "nobody moved for nothing");
    assert!(ends.iter().all(|end| end.code == 1012));
    let summary = load.finish().await;
    assert_eq!((summary.lost, summary.twice), (vec![], vec![]));
}

fn named((edge, count): (&str, usize)) -> (String, usize) {
    (edge.to_owned(), count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_devices_history_is_told_from_top_to_bottom() {
    let hub = TwoEdges::start(&[]).await;
    let target = hub.target();
    let backend = target.backend().await;
    let mut device = target.on_a("d-1").await;
    backend.send(command("d-1", "do")).await;
    let got = device.command().await;
    device.succeed(&got, None).await;
    let refused = device.publish("$sys/x", roost_types::Payload::json("1".into())).await;
    assert_eq!(refused.unwrap_err().code, "PERMISSION_DENIED");
    let noted = async || {
        let entries = ask(&hub, &["device", "history", "d-1"]);
        entries.iter().any(|entry| entry["refused"]["about"] == "$sys/x").then_some(())
    };
    eventually("the refusal is noted", PATIENCE, noted).await;
    let _newer = target.on_b("d-1").await;
    let (_, closed) = device.end().await;
    assert_eq!(closed.code, 4409);
    let entries = ask(&hub, &["device", "history", "d-1"]);
    let kind = |entry: &Value| {
        let keys = entry.as_object().unwrap().keys();
        keys.filter(|key| *key != "time").cloned().collect::<Vec<_>>().join("+")
    };
    let kinds: Vec<String> = entries.iter().map(kind).collect();
    assert_eq!((&*kinds[0], &**kinds.last().unwrap()), ("connected", "taken_over"), "{kinds:?}");
    assert!(kinds.iter().any(|kind| kind == "command"), "{kinds:?}");
    assert_eq!(entries[0]["connected"]["node_id"], "a");
    let output = run_roost(&hub.keys, &target.grpc, &["device", "history", "d-1"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let last = text.lines().last().unwrap();
    assert!(last.contains("TAKEN_OVER") && last.contains("on b from "), "{text}");
}
