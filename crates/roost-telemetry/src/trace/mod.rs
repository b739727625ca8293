//! Spans: how one is begun, carried along and ended. What travels between nodes and devices is
//! `roost_types::TraceContext`; how spans reach a collector is in `export.rs`.
//!
//! One decision is made for a trace, where it begins: by the caller's `traceparent`, or by chance.
//! What is not recorded has no span: a [`Span`] that holds nothing, no context around the work, no
//! children. So work that is not traced, or all work where tracing is off, pays for looking and no more.

mod export;

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::time::SystemTime;

use opentelemetry::trace::{
    SpanBuilder, SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId,
    TraceState, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;
use roost_types::TraceContext;

pub use self::export::{SpanExport, TracingConfig, TracingError};
pub use opentelemetry::trace::SpanKind;

/// Begins the spans of one node. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<SdkTracer>);

/// One span of a recorded trace, or nothing. Ends when it is dropped.
#[derive(Debug, Default)]
pub struct Span(Option<Context>);

/// What is carried with a span, so that its children find who makes them.
struct Maker(SdkTracer);

// === impl Tracer ===

impl Tracer {
    /// Makes no spans.
    pub const fn off() -> Self {
        Self(None)
    }

    /// Whether spans are made at all.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins this node's part of a trace: after `parent`, which decided whether it is recorded, or as
    /// the first span of a new one.
    pub fn start(
        &self,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        parent: Option<TraceContext>,
    ) -> Span {
        self.begin(name, kind, parent, None)
    }

    /// The same for something that began at `since`.
    pub fn start_at(
        &self,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        parent: Option<TraceContext>,
        since: SystemTime,
    ) -> Span {
        self.begin(name, kind, parent, Some(since))
    }

    /// Goes on with a trace that is recorded, if there is one: never begins one.
    pub fn follow(
        &self,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        parent: Option<TraceContext>,
    ) -> Span {
        match parent {
            Some(parent) => self.begin(name, kind, Some(parent), None),
            None => Span(None),
        }
    }

    fn begin(
        &self,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        parent: Option<TraceContext>,
        since: Option<SystemTime>,
    ) -> Span {
        let Some(tracer) = &self.0 else {
            return Span(None);
        };
        if parent.is_some_and(|parent| !parent.sampled) {
            return Span(None);
        }
        let around = parent.map_or_else(Context::new, |parent| {
            Context::new().with_remote_span_context(remote(parent))
        });
        let mut builder = SpanBuilder::from_name(name).with_kind(kind);
        builder.start_time = since;
        let span = tracer.build_with_context(builder, &around);
        if !opentelemetry::trace::Span::span_context(&span).is_sampled() {
            return Span(None);
        }
        Span(Some(around.with_value(Maker(tracer.clone())).with_span(span)))
    }
}

// === impl Span ===

impl Span {
    /// No span.
    pub const fn none() -> Self {
        Self(None)
    }

    /// Whether anything is recorded: what costs something to say need not be said where it is not.
    pub const fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// Its place in the trace, for what it causes elsewhere.
    pub fn context(&self) -> Option<TraceContext> {
        self.0.as_ref().map(local)
    }

    /// Begins a span under this one.
    #[must_use]
    pub fn child(&self, name: impl Into<Cow<'static, str>>, kind: SpanKind) -> Self {
        Self(self.0.as_ref().and_then(|around| child_of(around, name.into(), kind)))
    }

    /// Notes a text. No payloads, no tokens: spans leave the house.
    pub fn set(&self, key: &'static str, value: &str) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new(key, value.to_owned()));
        }
    }

    /// Notes a number.
    pub fn set_number(&self, key: &'static str, value: impl Into<i64>) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new(key, value.into()));
        }
    }

    /// Notes that something is so, or not.
    pub fn set_flag(&self, key: &'static str, value: bool) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new(key, value));
        }
    }

    /// Notes that something happened meanwhile.
    pub fn event(&self, name: impl Into<Cow<'static, str>>) {
        if let Some(context) = &self.0 {
            context.span().add_event(name, Vec::new());
        }
    }

    /// Notes that it failed, and why.
    pub fn fail(&self, why: impl Into<Cow<'static, str>>) {
        if let Some(context) = &self.0 {
            context.span().set_status(Status::error(why));
        }
    }

    /// Names another span that has to do with it.
    pub fn link(&self, other: Option<TraceContext>) {
        if let (Some(context), Some(other)) = (&self.0, other) {
            context.span().add_link(remote(other), Vec::new());
        }
    }

    /// Does work within this span: [`child`] and log lines find it. Without a span the work is done
    /// as it is.
    pub fn within<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        within(self.0.clone(), work)
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(context) = &self.0 {
            context.span().end();
        }
    }
}

// === what is around the caller ===

/// Begins a span under the one around the caller, if there is one.
pub fn child(name: impl Into<Cow<'static, str>>, kind: SpanKind) -> Span {
    Span(Context::map_current(|around| child_of(around, name.into(), kind)))
}

/// The place of the span around the caller, if there is one.
pub fn current() -> Option<TraceContext> {
    Context::map_current(|around| around.has_active_span().then(|| local(around)))
}

/// Names another span that has to do with the one around the caller.
pub fn link(other: Option<TraceContext>) {
    let Some(other) = other else {
        return;
    };
    Context::map_current(|around| {
        if around.has_active_span() {
            around.span().add_link(remote(other), Vec::new());
        }
    });
}

/// Takes the span around the caller along, to a task of its own.
pub fn in_current<F: Future>(work: F) -> impl Future<Output = F::Output> + use<F> {
    let around = Context::map_current(|around| around.has_active_span().then(|| around.clone()));
    within(around, work)
}

async fn within<F: Future>(around: Option<Context>, work: F) -> F::Output {
    let mut work = pin!(work);
    poll_fn(|task| {
        let _here = around.clone().map(Context::attach);
        work.as_mut().poll(task)
    })
    .await
}

fn child_of(around: &Context, name: Cow<'static, str>, kind: SpanKind) -> Option<Context> {
    if !around.has_active_span() {
        return None;
    }
    let Maker(tracer) = around.get::<Maker>()?;
    let builder = SpanBuilder::from_name(name).with_kind(kind);
    Some(around.with_span(tracer.build_with_context(builder, around)))
}

fn local(context: &Context) -> TraceContext {
    let span = context.span();
    let place = span.span_context();
    TraceContext {
        trace_id: place.trace_id().to_bytes(),
        span_id: place.span_id().to_bytes(),
        sampled: place.is_sampled(),
    }
}

fn remote(context: TraceContext) -> SpanContext {
    let flags = if context.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    SpanContext::new(
        TraceId::from_bytes(context.trace_id),
        SpanId::from_bytes(context.span_id),
        flags,
        true,
        TraceState::NONE,
    )
}
