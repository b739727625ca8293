//! The command line as scripts use it: exit codes, `--json`, and mistakes named where they are. Its
//! layout for people is tested in the `roost` crate.

use std::process::Output;
use std::sync::Arc;

use roost_testkit::fleet::Fleet;
use roost_testkit::keys::Keys;
use roost_testkit::ports::free_port;
use roost_testkit::process::{HubProcess, NodeOptions, roost, run_roost};
use serde_json::Value;

/// A hub, one device on it that answers, and the command line.
struct Scene {
    hub: HubProcess,
    keys: Arc<Keys>,
    _fleet: Fleet,
}

// === impl Scene ===

impl Scene {
    async fn start() -> Self {
        let keys = Arc::new(Keys::generate());
        let hub = HubProcess::start(&keys, &NodeOptions::default());
        let fleet = hub.target(&keys).fleet("thermo", 1).await;
        Self { hub, keys, _fleet: fleet }
    }

    fn run(&self, args: &[&str]) -> (i32, String) {
        told(&run_roost(&self.keys, &self.hub.grpc(), args))
    }

    /// The exit code, and the only line as JSON.
    fn json(&self, args: &[&str]) -> (i32, Value) {
        let output = run_roost(&self.keys, &self.hub.grpc(), args);
        let value = serde_json::from_slice(&output.stdout);
        let code = output.status.code().unwrap();
        (code, value.unwrap_or_else(|error| panic!("{error}: {output:?}")))
    }
}

