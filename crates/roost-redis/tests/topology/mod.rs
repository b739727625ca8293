//! Nodes on servers of `roost-testredis`, which the tests of one file share: each has a prefix of its
//! own, and the last one takes the servers with it.
#![allow(dead_code, reason = "each test file uses a part of this")]
#![allow(clippy::unwrap_used, reason = "a failed set-up step should fail the test")]

use std::any::Any;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use roost_cluster::contract::Fixture;
use roost_cluster::{NodeRef, Store, StoreSettings};
use roost_redis::{RedisConfig, RedisRuntime, RedisStore};
use roost_testredis::User;
use roost_types::NodeId;
use tokio::sync::Mutex;

/// How long something that must happen may take before the test fails: far more than it takes on a
/// machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What the tests of a file share while one of them needs it.
pub(crate) struct Shared<T>(Mutex<Weak<T>>);

impl<T: Send + Sync + 'static> Shared<T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::const_new(Weak::new()))
    }

    pub(crate) async fn get(&self, start: impl Future<Output = anyhow::Result<T>>) -> Arc<T> {
        let mut shared = self.0.lock().await;
        if let Some(running) = shared.upgrade() {
            return running;
        }
        let started = Arc::new(start.await.unwrap());
        *shared = Arc::downgrade(&started);
        started
    }
}

/// A user with the rights of a hub with this prefix; `*` in it stands for anything.
pub(crate) fn hub_user(prefix: &str) -> User {
    let rule = roost_redis::acl_rule("PREFIX", "hub", false).unwrap();
    let rules = rule.strip_prefix("hub on >PASSWORD ").unwrap().replace("PREFIX", prefix);
    User { name: "hub".into(), password: "s3cret".into(), rules }
}

/// With more time for everything than a busy machine takes, and keys of its own.
pub(crate) fn patient(url: &str) -> RedisConfig {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    RedisConfig {
        prefix: format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed)),
        response_timeout: PATIENCE,
        connect_timeout: PATIENCE,
        confirm_timeout: PATIENCE,
        wildcard_timeout: PATIENCE,
        write_validity: PATIENCE,
        ..RedisConfig::new(url)
    }
}

/// With times in which an outage is noticed soon, but not so short that a busy machine is one.
pub(crate) fn watchful(url: &str) -> RedisConfig {
    RedisConfig {
        response_timeout: Duration::from_secs(3),
        connect_timeout: Duration::from_secs(2),
        confirm_timeout: Duration::from_secs(3),
        wildcard_timeout: Duration::from_secs(5),
        write_validity: PATIENCE,
        ..patient(url)
    }
}

pub(crate) fn node(name: &str) -> NodeRef {
    NodeRef::start(NodeId::new(name).unwrap())
}

pub(crate) async fn connect(
    config: &RedisConfig,
    settings: &StoreSettings,
    node: &NodeRef,
) -> (Store, RedisRuntime) {
    RedisStore::connect(config.clone(), settings.clone(), node.clone()).await.unwrap()
}

/// Two nodes; `keep` are the servers.
pub(crate) async fn fixture(
    config: &RedisConfig,
    settings: StoreSettings,
    keep: impl Any + Send,
) -> Fixture {
    let (a, b) = (node("a"), node("b"));
    let (store_a, run_a) = connect(config, &settings, &a).await;
    let (store_b, run_b) = connect(config, &settings, &b).await;
    Fixture { store_a, store_b, a, b, keep: Box::new((run_a, run_b, keep)) }
}
