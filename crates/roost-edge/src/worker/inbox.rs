//! How the rest of the node reaches a worker: two bounded queues, and places for what finds them full.
//! Publications may be lost there (each is counted, and subscribers get a gap, after what was queued
//! before it); commands that find no room are read from the mailbox; what only an event tells, a
//! disconnection or a cancellation, waits aside.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use roost_cluster::{Revalidated, SessionClaim};
use roost_telemetry::metrics::labels::GapCause;
use roost_types::{Command, CommandId, NodeId, SessionId, TenantId, Topic, UnixMillis};
use tokio::sync::{mpsc, oneshot};

use super::Place;
use crate::shed::Farewell;

/// Publications that wait for a worker: a second of 4,000/s, each one frame for all subscribers.
const PUBLICATIONS: usize = 4_096;
/// And about so many bytes of them, since 4,096 of the largest would be 360 MB.
const PUBLICATION_BYTES: usize = 32 << 20;
/// Node events that wait for a worker: several seconds of the highest rate of commands aimed at.
const JOBS: usize = 16_384;
/// And about so many bytes of commands among them. One beyond stays in its mailbox, to be read from there.
const COMMAND_BYTES: usize = 32 << 20;
/// Cancellations that found no room: beyond it they are counted as dropped.
const CANCELS: usize = 65_536;

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
    /// Give the claims of every session.
    Claims(oneshot::Sender<Vec<(Place, SessionClaim)>>),
    /// What became of sessions after an interruption.
    Confirmed(Vec<(Place, Revalidated)>),
    /// Say where every connection is, or every device.
    Roster { devices_only: bool, answer: oneshot::Sender<Vec<Place>> },
    /// Send these connections away.
    SendAway(Vec<Place>, Farewell),
    /// Close whatever is left, and say when all are gone.
    Finish(oneshot::Sender<()>),
}

/// What is told in the order of publications.
#[derive(Debug)]
pub(crate) enum Told {
    Publication(Publication),
    /// Publications are missing here.
    Gap(GapCause),
}

/// A worker's inbox as others see it.
#[derive(Debug)]
pub(crate) struct Inbox {
    publications: mpsc::Sender<Told>,
    jobs: mpsc::Sender<Job>,
    lost: Arc<Lost>,
}

/// A worker's inbox as it sees it itself.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) publications: mpsc::Receiver<Told>,
    pub(crate) jobs: mpsc::Receiver<Job>,
    pub(crate) lost: Arc<Lost>,
}

/// What found a queue full, and how full the queues are.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    /// Publications are missing after so many that were queued; 0 for none.
    gap_after: AtomicU64,
    /// How many publications and gaps were queued.
    queued: AtomicU64,
    /// How many of them left the queue.
    taken: AtomicU64,
    jobs: AtomicBool,
    /// Bytes of the publications that wait.
    waiting: AtomicUsize,
    /// Bytes of the commands that wait.
    commands: AtomicUsize,
    aside: Mutex<Aside>,
}

