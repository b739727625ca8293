//! What every store must do, as tests that run against any of them.
//!
//! An implementation calls [`crate::contract_tests!`] with an `async fn(StoreSettings) -> Fixture`
//! that makes a fresh, empty store seen by two nodes. `sessions.rs`, `mailboxes.rs`, `bus.rs` and
//! `nodes.rs` hold the cases by seam, `attempts.rs` and `history.rs` those of what goes on between
//! sessions and mailboxes.
#![allow(clippy::unwrap_used, reason = "a failed step should fail the test")]
#![allow(clippy::too_many_lines, reason = "a case tells one story from start to end")]
#![allow(missing_docs, reason = "a case's name says what it shows")]

pub mod attempts;
pub mod bus;
pub mod history;
pub mod mailboxes;
pub mod nodes;
pub mod sessions;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use roost_types::{
    CommandId, CommandSpec, DeviceId, DeviceKey, NodeId, Payload, SessionId, TenantId, Text,
    UnixMillis,
};
use tokio::sync::mpsc;

use crate::{
    BusEvent, Initiator, LastClose, NodeInfo, NodeRef, Roles, SessionClaim, Store, StoreSettings,
};

/// A fresh store seen by two nodes.
#[derive(Debug)]
pub struct Fixture {
    /// The first node's view.
    pub store_a: Store,
    /// The second node's view.
    pub store_b: Store,
    /// The first node.
    pub a: NodeRef,
    /// The second node.
    pub b: NodeRef,
    /// What must live as long as the test: servers, tasks.
    pub keep: Box<dyn Any + Send>,
}

/// One `#[tokio::test]` for each case of the contract.
#[macro_export]
macro_rules! contract_tests {
    ($make:path) => {
        $crate::contract_tests! { @cases $make,
            sessions: a_claim_names_the_session_it_replaces, a_stale_session_is_fenced,
                a_device_is_shown_with_its_session_and_its_last_close, listing_pages_show_each_device_once,
                listing_filters_by_presence_and_node, a_foreign_page_token_is_refused,
                ids_that_look_alike_are_kept_apart, revalidation_keeps_reclaims_or_loses,
                presence_is_watched_in_order_and_per_tenant, a_watch_resumes_after_its_cursor,
                a_foreign_cursor_is_refused, fifty_claims_at_once_leave_one_session;
            nodes: a_dead_nodes_sessions_end_once, a_session_that_moved_on_survives_its_old_node,
                a_name_belongs_to_one_incarnation, a_node_that_leaves_is_gone, one_node_takes_a_turn,
                nodes_share_what_may_be_shed;
            mailboxes: a_command_waits_for_its_device, commands_for_a_connected_device_go_at_once,
                the_window_holds_back_and_opens, one_id_is_one_command, a_full_mailbox_refuses_and_recovers,
                a_command_goes_through_its_states, a_new_session_gets_unfinished_commands_again,
                cancel_wins_only_over_waiting, an_expired_command_is_never_handed_out,
                a_sweep_ends_what_is_over_and_finds_the_undelivered, seq_grows_through_an_emptied_mailbox,
                a_reading_past_the_batch_goes_on, commands_are_listed_newest_first, payloads_pass_unchanged,
                whoever_waits_is_named, fifty_at_once_with_one_id_are_one_command, tenants_do_not_see_each_other,
                a_session_claimed_again_keeps_what_it_delivered, a_window_that_opened_unheard_is_found,
                what_waits_is_counted, the_end_of_a_commands_time_opens_the_window;
            attempts: after_a_lost_session_commands_come_one_at_a_time,
                a_session_that_was_given_nothing_ends_no_probation,
                a_session_without_commands_leaves_no_probation,
                a_poison_command_dies_and_the_others_get_through,
                a_received_command_is_charged_for_each_lost_session,
                a_device_that_returns_may_answer_its_last_attempt,
                dead_commands_are_listed_until_they_are_settled, a_late_result_is_kept_beside_the_end,
                a_revision_grows_with_every_change, commands_are_listed_by_time,
                what_is_asked_beside_the_body_is_kept_and_compared;
            history: a_history_tells_what_happened_in_order, a_history_is_bounded,
                a_reclaim_is_told_as_one, a_fight_over_an_identity_is_told;
            bus: a_publication_reaches_each_interested_node_once, wildcards_and_exact_filters_overlap_without_repeats,
                a_withdrawn_filter_brings_nothing, publications_keep_their_order, node_events_arrive_as_sent,
                an_event_for_another_incarnation_is_dropped, messages_pass_unchanged;
        }
    };
    (@cases $make:path, $($seam:ident: $($case:ident),+;)+) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::contract::$seam::$case(|settings| $make(settings)).await;
            }
        )+)+
    };
}

