#![doc = include_str!("../README.md")]

pub mod backend;
pub mod device;
mod tls;

pub use tls::{Trust, TrustError};
