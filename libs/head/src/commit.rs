//! Commits a batch: it is logged, and then added to the series.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use model::FloatHistogram;

use crate::append_late::{LateSample, late_sample_records};
use crate::appender::{Appender, Committed, Pending};
use crate::error::{HeadError, at};
use crate::exemplars::Exemplar;
use crate::head::{Head, LOG_DIR};
use crate::log::exemplar::{exemplar_record, metadata_record};
use crate::log::record::{
    LoggedHistogram, LoggedSample, float_record, histogram_records, late_record, series_record,
};
use crate::metadata::Metadata;
use crate::series::{Refused, Series};
use crate::value::{TimedValue, Value};

/// What becomes of the samples.
struct Adding<'a> {
    head: &'a Head,
    late: Vec<LateSample>,
    committed: Committed,
    /// Of the samples that were added in order: chunks that began, the first time, the last time.
    begun: usize,
    first: i64,
    last: i64,
}

impl Adding<'_> {
    /// Takes a sample that another batch or a block came before.
    fn take(&mut self, series: Arc<Series>, sample: TimedValue) {
        match self.head.accepts_late(sample.time) {
            true => self.late.push(LateSample { series, sample }),
            false => self.committed.refused += 1,
        }
    }

    /// Adds a sample in order, or takes it.
    fn add(&mut self, series: Arc<Series>, sample: TimedValue) {
        let TimedValue { time, start, value } = &sample;
        let result = series.lock().append(*time, *start, value, self.head.block_range);
        match result {
            Ok(begins) => {
                self.committed.added += 1;
                self.begun += usize::from(begins);
                self.first = self.first.min(sample.time);
                self.last = self.last.max(sample.time);
            }
            Err(Refused::OutOfOrder) => self.take(series, sample),
            Err(_) => self.committed.refused += 1,
        }
    }
}

