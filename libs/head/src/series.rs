//! A series of the head: its chunks, and how samples are appended.
//!
//! Chunks end where those of Prometheus' head end (`tsdb/head_append.go`): at the boundaries of blocks, and where the samples
//! up to the next boundary divide evenly into chunks of about 120 floats, or 1,024 bytes of histograms.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Labels, Sample, TimeRange, Timestamp};
use tsdb::{AppendError, Chunk, Encoding, OpenChunk, SAMPLES_PER_CHUNK};

use crate::chunk_format::StoredChunk;
use crate::late::LateSamples;
use crate::metadata::Metadata;
use crate::value::{TimedValue, Value};

/// A chunk of floats ends before it has more bytes. The next sample may take 19.
const MOST_FLOAT_BYTES: usize = 1_024 - 19;

/// About the bytes of a chunk of histograms.
const HISTOGRAM_BYTES: usize = 1_024;

/// The fewest histograms of a chunk that does not end at the boundary of a block.
const LEAST_HISTOGRAMS: usize = 10;

/// A series in memory.
pub(crate) struct Series {
    /// Its number in the log.
    pub(crate) reference: u64,
    /// Its number in the index, which is not reused.
    pub(crate) slot: u32,
    pub(crate) labels: Labels,
    state: Mutex<SeriesState>,
}

/// Why a sample was not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is earlier than the last one of its series.
    OutOfOrder,
    /// The last one of its series has the same time and another value.
    Duplicate,
    /// It has the time and the value of the last one.
    Known,
    /// It cannot be encoded.
    Unencodable,
}

/// What a series has.
#[derive(Default)]
pub(crate) struct SeriesState {
    /// Chunks in files, in order of time.
    pub(crate) stored: Vec<StoredChunk>,
    /// Complete chunks in memory, in order of time, after those in files.
    pub(crate) full: Vec<Chunk>,
    /// The chunk that samples are appended to.
    open: Option<Open>,
    /// The last sample: its time, and its bits if it was a float.
    last: Option<(i64, Option<u64>)>,
    /// Samples that are out of order. None without such samples.
    pub(crate) late: Option<Box<LateSamples>>,
    /// What its target says about its metric.
    pub(crate) metadata: Option<Arc<Metadata>>,
    /// Whether the series was removed from the head. What is appended to it would be lost.
    pub(crate) is_removed: bool,
}

struct Open {
    chunk: OpenChunk,
    min: i64,
    /// The chunk ends before this time.
    next_at: i64,
    /// Whether `next_at` divides the time up to the boundary evenly.
    is_divided: bool,
}

