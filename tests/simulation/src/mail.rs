//! Commands to the device, in order, and what it reports of them: the edges' part in mailboxes. The
//! rules are those of `roost-edge` (`session/mail.rs`, `session/reports.rs`), in short.

use roost_cluster::{Batch, Report, Reported, StoreError};
use roost_types::{Command, CommandId, SessionId};

use crate::device::ToDevice;
use crate::edge::Reading;
use crate::settings::Part;
use crate::store::{Answer, Reply, Request};
use crate::world::{AtEdge, Happening, Purpose, World, is_fenced};

impl World {
    pub(crate) fn push(&mut self, edge: usize, session: SessionId, command: &Command, prev: u64) {
        let Some(conn) = self.edges[edge].conns.get(&session).filter(|conn| conn.live) else {
            return;
        };
        if command.seq <= conn.cursor {
            return;
        }
        let in_order = prev <= conn.cursor && conn.reading == Reading::No;
        let fresh = command.updated().0 > conn.confirmed || !self.settings.has(Part::Fresh);
        if !in_order || !fresh || !self.deliver(edge, session, command) {
            self.read(edge, session);
        }
    }

    pub(crate) fn read(&mut self, edge: usize, session: SessionId) {
        let (may_act, round) = (self.edges[edge].may_act(self.now), self.edges[edge].round);
        let Some(conn) = self.edges[edge].conns.get_mut(&session).filter(|conn| conn.live) else {
            return;
        };
        if !may_act {
            // When the sessions are confirmed every mailbox is read.
            return;
        }
        if conn.reading != Reading::No {
            conn.reading = Reading::Again;
            return;
        }
        conn.reading = Reading::Yes;
        conn.asked_in = round;
        let request = Request::Read(conn.claim.device.clone(), session, conn.cursor);
        self.call(Purpose::Read { edge, session }, request);
    }

    pub(crate) fn mail_came(&mut self, edge: usize, session: SessionId, answer: Answer) {
        let (now, it) = (self.now, &mut self.edges[edge]);
        let (round, may_act) = (it.round, it.may_act(now));
        let Some(conn) = it.conns.get_mut(&session) else {
            return;
        };
        let fresh = conn.asked_in == round || !self.settings.has(Part::Fresh);
        let again = conn.reading == Reading::Again;
        conn.reading = Reading::No;
        match answer {
            Ok(Reply::Batch(_)) if may_act && !fresh => self.read(edge, session),
            Ok(Reply::Batch(batch)) => self.hand_out(edge, session, &batch, again),
            Err(StoreError::Fenced) => self.close(edge, session),
            _ => self.after(200, Happening::Edge(edge, AtEdge::ReadMailbox(session))),
        }
    }

    fn hand_out(&mut self, edge: usize, session: SessionId, batch: &Batch, again: bool) {
        for command in &batch.commands {
            let cursor = self.edges[edge].conns.get(&session).map_or(u64::MAX, |conn| conn.cursor);
            if command.seq > cursor && !self.deliver(edge, session, command) {
                return;
            }
        }
        if batch.more || again {
            self.read(edge, session);
        }
    }

    /// Hands a command to the socket, unless its time is over. `false` where this edge is fenced.
    fn deliver(&mut self, edge: usize, session: SessionId, command: &Command) -> bool {
        if !self.edges[edge].may_act(self.now) {
            return false;
        }
        let late = self.edges[edge].hub_time(self.now) >= command.spec.expires.0;
        let conn = self.edges[edge].conns.get_mut(&session).expect("the caller found it");
        conn.cursor = command.seq;
        if late {
            return true;
        }
        let (number, key) = (conn.number, conn.claim.device.clone());
        let message = ToDevice::Command {
            number,
            session,
            spec: Box::new(command.spec.clone()),
            handed: self.now,
        };
        self.write(edge, session, message);
        let request = Request::Report(key, session, command.spec.id.clone(), Report::Sent);
        self.call(Purpose::Tell { edge, session }, request);
        true
    }

    pub(crate) fn told(&mut self, edge: usize, session: SessionId, answer: &Answer) {
        match answer {
            Ok(Reply::Reported(Reported::Applied { more: true, .. })) => self.read(edge, session),
            answer if is_fenced(answer) => self.close(edge, session),
            _ => {}
        }
    }

    pub(crate) fn result_answered(
        &mut self,
        edge: usize,
        session: SessionId,
        id: CommandId,
        answer: &Answer,
    ) {
        let Some(number) = self.edges[edge].conns.get(&session).map(|conn| conn.number) else {
            return;
        };
        match answer {
            Ok(Reply::Reported(Reported::Unknown)) => {
                self.write(edge, session, ToDevice::Refused { number, id });
            }
            Ok(Reply::Reported(_)) => self.write(edge, session, ToDevice::Ack { number, id }),
            _ => {}
        }
        self.told(edge, session, answer);
    }
}
