//! Appends samples: a batch is checked, logged, and then added to the series.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use model::{FloatHistogram, Labels, Timestamp};

use crate::error::{HeadError, at};
use crate::exemplars::{Exemplar, ExemplarRefused};
use crate::head::{Head, LOG_DIR};
use crate::log::exemplar::{exemplar_record, metadata_record};
use crate::log::record::{LoggedHistogram, LoggedSample, float_record, histogram_records, series_record};
use crate::metadata::Metadata;
use crate::series::{Refused, Series, Value};

/// A series of a head, found once and used for many samples.
///
/// It stays valid when the head removes the series, because it has no samples left: the next sample creates it again.
#[derive(Clone)]
pub struct SeriesHandle(Arc<Series>);

impl SeriesHandle {
    /// The labels of the series.
    pub fn labels(&self) -> &Labels {
        &self.0.labels
    }
}

/// Why a sample was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendRefused {
    /// It is earlier than the last sample of its series.
    #[error("the sample is earlier than the last one of its series")]
    OutOfOrder,
    /// The last sample of its series has the same time and another value.
    #[error("the last sample of its series has the same time and another value")]
    Duplicate,
    /// It is in the time of a block, or more than half the range of a block before the last sample of the head.
    #[error("the sample is too old")]
    TooOld,
    /// It cannot be encoded: the counts of an integer histogram are not whole numbers, or its spans do not fit its buckets.
    #[error("the histogram cannot be encoded")]
    Unencodable,
}

/// What became of the samples of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Samples that were added.
    pub added: usize,
    /// Samples that were accepted and then refused, because another batch or a block came first.
    pub refused: usize,
}

/// A batch of samples. Without [`Appender::commit`], nothing of it is added.
pub struct Appender<'a> {
    head: &'a Head,
    floats: Vec<Pending<f64>>,
    histograms: Vec<Pending<LoggedHistogram>>,
    exemplars: Vec<(Arc<Series>, Exemplar)>,
    metadata: Vec<(Arc<Series>, Metadata)>,
}

/// A sample that was accepted.
struct Pending<V> {
    series: Arc<Series>,
    time: i64,
    start: i64,
    value: V,
}

impl Head {
    /// Begins a batch.
    pub fn appender(&self) -> Appender<'_> {
        Appender {
            head: self,
            floats: Vec::new(),
            histograms: Vec::new(),
            exemplars: Vec::new(),
            metadata: Vec::new(),
        }
    }

    /// The series with these labels, which is created if it is missing.
    pub fn series(&self, labels: &Labels) -> SeriesHandle {
        if let Some(series) = self.index.read().unwrap_or_else(PoisonError::into_inner).get(labels) {
            return SeriesHandle(Arc::clone(series));
        }
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let (series, is_new) = index.get_or_create(labels);
        if is_new {
            self.unlogged.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&series));
        }
        SeriesHandle(series)
    }

    /// The time before which samples are refused: the end of the last block, and half the range of a block before the last
    /// sample. So no sample arrives in a range while it is written to a block.
    fn first_valid(&self, min_valid: i64) -> i64 {
        min_valid.max(self.last_time().saturating_sub(self.block_range / 2))
    }
}

