//! Series in memory, as a time series database would give them back.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{
    CUSTOM_BUCKETS_SCHEMA, CounterResetHint, FloatHistogram, Labels, Matcher, Sample, TimeRange, Timestamp,
};
use series::{AggrChunk, SelectedSeries};
use tsdb::{Chunk, HistogramEncoder, Xor2Encoder, XorEncoder};

use crate::promqltest::histogram::{buckets, spans};
use crate::promqltest::sequence::SequenceValue;

/// Samples in a chunk, as in Prometheus' blocks.
const SAMPLES_PER_CHUNK: usize = 120;

/// A sample that the storage does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sample of {labels} at {at}: {why}")]
pub struct StorageError {
    labels: Labels,
    at: Timestamp,
    why: String,
}

#[derive(Clone, Debug)]
enum Value {
    Float(f64),
    Histogram(Arc<FloatHistogram>),
}

/// Series with their samples. Samples arrive in order of time.
///
/// It may stand for several stores, each with external labels and a stretch of time of its own, whose series are merged
/// when they are selected; see [`begin_store`](Self::begin_store).
#[derive(Clone, Debug)]
pub struct Storage {
    /// What is appended goes to the last; there is always one.
    stores: Vec<Store>,
}

#[derive(Clone, Debug)]
struct Store {
    external: Labels,
    range: TimeRange,
    series: BTreeMap<Labels, Vec<Stored>>,
}

/// A sample as it is stored.
#[derive(Clone, Debug)]
struct Stored {
    at: i64,
    value: Value,
    /// When its counter began; the epoch where that is not known.
    start: Timestamp,
}

impl Default for Storage {
    fn default() -> Self {
        Self::new()
    }
}

impl Storage {
    /// A storage without series.
    pub fn new() -> Self {
        let mut storage = Self { stores: Vec::new() };
        storage.begin_store(Labels::empty(), TimeRange::ALL);
        storage
    }

    /// Sends what is appended from now on to a new store, which attaches `external` to its series and gives back only
    /// samples within `range`.
    pub fn begin_store(&mut self, external: Labels, range: TimeRange) {
        self.stores.push(Store { external, range, series: BTreeMap::new() });
    }

    /// Appends the values of a sequence, the first at `start`, each `step_ms` after the one before.
    ///
    /// # Errors
    /// When a sample is older than the series' last one, or differs from one at the same time.
    pub fn append_sequence(
        &mut self,
        labels: &Labels,
        start: Timestamp,
        step_ms: i64,
        values: &[SequenceValue],
    ) -> Result<(), StorageError> {
        self.append_sequence_with_starts(labels, start, step_ms, values, &[])
    }

    /// The same, with start timestamps: for each value the milliseconds from its time to when its counter began, usually
    /// negative. None, as where the list ends, stands for a start that is not known.
    ///
    /// # Errors
    /// As [`append_sequence`](Self::append_sequence).
    pub fn append_sequence_with_starts(
        &mut self,
        labels: &Labels,
        start: Timestamp,
        step_ms: i64,
        values: &[SequenceValue],
        starts: &[Option<i64>],
    ) -> Result<(), StorageError> {
        for (i, value) in values.iter().enumerate() {
            let at = start.offset_millis(step_ms.saturating_mul(i as i64));
            let start = starts.get(i).copied().flatten();
            let start = start.map_or(Timestamp::EPOCH, |distance| at.offset_millis(distance));
            match value {
                SequenceValue::Omitted => {}
                SequenceValue::Float(value) => self.append(labels, at, Value::Float(*value), start)?,
                SequenceValue::Histogram { histogram, .. } => {
                    self.append_checked(labels, at, histogram, start)?;
                }
            }
        }
        Ok(())
    }

    /// Appends a float.
    ///
    /// # Errors
    /// As [`append_sequence`](Self::append_sequence).
    pub fn append_float(&mut self, labels: &Labels, sample: Sample) -> Result<(), StorageError> {
        self.append(labels, sample.timestamp, Value::Float(sample.value), Timestamp::EPOCH)
    }

