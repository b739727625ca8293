//! Telling the store which commands sockets took, in batches and beside everything else. Delivery
//! never waits for it; a report that comes after a later one of the same command changes nothing,
//! since states only move forward.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use futures_util::future::join_all;
use roost_cluster::{Report, Reported, StoreError};
use roost_telemetry::trace::SpanKind;
use roost_types::{CommandId, DeviceKey, SessionId, TraceContext};
use tokio::sync::Notify;

use super::{Place, Worker};
use crate::session::{mail, reports};

/// So many reports are under way at once.
const BATCH: usize = 64;
/// So many may wait. One beyond is left out: the sweep then asks for the mailbox to be read.
const WAITING: usize = 65_536;

/// A command that a socket took.
#[derive(Debug, Clone)]
pub(crate) struct SentReport {
    pub(crate) place: Place,
    pub(crate) device: DeviceKey,
    pub(crate) session: SessionId,
    pub(crate) command: CommandId,
    /// Where its trace stands, if it has one.
    pub(crate) trace: Option<TraceContext>,
}

/// Reports that wait to be made.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    waiting: RefCell<VecDeque<SentReport>>,
    some: Notify,
}

// === impl Reports ===

impl Reports {
    pub(crate) fn push(&self, report: SentReport) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() < WAITING {
            waiting.push_back(report);
        }
        self.some.notify_one();
    }

    fn take(&self) -> Vec<SentReport> {
        let mut waiting = self.waiting.borrow_mut();
        let count = waiting.len().min(BATCH);
        waiting.drain(..count).collect()
    }

    /// Whoever waits gets another chance, after a failure.
    pub(super) fn retry(&self) {
        if !self.waiting.borrow().is_empty() {
            self.some.notify_one();
        }
    }
}

/// Makes reports as they come until the worker ends.
pub(super) async fn run(worker: Rc<Worker>) {
    loop {
        worker.reports.some.notified().await;
        loop {
            let batch = worker.reports.take();
            if batch.is_empty() {
                break;
            }
            let made = join_all(batch.into_iter().map(|report| make(&worker, report))).await;
            if made.contains(&false) {
                // The store is in trouble: the worker's clock tries again.
                break;
            }
        }
    }
}

/// Makes one report; `false` where the store failed and it waits again.
async fn make(worker: &Rc<Worker>, report: SentReport) -> bool {
    let mailboxes = &worker.edge.store.mailboxes;
    let tracer = &worker.edge.telemetry.tracer;
    let span = tracer.follow("report sent", SpanKind::Internal, report.trace);
    let made = mailboxes.report(&report.device, report.session, &report.command, &Report::Sent);
    let made = span.within(made).await;
    match made {
        Ok(Reported::Applied { command, waiting, more }) => {
            reports::tell_waiting(&worker.edge, *command, &waiting).await;
            if more && let Some(conn) = worker.find(report.place) {
                mail::read(&conn);
            }
        }
        Ok(Reported::Late { .. } | Reported::Unknown) => {}
        // The session is found out to be lost by whatever it does next.
        Err(StoreError::Fenced) => worker.edge.telemetry.node.fenced_writes.increment(1),
        // A session that is gone needs no report: its commands are queued again.
        Err(_) if worker.find(report.place).is_none() => {}
        Err(error) => {
            tracing::debug!(%error, "could not report a command as sent; it is tried again");
            worker.reports.waiting.borrow_mut().push_back(report);
            return false;
        }
    }
    true
}
