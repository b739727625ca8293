//! The JSON protocol, pinned by text written out; `properties.rs` has what holds for all messages.

mod payloads;
mod properties;
mod reading;
mod refusing;
mod writing;

use roost_types::{ErrorCode, Qos, Text, Topic, TopicFilter};

use super::*;

const LIMITS: PayloadLimits = PayloadLimits::new(100);

/// The one message in `text`.
fn read(text: &str) -> Result<FromDevice, Reject> {
    let mut messages = decode(text, &LIMITS);
    assert_eq!(messages.len(), 1, "{text}");
    messages.remove(0)
}

/// The refusal of the one message in `text`, the connection staying.
fn refused(text: &str) -> Reject {
    let reject = read(text).expect_err(text);
    assert!(!reject.fatal, "{text}: {reject:?}");
    reject
}

fn topic(text: &str) -> Topic {
    Topic::new(text).unwrap()
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::new(text).unwrap()
}

fn command_id(text: &str) -> CommandId {
    CommandId::new(text).unwrap()
}
