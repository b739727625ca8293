//! Which scenarios there are: how each is set up, what it breaks, and what must have been seen of that.
//! The faults themselves are in the files beside this one, by what they break.

mod clock;
mod devices;
mod failover;
mod network;
mod nodes;
mod redis;

use std::future::Future;
use std::pin::Pin;

use roost_testredis::{RedisOptions, RedisServer};

use crate::scale::Scale;
use crate::store::Store;
use crate::world::{Setup, World};

type Boxed<'a, T> = Pin<Box<dyn Future<Output = anyhow::Result<T>> + 'a>>;

/// One way to break a hub.
#[derive(Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// How it is set up.
    pub(crate) setup: fn(Scale) -> Boxed<'static, Setup>,
    /// What is broken; when it returns, all is mended.
    pub(crate) fault: for<'a> fn(&'a mut World) -> Boxed<'a, ()>,
    /// What the run must have seen, beside broken promises.
    pub(crate) expect: fn(&mut World) -> anyhow::Result<()>,
}

/// Every scenario, in the order in which they are run.
pub fn all() -> Vec<Scenario> {
    let groups =
        [nodes::all(), redis::all(), failover::all(), network::all(), devices::all(), clock::all()];
    groups.into_iter().flatten().collect()
}

/// One Redis without persistence, and everything else as usual.
fn plain(_: Scale) -> Boxed<'static, Setup> {
    Box::pin(async { Ok(Setup::new(Store::Single(RedisServer::start().await?))) })
}

/// The same with a proxy between each node and Redis.
fn proxied(scale: Scale) -> Boxed<'static, Setup> {
    Box::pin(async { Ok(Setup { proxied: true, ..plain(scale).await? }) })
}

/// One Redis that keeps an append-only file, flushed as `fsync` says: with `everysec` a Redis that is killed
/// may lose what it has answered, since it puts a write off while an earlier one is being flushed.
fn persistent(fsync: &'static str) -> Boxed<'static, Setup> {
    Box::pin(async move {
        let options = RedisOptions { appendonly: true, ..RedisOptions::default() };
        let redis = RedisServer::start_with(options.with("appendfsync", fsync)).await?;
        Ok(Setup::new(Store::Single(redis)))
    })
}

#[expect(clippy::unnecessary_wraps, reason = "the signature that others need")]
fn nothing(_: &mut World) -> anyhow::Result<()> {
    Ok(())
}
