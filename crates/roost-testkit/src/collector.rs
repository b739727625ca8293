//! A collector of spans: an OTLP/gRPC receiver that keeps what it is sent, for tests to look at.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span as Sent};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::eventually;

/// A span as the collector was sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Of which node: its `service.instance.id`.
    pub node: String,
    /// 32 hex digits.
    pub trace_id: String,
    /// 16 hex digits.
    pub span_id: String,
    /// 16 hex digits; empty for the first of a trace.
    pub parent_id: String,
    /// What was done.
    pub name: String,
    /// On whose behalf.
    pub kind: SpanKind,
    /// When it began and ended: Unix nanoseconds.
    pub time: (u64, u64),
    /// Its attributes, numbers and flags as text.
    pub attributes: BTreeMap<String, String>,
    /// The names of what happened meanwhile.
    pub events: Vec<String>,
    /// Whether it failed.
    pub failed: bool,
    /// Its resource: the node's attributes.
    pub resource: BTreeMap<String, String>,
}

/// A running collector; ends when it is dropped.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    _serving: JoinSet<()>,
}

#[derive(Debug)]
struct Receiver(Arc<Mutex<Vec<Span>>>);

// === impl Collector ===

impl Collector {
    /// Listens on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let spans = Arc::new(Mutex::new(vec![]));
        let service = TraceServiceServer::new(Receiver(Arc::clone(&spans)));
        let receiving = Server::builder().add_service(service);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            receiving.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap();
        });
        Self { address, spans, _serving: serving }
    }

    /// What a node is given as `tracing.otlp_endpoint`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it was sent so far.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    /// Everything, once there is a span of each of these names.
    pub async fn spans_with(&self, names: &[&str]) -> Vec<Span> {
        let has = |spans: &[Span], name: &str| spans.iter().any(|span| span.name == name);
        let has_all = |spans: &[Span]| names.iter().all(|name| has(spans, name));
        self.spans_once(&format!("{names:?}"), has_all).await
    }

    /// Everything, once these are there.
    pub async fn spans_once(&self, what: &str, there: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let what = format!("the collector has {what}");
        let ask = async || Some(self.spans()).filter(|spans| there(spans));
        eventually(&what, Duration::from_secs(30), ask).await
    }
}

// === impl Receiver ===

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut spans = self.0.lock().unwrap();
        for resource in request.into_inner().resource_spans {
            spans.extend(read(resource));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn read(sent: ResourceSpans) -> Vec<Span> {
    let resource = attributes(sent.resource.map(|resource| resource.attributes));
    let node = resource.get("service.instance.id").cloned().unwrap_or_default();
    let spans = sent.scope_spans.into_iter().flat_map(|scope| scope.spans);
    spans.map(|span| read_span(span, &node, &resource)).collect()
}

fn read_span(span: Sent, node: &str, resource: &BTreeMap<String, String>) -> Span {
    Span {
        node: node.to_owned(),
        trace_id: hex(&span.trace_id),
        span_id: hex(&span.span_id),
        parent_id: hex(&span.parent_span_id),
        kind: span.kind(),
        time: (span.start_time_unix_nano, span.end_time_unix_nano),
        attributes: attributes(Some(span.attributes)),
        events: span.events.into_iter().map(|event| event.name).collect(),
        // 2 is ERROR.
        failed: span.status.is_some_and(|status| status.code == 2),
        name: span.name,
        resource: resource.clone(),
    }
}

fn attributes(given: Option<Vec<KeyValue>>) -> BTreeMap<String, String> {
    let given = given.unwrap_or_default().into_iter();
    given.map(|attribute| (attribute.key, text(attribute.value))).collect()
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
