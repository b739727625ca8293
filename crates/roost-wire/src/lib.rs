#![doc = include_str!("../README.md")]

pub mod device;
pub mod ws;
