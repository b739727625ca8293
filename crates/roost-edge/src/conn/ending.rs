//! How a connection ends: deadlines, close frames from either side, and the one way out.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Duration;

use roost_cluster::{Initiator, LastClose};
use roost_telemetry::metrics::labels::{CloseCode, DisconnectReason, Initiator as Cause};
use roost_types::{ErrorCode, HubError};
use roost_wire::device::ToDevice;
use roost_wire::ws::{encode_close, encode_ping};

use super::timers::{Due, NEVER};
use super::{Conn, Speech, Stage};
use crate::session;
use crate::shed::{Farewell, Why};
use crate::wheel::{Ticks, ticks};
use crate::worker::drain;

/// How long a close waits for the store to take a departing device's session back.
const RELEASE_FIRST: Duration = Duration::from_millis(500);
/// Within so much a device comes back whose connection was old enough.
const AGED_RETRY: Duration = Duration::from_secs(2);
/// So long an old connection is left alone while the store is out of reach.
const AGED_LATER: Duration = Duration::from_secs(1);
/// And up to so many milliseconds longer, so that not all go at once when it is back.
const AGED_APART: u64 = 10_000;
/// The most bytes of a close reason.
const MAX_REASON: usize = 123;

/// How a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ending {
    /// The close code; 1006 where none was exchanged.
    pub(crate) code: u16,
    /// In words.
    pub(crate) reason: Cow<'static, str>,
    /// Who ended it.
    pub(crate) by: Initiator,
}

// === impl Ending ===

impl Ending {
    /// As the store keeps it.
    fn last_close(self, now: roost_types::UnixMillis) -> LastClose {
        let cut = self.reason.floor_char_boundary(MAX_REASON);
        LastClose {
            code: self.code,
            reason: self.reason[..cut].into(),
            initiator: self.by,
            time: now,
        }
    }
}

// === impl Conn ===

impl Conn {
    /// Ends the connection by a rule of the hub: `error`, then the close frame of its code. Does
    /// nothing where it is ending already.
    pub(crate) fn close(self: &Rc<Self>, error: HubError) {
        self.close_by(Initiator::Hub, error);
    }

    /// The same on behalf of somebody.
    pub(crate) fn close_by(self: &Rc<Self>, by: Initiator, error: HubError) {
        if !self.is_open() {
            return;
        }
        let code = error.code.close_code().unwrap_or(1011);
        let reason = error.message.clone();
        self.counted.borrow_mut().closing(Cause::Hub, DisconnectReason::from_error(error.code));
        tracing::debug!(peer = %self.peer, code, %reason, "closing a connection: {reason}");
        if self.speech != Speech::Echo {
            let frame = crate::adapter::encode(self.speech, &ToDevice::error(None, error));
            self.send_last(&frame);
        }
        self.say_close(Ending { code, reason, by });
    }

    /// Ends the connection without an error: a planned close, after `goaway`.
    pub(crate) fn close_planned(self: &Rc<Self>, code: ErrorCode, by: Initiator) {
        if !self.is_open() {
            return;
        }
        self.counted.borrow_mut().closing(Cause::Hub, DisconnectReason::from_error(code));
        let reason = Cow::Borrowed(code.label());
        let code = code.close_code().unwrap_or(1001);
        self.say_close(Ending { code, reason, by });
    }

    /// Sends a device with a session away, after `goaway`: what waits for its socket is written, its session
    /// released so that its next node finds none, and then comes the close frame. From now on nothing is
    /// delivered to it and nothing that it says counts: commands wait in the mailbox, results come again.
    pub(crate) fn depart(self: &Rc<Self>, reason: &'static str) {
        // Saying `goaway` may have found the connection broken.
        if !self.is_open() {
            return;
        }
        self.counted.borrow_mut().closing(Cause::Hub, DisconnectReason::Draining);
        let code = ErrorCode::Draining.close_code().unwrap_or(1001);
        self.settle(Ending { code, reason: reason.into(), by: Initiator::Hub });
        self.begin_closing();
        tokio::task::spawn_local(see_off(Rc::clone(self)));
    }

    /// Ends a connection whose frames can be read no longer: no close frame of the peer would be
    /// understood, so it is not left waiting for the hub to close first.
    pub(super) fn close_unreadable(self: &Rc<Self>, error: HubError) {
        self.close(error);
        if self.stage.get() == Stage::Closing && self.has_room() {
            self.transport.finish();
        }
    }

    fn say_close(self: &Rc<Self>, ending: Ending) {
        if self.stage.get() == Stage::Over {
            return self.settle(ending);
        }
        let frame = encode_close(ending.code, &ending.reason);
        self.worker.edge.metrics().close_frames_sent.inc(CloseCode::from_number(ending.code));
        self.settle(ending);
        self.send_last(&frame);
        if self.stage.get() != Stage::Over {
            self.begin_closing();
        }
    }

    /// From now on only the end is awaited, and not for long.
    fn begin_closing(self: &Rc<Self>) {
        self.stage.set(Stage::Closing);
        let close = ticks(self.worker.edge.config.timeouts.close);
        self.timers.phase_by.set(self.worker.now.get() + close);
        self.timers.stalled_by.set(NEVER);
        self.timers.expires_by.set(NEVER);
        self.timers.aged_by.set(NEVER);
        self.arm();
    }

    /// Whether it ends because the hub sends the device elsewhere.
    fn was_sent_away(&self) -> bool {
        let away = ErrorCode::Draining.close_code();
        let ending = self.ending.borrow();
        ending.as_ref().is_some_and(|it| Some(it.code) == away && it.by == Initiator::Hub)
    }

