//! A real Redis server, started, paused, killed and restarted by tests. Faults on the way to it are
//! in `proxy.rs`. Anything installed as `redis-server` will do (Valkey too, by a link of that name).

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::ports::free_port;

/// How long a server may take until it answers; it takes about 20 ms.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two looks at whether the server answers.
const POLL: Duration = Duration::from_millis(10);
/// Starts tried when another process took the port in between.
const START_ATTEMPTS: usize = 5;

/// How a server is set up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedisOptions {
    /// Keep an append-only file, fsynced at every write, so that data survives
    /// [`RedisServer::kill`]. Off: a restarted server is empty.
    pub appendonly: bool,
    /// `maxmemory` in bytes, with `noeviction`; `None` is no limit.
    pub maxmemory: Option<u64>,
    /// `requirepass`.
    pub password: Option<String>,
    /// Further directives of redis.conf, such as `("min-replicas-to-write", "1")`.
    pub extra: Vec<(String, String)>,
}

/// A running (or paused, or killed) Redis server on a loopback port, with a directory of its own.
/// Dropping it kills the server and removes the directory.
#[derive(Debug)]
pub struct RedisServer {
    options: RedisOptions,
    port: u16,
    directory: Directory,
    /// `None` after [`RedisServer::kill`].
    child: Option<Child>,
}

/// A directory that goes when this does.
#[derive(Debug)]
struct Directory(PathBuf);

// === impl RedisServer ===

