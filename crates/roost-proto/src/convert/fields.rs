//! Fields that many requests have: ids, filters and page sizes.

use roost_types::{CommandId, DeviceId, ErrorCode, IdError, NodeId, SessionId};

use super::Violation;
use crate::control::v1;

/// How many entries a page has where the caller does not say.
pub const DEFAULT_PAGE: usize = 50;
/// How many entries a page has at the most.
pub const MAX_PAGE: usize = 1000;
/// How many entries of a device's history are given where the caller does not say.
pub const DEFAULT_HISTORY: usize = 64;
/// How many at the most.
pub const MAX_HISTORY: usize = 10_000;

/// The field `device_id`, which every call needs that has it.
pub fn device_id(text: &str) -> Result<DeviceId, Violation> {
    DeviceId::new(text).map_err(|error| id_violation("device_id", &error))
}

/// The field `command_id` where it is needed.
pub fn command_id(text: &str) -> Result<CommandId, Violation> {
    CommandId::new(text).map_err(|error| id_violation("command_id", &error))
}

/// The field `node_id` where it is needed.
pub fn node_id(text: &str) -> Result<NodeId, Violation> {
    NodeId::new(text).map_err(|error| id_violation("node_id", &error))
}

/// The field `limit` of a history: the default for 0.
pub fn history_limit(value: i32) -> Result<usize, Violation> {
    match usize::try_from(value) {
        Ok(0) => Ok(DEFAULT_HISTORY),
        Ok(limit) if limit <= MAX_HISTORY => Ok(limit),
        _ => Err(Violation::invalid(
            "limit",
            format!("is {value}; it must be 0 (for {DEFAULT_HISTORY}) to {MAX_HISTORY}"),
        )),
    }
}

/// The field `session_id` where it narrows a request; empty is none.
pub fn session_id_filter(text: &str) -> Result<Option<SessionId>, Violation> {
    let given = (!text.is_empty()).then(|| text.parse());
    given.transpose().map_err(|error| id_violation("session_id", &error))
}

/// The field `node_id` where it narrows a request; empty is none.
pub fn node_id_filter(text: &str) -> Result<Option<NodeId>, Violation> {
    let given = (!text.is_empty()).then(|| NodeId::new(text));
    given.transpose().map_err(|error| id_violation("node_id", &error))
}

/// The field `presence` where it narrows a request; unspecified is none.
pub fn presence_filter(value: i32) -> Result<Option<v1::Presence>, Violation> {
    match v1::Presence::try_from(value) {
        Ok(v1::Presence::Unspecified) => Ok(None),
        Ok(presence) => Ok(Some(presence)),
        Err(_) => Err(Violation::invalid(
            "presence",
            format!("has the value {value}; this hub knows ONLINE (1) and OFFLINE (2)"),
        )),
    }
}

/// The field `page_size`: the default for 0, the most there is for more.
pub fn page_size(value: i32) -> Result<usize, Violation> {
    match usize::try_from(value) {
        Ok(0) => Ok(DEFAULT_PAGE),
        Ok(size) => Ok(size.min(MAX_PAGE)),
        Err(_) => Err(Violation::invalid(
            "page_size",
            format!("is {value}; it must be 0 (for {DEFAULT_PAGE}) to {MAX_PAGE}"),
        )),
    }
}

fn id_violation(field: &str, error: &IdError) -> Violation {
    let code = match error {
        IdError::Empty { .. } => ErrorCode::FieldMissing,
        _ => ErrorCode::IdInvalid,
    };
    Violation::new(code, field, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_is_missing_and_one_that_is_wrong_have_different_codes() {
        let missing = device_id("").unwrap_err();
        assert_eq!(missing.code, ErrorCode::FieldMissing);
        let wrong = command_id("a/b").unwrap_err();
        assert_eq!(wrong.code, ErrorCode::IdInvalid);
        assert_eq!(wrong.field, "command_id");
    }

    #[test]
    fn filters_may_be_absent_but_not_wrong() {
        assert_eq!(session_id_filter(""), Ok(None));
        let id = SessionId::random();
        assert_eq!(session_id_filter(&id.to_string()), Ok(Some(id)));
        assert_eq!(session_id_filter("x").unwrap_err().field, "session_id");
        assert_eq!(node_id_filter(""), Ok(None));
        assert_eq!(node_id_filter("{p1}").unwrap_err().field, "node_id");
        assert_eq!(presence_filter(0), Ok(None));
        assert_eq!(presence_filter(2), Ok(Some(v1::Presence::Offline)));
        assert_eq!(presence_filter(-7).unwrap_err().field, "presence");
    }

    #[test]
    fn page_sizes_are_defaulted_bounded_and_never_negative() {
        assert_eq!(page_size(0), Ok(DEFAULT_PAGE));
        assert_eq!(page_size(7), Ok(7));
        assert_eq!(page_size(i32::MAX), Ok(MAX_PAGE));
        assert!(page_size(-1).is_err());
        assert_eq!((history_limit(0), history_limit(10_000)), (Ok(64), Ok(10_000)));
        assert!(history_limit(10_001).is_err() && history_limit(-1).is_err());
        assert!(page_size(i32::MIN).is_err());
    }
}
