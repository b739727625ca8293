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
mod orders;
mod outbox;
mod random;
mod registry;
mod session;
mod shed;
mod tls;
mod transport;
mod wheel;
mod worker;

pub use config::{ConnectRate, DeviceLimits, EdgeConfig, PreAuthLimits, Timeouts};
pub use edge::{Edge, EdgeParts};
pub use handle::{DrainPlan, Drained, EdgeHandle};
pub use lifecycle::{Lifecycle, Phase};
pub use listen::{Listeners, bind_workers};
