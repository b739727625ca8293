//! Who may come in, decided before anything is read or asked: how many a second, room on this node,
//! bounds on unproven connections, draining, the store. Each decision is counted once per accepted socket.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use roost_telemetry::metrics::labels::AdmissionDecision;
use tokio::time::Instant;

use crate::config::ConnectRate;

/// Counts what is bounded.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    connections: AtomicU64,
    unproven: DashMap<IpAddr, u32, foldhash::fast::RandomState>,
}

/// A token bucket for connections, without a lock: `full_at` is when it would be full again if nobody
/// came, in nanoseconds since `born`, and each connection moves that on by what one token takes.
#[derive(Debug)]
pub(crate) struct Bucket {
    born: Instant,
    full_at: AtomicU64,
    /// Nanoseconds for one token.
    token: u64,
    /// How many it holds.
    burst: u64,
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

// === impl Bucket ===

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(rate: ConnectRate) -> Self {
        Self {
            born: Instant::now(),
            full_at: AtomicU64::new(0),
            token: 1_000_000_000 / u64::from(rate.per_second.get()),
            burst: u64::from(rate.burst.get()),
        }
    }

    /// Takes a token; says whether there was one.
    pub(crate) fn take(&self) -> bool {
        let now = self.now();
        let taken = self.full_at.fetch_update(Ordering::AcqRel, Ordering::Acquire, |full_at| {
            let full_at = full_at.max(now) + self.token;
            (full_at - now <= self.burst * self.token).then_some(full_at)
        });
        taken.is_ok()
    }

    /// How many tokens there are.
    pub(crate) fn tokens(&self) -> u64 {
        let missing = self.full_at.load(Ordering::Acquire).saturating_sub(self.now());
        self.burst - missing.div_ceil(self.token).min(self.burst)
    }

    /// How long until it is full again.
    pub(crate) fn full_in(&self) -> Duration {
        Duration::from_nanos(self.full_at.load(Ordering::Acquire).saturating_sub(self.now()))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_nanos()).unwrap_or(u64::MAX / 2)
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
    use std::num::NonZeroU32;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_let_in_and_then_so_many_a_second() {
        let number = |number| NonZeroU32::new(number).unwrap();
        let bucket = Bucket::new(ConnectRate { per_second: number(10), burst: number(3) });
        assert_eq!((bucket.tokens(), bucket.full_in()), (3, Duration::ZERO));
        assert_eq!([(); 4].map(|()| bucket.take()), [true, true, true, false]);
        assert_eq!((bucket.tokens(), bucket.full_in()), (0, Duration::from_millis(300)));
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(bucket.tokens(), 1);
        assert_eq!([(); 2].map(|()| bucket.take()), [true, false]);
        // Rest does not save up more than a burst.
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!([(); 4].map(|()| bucket.take()), [true, true, true, false]);
    }

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