impl Appender<'_> {
    /// Adds a float to the batch. `start` is when its counter began, the epoch where that is not known.
    ///
    /// A sample with the time and the value of the last one is accepted and ignored, as in Prometheus.
    ///
    /// # Errors
    /// When the series cannot have the sample.
    pub fn append_float(
        &mut self,
        series: &SeriesHandle,
        time: Timestamp,
        start: Timestamp,
        value: f64,
    ) -> Result<(), AppendRefused> {
        if self.is_accepted(series, time, &Value::Float(value))? {
            let (time, start) = (time.as_millis(), start.as_millis());
            self.floats.push(Pending { series: Arc::clone(&series.0), time, start, value });
        }
        Ok(())
    }

    /// Adds a native histogram to the batch. With `integer`, its counts must be whole numbers.
    ///
    /// # Errors
    /// As [`Appender::append_float`].
    pub fn append_histogram(
        &mut self,
        series: &SeriesHandle,
        time: Timestamp,
        start: Timestamp,
        integer: bool,
        histogram: Arc<FloatHistogram>,
    ) -> Result<(), AppendRefused> {
        if integer && !histogram.is_stale() && !has_whole_counts(&histogram) {
            return Err(AppendRefused::Unencodable);
        }
        let value = Value::Histogram { integer, histogram: Arc::clone(&histogram) };
        if self.is_accepted(series, time, &value)? {
            let value = LoggedHistogram { integer, histogram };
            let (time, start) = (time.as_millis(), start.as_millis());
            self.histograms.push(Pending { series: Arc::clone(&series.0), time, start, value });
        }
        Ok(())
    }

    /// Adds an exemplar to the batch. Those of one series are appended in the order of times, values and labels.
    ///
    /// The last exemplar of the series is accepted and ignored if it comes again, as in Prometheus.
    ///
    /// # Errors
    /// When the series cannot have the exemplar.
    pub fn append_exemplar(
        &mut self,
        series: &SeriesHandle,
        exemplar: Exemplar,
    ) -> Result<(), ExemplarRefused> {
        let exemplars = self.head.exemplars.read().unwrap_or_else(PoisonError::into_inner);
        if exemplars.check(&series.0.labels, &exemplar)? {
            self.exemplars.push((Arc::clone(&series.0), exemplar));
        }
        Ok(())
    }

    /// Adds the metadata of a series to the batch. Metadata that the series has already are ignored, so that a program may call it in
    /// each scrape.
    pub fn set_metadata(&mut self, series: &SeriesHandle, metadata: &Metadata) {
        if series.0.lock().metadata.as_deref() != Some(metadata) {
            self.metadata.push((Arc::clone(&series.0), metadata.clone()));
        }
    }

    /// Whether a sample is added; false if the series has it already.
    fn is_accepted(
        &self,
        series: &SeriesHandle,
        time: Timestamp,
        value: &Value,
    ) -> Result<bool, AppendRefused> {
        let min_valid = *self.head.min_valid.read().unwrap_or_else(PoisonError::into_inner);
        if time.as_millis() < self.head.first_valid(min_valid) {
            return Err(AppendRefused::TooOld);
        }
        match series.0.lock().check(time.as_millis(), value) {
            Ok(()) => Ok(true),
            Err(Refused::Known) => Ok(false),
            Err(Refused::OutOfOrder) => Err(AppendRefused::OutOfOrder),
            Err(Refused::Duplicate) => Err(AppendRefused::Duplicate),
            Err(Refused::Unencodable) => Err(AppendRefused::Unencodable),
        }
    }

    /// Logs the batch and adds it to the series.
    ///
    /// # Errors
    /// When the log cannot be written. Nothing is added then.
    pub fn commit(mut self) -> Result<Committed, HeadError> {
        // No block is cut and no series is removed meanwhile.
        let min_valid = self.head.min_valid.read().unwrap_or_else(PoisonError::into_inner);
        let before = self.floats.len() + self.histograms.len();
        self.floats.retain(|sample| sample.time >= *min_valid);
        self.histograms.retain(|sample| sample.time >= *min_valid);
        let mut committed =
            Committed { added: 0, refused: before - self.floats.len() - self.histograms.len() };
        self.renew_series();
        self.log()?;
        for (series, metadata) in self.metadata.drain(..) {
            series.lock().metadata = Some(self.head.metadata.share(metadata));
        }
        let mut max_time = i64::MIN;
        let range = self.head.block_range;
        let mut add = |series: &Series, time, start, value: &Value| {
            match series.lock().append(time, start, value, range) {
                Ok(()) => committed.added += 1,
                Err(_) => committed.refused += 1,
            }
            max_time = max_time.max(time);
        };
        for Pending { series, time, start, value } in &self.floats {
            add(series, *time, *start, &Value::Float(*value));
        }
        for Pending { series, time, start, value: LoggedHistogram { integer, histogram } } in self.histograms
        {
            add(&series, time, start, &Value::Histogram { integer, histogram });
        }
        self.head.max_time.fetch_max(max_time, Ordering::Relaxed);
        if !self.exemplars.is_empty() {
            let mut exemplars = self.head.exemplars.write().unwrap_or_else(PoisonError::into_inner);
            for (series, exemplar) in self.exemplars {
                exemplars.add(&series.labels, exemplar);
            }
        }
        Ok(committed)
    }

    /// Creates the series again that were removed since they were found.
    fn renew_series(&mut self) {
        let head = self.head;
        let renew = |series: &mut Arc<Series>| {
            if series.lock().is_removed {
                *series = head.series(&series.labels).0;
            }
        };
        self.floats.iter_mut().for_each(|sample| renew(&mut sample.series));
        self.histograms.iter_mut().for_each(|sample| renew(&mut sample.series));
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

    /// Logs new series and the batch.
    fn log(&self) -> Result<(), HeadError> {
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
        let mut log = self.head.log.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unlogged = self.head.unlogged.lock().unwrap_or_else(PoisonError::into_inner);
        let created = parts(&unlogged, |series| series.labels.size_bytes());
        let created =
            created.map(|part| series_record(part.iter().map(|series| (series.reference, &series.labels))));
        let records: Vec<Vec<u8>> = created.chain(records).collect();
        log.log(&records).map_err(at(&self.head.dir.join(LOG_DIR)))?;
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

fn logged<V, W>(sample: &Pending<V>, value: W) -> LoggedSample<W> {
    LoggedSample { reference: sample.series.reference, time: sample.time, start: sample.start, value }
}

/// Most bytes of a histogram in a record.
fn histogram_bytes(histogram: &FloatHistogram) -> usize {
    let spans = histogram.positive_spans.len() + histogram.negative_spans.len();
    let buckets = histogram.positive_buckets.len() + histogram.negative_buckets.len();
    100 + spans * 10 + buckets * 10 + histogram.custom_values.len() * 8
}

/// Whether the counts of a histogram are whole numbers that a float holds exactly.
fn has_whole_counts(histogram: &FloatHistogram) -> bool {
    const MOST: f64 = 9_007_199_254_740_992.0;
    let buckets = histogram.positive_buckets.iter().chain(&histogram.negative_buckets);
    let mut counts = buckets.chain([&histogram.count, &histogram.zero_count]);
    counts.all(|count| (0.0..=MOST).contains(count) && count.fract() == 0.0)
}
