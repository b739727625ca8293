#![doc = include_str!("../README.md")]
#![allow(clippy::unwrap_used, reason = "a failed set-up step should fail the test")]

pub mod admin;
pub mod backend;
pub mod device;
pub mod fleet;
pub mod hub;
pub mod keys;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod redis;
pub mod target;
mod wait;

pub use wait::{eventually, soon};
