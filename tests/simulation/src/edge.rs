//! Edges: leases, confirming sessions, connections. The rules are those of `roost-cluster`
//! (`keeper.rs`) and `roost-edge`, in short; commands on their way are in `mail.rs`.

use std::collections::BTreeMap;

use roost_cluster::{NodeRef, Report, Revalidated, SessionClaim};
use roost_types::{CommandId, CommandResult, ResultStatus, SessionId, UnixMillis};

use crate::device::ToDevice;
use crate::rng::Rng;
use crate::settings::{LEASE, SKEW, ms};
use crate::store::{Answer, Reply, Request, node_ref};
use crate::world::{AtEdge, Happening, Purpose, World};

/// What a device says on a connection.
#[derive(Debug)]
pub(crate) enum FromDevice {
    Hello,
    Gone,
    Received(CommandId),
    Result(CommandId, ResultStatus),
}

#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) node: NodeRef,
    /// How far its hub time is ahead, plus [`SKEW`].
    skew: u64,
    lease_until: u64,
    /// Fenced until the sessions are confirmed.
    suspended: bool,
    /// Which round of confirmations this is; answers to an earlier one do not count.
    pub(crate) round: u64,
    /// How many sessions of this round are to be confirmed yet; `None` where no round runs.
    unconfirmed: Option<usize>,
    pub(crate) stopped_until: u64,
    /// Whether it minds its lease.
    leases: bool,
    pub(crate) conns: BTreeMap<SessionId, Conn>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    No,
    Yes,
    Again,
}

#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) device: usize,
    /// Which of the device's connections it is.
    pub(crate) number: u64,
    pub(crate) claim: SessionClaim,
    /// It was welcomed.
    pub(crate) live: bool,
    /// The `seq` delivered last.
    pub(crate) cursor: u64,
    pub(crate) reading: Reading,
    /// The round in which its mailbox was asked for last.
    pub(crate) asked_in: u64,
    /// By when, in hub time, it was claimed or confirmed last.
    pub(crate) confirmed: u64,
    /// When the last thing written arrives: a socket keeps its order.
    pub(crate) arrives: u64,
}

// === impl Edge ===

impl Edge {
    pub(crate) fn new(number: usize, leases: bool, rng: &mut Rng) -> Self {
        Self {
            node: node_ref(&format!("edge-{number}")),
            skew: rng.between(0, 2 * SKEW + 1),
            lease_until: 0,
            suspended: false,
            round: 0,
            unconfirmed: None,
            stopped_until: 0,
            leases,
            conns: BTreeMap::new(),
        }
    }

    pub(crate) fn hub_time(&self, now: u64) -> u64 {
        (now + self.skew).saturating_sub(SKEW)
    }

    pub(crate) fn may_act(&self, now: u64) -> bool {
        !self.leases || (!self.suspended && now < self.lease_until)
    }
}

// === impl World ===

impl World {
    pub(crate) fn edge_gets(&mut self, edge: usize, message: AtEdge) {
        match message {
            AtEdge::Beat => {
                self.beat(edge);
                self.after(ms(LEASE) / 3, Happening::Edge(edge, AtEdge::Beat));
            }
            AtEdge::FailedOver => {
                let it = &mut self.edges[edge];
                it.suspended = true;
                it.round += 1;
                it.unconfirmed = None;
                self.beat(edge);
            }
            AtEdge::Answer(purpose, answer) => self.edge_answered(purpose, *answer),
            AtEdge::Device { device, number, message } => {
                self.hear_device(edge, device, number, message);
            }
            AtEdge::Push { session, command, prev } => self.push(edge, session, &command, prev),
            AtEdge::ReadMailbox(session) => self.read(edge, session),
            AtEdge::Replaced(session) => self.close(edge, session),
        }
    }

    fn beat(&mut self, edge: usize) {
        let request = Request::Heartbeat(self.edges[edge].node.clone());
        self.call(Purpose::Beat { edge, sent: self.now }, request);
    }

    fn edge_answered(&mut self, purpose: Purpose, answer: Answer) {
        match purpose {
            Purpose::Beat { edge, sent } if answer.is_ok() => self.renewed(edge, sent),
            Purpose::Claim { edge, session } => self.claimed(edge, session, answer),
            Purpose::Confirm { edge, session, round } => {
                self.confirmed(edge, session, round, &answer);
            }
            Purpose::Read { edge, session } => self.mail_came(edge, session, answer),
            Purpose::Tell { edge, session } => self.told(edge, session, &answer),
            Purpose::Result { edge, session, id } => {
                self.result_answered(edge, session, id, &answer);
            }
            _ => {}
        }
    }

    /// A heartbeat sent at `sent` got through: validity counts from then.
    fn renewed(&mut self, edge: usize, sent: u64) {
        let now = self.now;
        let it = &mut self.edges[edge];
        if now >= it.lease_until {
            it.suspended = true;
        }
        it.lease_until = it.lease_until.max(sent + ms(LEASE));
        if it.suspended && it.unconfirmed.is_none() {
            self.confirm_all(edge);
        }
    }

    fn confirm_all(&mut self, edge: usize) {
        let it = &mut self.edges[edge];
        it.round += 1;
        let live: Vec<SessionId> =
            it.conns.iter().filter(|(_, conn)| conn.live).map(|(session, _)| *session).collect();
        it.unconfirmed = Some(live.len());
        for session in live {
            self.confirm(edge, session);
        }
        self.resume_if_confirmed(edge);
    }

