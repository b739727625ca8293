//! Commands to the device, in order: from pushes where they follow the cursor, else from the
//! mailbox. The cursor is the `seq` last delivered; it is what keeps pushes and reads apart.

use std::rc::Rc;

use roost_telemetry::metrics::labels::DeliveryPath;
use roost_types::{Command, CommandId, ErrorCode, HubError};
use roost_wire::device::ToDevice;

use super::traces::Handing;
use super::{Session, reports, store_failed};
use crate::conn::{Conn, Sent, Stage};
use crate::worker::SentReport;

/// Whether a session's mailbox is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// It is not, and need not be.
    No,
    /// It ought to be.
    Wanted,
    /// It is.
    Yes,
    /// It is, and has to be once more after that.
    Again,
}

/// Why delivery stops for now.
enum Stop {
    /// The lease is not valid: read again when it is.
    Suspended,
    /// The socket is full: read again when it is not.
    NoRoom,
    /// The connection is ending.
    Over,
}

/// A command was pushed to this session, `prev` being the one dispatched before it.
pub(crate) fn push(conn: &Rc<Conn>, command: &Command, prev: u64) {
    let Some(session) = conn.session.get() else {
        return;
    };
    if conn.stage() == Stage::Greeting {
        // Between claim and welcome: what is pushed now is read after the welcome.
        return want(session);
    }
    if command.seq <= session.cursor.get() || conn.stage() != Stage::Live {
        return;
    }
    // What was pushed before the sessions were confirmed may be cancelled, or ended, by now.
    let fresh = command.updated() > conn.worker.edge.confirmed_at();
    let in_order = fresh && prev <= session.cursor.get() && session.mail.get() == Reading::No;
    if !in_order || deliver(conn, session, command).is_err() {
        return read(conn);
    }
    let now = conn.worker.edge.store.clock.now();
    if now < command.spec.expires {
        let latency = now.since(command.created);
        conn.worker.edge.metrics().delivered(DeliveryPath::Command, latency);
    }
}

/// The mailbox is to be read when the session is live.
pub(super) fn want(session: &Session) {
    if session.mail.get() == Reading::No {
        session.mail.set(Reading::Wanted);
    }
}

/// Reads the mailbox if something asked for it before the welcome.
pub(super) fn read_if_wanted(conn: &Rc<Conn>) {
    if let Some(session) = conn.session.get().filter(|s| s.mail.get() == Reading::Wanted) {
        session.mail.set(Reading::No);
        read(conn);
    }
}

/// Reads the mailbox from the cursor on, beside whatever the connection does. One reader at a time;
/// a request during one makes it go round again.
pub(crate) fn read(conn: &Rc<Conn>) {
    let Some(session) = conn.session.get() else {
        return;
    };
    match (conn.stage(), session.mail.get()) {
        (Stage::Greeting, _) => want(session),
        // Once in the worker's list, however often it is asked for.
        (Stage::Live, _) if !conn.worker.edge.lease.is_valid() => read_later(conn),
        (Stage::Live, Reading::No | Reading::Wanted) => {
            session.mail.set(Reading::Yes);
            tokio::task::spawn_local(read_on(Rc::clone(conn)));
        }
        (Stage::Live, Reading::Yes | Reading::Again) => session.mail.set(Reading::Again),
        (Stage::Closing | Stage::Over, _) => {}
    }
}

/// Has the mailbox read once the lease is valid, at the pace of the worker's clock.
pub(crate) fn read_later(conn: &Conn) {
    let Some(session) = conn.session.get() else {
        return;
    };
    match session.mail.get() {
        Reading::No => {
            session.mail.set(Reading::Wanted);
            conn.worker.read_mail_later(conn.place);
        }
        // Whoever set this takes care of it.
        Reading::Wanted => {}
        Reading::Yes | Reading::Again => session.mail.set(Reading::Again),
    }
}

async fn read_on(conn: Rc<Conn>) {
    let Some(session) = conn.session.get() else {
        return;
    };
    let stopped = loop {
        session.mail.set(Reading::Yes);
        match read_batch(&conn, session).await {
            // A store in memory answers at once: others get a turn.
            Ok(more) if more || session.mail.get() == Reading::Again => {
                tokio::task::yield_now().await;
            }
            Ok(_) => break None,
            Err(stop) => break Some(stop),
        }
    };
    session.mail.set(Reading::No);
    match stopped {
        None | Some(Stop::Over) => {}
        Some(Stop::Suspended) => read_later(&conn),
        Some(Stop::NoRoom) => {
            // There may be room by now.
            if !conn.read_mail_when_room() {
                read(&conn);
            }
        }
    }
}