impl RedisServer {
    /// Starts a server without persistence, limit or password, and waits until it answers.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(RedisOptions::default()).await
    }

    /// Starts a server with these options, and waits until it answers. Needs a running clock: not
    /// for tests that pause it.
    pub async fn start_with(options: RedisOptions) -> anyhow::Result<Self> {
        let directory = Directory::create()?;
        let mut server = Self { options, port: free_port(), directory, child: None };
        for _ in 1..START_ATTEMPTS {
            server.spawn()?;
            match server.wait_ready().await {
                Err(error) if error.to_string().contains("Address already in use") => {
                    server.kill();
                    server.port = free_port();
                }
                result => return result.map(|()| server),
            }
        }
        server.spawn()?;
        server.wait_ready().await?;
        Ok(server)
    }

    /// The port it listens on, on 127.0.0.1; the same for the server's whole life.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `redis://…`, with the password if there is one.
    pub fn url(&self) -> String {
        self.url_via(self.port)
    }

    /// The same URL with another loopback port: that of a proxy in front of the server.
    pub fn url_via(&self, port: u16) -> String {
        let login = self.options.password.as_ref().map(|p| format!(":{p}@")).unwrap_or_default();
        format!("redis://{login}127.0.0.1:{port}")
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

    /// Kills the server if it runs, starts it again on the same port, and waits until it answers.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        self.spawn()?;
        self.wait_ready().await
    }

    /// Sends one command on a connection of its own and gives its reply: text of a string or error
    /// (which starts with `-`), a number in digits, `(nil)`. Arrays are refused.
    pub async fn call(&self, command: &[&str]) -> anyhow::Result<String> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
        let mut stream = BufReader::new(stream);
        if let Some(password) = &self.options.password {
            let reply = exchange(&mut stream, &["AUTH", password]).await?;
            ensure!(reply == "OK", "AUTH was answered with {reply}");
        }
        exchange(&mut stream, command).await
    }

    /// Waits until the server answers PING; fails with its log if it ends or does not answer.
    pub async fn wait_ready(&mut self) -> anyhow::Result<()> {
        let ready = async {
            while !self.answers().await {
                if let Some(child) = &mut self.child
                    && let Some(status) = child.try_wait()?
                {
                    bail!("redis-server ended with {status}; its log:\n{}", self.log());
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
        let ours = format!("process_id:{}\r\n", child.id());
        matches!(self.call(&["PING"]).await.as_deref(), Ok("PONG"))
            && self.call(&["INFO", "server"]).await.is_ok_and(|info| info.contains(&ours))
    }

    fn spawn(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new("redis-server");
        for (directive, value) in self.directives() {
            command.arg(format!("--{directive}")).arg(value);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => anyhow::anyhow!(
                "redis-server is not on the PATH; install it: the package is `redis-server` on \
                 Debian and Ubuntu, `redis` elsewhere"
            ),
            _ => anyhow::Error::new(error).context("cannot start redis-server"),
        })?;
        self.child = Some(child);
        Ok(())
    }

    fn directives(&self) -> Vec<(String, String)> {
        let directory = self.directory.0.display().to_string();
        let fixed = [
            ("port", self.port.to_string()),
            ("bind", Ipv4Addr::LOCALHOST.to_string()),
            ("dir", directory),
            ("logfile", "redis.log".to_owned()),
            ("save", String::new()),
            ("appendonly", if self.options.appendonly { "yes" } else { "no" }.to_owned()),
            ("appendfsync", "always".to_owned()),
            ("maxmemory", self.options.maxmemory.unwrap_or(0).to_string()),
            ("maxmemory-policy", "noeviction".to_owned()),
        ];
        let fixed = fixed.into_iter().map(|(directive, value)| (directive.to_owned(), value));
        let password = self.options.password.clone();
        let password = password.map(|password| ("requirepass".to_owned(), password));
        fixed.chain(password).chain(self.options.extra.clone()).collect()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.0.join("redis.log")).unwrap_or_default()
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        let child = self.child.as_ref().context("redis-server is not running; it was killed")?;
        Ok(Pid::from_child(child))
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

// === impl Directory ===

impl Directory {
    fn create() -> anyhow::Result<Self> {
        /// Tells apart the servers of one process.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("roost-redis-{}-{number}", std::process::id()));
        // One left behind by a former process of the same id.
        remove(&path);
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Removes a directory if it is there; what cannot be removed stays, as a test should not fail for it.
fn remove(path: &Path) {
    drop(fs::remove_dir_all(path));
}

/// Sends a command as RESP and reads its reply.
async fn exchange(stream: &mut BufReader<TcpStream>, command: &[&str]) -> anyhow::Result<String> {
    let mut request = format!("*{}\r\n", command.len());
    for word in command {
        write!(request, "${}\r\n{word}\r\n", word.len()).expect("a String takes everything");
    }
    stream.write_all(request.as_bytes()).await?;
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let line = line.trim_end();
    match line.chars().next() {
        Some('+' | ':') => Ok(line[1..].to_owned()),
        Some('-') => Ok(line.to_owned()),
        Some('$') => read_bulk(stream, &line[1..]).await,
        Some(_) => bail!("{command:?} has a reply that is no string or number: {line}"),
        None => bail!("redis-server closed the connection instead of answering {command:?}"),
    }
}

async fn read_bulk(stream: &mut BufReader<TcpStream>, length: &str) -> anyhow::Result<String> {
    // The length of "no value" is -1.
    let Ok(length) = length.parse::<usize>() else {
        return Ok("(nil)".to_owned());
    };
    let mut bytes = vec![0; length + 2];
    stream.read_exact(&mut bytes).await?;
    bytes.truncate(length);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
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
            extra: vec![("hz".to_owned(), "50".to_owned())],
        };
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
        let options = RedisOptions {
            extra: vec![("maxclients".to_owned(), "many".to_owned())],
            ..RedisOptions::default()
        };
        let error = RedisServer::start_with(options).await.unwrap_err().to_string();
        assert!(error.contains("redis-server ended with"), "{error}");
    }

    #[tokio::test]
    async fn dropping_a_server_ends_it_although_it_is_paused() {
        let mut redis = RedisServer::start().await.unwrap();
        let (port, directory) = (redis.port(), redis.directory.0.clone());
        redis.pause().unwrap();
        drop(redis);
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err());
        assert!(!directory.exists());
    }
}