impl Series {
    pub(crate) fn new(reference: u64, slot: u32, labels: Labels) -> Self {
        Self { reference, slot, labels, state: Mutex::default() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, SeriesState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SeriesState {
    /// The time of the last sample that is in order.
    pub(crate) fn last_time(&self) -> Option<i64> {
        self.last.map(|(time, _)| time)
    }

    /// Whether a sample may be appended.
    pub(crate) fn check(&self, time: i64, value: &Value) -> Result<(), Refused> {
        match (self.last, value) {
            (Some((last, _)), _) if time < last => Err(Refused::OutOfOrder),
            (Some((last, bits)), Value::Float(value)) if time == last => {
                Err(if bits == Some(value.to_bits()) { Refused::Known } else { Refused::Duplicate })
            }
            (Some((last, _)), Value::Histogram { .. }) if time == last => Err(Refused::Duplicate),
            _ => Ok(()),
        }
    }

    /// Appends a sample, and returns whether a chunk begins with it. Blocks have this range, in milliseconds. A start of 0 is unknown.
    pub(crate) fn append(
        &mut self,
        time: i64,
        start: i64,
        value: &Value,
        block_range: i64,
    ) -> Result<bool, Refused> {
        self.check(time, value)?;
        let sample = NewSample {
            at: Timestamp::from_millis(time),
            start: Timestamp::from_millis(start),
            value,
            block_range,
        };
        let encoding = sample.encoding();
        let is_full = self.open.as_mut().is_none_or(|open| open.is_full_before(time, encoding, block_range));
        let begins = is_full || !self.append_here(&sample).map_err(|_| Refused::Unencodable)?;
        if begins {
            self.begin_chunk(&sample).map_err(|_| Refused::Unencodable)?;
        }
        let bits = if let Value::Float(value) = value { Some(value.to_bits()) } else { None };
        self.last = Some((time, bits));
        Ok(begins)
    }

    /// Appends a sample to the open chunk, and returns whether it fits.
    fn append_here(&mut self, sample: &NewSample<'_>) -> Result<bool, AppendError> {
        let Some(open) = &mut self.open else { return Ok(false) };
        let NewSample { at, start, value, .. } = sample;
        match value {
            Value::Float(value) => {
                let sample_value = Sample { timestamp: *at, value: *value };
                open.chunk.append_float(sample.encoding(), sample_value, *start)
            }
            Value::Histogram { histogram, .. } => {
                open.chunk.append_histogram(sample.encoding(), *at, histogram, *start)
            }
        }
    }

    /// Completes the open chunk and begins the next one with a sample.
    fn begin_chunk(&mut self, sample: &NewSample<'_>) -> Result<(), AppendError> {
        let NewSample { at, start, value, block_range } = *sample;
        let encoding = sample.encoding();
        let chunk = match (value, &self.open) {
            (Value::Float(value), _) => {
                OpenChunk::of_float(encoding, Sample { timestamp: at, value: *value }, start)?
            }
            (Value::Histogram { histogram, .. }, Some(open)) => {
                open.chunk.next_of_histogram(encoding, at, histogram, start)?
            }
            (Value::Histogram { histogram, .. }, None) => {
                OpenChunk::of_histogram(encoding, at, histogram, start)?
            }
        };
        let min = at.as_millis();
        let next = Open { chunk, min, next_at: boundary_after(min, block_range), is_divided: false };
        let before = self.open.replace(next);
        self.full.extend(before.and_then(|open| open.chunk.finish()));
        Ok(())
    }

    /// Continues after chunks in files, up to this time.
    pub(crate) fn continue_after(&mut self, time: i64) {
        self.last = self.last.max(Some((time, None)));
    }

    /// The chunks in memory with samples in a range: complete ones, and the open one with the samples so far.
    pub(crate) fn chunks_in_memory(&self, range: TimeRange) -> Vec<Chunk> {
        let is_inside = |chunk: &&Chunk| chunk.range.overlaps(&range);
        let mut chunks: Vec<Chunk> = self.full.iter().filter(is_inside).cloned().collect();
        if let Some(open) = &self.open
            && Timestamp::from_millis(open.min) <= range.max
        {
            chunks.extend(open.chunk.snapshot().filter(|chunk| chunk.range.overlaps(&range)));
        }
        chunks
    }

    /// Whether it has chunks in memory with samples in a range.
    pub(crate) fn has_memory_in(&self, range: TimeRange) -> bool {
        let is_open_inside = |open: &Open| {
            TimeRange::new(Timestamp::from_millis(open.min), open.chunk.max_time()).overlaps(&range)
        };
        self.full.iter().any(|chunk| chunk.range.overlaps(&range))
            || self.open.as_ref().is_some_and(is_open_inside)
    }

    /// Removes chunks of samples in order without samples at `min_time` or later. Returns whether nothing is left.
    pub(crate) fn truncate(&mut self, min_time: i64) -> bool {
        let is_recent = |range: &TimeRange| range.max.as_millis() >= min_time;
        self.stored.retain(|chunk| is_recent(&chunk.range));
        self.full.retain(|chunk| is_recent(&chunk.range));
        if self.last_time().is_none_or(|last| last < min_time) {
            self.open = None;
        }
        self.stored.shrink_to_fit();
        self.full.shrink_to_fit();
        self.open.is_none() && self.stored.is_empty() && self.full.is_empty() && self.late.is_none()
    }

    /// Adds a sample that is out of order. Returns whether it has a new time.
    pub(crate) fn add_late(&mut self, sample: TimedValue) -> bool {
        self.late.get_or_insert_default().insert(sample)
    }

    /// The time of the first sample that is in order.
    pub(crate) fn first_time(&self) -> Option<i64> {
        let stored = self.stored.first().map(|chunk| chunk.range.min.as_millis());
        let full = || self.full.first().map(|chunk| chunk.range.min.as_millis());
        stored.or_else(full).or_else(|| self.open.as_ref().map(|open| open.min))
    }

    /// The times of the first and the last sample that are in order.
    pub(crate) fn times(&self) -> Option<TimeRange> {
        let (first, last) = self.first_time().zip(self.last_time())?;
        Some(TimeRange::new(Timestamp::from_millis(first), Timestamp::from_millis(last)))
    }

    /// Number of chunks. Late samples that wait for a chunk are in none.
    pub(crate) fn chunk_count(&self) -> usize {
        let late = self.late.as_deref().map_or(0, |late| late.stored.len());
        self.stored.len() + self.full.len() + usize::from(self.open.is_some()) + late
    }
}

/// A sample that is appended.
#[derive(Clone, Copy)]
struct NewSample<'a> {
    at: Timestamp,
    start: Timestamp,
    value: &'a Value,
    block_range: i64,
}

impl NewSample<'_> {
    fn encoding(&self) -> Encoding {
        self.value.encoding(self.start != Timestamp::EPOCH)
    }
}

impl Open {
    /// Whether the chunk ends before a sample at `time` with this encoding. Updates where it ends.
    fn is_full_before(&mut self, time: i64, encoding: Encoding, block_range: i64) -> bool {
        if self.chunk.encoding() != encoding {
            return true;
        }
        let (samples, bytes) = (self.chunk.len(), self.chunk.size_bytes());
        if encoding.holds_floats() {
            if bytes > MOST_FLOAT_BYTES {
                return true;
            }
            if samples == SAMPLES_PER_CHUNK / 4 {
                self.divide(4.0);
            }
            return time >= self.next_at || samples >= 2 * SAMPLES_PER_CHUNK;
        }
        let boundary = boundary_after(self.min, block_range);
        if !self.is_divided && bytes >= HISTOGRAM_BYTES / 4 {
            self.divide(HISTOGRAM_BYTES as f64 / bytes as f64);
        }
        (time >= self.next_at || bytes >= 2 * HISTOGRAM_BYTES)
            && (samples >= LEAST_HISTOGRAMS || time >= boundary)
    }

    /// Divides the time up to the boundary into chunks of about the same length, when the chunk has one part of `parts` of its
    /// samples.
    fn divide(&mut self, parts: f64) {
        let last = self.chunk_max();
        let whole = (self.next_at - self.min) as f64;
        let chunks = whole / ((last - self.min + 1) as f64 * parts);
        if chunks > 1.0 {
            self.next_at = (self.min as f64 + whole / chunks.floor()) as i64;
        }
        self.is_divided = true;
    }

    /// The time of the last sample of the chunk.
    fn chunk_max(&self) -> i64 {
        self.chunk.max_time().as_millis()
    }
}

/// The first boundary of blocks after a time.
pub(crate) fn boundary_after(time: i64, block_range: i64) -> i64 {
    time.div_euclid(block_range).saturating_add(1).saturating_mul(block_range)
}
