//! A node as a process: the real `roost serve`, with signals. Nodes in this process are in `hub.rs`.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use serde_json::Value;

use crate::admin::Admin;
use crate::keys::Keys;
use crate::redis::RedisServer;
use crate::target::Target;
use crate::wait::{HANGS, eventually};

/// How a node is started, beside its keys and its free ports.
#[derive(Debug, Clone, Default)]
pub struct NodeOptions<'a> {
    /// `all`, `edge` or `control`; empty is `all`.
    pub role: &'a str,
    /// The Redis that it shares.
    pub redis: Option<String>,
    /// Its name; empty for a random one.
    pub id: &'a str,
    /// Variables such as `("ROOST_STORE__LEASE", "3s")`.
    pub env: &'a [(&'a str, &'a str)],
    /// Further flags.
    pub flags: &'a [&'a str],
}

/// Two edges, A and B, and a control node on a Redis of their own, each a process.
#[derive(Debug)]
pub struct TwoEdges {
    /// Edge A, named `a`.
    pub a: HubProcess,
    /// Edge B, named `b`.
    pub b: HubProcess,
    /// The control node.
    pub control: HubProcess,
    /// What they share.
    pub redis: RedisServer,
    /// The keys that they take.
    pub keys: Arc<Keys>,
}

/// A running node. Dropping it kills the process.
#[derive(Debug)]
pub struct HubProcess {
    child: Child,
    listening: Value,
}

// === impl HubProcess ===

impl HubProcess {
    /// Starts a node and waits until it says that it listens. What it logs goes to the test's
    /// standard error.
    pub fn start(keys: &Keys, options: &NodeOptions<'_>) -> Self {
        let mut command = roost();
        command.args(["serve", "--log-level", "error"]);
        for flag in ["--edge-addr", "--grpc-addr", "--admin-addr"] {
            command.args([flag, "127.0.0.1:0"]);
        }
        command.arg("--token-key-file").arg(keys.token_key_file());
        command.arg("--api-key-file").arg(keys.api_key_file());
        if let Some(url) = &options.redis {
            command.args(["--redis", url]);
        }
        for (flag, value) in [("--role", options.role), ("--node-id", options.id)] {
            if !value.is_empty() {
                command.args([flag, value]);
            }
        }
        command.args(options.flags).envs(options.env.iter().copied());
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it was asked to be piped");
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let listening = serde_json::from_str(&line);
        let listening = listening.unwrap_or_else(|_| panic!("the node did not start: {line:?}"));
        Self { child, listening }
    }

    /// `ws://…` of its edge.
    pub fn edge(&self) -> String {
        format!("ws://{}", self.address("edge"))
    }

    /// Where its edge listens.
    pub fn edge_address(&self) -> SocketAddr {
        self.address("edge").parse().unwrap()
    }

    /// Where its edge listens with TLS.
    pub fn tls_address(&self) -> SocketAddr {
        self.address("edge_tls").parse().unwrap()
    }

    /// `host:port` of its gRPC.
    pub fn grpc(&self) -> String {
        self.address("grpc").to_owned()
    }

    /// Its admin port.
    pub fn admin(&self) -> Admin {
        Admin(self.address("admin").parse().unwrap())
    }

    /// Its name.
    pub fn node_id(&self) -> &str {
        self.address("node_id")
    }

    /// Where clients find a hub that is this node alone.
    pub fn target(&self, keys: &Arc<Keys>) -> Target {
        Target { edges: vec![self.edge()], grpc: self.grpc(), keys: Arc::clone(keys) }
    }

    fn address(&self, key: &str) -> &str {
        self.listening[key].as_str().unwrap_or_else(|| panic!("no {key} in {}", self.listening))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Kills it, as a crash would, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end (SIGTERM), and waits until it has.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// How it ended.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("the node ends", HANGS, async || child.try_wait().unwrap()).await
    }

    /// Its resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        kib * 1024
    }
}

impl Drop for HubProcess {
    fn drop(&mut self) {
        // Both fail only where it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

// === impl TwoEdges ===

impl TwoEdges {
    /// Starts them all, with these variables.
    pub async fn start(env: &[(&str, &str)]) -> Self {
        let redis = RedisServer::start().await.unwrap();
        let keys = Arc::new(Keys::generate());
        let node = |role, id| {
            let redis = Some(redis.url());
            HubProcess::start(&keys, &NodeOptions { role, id, redis, env, flags: &[] })
        };
        let (a, b, control) = (node("edge", "a"), node("edge", "b"), node("control", "c"));
        Self { a, b, control, redis, keys }
    }

    /// Where clients find them.
    pub fn target(&self) -> Target {
        Target {
            edges: vec![self.a.edge(), self.b.edge()],
            grpc: self.control.grpc(),
            keys: Arc::clone(&self.keys),
        }
    }
}

/// The `roost` program with no arguments yet, and nothing of this test's environment that it would
/// read.
pub fn roost() -> Command {
    let mut command = Command::new(program());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ROOST_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs the command line to its end: `roost command get …`, as a back end with these keys would.
pub fn run_roost<A: AsRef<OsStr>>(keys: &Keys, grpc: &str, args: &[A]) -> Output {
    let mut command = roost();
    command.args(args).stdin(Stdio::null());
    command.env("ROOST_SERVER", format!("http://{grpc}"));
    command.env("ROOST_API_KEY_FILE", keys.api_key_file());
    command.output().unwrap()
}

/// `ROOST_BIN`, or the one that was built beside this test.
fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("ROOST_BIN") {
        return program.into();
    }
    let test = std::env::current_exe().unwrap();
    let built = test.ancestors().skip(1).map(|directory| directory.join("roost"));
    let mut built = built.take(3).filter(|program| program.is_file());
    built
        .next()
        .expect("`cargo build --workspace --all-targets --all-features` first, or set ROOST_BIN")
}
