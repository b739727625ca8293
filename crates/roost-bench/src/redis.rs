//! A Redis of the benchmark's own, so that one command measures on a machine with nothing set up.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tempfile::TempDir;

/// How often it is asked whether it answers, 20 ms apart.
const TRIES: u32 = 1_500;
/// How many ports are tried: somebody else may take one first.
const PORTS: u32 = 5;

/// A running `redis-server`; dropping it kills the process.
#[derive(Debug)]
pub(crate) struct OwnRedis {
    child: Child,
    pub(crate) url: String,
    /// Where it would put files; it keeps none.
    _directory: TempDir,
}

// === impl OwnRedis ===

impl OwnRedis {
    /// Starts it and waits until it answers. Blocks.
    pub(crate) fn start() -> anyhow::Result<Self> {
        for _ in 1..PORTS {
            if let Ok(own) = Self::start_once() {
                return Ok(own);
            }
        }
        Self::start_once()
    }

    fn start_once() -> anyhow::Result<Self> {
        // Free a moment ago; if somebody was faster, Redis ends at once.
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let directory = tempfile::tempdir()?;
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--loglevel", "warning"])
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context(
                "cannot start redis-server: install the package redis-server, \
                 or name a Redis with --redis, or measure the embedded store with --memory",
            )?;
        let url = format!("redis://127.0.0.1:{port}");
        let mut own = Self { child, url, _directory: directory };
        for _ in 0..TRIES {
            if let Some(status) = own.child.try_wait()? {
                bail!("redis-server ended at once with {status}");
            }
            if answers(port) {
                return Ok(own);
            }
            pause();
        }
        bail!("redis-server does not answer");
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        // Both fail only where it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.write_all(b"PING\r\n")?;
        let mut answer = [0; 5];
        socket.read_exact(&mut answer)?;
        Ok(&answer == b"+PONG")
    };
    ask().unwrap_or(false)
}

#[expect(
    clippy::disallowed_methods,
    reason = "this thread is for blocking, and nothing else runs on it"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}
