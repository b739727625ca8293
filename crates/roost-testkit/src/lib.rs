#![doc = include_str!("../README.md")]
#![allow(clippy::unwrap_used, reason = "a failed set-up step should fail the test")]

pub mod admin;
pub mod backend;
pub mod certificates;
pub mod collector;
pub mod device;
pub mod fleet;
pub mod hub;
pub mod keys;
pub mod process;
pub mod raw;
pub mod target;
mod wait;

pub use roost_testredis::{self as redis, ports, proxy};
pub use wait::{HANGS, eventually, soon};