/// The exit code, and all that was said.
fn told(output: &Output) -> (i32, String) {
    let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_sent_and_its_end_is_the_exit_code() {
    let scene = Scene::start().await;
    let (code, sent) = scene.json(&[
        "command",
        "send",
        "thermo-0",
        "echo",
        r#"{"a": 1.0}"#,
        "--json",
        "--id",
        "c1",
    ]);
    assert_eq!((code, &sent["state"]), (0, &"SUCCEEDED".into()), "{sent}");
    assert_eq!(sent["result"]["payload"].to_string(), r#"{"a":1.0}"#);
    let (code, got) = scene.json(&["command", "get", "thermo-0", "c1", "--json"]);
    assert_eq!((code, &got["transitions"][0]["state"]), (0, &"QUEUED".into()), "{got}");
    let (code, listed) = scene.json(&["command", "list", "thermo-0", "--json"]);
    assert_eq!((code, &listed["command_id"]), (0, &"c1".into()), "{listed}");

    // 3: accepted, and nobody answers in time; it waits on.
    let wait =
        ["command", "send", "away", "echo", "--json", "--id", "c2", "--wait-timeout", "200ms"];
    let (code, sent) = scene.json(&wait);
    assert_eq!((code, &sent["state"]), (3, &"QUEUED".into()), "{sent}");
    // The text form says how to find it later.
    let again = ["command", "send", "away", "echo", "--id", "c2", "--wait-timeout", "200ms"];
    let (code, text) = scene.run(&again);
    assert!(code == 3 && text.contains("roost command get away c2"), "{text}");
    let (code, cancelled) = scene.json(&["command", "cancel", "away", "c2", "--json"]);
    assert_eq!((code, &cancelled["outcome"]), (0, &"CANCELLED".into()), "{cancelled}");
    // 1: it ended in another way.
    let (code, _) = scene.run(&["command", "cancel", "thermo-0", "c1"]);
    assert_eq!(code, 1);
    let short =
        ["command", "send", "away", "echo", "--ttl", "1s", "--wait-timeout", "60s", "--json"];
    let (code, expired) = scene.json(&short);
    assert_eq!((code, &expired["state"]), (1, &"EXPIRED".into()), "{expired}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_and_nodes_are_listed() {
    let scene = Scene::start().await;
    let (code, device) = scene.json(&["device", "list", "--json"]);
    assert_eq!((code, &device["presence"]), (0, &"ONLINE".into()), "{device}");
    assert_eq!(device["session"]["protocol"], "roost.v1.json");
    let (code, device) = scene.json(&["device", "get", "thermo-0", "--json"]);
    assert_eq!((code, &device["session"]["node_id"]), (0, &scene.hub.node_id().into()), "{device}");
    let (code, node) = scene.json(&["node", "list", "--json"]);
    assert_eq!((code, &node["state"]), (0, &"READY".into()), "{node}");
    let (code, text) = scene.run(&["device", "list"]);
    assert!(code == 0 && text.contains("thermo-0") && !text.contains('\u{1b}'), "{text}");
    let (code, _) = scene.run(&["publish", "fleet/news", "{}"]);
    assert_eq!(code, 0);
    let (code, _) = scene.run(&["device", "disconnect", "thermo-0"]);
    assert_eq!(code, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_have_their_exit_codes_and_say_what_is_wrong() {
    let scene = Scene::start().await;
    for (args, expected, said) in [
        (&["device", "get", "never-seen"][..], 1, "NOT_FOUND"),
        (&["device", "get", "no id"], 1, "device_id"),
        (&["publish", "fleet//news", "{}"], 1, "TOPIC_INVALID"),
        (&["publish", "fleet/news", "{"], 2, "not JSON"),
        (&["command", "send"], 2, "Usage"),
        (&["no-such-command"], 2, "Usage"),
        (&["serve", "--role", "edge"], 2, "redis.url"),
        (&["device", "list", "--server", "https://hub"], 2, "http"),
    ] {
        let (code, text) = scene.run(args);
        assert_eq!(code, expected, "{args:?}: {text}");
        assert!(text.contains(said), "{args:?}: {text}");
    }
    let nobody = format!("127.0.0.1:{}", free_port());
    let output = run_roost(&scene.keys, &nobody, &["device", "list"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    // A key of somebody else.
    let output = run_roost(&Keys::generate(), &scene.hub.grpc(), &["device", "list"]);
    let (code, text) = told(&output);
    assert!(code == 1 && text.contains("UNAUTHENTICATED"), "{code} {text}");
}

#[test]
fn tokens_are_minted_that_the_hub_takes() {
    let keys = Keys::generate();
    let key = keys.token_key_file();
    let key = key.to_str().unwrap();
    let output = roost().args(["token", "device", "d", "--key-file", key]).output().unwrap();
    let (code, token) = told(&output);
    assert_eq!((code, token.trim().split('.').count()), (0, 3), "{token}");
    let new = format!("{key}.new");
    for expected in [0, 1] {
        // The second time the file is there, and stays as it is.
        let output = roost().args(["token", "key", "--out", &new]).output().unwrap();
        assert_eq!(output.status.code(), Some(expected), "{output:?}");
    }
}

#[test]
fn every_mistake_of_a_configuration_is_named() {
    let keys = Keys::generate();
    let wrong = keys.file(
        "wrong.toml",
        "[edge]\naddr = \"nowhere\"\nworkrs = 3\n\n[store]\nlease = \"10 parsecs\"\n\n[auth]\ntoken_key_file = \"absent.key\"\n",
    );
    let wrong = wrong.to_str().unwrap();
    let output = roost()
        .args(["config", "check", "--config", wrong, "--grpc-addr", "7050"])
        .env("ROOST_LOG__LEVEL", "loud")
        .output()
        .unwrap();
    let (code, text) = told(&output);
    assert_eq!(code, 2, "{text}");
    for said in [
        "wrong.toml",
        "edge.addr",
        "workrs",
        "edge.workers",
        "store.lease",
        "absent.key",
        "--grpc-addr",
        "ROOST_LOG__LEVEL",
    ] {
        assert!(text.contains(said), "{said} is not in: {text}");
    }

    let right = keys.file("right.toml", "[auth]\nmode = \"insecure\"\n");
    let right = right.to_str().unwrap();
    let output = roost().args(["config", "check", "--config", right]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    // What is printed is a configuration itself.
    let output = roost().args(["config", "print", "--config", right]).output().unwrap();
    let (code, text) = told(&output);
    assert_eq!(code, 0);
    let printed = keys.file("printed.toml", &text);
    let printed = printed.to_str().unwrap();
    let output = roost().args(["config", "check", "--config", printed]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}\n{output:?}");
}
