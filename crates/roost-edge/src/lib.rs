#![doc = include_str!("../README.md")]

mod adapter;
mod admission;
mod config;
mod conn;
mod edge;
mod handle;
mod handshake;
mod interests;
mod lifecycle;
mod listen;
mod outbox;
mod registry;
mod session;
mod transport;
mod wheel;
mod worker;

pub use config::{DeviceLimits, EdgeConfig, PreAuthLimits, Timeouts};
pub use edge::{Edge, EdgeParts};
pub use handle::{Drained, EdgeHandle};
pub use lifecycle::{Lifecycle, Phase};
pub use listen::bind_workers;
