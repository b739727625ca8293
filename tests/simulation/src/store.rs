//! The model of a replicated store: the rules are those of `roost-cluster`'s embedded store, called
//! one request at a time; here is what it has not: a replica that lags, a failover that loses what the
//! replica had not got, and `not_after`. A failover replays the requests that had been replicated.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use roost_checker::{Event, Kind};
use roost_cluster::{
    Batch, Cancelled, Claimed, Enqueued, Initiator, LastClose, ManualClock, MemoryHub, NodeInfo,
    NodeRef, Offer, Report, Reported, Revalidated, Roles, SessionClaim, Store, StoreError,
    SweepFinding,
};
use roost_types::{Command, CommandId, CommandSpec, DeviceKey, NodeId, SessionId, UnixMillis};

use crate::settings::{Part, Settings, of_store};

/// What a node may ask.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    Claim(SessionClaim),
    Release(DeviceKey, SessionId),
    Revalidate(SessionClaim),
    Enqueue(DeviceKey, CommandSpec),
    Read(DeviceKey, SessionId, u64),
    Report(DeviceKey, SessionId, CommandId, Report),
    Cancel(DeviceKey, CommandId),
    Get(DeviceKey, CommandId),
    Heartbeat(NodeRef),
    Sweep,
    Dead,
    EndSessionsOf(NodeRef),
}

/// What it is answered.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Claimed(Claimed),
    Revalidated(Revalidated),
    Enqueued(Enqueued),
    Batch(Batch),
    Reported(Reported),
    Cancelled(Cancelled),
    Command(Option<Box<Command>>),
    Findings(Vec<SweepFinding>),
    Nodes(Vec<NodeRef>),
    Done,
}

pub(crate) type Answer = Result<Reply, StoreError>;

/// The embedded store in one life of it.
#[derive(Debug)]
struct Engine {
    clock: Arc<ManualClock>,
    at: u64,
    store: Store,
    settings: Settings,
    /// Whose each device is, as the answers tell.
    current: BTreeMap<DeviceKey, SessionClaim>,
}

#[derive(Debug)]
struct Logged {
    at: u64,
    pos: u64,
    request: Request,
}

/// The store as nodes see it.
#[derive(Debug)]
pub(crate) struct ModelStore {
    engine: Engine,
    log: Vec<Logged>,
    /// How much of the log the replica has.
    replicated: usize,
    /// Grows with each request, also over failovers.
    pos: u64,
    /// How many failovers there were.
    pub(crate) epoch: u64,
    settings: Settings,
}

// === impl ModelStore ===

impl ModelStore {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            engine: Engine::new(settings),
            log: Vec::new(),
            replicated: 0,
            pos: 0,
            epoch: 0,
            settings: settings.clone(),
        }
    }

    /// Does what is asked, unless it is too late for it. Gives the answer, the place in the log that
    /// has to be replicated before it is a promise, and what happened to sessions.
    pub(crate) fn ask(
        &mut self,
        now: u64,
        request: &Request,
        not_after: u64,
    ) -> (Answer, usize, Vec<Event<'static>>) {
        if self.settings.has(Part::NotAfter) && now > not_after {
            return (Err(StoreError::Stale), 0, Vec::new());
        }
        self.pos += 1;
        self.log.push(Logged { at: now, pos: self.pos, request: request.clone() });
        let before = self.engine.current.clone();
        let answer = self.engine.execute(now, request);
        let mut changes = changes(request, &answer, &before);
        for change in &mut changes {
            (change.t, change.pos) = (now * 1_000, Some(self.pos));
        }
        (answer, self.log.len(), changes)
    }

    /// The replica has the log up to this place, where that is of this epoch.
    pub(crate) fn replicate(&mut self, place: usize) {
        self.replicated = self.replicated.max(place.min(self.log.len()));
    }

    pub(crate) fn replicated(&self) -> usize {
        self.replicated
    }

    /// Goes back to what the replica has.
    pub(crate) fn fail_over(&mut self, now: u64) -> Event<'static> {
        self.log.truncate(self.replicated);
        self.epoch += 1;
        self.engine = Engine::new(&self.settings);
        for logged in &self.log {
            // Their answers were given when they were executed first.
            drop(self.engine.execute(logged.at, &logged.request));
        }
        let back_to = self.log.last().map_or(0, |last| last.pos);
        let event = Event::new(Kind::Failover).at(now * 1_000).pos(self.pos);
        Event { back_to: Some(back_to), ..event }
    }
}

// === impl Engine ===

impl Engine {
    fn new(settings: &Settings) -> Self {
        let clock = Arc::new(ManualClock::at(UnixMillis(0)));
        let hub = MemoryHub::new(of_store(), Arc::clone(&clock) as _);
        let store = hub.node(node_ref("model"));
        Self { clock, at: 0, store, settings: settings.clone(), current: BTreeMap::new() }
    }

    fn execute(&mut self, at: u64, request: &Request) -> Answer {
        self.clock.advance(Duration::from_millis(at - self.at));
        self.at = at;
        let answer = self.call(request);
        match (request, &answer) {
            (Request::Claim(claim), Ok(_))
            | (Request::Revalidate(claim), Ok(Reply::Revalidated(Revalidated::Reclaimed))) => {
                self.current.insert(claim.device.clone(), claim.clone());
            }
            (Request::Release(device, _), Ok(_)) => {
                self.current.remove(device);
            }
            (Request::EndSessionsOf(node), Ok(Reply::Done)) => {
                self.current.retain(|_, claim| claim.node != *node);
            }
            _ => {}
        }
        answer
    }

