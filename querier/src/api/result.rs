//! Query results as JSON.

use model::{FloatHistogram, Labels};
use promapi::{Boundaries, HistogramBucket, HistogramPoint, ResultWriter};
use promql::{PlanNode, QueryError, QueryValue, SampleValue, Select, Stats};
use serde_json::{Value, json};

use crate::api::body::AnswerText;
use crate::api::resolution;
use crate::fanout::{StoreOutcome, StoreReport};
use crate::query::Timings;

/// Bytes of a sample in text, unless it has many digits.
const SAMPLE_BYTES: usize = 32;
/// Samples written between two checks for cancellation.
const SAMPLES_AT_ONCE: usize = 256;
/// Bytes of a bucket in text, unless it has many digits; also of count and sum.
const BUCKET_BYTES: usize = 64;

/// Bytes of a timestamp and a value.
const SAMPLE_BYTES_IN_MEMORY: u64 = 16;

/// Writes `resultType` and `result`.
///
/// # Errors
/// The text would exceed the memory limit of the query.
pub(super) fn write(text: &mut AnswerText, value: &QueryValue) -> Result<(), QueryError> {
    match value {
        QueryValue::Scalar(sample) => ResultWriter::scalar(text.room(0)?, sample.timestamp, sample.value),
        QueryValue::String { timestamp, value } => {
            ResultWriter::string(text.room(value.len())?, *timestamp, value);
        }
        QueryValue::Vector(samples) => {
            let mut writer = ResultWriter::vector(text.room(0)?);
            for sample in samples {
                let labels = labels_room(&sample.labels);
                match &sample.value {
                    SampleValue::Float(value) => {
                        let out = text.room(labels + SAMPLE_BYTES)?;
                        writer.sample(out, &sample.labels, sample.timestamp, *value);
                    }
                    SampleValue::Histogram(histogram) => {
                        let buckets = buckets(histogram);
                        let out = text.room(labels + histogram_room(histogram))?;
                        let point = point(histogram, &buckets);
                        writer.histogram_sample(out, &sample.labels, sample.timestamp, point);
                    }
                }
            }
            writer.end(text.room(0)?);
        }
        QueryValue::Matrix(matrix) => {
            let mut writer = ResultWriter::matrix(text.room(0)?);
            for series in matrix {
                writer.begin_series(text.room(labels_room(&series.labels))?, &series.labels);
                for samples in series.floats.chunks(SAMPLES_AT_ONCE) {
                    let out = text.room(samples.len() * SAMPLE_BYTES)?;
                    samples.iter().for_each(|sample| writer.float(out, sample.timestamp, sample.value));
                }
                for (at, histogram) in &series.histograms {
                    let out = text.room(histogram_room(histogram))?;
                    writer.histogram(out, *at, point(histogram, &buckets(histogram)));
                }
                writer.end_series(text.room(0)?);
            }
            writer.end(text.room(0)?);
        }
    }
    Ok(())
}

/// Bytes of a label set in text, unless many characters are escaped.
pub(super) fn labels_room(labels: &Labels) -> usize {
    labels.iter().map(|label| label.name.len() + label.value.len() + 8).sum()
}

fn histogram_room(histogram: &FloatHistogram) -> usize {
    (histogram.positive_buckets.len() + histogram.negative_buckets.len() + 3) * BUCKET_BYTES
}

fn point<'a>(histogram: &FloatHistogram, buckets: &'a [HistogramBucket]) -> HistogramPoint<'a> {
    HistogramPoint { count: histogram.count, sum: histogram.sum, buckets }
}

