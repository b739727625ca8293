//! The program as people and scripts run it: what it prints, and its exit codes.
#![allow(clippy::unwrap_used, reason = "a failed set-up step should fail the test")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_roost");

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(args).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ROOST_") {
            command.env_remove(name);
        }
    }
    command
}

fn run(args: &[&str]) -> (i32, String, String) {
    finished(program(args).output().unwrap())
}

fn finished(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A hub as a process, and a simulated device `sim`; both end with it.
struct Fixture {
    hub: Child,
    device: Child,
    listening: Value,
    directory: tempfile::TempDir,
}

impl Fixture {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        assert_eq!(run(&["token", "key", "--out", &file("token.key")]).0, 0);
        assert_eq!(run(&["token", "api-key", "--name", "tests", "--out", &file("api.key")]).0, 0);
        let mut command = program(&["serve", "--node-id", "n1", "--log-level", "warn"]);
        for flag in ["--edge-addr", "--grpc-addr", "--admin-addr"] {
            command.args([flag, "127.0.0.1:0"]);
        }
        command.args(["--token-key-file", &file("token.key"), "--api-key-file", &file("api.key")]);
        let mut hub = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(hub.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let listening: Value = serde_json::from_str(&line).unwrap();
        let url = format!("ws://{}", listening["edge"].as_str().unwrap());
        let mut device = program(&["simulate", "--url", &url, "--telemetry", "50ms", "--json"]);
        device.args(["--token-key-file", &file("token.key")]);
        let device = device.stdout(Stdio::null()).spawn().unwrap();
        Self { hub, device, listening, directory }
    }

    fn client(&self, args: &[&str]) -> Command {
        let mut command = program(args);
        let server = format!("http://{}", self.listening["grpc"].as_str().unwrap());
        command.env("ROOST_SERVER", server);
        command.env("ROOST_API_KEY_FILE", self.directory.path().join("api.key"));
        command
    }

    fn run(&self, args: &[&str]) -> (i32, String, String) {
        finished(self.client(args).output().unwrap())
    }

    fn json(&self, args: &[&str]) -> (i32, Vec<Value>) {
        let (code, out, _) = self.run(&[args, &["--json"]].concat());
        let parse = |line| serde_json::from_str(line).unwrap();
        (code, out.lines().map(parse).collect())
    }

    fn terminate(&mut self) -> i32 {
        let pid = self.hub.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.hub.wait().unwrap().code().unwrap()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        for child in [&mut self.device, &mut self.hub] {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

#[test]
fn the_demo_works_and_is_short() {
    let (code, out, err) = run(&["demo", "--once"]);
    assert_eq!(code, 0, "{out}\n{err}");
    assert!(!out.contains('✗') && out.contains("Everything worked"), "{out}");
    assert!(!out.contains('\u{1b}'), "no colours into a pipe: {out:?}");
    assert!(out.lines().count() <= 40, "{out}");
    for word in ["SUCCEEDED", "FAILED", "REJECTED", "QUEUED", "5 of 5 devices", "OFFLINE", " ms"] {
        assert!(out.contains(word), "{word} is missing:\n{out}");
    }
}

#[test]
fn commands_end_with_the_exit_code_of_what_became_of_them() {
    let mut fixture = Fixture::start();
    // The device may still be on its way: its first command waits for it.
    let (code, lines) =
        fixture.json(&["command", "send", "sim", "echo", "{\"a\": 1.50}", "--id", "c1"]);
    assert_eq!(code, 0, "{lines:?}");
    assert_eq!(lines[0]["state"], "SUCCEEDED");
    let (code, out, _) =
        fixture.run(&["command", "send", "sim", "echo", "{\"a\": 1.50}", "--id", "c1"]);
    assert!(code == 0 && out.starts_with("SUCCEEDED {\"a\": 1.50}"), "{out}");
    let (code, _, err) = fixture.run(&["command", "send", "sim", "echo", "2", "--id", "c1"]);
    assert!(code == 1 && err.contains("ALREADY_EXISTS"), "{err}");

    let (code, lines) = fixture.json(&["command", "send", "sim", "fail", "--id", "f", "--watch"]);
    assert_eq!(code, 1);
    // Nothing is told again, and the exit code is still the command's.
    let cursor = lines.last().unwrap()["cursor"].as_str().unwrap().to_owned();
    let (code, lines) = fixture.json(&["command", "watch", "sim", "f", "--cursor", &cursor]);
    assert_eq!((code, lines.len()), (1, 0));
    let late = ["command", "send", "nobody", "echo", "--id", "c2", "--wait-timeout", "100ms"];
    let (code, lines) = fixture.json(&late);
    assert_eq!((code, &lines[0]["state"]), (3, &Value::from("QUEUED")));
    let (code, lines) = fixture.json(&["command", "cancel", "nobody", "c2"]);
    assert_eq!((code, &lines[0]["outcome"]), (0, &Value::from("CANCELLED")));
    let (_, lines) = fixture.json(&["command", "get", "nobody", "c2"]);
    let steps = lines[0]["transitions"].as_array().unwrap();
    let states: Vec<_> = steps.iter().map(|step| step["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["QUEUED", "CANCELLED"]);
    let (code, _, err) = fixture.run(&["command", "get", "nobody", "c3"]);
    assert!(code == 1 && err.contains("NOT_FOUND"), "{err}");
    let (_, lines) = fixture.json(&["command", "list", "sim"]);
    assert_eq!(lines.len(), 2);

    assert_eq!(fixture.run(&["command", "send", "sim", "echo", "{bad"]).0, 2);
    let mut keyless = fixture.client(&["node", "list"]);
    let (code, _, err) = finished(keyless.env_remove("ROOST_API_KEY_FILE").output().unwrap());
    assert!(code == 1 && err.contains("--api-key-file"), "{err}");
    assert_eq!(fixture.terminate(), 0);
    let (code, _, err) = fixture.run(&["node", "list"]);
    assert!(code == 4 && err.contains("cannot reach the hub"), "{err}");
}

#[test]
fn payloads_come_from_arguments_files_and_standard_input() {
    let fixture = Fixture::start();
    let file = fixture.directory.path().join("blob");
    std::fs::write(&file, [0, 159, 146, 150]).unwrap();
    let at_file = format!("@{}", file.display());
    let (_, lines) = fixture.json(&["command", "send", "sim", "echo", &at_file, "--binary"]);
    assert_eq!(lines[0]["result"]["base64"], "AJ+Slg==");
    let (_, lines) = fixture.json(&[
        "command",
        "send",
        "sim",
        "echo",
        "<a/>",
        "--text",
        "--content-type",
        "text/xml",
    ]);
    assert_eq!(lines[0]["result"]["text"], "<a/>");
    assert_eq!(lines[0]["result"]["content_type"], "text/xml");

    let mut command = fixture.client(&["command", "send", "sim", "echo", "-", "--json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"[1.0, 2e3]\n").unwrap();
    let (code, out, _) = finished(child.wait_with_output().unwrap());
    assert!(code == 0 && out.contains("\"payload\":[1.0, 2e3]"), "{out}");
}

#[test]
fn devices_nodes_and_topics_are_shown() {
    let fixture = Fixture::start();
    let mut watch = fixture.client(&["device", "watch", "--json"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let seen = lines.find(|line| line.as_ref().unwrap().contains("\"sim\""));
    assert!(seen.is_some());
    watch.kill().unwrap();
    watch.wait().unwrap();

    let (_, devices) = fixture.json(&["device", "list", "--online"]);
    assert_eq!(devices.len(), 1);
    assert_eq!(devices[0]["session"]["node_id"], "n1");
    let (_, out, _) = fixture.run(&["device", "get", "sim"]);
    assert!(out.starts_with("sim is ONLINE\n"), "{out}");
    let (_, nodes) = fixture.json(&["node", "list"]);
    assert_eq!(nodes[0]["roles"], serde_json::json!(["EDGE", "CONTROL"]));

    let (code, items) = fixture.json(&["subscribe", "telemetry/#", "--count", "2"]);
    assert_eq!((code, items.len()), (0, 3));
    assert_eq!(items[1]["message"]["from"], "device:sim");
    assert_eq!(fixture.run(&["publish", "fleet/news", "{}"]).0, 0);
    let (code, _, err) = fixture.run(&["publish", "fleet//news", "{}"]);
    assert!(code == 1 && err.contains("TOPIC_INVALID"), "{err}");
    assert_eq!(fixture.run(&["publish", "fleet/news"]).0, 2);
}

/// The status of an admin page: `200 OK`.
fn status(admin: &str, path: &str) -> String {
    let mut stream = std::net::TcpStream::connect(admin).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line.trim().trim_start_matches("HTTP/1.1 ").to_owned()
}

#[test]
fn a_draining_node_is_alive_but_not_ready_and_a_second_signal_skips_ahead() {
    let mut command = program(&["serve", "--auth", "insecure", "--log-level", "info"]);
    for flag in ["--edge-addr", "--grpc-addr", "--admin-addr"] {
        command.args([flag, "127.0.0.1:0"]);
    }
    // Far longer than the test: only a second signal can end it.
    command.env("ROOST_SHUTDOWN__DELAY", "10m");
    command.env("ROOST_SHUTDOWN__GRACE", "11m");
    let mut hub = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(hub.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let listening: Value = serde_json::from_str(&line).unwrap();
    let admin = listening["admin"].as_str().unwrap();
    assert_eq!(status(admin, "/readyz"), "200 OK");

    let pid = hub.id().to_string();
    let terminate = || Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    let mut log = BufReader::new(hub.stderr.take().unwrap()).lines();
    assert!(log.next().unwrap().unwrap().contains("INSECURE"));
    let ready = log.next().unwrap().unwrap();
    assert!(ready.contains(admin) && ready.contains("memory"), "{ready}");
    assert!(terminate().success());
    assert!(log.any(|line| line.unwrap().contains("draining")));
    while status(admin, "/readyz") != "503 Service Unavailable" {
        std::thread::yield_now();
    }
    assert_eq!(status(admin, "/livez"), "200 OK");
    assert!(terminate().success());
    assert_eq!(hub.wait().unwrap().code(), Some(0));
}

#[test]
fn a_configuration_that_is_not_right_is_a_usage_error() {
    let (code, _, err) =
        run(&["serve", "--auth", "insecure", "--edge-addr", "0.0.0.0:0", "--log-level", "loud"]);
    assert_eq!(code, 2);
    assert!(err.contains("edge.addr") && err.contains("log.level"), "{err}");
    let (code, out, _) = run(&["config", "print", "--auth", "insecure"]);
    assert!(code == 0 && out.contains("mode = \"insecure\""), "{out}");
    assert_eq!(run(&["config", "check", "--auth", "insecure"]).0, 0);
    assert_eq!(run(&["config", "check", "--config", "/none"]).0, 2);
    assert_eq!(run(&["frobnicate"]).0, 2);
    assert_eq!(run(&["--help"]).0, 0);
}

#[test]
fn secrets_are_written_for_the_owner_alone_and_never_over_others() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token.key");
    let name = file.to_str().unwrap();
    assert_eq!(run(&["token", "key", "--out", name]).0, 0);
    let mode = |file: &Path| file.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    assert_eq!(run(&["token", "key", "--out", name]).0, 1);
    let (code, token, _) = run(&["token", "device", "d", "--key-file", name, "--ttl", "1h"]);
    assert_eq!((code, token.trim().split('.').count()), (0, 3));
}
