#![doc = include_str!("../README.md")]

mod certificates;
mod cluster;
mod deaf;
mod options;
pub mod ports;
pub mod proxy;
mod replicated;
mod resp;
mod sentinel;
mod server;
mod slots;

pub use certificates::Certificates;
pub use cluster::{ClusterOptions, RedisCluster};
pub use deaf::DeafProxy;
pub use options::{RedisOptions, User};
pub use proxy::{FaultProxy, Way};
pub use replicated::{RedisReplicated, ReplicatedOptions};
pub use resp::Reply;
pub use sentinel::{MASTER_NAME, RedisSentinel, SentinelOptions};
pub use server::RedisServer;
pub use slots::{SLOTS, slot_of};
