//! The command line as scripts use it: exit codes, `--json`, and mistakes named where they are. Its
//! layout for people is tested in the `roost` crate.

use std::process::Output;
use std::sync::Arc;

use roost_testkit::fleet::Fleet;
use roost_testkit::keys::Keys;
use roost_testkit::process::{HubProcess, NodeOptions, roost, run_roost};
use roost_testkit::redis::{RedisOptions, RedisServer, User};
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

    /// The exit code, and each line as JSON.
    fn lines(&self, args: &[&str]) -> (i32, Vec<Value>) {
        let output = run_roost(&self.keys, &self.hub.grpc(), args);
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let values = text.lines().map(serde_json::from_str).collect::<Result<_, _>>();
        let code = output.status.code().unwrap();
        (code, values.unwrap_or_else(|error| panic!("{error}: {output:?}")))
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
async fn commands_are_followed_sent_to_many_and_listed() {
    let scene = Scene::start().await;
    let follow = ["command", "send", "thermo-0", "echo", "{}", "--id", "c1", "--watch", "--json"];
    let (code, items) = scene.lines(&follow);
    assert_eq!(code, 0, "{items:?}");
    let last = items.last().unwrap();
    assert_eq!(last["command"]["state"], "SUCCEEDED");
    let cursor = last["cursor"].as_str().unwrap();
    let (code, items) = scene.lines(&["command", "watch", "thermo-0", "c1", "--json"]);
    assert_eq!((code, items.len()), (0, 1), "{items:?}");
    let (code, items) =
        scene.lines(&["command", "watch", "thermo-0", "c1", "--cursor", cursor, "--json"]);
    assert_eq!((code, items.len()), (0, 0), "{items:?}");
    let (code, text) = scene.run(&["command", "watch", "thermo-0", "c1", "--cursor", "x"]);
    assert!(code == 1 && text.contains("CURSOR_INVALID"), "{text}");

    let fleet = scene.keys.file("fleet.txt", "# all of them\nthermo-0\n\n  away\n");
    let fleet = fleet.to_str().unwrap();
    // 0: accepted by both, and nothing more was asked for.
    let accept = ["command", "batch", "--devices", fleet, "echo", "--no-wait", "--json"];
    let (code, items) = scene.lines(&accept);
    assert_eq!((code, items.len()), (0, 2), "{items:?}");
    assert_eq!(items[0]["command"]["command_id"], items[1]["command"]["command_id"]);
    // 3: one does not answer in time.
    let wait = ["command", "batch", "--devices", fleet, "echo", "--wait-timeout", "2s"];
    let (code, text) = scene.run(&wait);
    assert_eq!(code, 3, "{text}");
    assert!(
        text.contains("2 devices: ") && text.contains("1 QUEUED (the wait timed out)"),
        "{text}"
    );
    // 1: one refuses.
    let conflict =
        ["command", "batch", "--devices", fleet, "other", "--id", "c1", "--no-wait", "--json"];
    let (code, items) = scene.lines(&conflict);
    let refused = items.iter().find(|item| item["device_id"] == "thermo-0").unwrap();
    assert_eq!((code, &refused["error"]["reason"]), (1, &"ALREADY_EXISTS".into()), "{items:?}");
    let (code, text) = scene.run(&["command", "batch", "--devices", "/no/such/file", "echo"]);
    assert!(code == 2 && text.contains("/no/such/file"), "{text}");

    let (code, items) = scene.lines(&["command", "list", "away", "--since", "1h", "--json"]);
    assert_eq!((code, items.len()), (0, 3), "{items:?}");
    let (code, items) = scene.lines(&["command", "list", "away", "--until", "1h", "--json"]);
    assert_eq!((code, items.len()), (0, 0), "{items:?}");
    let (code, items) = scene.lines(&["command", "dead", "--json"]);
    assert_eq!((code, items.len()), (0, 0), "{items:?}");
    let (code, text) = scene.run(&["command", "redrive", "thermo-0", "c1"]);
    assert!(code == 1 && text.contains("NOT_DEAD"), "{text}");
    let durable = ["command", "send", "thermo-0", "echo", "--durability", "fsync"];
    let (code, text) = scene.run(&durable);
    assert!(code == 1 && text.contains("DURABILITY_UNSUPPORTED"), "{text}");
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
        (&["device", "list", "--server", "ftp://hub"], 2, "neither http nor https"),
    ] {
        let (code, text) = scene.run(args);
        assert_eq!(code, expected, "{args:?}: {text}");
        assert!(text.contains(said), "{args:?}: {text}");
    }
    // A port that nothing takes by chance.
    let output = run_roost(&scene.keys, "127.0.0.1:1", &["device", "list"]);
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

/// The exit code and the report of `roost redis check URL --json`.
fn check_redis(url: &str) -> (i32, Value) {
    let output = roost().args(["redis", "check", url, "--json"]).output().unwrap();
    let code = output.status.code().unwrap();
    let report = serde_json::from_slice(&output.stdout);
    (code, report.unwrap_or_else(|error| panic!("{error}: {output:?}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_is_checked_in_words_and_the_rule_for_its_user_is_printed() {
    let rule = roost().args(["redis", "acl", "--user", "hub"]).output().unwrap();
    let (code, rule) = told(&rule);
    assert_eq!(code, 0, "{rule}");
    let rules = rule.trim().strip_prefix("ACL SETUSER hub on >PASSWORD ").unwrap().to_owned();
    let user = |rules| Some(User { name: "hub".into(), password: "s3cret".into(), rules });
    let start = async |options| RedisServer::start_with(options).await.unwrap();
    // Fit, and something to be said.
    let options = RedisOptions { user: user(rules.clone()), ..RedisOptions::default() };
    let mut redis = start(options.clone()).await;
    let (code, report) = check_redis(&redis.url());
    assert_eq!((code, &report["fit"]), (0, &true.into()), "{report}");
    assert!(report["findings"][0]["text"].as_str().unwrap().contains("appendonly"), "{report}");
    let text = roost().args(["redis", "check", &redis.url()]).output().unwrap();
    assert!(told(&text).1.contains("fit for a hub (standalone)"), "{text:?}");
    // Fit, and nothing to be said.
    let lasting = start(RedisOptions { appendonly: true, ..options.clone() }).await;
    let (code, report) = check_redis(&lasting.url());
    assert_eq!((code, &report["findings"]), (0, &Value::Array(vec![])), "{report}");
    // 1: no hub would start there.
    let limited = RedisOptions { maxmemory: Some(50 << 20), ..options.clone() };
    let evicting = start(limited.with("maxmemory-policy", "allkeys-lru")).await;
    let (code, report) = check_redis(&evicting.url());
    assert_eq!((code, &report["fit"]), (1, &false.into()), "{report}");
    let said = report["findings"][0]["text"].as_str().unwrap();
    assert!(said.contains("maxmemory-policy to noeviction"), "{report}");
    let less = RedisOptions { user: user(format!("{rules} -zadd")), ..options };
    let less = start(less).await;
    let (code, report) = check_redis(&less.url());
    let said = report["findings"][0]["text"].as_str().unwrap();
    assert!(code == 1 && said.contains("zadd") && said.contains("roost redis acl"), "{report}");
    let wrong = redis.url().replace("s3cret", "guess");
    let (code, text) = told(&roost().args(["redis", "check", &wrong]).output().unwrap());
    assert!(code == 1 && !text.contains("guess"), "{text}");
    // 4: nobody there. 2: not a URL.
    let url = redis.url();
    redis.kill();
    let (code, text) = told(&roost().args(["redis", "check", &url]).output().unwrap());
    assert_eq!(code, 4, "{text}");
    let (code, text) = told(&roost().args(["redis", "check", "http://x"]).output().unwrap());
    assert_eq!(code, 2, "{text}");
}
