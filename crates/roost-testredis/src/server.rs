//! A real Redis server, started, paused, killed and restarted by tests. Faults on the way to it are
//! in `proxy.rs`; several that belong together are in `replicated.rs`, `sentinel.rs` and `cluster.rs`.

use std::fs;
use std::net::Ipv4Addr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions, kill_process, prlimit, waitpid};
use tempfile::TempDir;
use tokio::io::BufReader;
use tokio::net::TcpStream;

use crate::options::{Mode, Place};
use crate::ports::free_port;
use crate::resp::exchange;
use crate::{RedisOptions, Reply, User};

/// How long a server may take until it answers; it takes about 20 ms.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause between two looks at whether the server answers.
const POLL: Duration = Duration::from_millis(10);
/// Starts tried when another process took the port in between.
const START_ATTEMPTS: usize = 5;
/// What a shell exits with when it cannot find a program.
const NOT_FOUND: i32 = 127;

/// A running (or paused, or killed) Redis server on a loopback port, with a directory of its own.
/// Dropping it kills the server and removes the directory.
#[derive(Debug)]
pub struct RedisServer {
    mode: Mode,
    port: u16,
    tls_port: u16,
    bus_port: u16,
    /// `None` after [`RedisServer::kill`].
    child: Option<Child>,
    directory: TempDir,
}

// === impl RedisServer ===

