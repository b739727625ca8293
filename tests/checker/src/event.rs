//! One event of a run, as it is recorded and as it stands in a file. What a whole run is kept in is in
//! `history.rs`; what events have to say to each other is in `check/`.

use std::borrow::Cow;

use roost_types::CommandState;
use serde::{Deserialize, Serialize};

/// What an event tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// At `t` hub time was `hub_ms`. The first one of a run counts.
    Clock,
    /// A back end asks for a command: `op`, device, `id`, `key`, `body`, `expires_ms`.
    Send,
    /// A back end asks to cancel a command: `op`, device, `id`.
    Cancel,
    /// A device says how a command ended: `op`, device, `session`, `id`, `state`.
    Result,
    /// Somebody publishes: `op`, `tenant`, `topic`, `body`, `qos`.
    Publish,
    /// Operation `op` was answered: it is done. Of a send: `seq`, `created`, `volatile`.
    Ok,
    /// Operation `op` was answered: it is not done and will not be.
    Fail,
    /// Operation `op` was not answered: nobody knows.
    Unknown,
    /// A command reached a device: device, `session`, `id`, `body`, `handed`.
    Deliver,
    /// A device began to work on a command: device, `id`.
    Execute,
    /// A back end saw a command's state: device, `id`, `state`, `since`.
    Observe,
    /// The store made a session the device's: device, `session`, `pos`, `claimed_ms`, `replaced`.
    Claimed,
    /// The store took a session up again that it had lost: as `claimed`.
    Reclaimed,
    /// The store ended a session: device, `session`, `pos`.
    Released,
    /// The store let a session change something: device, `session`, `pos`.
    Apply,
    /// The store lost what happened between `back_to` and `pos`.
    Failover,
    /// A subscription of `subscriber` to exactly `topic` was confirmed: `tenant`.
    Subscribed,
    /// It is over, or its subscriber was told that something is missing: `subscriber`, `topic`.
    Gap,
    /// A message reached a subscriber: `tenant`, `subscriber`, `topic`, `body`.
    Message,
}

/// One event. Which fields mean something is said at its [`Kind`]; the others are empty.
///
/// This is a line of a history file, field for field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event<'a> {
    /// When: microseconds of the machine's monotonic clock.
    #[serde(default)]
    pub t: u64,
    /// What it tells.
    pub e: Kind,
    /// The operation that this begins, or answers. Unique within a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<u64>,
    /// The tenant of the device, the publisher or the subscriber.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub tenant: Cow<'a, str>,
    /// The device.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub device: Cow<'a, str>,
    /// The command: the caller's idempotency key.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub id: Cow<'a, str>,
    /// The ordering key; empty is the device's default.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub key: Cow<'a, str>,
    /// What tells this payload from every other one of the run: a digest, or the payload itself.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub body: Cow<'a, str>,
    /// The session id.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub session: Cow<'a, str>,
    /// The session that a claim replaced.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub replaced: Cow<'a, str>,
    /// The topic.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub topic: Cow<'a, str>,
    /// Who subscribed.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub subscriber: Cow<'a, str>,
    /// A command's state, `SUCCEEDED` say.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub state: Cow<'a, str>,
    /// The place in the device's order that an accepted command got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The place of a session change in the order of the store's scripts; grows, also over failovers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pos: Option<u64>,
    /// Up to which place a failover kept what had happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_to: Option<u64>,
    /// When a command is over, in ms of hub time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// When a session was claimed first, in ms of hub time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_ms: Option<u64>,
    /// Hub time in ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub_ms: Option<u64>,
    /// When the hub wrote a command to the socket, where that is known; as `t`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handed: Option<u64>,
    /// When the question was asked that an observation answers; as `t`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Whether a send made the command (`true`) or found it (`false`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<bool>,
    /// The send was answered at a durability that does not outlive a failover.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub volatile: bool,
    /// The `QoS` of a publication.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub qos: u8,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_zero(qos: &u8) -> bool {
    *qos == 0
}

// === impl Event ===

impl<'a> Event<'a> {
    /// An event with nothing but its kind.
    pub fn new(kind: Kind) -> Self {
        let none = Cow::Borrowed("");
        Self {
            t: 0,
            e: kind,
            op: None,
            tenant: none.clone(),
            device: none.clone(),
            id: none.clone(),
            key: none.clone(),
            body: none.clone(),
            session: none.clone(),
            replaced: none.clone(),
            topic: none.clone(),
            subscriber: none.clone(),
            state: none,
            seq: None,
            pos: None,
            back_to: None,
            expires_ms: None,
            claimed_ms: None,
            hub_ms: None,
            handed: None,
            since: None,
            created: None,
            volatile: false,
            qos: 0,
        }
    }

    /// An event about one device.
    pub fn of_device(kind: Kind, tenant: &'a str, device: &'a str) -> Self {
        Self { tenant: tenant.into(), device: device.into(), ..Self::new(kind) }
    }

    /// An answer ([`Kind::Ok`], [`Kind::Fail`] or [`Kind::Unknown`]) to an operation.
    pub fn answer(kind: Kind, op: u64) -> Self {
        Self { op: Some(op), ..Self::new(kind) }
    }

    /// The same at this time.
    #[must_use]
    pub fn at(mut self, t: u64) -> Self {
        self.t = t;
        self
    }

    /// The same as the start of this operation.
    #[must_use]
    pub fn op(mut self, op: u64) -> Self {
        self.op = Some(op);
        self
    }

    /// The same about this command.
    #[must_use]
    pub fn command(mut self, id: &'a str) -> Self {
        self.id = id.into();
        self
    }

    /// The same with this body.
    #[must_use]
    pub fn body(mut self, body: &'a str) -> Self {
        self.body = body.into();
        self
    }

    /// The same on this session.
    #[must_use]
    pub fn session(mut self, session: &'a str) -> Self {
        self.session = session.into();
        self
    }

    /// The same with this state.
    #[must_use]
    pub fn state(mut self, state: CommandState) -> Self {
        self.state = state.as_str().into();
        self
    }

    /// The same at this place in the store's order.
    #[must_use]
    pub fn pos(mut self, pos: u64) -> Self {
        self.pos = Some(pos);
        self
    }
}
