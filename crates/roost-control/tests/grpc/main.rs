//! The services of `roost-control` through real tonic clients, over the embedded store, with an edge
//! that is pretended: see `hub.rs`.
#![allow(clippy::unwrap_used, reason = "a failed set-up step should fail the test")]

mod commands;
mod devices;
mod edge;
mod hub;
mod messages;
mod server;
mod trouble;
