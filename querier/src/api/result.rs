//! Values of queries as JSON.

use model::FloatHistogram;
use promapi::{Boundaries, Bucket, HistogramPoint, ResultWriter};
use promql::{QueryValue, SampleValue, Stats};
use serde_json::{Value, json};

use crate::fanout::{Outcome, StoreReport};

/// Writes `resultType` and `result`.
pub(super) fn write(out: &mut Vec<u8>, value: &QueryValue) {
    match value {
        QueryValue::Scalar(sample) => ResultWriter::scalar(out, sample.timestamp, sample.value),
        QueryValue::String { timestamp, value } => ResultWriter::string(out, *timestamp, value),
        QueryValue::Vector(samples) => {
            let mut writer = ResultWriter::vector(out);
            for sample in samples {
                match &sample.value {
                    SampleValue::Float(value) => writer.sample(out, &sample.labels, sample.timestamp, *value),
                    SampleValue::Histogram(histogram) => {
                        let buckets = buckets(histogram);
                        let point = point(histogram, &buckets);
                        writer.histogram_sample(out, &sample.labels, sample.timestamp, point);
                    }
                }
            }
            writer.end(out);
        }
        QueryValue::Matrix(matrix) => {
            let mut writer = ResultWriter::matrix(out);
            for series in matrix {
                let floats = series.floats.iter().map(|s| (s.timestamp, s.value));
                let all: Vec<Vec<Bucket>> = series.histograms.iter().map(|(_, h)| buckets(h)).collect();
                let histograms = series.histograms.iter().zip(&all).map(|((at, h), b)| (*at, point(h, b)));
                writer.series(out, &series.labels, floats, histograms);
            }
            writer.end(out);
        }
    }
}

fn point<'a>(histogram: &FloatHistogram, buckets: &'a [Bucket]) -> HistogramPoint<'a> {
    HistogramPoint { count: histogram.count, sum: histogram.sum, buckets }
}

fn buckets(histogram: &FloatHistogram) -> Vec<Bucket> {
    let bucket = |bucket: model::Bucket| Bucket {
        boundaries: match (bucket.lower_inclusive, bucket.upper_inclusive) {
            (false, true) => Boundaries::OpenLeft,
            (true, false) => Boundaries::OpenRight,
            (false, false) => Boundaries::OpenBoth,
            (true, true) => Boundaries::ClosedBoth,
        },
        lower: bucket.lower,
        upper: bucket.upper,
        count: bucket.count,
    };
    histogram.buckets().into_iter().map(bucket).collect()
}

/// Leaves at most `limit` series; says whether some had to go.
pub(super) fn truncate(value: &mut QueryValue, limit: usize) -> bool {
    match value {
        QueryValue::Vector(samples) if samples.len() > limit => samples.truncate(limit),
        QueryValue::Matrix(series) if series.len() > limit => series.truncate(limit),
        _ => return false,
    }
    true
}

/// What a query cost, and what became of each store that it asked.
pub(super) fn stats(stats: &Stats, stores: &[StoreReport]) -> Value {
    let store = |report: &StoreReport| {
        let (outcome, error) = match &report.outcome {
            Outcome::Pending => ("pending", None),
            Outcome::Answered => ("answered", None),
            Outcome::Failed(reason) => ("failed", Some(reason)),
        };
        json!({
            "name": &*report.name, "outcome": outcome, "error": error,
            "series": report.series, "chunks": report.chunks, "bytes": report.bytes,
        })
    };
    json!({
        "samples": { "totalQueryableSamples": stats.samples, "peakBytes": stats.peak_bytes },
        "seriesFetched": stats.series,
        "stores": stores.iter().map(store).collect::<Vec<_>>(),
    })
}
