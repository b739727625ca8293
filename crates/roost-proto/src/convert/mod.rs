//! Between the types of `roost.control.v1` and those of `roost-types`: out is `From` and cannot
//! fail, in is checked and names every field that is wrong.
//!
//! What is checked here needs nothing but the request. Whether the caller may, and whether the
//! device or command exists, is for `roost-control`.

mod command;
mod fields;
mod headers;
mod message;
mod payload;
mod time;
mod violation;

pub use command::{
    BatchSend, CommandRef, DEFAULT_WAIT, ListCommands, ListDead, MAX_BATCH, MAX_WAIT, Redrive,
    SendCommand, Wait, WatchCommand, WatchCursor, send_and_watch,
};
pub use fields::{
    DEFAULT_HISTORY, DEFAULT_PAGE, MAX_HISTORY, MAX_PAGE, command_id, device_id, history_limit,
    node_id, node_id_filter, page_size, presence_filter, session_id_filter,
};
pub use headers::{
    MAX_HEADER_NAME_BYTES, MAX_HEADER_VALUE_BYTES, MAX_HEADERS, headers, headers_out,
};
pub use message::{MAX_SUBSCRIPTIONS, publication, qos, topic_filters};
pub use payload::{MAX_CONTENT_TYPE_BYTES, MAX_JSON_DEPTH, payload, required_payload};
pub use time::{duration, duration_out, timestamp, timestamp_out};
pub use violation::{Violation, Violations};
