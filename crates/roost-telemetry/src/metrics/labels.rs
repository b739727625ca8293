//! The label values of the metric catalogue: closed enums, so that no device, address, topic,
//! session or raw error can ever become a time series. What does not fit is `Other`.
//! The metrics that carry them are in `catalog.rs`.

use roost_types::ErrorCode;

/// A closed set of label values.
pub trait Label: Copy + std::fmt::Debug + Send + Sync + 'static {
    /// The label's name, as in `name="value"`.
    const NAME: &'static str;
    /// Every value, in the order of [`Label::index`].
    const ALL: &'static [Self];
    /// The value as it stands in `/metrics`.
    fn as_str(self) -> &'static str;
    /// Place of this value in [`Label::ALL`].
    fn index(self) -> usize;
}

macro_rules! labels {
    ($($(#[$meta:meta])* $name:ident = $key:literal { $($(#[$vmeta:meta])* $variant:ident => $text:literal,)+ })+) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vmeta])* $variant,)+ }

        impl Label for $name {
            const NAME: &'static str = $key;
            const ALL: &'static [Self] = &[$(Self::$variant,)+];
            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
            fn index(self) -> usize {
                self as usize
            }
        }
    )+};
}

labels! {
    /// The device protocol of a connection.
    Protocol = "protocol" {
        /// `roost.v1.json`.
        Json => "json",
        /// `/v1/echo`, for conformance suites.
        Echo => "echo",
    }

    /// How an attempt to connect ended.
    ConnectOutcome = "outcome" {
        /// Answered with 101.
        Accepted => "accepted",
        /// Not a correct WebSocket request: answered 400, 405 or 426.
        BadRequest => "bad_request",
        /// No such path: answered 404.
        NotFound => "not_found",
        /// Credential missing, bad or expired: answered 401.
        Unauthenticated => "unauthenticated",
        /// Known but not allowed, a foreign Origin included: answered 403.
        Forbidden => "forbidden",
        /// Too many attempts: answered 429 or 503.
        RateLimited => "rate_limited",
        /// The node is full: answered 503.
        Capacity => "capacity",
        /// The node is draining: answered 503.
        Draining => "draining",
        /// Sessions cannot be claimed now: answered 503.
        Unavailable => "unavailable",
        /// No TLS connection came about: not answered, or 400 to HTTP without TLS.
        Tls => "tls",
        /// The request did not arrive in time.
        Timeout => "timeout",
        /// The socket failed or was closed before an answer.
        Io => "io",
    }

    /// Who ended a connection.
    Initiator = "initiator" {
        /// The device sent the first close frame, or closed its socket.
        Device => "device",
        /// The hub sent the first close frame.
        Hub => "hub",
        /// Nobody: the socket broke, or silence lasted too long.
        Network => "network",
    }

    /// Why a connection ended.
    DisconnectReason = "reason" {
        /// 1000, or a device that closed without a code.
        Normal => "normal",
        /// 1001: the device went away.
        GoingAway => "going_away",
        /// 1012: the node drained.
        Draining => "draining",
        /// 1013: the node was overloaded.
        Overload => "overload",
        /// 4429.
        RateLimited => "rate_limited",
        /// 4413: the device read too slowly.
        SlowConsumer => "slow_consumer",
        /// 4408: idle, or no pong.
        Idle => "idle",
        /// 1002, 1003, 1007: broke RFC 6455.
        Protocol => "protocol",
        /// 1009: a message over the frame limit.
        TooBig => "too_big",
        /// 4400: broke the device protocol.
        BadMessage => "bad_message",
        /// 4401: credential missing, bad or expired.
        Unauthenticated => "unauthenticated",
        /// 4403.
        Forbidden => "forbidden",
        /// 4409: a newer session took over.
        Replaced => "replaced",
        /// 4410: the device was revoked or disconnected by an operator.
        Revoked => "revoked",
        /// 1011: a fault of the hub.
        Internal => "internal",
        /// The socket ended without a close frame.
        Lost => "lost",
        /// Any other code.
        Other => "other",
    }

    /// Which way a message travels, seen from the hub.
    Direction = "direction" {
        /// Device to hub.
        In => "in",
        /// Hub to device.
        Out => "out",
    }

    /// The `type` of a device-protocol message.
    MessageKind = "kind" {
        /// `hello`.
        Hello => "hello",
        /// `welcome`.
        Welcome => "welcome",
        /// `subscribe`.
        Subscribe => "subscribe",
        /// `unsubscribe`.
        Unsubscribe => "unsubscribe",
        /// `publish`.
        Publish => "publish",
        /// `message`.
        Message => "message",
        /// `command`.
        Command => "command",
        /// `received`.
        Received => "received",
        /// `progress`.
        Progress => "progress",
        /// `result`.
        Result => "result",
        /// `cancel`.
        Cancel => "cancel",
        /// `ack`.
        Ack => "ack",
        /// `error`.
        Error => "error",
        /// `gap`.
        Gap => "gap",
        /// `goaway`.
        Goaway => "goaway",
        /// `ping`.
        Ping => "ping",
        /// `pong`.
        Pong => "pong",
        /// Anything else, an unknown `type` included.
        Other => "other",
    }

    /// Why a message did not reach a subscriber that it was meant for.
    DropReason = "reason" {
        /// The subscriber's send queue was full.
        QueueFull => "queue_full",
        /// The subscriber disconnected while the message was on its way.
        Disconnected => "disconnected",
        /// A queue inside the node (to a worker, from the bus) was full.
        Internal => "internal",
    }

    /// Why a subscriber was told of a gap.
    GapCause = "cause" {
        /// Messages were dropped on the way to this subscriber.
        Dropped => "dropped",
        /// The position asked for is not in a log (any more).
        NoLog => "no_log",
        /// The bus was interrupted, or reported a hole.
        Bus => "bus",
    }

    /// How a command ended, or why it was not taken.
    CommandOutcome = "outcome" {
        /// The device reported success.
        Succeeded => "succeeded",
        /// The device reported failure.
        Failed => "failed",
        /// The device refused it.
        Rejected => "rejected",
        /// It expired.
        Expired => "expired",
        /// It was cancelled.
        Cancelled => "cancelled",
        /// It used up its attempts.
        Dead => "dead",
        /// Refused: the mailbox is full.
        QueueFull => "queue_full",
        /// Refused: the request was wrong.
        Invalid => "invalid",
        /// Not sent to the store.
        NotEnqueued => "not_enqueued",
        /// Sent to the store, which did not answer.
        Indeterminate => "indeterminate",
    }

    /// State of the sessions that this node owns.
    SessionState = "state" {
        /// Claimed, under a valid lease.
        Live => "live",
        /// The socket is kept while the lease is lost: nothing is delivered or acknowledged.
        Suspended => "suspended",
    }

    /// What became of a span of a recorded trace.
    SpanOutcome = "outcome" {
        /// The collector took it.
        Exported => "exported",
        /// The collector did not take it, or did not answer.
        Failed => "failed",
        /// Too many waited for the collector.
        Dropped => "dropped",
    }

    /// How a new session came to replace one.
    TakeoverReason = "reason" {
        /// The device connected again to the same node.
        SameNode => "same_node",
        /// The device connected to another node.
        OtherNode => "other_node",
        /// The former owner's lease had ended.
        DeadNode => "dead_node",
    }

    /// Which part of the hub asked Redis, and for what.
    RedisCommand = "command" {
        /// PING and TIME.
        Ping => "ping",
        /// Node lease heartbeat.
        Heartbeat => "heartbeat",
        /// List of nodes.
        Nodes => "nodes",
        /// Session claim.
        Claim => "claim",
        /// Session release.
        Release => "release",
        /// Session revalidation and other session writes.
        Session => "session",
        /// Look-up of one session.
        Lookup => "lookup",
        /// A page of sessions.
        List => "list",
        /// Command enqueue.
        Enqueue => "enqueue",
        /// Read of a mailbox or a command.
        Read => "read",
        /// Advance of a command's state.
        Advance => "advance",
        /// Command cancel.
        Cancel => "cancel",
        /// Partition sweep: expiry and retries.
        Sweep => "sweep",
        /// PUBLISH or SPUBLISH.
        Publish => "publish",
        /// SUBSCRIBE, UNSUBSCRIBE and their sharded forms.
        Subscribe => "subscribe",
        /// Interest table.
        Interest => "interest",
    }

    /// How a Redis command ended.
    RedisOutcome = "outcome" {
        /// Answered.
        Ok => "ok",
        /// Answered with FENCED or STALE: a write that came too late.
        Fenced => "fenced",
        /// Redis answered with an error.
        Error => "error",
        /// No answer in time.
        Timeout => "timeout",
        /// The connection broke, or there was none.
        Connection => "connection",
    }

    /// What went wrong between a node and Redis.
    RedisErrorKind = "kind" {
        /// No answer in time.
        Timeout => "timeout",
        /// The connection broke, or there was none.
        Connection => "connection",
        /// `OOM`: `maxmemory` is reached.
        Full => "full",
        /// `LOADING`, `MASTERDOWN`, `CLUSTERDOWN`, `TRYAGAIN`, `BUSY`: it cannot answer now.
        Busy => "busy",
        /// `READONLY`, `MOVED`, `ASK`: another node is the master of this.
        NotMaster => "not_master",
        /// `MISCONF`, `NOREPLICAS`: it refuses writes, to keep its promises.
        Refused => "refused",
        /// `NOAUTH`, `WRONGPASS`, `NOPERM`.
        Auth => "auth",
        /// Any other error.
        Other => "other",
    }

    /// Why something that came from Redis' channels was not taken in.
    PubsubDrop = "reason" {
        /// The queue to the node was full.
        QueueFull => "queue_full",
        /// It could not be read.
        Undecodable => "undecodable",
    }

    /// What is timed from its acceptance to a device's socket.
    DeliveryPath = "path" {
        /// A publication, to every local subscriber of a worker.
        Publication => "publication",
        /// A command, pushed to a connected device.
        Command => "command",
    }

    /// What became of a session after an interruption of the store.
    ResumeOutcome = "outcome" {
        /// The store still had it.
        Kept => "kept",
        /// The store had lost it, and took it again.
        Reclaimed => "reclaimed",
        /// The device has a newer session.
        Lost => "lost",
    }

    /// Code of a close frame that the hub sends.
    CloseCode = "code" {
        /// Normal closure.
        Normal => "1000",
        /// Going away.
        GoingAway => "1001",
        /// A broken frame.
        Protocol => "1002",
        /// A frame of the wrong kind.
        Unsupported => "1003",
        /// Bad UTF-8.
        Utf8 => "1007",
        /// A message over the limit.
        TooBig => "1009",
        /// A fault of the hub.
        Internal => "1011",
        /// The node drains, or an operator disconnected the device.
        Restart => "1012",
        /// Try again later.
        TryLater => "1013",
        /// A bad message of the device protocol.
        BadMessage => "4400",
        /// The credential is not good, or no longer.
        Unauthenticated => "4401",
        /// Not allowed.
        Forbidden => "4403",
        /// Silence.
        Idle => "4408",
        /// A newer session took over.
        Replaced => "4409",
        /// Revoked.
        Revoked => "4410",
        /// The device reads too slowly.
        SlowConsumer => "4413",
        /// Too many requests.
        RateLimited => "4429",
        /// Any other, such as a device's own code that is sent back.
        Other => "other",
    }

    /// What a Redis connection is for.
    RedisRole = "role" {
        /// Commands and scripts.
        Primary => "primary",
        /// Pub/sub.
        Pubsub => "pubsub",
    }

    /// What was done about a device that reads too slowly.
    SlowAction = "action" {
        /// Its connection was closed.
        Closed => "closed",
        /// The new message was dropped.
        DroppedNewest => "dropped_newest",
    }

    /// Decision on a connection attempt, taken before authentication.
    AdmissionDecision = "decision" {
        /// Go on.
        Admitted => "admitted",
        /// Connection limit reached.
        Capacity => "capacity",
        /// Too many unauthenticated connections from one address.
        PerAddress => "per_address",
        /// More connections are opened a second than this node takes.
        RateLimited => "rate_limited",
        /// Draining.
        Draining => "draining",
        /// The session store cannot be reached.
        Unavailable => "unavailable",
    }

    /// Ports that can have TLS.
    TlsPort = "port" {
        /// Devices.
        Edge => "edge",
        /// Back ends.
        Grpc => "grpc",
    }

    /// What became of a certificate that was found changed.
    ReloadOutcome = "outcome" {
        /// In use.
        Reloaded => "reloaded",
        /// Not good: the one before stays in use.
        Failed => "failed",
    }

    /// Methods of the gRPC services.
    GrpcMethod = "method" {
        /// `CommandService.SendCommand`.
        SendCommand => "SendCommand",
        /// `CommandService.GetCommand`.
        GetCommand => "GetCommand",
        /// `CommandService.ListCommands`.
        ListCommands => "ListCommands",
        /// `CommandService.CancelCommand`.
        CancelCommand => "CancelCommand",
        /// `CommandService.SendAndWatchCommand`.
        SendAndWatchCommand => "SendAndWatchCommand",
        /// `CommandService.WatchCommand`.
        WatchCommand => "WatchCommand",
        /// `CommandService.BatchSendCommands`.
        BatchSendCommands => "BatchSendCommands",
        /// `CommandService.ListDeadCommands`.
        ListDeadCommands => "ListDeadCommands",
        /// `CommandService.RedriveCommand`.
        RedriveCommand => "RedriveCommand",
        /// `DeviceService.GetDevice`.
        GetDevice => "GetDevice",
        /// `DeviceService.ListDevices`.
        ListDevices => "ListDevices",
        /// `DeviceService.WatchDevices`.
        WatchDevices => "WatchDevices",
        /// `DeviceService.DisconnectDevice`.
        DisconnectDevice => "DisconnectDevice",
        /// `MessageService.Publish`.
        Publish => "Publish",
        /// `MessageService.Subscribe`.
        Subscribe => "Subscribe",
        /// `DeviceService.GetDeviceHistory`.
        GetDeviceHistory => "GetDeviceHistory",
        /// `ClusterService.ListNodes`.
        ListNodes => "ListNodes",
        /// `ClusterService.DrainNode`.
        DrainNode => "DrainNode",
        /// `ClusterService.UndrainNode`.
        UndrainNode => "UndrainNode",
        /// `ClusterService.RebalanceNodes`.
        RebalanceNodes => "RebalanceNodes",
        /// Health, reflection, unknown methods.
        Other => "other",
    }

    /// gRPC status codes, in the order of their numbers.
    GrpcCode = "code" {
        /// 0.
        Ok => "OK",
        /// 1.
        Cancelled => "CANCELLED",
        /// 2.
        Unknown => "UNKNOWN",
        /// 3.
        InvalidArgument => "INVALID_ARGUMENT",
        /// 4.
        DeadlineExceeded => "DEADLINE_EXCEEDED",
        /// 5.
        NotFound => "NOT_FOUND",
        /// 6.
        AlreadyExists => "ALREADY_EXISTS",
        /// 7.
        PermissionDenied => "PERMISSION_DENIED",
        /// 8.
        ResourceExhausted => "RESOURCE_EXHAUSTED",
        /// 9.
        FailedPrecondition => "FAILED_PRECONDITION",
        /// 10.
        Aborted => "ABORTED",
        /// 11.
        OutOfRange => "OUT_OF_RANGE",
        /// 12.
        Unimplemented => "UNIMPLEMENTED",
        /// 13.
        Internal => "INTERNAL",
        /// 14.
        Unavailable => "UNAVAILABLE",
        /// 15.
        DataLoss => "DATA_LOSS",
        /// 16.
        Unauthenticated => "UNAUTHENTICATED",
    }
}

// === impl DisconnectReason ===

impl DisconnectReason {
    /// The reason behind a connection that the hub ends with an error.
    pub fn from_error(code: ErrorCode) -> Self {
        match code {
            // It shares 1012 with a drain.
            ErrorCode::Disconnected => Self::Revoked,
            code => code.close_code().map_or(Self::Other, Self::from_close_code),
        }
    }

    /// The reason that a WebSocket close code stands for; codes nobody defined are `Other`.
    pub fn from_close_code(code: u16) -> Self {
        match code {
            1000 | 1005 => Self::Normal,
            1001 => Self::GoingAway,
            1002 | 1003 | 1007 => Self::Protocol,
            1006 => Self::Lost,
            1009 => Self::TooBig,
            1011 => Self::Internal,
            1012 => Self::Draining,
            1013 => Self::Overload,
            4400 => Self::BadMessage,
            4401 => Self::Unauthenticated,
            4403 => Self::Forbidden,
            4408 => Self::Idle,
            4409 => Self::Replaced,
            4410 => Self::Revoked,
            4413 => Self::SlowConsumer,
            4429 => Self::RateLimited,
            _ => Self::Other,
        }
    }
}

// === impl CloseCode ===

impl CloseCode {
    /// From the number in the frame.
    pub fn from_number(code: u16) -> Self {
        Self::ALL
            .iter()
            .copied()
            .find(|known| known.as_str().parse() == Ok(code))
            .unwrap_or(Self::Other)
    }
}

// === impl RedisErrorKind ===

impl RedisErrorKind {
    /// From the first word of an error that Redis answered with.
    pub fn from_code(code: Option<&str>) -> Self {
        match code {
            Some("OOM") => Self::Full,
            Some("LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "BUSY") => Self::Busy,
            Some("READONLY" | "MOVED" | "ASK") => Self::NotMaster,
            Some("MISCONF" | "NOREPLICAS") => Self::Refused,
            Some("NOAUTH" | "WRONGPASS" | "NOPERM") => Self::Auth,
            _ => Self::Other,
        }
    }
}

// === impl GrpcMethod ===

impl GrpcMethod {
    /// From a request path such as `/roost.control.v1.CommandService/SendCommand`. Methods of
    /// other packages are `Other`, whatever their name.
    pub fn from_path(path: &str) -> Self {
        let Some(rest) = path.strip_prefix("/roost.control.v1.") else {
            return Self::Other;
        };
        let method = rest.split_once('/').map_or("", |(_, method)| method);
        Self::ALL.iter().copied().find(|m| m.as_str() == method).unwrap_or(Self::Other)
    }
}

// === impl GrpcCode ===

impl GrpcCode {
    /// From the number on the wire; unknown numbers are `Unknown`, as gRPC defines it.
    pub fn from_number(code: i32) -> Self {
        usize::try_from(code).ok().and_then(|i| Self::ALL.get(i)).copied().unwrap_or(Self::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<L: Label + PartialEq>() {
        for (i, value) in L::ALL.iter().enumerate() {
            assert_eq!(value.index(), i, "{value:?}");
            assert_eq!(L::ALL[value.index()], *value);
        }
        let mut texts: Vec<_> = L::ALL.iter().map(|v| v.as_str()).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), L::ALL.len(), "two values of {} share a text", L::NAME);
    }

    #[test]
    fn values_are_distinct_and_in_order() {
        check::<Protocol>();
        check::<ConnectOutcome>();
        check::<DisconnectReason>();
        check::<MessageKind>();
        check::<CommandOutcome>();
        check::<RedisCommand>();
        check::<RedisErrorKind>();
        check::<CloseCode>();
        check::<GrpcMethod>();
        check::<GrpcCode>();
    }

    #[test]
    fn close_codes_map_to_reasons() {
        assert_eq!(DisconnectReason::from_close_code(4409), DisconnectReason::Replaced);
        assert_eq!(DisconnectReason::from_close_code(1012), DisconnectReason::Draining);
        assert_eq!(DisconnectReason::from_close_code(4999), DisconnectReason::Other);
    }

    #[test]
    fn errors_that_end_a_connection_have_a_reason() {
        assert_eq!(
            DisconnectReason::from_error(ErrorCode::Disconnected),
            DisconnectReason::Revoked
        );
        for code in ErrorCode::ALL {
            if code.close_code().is_some() {
                assert_ne!(DisconnectReason::from_error(*code), DisconnectReason::Other, "{code}");
            }
        }
    }

    #[test]
    fn close_codes_have_series_of_their_own_and_unknown_ones_share_one() {
        assert_eq!(CloseCode::from_number(1012), CloseCode::Restart);
        assert_eq!(CloseCode::from_number(4999), CloseCode::Other);
        for code in ErrorCode::ALL.iter().filter_map(|code| code.close_code()) {
            assert_ne!(CloseCode::from_number(code), CloseCode::Other, "{code}");
        }
    }

    #[test]
    fn redis_errors_have_kinds() {
        assert_eq!(RedisErrorKind::from_code(Some("OOM")), RedisErrorKind::Full);
        assert_eq!(RedisErrorKind::from_code(Some("WHATEVER")), RedisErrorKind::Other);
        assert_eq!(RedisErrorKind::from_code(None), RedisErrorKind::Other);
    }

    #[test]
    fn grpc_paths_and_codes_map_to_closed_labels() {
        let send = "/roost.control.v1.CommandService/SendCommand";
        assert_eq!(GrpcMethod::from_path(send), GrpcMethod::SendCommand);
        for path in [
            "/grpc.health.v1.Health/Check",
            "/evil.v1.X/SendCommand",
            "",
            "/roost.control.v1.CommandService/Zap",
        ] {
            assert_eq!(GrpcMethod::from_path(path), GrpcMethod::Other, "{path}");
        }
        assert_eq!(GrpcCode::from_number(14), GrpcCode::Unavailable);
        assert_eq!(GrpcCode::from_number(-1), GrpcCode::Unknown);
        assert_eq!(GrpcCode::from_number(99), GrpcCode::Unknown);
    }
}
