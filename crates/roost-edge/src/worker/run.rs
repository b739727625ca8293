//! A worker's thread: its runtime, its tasks, its clock.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use roost_telemetry::metrics::WorkerIndex;
use roost_telemetry::metrics::labels::{GapCause, SessionState};
use tokio::task::{JoinSet, LocalSet, spawn_local};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{Received, Worker, fanout, jobs, reports};
use crate::edge::Edge;
use crate::listen::{self, WorkerListeners};
use crate::session::{end, mail};
use crate::wheel::{TICK, Ticks};

/// So many mailboxes are read a tick after an interruption: 2,000 a second and worker.
const MAIL_PER_TICK: usize = 500;
/// So many connections' deadlines are met before other work gets a turn.
const DEADLINES: usize = 256;
/// From this many ticks without one on, the time is not counted against devices. 1 s.
const STALL: Ticks = 4;
/// So many releases are tried a tick once the store is back.
const RELEASES_PER_TICK: usize = 250;

/// Starts a worker's thread. It ends after `stop`, with whatever it still holds.
pub(crate) fn start(
    edge: Arc<Edge>,
    index: u16,
    listeners: WorkerListeners,
    received: Received,
    stop: CancellationToken,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = move || {
        let local = LocalSet::new();
        local.block_on(&runtime, main(edge, index, listeners, received, stop));
    };
    std::thread::Builder::new().name(format!("edge-{index}")).spawn(run)
}

async fn main(
    edge: Arc<Edge>,
    index: u16,
    listeners: WorkerListeners,
    received: Received,
    stop: CancellationToken,
) {
    let listeners = match listeners.open() {
        Ok(listeners) => listeners,
        Err(error) => {
            tracing::error!(index, %error, "a worker cannot use its listeners");
            return;
        }
    };
    let worker = Worker::new(Arc::clone(&edge), index);
    // None of these ends before the local set does, when `stop` comes.
    let mut tasks = JoinSet::new();
    tasks.spawn_local(jobs::run(Rc::clone(&worker), received.jobs, Arc::clone(&received.lost)));
    let lost = Arc::clone(&received.lost);
    tasks.spawn_local(fanout::run(Rc::clone(&worker), received.publications, lost));
    tasks.spawn_local(reports::run(Rc::clone(&worker)));
    tasks.spawn_local(keep_time(Rc::clone(&worker), Arc::clone(&received.lost)));
    if index == 0 {
        let edge = Arc::clone(&edge);
        tasks.spawn_local(async move { edge.obey().await });
    }
    let mut listening = JoinSet::new();
    for (listener, tls) in listeners {
        listening.spawn_local(listen::run(Rc::clone(&worker), listener, tls));
    }
    tokio::select! {
        biased;
        () = edge.closing.cancelled() => {}
        // Half a worker is worse than none: its devices come back to the others.
        Some(ended) = tasks.join_next() => {
            tracing::error!(index, ?ended, "a task of a worker broke; the worker ends");
            return;
        }
    }
    worker.closing.cancel();
    while let Some(ended) = listening.join_next().await {
        if ended.is_err() {
            tracing::error!(index, "a worker's listening task failed");
        }
    }
    stop.cancelled().await;
}

/// The worker's clock: deadlines, and what waits for better times.
async fn keep_time(worker: Rc<Worker>, lost: Arc<super::inbox::Lost>) {
    let started = Instant::now();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut was_valid = true;
    loop {
        let due = tick.tick().await;
        worker.edge.metrics().event_loop_lagged(WorkerIndex::new(worker.index), due.elapsed());
        let now = started.elapsed().as_millis() / TICK.as_millis();
        let stall = worker.set_now(u32::try_from(now).unwrap_or(u32::MAX - 1));
        if stall >= STALL {
            tracing::warn!(
                worker = worker.index,
                ticks = stall,
                "a worker did not run for a while"
            );
            worker.all().iter().for_each(|conn| conn.forgive(stall));
        }
        let due = worker.wheel.borrow_mut().advance(worker.now.get());
        for some in due.chunks(DEADLINES) {
            for (at, place) in some {
                if let Some(conn) = worker.find(*place) {
                    conn.on_time(*at);
                }
            }
            if due.len() > DEADLINES {
                tokio::task::yield_now().await;
            }
        }
        jobs::make_good(&worker, lost.take_aside());
        // The queue may have run empty just before the loss was noted.
        if lost.gap_is_due() {
            jobs::tell_gap(&worker, GapCause::Dropped).await;
        }
        if lost.take_jobs() {
            tracing::warn!(
                worker = worker.index,
                "a worker was too slow for the node's events; it reads every mailbox"
            );
            jobs::read_all_mail(&worker);
        }
        if worker.index == 0
            && let Some(bucket) = &worker.edge.bucket
        {
            worker.edge.metrics().set_admission_tokens(bucket.tokens());
        }
        let valid = worker.edge.lease.is_valid();
        if valid != was_valid {
            mark_sessions(&worker, valid);
            was_valid = valid;
        }
        if valid {
            catch_up(&worker);
        }
    }
}

fn mark_sessions(worker: &Worker, valid: bool) {
    let state = if valid { SessionState::Live } else { SessionState::Suspended };
    for conn in worker.all() {
        if let Some(session) = conn.session.get() {
            session.counted.borrow_mut().set_state(state);
        }
    }
}

/// Goes on, a little per tick, with what an interruption left undone.
fn catch_up(worker: &Rc<Worker>) {
    let places: Vec<_> = {
        let mut later = worker.mail_later.borrow_mut();
        let count = later.len().min(MAIL_PER_TICK);
        later.drain(..count).collect()
    };
    for conn in places.into_iter().filter_map(|place| worker.find(place)) {
        mail::read(&conn);
    }
    if !worker.edge.store_is_up() {
        return;
    }
    worker.reports.retry();
    let ended: Vec<_> = {
        let mut unreleased = worker.unreleased.borrow_mut();
        let count = unreleased.len().min(RELEASES_PER_TICK);
        unreleased.drain(..count).collect()
    };
    for ended in ended {
        let worker = Rc::clone(worker);
        spawn_local(async move { end::try_release(&worker, ended).await });
    }
}