/// Long leases, small bounds.
pub fn settings() -> StoreSettings {
    StoreSettings {
        lease: Duration::from_secs(60),
        window: 4,
        mailbox_commands: 100,
        mailbox_bytes: 100_000,
        ..StoreSettings::default()
    }
}

/// Leases short enough to see them end.
pub fn short_lease() -> StoreSettings {
    StoreSettings { lease: Duration::from_millis(600), ..settings() }
}

/// How long something that must happen may take before the test fails: far more than it takes on a
/// machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until the answer is yes.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !ask().await {
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Plays a scene with a command that ends soon: `play` gets how long it is to live, and gives when it
/// ends and what there was to see. On a machine that was busy with other things its time may be over
/// before the scene is; what was seen then says nothing, and the scene is played again, with more time.
pub(crate) async fn before_its_end<T>(
    store: &Store,
    mut play: impl AsyncFnMut(Duration) -> (UnixMillis, T),
) -> T {
    let mut ttl = Duration::from_millis(200);
    loop {
        let (end, seen) = play(ttl).await;
        // Hub time is known to some milliseconds.
        if store.clock.now().plus(Duration::from_millis(50)) < end {
            return seen;
        }
        ttl *= 4;
        assert!(ttl < PATIENCE, "the machine does not get on");
    }
}

/// The next item of a channel, or a failed test.
pub async fn next<T>(receiver: &mut mpsc::Receiver<T>) -> T {
    let item = tokio::time::timeout(PATIENCE, receiver.recv()).await;
    item.expect("something arrives in time").expect("the channel stays open")
}

pub(crate) fn tenant(text: &str) -> TenantId {
    TenantId::new(text).unwrap()
}

pub(crate) fn device(text: &str) -> DeviceKey {
    DeviceKey::new(TenantId::default(), DeviceId::new(text).unwrap())
}

pub(crate) fn command_id(text: &str) -> CommandId {
    CommandId::new(text).unwrap()
}

/// A claim of a new session, at hub time now.
pub(crate) fn claim(store: &Store, device: &DeviceKey, node: &NodeRef) -> SessionClaim {
    SessionClaim {
        device: device.clone(),
        session: SessionId::random(),
        node: node.clone(),
        protocol: "roost.v1.json".into(),
        address: "127.0.0.1:4711".into(),
        claimed_at: store.clock.now(),
    }
}

pub(crate) fn close(store: &Store) -> LastClose {
    LastClose {
        code: 1001,
        reason: "going away".into(),
        initiator: Initiator::Device,
        time: store.clock.now(),
    }
}

pub(crate) fn info(store: &Store, node: &NodeRef) -> NodeInfo {
    NodeInfo {
        node: node.clone(),
        roles: Roles { edge: true, control: true },
        version: "1.2.3".into(),
        address: "127.0.0.1:7080".into(),
        started: store.clock.now(),
        devices: 7,
        draining: false,
    }
}

pub(crate) fn spec(store: &Store, id: &str, ttl: Duration) -> CommandSpec {
    CommandSpec {
        payload: Some(Payload::json(Text::from(r#"{ "delay_s": 5 }"#))),
        headers: vec![(Arc::from("trace"), Arc::from("abc"))],
        ..CommandSpec::new(command_id(id), "reboot", store.clock.now().plus(ttl))
    }
}

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

impl Fixture {
    /// Both nodes have said that they live.
    pub(crate) async fn joined(self) -> Self {
        for (store, node) in [(&self.store_a, &self.a), (&self.store_b, &self.b)] {
            store.nodes.heartbeat(&info(store, node)).await.unwrap();
        }
        self
    }

    /// A device connected to node a.
    pub(crate) async fn connect(&self, device: &DeviceKey) -> SessionId {
        let claim = claim(&self.store_a, device, &self.a);
        self.store_a.sessions.claim(&claim).await.unwrap();
        claim.session
    }

    pub(crate) fn events(&self) -> (mpsc::Receiver<BusEvent>, mpsc::Receiver<BusEvent>) {
        let take = |store: &Store| store.bus.take_events().expect("nobody took them before");
        (take(&self.store_a), take(&self.store_b))
    }

    pub(crate) fn node_id(text: &str) -> NodeId {
        NodeId::new(text).unwrap()
    }
}
