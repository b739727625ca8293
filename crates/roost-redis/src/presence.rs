//! Watches of presence: one task per node reads the partitions' event streams while anybody watches,
//! and hands each event to the watches of its tenant.
//! The streams themselves are in `events.rs`.

use std::sync::Arc;
use std::time::Duration;

use roost_cluster::{PresenceItem, PresenceWatcher, StoreError};
use roost_types::TenantId;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::bus::BusNode;
use crate::events::{Cursor, Id, Placed, Streams};
use crate::link::Link;

/// The streams are read this often even if nobody rang: a ring may be lost.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long rings are gathered before the streams are read.
const GATHER: Duration = Duration::from_millis(5);

/// Asks the task for a watch.
#[derive(Debug)]
pub(crate) struct WatchRequest {
    tenant: TenantId,
    cursor: Option<Cursor>,
    done: oneshot::Sender<Result<mpsc::Receiver<PresenceItem>, StoreError>>,
}

/// Sets a watch up; returns when nothing that happens from now on is missed.
pub(crate) async fn watch(
    requests: &mpsc::Sender<WatchRequest>,
    tenant: &TenantId,
    cursor: Option<&str>,
) -> Result<mpsc::Receiver<PresenceItem>, StoreError> {
    let gone = || StoreError::NotSent("the watches have stopped".into());
    let cursor = cursor.map(Cursor::parse).transpose()?;
    let (done, answer) = oneshot::channel();
    let request = WatchRequest { tenant: tenant.clone(), cursor, done };
    requests.send(request).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}

/// Reads and hands out until told to stop.
pub(crate) async fn run(
    link: Arc<Link>,
    bus: Arc<BusNode>,
    requests: mpsc::Receiver<WatchRequest>,
    stop: CancellationToken,
) {
    let streams = Streams::new(Arc::clone(&link));
    let (at, watchers) = (None, Vec::new());
    let task = Tail { link, bus, streams, at, epoch: 0, histories: 0, unsure: false, watchers }
        .work(requests);
    // Only waits and reads are cut short here.
    stop.run_until_cancelled(task).await;
}

struct Tail {
    link: Arc<Link>,
    bus: Arc<BusNode>,
    streams: Streams,
    /// The last event read of each stream; `None` while nobody watches.
    at: Option<Vec<Id>>,
    /// Which data `at` belongs to.
    epoch: u64,
    /// How often masters were replaced when `at` was read.
    histories: u64,
    /// A look failed: whether the streams still have all since the last one is to be asked.
    unsure: bool,
    watchers: Vec<PresenceWatcher>,
}

// === impl Tail ===

impl Tail {
    async fn work(mut self, mut requests: mpsc::Receiver<WatchRequest>) {
        let bus = Arc::clone(&self.bus);
        loop {
            tokio::select! {
                biased;
                // Few; a flood of events must not keep a watch from being set up.
                request = requests.recv() => match request {
                    Some(request) => self.join(request).await,
                    None => return,
                },
                () = bus.bell.notified(), if self.at.is_some() => {
                    tokio::time::sleep(GATHER).await;
                    self.look_and_log().await;
                }
                () = tokio::time::sleep(LOOK_EVERY), if self.at.is_some() => self.look_and_log().await,
            }
        }
    }

    async fn join(&mut self, request: WatchRequest) {
        let WatchRequest { tenant, cursor, done } = request;
        let joined = self.try_join(tenant, cursor).await;
        // Nobody is told if the watcher is gone; the next look finds that too.
        drop(done.send(joined));
    }

    async fn try_join(
        &mut self,
        tenant: TenantId,
        cursor: Option<Cursor>,
    ) -> Result<mpsc::Receiver<PresenceItem>, StoreError> {
        if self.at.is_none() {
            self.bus.subscribe(self.link.keys.presence_channel()).await?;
            (self.epoch, self.histories) = (self.link.epoch(), self.link.histories());
            self.at = Some(self.streams.ends().await?);
        }
        self.look().await?;
        let (missed, lagged) = match cursor {
            Some(cursor) => self.missed(cursor).await?,
            None => (Vec::new(), false),
        };
        let (mut watcher, receiver) = PresenceWatcher::new(tenant, missed.len());
        if lagged {
            watcher.lag();
        }
        watcher.say_gap();
        for placed in &missed {
            watcher.offer(&placed.event);
        }
        self.watchers.push(watcher);
        Ok(receiver)
    }

    /// What came after a cursor and was read already, and whether something may be missing.
    async fn missed(&self, cursor: Cursor) -> Result<(Vec<Placed>, bool), StoreError> {
        let same = cursor.epoch == self.epoch;
        let starts = if same { self.streams.starts(cursor) } else { self.streams.beginnings() };
        let Some(at) = &self.at else {
            return Ok((Vec::new(), true));
        };
        // What is newer than `at` comes with the next look.
        let events = self.streams.read_back(&starts, at, self.epoch).await?;
        // Asked after the reading: what went during it counts.
        let trimmed = !same || self.streams.was_trimmed(&starts).await?;
        Ok((events, trimmed))
    }

    async fn look_and_log(&mut self) {
        let looked = self.look().await;
        if let Err(error) = &looked {
            tracing::debug!(%error, "could not read presence events; will look again");
        }
        // Until the next look more may happen than the streams keep.
        self.unsure |= looked.is_err();
        if self.watchers.is_empty() {
            self.at = None;
            self.bus.unsubscribe(self.link.keys.presence_channel()).await;
        }
    }

    /// Reads what is new and hands it out.
    async fn look(&mut self) -> Result<(), StoreError> {
        let Some(at) = self.at.clone() else {
            return Ok(());
        };
        let events = self.streams.read(&at, self.epoch).await?;
        // Asked after the reading, which cannot have succeeded on the old data after a loss.
        let (epoch, histories) = (self.link.epoch(), self.link.histories());
        if epoch != self.epoch || histories != self.histories {
            // Other data; or a master that may lack what the one before had last.
            (self.epoch, self.histories) = (epoch, histories);
            self.watchers.iter_mut().for_each(PresenceWatcher::lag);
        }
        if self.unsure {
            if self.streams.was_trimmed(&at).await? {
                self.watchers.iter_mut().for_each(PresenceWatcher::lag);
            }
            self.unsure = false;
        }
        for placed in events {
            if let Some(at) = self.at.as_mut() {
                at[usize::from(placed.partition)] = placed.id;
            }
            self.watchers.retain_mut(|watcher| watcher.offer(&placed.event));
        }
        self.watchers.iter_mut().for_each(PresenceWatcher::say_gap);
        self.watchers.retain(PresenceWatcher::is_wanted);
        Ok(())
    }
}
