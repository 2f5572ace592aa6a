//! Appends samples: checks them, and collects them in a batch.

use std::sync::{Arc, PoisonError};

use model::{FloatHistogram, Labels, Timestamp};

use crate::append_late::LateSample;
use crate::exemplars::{Exemplar, ExemplarRefused};
use crate::head::Head;
use crate::log::record::LoggedHistogram;
use crate::metadata::Metadata;
use crate::series::{Refused, Series};
use crate::value::{TimedValue, Value, encoded};

/// A series of a head, found once and used for many samples.
///
/// It stays valid when the head removes the series, because it has no samples left: the next sample creates it again.
#[derive(Clone)]
pub struct SeriesHandle(pub(crate) Arc<Series>);

impl SeriesHandle {
    /// The labels of the series.
    pub fn labels(&self) -> &Labels {
        &self.0.labels
    }
}

/// Why a sample was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendRefused {
    /// It is earlier than the last sample of its series, and no window is set for such samples.
    #[error("the sample is earlier than the last one of its series")]
    OutOfOrder,
    /// The last sample of its series has the same time and another value.
    #[error("the last sample of its series has the same time and another value")]
    Duplicate,
    /// It is in the time of a block, or more than half the range of a block before the last sample of the head; with a window for
    /// out-of-order samples, before this window.
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
    /// Those of them that are out of order.
    pub late: usize,
    /// Samples that were accepted and then refused, because another batch or a block came first.
    pub refused: usize,
}

/// A batch of samples. Without [`Appender::commit`], nothing of it is added.
pub struct Appender<'a> {
    pub(crate) head: &'a Head,
    pub(crate) floats: Vec<Pending<f64>>,
    pub(crate) histograms: Vec<Pending<LoggedHistogram>>,
    pub(crate) late: Vec<LateSample>,
    pub(crate) exemplars: Vec<(Arc<Series>, Exemplar)>,
    pub(crate) metadata: Vec<(Arc<Series>, Metadata)>,
    discards_late: bool,
}

/// A sample that was accepted.
pub(crate) struct Pending<V> {
    pub(crate) series: Arc<Series>,
    pub(crate) time: i64,
    pub(crate) start: i64,
    pub(crate) value: V,
}

/// Where a sample belongs.
enum Place {
    /// After the last one of its series.
    InOrder,
    /// Among those that are out of order.
    Late,
    /// The series has it already.
    Known,
}

impl Head {
    /// Begins a batch.
    pub fn appender(&self) -> Appender<'_> {
        Appender {
            head: self,
            floats: Vec::new(),
            histograms: Vec::new(),
            late: Vec::new(),
            exemplars: Vec::new(),
            metadata: Vec::new(),
            discards_late: false,
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
        let (time, start) = (time.as_millis(), start.as_millis());
        match self.place(series, time, &Value::Float(value))? {
            Place::InOrder => self.floats.push(Pending { series: Arc::clone(&series.0), time, start, value }),
            Place::Late => self.add_late(series, TimedValue { time, start, value: Value::Float(value) }),
            Place::Known => {}
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
        let (time, start) = (time.as_millis(), start.as_millis());
        match self.place(series, time, &value)? {
            Place::InOrder => {
                let value = LoggedHistogram { integer, histogram };
                self.histograms.push(Pending { series: Arc::clone(&series.0), time, start, value });
            }
            Place::Late => {
                let sample = TimedValue { time, start, value };
                encoded([&sample]).map_err(|_| AppendRefused::Unencodable)?;
                self.add_late(series, sample);
            }
            Place::Known => {}
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

    /// Whether samples that are earlier than the last one of their series are refused, even if the head accepts late ones. Staleness
    /// markers are appended like this: they must not come between samples.
    pub fn set_discards_late(&mut self, discards: bool) {
        self.discards_late = discards;
    }

    fn add_late(&mut self, series: &SeriesHandle, sample: TimedValue) {
        self.late.push(LateSample { series: Arc::clone(&series.0), sample });
    }

    /// What becomes of a sample.
    fn place(&self, series: &SeriesHandle, time: i64, value: &Value) -> Result<Place, AppendRefused> {
        let min_valid = *self.head.min_valid.read().unwrap_or_else(PoisonError::into_inner);
        let refused = if time < self.head.first_valid(min_valid) {
            AppendRefused::TooOld
        } else {
            match series.0.lock().check(time, value) {
                Ok(()) => return Ok(Place::InOrder),
                Err(Refused::Known) => return Ok(Place::Known),
                Err(Refused::Duplicate) => return Err(AppendRefused::Duplicate),
                Err(Refused::Unencodable) => return Err(AppendRefused::Unencodable),
                Err(Refused::OutOfOrder) => AppendRefused::OutOfOrder,
            }
        };
        match self.head.accepts_late(time) {
            true if self.discards_late => Err(refused),
            true => Ok(Place::Late),
            false if self.head.has_late_window() => Err(AppendRefused::TooOld),
            false => Err(refused),
        }
    }
}

/// Whether the counts of a histogram are whole numbers that a float holds exactly.
fn has_whole_counts(histogram: &FloatHistogram) -> bool {
    const MOST: f64 = 9_007_199_254_740_992.0;
    let buckets = histogram.positive_buckets.iter().chain(&histogram.negative_buckets);
    let mut counts = buckets.chain([&histogram.count, &histogram.zero_count]);
    counts.all(|count| (0.0..=MOST).contains(count) && count.fract() == 0.0)
}
