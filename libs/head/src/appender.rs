//! Appends samples: a batch is checked, logged, and then added to the series.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use model::{FloatHistogram, Labels, Timestamp};

use crate::error::{HeadError, at};
use crate::head::{Head, LOG_DIR};
use crate::log::record::{LoggedHistogram, LoggedSample, float_record, histogram_records, series_record};
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
        Appender { head: self, floats: Vec::new(), histograms: Vec::new() }
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
    }

    /// Logs new series and the batch.
    fn log(&self) -> Result<(), HeadError> {
        let mut records = Vec::new();
        let mut floats = self.floats.iter().map(|sample| logged(sample, sample.value)).peekable();
        while floats.peek().is_some() {
            records.push(float_record(&floats.by_ref().take(MOST_SAMPLES).collect::<Vec<_>>()));
        }
        let mut histograms =
            self.histograms.iter().map(|sample| logged(sample, sample.value.clone())).peekable();
        while histograms.peek().is_some() {
            let part: Vec<_> = histograms.by_ref().take(MOST_HISTOGRAMS).collect();
            records.extend(histogram_records(&part));
        }
        let mut log = self.head.log.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unlogged = self.head.unlogged.lock().unwrap_or_else(PoisonError::into_inner);
        let created = unlogged.chunks(MOST_SERIES);
        let created =
            created.map(|part| series_record(part.iter().map(|series| (series.reference, &series.labels))));
        let records: Vec<Vec<u8>> = created.chain(records).collect();
        log.log(&records).map_err(at(&self.head.dir.join(LOG_DIR)))?;
        unlogged.clear();
        Ok(())
    }
}

/// A record must fit into a segment of 128 MiB: a float takes at most 28 bytes, labels usually less than a kilobyte.
const MOST_SAMPLES: usize = 1 << 20;
const MOST_HISTOGRAMS: usize = 1 << 10;
const MOST_SERIES: usize = 1 << 12;

fn logged<V, W>(sample: &Pending<V>, value: W) -> LoggedSample<W> {
    LoggedSample { reference: sample.series.reference, time: sample.time, start: sample.start, value }
}

/// Whether the counts of a histogram are whole numbers that a float holds exactly.
fn has_whole_counts(histogram: &FloatHistogram) -> bool {
    const MOST: f64 = 9_007_199_254_740_992.0;
    let buckets = histogram.positive_buckets.iter().chain(&histogram.negative_buckets);
    let mut counts = buckets.chain([&histogram.count, &histogram.zero_count]);
    counts.all(|count| (0.0..=MOST).contains(count) && count.fract() == 0.0)
}
