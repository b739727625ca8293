//! The metrics of a hub: the catalogue, the label values, and a struct of handles per area.
//! [`Telemetry`](crate::Telemetry) puts them together; `/metrics` is served by `admin`.

pub mod catalog;
mod control;
mod edge;
mod family;
pub mod labels;
mod node;
pub(crate) mod process;
mod redis;

pub use control::{CommandGuard, ControlMetrics, RpcGuard};
pub use edge::{ConnectionGuard, EdgeMetrics};
pub(crate) use family::Registrar;
pub use family::{Family, Instrument, LabelSet};
pub use node::{DrainState, NodeMetrics, SessionGuard};
pub use redis::RedisMetrics;
