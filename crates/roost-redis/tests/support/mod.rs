//! Redis servers of a test's own: started on a free port, paused, killed, and gone with the test.
#![allow(dead_code, reason = "each test file uses a part of this")]
#![allow(clippy::unwrap_used, reason = "a failed set-up step should fail the test")]

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use roost_cluster::contract::Fixture;
use roost_cluster::{NodeRef, Store, StoreHealth, StoreSettings};
use roost_redis::{RedisConfig, RedisRuntime, RedisStore};
use roost_types::{DeviceId, DeviceKey, NodeId, TenantId};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tokio::sync::watch;

/// How long something that must happen may take before the test fails: far more than it takes on a
/// machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A Redis of the test's own. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    args: Vec<String>,
}

impl Server {
    /// Starts one; `args` are further settings, `["--maxmemory", "10mb"]` say.
    pub(crate) async fn start(args: &[&str]) -> Self {
        loop {
            // Another process may take the port before Redis does; then another one is tried.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let args: Vec<String> = args.iter().map(ToString::to_string).collect();
            let mut server = Self { child: spawn(port, &args), port, args };
            if server.until_ready().await {
                return server;
            }
        }
    }

    /// Whether it answers, rather than having ended.
    async fn until_ready(&mut self) -> bool {
        loop {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if let Ok(mut connection) = self.try_client().await
                && redis::cmd("PING").exec_async(&mut connection).await.is_ok()
            {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    async fn try_client(&self) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
        let patient = redis::AsyncConnectionConfig::new()
            .set_response_timeout(Some(PATIENCE))
            .set_connection_timeout(Some(PATIENCE));
        let client = redis::Client::open(self.url())?;
        client.get_multiplexed_async_connection_with_config(&patient).await
    }

    /// A connection past the hub, to look and to spoil.
    pub(crate) async fn client(&self) -> redis::aio::MultiplexedConnection {
        self.try_client().await.unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Stops it from answering; it goes on accepting connections. When this returns, it has stopped.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
        let pid = Pid::from_child(&self.child);
        let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
        assert!(status.stopped(), "it ended instead of pausing");
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, empty, on its port.
    pub(crate) async fn restart(&mut self) {
        self.child = spawn(self.port, &self.args);
        assert!(self.until_ready().await, "the port is free again");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A paused process dies by this signal too.
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

fn spawn(port: u16, args: &[String]) -> Child {
    Command::new("redis-server")
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ])
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed")
}

pub(crate) fn node(name: &str) -> NodeRef {
    NodeRef::start(NodeId::new(name).unwrap())
}

pub(crate) fn device(name: &str) -> DeviceKey {
    DeviceKey::new(TenantId::default(), DeviceId::new(name).unwrap())
}

/// With more time for everything than a busy machine takes: for tests in which Redis is well, and an
/// answer that is late says something about the machine only.
pub(crate) fn patient(server: &Server) -> RedisConfig {
    RedisConfig {
        response_timeout: PATIENCE,
        connect_timeout: PATIENCE,
        confirm_timeout: PATIENCE,
        wildcard_timeout: PATIENCE,
        write_validity: PATIENCE,
        ..RedisConfig::new(server.url())
    }
}

/// With times in which an outage is noticed soon, but not so short that a busy machine is one.
pub(crate) fn watchful(server: &Server) -> RedisConfig {
    RedisConfig {
        response_timeout: Duration::from_secs(3),
        connect_timeout: Duration::from_secs(3),
        confirm_timeout: Duration::from_secs(3),
        wildcard_timeout: Duration::from_secs(5),
        write_validity: PATIENCE,
        ..RedisConfig::new(server.url())
    }
}

pub(crate) async fn connect(
    config: RedisConfig,
    settings: &StoreSettings,
    node: &NodeRef,
) -> (Store, RedisRuntime) {
    RedisStore::connect(config, settings.clone(), node.clone()).await.unwrap()
}

/// Two nodes on a fresh server that stays well.
pub(crate) async fn fixture(server: &Server, settings: StoreSettings) -> Fixture {
    fixture_with(&patient(server), settings).await
}

/// Two nodes on a server that will not stay well.
pub(crate) async fn faulty_fixture(server: &Server, settings: StoreSettings) -> Fixture {
    fixture_with(&watchful(server), settings).await
}

async fn fixture_with(config: &RedisConfig, settings: StoreSettings) -> Fixture {
    let (a, b) = (node("a"), node("b"));
    let (store_a, run_a) = connect(config.clone(), &settings, &a).await;
    let (store_b, run_b) = connect(config.clone(), &settings, &b).await;
    Fixture { store_a, store_b, a, b, keep: Box::new((run_a, run_b)) }
}

/// Waits until the store was lost after `health` was looked at, however soon it came back.
pub(crate) async fn interrupted(mut health: watch::Receiver<StoreHealth>) {
    tokio::time::timeout(PATIENCE, health.changed()).await.expect("in time").unwrap();
}

/// Waits until the store is up, or down.
pub(crate) async fn until(store: &Store, up: bool) {
    let mut health = store.health.clone();
    let reached = health.wait_for(|health| (*health == StoreHealth::Up) == up);
    tokio::time::timeout(PATIENCE, reached).await.expect("in time").unwrap();
}
