//! The edge over real sockets on ports that the system chose, on the embedded store.
//!
//! `support.rs` has the hub and the device that the others use.
#![allow(clippy::unwrap_used, reason = "a failed set-up step should fail the test")]

mod commands;
mod drain;
mod history;
mod hostile;
mod lifecycle;
mod outage;
mod slow;
mod support;
mod topics;
mod upgrade;
