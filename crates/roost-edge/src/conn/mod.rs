//! One device connection after its upgrade. A connection lives on one worker and never leaves it.
//!
//! Here: what a connection is. `task.rs` reads, `send.rs` writes, `timers.rs` says what it waits
//! for, `ending.rs` how it ends. What its messages mean is in `session/`; who else gets a message is
//! in `fanout.rs`.

mod ending;
mod send;
mod task;
mod timers;

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;

use roost_auth::{Identity, LEEWAY};
use roost_cluster::Initiator;
use roost_telemetry::metrics::ConnectionGuard;
use roost_telemetry::metrics::labels::Protocol;
use roost_types::{ErrorCode, HubError, UnixMillis};
use roost_wire::ws::{Decoder, Limits, Role};

pub(crate) use self::ending::Ending;
use self::ending::Exit;
pub(crate) use self::send::{Class, Sent};
use self::timers::Timers;
use crate::admission::{AddressSlot, ConnectionSlot};
use crate::outbox::Outbox;
use crate::session::Session;
use crate::transport::Transport;
use crate::wheel::{Ticks, ticks};
use crate::worker::{Place, Worker};

/// The most bytes of a message from a device that has not proven who it is. Growth beyond is for
/// devices with a session.
const UNPROVEN_MESSAGE: usize = 16 << 10;

/// One device connection.
pub(crate) struct Conn {
    /// The worker it lives on.
    pub(crate) worker: Rc<Worker>,
    /// Where it is found.
    pub(crate) place: Place,
    /// What is spoken on it.
    pub(crate) speech: Speech,
    /// The other end.
    pub(crate) peer: SocketAddr,
    /// The device's session, once claimed.
    pub(crate) session: OnceCell<Session>,
    /// What the handshake found out, until `hello` takes it.
    pub(crate) arrival: RefCell<Option<Box<Arrival>>>,
    transport: Transport,
    decoder: RefCell<Decoder>,
    /// `None` while the socket takes everything.
    outbox: RefCell<Option<Box<Outbox>>>,
    timers: Timers,
    stage: Cell<Stage>,
    /// How it ends, from when that is decided.
    ending: RefCell<Option<Box<Ending>>>,
    /// Counts this connection; dropped with it.
    counted: RefCell<ConnectionGuard>,
    /// While held, this connection counts against `max_connections`.
    _slot: ConnectionSlot,
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The device has not said `hello`, or its claim is under way.
    Greeting,
    /// It has a session; or it is an echo connection.
    Live,
    /// A close frame was sent; the peer's is awaited.
    Closing,
    /// Nothing is read or written any more.
    Over,
}

/// What is spoken on a connection. The session core does not ask; encoding does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speech {
    /// `roost.v1.json`.
    Json,
    /// Whatever comes goes back.
    Echo,
}

/// What the handshake found out about a device.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// Who it is; `None` where `hello` is to bring the credential; an error to be told it after the
    /// upgrade, since browsers cannot see HTTP statuses.
    pub(crate) identity: Result<Option<Identity>, HubError>,
    /// While held, this connection counts against its address's unproven ones.
    pub(crate) _address_slot: Option<AddressSlot>,
    /// Whether `?hello=auto` stands for the device's `hello`.
    pub(crate) auto_hello: bool,
    /// Bytes that came with the handshake.
    pub(crate) early: Box<[u8]>,
}

/// A connection as it comes out of the handshake.
pub(crate) struct Upgraded {
    pub(crate) transport: Transport,
    pub(crate) peer: SocketAddr,
    pub(crate) speech: Speech,
    pub(crate) arrival: Arrival,
    pub(crate) counted: ConnectionGuard,
    pub(crate) slot: ConnectionSlot,
}

// === impl Conn ===

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Conn({:?}, {}, {:?})", self.place, self.peer, self.stage.get())
    }
}

