#![doc = include_str!("../README.md")]

mod auth;
mod cluster;
mod commands;
mod config;
mod control;
mod devices;
mod fanout;
mod follow;
mod messages;
mod meter;
mod outlet;
mod refusal;
mod server;
mod shown;
mod waiters;
mod watch;

pub use config::ControlConfig;
pub use control::Control;
pub use server::ServeError;