    /// Appends a histogram.
    ///
    /// # Errors
    /// As [`append_sequence`](Self::append_sequence), or when the histogram is unsound.
    pub fn append_histogram(
        &mut self,
        labels: &Labels,
        at: Timestamp,
        histogram: &Arc<FloatHistogram>,
    ) -> Result<(), StorageError> {
        self.append_checked(labels, at, histogram, Timestamp::EPOCH)
    }

    fn append_checked(
        &mut self,
        labels: &Labels,
        at: Timestamp,
        histogram: &Arc<FloatHistogram>,
        start: Timestamp,
    ) -> Result<(), StorageError> {
        if !histogram.is_stale()
            && let Err(why) = histogram.validate()
        {
            return Err(StorageError { labels: labels.clone(), at, why: why.to_string() });
        }
        self.append(labels, at, Value::Histogram(Arc::clone(histogram)), start)
    }

    fn append(
        &mut self,
        labels: &Labels,
        at: Timestamp,
        value: Value,
        start: Timestamp,
    ) -> Result<(), StorageError> {
        let store = self.stores.last_mut().expect("there is always a store");
        let samples = store.series.entry(labels.clone()).or_default();
        let fail = |why: &str| Err(StorageError { labels: labels.clone(), at, why: why.to_owned() });
        match samples.last() {
            Some(last) if last.at > at.as_millis() => return fail("out of order sample"),
            Some(last) if last.at == at.as_millis() => {
                return if same(&last.value, &value) {
                    Ok(())
                } else {
                    fail("duplicate sample for timestamp")
                };
            }
            _ => samples.push(Stored { at: at.as_millis(), value, start }),
        }
        Ok(())
    }

    /// The series that satisfy all `matchers` and have a sample within `range`, in label order.
    pub fn select(&self, matchers: &[Matcher], range: TimeRange) -> Vec<SelectedSeries> {
        let mut selected: BTreeMap<Labels, Vec<Vec<AggrChunk>>> = BTreeMap::new();
        for store in &self.stores {
            let inside = |at: i64, range: &TimeRange| range.contains(Timestamp::from_millis(at));
            for (labels, samples) in &store.series {
                let labels = labels.extended(&store.external);
                if !matchers.iter().all(|m| m.matches_labels(&labels)) {
                    continue;
                }
                let served: Vec<_> =
                    samples.iter().filter(|sample| inside(sample.at, &store.range)).cloned().collect();
                if served.iter().any(|sample| inside(sample.at, &range)) {
                    add_to_lane(selected.entry(labels).or_default(), chunks(&served));
                }
            }
        }
        selected.into_iter().map(|(labels, replicas)| SelectedSeries { labels, replicas }).collect()
    }
}

/// Adds chunks to the first lane that ends before they start.
fn add_to_lane(lanes: &mut Vec<Vec<AggrChunk>>, chunks: Vec<AggrChunk>) {
    let start = chunks.first().map_or(Timestamp::MAX, |chunk| chunk.range().min);
    let ends_before = |lane: &&mut Vec<AggrChunk>| lane.last().is_none_or(|chunk| chunk.range().max < start);
    match lanes.iter_mut().find(ends_before) {
        Some(lane) => lane.extend(chunks),
        None => lanes.push(chunks),
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        (Value::Histogram(a), Value::Histogram(b)) => a.same_observations(b),
        _ => false,
    }
}

/// Encodes samples: a new chunk where the kind changes, where histograms no longer continue each other, and
/// where a chunk is full.
fn chunks(samples: &[Stored]) -> Vec<AggrChunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut rest = samples;
    while let Some(first) = rest.first() {
        let run = match first.value {
            Value::Float(_) => rest.iter().take_while(|s| matches!(s.value, Value::Float(_))).count(),
            Value::Histogram(_) => histogram_run(rest),
        };
        let (now, later) = rest.split_at(run);
        match first.value {
            Value::Float(_) => chunks.extend(now.chunks(SAMPLES_PER_CHUNK).filter_map(float_chunk)),
            Value::Histogram(_) => chunks.extend(histogram_chunks(now)),
        }
        rest = later;
    }
    chunks.into_iter().map(AggrChunk::raw).collect()
}

