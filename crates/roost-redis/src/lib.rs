#![doc = include_str!("../README.md")]

mod acl;
mod bus;
mod check;
mod codec;
mod config;
mod devices;
mod error;
mod events;
mod history;
mod inspect;
mod keys;
mod link;
mod listing;
mod mailboxes;
mod nodes;
mod presence;
mod records;
mod reply;
mod report;
mod script;
mod sessions;
mod store;
mod tally;
mod target;

pub use acl::{acl_rule, sentinel_acl_rule};
pub use config::RedisConfig;
pub use error::StartError;
pub use inspect::{Finding, Gravity, Report, ServerReport, inspect};
pub use store::{RedisRuntime, RedisStore};