    /// The session to ask with: the one that asks, or, with the comparison taken out, whichever the
    /// device has.
    fn session(&self, device: &DeviceKey, session: SessionId) -> SessionId {
        let current =
            self.current.get(device).filter(|_| !self.settings.has(Part::SessionComparison));
        current.map_or(session, |claim| claim.session)
    }

    fn call(&self, request: &Request) -> Answer {
        let (sessions, mail, nodes) =
            (&self.store.sessions, &self.store.mailboxes, &self.store.nodes);
        match request {
            Request::Claim(claim) => now(sessions.claim(claim)).map(Reply::Claimed),
            Request::Release(device, session) => {
                let session = self.session(device, *session);
                now(sessions.release(device, session, &closed(self.at))).map(|()| Reply::Done)
            }
            Request::Revalidate(claim) => {
                let claims = std::slice::from_ref(claim);
                now(sessions.revalidate(claims)).map(|all| Reply::Revalidated(all[0]))
            }
            Request::Enqueue(device, spec) => {
                now(mail.enqueue(device, Offer::new(spec))).map(Reply::Enqueued)
            }
            Request::Read(device, session, after) => {
                let session = self.session(device, *session);
                now(mail.read(device, session, *after)).map(Reply::Batch)
            }
            Request::Report(device, session, id, report) => {
                let session = self.session(device, *session);
                now(mail.report(device, session, id, report)).map(Reply::Reported)
            }
            Request::Cancel(device, id) => now(mail.cancel(device, id)).map(Reply::Cancelled),
            Request::Get(device, id) => {
                now(mail.get(device, id, None)).map(|found| Reply::Command(found.map(Box::new)))
            }
            Request::Heartbeat(node) => {
                now(nodes.heartbeat(&info(node, self.at))).map(|()| Reply::Done)
            }
            Request::Sweep => now(mail.sweep()).map(Reply::Findings),
            Request::Dead => now(nodes.dead()).map(Reply::Nodes),
            Request::EndSessionsOf(node) if self.settings.has(Part::StillDead) => {
                let dead = now(nodes.dead())?;
                if !dead.contains(node) {
                    return Ok(Reply::Nodes(Vec::new()));
                }
                now(sessions.end_sessions_of(node)).map(|_| Reply::Done)
            }
            Request::EndSessionsOf(node) => {
                now(sessions.end_sessions_of(node)).map(|_| Reply::Done)
            }
        }
    }
}

/// The embedded store answers without waiting.
fn now<T>(call: impl Future<Output = T>) -> T {
    call.now_or_never().expect("the embedded store never waits")
}

pub(crate) fn node_ref(name: &str) -> NodeRef {
    NodeRef { id: NodeId::new(name).expect("the names of a run are ids"), incarnation: 1 }
}

fn closed(at: u64) -> LastClose {
    let (time, initiator) = (UnixMillis(at), Initiator::Device);
    LastClose { code: 1006, reason: "gone".into(), initiator, time }
}

fn info(node: &NodeRef, at: u64) -> NodeInfo {
    NodeInfo {
        node: node.clone(),
        roles: Roles { edge: true, control: false },
        version: String::new(),
        address: String::new(),
        started: UnixMillis(at),
        devices: 0,
        draining: false,
    }
}

/// What a request did to sessions, or as a session, as the checker wants to know it.
fn changes(
    request: &Request,
    answer: &Answer,
    before: &BTreeMap<DeviceKey, SessionClaim>,
) -> Vec<Event<'static>> {
    let of = |kind, device: &DeviceKey, session: SessionId| Event {
        tenant: device.tenant.to_string().into(),
        device: device.device.to_string().into(),
        session: session.to_string().into(),
        ..Event::new(kind)
    };
    let claimed = |kind, claim: &SessionClaim| Event {
        claimed_ms: Some(claim.claimed_at.0),
        ..of(kind, &claim.device, claim.session)
    };
    match (request, answer) {
        (Request::Claim(claim), Ok(Reply::Claimed(done))) => {
            let replaced = done.replaced.as_ref().map(|(session, _)| session.to_string());
            let replaced = replaced.unwrap_or_default().into();
            vec![Event { replaced, ..claimed(Kind::Claimed, claim) }]
        }
        (Request::Revalidate(claim), Ok(Reply::Revalidated(Revalidated::Reclaimed))) => {
            vec![claimed(Kind::Reclaimed, claim)]
        }
        (Request::Release(device, session), Ok(_)) => {
            vec![of(Kind::Released, device, *session)]
        }
        (Request::EndSessionsOf(node), Ok(Reply::Done)) => (before.iter())
            .filter(|(_, claim)| claim.node == *node)
            .map(|(device, claim)| of(Kind::Released, device, claim.session))
            .collect(),
        (Request::Read(device, session, _), Ok(_))
        | (Request::Report(device, session, ..), Ok(Reply::Reported(Reported::Applied { .. }))) => {
            vec![of(Kind::Apply, device, *session)]
        }
        _ => Vec::new(),
    }
}
