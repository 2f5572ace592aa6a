//! Appends samples that are out of order.
//!
//! They are logged in a log of their own, and wait in memory until there are enough for a chunk. The chunk is written to a chunk
//! file, and a mark in the log says so. As in Prometheus (`tsdb/ooo_head.go`), except that its other log has them, too.

use std::io;
use std::sync::{Arc, PoisonError};

use crate::chunk_format::StoredChunk;
use crate::error::{HeadError, at};
use crate::head::{Head, LATE_LOG_DIR};
use crate::log::marker::{LoggedMarker, marker_record};
use crate::log::record::{LoggedHistogram, LoggedSample, float_record, histogram_records};
use crate::series::Series;
use crate::value::{TimedValue, Value};

/// Most samples of a record.
const MOST_SAMPLES: usize = 1 << 10;

/// A sample that is out of order.
pub(crate) struct LateSample {
    pub(crate) series: Arc<Series>,
    pub(crate) sample: TimedValue,
}

impl Head {
    /// Logs samples and adds them to their series, which are logged. Returns how many were added: those with the time of another one are
    /// ignored.
    ///
    /// # Errors
    /// When the log cannot be written. Nothing is added then.
    pub(crate) fn append_late(&self, mut samples: Vec<LateSample>) -> Result<usize, HeadError> {
        let dir = self.dir.join(LATE_LOG_DIR);
        let in_log = at(&dir);
        let mut log = self.late_log.lock().unwrap_or_else(PoisonError::into_inner);
        samples.retain(|LateSample { series, sample }| {
            let state = series.lock();
            !state.late.as_deref().is_some_and(|late| late.has_open(sample.time))
        });
        if samples.is_empty() {
            return Ok(0);
        }
        let log = match &mut *log {
            Some(log) => log,
            None => log.insert(self.create_late_log().map_err(&in_log)?),
        };
        log.log(late_sample_records(&samples), samples.len() as u64).map_err(&in_log)?;
        let (mut added, mut full) = (0, Vec::new());
        for LateSample { series, sample } in samples {
            let mut state = series.lock();
            let time = sample.time;
            if state.add_late(sample) {
                added += 1;
                self.counts.add_late_time(time);
            }
            if state.late.as_deref().is_some_and(|late| late.is_full()) {
                drop(state);
                full.push(series);
            }
        }
        // What cannot be written to a chunk file waits for the next batch. It is in the log.
        let markers: Vec<LoggedMarker> =
            full.iter().filter_map(|series| self.store_late(series).ok().flatten()).collect();
        if !markers.is_empty() {
            // Without the marks, a restart has these samples twice in memory, and readers see them once.
            let _ = log.log(vec![marker_record(&markers)], 0);
        }
        Ok(added)
    }

    /// Writes the samples of a series that are in no chunk to a chunk file. Returns the mark for the log; none without such samples.
    /// The caller has locked the log.
    ///
    /// # Errors
    /// When a file cannot be written. The samples are then kept in memory.
    pub(crate) fn store_late(&self, series: &Series) -> io::Result<Option<LoggedMarker>> {
        let mut state = series.lock();
        let Some(late) = state.late.as_deref_mut() else { return Ok(None) };
        let chunks = late.open_chunks().map_err(io::Error::other)?;
        let pairs: Vec<_> = chunks.iter().map(|chunk| (series.reference, chunk)).collect();
        let places = self.files.append_late(&pairs)?;
        let stored = chunks.iter().zip(&places);
        late.stored.extend(stored.map(|(chunk, place)| StoredChunk { range: chunk.range, place: *place }));
        late.clear_open();
        self.counts.add_chunks(places.len());
        let last = places.last();
        Ok(last.map(|place| LoggedMarker { reference: series.reference, place: place.number() }))
    }
}

/// The records of these samples.
pub(crate) fn late_sample_records(samples: &[LateSample]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    for part in samples.chunks(MOST_SAMPLES) {
        let (mut floats, mut histograms) = (Vec::new(), Vec::new());
        for LateSample { series, sample: TimedValue { time, start, value } } in part {
            let (reference, time, start) = (series.reference, *time, *start);
            match value {
                Value::Float(value) => floats.push(LoggedSample { reference, time, start, value: *value }),
                Value::Histogram { integer, histogram } => {
                    let value = LoggedHistogram { integer: *integer, histogram: Arc::clone(histogram) };
                    histograms.push(LoggedSample { reference, time, start, value });
                }
            }
        }
        if !floats.is_empty() {
            records.push(float_record(&floats));
        }
        records.extend(histogram_records(&histograms));
    }
    records
}
