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
use rustix::process::{Pid, Signal, kill_process};

/// How long something that must happen may take before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

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
        redis::Client::open(self.url())?.get_multiplexed_async_connection().await
    }

    /// A connection past the hub, to look and to spoil.
    pub(crate) async fn client(&self) -> redis::aio::MultiplexedConnection {
        self.try_client().await.unwrap()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Stops it from answering; it goes on accepting connections.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
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

pub(crate) async fn connect(
    server: &Server,
    settings: &StoreSettings,
    node: &NodeRef,
) -> (Store, RedisRuntime) {
    let config = RedisConfig::new(server.url());
    RedisStore::connect(config, settings.clone(), node.clone()).await.unwrap()
}

/// Two nodes on a fresh server.
pub(crate) async fn fixture(server: &Server, settings: StoreSettings) -> Fixture {
    let (a, b) = (node("a"), node("b"));
    let (store_a, run_a) = connect(server, &settings, &a).await;
    let (store_b, run_b) = connect(server, &settings, &b).await;
    Fixture { store_a, store_b, a, b, keep: Box::new((run_a, run_b)) }
}

/// Waits until the store is up, or down.
pub(crate) async fn until(store: &Store, up: bool) {
    let mut health = store.health.clone();
    let reached = health.wait_for(|health| (*health == StoreHealth::Up) == up);
    tokio::time::timeout(PATIENCE, reached).await.expect("in time").unwrap();
}
