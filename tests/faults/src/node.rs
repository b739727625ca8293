//! A node of the hub as a process: the real `roost serve` on ports that stay the same, with signals. What
//! it logs goes to a file of the run.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use roost_testredis::ports::free_port;
pub use rustix::process::Signal;
use rustix::process::{Pid, WaitOptions, kill_process, waitpid};
use tokio::task::spawn_blocking;

use crate::names::Keys;

/// How long a node may take to start.
const START: Duration = Duration::from_secs(30);

/// How the nodes of a run are started.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// The program.
    pub program: PathBuf,
    /// Where logs go.
    pub directory: PathBuf,
    /// The keys of the hub.
    pub keys: Arc<Keys>,
    /// Variables such as `("ROOST_STORE__LEASE", "3s")`.
    pub env: Vec<(String, String)>,
}

/// A node. Dropping it kills the process.
#[derive(Debug)]
pub struct Node {
    settings: Arc<NodeSettings>,
    role: &'static str,
    name: String,
    /// How often it was started: each life has a name of its own, as pods have.
    life: u32,
    redis: String,
    ports: [u16; 3],
    /// Variables of this node alone.
    pub env: Vec<(String, String)>,
    child: Option<Child>,
}

// === impl Node ===

impl Node {
    /// A node that is not started yet. `role` is `edge` or `control`.
    pub fn new(settings: &Arc<NodeSettings>, role: &'static str, name: &str, redis: &str) -> Self {
        Self {
            settings: Arc::clone(settings),
            role,
            name: name.to_owned(),
            life: 0,
            redis: redis.to_owned(),
            ports: [free_port(), free_port(), free_port()],
            env: vec![],
            child: None,
        }
    }

    /// `ws://…` of its edge.
    pub fn edge_url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.ports[0])
    }

    /// `host:port` of its gRPC.
    pub fn grpc(&self) -> String {
        format!("127.0.0.1:{}", self.ports[1])
    }

    /// `host:port` of its admin port.
    pub fn admin(&self) -> String {
        format!("127.0.0.1:{}", self.ports[2])
    }

    /// Its name in this life.
    pub fn id(&self) -> String {
        format!("{}-{}", self.name, self.life)
    }

    /// Starts it, and waits until it says that it listens.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "node {} runs already", self.name);
        self.life += 1;
        let mut child = self.spawn()?;
        let stdout = child.stdout.take().context("it was asked to be piped")?;
        self.child = Some(child);
        let line = tokio::time::timeout(START, spawn_blocking(|| first_line(stdout)));
        let line = line.await.context("a node did not start in time")???;
        if line.is_empty() {
            bail!("node {} did not start; it said:\n{}", self.id(), self.log());
        }
        Ok(())
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        let settings = &self.settings;
        let mut command = Command::new(&settings.program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ROOST_") {
                command.env_remove(name);
            }
        }
        command.args(["serve", "--log-level", "warn", "--role", self.role]);
        command.args(["--node-id", &self.id(), "--redis", &self.redis]);
        let flags = ["--edge-addr", "--grpc-addr", "--admin-addr"];
        for (flag, port) in flags.iter().zip(self.ports) {
            command.arg(flag).arg(format!("127.0.0.1:{port}"));
        }
        command.arg("--token-key-file").arg(settings.keys.token_key_file());
        command.arg("--api-key-file").arg(settings.keys.api_key_file());
        command.envs(settings.env.iter().chain(&self.env).cloned());
        let log = File::options().create(true).append(true).open(self.log_file())?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let program = settings.program.display();
        command.spawn().with_context(|| format!("cannot start {program}"))
    }

    fn log_file(&self) -> PathBuf {
        log_file(&self.settings.directory, &self.name)
    }

    /// What it said on standard error, in all its lives.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Kills it, as a crash would, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Either fails only if it is gone already.
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Stops it from running (SIGSTOP); when this returns, it has stopped.
    pub fn pause(&self) -> anyhow::Result<()> {
        let pid = self.pid()?;
        kill_process(pid, Signal::STOP)?;
        waitpid(Some(pid), WaitOptions::UNTRACED)?;
        Ok(())
    }

    /// Lets it run again (SIGCONT).
    pub fn resume(&self) -> anyhow::Result<()> {
        Ok(kill_process(self.pid()?, Signal::CONT)?)
    }

    /// Whether it has loaded a library whose path contains this.
    pub fn has_loaded(&self, library: &str) -> anyhow::Result<bool> {
        let pid = self.pid()?.as_raw_nonzero();
        Ok(std::fs::read_to_string(format!("/proc/{pid}/maps"))?.contains(library))
    }

    /// Whether it ended by itself: the runner did not ask for that.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)))
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        Ok(Pid::from_child(self.child.as_ref().context("the node does not run")?))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn log_file(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.log"))
}

fn first_line(stdout: ChildStdout) -> std::io::Result<String> {
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    Ok(line)
}