/// What found no room and is told by nothing else.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    /// At most one for each connection.
    pub(crate) disconnects: HashMap<Place, Arc<str>>,
    pub(crate) cancels: Vec<(Place, CommandId)>,
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
        let taken = waiting <= PUBLICATION_BYTES && self.tell(Told::Publication(publication));
        if !taken {
            self.lost.waiting.fetch_sub(bytes, Ordering::AcqRel);
            self.note_gap();
        }
        taken
    }

    /// Has every subscriber told of a gap, after what was published before it.
    pub(crate) fn gap(&self) {
        if !self.tell(Told::Gap(GapCause::Bus)) {
            self.note_gap();
        }
    }

    fn tell(&self, told: Told) -> bool {
        let sent = self.publications.try_send(told).is_ok();
        self.lost.queued.fetch_add(u64::from(sent), Ordering::AcqRel);
        sent
    }

    /// Something is lost after all that is queued now.
    fn note_gap(&self) {
        let queued = self.lost.queued.load(Ordering::Acquire);
        self.lost.gap_after.store(queued.max(1), Ordering::Release);
    }

    /// Hands a job over; `false` where it found no room and is made good otherwise: a command by reading
    /// its mailbox, a disconnection or a cancellation by a look at what was put aside, anything else by
    /// reading every mailbox.
    pub(crate) fn post(&self, job: Job) -> bool {
        let (job, whole) = self.within_bytes(job);
        let bytes = job.bytes();
        let Err(error) = self.jobs.try_send(job) else {
            return whole;
        };
        self.lost.commands.fetch_sub(bytes, Ordering::AcqRel);
        match error.into_inner() {
            Job::Disconnect(place, reason) => {
                self.lost.aside.lock().disconnects.insert(place, reason);
            }
            Job::Cancel(place, command) => self.lost.aside.lock().cancel(place, command),
            _ => self.lost.jobs.store(true, Ordering::Release),
        }
        false
    }

    /// A command beyond what may wait is left in its mailbox. Says whether the job is what it was.
    fn within_bytes(&self, job: Job) -> (Job, bool) {
        let bytes = job.bytes();
        let waiting = self.lost.commands.fetch_add(bytes, Ordering::AcqRel);
        match job {
            Job::Deliver { place, .. } if waiting > COMMAND_BYTES => {
                self.lost.commands.fetch_sub(bytes, Ordering::AcqRel);
                (Job::ReadMail(place), false)
            }
            job => (job, true),
        }
    }

    /// Hands a job over, waiting for room; `false` where the worker has ended.
    pub(crate) async fn send(&self, job: Job) -> bool {
        self.jobs.send(job).await.is_ok()
    }
}

// === impl Job ===

impl Job {
    /// About how much memory it holds, where that can be much.
    fn bytes(&self) -> usize {
        match self {
            Self::Deliver { command, .. } => {
                let payload = command.spec.payload.as_ref().map_or(0, |some| some.data().len());
                let headers = command.spec.headers.iter();
                let headers: usize = headers.map(|(name, value)| name.len() + value.len()).sum();
                size_of::<Command>() + headers + payload
            }
            _ => 0,
        }
    }
}

// === impl Aside ===

impl Aside {
    fn cancel(&mut self, place: Place, command: CommandId) {
        if self.cancels.len() < CANCELS {
            self.cancels.push((place, command));
        } else {
            tracing::warn!(%command, "too many cancellations wait; a device is not told of one");
        }
    }
}

// === impl Lost ===

impl Lost {
    /// Something left the queue.
    pub(crate) fn taken_out(&self, told: &Told) {
        self.taken.fetch_add(1, Ordering::AcqRel);
        if let Told::Publication(publication) = told {
            self.waiting.fetch_sub(publication.frame.len(), Ordering::AcqRel);
        }
    }

    /// Whether a gap is to be told now: all that was queued before it has left the queue. Asked once, it
    /// counts as told.
    pub(crate) fn gap_is_due(&self) -> bool {
        let after = self.gap_after.load(Ordering::Acquire);
        // Another one may be lost meanwhile, which is told by itself then.
        after != 0
            && self.taken.load(Ordering::Acquire) >= after
            && self
                .gap_after
                .compare_exchange(after, 0, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
    }

    /// A job left the queue.
    pub(crate) fn job_taken_out(&self, job: &Job) {
        self.commands.fetch_sub(job.bytes(), Ordering::AcqRel);
    }

    /// Whether jobs were lost since it was asked last.
    pub(crate) fn take_jobs(&self) -> bool {
        self.jobs.swap(false, Ordering::AcqRel)
    }

    /// What was put aside since it was asked last.
    pub(crate) fn take_aside(&self) -> Aside {
        std::mem::take(&mut *self.aside.lock())
    }
}

#[cfg(test)]
mod tests {
    use roost_types::{CommandSpec, CommandState, DeviceId, DeviceKey, Payload};

    use super::*;

