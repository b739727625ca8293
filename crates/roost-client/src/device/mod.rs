//! A device over WebSocket. [`Connection`] is one connection and does nothing by itself; [`Device`]
//! lives through connections: it reconnects, subscribes again, and sends results until the hub has
//! acknowledged them.

mod connection;
mod ends;
mod event;
mod handshake;
mod outcomes;
mod retry;
mod session;
mod stream;
#[cfg(test)]
mod tests;
mod worker;

pub use connection::{Connection, Hello, Welcome};
pub use ends::{Closed, ClosedBy, OpenError};
pub use event::{Ack, DeviceEvent, IncomingCommand, Outcome, RequestError};
pub use handshake::{Refusal, Url, UrlError};
pub use retry::{Backoff, Retry};
pub use session::{Device, DeviceEvents, DeviceOptions};
