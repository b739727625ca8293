#![doc = include_str!("../README.md")]

mod bus;
mod check;
mod codec;
mod config;
mod devices;
mod error;
mod events;
mod keys;
mod link;
mod mailboxes;
mod nodes;
mod presence;
mod records;
mod reply;
mod script;
mod sessions;
mod store;

pub use config::RedisConfig;
pub use error::StartError;
pub use store::{RedisRuntime, RedisStore};
