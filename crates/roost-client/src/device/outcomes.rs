//! Outcomes of commands that the hub has not acknowledged: kept over connections, and sent until it
//! has.

use std::time::Duration;

use roost_wire::device::FromDevice;
use tokio::time::Instant;

use super::{Outcome, RequestError};

/// How old an outcome that was sent must be to be sent again on the same connection.
pub(super) const RESEND: Duration = Duration::from_secs(10);

/// What waits for the hub's acknowledgement, in the order in which it happened.
#[derive(Debug, Default)]
pub(super) struct Outcomes(Vec<Waiting>);

#[derive(Debug)]
struct Waiting {
    outcome: Outcome,
    /// Under which id it was sent on this connection, and when last.
    sent: Option<(u32, Instant)>,
}

// === impl Outcomes ===

impl Outcomes {
    /// Takes an outcome over; it replaces an earlier one of the same command.
    pub(super) fn add(&mut self, outcome: Outcome) {
        self.0.retain(|kept| kept.outcome.command_id != outcome.command_id);
        self.0.push(Waiting { outcome, sent: None });
    }

    /// What is to be sent now: what was not sent on this connection, or long ago.
    pub(super) fn due(&mut self, mut fresh_id: impl FnMut() -> u32) -> Vec<FromDevice> {
        let now = Instant::now();
        let is_due = |waiting: &&mut Waiting| {
            waiting.sent.is_none_or(|(_, at)| now.duration_since(at) >= RESEND)
        };
        let send = |waiting: &mut Waiting| {
            let id = waiting.sent.map_or_else(&mut fresh_id, |(id, _)| id);
            waiting.sent = Some((id, now));
            let outcome = waiting.outcome.clone();
            FromDevice::Result {
                id: Some(id),
                command_id: outcome.command_id,
                status: outcome.status,
                payload: outcome.payload,
                error: outcome.error,
                trace: outcome.trace,
            }
        };
        self.0.iter_mut().filter(is_due).map(send).collect()
    }

    /// Ends the outcome that was sent under this id, if there is one; what may be taken later stays.
    /// Says whether there was one.
    pub(super) fn settle(&mut self, id: u32, refused: Option<&RequestError>) -> bool {
        let sent_as = |waiting: &Waiting| waiting.sent.is_some_and(|(sent, _)| sent == id);
        let Some(at) = self.0.iter().position(sent_as) else {
            return false;
        };
        let later = matches!(refused, Some(RequestError::Refused { retryable: true, .. }));
        if !later {
            self.0.remove(at);
        }
        true
    }

    /// The connection ended: all is to be sent again on the next one.
    pub(super) fn disconnected(&mut self) {
        for waiting in &mut self.0 {
            waiting.sent = None;
        }
    }

    /// Gives them all up.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use roost_types::CommandId;

    use super::*;

    const NONE: [u32; 0] = [];

    fn ids(messages: &[FromDevice]) -> Vec<u32> {
        messages.iter().filter_map(FromDevice::id).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_outcome_is_sent_until_it_is_settled() {
        let mut outcomes = Outcomes::default();
        let mut next = 0;
        let mut due = |outcomes: &mut Outcomes| {
            ids(&outcomes.due(|| {
                next += 1;
                next
            }))
        };
        let command = |id: &str| CommandId::new(id).unwrap();
        outcomes.add(Outcome::succeeded(command("a")));
        outcomes.add(Outcome::failed(command("b"), "no"));
        assert_eq!(due(&mut outcomes), [1, 2]);
        assert_eq!(due(&mut outcomes), NONE, "they were sent a moment ago");
        assert!(outcomes.settle(1, None) && !outcomes.settle(1, None));
        let busy = RequestError::Refused {
            code: "NOT_ENQUEUED".to_owned(),
            message: String::new(),
            field: None,
            retryable: true,
        };
        assert!(outcomes.settle(2, Some(&busy)), "it stays");
        tokio::time::advance(RESEND).await;
        assert_eq!(due(&mut outcomes), [2], "the same id: any answer to it settles it");
        outcomes.disconnected();
        assert_eq!(due(&mut outcomes), [3], "another connection, another id");
        assert!(outcomes.settle(3, Some(&RequestError::Stopped)));
        outcomes.disconnected();
        assert_eq!(due(&mut outcomes), NONE);
    }
}
