//! `MessageService`: publishing and following topics. Which stream gets which message is decided in
//! `fanout.rs`; what makes a topic valid in `roost-types`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use roost_auth::Caller;
use roost_cluster::StoreError;
use roost_proto::control::v1::message_service_server::MessageService;
use roost_proto::control::v1::{self, subscribe_response::Event};
use roost_proto::convert::{publication, timestamp_out, topic_filters};
use roost_telemetry::metrics::labels::GapCause;
use roost_types::{ErrorCode, Origin, Qos, TenantId, TopicFilter};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Request, Response, Status};

use crate::Control;
use crate::auth::caller;
use crate::control::draining;
use crate::fanout::Listener;
use crate::outlet::Item;
use crate::refusal::Refusal;

/// How long the hub may take to confirm all filters of a stream: a wildcard waits up to a second for
/// the other nodes.
const CONFIRM_DEADLINE: Duration = Duration::from_secs(5);

/// The service, for any number of callers.
#[derive(Debug, Clone)]
pub(crate) struct Messages(pub(crate) Arc<Control>);

/// A stream's subscription; its filters are given back when it is dropped.
struct Subscription {
    control: Arc<Control>,
    tenant: TenantId,
    /// Those that the switchboard counts.
    counted: Vec<TopicFilter>,
    listener: Listener,
}

/// What a Subscribe stream does next.
enum Phase {
    Confirm,
    Follow,
    Ended,
}

/// A Subscribe stream.
struct Following {
    subscription: Subscription,
    phase: Phase,
    until: Instant,
}

#[tonic::async_trait]
impl MessageService for Messages {
    type SubscribeStream = BoxStream<'static, Result<v1::SubscribeResponse, Status>>;

    async fn publish(
        &self,
        request: Request<v1::PublishRequest>,
    ) -> Result<Response<v1::PublishResponse>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(self.take(caller, request.into_inner()).await?))
    }

    async fn subscribe(
        &self,
        request: Request<v1::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let caller = caller(&request)?;
        let filters = topic_filters(request.get_ref()).map_err(Refusal::from)?;
        let subscription = self.follow(caller, filters).await?;
        let following = Following {
            until: Instant::now() + self.0.config.jittered_age(),
            phase: Phase::Confirm,
            subscription,
        };
        let stream = stream::unfold(following, Following::step);
        Ok(Response::new(stream.boxed()))
    }
}

// === impl Messages ===

impl Messages {
    async fn take(
        &self,
        caller: Caller,
        request: v1::PublishRequest,
    ) -> Result<v1::PublishResponse, Refusal> {
        let (now, most) = (self.0.store.clock.now(), self.0.config.max_payload);
        let message = publication(request, Origin::Service(caller.name), now, most)?;
        if message.qos == Qos::AtLeastOnce {
            let what = "the topic keeps no messages; publish with QOS_AT_MOST_ONCE";
            return Err(Refusal::new(ErrorCode::QosUnsupported, what).at("qos"));
        }
        let published = self.0.store.bus.publish(&caller.tenant, Arc::new(message));
        self.0.change(published).await?;
        Ok(v1::PublishResponse { time: Some(timestamp_out(now)) })
    }

    /// Subscribes in a task of its own, since the switchboard's count is right only if each
    /// subscription is made to its end; what nobody waits for any more is then dropped, and given back.
    async fn follow(
        &self,
        caller: Caller,
        mut filters: Vec<TopicFilter>,
    ) -> Result<Subscription, Refusal> {
        filters.sort();
        filters.dedup();
        let listener = self.0.fanout.listen(&caller.tenant, filters.clone());
        let subscription = Subscription {
            control: Arc::clone(&self.0),
            tenant: caller.tenant,
            counted: Vec::with_capacity(filters.len()),
            listener,
        };
        let work = async move {
            let confirmed = subscription.confirm(filters).await;
            confirmed.map_err(|error| Refusal::of_read(&error))
        };
        let confirmed = timeout(CONFIRM_DEADLINE, self.0.to_its_end(work)).await;
        confirmed.unwrap_or_else(|_| {
            let what = "the store did not confirm the subscriptions in time";
            Err(Refusal::new(ErrorCode::Unavailable, what))
        })
    }
}

// === impl Subscription ===

impl Subscription {
    async fn confirm(mut self, filters: Vec<TopicFilter>) -> Result<Self, StoreError> {
        let (board, tenant) = (&self.control.switchboard, &self.tenant);
        let made = filters.into_iter().map(|filter| async move {
            let made = board.subscribe(tenant, &filter).await;
            made.map(|()| filter)
        });
        let mut failed = None;
        for made in join_all(made).await {
            match made {
                Ok(filter) => self.counted.push(filter),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(self), Err)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        for filter in &self.counted {
            self.control.switchboard.unsubscribe(&self.tenant, filter);
        }
    }
}

// === impl Following ===

impl Following {
    async fn step(mut self) -> Option<(Result<v1::SubscribeResponse, Status>, Self)> {
        let item = match self.phase {
            Phase::Confirm => Ok(Event::Subscribed(v1::SubscriptionsConfirmed {})),
            Phase::Follow => self.next().await,
            Phase::Ended => return None,
        };
        self.phase = if item.is_ok() { Phase::Follow } else { Phase::Ended };
        let item = item.map(|event| v1::SubscribeResponse { event: Some(event) });
        Some((item.map_err(Status::from), self))
    }

    async fn next(&self) -> Result<Event, Refusal> {
        let control = &self.subscription.control;
        tokio::select! {
            biased;
            // Stopping comes first, or a busy topic would keep the node alive.
            () = control.stopping.cancelled() => Err(draining()),
            item = self.subscription.listener.outlet.next() => Ok(self.event(item)),
            // Last: an old stream ends in a quiet moment.
            () = sleep_until(self.until) => Err(draining()),
        }
    }

    fn event(&self, item: Item) -> Event {
        let (dropped_count, cause, reason) = match item {
            Item::Message(message) => return Event::Message((&*message).into()),
            Item::Gap(Some(dropped)) => {
                (Some(dropped), GapCause::Dropped, "the stream was read too slowly")
            }
            Item::Gap(None) => (None, GapCause::Bus, "the hub's own connection was interrupted"),
        };
        self.subscription.control.edge_metrics.gaps.inc(cause);
        Event::Gap(v1::MessageGap {
            topic_filter: String::new(),
            dropped_count,
            reason: reason.to_owned(),
        })
    }
}
