//! The metrics of a hub: the catalogue, the label values, and a struct of handles per area.
//! [`Telemetry`](crate::Telemetry) puts them together; `/metrics` is served by `admin`.

pub mod catalog;
mod control;
mod drain;
mod edge;
mod family;
pub mod labels;
mod node;
pub(crate) mod process;
mod redis;
mod worker;

pub use control::{CommandGuard, ControlMetrics, RpcGuard};
pub(crate) use drain::Drain;
pub use drain::DrainState;
pub use edge::{ConnectionGuard, EdgeMetrics};
pub(crate) use family::Registrar;
pub use family::{Family, Instrument, LabelSet};
pub use node::{NodeMetrics, SessionGuard};
pub use redis::RedisMetrics;
pub use worker::WorkerIndex;
