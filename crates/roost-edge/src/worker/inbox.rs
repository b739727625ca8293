//! How the rest of the node reaches a worker: two bounded queues, and flags for what found them
//! full. Publications may be lost there (each is counted, and subscribers get a gap); node events
//! are made good by reading every mailbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use roost_cluster::{Revalidated, SessionClaim};
use roost_telemetry::metrics::labels::GapCause;
use roost_types::{Command, CommandId, NodeId, SessionId, TenantId, Topic, UnixMillis};
use tokio::sync::{mpsc, oneshot};

use super::Place;

/// Publications that wait for a worker: a second of 4,000/s, each one frame for all subscribers.
const PUBLICATIONS: usize = 4_096;
/// And about so many bytes of them, since 4,096 of the largest would be 360 MB.
const PUBLICATION_BYTES: usize = 32 << 20;
/// Node events that wait for a worker: several seconds of the highest rate of commands aimed at.
const JOBS: usize = 16_384;

/// One publication for a worker's subscribers, encoded.
#[derive(Debug, Clone)]
pub(crate) struct Publication {
    pub(crate) tenant: TenantId,
    pub(crate) topic: Topic,
    pub(crate) frame: Bytes,
    /// When the hub took it.
    pub(crate) time: UnixMillis,
}

/// Something for a worker to do.
#[derive(Debug)]
pub(crate) enum Job {
    /// Deliver a command.
    Deliver { place: Place, command: Box<Command>, prev: u64 },
    /// Read a session's mailbox.
    ReadMail(Place),
    /// Read every session's mailbox.
    ReadAllMail,
    /// Tell a device that a command is cancelled.
    Cancel(Place, CommandId),
    /// Close a session that was replaced.
    Replaced(Place),
    /// Tell the new owner's node that a replaced session's socket is closing, or was gone.
    ConfirmReplaced { session: SessionId, by: NodeId },
    /// Disconnect a device.
    Disconnect(Place, Arc<str>),
    /// Tell every subscriber of a gap.
    Gap(GapCause),
    /// Give the claims of every session.
    Claims(oneshot::Sender<Vec<(Place, SessionClaim)>>),
    /// What became of sessions after an interruption.
    Confirmed(Vec<(Place, Revalidated)>),
    /// Close every connection within this time, and say when all are gone.
    Drain(Duration, oneshot::Sender<u64>),
}

/// A worker's inbox as others see it.
#[derive(Debug)]
pub(crate) struct Inbox {
    publications: mpsc::Sender<Publication>,
    jobs: mpsc::Sender<Job>,
    lost: Arc<Lost>,
}

/// A worker's inbox as it sees it itself.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) publications: mpsc::Receiver<Publication>,
    pub(crate) jobs: mpsc::Receiver<Job>,
    pub(crate) lost: Arc<Lost>,
}

/// What found a queue full, and how full that of publications is.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    publications: AtomicBool,
    jobs: AtomicBool,
    /// Bytes of the publications that wait.
    waiting: AtomicUsize,
}

/// An inbox and its receiving end.
pub(crate) fn inbox() -> (Inbox, Received) {
    let (publications, publications_in) = mpsc::channel(PUBLICATIONS);
    let (jobs, jobs_in) = mpsc::channel(JOBS);
    let lost = Arc::new(Lost::default());
    let received =
        Received { publications: publications_in, jobs: jobs_in, lost: Arc::clone(&lost) };
    (Inbox { publications, jobs, lost }, received)
}

// === impl Inbox ===

impl Inbox {
    /// Hands a publication over; `false` where it was lost.
    pub(crate) fn publish(&self, publication: Publication) -> bool {
        let bytes = publication.frame.len();
        let waiting = self.lost.waiting.fetch_add(bytes, Ordering::AcqRel);
        let taken = waiting <= PUBLICATION_BYTES && self.publications.try_send(publication).is_ok();
        if !taken {
            self.lost.waiting.fetch_sub(bytes, Ordering::AcqRel);
            self.lost.publications.store(true, Ordering::Release);
        }
        taken
    }

    /// Hands a job over; one that finds no room is made good by reading every mailbox, or by telling
    /// of a gap where it was to do that. `false` then.
    pub(crate) fn post(&self, job: Job) -> bool {
        let Err(error) = self.jobs.try_send(job) else {
            return true;
        };
        let flag = match error.into_inner() {
            Job::Gap(_) => &self.lost.publications,
            _ => &self.lost.jobs,
        };
        flag.store(true, Ordering::Release);
        false
    }

    /// Hands a job over, waiting for room; `false` where the worker has ended.
    pub(crate) async fn send(&self, job: Job) -> bool {
        self.jobs.send(job).await.is_ok()
    }
}

// === impl Lost ===

impl Lost {
    /// Whether publications were lost since it was asked last.
    pub(crate) fn take_publications(&self) -> bool {
        self.publications.swap(false, Ordering::AcqRel)
    }

    /// A publication left the queue.
    pub(crate) fn taken_out(&self, publication: &Publication) {
        self.waiting.fetch_sub(publication.frame.len(), Ordering::AcqRel);
    }

    /// Whether jobs were lost since it was asked last.
    pub(crate) fn take_jobs(&self) -> bool {
        self.jobs.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication() -> Publication {
        Publication {
            tenant: TenantId::default(),
            topic: Topic::new("t").unwrap(),
            frame: Bytes::new(),
            time: UnixMillis(0),
        }
    }

    #[test]
    fn large_publications_are_bounded_by_their_bytes() {
        let (inbox, mut received) = inbox();
        let publication = Publication { frame: vec![0; 1 << 20].into(), ..publication() };
        while inbox.publish(publication.clone()) {}
        assert_eq!(received.lost.waiting.load(Ordering::Acquire), 33 << 20);
        assert!(received.lost.take_publications());
        let taken = received.publications.try_recv().unwrap();
        received.lost.taken_out(&taken);
        assert!(inbox.publish(publication));
    }

    #[test]
    fn what_finds_no_room_is_flagged_once() {
        let (inbox, received) = inbox();
        let publication = publication();
        for _ in 0..PUBLICATIONS {
            assert!(inbox.publish(publication.clone()));
        }
        assert!(!received.lost.take_publications());
        assert!(!inbox.publish(publication));
        assert!(received.lost.take_publications() && !received.lost.take_publications());

        for _ in 0..JOBS {
            assert!(inbox.post(Job::ReadAllMail));
        }
        assert!(!inbox.post(Job::ReadAllMail));
        assert!(received.lost.take_jobs() && !received.lost.take_jobs());
        assert!(!inbox.post(Job::Gap(GapCause::Bus)), "a gap that cannot be told now");
        assert!(received.lost.take_publications() && !received.lost.take_jobs());
    }
}
