#![doc = include_str!("../README.md")]

mod accept;
mod auth;
mod batch;
mod cluster;
mod commands;
mod config;
mod control;
mod devices;
mod fanout;
mod follow;
mod history;
mod messages;
mod meter;
mod outlet;
mod pages;
mod redrive;
mod refusal;
mod server;
mod shown;
mod stream;
mod tls;
mod traced;
mod waiters;
mod watch;

pub use config::ControlConfig;
pub use control::Control;
pub use server::ServeError;