impl RedisServer {
    /// Starts a server without persistence, limit or password, and waits until it answers.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(RedisOptions::default()).await
    }

    /// Starts a server with these options, and waits until it answers. Needs a running clock: not
    /// for tests that pause it.
    pub async fn start_with(options: RedisOptions) -> anyhow::Result<Self> {
        Self::launch(Mode::Server(options)).await
    }

    pub(crate) async fn launch(mode: Mode) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("roost-redis-").tempdir()?;
        let (port, tls_port, bus_port) = (0, 0, 0);
        let mut server = Self { mode, port, tls_port, bus_port, child: None, directory };
        for _ in 1..START_ATTEMPTS {
            match server.start_anew().await {
                Err(error) if error.to_string().contains("Address already in use") => server.kill(),
                result => return result.map(|()| server),
            }
        }
        server.start_anew().await?;
        Ok(server)
    }

    /// On ports of which it does not know yet whether they are free.
    async fn start_anew(&mut self) -> anyhow::Result<()> {
        self.port = free_port();
        let options = self.mode.options();
        if options.is_some_and(|options| options.tls.is_some()) {
            self.tls_port = free_port();
        }
        if matches!(self.mode, Mode::Cluster(_)) {
            self.bus_port = free_port();
        }
        let place = Place {
            directory: self.directory.path(),
            port: self.port,
            tls_port: self.tls_port,
            bus_port: self.bus_port,
        };
        fs::write(self.directory.path().join("redis.conf"), self.mode.file(&place))?;
        self.spawn()?;
        self.wait_ready().await
    }

    /// The port it listens on without TLS, on 127.0.0.1; the same for the server's whole life.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port of its cluster bus; 0 outside a cluster.
    pub fn bus_port(&self) -> u16 {
        self.bus_port
    }

    /// The port it listens on with TLS; 0 without.
    pub fn tls_port(&self) -> u16 {
        self.tls_port
    }

    /// How a client is meant to reach it: `redis://…`, with its user if it has one, else with the
    /// password if there is one; `rediss://…` and the port of TLS if it serves that.
    pub fn url(&self) -> String {
        self.url_via(if self.tls_port == 0 { self.port } else { self.tls_port })
    }

    /// The same URL with another loopback port: that of a proxy in front of the server.
    pub fn url_via(&self, port: u16) -> String {
        let scheme = if self.tls_port == 0 { "redis" } else { "rediss" };
        format!("{scheme}://{}127.0.0.1:{port}", self.login())
    }

    /// `user:password@`, `:password@` or nothing.
    pub(crate) fn login(&self) -> String {
        let Some(options) = self.mode.options() else {
            return String::new();
        };
        match (&options.user, &options.password) {
            (Some(User { name, password, .. }), _) => format!("{name}:{password}@"),
            (None, Some(password)) => format!(":{password}@"),
            (None, None) => String::new(),
        }
    }

    /// Stops the process without closing anything (SIGSTOP): connections stay and nothing answers.
    /// When this returns, it has stopped.
    pub fn pause(&mut self) -> anyhow::Result<()> {
        let pid = self.pid()?;
        kill_process(pid, Signal::STOP).context("cannot pause redis-server")?;
        // Blocks for microseconds, until the kernel reports the stop.
        let status = waitpid(Some(pid), WaitOptions::UNTRACED).context("cannot await the pause")?;
        ensure!(status.is_some_and(|(_, s)| s.stopped()), "redis-server ended instead of pausing");
        Ok(())
    }

    /// Lets a paused process run again (SIGCONT).
    pub fn resume(&self) -> anyhow::Result<()> {
        kill_process(self.pid()?, Signal::CONT).context("cannot resume redis-server")
    }

    /// Kills the process (SIGKILL): connections break, and what is not on disk is lost. Nothing
    /// happens if it does not run.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Either fails only if the process has already ended.
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Kills the server if it runs, starts it again on the same port and with the configuration that
    /// it wrote last, and waits until it answers.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        self.spawn()?;
        self.wait_ready().await
    }

    /// Fills its disk, as far as it can tell: files of this length or longer do not grow (EFBIG, which
    /// Redis treats as it does ENOSPC). What was written stays.
    pub fn fill_disk(&self, bytes: u64) -> anyhow::Result<()> {
        self.limit_files(Some(bytes))
    }

    /// Gives its disk room again.
    pub fn free_disk(&self) -> anyhow::Result<()> {
        self.limit_files(None)
    }

    /// The soft limit alone: a process may raise that again, root or not.
    fn limit_files(&self, current: Option<u64>) -> anyhow::Result<()> {
        let pid = Some(self.pid()?);
        let limit = Rlimit { current, maximum: None };
        prlimit(pid, Resource::Fsize, limit).context("cannot limit the files of redis-server")?;
        Ok(())
    }

    /// The length of its append-only file's newest part, in bytes.
    pub fn aof_length(&self) -> anyhow::Result<u64> {
        let directory = self.directory.path().join("appendonlydir");
        let mut longest = 0;
        for entry in fs::read_dir(&directory).context("there is no append-only file")? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with(".incr.aof") {
                longest = longest.max(entry.metadata()?.len());
            }
        }
        Ok(longest)
    }

    /// Whether the process runs, as far as is known without waiting.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Sends one command on a connection of its own and gives its reply: text of a string or error
    /// (which starts with `-`), a number in digits, `(nil)`. Arrays are refused: see
    /// [`RedisServer::query`].
    pub async fn call(&self, command: &[&str]) -> anyhow::Result<String> {
        let text = self.query(command).await?.into_text();
        text.with_context(|| format!("{command:?} has a reply that is no string or number"))
    }

    /// The same for any reply. An error of the server is a reply.
    pub async fn query(&self, command: &[&str]) -> anyhow::Result<Reply> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
        let mut stream = BufReader::new(stream);
        if let Some(password) = self.mode.options().and_then(|options| options.password.as_ref()) {
            let reply = exchange(&mut stream, &["AUTH", password]).await?;
            ensure!(reply == Reply::Text("OK".to_owned()), "AUTH was answered with {reply:?}");
        }
        exchange(&mut stream, command).await
    }

    /// The same for a command that must be answered with `OK`.
    pub async fn ok(&self, command: &[&str]) -> anyhow::Result<()> {
        let reply = self.query(command).await?;
        ensure!(reply == Reply::Text("OK".to_owned()), "{command:?} was answered with {reply:?}");
        Ok(())
    }

    /// One value of `INFO section`; empty if there is none.
    pub async fn info(&self, section: &str, name: &str) -> anyhow::Result<String> {
        let info = self.call(&["INFO", section]).await?;
        let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(value.unwrap_or_default().to_owned())
    }

    /// Waits until the server answers PING; fails with its log if it ends or does not answer.
    pub async fn wait_ready(&mut self) -> anyhow::Result<()> {
        let ready = async {
            while !self.answers().await {
                if let Some(child) = &mut self.child
                    && let Some(status) = child.try_wait()?
                {
                    bail!("{}; its log:\n{}", why_ended(status), self.log());
                }
                tokio::time::sleep(POLL).await;
            }
            Ok(())
        };
        let waited = tokio::time::timeout(START_TIMEOUT, ready).await;
        waited.unwrap_or_else(|_| {
            bail!("redis-server did not answer in {START_TIMEOUT:?}; its log:\n{}", self.log())
        })
    }

    /// Whether it is this server that answers, and not another one that took the port first.
    async fn answers(&self) -> bool {
        let Some(child) = &self.child else {
            return false;
        };
        let ours = child.id().to_string();
        matches!(self.call(&["PING"]).await.as_deref(), Ok("PONG"))
            && self.info("server", "process_id").await.is_ok_and(|id| id == ours)
    }

    fn spawn(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new("sh");
        // With the signal ignored, a file that may not grow is an error of the write, not the end.
        command.args(["-c", "trap '' XFSZ; exec redis-server \"$@\"", "redis-server"]);
        command.arg(self.directory.path().join("redis.conf"));
        if matches!(self.mode, Mode::Sentinel(_)) {
            command.arg("--sentinel");
        }
        // What it says before it has read where to log goes there too.
        let start_log = self.directory.path().join("start.log");
        let log = fs::File::options().create(true).append(true).open(start_log)?;
        let (stdout, stderr) = (log.try_clone()?, log);
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        self.child = Some(command.spawn().context("cannot start redis-server")?);
        Ok(())
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        let read = |file| fs::read_to_string(self.directory.path().join(file)).unwrap_or_default();
        read("start.log") + &read("redis.log")
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        let child = self.child.as_ref().context("redis-server is not running; it was killed")?;
        Ok(Pid::from_child(child))
    }
}

