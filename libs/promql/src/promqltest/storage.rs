//! Series in memory, in the form in which a time series database returns them.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{FloatHistogram, Labels, Matcher, Sample, TimeRange, Timestamp};
use series::{AggrChunk, ChunkSampleValue, SelectedSeries};
use tsdb::{ChunkBuilder, Encoding};

use crate::promqltest::sequence::SequenceValue;

/// The storage rejected a sample.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sample of {labels} at {at}: {why}")]
pub struct StorageError {
    labels: Labels,
    at: Timestamp,
    why: String,
}

/// Series with their samples. Samples must be appended in order of time.
///
/// The storage can consist of several stores, each with its own external labels and time range. Their series
/// are merged when they are selected; see [`begin_store`](Self::begin_store).
#[derive(Clone, Debug)]
pub struct Storage {
    /// Never empty. Samples are appended to the last store.
    stores: Vec<ScriptStore>,
}

#[derive(Clone, Debug)]
struct ScriptStore {
    external: Labels,
    range: TimeRange,
    series: BTreeMap<Labels, Vec<ScriptSample>>,
}

/// A sample in the storage.
#[derive(Clone, Debug)]
struct ScriptSample {
    at: i64,
    value: ChunkSampleValue,
    /// The start of its counter; the epoch if it is unknown.
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

    /// Starts a new store, which receives all following samples. It adds `external` to the labels of its
    /// series and returns only samples within `range`.
    pub fn begin_store(&mut self, external: Labels, range: TimeRange) {
        self.stores.push(ScriptStore { external, range, series: BTreeMap::new() });
    }

    /// Appends the values of a sequence. The first is at `start`, and each following one `step_ms` later.
    ///
    /// # Errors
    /// If a sample is older than the last sample of its series, or differs from a sample at the same time.
    pub fn append_sequence(
        &mut self,
        labels: &Labels,
        start: Timestamp,
        step_ms: i64,
        values: &[SequenceValue],
    ) -> Result<(), StorageError> {
        self.append_sequence_with_starts(labels, start, step_ms, values, &[])
    }

    /// Like [`append_sequence`](Self::append_sequence), with start timestamps. For each value, `starts`
    /// contains the offset of the counter's start from the sample in milliseconds, which is usually negative.
    /// `None`, or a list that is too short, means that the start is unknown.
    ///
    /// # Errors
    /// The same as [`append_sequence`](Self::append_sequence).
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
                SequenceValue::Float(value) => {
                    self.append(labels, at, ChunkSampleValue::Float(*value), start)?
                }
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
    /// The same as [`append_sequence`](Self::append_sequence).
    pub fn append_float(&mut self, labels: &Labels, sample: Sample) -> Result<(), StorageError> {
        self.append(labels, sample.timestamp, ChunkSampleValue::Float(sample.value), Timestamp::EPOCH)
    }

    /// Appends a histogram.
    ///
    /// # Errors
    /// The same as [`append_sequence`](Self::append_sequence), or if the histogram is malformed.
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
        self.append(labels, at, ChunkSampleValue::Histogram(Arc::clone(histogram)), start)
    }

    fn append(
        &mut self,
        labels: &Labels,
        at: Timestamp,
        value: ChunkSampleValue,
        start: Timestamp,
    ) -> Result<(), StorageError> {
        let store = self.stores.last_mut().expect("there is always a store");
        let samples = store.series.entry(labels.clone()).or_default();
        let fail = |why: &str| Err(StorageError { labels: labels.clone(), at, why: why.to_owned() });
        match samples.last() {
            Some(last) if last.at > at.as_millis() => return fail("out of order sample"),
            Some(last) if last.at == at.as_millis() => {
                return if last.value == value { Ok(()) } else { fail("duplicate sample for timestamp") };
            }
            _ => samples.push(ScriptSample { at: at.as_millis(), value, start }),
        }
        Ok(())
    }

    /// The series that satisfy all `matchers` and have a sample within `range`, sorted by labels.
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

/// Adds chunks to the first lane that ends before these chunks start.
fn add_to_lane(lanes: &mut Vec<Vec<AggrChunk>>, chunks: Vec<AggrChunk>) {
    let start = chunks.first().map_or(Timestamp::MAX, |chunk| chunk.range().min);
    let ends_before = |lane: &&mut Vec<AggrChunk>| lane.last().is_none_or(|chunk| chunk.range().max < start);
    match lanes.iter_mut().find(ends_before) {
        Some(lane) => lane.extend(chunks),
        None => lanes.push(chunks),
    }
}

/// Encodes samples as Prometheus does. If a start is known, all chunks have start timestamps.
fn chunks(samples: &[ScriptSample]) -> Vec<AggrChunk> {
    let (floats, histograms) = match samples.iter().any(|sample| sample.start != Timestamp::EPOCH) {
        true => (Encoding::Xor2, Encoding::FloatHistogramSt),
        false => (Encoding::Xor, Encoding::FloatHistogram),
    };
    let mut builder = ChunkBuilder::new();
    for ScriptSample { at, value, start } in samples {
        let appended = match value {
            ChunkSampleValue::Float(value) => builder.append_float(floats, Sample::new(*at, *value), *start),
            ChunkSampleValue::Histogram(histogram) => {
                builder.append_histogram(histograms, Timestamp::from_millis(*at), histogram, *start)
            }
        };
        appended.expect("samples ascend and fit their encoding");
    }
    let chunks = builder.finish().expect("histograms were checked when they were appended");
    chunks.into_iter().map(AggrChunk::raw).collect()
}

#[cfg(test)]
mod tests {
    use model::CounterResetHint;
    use series::{DecodeOptions, Dedup, Samples};

    use super::*;
    use crate::promqltest::parse_series;

    const OPTIONS: DecodeOptions = DecodeOptions {
        range: TimeRange::ALL,
        dedup: Dedup::Off,
        counter: false,
        aggregate: series::Aggregate::Raw,
        starts: true,
        window: 0,
    };

    /// The samples that the storage returns for a line of a script.
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
    fn stored_floats_are_returned_unchanged() {
        let samples = stored("m 0+1x300");
        assert_eq!(samples.values.len(), 301);
        assert_eq!(samples.values[300], 300.0);
        assert_eq!(stored("m 1 _ 3").timestamps, [0, 2000]);
    }

    #[test]
    fn start_timestamps_are_returned_with_their_samples() {
        let (labels, values) = parse_series("m 1x1 {{}}x1").unwrap();
        let mut storage = Storage::new();
        let starts = [None, Some(-400), Some(-600)];
        storage.append_sequence_with_starts(&labels, Timestamp::EPOCH, 1000, &values, &starts).unwrap();
        let mut samples = Samples::new();
        storage.select(&[], TimeRange::ALL)[0].decode(&OPTIONS, &mut samples).unwrap();
        assert_eq!((samples.starts, samples.histogram_starts), (vec![0, 600], vec![1400, 0]));
    }

    #[test]
    fn histograms_are_returned_with_the_reset_hints_of_a_database() {
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
    fn stores_with_consecutive_times_are_merged_into_one_series() {
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
