//! Handles to the series of one metric, cached by label values: an increment on a hot path is an
//! array look-up and an atomic add, never a hash or an allocation. Which metrics exist is in
//! `catalog.rs`; who increments them is in `edge.rs`, `control.rs`, `redis.rs` and `node.rs`.

use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use metrics::{Counter, Gauge, Histogram, Key, Label as KeyLabel, Level, Metadata, Recorder};

use super::catalog::{Kind, Spec};
use super::labels::Label;

/// Where the series of one hub are registered. Each `Telemetry` has its own, so that several hubs
/// in one process do not share series.
#[derive(Clone)]
pub(crate) struct Registrar(Arc<dyn Recorder + Send + Sync>);

/// A kind of handle that a recorder can hand out.
pub trait Instrument: Sized + Send + Sync {
    #[doc(hidden)]
    fn register(recorder: &dyn Recorder, key: &Key) -> Self;
}

/// The label values of one series: nothing, one [`Label`], or a pair of them.
pub trait LabelSet: Copy + Send + Sync + 'static {
    /// How many combinations exist.
    const COUNT: usize;
    /// Place of this combination, below [`LabelSet::COUNT`].
    fn index(self) -> usize;
    /// The combination at a place below [`LabelSet::COUNT`].
    fn at(index: usize) -> Self;
    /// Names and values, in the order of the catalogue.
    fn pairs(self) -> Vec<(&'static str, &'static str)>;
}

/// All series of one metric.
#[derive(Debug)]
pub struct Family<I, L> {
    spec: &'static Spec,
    registrar: Registrar,
    /// Filled on first use; `Family::eager` uses each at once.
    series: Box<[OnceLock<I>]>,
    labels: PhantomData<L>,
}

const METADATA: Metadata<'static> = Metadata::new("roost", Level::INFO, None);

// === impl Registrar ===

impl Registrar {
    pub(crate) fn new(recorder: Arc<dyn Recorder + Send + Sync>) -> Self {
        Self(recorder)
    }

    /// Tells the recorder a metric's help text.
    pub(crate) fn describe(&self, spec: &'static Spec) {
        let (name, unit, help) = (spec.name.into(), Some(spec.unit), spec.help.into());
        match spec.kind {
            Kind::Counter => self.0.describe_counter(name, unit, help),
            Kind::Gauge => self.0.describe_gauge(name, unit, help),
            Kind::Histogram(_) => self.0.describe_histogram(name, unit, help),
        }
    }

    /// The one series of a metric without labels.
    pub(crate) fn single<I: Instrument>(&self, spec: &'static Spec) -> I {
        self.register(spec, &[])
    }

    fn register<I: Instrument>(
        &self,
        spec: &'static Spec,
        pairs: &[(&'static str, &'static str)],
    ) -> I {
        debug_assert!(
            pairs.iter().map(|(name, _)| *name).eq(spec.labels.iter().copied()),
            "the labels of {} differ from its declaration",
            spec.name
        );
        let labels: Vec<_> = pairs.iter().map(|(k, v)| KeyLabel::from_static_parts(k, v)).collect();
        I::register(&*self.0, &Key::from_parts(spec.name, labels))
    }
}

impl std::fmt::Debug for Registrar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registrar")
    }
}

// === impl Instrument ===

impl Instrument for Counter {
    fn register(recorder: &dyn Recorder, key: &Key) -> Self {
        recorder.register_counter(key, &METADATA)
    }
}

impl Instrument for Gauge {
    fn register(recorder: &dyn Recorder, key: &Key) -> Self {
        recorder.register_gauge(key, &METADATA)
    }
}

impl Instrument for Histogram {
    fn register(recorder: &dyn Recorder, key: &Key) -> Self {
        recorder.register_histogram(key, &METADATA)
    }
}

// === impl LabelSet ===

impl<L: Label> LabelSet for L {
    const COUNT: usize = L::ALL.len();

    fn index(self) -> usize {
        Label::index(self)
    }

    fn at(index: usize) -> Self {
        L::ALL[index]
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        vec![(L::NAME, self.as_str())]
    }
}

impl<A: Label, B: Label> LabelSet for (A, B) {
    const COUNT: usize = A::ALL.len() * B::ALL.len();

    fn index(self) -> usize {
        self.0.index() * B::ALL.len() + self.1.index()
    }

    fn at(index: usize) -> Self {
        (A::ALL[index / B::ALL.len()], B::ALL[index % B::ALL.len()])
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        vec![(A::NAME, self.0.as_str()), (B::NAME, self.1.as_str())]
    }
}

// === impl Family ===

impl<I: Instrument, L: LabelSet> Family<I, L> {
    /// Every series exists from the start and reads zero: for metrics with few series, so that a
    /// first event is a step from 0 to 1 that `rate()` can see.
    pub(crate) fn eager(registrar: &Registrar, spec: &'static Spec) -> Self {
        let family = Self::lazy(registrar, spec);
        for index in 0..L::COUNT {
            family.with(L::at(index));
        }
        family
    }

    /// A series exists from its first use: for metrics with many combinations, most of them never
    /// used.
    pub(crate) fn lazy(registrar: &Registrar, spec: &'static Spec) -> Self {
        let series = (0..L::COUNT).map(|_| OnceLock::new()).collect();
        Self { spec, registrar: registrar.clone(), series, labels: PhantomData }
    }

    /// The series with these label values.
    pub fn with(&self, labels: L) -> &I {
        self.series[labels.index()]
            .get_or_init(|| self.registrar.register(self.spec, &labels.pairs()))
    }
}

impl<L: LabelSet> Family<Counter, L> {
    /// Adds one.
    pub fn inc(&self, labels: L) {
        self.with(labels).increment(1);
    }

    /// Adds `count`.
    pub fn add(&self, labels: L, count: u64) {
        self.with(labels).increment(count);
    }
}
