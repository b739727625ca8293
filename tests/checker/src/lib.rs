#![doc = include_str!("../README.md")]

mod check;
mod event;
mod history;
mod recorder;

pub use check::{Options, Report, Rule, Violation, check};
pub use event::{Event, Kind};
pub use history::{History, ReadError};
pub use recorder::{Recorder, monotonic_us};
