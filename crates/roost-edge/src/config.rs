//! What an edge can be told to do differently. Where the values come from (file, environment,
//! flags) is in the `roost` binary.

use std::num::NonZeroU32;
use std::time::Duration;

/// How an edge behaves. [`EdgeConfig::default`] has the numbers of the documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeConfig {
    /// Whether `/v1/echo` is served: a plain echo for conformance suites, without authentication.
    pub enable_echo: bool,
    /// Which `Origin`s may connect; `None` lets any, since browsers are told apart by their
    /// credential. A request without an `Origin` is never refused for it.
    pub allowed_origins: Option<Vec<String>>,
    /// How many connections this node holds at most.
    pub max_connections: u64,
    /// How fast connections are let in, on all workers together; `None` for no limit. Those beyond are
    /// answered 503 before anything is read, so that a fleet that comes back at once does not keep those
    /// connected from being served.
    pub connect_rate: Option<ConnectRate>,
    /// Bounds on connections that have not proven who they are.
    pub pre_auth: PreAuthLimits,
    /// How much a device may send at once and have.
    pub limits: DeviceLimits,
    /// How long the edge waits for what.
    pub timeouts: Timeouts,
    /// How many bytes may wait for one device's socket. Four whole frames of the largest kind fit
    /// several times; a device that lets more pile up is too slow for what it subscribed to.
    pub send_queue_bytes: usize,
    /// How many devices a second all nodes together send away at the most, in drains and in rebalancing;
    /// 0 for no such bound.
    pub shed_rate: u32,
    /// After how long a device is asked to connect again, so that connections spread over the nodes that
    /// there are; `None` for never.
    pub max_connection_age: Option<Duration>,
    /// Up to how much later, at random for each connection; `None` for a quarter of that.
    pub max_connection_age_jitter: Option<Duration>,
}

/// A token bucket for connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectRate {
    /// How many tokens come a second.
    pub per_second: NonZeroU32,
    /// How many there are at the most: so many may come at once after a rest.
    pub burst: NonZeroU32,
}

/// Bounds on connections that have not proven who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreAuthLimits {
    /// At most this many on one worker.
    pub per_worker: usize,
    /// At most this many from one address. Devices behind one NAT or load balancer share it.
    pub per_address: u32,
}

/// What one device may send and have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceLimits {
    /// The most decoded bytes of one payload.
    pub payload_bytes: usize,
    /// The most bytes of one WebSocket message.
    pub frame_bytes: usize,
    /// The most bytes of one message on `/v1/echo`.
    pub echo_frame_bytes: usize,
    /// The most subscriptions.
    pub subscriptions: usize,
}

/// How long the edge waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the accepted socket to the end of the upgrade. Half a second less than the 5 s after
    /// which a handshake that drips in is gone for certain.
    pub handshake: Duration,
    /// From the upgrade to the device's `hello`.
    pub hello: Duration,
    /// From the hub's close frame to the device's.
    pub close: Duration,
    /// How long a send queue may stay non-empty. With [`Timeouts::close`] it makes up the 30 s after
    /// which a device that never reads is gone.
    pub stall: Duration,
    /// The silence after which the hub pings, where the device asks for none.
    pub keepalive: Duration,
    /// The least that a device may ask for.
    pub keepalive_min: Duration,
    /// The most that a device may ask for.
    pub keepalive_max: Duration,
}

// === impl EdgeConfig ===

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            enable_echo: false,
            allowed_origins: None,
            max_connections: 1_000_000,
            connect_rate: Some(ConnectRate::default()),
            pre_auth: PreAuthLimits::default(),
            limits: DeviceLimits::default(),
            timeouts: Timeouts::default(),
            send_queue_bytes: 1 << 20,
            shed_rate: 1_000,
            max_connection_age: None,
            max_connection_age_jitter: None,
        }
    }
}

// === impl ConnectRate ===

impl Default for ConnectRate {
    fn default() -> Self {
        let number = |number| NonZeroU32::new(number).expect("not zero");
        Self { per_second: number(5_000), burst: number(10_000) }
    }
}

// === impl PreAuthLimits ===

impl Default for PreAuthLimits {
    fn default() -> Self {
        Self { per_worker: 8_192, per_address: 8_192 }
    }
}

// === impl DeviceLimits ===

impl Default for DeviceLimits {
    fn default() -> Self {
        Self {
            payload_bytes: 65_536,
            frame_bytes: 131_072,
            echo_frame_bytes: 16 << 20,
            subscriptions: 1_000,
        }
    }
}

// === impl Timeouts ===

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_millis(4_500),
            hello: Duration::from_secs(5),
            close: Duration::from_secs(2),
            stall: Duration::from_secs(27),
            keepalive: Duration::from_secs(60),
            keepalive_min: Duration::from_secs(10),
            keepalive_max: Duration::from_secs(20 * 60),
        }
    }
}