fn why_ended(status: ExitStatus) -> String {
    if status.code() == Some(NOT_FOUND) {
        return "redis-server is not on the PATH; install it: the package is `redis-server` on \
                Debian and Ubuntu, `redis` elsewhere"
            .to_owned();
    }
    format!("redis-server ended with {status}")
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_server_answers_and_forgets_when_it_is_restarted() {
        let mut redis = RedisServer::start().await.unwrap();
        assert_eq!(redis.call(&["SET", "k", "v w"]).await.unwrap(), "OK");
        assert_eq!(redis.call(&["GET", "k"]).await.unwrap(), "v w");
        assert_eq!(redis.call(&["INCR", "n"]).await.unwrap(), "1");
        assert!(redis.call(&["NOSUCH"]).await.unwrap().starts_with("-ERR"));

        let port = redis.port();
        redis.kill();
        assert!(redis.call(&["PING"]).await.is_err());
        assert!(redis.pause().unwrap_err().to_string().contains("was killed"));
        redis.restart().await.unwrap();
        assert_eq!(redis.port(), port);
        assert_eq!(redis.call(&["GET", "k"]).await.unwrap(), "(nil)");
    }

    #[tokio::test]
    async fn a_paused_server_takes_connections_and_answers_when_resumed() {
        let mut redis = RedisServer::start().await.unwrap();
        redis.pause().unwrap();
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, redis.port())).await.unwrap();
        stream.write_all(b"PING\r\n").await.unwrap();
        let mut reply = [0; 7];
        let early = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut reply)).await;
        assert!(early.is_err(), "a paused server does not answer");
        redis.resume().unwrap();
        stream.read_exact(&mut reply).await.unwrap();
        assert_eq!(&reply, b"+PONG\r\n");
    }

    #[tokio::test]
    async fn options_reach_the_server() {
        let options = RedisOptions {
            appendonly: true,
            maxmemory: Some(64 << 20),
            password: Some("open-sesame".to_owned()),
            ..RedisOptions::default()
        };
        let options = options.with("hz", "50");
        let mut redis = RedisServer::start_with(options).await.unwrap();
        assert_eq!(redis.url(), format!("redis://:open-sesame@127.0.0.1:{}", redis.port()));
        let memory = redis.call(&["INFO", "memory"]).await.unwrap();
        assert!(memory.contains("maxmemory:67108864\r\n"), "{memory}");
        redis.call(&["SET", "k", "kept"]).await.unwrap();
        redis.restart().await.unwrap();
        assert_eq!(redis.call(&["GET", "k"]).await.unwrap(), "kept");
    }

    #[tokio::test]
    async fn a_server_that_cannot_start_shows_its_log() {
        let options = RedisOptions::default().with("maxclients", "many");
        let error = RedisServer::start_with(options).await.unwrap_err().to_string();
        assert!(error.contains("redis-server ended with"), "{error}");
    }

    #[tokio::test]
    async fn dropping_a_server_ends_it_although_it_is_paused() {
        let mut redis = RedisServer::start().await.unwrap();
        let (port, directory) = (redis.port(), redis.directory.path().to_owned());
        redis.pause().unwrap();
        drop(redis);
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err());
        assert!(!directory.exists());
    }

    #[tokio::test]
    async fn a_full_disk_refuses_writes_until_it_has_room() {
        let options = RedisOptions { appendonly: true, ..RedisOptions::default() };
        let redis = RedisServer::start_with(options.with("appendfsync", "everysec")).await.unwrap();
        redis.ok(&["SET", "k", "v"]).await.unwrap();
        redis.fill_disk(redis.aof_length().unwrap()).unwrap();
        let refused =
            async || redis.call(&["SET", "k", "w"]).await.unwrap().starts_with("-MISCONF");
        while !refused().await {
            tokio::time::sleep(POLL).await;
        }
        assert_eq!(
            redis.call(&["PING"]).await.unwrap(),
            "-MISCONF Errors writing to the AOF file: File too large"
        );
        redis.free_disk().unwrap();
        while refused().await {
            tokio::time::sleep(POLL).await;
        }
    }

    #[tokio::test]
    async fn a_user_may_do_what_its_rules_say() {
        let rules = "~roost:* &roost:* +@all -@dangerous".to_owned();
        let user = User { name: "hub".to_owned(), password: "open-sesame".to_owned(), rules };
        let options = RedisOptions { user: Some(user), ..RedisOptions::default() };
        let redis = RedisServer::start_with(options).await.unwrap();
        assert_eq!(redis.url(), format!("redis://hub:open-sesame@127.0.0.1:{}", redis.port()));
        let list = redis.query(&["ACL", "LIST"]).await.unwrap().into_texts();
        assert!(list.iter().any(|line| line.starts_with("user hub on ")), "{list:?}");
    }

    #[tokio::test]
    async fn tls_is_served_beside() {
        let tls = std::sync::Arc::new(crate::Certificates::generate().unwrap());
        let options = RedisOptions { tls: Some(tls), ..RedisOptions::default() };
        let redis = RedisServer::start_with(options).await.unwrap();
        assert_eq!(redis.url(), format!("rediss://127.0.0.1:{}", redis.tls_port()));
        TcpStream::connect((Ipv4Addr::LOCALHOST, redis.tls_port())).await.unwrap();
    }
}