    /// The first ending counts: what follows is its consequence.
    fn settle(&self, ending: Ending) {
        self.ending.borrow_mut().get_or_insert_with(|| Box::new(ending));
    }

    /// The peer's close frame came: it is answered, unless it is the answer.
    pub(super) fn peer_closes(self: &Rc<Self>, code: Option<u16>, reason: String) {
        if self.is_open() {
            let shown = code.unwrap_or(1005);
            let cause = DisconnectReason::from_close_code(shown);
            self.counted.borrow_mut().closing(Cause::Device, cause);
            self.settle(Ending { code: shown, reason: reason.into(), by: Initiator::Device });
            let answer = code.unwrap_or(1000);
            self.worker.edge.metrics().close_frames_sent.inc(CloseCode::from_number(answer));
            self.send_last(&encode_close(answer, ""));
        }
        self.break_off();
    }

    /// The stream ended, or failed, without a close frame.
    pub(super) fn peer_vanishes(&self) {
        self.settle(Ending {
            code: 1006,
            reason: "the connection was lost".into(),
            by: Initiator::Device,
        });
        self.break_off();
    }

    /// How it ended, as the store keeps it.
    fn last_close(&self) -> LastClose {
        let ending = self.ending.borrow().as_deref().cloned();
        let ending = ending.unwrap_or_else(Ending::unknown);
        ending.last_close(self.worker.edge.store.clock.now())
    }

    /// Ends the connection at once, whatever waits.
    pub(crate) fn kill(&self) {
        self.stage.set(Stage::Over);
        self.drop_outbox();
        self.transport.abort();
    }

    /// The wheel came to an entry of this connection, set for `at`.
    pub(crate) fn on_time(self: &Rc<Self>, at: Ticks) {
        if at != self.timers.armed.get() {
            return;
        }
        self.timers.armed.set(NEVER);
        let timeouts = &self.worker.edge.config.timeouts;
        match (self.timers.due(self.worker.now.get()), self.stage.get()) {
            (_, Stage::Over) => return,
            (Due::Nothing, _) => {}
            (Due::Phase, Stage::Closing) => {
                if self.was_sent_away() {
                    self.worker.edge.closed_by_force();
                }
                return self.kill();
            }
            (Due::Phase, _) => {
                let text = format!("no hello came within {:?}", timeouts.hello);
                self.close(HubError::new(ErrorCode::IdleTimeout, text));
            }
            (Due::Stalled, _) => {
                self.close_slow("nothing of what was sent was read for too long");
            }
            // No node could take it: its age can wait.
            (Due::Aged, _) if !self.worker.edge.store_is_up() => {
                let later =
                    AGED_LATER + Duration::from_millis(self.worker.random_below(AGED_APART));
                self.timers.aged_by.set(self.worker.now.get() + ticks(later));
            }
            (Due::Aged, _) => {
                let farewell = Farewell { why: Why::Age, spread: AGED_RETRY };
                drain::depart(&self.worker, self, farewell);
            }
            (Due::Expired, _) => {
                let text = "the credential expired; connect again with a new one";
                self.close(HubError::new(ErrorCode::CredentialExpired, text));
            }
            // A closing connection has its deadline already.
            (Due::Silent | Due::Ping, Stage::Closing) => self.timers.hear(self.worker.now.get()),
            (Due::Silent, _) => {
                let text = "nothing came for one and a half times the keep-alive interval";
                self.close(HubError::new(ErrorCode::IdleTimeout, text));
            }
            (Due::Ping, _) => {
                let ping = encode_ping(&self.worker.edge.metrics().ping_payload());
                self.send(&ping, super::Class::Control);
            }
        }
        self.arm();
    }
}

/// What a connection holds of its worker and of the node, given back however its task ends.
pub(super) struct Exit(pub(super) Rc<Conn>);

impl Exit {
    /// Tells the store how the session ended. The local effects follow when this is dropped.
    pub(super) async fn release(self) {
        let conn = Rc::clone(&self.0);
        let _releasing = conn.worker.releasing();
        // Local effects first: no more messages for a connection that is gone.
        drop(self);
        let Some(session) = conn.session.get() else {
            return;
        };
        if !session.is_released() {
            let close = conn.last_close();
            session::end::release(&conn.worker, session, close).await;
        }
    }
}

/// Releases a departing device's session once its socket has everything, then closes. The time for both is
/// that of a close handshake; then the connection's deadline breaks it off.
async fn see_off(conn: Rc<Conn>) {
    conn.drained().await;
    if let Some(session) = conn.session.get() {
        session.set_released();
        let (worker, close) = (Rc::clone(&conn.worker), conn.last_close());
        let releasing = worker.releasing();
        let ended = session::end::Unreleased::of(session, close);
        let release = tokio::task::spawn_local(async move {
            session::end::try_release(&worker, ended).await;
            drop(releasing);
        });
        if tokio::time::timeout(RELEASE_FIRST, release).await.is_err() {
            tracing::debug!(peer = %conn.peer, "closing before the session's release is confirmed");
        }
    }
    if conn.stage.get() == Stage::Closing {
        let ending = conn.ending.borrow().as_deref().cloned();
        conn.say_close(ending.unwrap_or_else(Ending::unknown));
    }
}

impl Ending {
    fn unknown() -> Self {
        Self { code: 1006, reason: "the connection was lost".into(), by: Initiator::Device }
    }
}

impl Drop for Exit {
    fn drop(&mut self) {
        let conn = &self.0;
        conn.stage.set(Stage::Over);
        conn.drop_outbox();
        conn.transport.shutdown();
        session::end::detach(conn);
        conn.worker.dismiss(conn.place);
    }
}
