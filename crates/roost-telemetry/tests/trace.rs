//! Spans without a collector: who has one, whose child it is, what a log line says within it, and that
//! nobody waits for a collector that is not there. What a collector receives is in the tests of the hub.

#![allow(clippy::unwrap_used, reason = "a failed set-up step should fail the test")]

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use roost_telemetry::trace::{self, Span, SpanExport, SpanKind, Tracer, TracingConfig};
use roost_telemetry::{LogFormat, Telemetry};
use roost_types::TraceContext;
use tokio::net::TcpListener;

const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A tracer whose collector is nobody: a port that was free a moment ago.
async fn tracer(telemetry: &Telemetry, sample: f64) -> (Tracer, SpanExport) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let config = TracingConfig { endpoint, sample, instance: "n".into(), version: "0".into() };
    Tracer::exporting(&config, Arc::clone(&telemetry.node)).unwrap()
}

fn parent(text: &str) -> TraceContext {
    TraceContext::parse(text).unwrap()
}

#[tokio::test]
async fn the_caller_decides_what_is_recorded_and_chance_where_nobody_did() {
    let telemetry = Telemetry::new("0");
    let (never, _export) = tracer(&telemetry, 0.0).await;
    let (always, _export) = tracer(&telemetry, 1.0).await;
    let unsampled = SAMPLED.replace("-01", "-00");
    for (tracer, given, recorded) in [
        (&never, None, false),
        (&always, None, true),
        (&never, Some(parent(SAMPLED)), true),
        (&always, Some(parent(&unsampled)), false),
        (&Tracer::off(), Some(parent(SAMPLED)), false),
    ] {
        let span = tracer.start("work", SpanKind::Server, given);
        assert_eq!(span.is_recorded(), recorded, "{given:?}");
        assert_eq!(span.context().is_some(), recorded);
    }
    assert!(!always.follow("work", SpanKind::Consumer, None).is_recorded());
}

#[tokio::test]
async fn children_find_the_span_around_them_in_their_task_and_in_others() {
    let telemetry = Telemetry::new("0");
    let (tracer, _export) = tracer(&telemetry, 1.0).await;
    assert!(!trace::child("nobody's", SpanKind::Client).is_recorded());
    assert_eq!(trace::current(), None);
    let span = tracer.start("work", SpanKind::Server, Some(parent(SAMPLED)));
    let own = span.context().unwrap();
    assert_eq!(own.trace_id, parent(SAMPLED).trace_id);
    span.within(async {
        tokio::task::yield_now().await;
        assert_eq!(trace::current(), Some(own));
        let child = trace::child("part", SpanKind::Client);
        assert_eq!(child.context().unwrap().trace_id, own.trace_id);
        assert_ne!(child.context().unwrap().span_id, own.span_id);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(trace::in_current(async { trace::current() }));
        assert_eq!(tasks.join_next().await.unwrap().unwrap(), Some(own));
        tasks.spawn(async { trace::current() });
        assert_eq!(tasks.join_next().await.unwrap().unwrap(), None);
    })
    .await;
    assert_eq!(trace::current(), None);
    assert_eq!(Span::none().within(async { trace::current() }).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_is_not_there_costs_no_more_than_the_queue() {
    let sink = Sink::default();
    let writer = sink.clone();
    let made = roost_telemetry::subscriber(LogFormat::Json, "info", false, move || writer.clone());
    let _guard = tracing::subscriber::set_default(made.unwrap().0);
    let telemetry = Telemetry::new("0");
    let (tracer, export) = tracer(&telemetry, 1.0).await;
    // More than wait at once, without a pause in which any could be sent.
    for _ in 0..5_000 {
        drop(tracer.start("work", SpanKind::Server, None));
    }
    let count = |outcome: &str| {
        telemetry.value(&format!("roost_trace_spans_total{{outcome=\"{outcome}\"}}"))
    };
    assert_eq!(count("dropped"), Some(904.0), "4,096 wait");
    export.finish(Duration::from_secs(3_600)).await;
    assert_eq!((count("failed"), count("exported")), (Some(4_096.0), Some(0.0)));
    let log = sink.text();
    assert_eq!(log.matches("the collector does not take spans").count(), 1, "{log}");
}

#[tokio::test]
async fn log_lines_within_a_recorded_trace_say_which() {
    let sink = Sink::default();
    let writer = sink.clone();
    let made = roost_telemetry::subscriber(LogFormat::Json, "info", false, move || writer.clone());
    let _guard = tracing::subscriber::set_default(made.unwrap().0);
    let telemetry = Telemetry::new("0");
    let (tracer, _export) = tracer(&telemetry, 0.0).await;
    let span = tracer.start("work", SpanKind::Server, Some(parent(SAMPLED)));
    span.within(async { tracing::info!(n = 1, "within") }).await;
    let none = tracer.start("work", SpanKind::Server, None);
    none.within(async { tracing::info!("not recorded") }).await;
    let text = sink.text();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    let own = span.context().unwrap().to_string();
    assert_eq!(lines[0]["span_id"].as_str().unwrap(), &own[36..52]);
    assert_eq!((&lines[0]["message"], &lines[0]["n"]), (&"within".into(), &1.into()));
    assert_eq!(lines[1].get("trace_id"), None, "{text}");
}

/// Collects what a subscriber writes.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
