//! roost
pub mod config;