fn float_chunk(samples: &[Stored]) -> Option<Chunk> {
    const FITS: &str = "samples ascend and fit a chunk";
    let floats = samples.iter().filter_map(|stored| match stored.value {
        Value::Float(value) => Some((Sample::new(stored.at, value), stored.start)),
        Value::Histogram(_) => None,
    });
    if has_starts(samples) {
        let mut encoder = Xor2Encoder::new();
        floats.for_each(|(sample, start)| encoder.append(sample, start).expect(FITS));
        return encoder.finish();
    }
    let mut encoder = XorEncoder::new();
    floats.for_each(|(sample, _)| encoder.append(sample).expect(FITS));
    encoder.finish()
}

/// Whether some start is known, so that the chunk has to hold starts.
fn has_starts(samples: &[Stored]) -> bool {
    samples.iter().any(|sample| sample.start != Timestamp::EPOCH)
}

/// How many histograms at the start of `samples` share a chunk.
fn histogram_run(samples: &[Stored]) -> usize {
    let continues = |pair: &[Stored]| match (&pair[0].value, &pair[1].value) {
        (Value::Histogram(before), Value::Histogram(next)) => continues(before, next),
        _ => false,
    };
    1 + samples.windows(2).take_while(|pair| continues(pair)).count()
}

/// Whether `next` goes on where `before` ended: neither a counter reset nor another resolution.
fn continues(before: &FloatHistogram, next: &FloatHistogram) -> bool {
    let gauge = |h: &FloatHistogram| h.counter_reset_hint == CounterResetHint::Gauge;
    if gauge(before) != gauge(next) || next.counter_reset_hint == CounterResetHint::Reset {
        return false;
    }
    if next.is_stale() || before.is_stale() {
        return next.is_stale();
    }
    let same_layout = before.schema == next.schema
        && before.zero_threshold == next.zero_threshold
        && (next.schema != CUSTOM_BUCKETS_SCHEMA || before.custom_values == next.custom_values);
    if gauge(next) || !same_layout {
        return same_layout;
    }
    let grows = |before: BTreeMap<i32, f64>, next: BTreeMap<i32, f64>| {
        before.iter().all(|(at, count)| next.get(at).copied().unwrap_or(0.0) >= *count)
    };
    next.count >= before.count
        && next.zero_count >= before.zero_count
        && grows(positive(before), positive(next))
        && grows(negative(before), negative(next))
}

fn positive(h: &FloatHistogram) -> BTreeMap<i32, f64> {
    buckets(&h.positive_spans, &h.positive_buckets)
}

fn negative(h: &FloatHistogram) -> BTreeMap<i32, f64> {
    buckets(&h.negative_spans, &h.negative_buckets)
}

/// Encodes histograms that share a chunk, all with the buckets that any of them has.
fn histogram_chunks(samples: &[Stored]) -> Vec<Chunk> {
    let histograms = || {
        samples.iter().filter_map(|stored| match &stored.value {
            Value::Histogram(h) => Some((stored, h)),
            Value::Float(_) => None,
        })
    };
    let empty = |side: fn(&FloatHistogram) -> BTreeMap<i32, f64>| -> BTreeMap<i32, f64> {
        histograms()
            .filter(|(_, h)| !h.is_stale())
            .flat_map(|(_, h)| side(h).into_keys())
            .map(|at| (at, 0.0))
            .collect()
    };
    let (no_positive, no_negative) = (empty(positive), empty(negative));
    let encoder_of = |starts| match starts {
        true => HistogramEncoder::float_with_starts(),
        false => HistogramEncoder::float(),
    };
    let starts = has_starts(samples);
    let mut encoder = encoder_of(starts);
    let mut chunks = Vec::new();
    for (stored, histogram) in histograms() {
        let mut histogram = FloatHistogram::clone(histogram);
        if !histogram.is_stale() {
            let mut side = no_positive.clone();
            side.extend(positive(&histogram));
            (histogram.positive_spans, histogram.positive_buckets) = spans(&side);
            let mut side = no_negative.clone();
            side.extend(negative(&histogram));
            (histogram.negative_spans, histogram.negative_buckets) = spans(&side);
        }
        let at = Timestamp::from_millis(stored.at);
        if encoder.append_with_start(at, &histogram, stored.start).is_err() {
            // Such as a marker at the start of the chunk, which decided its layout.
            chunks.extend(std::mem::replace(&mut encoder, encoder_of(starts)).finish());
            let result = encoder.append_with_start(at, &histogram, stored.start);
            result.expect("a histogram fits a chunk of its own");
        }
    }
    chunks.extend(encoder.finish());
    chunks
}

