//! From `hello` to a live session: credential, claim, `welcome`, subscriptions, mailbox.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use roost_auth::{Credential, Identity};
use roost_cluster::{Claimed, SessionClaim};
use roost_types::{ErrorCode, HubError, SessionId};
use roost_wire::device::{HelloSubscription, ToDevice, Token, WelcomeLimits};

use super::traces::Traces;
use super::{Session, history, mail, takeover, topics};
use crate::conn::{Conn, Stage};

/// What a `hello` says.
pub(super) struct Hello {
    pub(super) keepalive_ms: Option<u32>,
    pub(super) token: Option<Token>,
    pub(super) subscriptions: Vec<HelloSubscription>,
}

/// Makes the connection a session, or closes it with the reason why not.
pub(super) async fn greet(conn: &Rc<Conn>, hello: Hello) {
    match begin(conn, &hello).await {
        Ok(()) => {
            topics::subscribe_all(conn, hello.subscriptions).await;
            mail::read_if_wanted(conn);
        }
        Err(error) => conn.close(error),
    }
}

async fn begin(conn: &Rc<Conn>, hello: &Hello) -> Result<(), HubError> {
    conn.greeted();
    let edge = &conn.worker.edge;
    let identity = identify(conn, hello.token.as_ref())?;
    if !edge.lease.is_valid() {
        return Err(out_of_reach());
    }
    let session = Session {
        device: identity.key(),
        id: SessionId::random(),
        claimed_at: edge.store.clock.now(),
        cursor: Cell::new(0),
        mail: Cell::new(mail::Reading::No),
        released: Cell::new(false),
        noted: Cell::new(history::NEVER),
        traces: Traces::default(),
        subscriptions: RefCell::default(),
        counted: RefCell::new(edge.telemetry.node.session_claimed()),
    };
    let claim = session.claim(conn);
    // Registered before the claim: a command may be pushed the moment the claim is made.
    edge.registry.insert(session.id, conn.place);
    let session = conn.session.get_or_init(|| session);
    let claimed = match edge.store.sessions.claim(&claim).await {
        Ok(claimed) => claimed,
        Err(error) => {
            tracing::warn!(device = %claim.device, %error, "could not claim a session");
            return Err(out_of_reach());
        }
    };
    note_claim(conn, &claim, &claimed);
    if conn.stage() != Stage::Greeting {
        return Ok(());
    }
    if !edge.lease.is_valid() {
        // It lapsed meanwhile: this session was not among those confirmed, and may be lost.
        return Err(out_of_reach());
    }
    welcome(conn, session, hello, &identity);
    if claimed.pending > 0 {
        mail::want(session);
    }
    Ok(())
}

fn out_of_reach() -> HubError {
    let text = "the hub cannot take sessions at the moment; connect again in a few seconds";
    HubError::new(ErrorCode::Unavailable, text)
}

/// Who the device is: by the handshake's credential, or else by the hello's.
fn identify(conn: &Conn, token: Option<&Token>) -> Result<Identity, HubError> {
    // Dropped at the end of this: the connection no longer counts as unproven.
    let arrival = conn.arrival.borrow_mut().take();
    if let Some(identity) = arrival.and_then(|arrival| arrival.identity.ok().flatten()) {
        return Ok(identity);
    }
    let edge = &conn.worker.edge;
    let credential = token.map(|token| Credential::from_hello(&token.0)).transpose()?;
    let now = edge.store.clock.now();
    Ok(edge.authenticator.authenticate(credential.as_ref(), now)?)
}

/// Makes the session that was replaced go, and tells of two devices that fight over one identity.
fn note_claim(conn: &Rc<Conn>, claim: &SessionClaim, claimed: &Claimed) {
    tracing::debug!(device = %claim.device, session = %claim.session, peer = %conn.peer, "a device connected");
    if let Some((session, node)) = &claimed.replaced {
        if claimed.contested {
            conn.worker.edge.telemetry.node.session_contests.increment(1);
            tracing::warn!(
                device = %claim.device, node = %claim.node.id, other = %node.id, peer = %conn.peer,
                "two connections fight over device {}: two devices seem to use one identity",
                claim.device
            );
        }
        takeover::begin(conn, &claim.device, *session, node);
    }
}

fn welcome(conn: &Rc<Conn>, session: &Session, hello: &Hello, identity: &Identity) {
    let edge = &conn.worker.edge;
    let (timeouts, limits) = (&edge.config.timeouts, &edge.config.limits);
    let keepalive = hello
        .keepalive_ms
        .map_or(timeouts.keepalive, |ms| Duration::from_millis(ms.into()))
        .clamp(timeouts.keepalive_min, timeouts.keepalive_max);
    conn.go_live(keepalive, identity.expires_at);
    conn.say(&ToDevice::Welcome {
        device_id: session.device.device.clone(),
        session_id: session.id,
        time_ms: edge.store.clock.now(),
        keepalive_ms: u32::try_from(keepalive.as_millis()).unwrap_or(u32::MAX),
        limits: WelcomeLimits {
            payload_bytes: limits.payload_bytes as u64,
            frame_bytes: limits.frame_bytes as u64,
        },
    });
}
