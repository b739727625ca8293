//! One of the edge's threads and the connections that live on it. Nothing in here is shared with
//! another thread but the inbox.
//!
//! Here: what a worker holds. `run.rs` has its thread and tasks, `jobs.rs` what the node asks of it,
//! `fanout.rs` hands publications to sockets, `reports.rs` tells the store what was sent, `drain.rs`
//! sends devices away.

pub(crate) mod drain;
mod fanout;
mod inbox;
mod jobs;
mod reports;
mod run;
mod subscribers;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use roost_types::{TenantId, TopicFilter};
use slab::Slab;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub(crate) use self::inbox::{Inbox, Job, Publication, Received, inbox};
pub(crate) use self::reports::{Reports, SentReport};
pub(crate) use self::run::start;
use self::subscribers::Subscribers;
use crate::conn::Conn;
use crate::edge::Edge;
use crate::random::Random;
use crate::session::end::Unreleased;
use crate::wheel::{Ticks, Wheel};

/// One read takes at most this much; shared by all connections of a worker.
const READ_BUFFER: usize = 64 << 10;
/// Sessions that the store was not told the end of: at most so many, the others end with the lease
/// or when their devices come back.
const MAX_UNRELEASED: usize = 65_536;

/// Where a connection is. The generation tells it from one that had the place before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) worker: u16,
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// One thread's connections and what they share.
pub(crate) struct Worker {
    pub(crate) edge: Arc<Edge>,
    pub(crate) index: u16,
    /// Ticks since the worker started.
    pub(crate) now: Cell<Ticks>,
    pub(crate) wheel: RefCell<Wheel<Place>>,
    /// Borrowed only while nothing is awaited.
    pub(crate) read_buffer: RefCell<Box<[u8]>>,
    pub(crate) reports: Reports,
    /// Ends with the last handshakes: the listener is closed and its queue answered.
    pub(crate) closing: CancellationToken,
    /// Handshakes under way.
    pub(crate) handshakes: Cell<usize>,
    conns: RefCell<Slab<Rc<Conn>>>,
    /// Sessions whose end the store is being told.
    releasing: Cell<usize>,
    /// Woken when the last connection leaves, or the last release is done.
    empty: Notify,
    generation: Cell<u32>,
    subscribers: RefCell<Subscribers>,
    /// Sessions whose mailbox is to be read when the lease is valid.
    mail_later: RefCell<VecDeque<Place>>,
    unreleased: RefCell<VecDeque<Unreleased>>,
    random: Random,
}

/// While held, a session's end is being told to the store.
pub(crate) struct Releasing(Rc<Worker>);

// === impl Worker ===

impl Worker {
    pub(crate) fn new(edge: Arc<Edge>, index: u16) -> Rc<Self> {
        Rc::new(Self {
            edge,
            index,
            now: Cell::new(0),
            wheel: RefCell::new(Wheel::new()),
            read_buffer: RefCell::new(vec![0; READ_BUFFER].into()),
            reports: Reports::default(),
            closing: CancellationToken::new(),
            handshakes: Cell::new(0),
            conns: RefCell::default(),
            releasing: Cell::new(0),
            empty: Notify::new(),
            generation: Cell::new(0),
            subscribers: RefCell::default(),
            mail_later: RefCell::default(),
            unreleased: RefCell::default(),
            random: Random::new(),
        })
    }

    /// Moves the clock on; gives how many ticks it left out.
    pub(crate) fn set_now(&self, now: Ticks) -> Ticks {
        now.saturating_sub(self.now.replace(now)).saturating_sub(1)
    }

    /// Gives a new connection its place.
    pub(crate) fn admit(&self, make: impl FnOnce(Place) -> Rc<Conn>) -> Rc<Conn> {
        let generation = self.generation.get().wrapping_add(1);
        self.generation.set(generation);
        let mut conns = self.conns.borrow_mut();
        let entry = conns.vacant_entry();
        let index = u32::try_from(entry.key()).expect("a worker has fewer than 2^32 connections");
        let conn = make(Place { worker: self.index, index, generation });
        entry.insert(Rc::clone(&conn));
        conn
    }

    /// The connection at a place, if it is still the same one.
    pub(crate) fn find(&self, place: Place) -> Option<Rc<Conn>> {
        let conns = self.conns.borrow();
        let conn = conns.get(place.index as usize)?;
        (conn.place == place).then(|| Rc::clone(conn))
    }

    /// A connection is gone.
    pub(crate) fn dismiss(&self, place: Place) {
        if self.find(place).is_some() {
            let gone = self.conns.borrow_mut().remove(place.index as usize);
            drop(gone);
        }
        if self.is_empty() {
            self.empty.notify_waiters();
        }
    }

    /// Whether no connection is left and every session's end was told or put by.
    fn is_empty(&self) -> bool {
        self.conns.borrow().is_empty() && self.releasing.get() == 0
    }

    /// A session's end is being told until the guard is dropped.
    pub(crate) fn releasing(self: &Rc<Self>) -> Releasing {
        self.releasing.set(self.releasing.get() + 1);
        Releasing(Rc::clone(self))
    }

    /// Every connection, as of now.
    pub(crate) fn all(&self) -> Vec<Rc<Conn>> {
        self.conns.borrow().iter().map(|(_, conn)| Rc::clone(conn)).collect()
    }

    /// Adds a subscriber here and, for the first one, to the node's table.
    pub(crate) fn subscribe(&self, tenant: &TenantId, filter: &TopicFilter, who: Place) {
        if self.subscribers.borrow_mut().add(tenant, filter, who) {
            self.edge.interests.add(self.index, tenant, filter);
        }
    }

    /// The reverse of [`Worker::subscribe`].
    pub(crate) fn unsubscribe(&self, tenant: &TenantId, filter: &TopicFilter, who: Place) {
        if self.subscribers.borrow_mut().remove(tenant, filter, who) {
            self.edge.interests.remove(self.index, tenant, filter);
        }
    }

    /// Has a session's mailbox read once the lease is valid.
    pub(crate) fn read_mail_later(&self, place: Place) {
        self.mail_later.borrow_mut().push_back(place);
    }

    /// Has the store told of a session's end once it can be reached.
    pub(crate) fn release_later(&self, ended: Unreleased) {
        let mut unreleased = self.unreleased.borrow_mut();
        if unreleased.len() < MAX_UNRELEASED {
            unreleased.push_back(ended);
        } else {
            tracing::warn!("too many sessions wait to be released; one is left to the lease");
        }
    }

    /// How old a new connection may become; `None` for as old as it will.
    pub(crate) fn age_of_a_connection(&self) -> Option<Duration> {
        let config = &self.edge.config;
        let age = config.max_connection_age?;
        let jitter = config.max_connection_age_jitter.unwrap_or(age / 4);
        let jitter = self.random_below(u64::try_from(jitter.as_millis()).unwrap_or(u64::MAX));
        Some(age + Duration::from_millis(jitter))
    }

    /// A number below `bound`, or 0 for a bound of 0: for jitter, not for secrets.
    pub(crate) fn random_below(&self, bound: u64) -> u64 {
        self.random.below(bound)
    }
}

// === impl Releasing ===

impl Drop for Releasing {
    fn drop(&mut self) {
        let worker = &self.0;
        worker.releasing.set(worker.releasing.get() - 1);
        if worker.is_empty() {
            worker.empty.notify_waiters();
        }
    }
}
