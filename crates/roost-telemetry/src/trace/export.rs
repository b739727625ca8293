//! How spans reach a collector: a bounded queue, and one task that sends what waits in it over
//! OTLP/gRPC. Nothing that serves ever waits for it; what finds the queue full, or a collector that
//! does not answer, is counted and gone.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{RetryPolicy, SpanExporter as OtlpExporter};
use opentelemetry_otlp::{WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    Sampler, SdkTracerProvider, SpanData, SpanExporter as _, SpanProcessor,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Tracer;
use crate::metrics::NodeMetrics;
use crate::metrics::labels::SpanOutcome;

/// Spans that wait to be sent: some seconds of 100 traced commands a second, about 4 MB.
const QUEUE: usize = 4_096;
/// Spans sent at once; a full batch is about 250 KB.
const BATCH: usize = 512;
/// How long a span waits at the most for others to be sent with it.
const GATHER: Duration = Duration::from_secs(1);
/// How long a collector may take for a batch.
const ANSWER: Duration = Duration::from_secs(5);

/// Where spans go, and whose they are.
#[derive(Debug, Clone, PartialEq)]
pub struct TracingConfig {
    /// `http://HOST:PORT` of a collector that takes OTLP over gRPC.
    pub endpoint: String,
    /// Which share of the traces that begin here is recorded: 0 to 1. Traces that a caller began are
    /// recorded if the caller says so.
    pub sample: f64,
    /// The node's name: `service.instance.id`.
    pub instance: String,
    /// The program's version: `service.version`.
    pub version: String,
}

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
#[error("cannot send spans to {endpoint}: {reason}")]
pub struct TracingError {
    endpoint: String,
    reason: String,
}

/// The task that sends spans; ends with this.
#[derive(Debug)]
pub struct SpanExport {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    /// Kept for as long as spans are made: a tracer without it makes none.
    _provider: SdkTracerProvider,
}

/// Puts ended spans into the queue.
#[derive(Debug)]
struct Queue {
    spans: mpsc::Sender<SpanData>,
    metrics: Arc<NodeMetrics>,
}

/// Sends what is in the queue.
struct Sender {
    spans: mpsc::Receiver<SpanData>,
    exporter: OtlpExporter,
    metrics: Arc<NodeMetrics>,
    stop: CancellationToken,
    /// Whether the last batch was taken: only a change is worth a line in the log.
    works: bool,
}

// === impl Tracer ===

impl Tracer {
    /// A tracer whose spans go to a collector, and the task that takes them there. The collector need
    /// not be there yet. To be called within a tokio runtime.
    pub fn exporting(
        config: &TracingConfig,
        metrics: Arc<NodeMetrics>,
    ) -> Result<(Self, SpanExport), TracingError> {
        let failed = |reason: String| TracingError { endpoint: config.endpoint.clone(), reason };
        // What a collector did not take is not offered again: fresh spans are worth more.
        let once = RetryPolicy::disabled();
        let mut exporter = OtlpExporter::builder()
            .with_tonic()
            .with_endpoint(&config.endpoint)
            .with_timeout(ANSWER)
            .with_retry_policy(once)
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let resource = resource(config);
        exporter.set_resource(&resource);

        let (queue, spans) = mpsc::channel(QUEUE);
        let sampler = Sampler::TraceIdRatioBased(config.sample);
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(sampler)))
            .with_resource(resource)
            .with_span_processor(Queue { spans: queue, metrics: Arc::clone(&metrics) })
            .build();
        let stop = CancellationToken::new();
        let sender = Sender { spans, exporter, metrics, stop: stop.clone(), works: true };
        let mut tasks = JoinSet::new();
        tasks.spawn(sender.run());
        let tracer = Self(Some(provider.tracer("roost")));
        Ok((tracer, SpanExport { stop, tasks, _provider: provider }))
    }
}

fn resource(config: &TracingConfig) -> Resource {
    Resource::builder_empty()
        .with_service_name("roost")
        .with_attribute(KeyValue::new("service.version", config.version.clone()))
        .with_attribute(KeyValue::new("service.instance.id", config.instance.clone()))
        .build()
}

// === impl SpanExport ===

impl SpanExport {
    /// Sends what waits and ends, `within` this time: what is not sent by then is lost.
    pub async fn finish(mut self, within: Duration) {
        self.stop.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(within, ended).await.is_err() {
            tracing::debug!("the last spans were not taken in time");
        }
    }
}

// === impl Queue ===

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut opentelemetry_sdk::trace::Span, _around: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.spans.try_send(span).is_err() {
            self.metrics.trace_spans.inc(SpanOutcome::Dropped);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

// === impl Sender ===

impl Sender {
    async fn run(mut self) {
        let mut batch = Vec::new();
        let stop = self.stop.clone();
        loop {
            tokio::select! {
                biased;
                // The end: what waits is sent below.
                () = stop.cancelled() => break,
                // The first of a batch; 0 where nobody makes spans any more.
                count = self.spans.recv_many(&mut batch, BATCH) => if count == 0 { break },
            }
            self.gather(&mut batch).await;
            self.send(&mut batch).await;
        }
        self.spans.close();
        while self.spans.recv_many(&mut batch, BATCH).await > 0 {
            self.send(&mut batch).await;
        }
    }

    /// Waits for more spans until the batch is full, or has waited long enough.
    async fn gather(&mut self, batch: &mut Vec<SpanData>) {
        let until = Instant::now() + GATHER;
        let stop = self.stop.clone();
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            let more = timeout_at(until, self.spans.recv_many(batch, room));
            let count = tokio::select! {
                biased;
                // Then everything is sent at once.
                () = stop.cancelled() => return,
                count = more => count.unwrap_or(0),
            };
            if count == 0 {
                return;
            }
        }
    }

    /// Sends a batch once, whatever becomes of it.
    async fn send(&mut self, batch: &mut Vec<SpanData>) {
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let sent = timeout(ANSWER, self.exporter.export(std::mem::take(batch))).await;
        let problem = match sent {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {} s", ANSWER.as_secs())),
        };
        let outcome = if problem.is_none() { SpanOutcome::Exported } else { SpanOutcome::Failed };
        self.metrics.trace_spans.with(outcome).increment(count);
        match (&problem, self.works) {
            (Some(problem), true) => {
                tracing::warn!(
                    problem,
                    "the collector does not take spans; they are dropped until it does"
                );
            }
            (None, false) => tracing::info!("the collector takes spans again"),
            _ => {}
        }
        self.works = problem.is_none();
    }
}
