//! Spans: what is recorded about one request.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;

use crate::trace::context::TraceContext;
use crate::trace::sampler::Sampler;
use crate::trace::wire::{KeyValue, WireSpan, WireStatus, shortened};

/// The side of a request that a span is about, with the number of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpanKind {
    Server = 2,
    Client = 3,
}

/// Starts spans. Clones share the queue to the collector.
#[derive(Clone, Debug)]
pub(crate) struct Tracer {
    sampler: Sampler,
    queue: mpsc::Sender<WireSpan>,
    /// Spans that were dropped because the queue was full.
    dropped: Arc<Counter>,
}

impl Tracer {
    pub(crate) fn new(sampler: Sampler, queue: mpsc::Sender<WireSpan>, dropped: Counter) -> Self {
        Self { sampler, queue, dropped: Arc::new(dropped) }
    }

    /// Starts a span below `parent`, or a trace. `forced` records it whatever the sampler says.
    pub(crate) fn start(
        &self,
        name: impl Into<String>,
        kind: SpanKind,
        parent: Option<TraceContext>,
        forced: bool,
    ) -> Span {
        let trace_id = parent.map_or_else(|| random_id(rand::random), |parent| parent.trace_id);
        let sampled = forced || self.sampler.samples(trace_id, parent);
        self.span(name, kind, TraceContext { trace_id, span_id: random_id(rand::random), sampled }, parent)
    }

    /// Starts a span below one of this process, and follows its decision.
    pub(crate) fn start_below(&self, name: impl Into<String>, kind: SpanKind, parent: TraceContext) -> Span {
        self.span(name, kind, TraceContext { span_id: random_id(rand::random), ..parent }, Some(parent))
    }

    fn span(
        &self,
        name: impl Into<String>,
        kind: SpanKind,
        context: TraceContext,
        parent: Option<TraceContext>,
    ) -> Span {
        let record = context.sampled.then(|| {
            Box::new(SpanRecord {
                tracer: self.clone(),
                began: Instant::now(),
                wire: WireSpan {
                    trace_id: context.trace_id.to_be_bytes().to_vec(),
                    span_id: context.span_id.to_be_bytes().to_vec(),
                    parent_span_id: parent.map_or(Vec::new(), |p| p.span_id.to_be_bytes().to_vec()),
                    name: shortened(&name.into()),
                    kind: kind as i32,
                    start_time_unix_nano: nanos(SystemTime::now()),
                    ..WireSpan::default()
                },
            })
        });
        Span { context, record }
    }
}

/// A random number that is not 0.
fn random_id<T: Default + PartialEq>(random: impl Fn() -> T) -> T {
    loop {
        let id = random();
        if id != T::default() {
            return id;
        }
    }
}

fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A running span. It ends, and is sent, when it is dropped.
#[derive(Debug)]
pub(crate) struct Span {
    context: TraceContext,
    /// `None` if the trace is not recorded.
    record: Option<Box<SpanRecord>>,
}

#[derive(Debug)]
struct SpanRecord {
    tracer: Tracer,
    began: Instant,
    wire: WireSpan,
}

impl Span {
    /// What requests that this span causes carry.
    pub(crate) fn context(&self) -> TraceContext {
        self.context
    }

    /// Adds what `attribute` returns, if the span is recorded.
    pub(crate) fn note(&mut self, attribute: impl FnOnce() -> KeyValue) {
        if let Some(record) = &mut self.record {
            record.wire.attributes.push(attribute());
        }
    }

    /// Marks the span as failed, for this reason.
    pub(crate) fn fail(&mut self, reason: impl FnOnce() -> String) {
        if let Some(record) = &mut self.record {
            record.wire.status = Some(WireStatus { message: shortened(&reason()), code: 2 });
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(mut record) = self.record.take() else { return };
        let length = u64::try_from(record.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let wire = &mut record.wire;
        wire.end_time_unix_nano =
            wire.start_time_unix_nano.saturating_add(length.max(Duration::from_nanos(1).as_nanos() as u64));
        if record.tracer.queue.try_send(std::mem::take(wire)).is_err() {
            record.tracer.dropped.inc();
        }
    }
}
