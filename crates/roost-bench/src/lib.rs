#![doc = include_str!("../README.md")]

mod hub;
pub mod idle;
mod process;

pub use process::{Memory, raise_file_limit};
