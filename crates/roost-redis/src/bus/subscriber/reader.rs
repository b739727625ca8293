//! Understanding what arrives on the channels. Nothing here waits: what takes time is given back as work.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use roost_cluster::{BusEvent, StoreError};
use roost_proto::internal::v1::node_envelope::Kind;
use roost_proto::internal::v1::{FilterChange, Publication};
use roost_telemetry::metrics::labels::PubsubDrop;

use super::super::BusNode;
use super::super::envelope;
use super::super::table::Heard;
use super::{BusTask, Done};

impl BusTask {
    /// Takes in what came on a channel; gives what there is to do about it.
    pub(super) fn take_in(
        &mut self,
        channel: &str,
        bytes: &Bytes,
    ) -> Option<BoxFuture<'static, Done>> {
        if channel == self.presence_channel {
            self.bus.bell.notify_one();
            return None;
        }
        match self.understand(channel, bytes) {
            Ok(todo) => todo,
            Err(error) => {
                // A newer version's words, or a mistake: said at 1, 2, 4, 8, so that no flood fills the log.
                self.unreadable += 1;
                self.bus.link.metrics().pubsub_dropped.inc(PubsubDrop::Undecodable);
                if self.unreadable.is_power_of_two() {
                    tracing::warn!(%error, count = self.unreadable, "dropped what cannot be read");
                }
                None
            }
        }
    }

    fn understand(
        &mut self,
        channel: &str,
        bytes: &Bytes,
    ) -> Result<Option<BoxFuture<'static, Done>>, StoreError> {
        let envelope = envelope::open(bytes)?;
        let for_another_life =
            envelope.incarnation != 0 && envelope.incarnation != self.bus.node.incarnation;
        let Some(kind) = envelope.kind.filter(|_| !for_another_life) else {
            return Ok(None);
        };
        match kind {
            Kind::Publication(publication) => {
                self.take_publication(publication, channel == self.own_channel)?;
            }
            Kind::FilterChange(change) => return self.take_change(change),
            Kind::FilterAck(ack) => self.bus.note_ack(ack.version),
            event => {
                if let Some(event) = envelope::read_event(event)? {
                    let taken = self.inbox.event(event);
                    self.count_drop(taken);
                }
            }
        }
        Ok(None)
    }

    fn take_publication(&mut self, publication: Publication, own: bool) -> Result<(), StoreError> {
        let listed = || publication.also.iter().any(|name| name == self.bus.node.id.as_str());
        if !own && listed() {
            return Ok(());
        }
        let (tenant, message) = envelope::read_publication(publication)?;
        if self.bus.wants(&tenant, &message.topic) {
            let taken =
                self.inbox.message(BusEvent::Message { tenant, message: Arc::new(message) });
            self.count_drop(taken);
        }
        Ok(())
    }

    fn count_drop(&self, taken: bool) {
        if !taken {
            self.bus.link.metrics().pubsub_dropped.inc(PubsubDrop::QueueFull);
        }
    }

    fn take_change(
        &mut self,
        change: FilterChange,
    ) -> Result<Option<BoxFuture<'static, Done>>, StoreError> {
        let heard = self.bus.table.write().hear(&change)?;
        let bus = Arc::clone(&self.bus);
        let work = async move {
            let put_back = heard == Heard::Hole && bus.read_again().await?;
            if !change.reply_to.is_empty()
                && let Err(error) = bus.acknowledge(change.reply_to, change.version).await
            {
                tracing::debug!(%error, "could not confirm a change of the wildcard filters");
            }
            Ok(put_back)
        };
        Ok(Some(Box::pin(async move { soft(work.await) })))
    }
}

/// What came of looking at the table. An error is one of the other connection, which its own supervisor
/// sees to: whatever was missed is found by the next comparison of the table.
fn soft(done: Result<bool, StoreError>) -> Done {
    match done {
        Ok(true) => Done::PutBack,
        Ok(false) => Done::Fine,
        Err(error) => {
            tracing::debug!(%error, "could not keep up with the wildcard filters");
            Done::Fine
        }
    }
}

pub(super) fn check_table(bus: Arc<BusNode>) -> BoxFuture<'static, Done> {
    Box::pin(async move { soft(bus.check_table().await) })
}
