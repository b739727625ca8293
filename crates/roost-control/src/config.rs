//! The bounds and times of a control node. Where they come from (file, environment, flags) is in the
//! `roost` crate.

use std::time::Duration;

use roost_cluster::NodeRef;

/// What a [`crate::Control`] is told when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlConfig {
    /// This node, in this life of it: where updates about awaited commands are sent.
    pub node: NodeRef,
    /// The most bytes that a payload may have. Default 65,536.
    pub max_payload: usize,
    /// How long the store may take to answer before the caller is told that it did not. Default
    /// 900 ms, so that callers know within a second.
    pub store_deadline: Duration,
    /// How many messages wait at the most for one Subscribe stream whose client reads slowly. Default
    /// 4,096: some seconds of a busy topic.
    pub stream_messages: usize,
    /// How many bytes these may have. Default 16 MiB.
    pub stream_bytes: usize,
    /// How long connections and streams live before they are ended in order, give or take a tenth,
    /// so that clients spread over new nodes. Default 30 min.
    pub max_age: Duration,
    /// How long a shutdown waits for calls that are being worked on. Default 10 s; waits for commands
    /// are answered with what is known after half of it.
    pub drain: Duration,
}

impl ControlConfig {
    /// The defaults for this node.
    pub fn new(node: NodeRef) -> Self {
        Self {
            node,
            max_payload: 65_536,
            store_deadline: Duration::from_millis(900),
            stream_messages: 4_096,
            stream_bytes: 16 << 20,
            max_age: Duration::from_secs(30 * 60),
            drain: Duration::from_secs(10),
        }
    }

    /// The age that one connection or stream may reach: `max_age`, give or take a tenth at random.
    pub(crate) fn jittered_age(&self) -> Duration {
        // Without randomness all have the same age, which is no reason to fail a call.
        let random = getrandom::u32().unwrap_or(u32::MAX / 2);
        let share = f64::from(random) / f64::from(u32::MAX);
        self.max_age.mul_f64(0.9 + 0.2 * share)
    }
}
