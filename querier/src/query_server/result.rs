//! The answer to a query as messages.

use budget::{Budget, BudgetLimits, Interrupt, Reservation, TotalBudget};
use model::{BucketSpan, CounterResetHint, FloatHistogram, Labels, Sample, Timestamp};
use promql::{MatrixSeries, QueryError, QueryValue, SampleValue};
use prost::Message;
use proto::prometheus_copy::{self as prompb, histogram};
use proto::thanos as wire;

use crate::query::QueryAnswer;

/// Bytes of a sample in the memory of the engine.
const SAMPLE_BYTES: u64 = 16;
/// A decoded message takes at most about this many times its size on the wire.
const MEMORY_FACTOR: usize = 3;
/// Bytes of series after which another batch begins.
const BATCH_BYTES: usize = 1 << 20;

/// A part of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    Warning(String),
    Series(prompb::TimeSeries),
    Batch(Vec<prompb::TimeSeries>),
    Stats(wire::QueryStats),
}

/// The parts of an answer in the order in which they are sent, with their memory until they are sent.
#[derive(Debug)]
pub(super) struct Answer {
    parts: std::vec::IntoIter<Part>,
    _reserved: Reservation,
}

impl Iterator for Answer {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        self.parts.next()
    }
}

impl Answer {
    /// Converts an answer and frees it. A batch has at most `batch` series; with 1, series are sent one by one. A
    /// string has no message, as in Thanos.
    ///
    /// # Errors
    /// The messages would exceed a memory limit, or the query was cancelled.
    pub(super) fn of(
        answer: QueryAnswer,
        batch: usize,
        budget: &Budget,
        interrupt: &Interrupt,
        total: &TotalBudget,
    ) -> Result<Self, QueryError> {
        let QueryAnswer { output, warnings, .. } = answer;
        let warnings = warnings.into_iter().chain(output.annotations.warnings);
        let parts = warnings.map(Part::Warning).collect();
        let (series, bytes, reserved) = (Vec::new(), 0, Reservation::new(budget));
        let mut writer = Writer { parts, series, bytes, batch, reserved, interrupt };
        match output.value {
            QueryValue::Scalar(sample) => {
                writer.push(time_series(&Labels::empty(), vec![float(sample)], Vec::new()))?;
            }
            QueryValue::String { .. } => {}
            QueryValue::Vector(samples) => {
                for sample in samples {
                    let (floats, histograms) = match &sample.value {
                        SampleValue::Float(value) => (
                            vec![prompb::Sample { value: *value, timestamp: sample.timestamp.as_millis() }],
                            vec![],
                        ),
                        SampleValue::Histogram(histogram) => {
                            (vec![], vec![native(sample.timestamp, histogram)])
                        }
                    };
                    writer.push(time_series(&sample.labels, floats, histograms))?;
                }
            }
            QueryValue::Matrix(matrix) => {
                for MatrixSeries { labels, floats, histograms } in matrix {
                    let floats = floats.into_iter().map(float).collect();
                    let histograms =
                        histograms.iter().map(|(at, histogram)| native(*at, histogram)).collect();
                    writer.push(time_series(&labels, floats, histograms))?;
                }
            }
        }
        writer.end_batch();
        let bytes = writer.reserved.bytes();
        let mut parts = writer.parts;
        parts.push(Part::Stats(wire::QueryStats {
            samples_total: i64::try_from(output.stats.samples).unwrap_or(i64::MAX),
            peak_samples: i64::try_from(output.stats.peak_bytes / SAMPLE_BYTES).unwrap_or(i64::MAX),
        }));
        // A separate budget, so that a slow client does not keep the samples of the query reserved.
        drop(writer.reserved);
        let mut reserved = Reservation::new(&Budget::new(total, BudgetLimits::UNLIMITED, Interrupt::new()));
        reserved.add(bytes)?;
        Ok(Self { parts: parts.into_iter(), _reserved: reserved })
    }
}

/// Collects series into parts.
struct Writer<'a> {
    parts: Vec<Part>,
    series: Vec<prompb::TimeSeries>,
    /// Bytes of `series` on the wire.
    bytes: usize,
    batch: usize,
    reserved: Reservation,
    interrupt: &'a Interrupt,
}

impl Writer<'_> {
    fn push(&mut self, series: prompb::TimeSeries) -> Result<(), QueryError> {
        self.interrupt.check()?;
        let bytes = series.encoded_len();
        self.reserved.add((bytes * MEMORY_FACTOR) as u64)?;
        if self.batch <= 1 {
            self.parts.push(Part::Series(series));
            return Ok(());
        }
        self.series.push(series);
        self.bytes += bytes;
        if self.series.len() >= self.batch || self.bytes >= BATCH_BYTES {
            self.end_batch();
        }
        Ok(())
    }

    fn end_batch(&mut self) {
        if !self.series.is_empty() {
            self.bytes = 0;
            self.parts.push(Part::Batch(std::mem::take(&mut self.series)));
        }
    }
}

