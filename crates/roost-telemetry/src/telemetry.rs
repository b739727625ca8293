//! One hub's telemetry: its recorder, its handles, their rendering as `/metrics`, and the maker of its
//! spans. But for the log, which a process has one of, nothing is global, so several hubs in one process (tests, `demo`) count apart.

use std::fmt;
use std::sync::Arc;

use metrics::NoopRecorder;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::LogControl;
use crate::metrics::catalog::{ALL, BUILD_INFO, Kind};
use crate::metrics::{
    ControlMetrics, Drain, EdgeMetrics, NodeMetrics, RedisMetrics, Registrar, process,
};
use crate::trace::Tracer;

/// The metrics of one hub, its spans and its log. Cheap to clone; clones count into the same series.
#[derive(Clone)]
pub struct Telemetry {
    /// What the edge role counts.
    pub edge: Arc<EdgeMetrics>,
    /// What the control role counts.
    pub control: Arc<ControlMetrics>,
    /// What the Redis client side counts.
    pub redis: Arc<RedisMetrics>,
    /// What every node counts.
    pub node: Arc<NodeMetrics>,
    /// Makes its spans; off unless [`Telemetry::with_tracer`] was called.
    pub tracer: Tracer,
    /// How much its process logs, where that can be changed.
    pub log: Option<LogControl>,
    /// Absent in [`Telemetry::noop`].
    exporter: Option<PrometheusHandle>,
}

// === impl Telemetry ===

impl Telemetry {
    /// A hub's telemetry; `version` goes to `roost_build_info`.
    pub fn new(version: &str) -> Self {
        let recorder = builder().build_recorder();
        let exporter = recorder.handle();
        let recorder: Arc<dyn metrics::Recorder + Send + Sync> = Arc::new(recorder);
        let key = metrics::Key::from_parts(
            BUILD_INFO.name,
            vec![metrics::Label::new("version", version.to_owned())],
        );
        let metadata = metrics::Metadata::new("roost", metrics::Level::INFO, None);
        recorder.register_gauge(&key, &metadata).set(1);
        Self::with_recorder(recorder, Some(exporter))
    }

    /// Telemetry that counts nothing, for unit tests.
    pub fn noop() -> Self {
        Self::with_recorder(Arc::new(NoopRecorder), None)
    }

    fn with_recorder(
        recorder: Arc<dyn metrics::Recorder + Send + Sync>,
        exporter: Option<PrometheusHandle>,
    ) -> Self {
        let registrar = Registrar::new(recorder);
        for spec in ALL {
            registrar.describe(spec);
        }
        let drain = Arc::new(Drain::new(&registrar));
        Self {
            edge: Arc::new(EdgeMetrics::new(&registrar, Arc::clone(&drain))),
            control: Arc::new(ControlMetrics::new(&registrar)),
            redis: Arc::new(RedisMetrics::new(&registrar)),
            node: Arc::new(NodeMetrics::new(&registrar, drain)),
            tracer: Tracer::off(),
            log: None,
            exporter,
        }
    }

    /// The same with spans.
    #[must_use]
    pub fn with_tracer(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
    }

    /// The same with a log whose level can be changed.
    #[must_use]
    pub fn with_log(self, log: Option<LogControl>) -> Self {
        Self { log, ..self }
    }

    /// Everything in Prometheus' text format, `roost_process_*` included.
    pub fn render(&self) -> String {
        self.node.refresh();
        let mut text = self.exporter.as_ref().map(PrometheusHandle::render).unwrap_or_default();
        text.push_str(&process::render());
        text
    }

    /// Folds the observations of histograms into their buckets. Until then each one takes memory,
    /// so something must call this every few seconds; `serve_admin` does.
    pub fn run_upkeep(&self) {
        if let Some(exporter) = &self.exporter {
            exporter.run_upkeep();
        }
    }

    /// The value of one series, for tests: `name` with its labels exactly as `/metrics` prints
    /// them, such as `roost_ws_connections{protocol="json"}`. `None` where there is no such series.
    pub fn value(&self, series: &str) -> Option<f64> {
        self.render()
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("noop", &self.exporter.is_none()).finish_non_exhaustive()
    }
}

/// The exporter with the buckets of the catalogue: a histogram without buckets would come out as a
/// summary, which cannot be added up over nodes.
fn builder() -> PrometheusBuilder {
    ALL.iter().fold(PrometheusBuilder::new(), |builder, spec| match spec.kind {
        Kind::Histogram(buckets) => builder
            .set_buckets_for_metric(Matcher::Full(spec.name.to_owned()), buckets)
            .expect("no bucket list of the catalogue is empty"),
        Kind::Counter | Kind::Gauge => builder,
    })
}