impl Conn {
    /// Gives the connection its place on the worker and its task.
    pub(crate) fn start(worker: &Rc<Worker>, upgraded: Upgraded) {
        let conn = worker.admit(|place| Rc::new(Self::new(worker, place, upgraded)));
        conn.arm();
        if !worker.edge.admits() {
            // Let in before the drain began, upgraded after.
            conn.close_planned(ErrorCode::Draining, Initiator::Hub);
        }
        tokio::task::spawn_local(task::run(Exit(conn)));
    }

    fn new(worker: &Rc<Worker>, place: Place, upgraded: Upgraded) -> Self {
        let config = &worker.edge.config;
        let now = worker.now.get();
        let (max_message, stage, hello_by) = match upgraded.speech {
            Speech::Json => {
                let proven = matches!(upgraded.arrival.identity, Ok(Some(_)));
                let most = if proven { usize::MAX } else { UNPROVEN_MESSAGE };
                let most = most.min(config.limits.frame_bytes);
                (most, Stage::Greeting, now + ticks(config.timeouts.hello))
            }
            Speech::Echo => (config.limits.echo_frame_bytes, Stage::Live, timers::NEVER),
        };
        Self {
            worker: Rc::clone(worker),
            place,
            speech: upgraded.speech,
            peer: upgraded.peer,
            session: OnceCell::new(),
            arrival: RefCell::new(Some(Box::new(upgraded.arrival))),
            transport: upgraded.transport,
            decoder: RefCell::new(Decoder::new(Role::Server, Limits::new(max_message))),
            outbox: RefCell::default(),
            timers: Timers::new(now, ticks(config.timeouts.keepalive), hello_by),
            stage: Cell::new(stage),
            ending: RefCell::default(),
            counted: RefCell::new(upgraded.counted),
            _slot: upgraded.slot,
        }
    }

    /// Where it stands.
    pub(crate) fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// Whether requests are still handled and messages still sent.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.stage.get(), Stage::Greeting | Stage::Live)
    }

    /// The session, of a connection that is open and has one.
    pub(crate) fn live_session(&self) -> Option<&Session> {
        self.session.get().filter(|_| self.stage.get() == Stage::Live)
    }

    /// The hello came: what follows takes as long as the store does.
    pub(crate) fn greeted(&self) {
        self.timers.phase_by.set(timers::NEVER);
    }

    /// The device was welcomed: no more waiting for `hello`.
    pub(crate) fn go_live(&self, keepalive: std::time::Duration, expires: Option<UnixMillis>) {
        if self.stage.get() != Stage::Greeting {
            return;
        }
        self.stage.set(Stage::Live);
        let frame_bytes = self.worker.edge.config.limits.frame_bytes;
        self.decoder.borrow_mut().set_max_message(frame_bytes);
        self.timers.phase_by.set(timers::NEVER);
        self.timers.set_keepalive(ticks(keepalive));
        if let Some(expires) = expires {
            // Believed for as long as a new connection with it would be.
            let left = expires.plus(LEEWAY).since(self.worker.edge.store.clock.now());
            let by = self.worker.now.get().saturating_add(ticks(left));
            self.timers.expires_by.set(by);
        }
        if let Some(age) = self.worker.age_of_a_connection() {
            self.timers.aged_by.set(self.worker.now.get().saturating_add(ticks(age)));
        }
        self.arm();
    }

    /// Does not count the time that the worker did not run for.
    pub(crate) fn forgive(&self, stall: Ticks) {
        self.timers.forgive(stall);
    }

    /// Sets the wheel for the nearest deadline, if it is set for a later one.
    fn arm(&self) {
        let next = self.timers.next();
        if next < self.timers.armed.get() {
            let at = self.worker.wheel.borrow_mut().schedule(next, self.place);
            self.timers.armed.set(at);
        }
    }
}

// === impl Speech ===

impl Speech {
    /// As a metric label.
    pub(crate) fn label(self) -> Protocol {
        match self {
            Self::Json => Protocol::Json,
            Self::Echo => Protocol::Echo,
        }
    }
}
