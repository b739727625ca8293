#![doc = include_str!("../README.md")]

mod command;
mod error;
mod id;
mod message;
mod partition;
mod payload;
mod time;
mod topic;
mod trace;
mod trie;

pub use command::{
    Command, CommandResult, CommandSpec, CommandState, DEFAULT_TTL, LateResult, MAX_ATTEMPTS,
    MAX_TTL, Progress, ResultStatus, Transition,
};
pub use error::{ErrorCode, HubError};
pub use id::{CommandId, DeviceId, DeviceKey, IdError, NodeId, SessionId, TenantId};
pub use message::{Headers, Message, Origin, Position, Qos};
pub use partition::{PARTITIONS, Partition};
pub use payload::{Payload, PayloadKind, Text};
pub use time::UnixMillis;
pub use topic::{MAX_TOPIC_BYTES, MAX_TOPIC_LEVELS, Topic, TopicError, TopicFilter};
pub use trace::TraceContext;
pub use trie::FilterTrie;
