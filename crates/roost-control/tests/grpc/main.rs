//! The services of `roost-control` through real tonic clients, over the embedded store, with an edge
//! that is pretended: see `hub.rs`.
#![allow(clippy::unwrap_used, reason = "a failed set-up step should fail the test")]

mod batch;
mod cluster;
mod commands;
mod dead;
mod devices;
mod edge;
mod hub;
mod messages;
mod server;
mod streams;
mod trouble;
