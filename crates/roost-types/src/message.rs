//! A publication on its way: topic, payload and what the hub adds. Commands are in `command.rs`.

use std::fmt;
use std::sync::Arc;

use crate::{DeviceId, Payload, Topic, UnixMillis};

/// Names and values that travel with a message or a command, in the order given.
pub type Headers = Vec<(Arc<str>, Arc<str>)>;

/// How hard the hub tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Qos {
    /// Best effort: at most once.
    #[default]
    BestEffort,
    /// Acknowledged and kept: at least once.
    AtLeastOnce,
}

/// Who sent a message, as the hub authenticated them: never what they claim.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A device of the same tenant.
    Device(DeviceId),
    /// A back end, by the name of its key.
    Service(Arc<str>),
}

impl fmt::Display for Origin {
    /// `device:ID` or `service:NAME`, as devices and back ends see it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(id) => write!(f, "device:{id}"),
            Self::Service(name) => write!(f, "service:{name}"),
        }
    }
}

/// A place in a topic log: opaque to everybody but the log that gave it.
///
/// At most 64 printable ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Position(Arc<str>);

impl Position {
    /// Takes a position as it came from outside; `None` where it cannot be one.
    pub fn parse(text: &str) -> Option<Self> {
        let printable = text.bytes().all(|b| b.is_ascii_graphic());
        (printable && !text.is_empty() && text.len() <= 64).then(|| Self(text.into()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One publication. Immutable and shared: stored and encoded once, never per subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it was published.
    pub topic: Topic,
    /// What it carries.
    pub payload: Payload,
    /// What travels with it.
    pub headers: Headers,
    /// How hard the hub tries to deliver it.
    pub qos: Qos,
    /// When the hub took it, by hub time.
    pub time: UnixMillis,
    /// Who sent it, as authenticated.
    pub from: Origin,
    /// Where it stands in its topic's log; `None` where the topic keeps none.
    pub position: Option<Position>,
}