    fn confirm(&mut self, edge: usize, session: SessionId) {
        let round = self.edges[edge].round;
        match self.edges[edge].conns.get(&session) {
            Some(conn) => {
                let request = Request::Revalidate(conn.claim.clone());
                self.call(Purpose::Confirm { edge, session, round }, request);
            }
            None => self.one_confirmed(edge),
        }
    }

    fn confirmed(&mut self, edge: usize, session: SessionId, round: u64, answer: &Answer) {
        if round != self.edges[edge].round {
            return;
        }
        match answer {
            Ok(Reply::Revalidated(Revalidated::Lost)) => {
                self.close(edge, session);
                self.one_confirmed(edge);
            }
            Ok(_) => {
                self.note_confirmed(edge, session);
                self.one_confirmed(edge);
            }
            Err(_) => self.confirm(edge, session),
        }
    }

    /// What the store decided until now was perhaps for this session before it lost the device.
    fn note_confirmed(&mut self, edge: usize, session: SessionId) {
        let until = self.edges[edge].hub_time(self.now) + SKEW;
        if let Some(conn) = self.edges[edge].conns.get_mut(&session) {
            conn.confirmed = until;
        }
    }

    fn one_confirmed(&mut self, edge: usize) {
        let left = &mut self.edges[edge].unconfirmed;
        *left = left.map(|left| left.saturating_sub(1));
        self.resume_if_confirmed(edge);
    }

    fn resume_if_confirmed(&mut self, edge: usize) {
        let it = &mut self.edges[edge];
        if it.unconfirmed == Some(0) {
            it.unconfirmed = None;
            it.suspended = false;
            let sessions: Vec<SessionId> = it.conns.keys().copied().collect();
            for session in sessions {
                self.read(edge, session);
            }
        }
    }

    fn hear_device(&mut self, edge: usize, device: usize, number: u64, message: FromDevice) {
        if let FromDevice::Hello = message {
            return self.greet(edge, device, number);
        }
        let mut all = self.edges[edge].conns.iter();
        let found = all.find(|(_, conn)| conn.device == device && conn.number == number);
        let Some((&session, conn)) = found else {
            return;
        };
        let key = conn.claim.device.clone();
        match message {
            FromDevice::Gone => {
                self.edges[edge].conns.remove(&session);
                self.call(Purpose::Release { edge }, Request::Release(key, session));
            }
            _ if !conn.live || !self.edges[edge].may_act(self.now) => {}
            FromDevice::Received(id) => {
                let request = Request::Report(key, session, id, Report::Received);
                self.call(Purpose::Tell { edge, session }, request);
            }
            FromDevice::Result(id, status) => {
                let result = CommandResult::new(status);
                let request = Request::Report(key, session, id.clone(), Report::Result(result));
                self.call(Purpose::Result { edge, session, id }, request);
            }
            FromDevice::Hello => {}
        }
    }

    fn greet(&mut self, edge: usize, device: usize, number: u64) {
        if !self.edges[edge].may_act(self.now) {
            return;
        }
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.rng.next().to_be_bytes());
        let session = SessionId::from_bytes(id);
        let claim = SessionClaim {
            device: self.devices[device].key.clone(),
            session,
            node: self.edges[edge].node.clone(),
            protocol: "".into(),
            address: "".into(),
            claimed_at: UnixMillis(self.edges[edge].hub_time(self.now)),
        };
        let conn = Conn {
            device,
            number,
            claim: claim.clone(),
            live: false,
            cursor: 0,
            reading: Reading::No,
            asked_in: 0,
            confirmed: 0,
            arrives: 0,
        };
        self.edges[edge].conns.insert(session, conn);
        self.call(Purpose::Claim { edge, session }, Request::Claim(claim));
    }

    fn claimed(&mut self, edge: usize, session: SessionId, answer: Answer) {
        let Ok(Reply::Claimed(claimed)) = answer else {
            return self.close(edge, session);
        };
        let Some(conn) = self.edges[edge].conns.get_mut(&session) else {
            return;
        };
        conn.live = true;
        let number = conn.number;
        self.write(edge, session, ToDevice::Welcome { number });
        if let Some((old, node)) = claimed.replaced.filter(|(old, _)| *old != session) {
            for delay in [0, 200, 600, 1_400] {
                self.tell(&node, AtEdge::Replaced(old), delay);
            }
        }
        self.read(edge, session);
    }

    pub(crate) fn close(&mut self, edge: usize, session: SessionId) {
        if let Some(conn) = self.edges[edge].conns.get(&session) {
            let number = conn.number;
            self.write(edge, session, ToDevice::Closed { number });
            self.edges[edge].conns.remove(&session);
        }
    }

    /// Puts something on the socket of this session.
    pub(crate) fn write(&mut self, edge: usize, session: SessionId, message: ToDevice) {
        let delay = self.rng.between(1, 30);
        let now = self.now;
        if let Some(conn) = self.edges[edge].conns.get_mut(&session) {
            conn.arrives = conn.arrives.max(now + delay);
            let (device, delay) = (conn.device, conn.arrives - now);
            self.after(delay, Happening::Device(device, message));
        }
    }
}