    fn publication() -> Publication {
        Publication {
            tenant: TenantId::default(),
            topic: Topic::new("t").unwrap(),
            frame: Bytes::new(),
            time: UnixMillis(0),
        }
    }

    fn place(index: u32) -> Place {
        Place { worker: 0, index, generation: 1 }
    }

    #[test]
    fn large_publications_are_bounded_by_their_bytes() {
        let (inbox, mut received) = inbox();
        let publication = Publication { frame: vec![0; 1 << 20].into(), ..publication() };
        while inbox.publish(publication.clone()) {}
        assert_eq!(received.lost.waiting.load(Ordering::Acquire), 33 << 20);
        let taken = received.publications.try_recv().unwrap();
        received.lost.taken_out(&taken);
        assert!(!received.lost.gap_is_due(), "the gap comes after what was queued");
        assert!(inbox.publish(publication));
    }

    #[test]
    fn a_gap_is_told_after_what_was_queued_before_it() {
        let (inbox, mut received) = inbox();
        let publication = publication();
        for _ in 0..PUBLICATIONS {
            assert!(inbox.publish(publication.clone()));
        }
        assert!(!inbox.publish(publication.clone()));
        inbox.gap();
        let mut gaps = vec![];
        for taken in 1..=PUBLICATIONS {
            let told = received.publications.try_recv().unwrap();
            received.lost.taken_out(&told);
            if received.lost.gap_is_due() {
                gaps.push(taken);
            }
        }
        assert_eq!(gaps, [PUBLICATIONS], "once, at its place");
        inbox.gap();
        assert!(matches!(received.publications.try_recv(), Ok(Told::Gap(GapCause::Bus))));
    }

    #[test]
    fn what_finds_no_room_is_made_good() {
        let (inbox, received) = inbox();
        for _ in 0..JOBS {
            assert!(inbox.post(Job::ReadAllMail));
        }
        let command = CommandId::new("c").unwrap();
        for n in 0..3 {
            assert!(!inbox.post(Job::Disconnect(place(7), format!("{n}").into())));
        }
        assert!(!inbox.post(Job::Cancel(place(8), command.clone())));
        assert!(!received.lost.take_jobs(), "they need no mailbox read");
        let aside = received.lost.take_aside();
        assert_eq!(aside.disconnects.into_iter().collect::<Vec<_>>(), [(place(7), "2".into())]);
        assert_eq!(aside.cancels, [(place(8), command)]);
        assert!(received.lost.take_aside().disconnects.is_empty());
        assert!(!inbox.post(Job::ReadAllMail));
        assert!(received.lost.take_jobs() && !received.lost.take_jobs());
    }

    #[test]
    fn large_commands_stay_in_the_mailbox() {
        let (inbox, mut received) = inbox();
        let deliver = || {
            let expires = UnixMillis(u64::MAX);
            let mut spec = CommandSpec::new(CommandId::new("c").unwrap(), "do", expires);
            spec.payload = Some(Payload::binary(vec![0; 1 << 20].into()));
            let device = DeviceKey::new(TenantId::default(), DeviceId::new("d").unwrap());
            let command = Box::new(Command {
                device,
                spec,
                seq: 1,
                state: CommandState::Dispatched,
                attempt: 1,
                session: None,
                created: UnixMillis(0),
                transitions: vec![],
                progress: None,
                result: None,
                late: None,
                redriven_as: None,
                revision: 1,
            });
            Job::Deliver { place: place(1), command, prev: 0 }
        };
        let mut queued = 0;
        while inbox.post(deliver()) {
            queued += 1;
        }
        assert!((30..40).contains(&queued), "{queued} commands of 1 MiB wait");
        let mut last = None;
        while let Ok(job) = received.jobs.try_recv() {
            received.lost.job_taken_out(&job);
            last = Some(job);
        }
        assert!(matches!(last, Some(Job::ReadMail(at)) if at == place(1)));
        assert_eq!(received.lost.commands.load(Ordering::Acquire), 0);
    }
}
