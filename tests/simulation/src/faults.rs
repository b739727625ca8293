//! What goes wrong beside the network: stopped edges, cut links, failovers, devices that move.

use crate::settings::{CHAOS, DEVICES, EDGES};
use crate::world::{AtEdge, Happening, World};

impl World {
    pub(crate) fn faults(&mut self) {
        let rates = self.rates();
        if self.rng.happens(rates.pause) {
            let edge = self.rng.index(EDGES);
            let until = self.now + self.rng.between(100, 5_000);
            let stopped = &mut self.edges[edge].stopped_until;
            *stopped = until.max(*stopped);
        }
        if self.rng.happens(rates.cut) {
            self.cut_until = self.now + self.rng.between(100, 2_000);
        }
        if self.rng.happens(rates.failover) {
            self.fail_over();
        }
        if self.rng.happens(rates.moves) {
            let device = self.rng.index(DEVICES);
            self.leave(device);
        }
        if self.now < CHAOS {
            self.after(100, Happening::Faults);
        }
    }

    fn fail_over(&mut self) {
        let event = self.store.fail_over(self.now);
        self.note(event);
        self.held.clear();
        (self.cut_until, self.failed_over_at) = (0, self.now);
        for edge in 0..EDGES {
            let delay = self.rng.between(1, 1_000);
            self.after(delay, Happening::Edge(edge, AtEdge::FailedOver));
        }
    }
}
