//! What a device was refused, noted in its history: now and then, and beside everything else. The rest of
//! a history is written by the store itself.

use std::rc::Rc;
use std::time::Duration;

use roost_cluster::{Refusal, StoreError};
use roost_types::HubError;

use crate::conn::Conn;
use crate::wheel::{Ticks, ticks};

/// Nothing was noted yet.
pub(super) const NEVER: Ticks = Ticks::MAX;
/// Between two notes of one session.
const APART: Duration = Duration::from_secs(1);
/// The most bytes of what it was about.
const MAX_ABOUT: usize = 128;

/// Notes what a device with a session was refused. An outage is no refusal, and of many in a second the
/// first is noted: a device that tries the same again and again must not cost the store a write each time.
pub(crate) fn note_refusal(conn: &Rc<Conn>, what: &str, about: &str, error: &HubError) {
    let Some(session) = conn.live_session().filter(|_| !error.code.retryable()) else {
        return;
    };
    let (now, last) = (conn.worker.now.get(), session.noted.get());
    // Two ticks in a row may be closer than that.
    if last != NEVER && now < last.saturating_add(ticks(APART) + 1) {
        return;
    }
    session.noted.set(now);
    let refusal = Refusal {
        what: what.into(),
        code: error.code.as_str().into(),
        about: about[..about.floor_char_boundary(MAX_ABOUT)].into(),
    };
    let (sessions, device) = (conn.worker.edge.store.sessions.clone(), session.device.clone());
    let session = session.id;
    tokio::task::spawn_local(async move {
        match sessions.note_refusal(&device, session, &refusal).await {
            Ok(()) | Err(StoreError::Fenced) => {}
            Err(error) => tracing::debug!(%device, %error, "could not note a refusal"),
        }
    });
}
