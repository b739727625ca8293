#![doc = include_str!("../README.md")]

mod admin;
mod health;
mod log_level;
mod logging;
pub mod metrics;
mod telemetry;
pub mod trace;

pub use admin::serve_admin;
pub use health::{Check, CheckHandle, Health, HealthRegistry, Heartbeat, Status};
pub use log_level::{LogControl, LogLevel};
pub use logging::{LogError, LogFormat, check_level, init_tracing, subscriber};
pub use telemetry::Telemetry;