impl Appender<'_> {
    /// Logs the batch and adds it to the series.
    ///
    /// # Errors
    /// When the log cannot be written, and the samples that are only in memory have reached their limit
    /// ([`HeadOptions::most_unlogged_bytes`](crate::HeadOptions::most_unlogged_bytes)). Nothing is added then, except if it is the log of out-of-order samples: then only these are
    /// not added.
    pub fn commit(mut self) -> Result<Committed, HeadError> {
        let head = self.head;
        // No block is cut and no series is removed meanwhile.
        let min_valid = head.min_valid.read().unwrap_or_else(PoisonError::into_inner);
        let late = std::mem::take(&mut self.late);
        let committed = Committed::default();
        let mut adding = Adding { head, late, committed, begun: 0, first: i64::MAX, last: i64::MIN };
        for sample in self.floats.extract_if(.., |sample| sample.time < *min_valid) {
            let (series, sample) = float(sample);
            adding.take(series, sample);
        }
        for sample in self.histograms.extract_if(.., |sample| sample.time < *min_valid) {
            let (series, sample) = histogram(sample);
            adding.take(series, sample);
        }
        self.renew_series(&mut adding.late);
        self.log(&adding.late)?;
        for (series, metadata) in self.metadata {
            series.lock().metadata = Some(head.metadata.share(metadata));
        }
        for (series, sample) in
            self.floats.into_iter().map(float).chain(self.histograms.into_iter().map(histogram))
        {
            adding.add(series, sample);
        }
        let Adding { late, mut committed, begun, first, last, .. } = adding;
        head.counts.add_chunks(begun);
        head.max_time.fetch_max(last, Ordering::Relaxed);
        head.counts.add_time(first);
        if !late.is_empty() {
            committed.late = head.append_late(late)?;
            committed.added += committed.late;
        }
        if !self.exemplars.is_empty() {
            let mut exemplars = head.exemplars.write().unwrap_or_else(PoisonError::into_inner);
            for (series, exemplar) in self.exemplars {
                exemplars.add(&series.labels, exemplar);
            }
        }
        head.appended.fetch_add(committed.added as u64, Ordering::Relaxed);
        Ok(committed)
    }

    /// Creates the series again that were removed since they were found.
    fn renew_series(&mut self, late: &mut [LateSample]) {
        let head = self.head;
        let renew = |series: &mut Arc<Series>| {
            if series.lock().is_removed {
                *series = head.series(&series.labels).0;
            }
        };
        self.floats.iter_mut().for_each(|sample| renew(&mut sample.series));
        self.histograms.iter_mut().for_each(|sample| renew(&mut sample.series));
        late.iter_mut().for_each(|sample| renew(&mut sample.series));
        // Exemplars and metadata alone create no series: those without samples are dropped.
        let index = head.index.read().unwrap_or_else(PoisonError::into_inner);
        let find = |series: &mut Arc<Series>| {
            if !series.lock().is_removed {
                return true;
            }
            let found = index.get(&series.labels);
            found.is_some_and(|found| {
                *series = Arc::clone(found);
                true
            })
        };
        self.exemplars.retain_mut(|(series, _)| find(series));
        self.metadata.retain_mut(|(series, _)| find(series));
    }

    /// Logs new series and the batch. Late samples are logged here for those that follow the log.
    fn log(&self, late: &[LateSample]) -> Result<(), HeadError> {
        let mut records = Vec::new();
        let size = |(_, metadata): &(_, Metadata)| metadata.unit.len() + metadata.help.len();
        records.extend(
            parts(&self.metadata, size).map(|part| {
                metadata_record(part.iter().map(|(series, metadata)| (series.reference, metadata)))
            }),
        );
        let floats = parts(&self.floats, |_| 0);
        records.extend(floats.map(|part| {
            float_record(&part.iter().map(|sample| logged(sample, sample.value)).collect::<Vec<_>>())
        }));
        let size = |sample: &Pending<LoggedHistogram>| histogram_bytes(&sample.value.histogram);
        records.extend(parts(&self.histograms, size).flat_map(|part| {
            let part = part.iter().map(|sample| logged(sample, sample.value.clone()));
            histogram_records(&part.collect::<Vec<_>>())
        }));
        let size = |(_, exemplar): &(_, Exemplar)| exemplar.labels.size_bytes();
        records.extend(
            parts(&self.exemplars, size).map(|part| {
                exemplar_record(part.iter().map(|(series, exemplar)| (series.reference, exemplar)))
            }),
        );
        records.extend(late_sample_records(late).iter().map(|samples| late_record(samples)));
        let mut log = self.head.log.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unlogged = self.head.unlogged.lock().unwrap_or_else(PoisonError::into_inner);
        let created = parts(&unlogged, |series| series.labels.size_bytes());
        let created =
            created.map(|part| series_record(part.iter().map(|series| (series.reference, &series.labels))));
        let records: Vec<Vec<u8>> = created.chain(records).collect();
        let samples = self.floats.len() + self.histograms.len();
        log.log(records, samples as u64).map_err(at(&self.head.dir.join(LOG_DIR)))?;
        unlogged.clear();
        Ok(())
    }
}

/// About the bytes of a record: it must fit into a segment of 128 MiB.
const RECORD_BYTES: usize = 8 << 20;

/// The parts of a list that become one record each. An entry takes at most 28 bytes and what `size` returns.
fn parts<T>(entries: &[T], size: impl Fn(&T) -> usize) -> impl Iterator<Item = &[T]> {
    let mut rest = entries;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let mut fits = |entry: &T| {
            bytes += 28 + size(entry);
            bytes <= RECORD_BYTES
        };
        let count = rest.iter().take_while(|entry| fits(entry)).count().max(1);
        let (part, left) = rest.split_at_checked(count)?;
        rest = left;
        Some(part)
    })
}

/// A sample of a record.
fn logged<V, W>(sample: &Pending<V>, value: W) -> LoggedSample<W> {
    LoggedSample { reference: sample.series.reference, time: sample.time, start: sample.start, value }
}

/// Most bytes of a histogram in a record.
fn histogram_bytes(histogram: &FloatHistogram) -> usize {
    let spans = histogram.positive_spans.len() + histogram.negative_spans.len();
    let buckets = histogram.positive_buckets.len() + histogram.negative_buckets.len();
    100 + spans * 10 + buckets * 10 + histogram.custom_values.len() * 8
}

/// Series and sample of a float.
fn float(sample: Pending<f64>) -> (Arc<Series>, TimedValue) {
    let Pending { series, time, start, value } = sample;
    (series, TimedValue { time, start, value: Value::Float(value) })
}

/// Series and sample of a histogram.
fn histogram(sample: Pending<LoggedHistogram>) -> (Arc<Series>, TimedValue) {
    let Pending { series, time, start, value: LoggedHistogram { integer, histogram } } = sample;
    (series, TimedValue { time, start, value: Value::Histogram { integer, histogram } })
}
