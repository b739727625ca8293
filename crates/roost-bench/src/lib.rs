#![doc = include_str!("../README.md")]

mod hub;
pub mod idle;
mod process;
mod redis;

pub use process::{Memory, raise_file_limit};
