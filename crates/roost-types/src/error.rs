//! Every reason for which the hub says no: one code each, mapped once each to close code, gRPC
//! status and metric label. Which operation gives which is said where the operation is.

use std::borrow::Cow;
use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident, $text:literal, $label:literal, close $close:expr, grpc $grpc:literal, retry $retry:literal;)*) => {
        /// Why the hub said no.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
        }

        impl ErrorCode {
            /// Every code once.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// As devices and back ends read it: `TOPIC_INVALID`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// As a metric label: `topic_invalid`.
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// The WebSocket close code where this ends a connection; `None` where it never does.
            pub fn close_code(self) -> Option<u16> {
                match self { $(Self::$name => $close,)* }
            }

            /// The numeric `google.rpc.Code` of a gRPC call that ends with this.
            pub fn grpc_code(self) -> i32 {
                match self { $(Self::$name => $grpc,)* }
            }

            /// Whether the same request may succeed later without being changed.
            pub fn retryable(self) -> bool {
                match self { $(Self::$name => $retry,)* }
            }
        }
    };
}

codes! {
    /// A frame is not a message of the protocol at all: not JSON, say. Ends the connection.
    BadMessage, "BAD_MESSAGE", "bad_message", close Some(4400), grpc 3, retry false;
    /// The message has a `type` that this hub does not know.
    UnknownType, "UNKNOWN_TYPE", "unknown_type", close None, grpc 3, retry false;
    /// There is no such method of the gRPC services, or not in this version.
    UnknownMethod, "UNKNOWN_METHOD", "unknown_method", close None, grpc 12, retry false;
    /// A field that is needed is absent.
    FieldMissing, "FIELD_MISSING", "field_missing", close None, grpc 3, retry false;
    /// A field has a value that it cannot have.
    FieldInvalid, "FIELD_INVALID", "field_invalid", close None, grpc 3, retry false;
    /// A topic or filter breaks a rule.
    TopicInvalid, "TOPIC_INVALID", "topic_invalid", close None, grpc 3, retry false;
    /// An id breaks a rule.
    IdInvalid, "ID_INVALID", "id_invalid", close None, grpc 3, retry false;
    /// A payload has more decoded bytes than `limits.payload_bytes`.
    PayloadTooLarge, "PAYLOAD_TOO_LARGE", "payload_too_large", close None, grpc 3, retry false;
    /// A whole message has more bytes than `limits.frame_bytes`. Ends the connection.
    MessageTooBig, "MESSAGE_TOO_BIG", "message_too_big", close Some(1009), grpc 3, retry false;
    /// The topic keeps no messages, so an acknowledged publication or subscription cannot be had.
    QosUnsupported, "QOS_UNSUPPORTED", "qos_unsupported", close None, grpc 12, retry false;
    /// The first message was not `hello`. Ends the connection.
    HelloExpected, "HELLO_EXPECTED", "hello_expected", close Some(4400), grpc 9, retry false;
    /// A second `hello` on one connection.
    HelloRepeated, "HELLO_REPEATED", "hello_repeated", close None, grpc 9, retry false;
    /// A frame breaks RFC 6455. Ends the connection.
    ProtocolError, "PROTOCOL_ERROR", "protocol_error", close Some(1002), grpc 3, retry false;
    /// A binary frame where the protocol has text, or the reverse. Ends the connection.
    UnsupportedData, "UNSUPPORTED_DATA", "unsupported_data", close Some(1003), grpc 3, retry false;
    /// A text frame is not UTF-8. Ends the connection.
    InvalidUtf8, "INVALID_UTF8", "invalid_utf8", close Some(1007), grpc 3, retry false;
    /// No credential came.
    CredentialMissing, "CREDENTIAL_MISSING", "credential_missing", close Some(4401), grpc 16, retry false;
    /// The credential is not one of this hub's.
    CredentialInvalid, "CREDENTIAL_INVALID", "credential_invalid", close Some(4401), grpc 16, retry false;
    /// The credential was good once.
    CredentialExpired, "CREDENTIAL_EXPIRED", "credential_expired", close Some(4401), grpc 16, retry false;
    /// The caller is known and may not do this.
    PermissionDenied, "PERMISSION_DENIED", "permission_denied", close Some(4403), grpc 7, retry false;
    /// A newer session of the same device took over. Ends the connection.
    Replaced, "REPLACED", "replaced", close Some(4409), grpc 10, retry false;
    /// An operator disconnected the device. Ends the connection.
    Disconnected, "DISCONNECTED", "disconnected", close Some(1012), grpc 10, retry true;
    /// The node is going away. Ends the connection.
    Draining, "DRAINING", "draining", close Some(1012), grpc 14, retry true;
    /// The hub has no room at the moment. Ends the connection.
    Overloaded, "OVERLOADED", "overloaded", close Some(1013), grpc 8, retry true;
    /// The caller is too fast.
    RateLimited, "RATE_LIMITED", "rate_limited", close Some(4429), grpc 8, retry true;
    /// The device does not read what it is sent. Ends the connection.
    SlowConsumer, "SLOW_CONSUMER", "slow_consumer", close Some(4413), grpc 8, retry true;
    /// Nothing came from the device for too long, not even a pong. Ends the connection.
    IdleTimeout, "IDLE_TIMEOUT", "idle_timeout", close Some(4408), grpc 4, retry true;
    /// A bound on how many of something a device may have: subscriptions, say.
    LimitExceeded, "LIMIT_EXCEEDED", "limit_exceeded", close None, grpc 8, retry false;
    /// There is no such device, command or page.
    NotFound, "NOT_FOUND", "not_found", close None, grpc 5, retry false;
    /// The command id is taken by a command with another body.
    AlreadyExists, "ALREADY_EXISTS", "already_exists", close None, grpc 6, retry false;
    /// The command has not ended as DEAD, so it cannot be driven again.
    NotDead, "NOT_DEAD", "not_dead", close None, grpc 9, retry false;
    /// More durability is asked than the hub is set up for.
    DurabilityUnsupported, "DURABILITY_UNSUPPORTED", "durability_unsupported", close None, grpc 9, retry false;
    /// The device's mailbox is at its cap; nothing accepted is ever trimmed to make room.
    QueueFull, "QUEUE_FULL", "queue_full", close None, grpc 8, retry true;
    /// The store has no memory left for what is new.
    StoreFull, "STORE_FULL", "store_full", close None, grpc 8, retry true;
    /// The session that asks is no longer the device's session.
    Fenced, "FENCED", "fenced", close Some(4409), grpc 10, retry false;
    /// The store cannot be reached and nothing was sent to it: retrying is safe.
    NotEnqueued, "NOT_ENQUEUED", "not_enqueued", close None, grpc 14, retry true;
    /// The store was asked and did not answer: retry with the same id.
    Indeterminate, "INDETERMINATE", "indeterminate", close None, grpc 14, retry true;
    /// The store, or what stands behind it, cannot do this at the moment.
    Unavailable, "UNAVAILABLE", "unavailable", close Some(1013), grpc 14, retry true;
    /// The caller's filter, page token or cursor is not one that this hub gave.
    CursorInvalid, "CURSOR_INVALID", "cursor_invalid", close None, grpc 3, retry false;
    /// A mistake of the hub's own; the log has more.
    Internal, "INTERNAL", "internal", close Some(1011), grpc 13, retry true;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A "no" with its reason, as it goes to a device or a back end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct HubError {
    /// Why, for machines.
    pub code: ErrorCode,
    /// What was wrong and what would be right, for people.
    pub message: Cow<'static, str>,
    /// Which field of the request, where it is one.
    pub field: Option<Cow<'static, str>>,
}

impl HubError {
    /// An error without a field.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), field: None }
    }

    /// The same about one field of the request.
    #[must_use]
    pub fn at(mut self, field: impl Into<Cow<'static, str>>) -> Self {
        self.field = Some(field.into());
        self
    }
}

impl From<crate::IdError> for HubError {
    fn from(error: crate::IdError) -> Self {
        Self::new(ErrorCode::IdInvalid, error.to_string())
    }
}

impl From<crate::TopicError> for HubError {
    fn from(error: crate::TopicError) -> Self {
        Self::new(ErrorCode::TopicInvalid, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_code_reads_the_same_for_people_and_metrics() {
        let texts: HashSet<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            assert_eq!(code.label(), code.as_str().to_ascii_lowercase());
            assert!((1..=16).contains(&code.grpc_code()), "{code}");
        }
    }
}