async fn read_batch(conn: &Rc<Conn>, session: &Session) -> Result<bool, Stop> {
    ready(conn)?;
    let edge = &conn.worker.edge;
    let confirmed = edge.confirmed_at();
    let read = edge.store.mailboxes.read(&session.device, session.id, session.cursor.get()).await;
    let batch = match read {
        Ok(batch) => batch,
        Err(error) => {
            // Anything but a lost session is the store's trouble: read again when it is over.
            return match store_failed(conn, error) {
                Some(_) => Err(Stop::Suspended),
                None => Err(Stop::Over),
            };
        }
    };
    // An answer from before the sessions were confirmed is as old as a push from then.
    let fresh = edge.confirmed_at() == confirmed;
    let mut commands = batch.commands.iter().filter(|_| fresh);
    let delivered = commands.try_for_each(|command| {
        if command.seq > session.cursor.get() { deliver(conn, session, command) } else { Ok(()) }
    });
    // Whoever waits for these hears of it, whatever became of the others.
    for (command, waiting) in batch.ended {
        reports::tell(conn, command, &waiting).await;
    }
    delivered.map(|()| batch.more || !fresh)
}

fn ready(conn: &Conn) -> Result<(), Stop> {
    if conn.stage() != Stage::Live {
        Err(Stop::Over)
    } else if !conn.worker.edge.lease.is_valid() {
        Err(Stop::Suspended)
    } else if !conn.has_room() {
        Err(Stop::NoRoom)
    } else {
        Ok(())
    }
}

/// Hands a command to the socket, unless its time is over: then the mailbox ends it.
fn deliver(conn: &Rc<Conn>, session: &Session, command: &Command) -> Result<(), Stop> {
    ready(conn)?;
    let now = conn.worker.edge.store.clock.now();
    if now >= command.spec.expires {
        session.cursor.set(command.seq);
        return Ok(());
    }
    let handing = Handing::begin(conn, session, command);
    let sent = conn.say(&ToDevice::Command {
        command_id: command.spec.id.clone(),
        name: command.spec.name.clone(),
        payload: command.spec.payload.clone(),
        headers: handing.headers(&command.spec.headers),
        expires_ms: command.spec.expires,
        expires_in_ms: u64::try_from(command.spec.expires.since(now).as_millis()).unwrap_or(0),
        attempt: command.attempt,
    });
    handing.end(session, &command.spec.id, sent);
    match sent {
        Sent::Dropped => return Err(Stop::Over),
        Sent::Postponed => return Err(Stop::NoRoom),
        Sent::Written => report_sent(conn, session, command.spec.id.clone()),
        Sent::Queued => {
            // It counts as sent when the socket has all of it.
            if !conn.report_when_written(&command.spec.id) {
                report_sent(conn, session, command.spec.id.clone());
            }
        }
    }
    session.cursor.set(command.seq);
    if command.attempt > 1 {
        conn.worker.edge.metrics().command_redeliveries.increment(1);
    }
    Ok(())
}

/// The socket took a command: the store is told beside everything else.
pub(crate) fn report_sent(conn: &Rc<Conn>, session: &Session, command: CommandId) {
    conn.worker.reports.push(SentReport {
        place: conn.place,
        device: session.device.clone(),
        session: session.id,
        trace: session.traces.place(&command),
        command,
    });
}

/// A back end no longer wants a command done.
pub(crate) fn cancel(conn: &Rc<Conn>, command_id: CommandId) {
    if conn.live_session().is_some() && conn.worker.edge.lease.is_valid() {
        conn.say(&ToDevice::Cancel { command_id });
    }
}

/// An operator disconnects the device. It may come back.
pub(crate) fn disconnect(conn: &Rc<Conn>, reason: &str) {
    let text = if reason.is_empty() {
        "an operator disconnected this device".to_owned()
    } else {
        format!("an operator disconnected this device: {reason}")
    };
    if conn.live_session().is_some() {
        conn.say(&ToDevice::Goaway { reason: "disconnected".into(), retry_after_ms: None });
    }
    let error = HubError::new(ErrorCode::Disconnected, text);
    conn.close_by(roost_cluster::Initiator::Operator, error);
}

/// A newer session has the device.
pub(crate) fn replaced(conn: &Rc<Conn>) {
    let text = "a newer session of this device took over";
    conn.close(HubError::new(ErrorCode::Replaced, text));
}
