#![doc = include_str!("../README.md")]

pub mod cli;
pub mod config;
pub mod hub;
mod redis;
pub mod simulated;
mod tls;
