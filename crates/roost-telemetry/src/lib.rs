#![doc = include_str!("../README.md")]

mod admin;
mod health;
mod logging;
pub mod metrics;
mod telemetry;

pub use admin::serve_admin;
pub use health::{Check, CheckHandle, Health, HealthRegistry, Heartbeat, Status};
pub use logging::{LogError, LogFormat, init_tracing, subscriber};
pub use telemetry::Telemetry;
