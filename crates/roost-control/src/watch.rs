//! One `WatchDevices` stream: the snapshot, `synced`, then events as they come. What an event looks
//! like is in `shown.rs`.

use std::sync::Arc;
use std::time::Duration;

use roost_cluster::{DeviceFilter, PageRequest, PresenceItem};
use roost_proto::control::v1::watch_devices_response::Event;
use roost_proto::control::v1::{self, WatchDevicesResponse};
use roost_types::{ErrorCode, TenantId};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::control::draining;
use crate::refusal::Refusal;
use crate::{Control, shown};

/// How many items wait for a client that reads slowly; beyond it the stream waits for the client, and
/// the store's own queue fills and ends in a gap.
const QUEUE: usize = 64;
/// How many devices of a snapshot are read at once.
const SNAPSHOT_PAGE: usize = 500;
/// How long a client that does not read may hold up the last word to it.
const LAST_WORD: Duration = Duration::from_secs(1);

struct Watcher {
    control: Arc<Control>,
    tenant: TenantId,
    out: mpsc::Sender<Result<WatchDevicesResponse, Status>>,
}

/// Why a watcher stopped before it was told to.
enum Stopped {
    /// The client has gone.
    Left,
    /// The client is to be told.
    Refused(Refusal),
}

/// Opens a stream. Watching begins before the snapshot is read, so that nothing falls in between.
pub(crate) async fn open(
    control: &Arc<Control>,
    tenant: TenantId,
    request: v1::WatchDevicesRequest,
) -> Result<ReceiverStream<Result<WatchDevicesResponse, Status>>, Refusal> {
    let cursor = (!request.snapshot && !request.cursor.is_empty()).then_some(request.cursor);
    let opened = control.store.sessions.watch(&tenant, cursor.as_deref());
    let items = control.read(opened).await.map_err(|refusal| match refusal.code {
        ErrorCode::CursorInvalid => refusal.at("cursor"),
        _ => refusal,
    })?;
    let (out, stream) = mpsc::channel(QUEUE);
    let watcher = Watcher { control: Arc::clone(control), tenant, out };
    control.tasks.spawn(watcher.run(request.snapshot, cursor, items));
    Ok(ReceiverStream::new(stream))
}

// === impl Watcher ===

impl Watcher {
    async fn run(
        self,
        snapshot: bool,
        cursor: Option<String>,
        items: mpsc::Receiver<PresenceItem>,
    ) {
        let until = Instant::now() + self.control.config.jittered_age();
        let refusal = tokio::select! {
            biased;
            // Stopping comes first, or a stream of events would keep the node alive.
            () = self.control.stopping.cancelled() => draining(),
            () = self.out.closed() => return,
            () = sleep_until(until) => draining(),
            stopped = self.feed(snapshot, cursor, items) => match stopped {
                Stopped::Left => return,
                Stopped::Refused(refusal) => refusal,
            },
        };
        let last = self.out.send(Err(refusal.into()));
        if timeout(LAST_WORD, last).await.is_err() {
            tracing::debug!(tenant = %self.tenant, "a watcher did not read to the end");
        }
    }

    async fn feed(
        &self,
        snapshot: bool,
        cursor: Option<String>,
        items: mpsc::Receiver<PresenceItem>,
    ) -> Stopped {
        let Err(stopped) = self.try_feed(snapshot, cursor, items).await;
        stopped
    }

    async fn try_feed(
        &self,
        snapshot: bool,
        cursor: Option<String>,
        mut items: mpsc::Receiver<PresenceItem>,
    ) -> Result<std::convert::Infallible, Stopped> {
        if snapshot {
            self.snapshot().await?;
        }
        let mut at = cursor.unwrap_or_default();
        // What a cursor left behind is here already, as far as the store has it at hand.
        while let Ok(item) = items.try_recv() {
            at = self.item(item, at).await?;
        }
        self.send(Event::Synced(v1::WatchDevicesSynced {}), at.clone()).await?;
        while let Some(item) = items.recv().await {
            at = self.item(item, at).await?;
        }
        let what = "the store ended the watch; open it again";
        Err(Stopped::Refused(Refusal::new(ErrorCode::Unavailable, what)))
    }

    async fn snapshot(&self) -> Result<(), Stopped> {
        let filter = DeviceFilter { online: Some(true), node: None };
        let mut token = None;
        loop {
            let size = SNAPSHOT_PAGE;
            let page = PageRequest { size, token };
            let listed = self.control.store.sessions.list(&self.tenant, &filter, &page);
            let listed = self.control.read(listed).await.map_err(Stopped::Refused)?;
            for record in &listed.items {
                let device = Event::Snapshot(shown::device(record));
                self.send(device, String::new()).await?;
            }
            token = listed.next;
            if token.is_none() {
                return Ok(());
            }
        }
    }

    /// Passes an item on; gives the cursor that stands after it.
    async fn item(&self, item: PresenceItem, at: String) -> Result<String, Stopped> {
        let (event, at) = match item {
            PresenceItem::Event(event) => {
                let shown = shown::event(&event);
                (Event::DeviceEvent(shown), event.cursor)
            }
            PresenceItem::Gap => {
                let reason = "the cursor was too old, or the hub's own connection was interrupted";
                let reason = reason.to_owned();
                (Event::Gap(v1::WatchDevicesGap { reason }), at)
            }
        };
        self.send(event, at.clone()).await?;
        Ok(at)
    }

    async fn send(&self, event: Event, cursor: String) -> Result<(), Stopped> {
        let event = Some(event);
        let sent = self.out.send(Ok(WatchDevicesResponse { event, cursor }));
        sent.await.map_err(|_| Stopped::Left)
    }
}
