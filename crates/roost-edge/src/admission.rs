//! Who may come in, decided before anything is read or asked: room on this node, bounds on
//! unproven connections, draining, the store. Each decision is counted once per accepted socket.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use roost_telemetry::metrics::labels::AdmissionDecision;

/// Counts what is bounded.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    connections: AtomicU64,
    unproven: DashMap<IpAddr, u32, foldhash::fast::RandomState>,
}

/// While held, a connection counts against `max_connections`.
#[derive(Debug)]
pub(crate) struct ConnectionSlot(Arc<Admission>);

/// While held, a connection counts against its address's unproven ones.
#[derive(Debug)]
pub(crate) struct AddressSlot(Arc<Admission>, IpAddr);

/// Both kinds of room, for one socket.
#[derive(Debug)]
pub(crate) struct Slots {
    pub(crate) connection: ConnectionSlot,
    pub(crate) address: AddressSlot,
}

// === impl Admission ===

impl Admission {
    /// Takes room for one connection from `address`, or says what there is too much of.
    pub(crate) fn enter(
        self: &Arc<Self>,
        address: IpAddr,
        max_connections: u64,
        max_unproven: u32,
    ) -> Result<Slots, AdmissionDecision> {
        // The slot counts first and gives back on drop, so that two at once cannot both be the last.
        let connection = ConnectionSlot(Arc::clone(self));
        if self.connections.fetch_add(1, Ordering::AcqRel) >= max_connections {
            return Err(AdmissionDecision::Capacity);
        }
        let unproven = {
            let mut count = self.unproven.entry(address).or_insert(0);
            *count += 1;
            *count
        };
        let address = AddressSlot(Arc::clone(self), address);
        if unproven > max_unproven {
            return Err(AdmissionDecision::PerAddress);
        }
        Ok(Slots { connection, address })
    }

    /// How many connections are counted.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Acquire)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for AddressSlot {
    fn drop(&mut self) {
        if let Some(mut count) = self.0.unproven.get_mut(&self.1) {
            *count -= 1;
        }
        self.0.unproven.remove_if(&self.1, |_, count| *count == 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_back_whatever_was_decided() {
        let admission = Arc::new(Admission::default());
        let address = IpAddr::from([127, 0, 0, 1]);
        let enter = |all, unproven| admission.enter(address, all, unproven);
        let first = enter(2, 1).unwrap();
        assert_eq!(enter(2, 1).unwrap_err(), AdmissionDecision::PerAddress);
        drop(first.address);
        let second = enter(2, 1).unwrap();
        assert_eq!(enter(2, 9).unwrap_err(), AdmissionDecision::Capacity);
        drop((first.connection, second));
        assert_eq!(admission.connections(), 0);
        assert!(admission.unproven.is_empty());
    }
}