#[cfg(test)]
mod tests {
    use series::{DecodeOptions, Dedup, Samples};

    use super::*;
    use crate::promqltest::parse_series;

    const OPTIONS: DecodeOptions = DecodeOptions {
        range: TimeRange::ALL,
        dedup: Dedup::Off,
        counter: false,
        aggregate: series::Aggregate::Average,
        starts: true,
    };

    /// The samples that come back for a line of a script.
    fn stored(line: &str) -> Samples {
        let (labels, values) = parse_series(line).unwrap();
        let mut storage = Storage::new();
        storage.append_sequence(&labels, Timestamp::EPOCH, 1000, &values).unwrap();
        let selected = storage.select(&[], TimeRange::ALL);
        let mut samples = Samples::new();
        selected[0].decode(&OPTIONS, &mut samples).unwrap();
        samples
    }

    #[test]
    fn floats_come_back_as_they_were_stored() {
        let samples = stored("m 0+1x300");
        assert_eq!(samples.values.len(), 301);
        assert_eq!(samples.values[300], 300.0);
        assert_eq!(stored("m 1 _ 3").timestamps, [0, 2000]);
    }

    #[test]
    fn start_timestamps_come_back_beside_their_samples() {
        let (labels, values) = parse_series("m 1x1 {{}}x1").unwrap();
        let mut storage = Storage::new();
        let starts = [None, Some(-400), Some(-600)];
        storage.append_sequence_with_starts(&labels, Timestamp::EPOCH, 1000, &values, &starts).unwrap();
        let mut samples = Samples::new();
        storage.select(&[], TimeRange::ALL)[0].decode(&OPTIONS, &mut samples).unwrap();
        assert_eq!((samples.starts, samples.histogram_starts), (vec![0, 600], vec![1400, 0]));
    }

    #[test]
    fn histograms_come_back_with_what_a_database_knows_of_resets() {
        use CounterResetHint::{Gauge, NotReset, Unknown};
        let hints = |line: &str| -> Vec<_> {
            stored(line).histograms.iter().map(|(_, h)| h.counter_reset_hint).collect()
        };
        assert_eq!(
            hints("m {{count:1 buckets:[1]}} {{count:3 buckets:[1 2]}} {{count:1 buckets:[1]}}"),
            [Unknown, NotReset, Unknown]
        );
        assert_eq!(hints("m {{count:1 counter_reset_hint:gauge}}x1"), [Gauge, Gauge]);
        assert_eq!(hints("m {{schema:0 count:1}} {{schema:1 count:1}}"), [Unknown, Unknown]);
    }

    #[test]
    fn samples_must_ascend_in_time_but_may_be_repeated() {
        let mut storage = Storage::new();
        let labels = Labels::empty();
        let mut append = |at, value| storage.append_float(&labels, Sample::new(at, value));
        assert!(append(5, 1.0).is_ok());
        assert!(append(5, 1.0).is_ok());
        assert_eq!(
            append(5, 2.0).unwrap_err().to_string(),
            "sample of {} at 5: duplicate sample for timestamp"
        );
        assert_eq!(append(4, 2.0).unwrap_err().to_string(), "sample of {} at 4: out of order sample");
    }

    #[test]
    fn stores_that_follow_each_other_in_time_make_one_series() {
        let mut storage = Storage::new();
        let (labels, values) = parse_series("m 0+1x9").unwrap();
        for (min, max) in [(0, 4_999), (5_000, 20_000)] {
            let range = TimeRange::new(Timestamp::from_millis(min), Timestamp::from_millis(max));
            storage.begin_store(Labels::from_pairs([("cluster", "a")]).unwrap(), range);
            storage.append_sequence(&labels, Timestamp::EPOCH, 1000, &values).unwrap();
        }
        let selected = storage.select(&[Matcher::equal("cluster", "a")], TimeRange::ALL);
        let [series] = &selected[..] else { panic!("{selected:?}") };
        assert_eq!(series.labels.to_string(), r#"m{cluster="a"}"#);
        assert_eq!(series.replicas.iter().map(Vec::len).collect::<Vec<_>>(), [2]);
    }
}
