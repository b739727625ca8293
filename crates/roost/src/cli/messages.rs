//! `roost publish` and `roost subscribe`.

use clap::Args;
use roost_proto::control::v1 as pb;
use roost_proto::control::v1::subscribe_response::Event;
use serde_json::json;

use super::args::{ClientArgs, PayloadArgs, header};
use super::client::connect;
use super::output::{Output, Style};
use super::views::{MessageView, time};
use super::{Exit, Failure, payload};

/// Publish one message to a topic.
#[derive(Debug, Args)]
pub(super) struct PublishArgs {
    /// The topic, without wildcards.
    topic: String,
    #[command(flatten)]
    payload: PayloadArgs,
    /// What travels with it; can be repeated.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    #[command(flatten)]
    client: ClientArgs,
}

/// Follow topics until interrupted.
#[derive(Debug, Args)]
pub(super) struct SubscribeArgs {
    /// Topics, or filters with `+` and `#`.
    #[arg(required = true, value_name = "FILTER")]
    filters: Vec<String>,
    /// End after this many messages.
    #[arg(long)]
    count: Option<u64>,
    #[command(flatten)]
    client: ClientArgs,
}

// === impl PublishArgs ===

impl PublishArgs {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let output = Output::new(self.client.json);
        let given = payload::read(&self.payload)?;
        let payload = given.ok_or_else(|| {
            Failure::usage("what to publish is missing: give JSON, @FILE or -, say '{\"a\":1}'")
        })?;
        let request = pb::PublishRequest {
            topic: self.topic.clone(),
            payload: Some(payload),
            headers: self.headers.into_iter().collect(),
            qos: pb::Qos::AtMostOnce.into(),
        };
        let mut client = connect(&self.client).await?.messages();
        let answer = client.publish(request).await?.into_inner();
        let at = time(answer.time.as_ref());
        output.show(&json!({ "time": at }), || format!("published to {} at {at}", self.topic))?;
        Ok(Exit::Ok)
    }
}

// === impl SubscribeArgs ===

impl SubscribeArgs {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let output = Output::new(self.client.json);
        let subscription =
            |topic_filter: &String| pb::TopicSubscription { topic_filter: topic_filter.clone() };
        let request =
            pb::SubscribeRequest { subscriptions: self.filters.iter().map(subscription).collect() };
        let mut client = connect(&self.client).await?.messages();
        let mut items = client.subscribe(request).await?.into_inner();
        let mut left = self.count.unwrap_or(u64::MAX);
        while left > 0 {
            let Some(item) = items.message().await? else {
                break;
            };
            left -= u64::from(matches!(item.event, Some(Event::Message(_))));
            show(output, item)?;
        }
        Ok(Exit::Ok)
    }
}

fn show(output: Output, item: pb::SubscribeResponse) -> Result<(), Failure> {
    match item.event {
        Some(Event::Subscribed(_)) if output.json => {
            output.json_line(&json!({ "subscribed": {} }))?;
        }
        Some(Event::Subscribed(_)) => output.line(output.paint(Style::Dim, "— subscribed —"))?,
        Some(Event::Message(message)) => {
            let line = format!(
                "{}  {}  {}",
                output.paint(Style::Bold, &message.topic),
                output.paint(Style::Dim, &message.from),
                payload::shown(message.payload.as_ref()),
            );
            output.show(&json!({ "message": MessageView::from(message) }), || line)?;
        }
        Some(Event::Gap(gap)) => {
            let dropped = gap.dropped_count;
            let json = json!({ "gap": {
                "topic_filter": gap.topic_filter,
                "dropped_count": dropped,
                "reason": gap.reason,
            } });
            let line = format!("messages may be missing: {}", gap.reason);
            output.show(&json, || output.paint(Style::Bad, line))?;
        }
        None => {}
    }
    Ok(())
}
