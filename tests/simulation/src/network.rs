//! What is between nodes and the store: calls that are lost, held up, doubled and given up, and
//! answers that wait for the replica before they are promises.

use roost_cluster::{Report, StoreError};

use crate::settings::{CALL_LIMIT, Part, ms};
use crate::store::{Answer, Request};
use crate::world::{Happening, Purpose, World};

/// A request under way.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) number: u64,
    request: Request,
    not_after: u64,
}

/// An answer that is held back until the replica has what it tells.
#[derive(Debug)]
pub(crate) struct Held {
    place: usize,
    number: u64,
    answer: Answer,
}

/// Which rule holds the answer to this back: it promises an acceptance, a delivery, an end that somebody is told.
fn wait_for(request: &Request) -> Option<Part> {
    match request {
        Request::Enqueue(..) => Some(Part::WaitAccepted),
        Request::Read(..) => Some(Part::WaitRead),
        Request::Report(_, _, _, Report::Result(_)) => Some(Part::WaitResult),
        Request::Cancel(..) | Request::Get(..) => Some(Part::WaitSeen),
        _ => None,
    }
}

impl World {
    /// Asks the store; `purpose` says who asks, and gets the answer or [`StoreError::Indeterminate`].
    pub(crate) fn call(&mut self, purpose: Purpose, request: Request) {
        self.calls += 1;
        let number = self.calls;
        let not_after = self.hub_time(&purpose) + ms(CALL_LIMIT);
        self.pending.insert(number, purpose);
        self.after(ms(CALL_LIMIT), Happening::GiveUp(number));
        let call = Call { number, request, not_after };
        let rates = self.rates();
        let copies = 1 + u64::from(self.rng.happens(rates.doubled));
        for _ in 0..copies {
            if self.rng.happens(rates.lost) {
                continue;
            }
            let longest = if self.rng.happens(rates.stalled) { 4_000 } else { 15 };
            let delay = self.rng.between(1, longest);
            self.after(delay, Happening::AtStore(call.clone()));
        }
    }

    pub(crate) fn at_store(&mut self, call: &Call) {
        let (answer, place, changes) = self.store.ask(self.now, &call.request, call.not_after);
        for change in changes {
            self.record(&change);
        }
        let lag = self.rng.between(1, 60);
        let lag = lag.max(self.cut_until.saturating_sub(self.now));
        self.after(lag, Happening::Replicated { epoch: self.store.epoch, place });
        let waits = wait_for(&call.request).is_some_and(|part| self.settings.has(part));
        if answer.is_ok() && waits && self.store.replicated() < place {
            self.held.push(Held { place, number: call.number, answer });
        } else {
            self.reply(call.number, answer);
        }
    }

    pub(crate) fn replicated(&mut self, epoch: u64, place: usize) {
        if epoch != self.store.epoch || self.now < self.cut_until {
            // What a cut link holds up goes through with what comes after it.
            return;
        }
        self.store.replicate(place);
        let done = self.store.replicated();
        let (ready, held) =
            std::mem::take(&mut self.held).into_iter().partition(|held| held.place <= done);
        self.held = held;
        let ready: Vec<Held> = ready;
        for held in ready {
            self.reply(held.number, held.answer);
        }
    }

    fn reply(&mut self, number: u64, answer: Answer) {
        if !self.rng.happens(self.rates().lost) {
            let delay = self.rng.between(1, 15);
            self.after(delay, Happening::Answered(number, Box::new(answer)));
        }
    }

    pub(crate) fn give_up(&mut self, number: u64) {
        let answer = Err(StoreError::Indeterminate("no answer".into()));
        self.answered(number, answer);
    }
}
