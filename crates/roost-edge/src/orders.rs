//! What operators ask of this edge as a whole: to be drained, to be taken back, to give devices away. How
//! it is done is in `shed.rs`; what SIGTERM does is in `handle.rs`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use roost_telemetry::metrics::DrainState;
use tokio::sync::watch;

use crate::edge::Edge;
use crate::lifecycle::Phase;
use crate::shed::{self, Plan, Why};

/// The last order. One replaces the other, so that none can be lost for want of room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Order {
    /// Go on.
    #[default]
    Nothing,
    /// Take no more devices, and send away those that are there.
    Drain {
        /// Over how long.
        over: Duration,
    },
    /// Send some devices away.
    Rebalance {
        /// How many.
        surplus: u64,
        /// Over how long.
        over: Duration,
        /// Tells an order from the one before.
        serial: u64,
    },
}

// === impl Edge ===

impl Edge {
    /// Whether new devices are let in: it does not go away, and no operator has drained it.
    pub(crate) fn admits(&self) -> bool {
        self.phase() <= Phase::Ready && !*self.drained_by_operator.borrow()
    }

    /// Follows whether an operator has drained it.
    pub fn watch_drained_by_operator(&self) -> watch::Receiver<bool> {
        self.drained_by_operator.subscribe()
    }

    /// An operator drains this edge. Asking again changes nothing, unless it is to go faster or slower.
    pub(crate) fn drain_ordered(&self, over: Duration) {
        if self.phase() != Phase::Ready {
            return;
        }
        self.drained_by_operator.send_replace(true);
        self.order(Order::Drain { over });
    }

    /// An operator takes a drain back.
    pub(crate) fn undrain_ordered(&self) {
        let was_drained = self.drained_by_operator.send_replace(false);
        self.order(Order::Nothing);
        if was_drained && self.phase() == Phase::Ready {
            tracing::info!("an operator took the drain back: devices are let in again");
            self.telemetry.node.set_drain_state(DrainState::Serving);
        }
    }

    /// An operator has some devices of this edge go elsewhere.
    pub(crate) fn rebalance_ordered(&self, surplus: u64, over: Duration) {
        // Whoever drains has none to keep.
        if self.admits() {
            let serial = self.orders_given.fetch_add(1, Ordering::Relaxed);
            self.order(Order::Rebalance { surplus, over, serial });
        }
    }

    /// Whatever an operator asked is over: the process ends.
    pub(crate) fn end_orders(&self) {
        self.order(Order::Nothing);
    }

    fn order(&self, order: Order) {
        self.orders.send_if_modified(|last| {
            let new = *last != order;
            *last = order;
            new
        });
    }

    /// Does what is ordered, until the worker that runs this ends. A new order ends the former one where
    /// it stands.
    pub(crate) async fn obey(&self) {
        let mut orders = self.orders.subscribe();
        loop {
            let order = *orders.borrow_and_update();
            tokio::select! {
                biased;
                // The former order is dropped only for a new one.
                changed = orders.changed() => if changed.is_err() {
                    return;
                },
                () = self.carry_out(order) => {}
            }
        }
    }

    async fn carry_out(&self, order: Order) {
        match order {
            Order::Nothing => {}
            Order::Drain { over } => {
                self.telemetry.node.set_drain_state(DrainState::Draining);
                tracing::info!(
                    connections = self.connections(),
                    ?over,
                    "an operator drains this node"
                );
                shed::run(self, &Plan { patient: true, ..Plan::new(Why::Draining, over) }).await;
                shed::until_empty(self).await;
                self.telemetry.node.set_drain_state(DrainState::Drained);
                tracing::info!("drained: no device is left, and none is let in");
            }
            Order::Rebalance { surplus, over, .. } => {
                tracing::info!(surplus, ?over, "an operator has devices of this node go elsewhere");
                let plan = Plan::new(Why::Rebalancing, over);
                let plan = Plan { most: Some(surplus), patient: true, ..plan };
                let gone = shed::run(self, &plan).await;
                tracing::info!(gone, "sent devices elsewhere");
            }
        }
        // Done; the next order interrupts this.
        std::future::pending::<()>().await;
    }
}
