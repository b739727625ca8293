//! What `/readyz` says of this node. The edge and control roles judge an outage of the store
//! differently: an edge keeps its devices and is better left in the load balancer (degraded), a
//! control node can do nothing without it (unready). A node with both roles is degraded: taking it
//! out would cut its devices off.

use roost_cluster::StoreHealth;
use roost_telemetry::{CheckHandle, HealthRegistry, Status};
use tokio::sync::watch;

use super::Phase;
use crate::config::RoleChoice;

/// The node's own checks.
pub(super) struct Checks {
    lifecycle: CheckHandle,
    store: CheckHandle,
    role: RoleChoice,
}

// === impl Checks ===

impl Checks {
    pub(super) fn new(registry: &HealthRegistry, role: RoleChoice) -> Self {
        Self { lifecycle: registry.check("lifecycle"), store: registry.check("store"), role }
    }

    /// Shows how things are now.
    pub(super) fn show(&self, phase: Phase, drained: bool, store: &StoreHealth) {
        self.show_phase(phase, drained);
        self.show_store(store);
    }

    /// Follows the node, whether an operator has drained it, and its store, for as long as it is polled.
    pub(super) async fn follow(
        self,
        mut phase: watch::Receiver<Phase>,
        mut drained: watch::Receiver<bool>,
        mut store: watch::Receiver<StoreHealth>,
    ) {
        loop {
            let by_operator = *drained.borrow_and_update();
            self.show(*phase.borrow_and_update(), by_operator, &store.borrow_and_update());
            let seen = tokio::select! {
                seen = phase.changed() => seen,
                seen = drained.changed() => seen,
                seen = store.changed() => seen,
            };
            if seen.is_err() {
                // Nobody tells any more: what was shown last stays. The checks count as failed once
                // they are dropped.
                std::future::pending::<()>().await;
            }
        }
    }

    fn show_phase(&self, phase: Phase, drained: bool) {
        match phase {
            Phase::Ready if drained => {
                self.lifecycle.set(Status::Unready, "drained by an operator");
            }
            Phase::Ready => self.lifecycle.ready(),
            Phase::Starting => self.lifecycle.set(Status::Unready, "starting"),
            _ => self.lifecycle.set(Status::Unready, "draining"),
        }
    }

    fn show_store(&self, health: &StoreHealth) {
        match health {
            StoreHealth::Up => self.store.ready(),
            StoreHealth::Down { reason } => self.store.set(store_down(self.role), reason),
        }
    }
}

/// How a node is whose store cannot be reached.
fn store_down(role: RoleChoice) -> Status {
    if role.has_edge() { Status::Degraded } else { Status::Unready }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_store_edges_are_degraded_and_control_is_unready() {
        assert_eq!(store_down(RoleChoice::Edge), Status::Degraded);
        assert_eq!(store_down(RoleChoice::All), Status::Degraded);
        assert_eq!(store_down(RoleChoice::Control), Status::Unready);
    }
}