fn buckets(histogram: &FloatHistogram) -> Vec<HistogramBucket> {
    let bucket = |bucket: model::BoundedBucket| HistogramBucket {
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

/// Keeps at most `limit` series; returns whether some were removed.
pub(super) fn truncate(value: &mut QueryValue, limit: usize) -> bool {
    match value {
        QueryValue::Vector(samples) if samples.len() > limit => samples.truncate(limit),
        QueryValue::Matrix(series) if series.len() > limit => series.truncate(limit),
        _ => return false,
    }
    true
}

/// Statistics of a query in the format of Prometheus, with the outcome of each store.
///
/// Samples are counted once, when they are decoded, not once per step. The peak includes all memory,
/// expressed in samples of 16 bytes.
pub(super) fn stats(stats: &Stats, timings: &Timings, stores: &[(usize, StoreReport)]) -> Value {
    let store = |(select, report): &(usize, StoreReport)| {
        let (outcome, error) = match &report.outcome {
            StoreOutcome::Pending => ("pending", None),
            StoreOutcome::Answered => ("answered", None),
            StoreOutcome::Failed(reason) => ("failed", Some(reason)),
        };
        json!({
            "name": &*report.name, "select": select, "outcome": outcome, "error": error,
            "seconds": report.took.as_secs_f64(), "responses": report.responses,
            "series": report.series, "chunks": report.chunks, "samples": report.samples, "bytes": report.bytes,
            "resolutions": resolution::list(&report.resolutions),
        })
    };
    let evaluation = timings.planning + timings.evaluation + timings.assembly;
    json!({
        "timings": {
            "evalTotalTime": evaluation.as_secs_f64(),
            "resultSortTime": timings.assembly.as_secs_f64(),
            "queryPreparationTime": timings.planning.as_secs_f64(),
            "innerEvalTime": timings.evaluation.as_secs_f64(),
            "execQueueTime": timings.queue.as_secs_f64(),
            "execTotalTime": (timings.queue + evaluation).as_secs_f64(),
        },
        "samples": {
            "totalQueryableSamples": stats.samples,
            "samplesRead": stats.samples,
            "peakSamples": stats.peak_bytes / SAMPLE_BYTES_IN_MEMORY,
            "peakBytes": stats.peak_bytes,
        },
        "seriesFetched": stats.series,
        "stores": stores.iter().map(store).collect::<Vec<_>>(),
    })
}

/// A plan: its operators in the format of Thanos, its selects, and the whole plan as text.
pub(super) fn explanation(plan: &PlanNode, selects: &[Select]) -> Value {
    fn node(plan: &PlanNode) -> Value {
        let mut value = json!({
            "name": plan.name,
            "steps": plan.steps,
            "children": plan.children.iter().map(node).collect::<Vec<_>>(),
        });
        if let Some(select) = plan.select {
            value["select"] = json!(select.index());
            value["labels"] = json!(plan.labels.as_ref().map_or("all".to_owned(), ToString::to_string));
        }
        value
    }
    let select = |select: &Select| {
        let hints = &select.hints;
        json!({
            "matchers": select.matchers.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "minTime": select.range.min.as_millis(),
            "maxTime": select.range.max.as_millis(),
            "function": hints.func,
            "rangeMs": u64::try_from(hints.range.as_millis()).unwrap_or(u64::MAX),
            "stepMs": u64::try_from(hints.step.as_millis()).unwrap_or(u64::MAX),
            "grouping": hints.grouping,
            "by": hints.by,
            "late": select.late,
        })
    };
    let mut value = node(plan);
    value["selects"] = selects.iter().map(select).collect();
    value["text"] = json!(plan.to_string());
    value
}

/// Measurements of each operator of a plan, in the format of Thanos. Times and samples of an operator include
/// those of its children; `ownTime`, `series`, `samples` and `peakBytes` do not. `fanout` is what the stores
/// sent for a selector. Selectors that share a select share it.
pub(super) fn analysis(plan: &PlanNode, stores: &[(usize, StoreReport)]) -> Value {
    let measured = plan.measured.unwrap_or_default();
    let store = |report: &StoreReport| {
        json!({
            "endpointAddr": &*report.name,
            "duration": format!("{:?}", report.took),
            "bytesProcessed": report.bytes,
            "numResponses": report.responses,
            "series": report.series,
            "chunks": report.chunks,
            "samples": report.samples,
        })
    };
    let mut analysis = json!({
        "name": plan.name,
        "executionTime": format!("{:?}", plan.total_time()),
        "peakSamples": measured.peak_bytes / SAMPLE_BYTES_IN_MEMORY,
        "totalSamples": plan.total_samples(),
        "ownTime": format!("{:?}", measured.time),
        "series": measured.series,
        "samples": measured.samples,
        "peakBytes": measured.peak_bytes,
        "children": plan.children.iter().map(|child| self::analysis(child, stores)).collect::<Vec<_>>(),
    });
    if let Some(select) = plan.select {
        let asked = stores.iter().filter(|(of, _)| *of == select.index());
        analysis["fanout"] = asked.map(|(_, report)| store(report)).collect();
    }
    analysis
}