fn time_series(
    labels: &Labels,
    samples: Vec<prompb::Sample>,
    histograms: Vec<prompb::Histogram>,
) -> prompb::TimeSeries {
    let label = |l: model::Label<'_>| wire::Label { name: l.name.to_owned(), value: l.value.to_owned() };
    prompb::TimeSeries { labels: labels.iter().map(label).collect(), samples, histograms }
}

fn float(sample: Sample) -> prompb::Sample {
    prompb::Sample { value: sample.value, timestamp: sample.timestamp.as_millis() }
}

fn native(at: Timestamp, histogram: &FloatHistogram) -> prompb::Histogram {
    let spans = |spans: &[BucketSpan]| -> Vec<prompb::BucketSpan> {
        spans.iter().map(|span| prompb::BucketSpan { offset: span.offset, length: span.length }).collect()
    };
    let hint = match histogram.counter_reset_hint {
        CounterResetHint::Unknown => histogram::ResetHint::Unknown,
        CounterResetHint::Reset => histogram::ResetHint::Yes,
        CounterResetHint::NotReset => histogram::ResetHint::No,
        CounterResetHint::Gauge => histogram::ResetHint::Gauge,
    };
    prompb::Histogram {
        count: Some(histogram::Count::CountFloat(histogram.count)),
        sum: histogram.sum,
        schema: histogram.schema,
        zero_threshold: histogram.zero_threshold,
        zero_count: Some(histogram::ZeroCount::ZeroCountFloat(histogram.zero_count)),
        negative_spans: spans(&histogram.negative_spans),
        negative_counts: histogram.negative_buckets.clone(),
        positive_spans: spans(&histogram.positive_spans),
        positive_counts: histogram.positive_buckets.clone(),
        reset_hint: hint.into(),
        timestamp: at.as_millis(),
        custom_values: histogram.custom_values.clone(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use promql::QUERIES;

    use super::*;

    #[test]
    fn native_histograms_keep_every_field() {
        let histogram = FloatHistogram {
            counter_reset_hint: CounterResetHint::Gauge,
            schema: 3,
            zero_threshold: 0.25,
            zero_count: 1.0,
            count: 9.5,
            sum: -2.0,
            positive_spans: vec![BucketSpan { offset: -1, length: 2 }],
            negative_spans: vec![BucketSpan { offset: 4, length: 1 }],
            positive_buckets: vec![1.0, 2.0],
            negative_buckets: vec![5.5],
            custom_values: vec![0.5],
        };
        let wire = native(Timestamp::from_millis(7), &histogram);
        let read = prompb::Histogram::decode(wire.encode_to_vec().as_slice()).unwrap();
        assert_eq!(read.count, Some(histogram::Count::CountFloat(9.5)));
        assert_eq!(read.zero_count, Some(histogram::ZeroCount::ZeroCountFloat(1.0)));
        assert_eq!((read.sum, read.schema, read.zero_threshold, read.timestamp), (-2.0, 3, 0.25, 7));
        assert_eq!(read.positive_spans, [prompb::BucketSpan { offset: -1, length: 2 }]);
        assert_eq!((read.positive_counts, read.negative_counts), (vec![1.0, 2.0], vec![5.5]));
        assert_eq!((read.custom_values, read.reset_hint), (vec![0.5], histogram::ResetHint::Gauge as i32));
        assert!(read.positive_deltas.is_empty() && read.negative_deltas.is_empty());
    }

    #[test]
    fn series_are_batched_and_counted_until_they_are_sent() {
        let total = TotalBudget::new(&QUERIES, BudgetLimits::UNLIMITED);
        let (budget, interrupt) =
            (Budget::new(&total, BudgetLimits::bytes(100_000), Interrupt::new()), Interrupt::new());
        let mut writer = Writer {
            parts: Vec::new(),
            series: Vec::new(),
            bytes: 0,
            batch: 3,
            reserved: Reservation::new(&budget),
            interrupt: &interrupt,
        };
        let series = |n: usize| {
            let labels = Labels::from_pairs([("n", n.to_string())]).unwrap();
            let histogram = native(Timestamp::EPOCH, &Arc::new(FloatHistogram::default()));
            time_series(&labels, Vec::new(), vec![histogram])
        };
        for n in 0..7 {
            writer.push(series(n)).unwrap();
        }
        writer.end_batch();
        let sizes: Vec<usize> = writer
            .parts
            .iter()
            .map(|part| if let Part::Batch(series) = part { series.len() } else { 0 })
            .collect();
        assert_eq!(sizes, [3, 3, 1]);
        assert!(total.reserved_bytes() > 0);
        let error = (7..10_000).find_map(|n| writer.push(series(n)).err()).unwrap();
        assert!(error.to_string().contains("max_bytes=100000"), "{error}");
        drop(writer);
        assert_eq!(total.reserved_bytes(), 0);
    }
}
