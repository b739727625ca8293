//! roost-testkit

pub mod ports;
pub mod proxy;
pub mod redis;
