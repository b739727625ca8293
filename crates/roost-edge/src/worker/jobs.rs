//! What the rest of the node asks of a worker.

use std::rc::Rc;
use std::sync::Arc;

use roost_cluster::{NodeEvent, Revalidated, SessionClaim};
use roost_telemetry::metrics::labels::{GapCause, ResumeOutcome};
use roost_types::{NodeId, SessionId};
use tokio::sync::mpsc;

use super::inbox::{Aside, Lost};
use super::{Job, Place, Worker, drain};
use crate::conn::Conn;
use crate::session::{self, mail};

/// So many jobs are done before sockets get a turn.
const TURN: u32 = 64;
/// So many connections are told something before other work gets a turn.
const CONNECTIONS: usize = 64;

/// Does what is asked until the node is gone.
pub(super) async fn run(worker: Rc<Worker>, mut jobs: mpsc::Receiver<Job>, lost: Arc<Lost>) {
    let mut done: u32 = 0;
    while let Some(job) = jobs.recv().await {
        lost.job_taken_out(&job);
        perform(&worker, job);
        done = done.wrapping_add(1);
        if done.is_multiple_of(TURN) {
            tokio::task::yield_now().await;
        }
    }
}

fn perform(worker: &Rc<Worker>, job: Job) {
    match job {
        Job::Deliver { place, command, prev } => {
            with(worker, place, |conn| mail::push(conn, &command, prev));
        }
        Job::ReadMail(place) => with(worker, place, mail::read),
        Job::ReadAllMail => read_all_mail(worker),
        Job::Cancel(place, command) => with(worker, place, |conn| mail::cancel(conn, command)),
        Job::Replaced(place) => with(worker, place, mail::replaced),
        Job::ConfirmReplaced { session, by } => {
            tokio::task::spawn_local(confirm_replaced(Rc::clone(worker), session, by));
        }
        Job::Disconnect(place, reason) => {
            with(worker, place, |conn| mail::disconnect(conn, &reason));
        }
        // Nobody listens where the caller gave up.
        Job::Claims(answer) => drop(answer.send(claims(worker))),
        Job::Confirmed(sessions) => confirmed(worker, &sessions),
        Job::Roster { devices_only, answer } => {
            drop(answer.send(drain::roster(worker, devices_only)));
        }
        Job::SendAway(places, farewell) => {
            tokio::task::spawn_local(drain::send_away(Rc::clone(worker), places, farewell));
        }
        Job::Finish(done) => {
            tokio::task::spawn_local(drain::finish(Rc::clone(worker), done));
        }
    }
}

async fn confirm_replaced(worker: Rc<Worker>, session: SessionId, by: NodeId) {
    let event = NodeEvent::ReplacedDone { session };
    if let Err(error) = worker.edge.store.bus.send_to(&by, &event).await {
        // It reminds us until it hears of it.
        tracing::debug!(%by, %error, "could not confirm a takeover");
    }
}

fn with(worker: &Worker, place: Place, act: impl FnOnce(&Rc<Conn>)) {
    if let Some(conn) = worker.find(place) {
        act(&conn);
    }
}

/// Has every mailbox read, at the pace of the worker's clock.
pub(super) fn read_all_mail(worker: &Worker) {
    worker.all().iter().for_each(|conn| mail::read_later(conn));
}

/// Tells every subscriber of a gap, before anything that was published after it.
pub(super) async fn tell_gap(worker: &Worker, cause: GapCause) {
    for some in worker.all().chunks(CONNECTIONS) {
        for conn in some {
            session::tell_gap(conn, cause, |_| true);
        }
        tokio::task::yield_now().await;
    }
}

/// Does what found no room in the queue.
pub(super) fn make_good(worker: &Rc<Worker>, aside: Aside) {
    for (place, reason) in aside.disconnects {
        with(worker, place, |conn| mail::disconnect(conn, &reason));
    }
    for (place, command) in aside.cancels {
        with(worker, place, |conn| mail::cancel(conn, command));
    }
}

fn claims(worker: &Worker) -> Vec<(Place, SessionClaim)> {
    let claim = |conn: Rc<Conn>| Some((conn.place, conn.live_session()?.claim(&conn)));
    worker.all().into_iter().filter_map(claim).collect()
}

fn confirmed(worker: &Rc<Worker>, sessions: &[(Place, Revalidated)]) {
    for (place, outcome) in sessions {
        worker.edge.telemetry.node.session_resumes.inc(match outcome {
            Revalidated::Lost => ResumeOutcome::Lost,
            Revalidated::Kept => ResumeOutcome::Kept,
            Revalidated::Reclaimed => ResumeOutcome::Reclaimed,
        });
        match outcome {
            Revalidated::Lost => with(worker, *place, mail::replaced),
            // Whatever was pushed meanwhile is read when the lease is valid again.
            Revalidated::Kept | Revalidated::Reclaimed => {
                with(worker, *place, |conn| mail::read_later(conn));
            }
        }
    }
}
