#![doc = include_str!("../README.md")]

pub mod backend;
mod connection;
pub mod device;
pub mod fleet;
pub mod journal;
pub mod load;
pub mod names;
pub mod node;
mod plant;
pub mod rng;
pub mod run;
pub mod scale;
pub mod scenario;
pub mod store;
pub mod table;
pub mod world;
