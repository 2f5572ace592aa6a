//! Opens a head: finds the chunks in files, and reads the log.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use model::{TimeRange, Timestamp};

use crate::chunk_files::DamagedFile;
use crate::chunk_format::{FoundChunk, StoredChunk};
use crate::cut_state::CutState;
use crate::error::{HeadError, at};
use crate::folder::FolderLock;
use crate::head::{CHUNKS_DIR, Head, HeadOptions, LATE_LOG_DIR, LOG_DIR};
use crate::late_chunks::LateChunks;
use crate::log::checkpoint;
use crate::log::exemplar::{LoggedExemplar, LoggedMetadata};
use crate::log::marker::LoggedMarker;
use crate::log::reader::{NEWER, SegmentReader, Torn, is_compressed};
use crate::log::record::{LoggedDeletion, LoggedHistogram, LoggedSample, Record};
use crate::log::segments::{Segment, last_checkpoint, list};
use crate::paged::LastPage;
use crate::series::{Refused, Series};
use crate::value::{TimedValue, Value};

/// What was found when a head was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Samples that were read from the log.
    pub samples: u64,
    /// Samples of the log that were not needed: they are in blocks, or in chunk files.
    pub known: u64,
    /// Samples, exemplars and out-of-order chunks whose series the log does not name, which a damaged segment can cause.
    pub without_series: u64,
    /// Chunks in files.
    pub chunks: usize,
    /// Damaged files: each was cut before the damage.
    pub damaged: Vec<DamagedPart>,
    /// Records that cannot be read although their checksum matches.
    pub damaged_records: u64,
    /// Out-of-order samples that were read from their log. Those in chunk files are not counted.
    pub late: u64,
}

/// The end of a file that was cut off, because it is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedPart {
    /// The file.
    pub path: PathBuf,
    /// Where it is cut, in bytes from its begin.
    pub at: u64,
    /// Bytes behind that place.
    pub lost: u64,
    /// What is wrong there.
    pub reason: &'static str,
    /// Where the bytes were put; none for a chunk file, whose samples are in the log.
    pub saved: Option<PathBuf>,
}

impl Head {
    /// Opens the head in a directory, which is created if it is missing. It may be the data folder of a Prometheus.
    ///
    /// A segment or chunk file that is damaged is cut before the damage, and what was cut off a segment is kept in a file beside
    /// it. Later segments are read.
    ///
    /// # Errors
    /// When another process uses the directory, or it is not a data folder; when a later version wrote it; when a file cannot be read or
    /// written. In the first three cases, nothing was written.
    pub fn open(dir: &Path, options: HeadOptions) -> Result<(Self, Replay), HeadError> {
        Self::open_locked(dir, options, FolderLock::lock(dir)?)
    }

    /// The same for a directory that is locked. Nothing is written before all is read.
    pub(crate) fn open_locked(
        dir: &Path,
        options: HeadOptions,
        lock: FolderLock,
    ) -> Result<(Self, Replay), HeadError> {
        let (log_dir, late_dir) = (dir.join(LOG_DIR), dir.join(LATE_LOG_DIR));
        let (mut head, chunks, damaged) = Self::empty(dir, options, lock)?;
        // What is in blocks is not read.
        let (late_begin, cut_until) = match CutState::load(&late_dir).map_err(at(&late_dir))? {
            Some(CutState::Written { segment, place }) => (segment, Some(place)),
            _ => (0, None),
        };
        let late = LateChunks::new(head.files.first_file(), cut_until);
        let replay = Replay { chunks: chunks.len(), ..Replay::default() };
        let mut reader = Reader { head: &head, stored: HashMap::new(), late, torn: Vec::new(), replay };
        reader.add_chunks(chunks, options.min_time);
        for segment in segments(&log_dir).map_err(at(&log_dir))? {
            reader.read_segment(segment, Reader::add)?;
        }
        reader.replay.without_series += reader.late.release_unknown(&head);
        let late_segments = list(&late_dir).map_err(at(&late_dir))?;
        let (cut, late_segments): (Vec<_>, _) =
            late_segments.into_iter().partition(|segment| segment.number < late_begin);
        for segment in late_segments {
            reader.read_segment(segment, Reader::add_late)?;
        }
        let Reader { torn, mut replay, late, .. } = reader;
        head.count_all();
        head.lock.keep();
        head.repair(&mut replay, damaged, torn)?;
        late.forget_cut(&head.files).map_err(at(&dir.join(CHUNKS_DIR)))?;
        for segment in cut {
            std::fs::remove_file(&segment.path).map_err(at(&segment.path))?;
        }
        if cut_until.is_some() {
            CutState::remove(&late_dir).map_err(at(&late_dir))?;
        }
        Ok((head, replay))
    }

    /// Cuts what is damaged off files, removes what a checkpoint replaces, and begins the log.
    fn repair(
        &self,
        replay: &mut Replay,
        damaged: Vec<DamagedFile>,
        torn: Vec<(PathBuf, Torn)>,
    ) -> Result<(), HeadError> {
        let (log_dir, chunks_dir) = (self.dir.join(LOG_DIR), self.dir.join(CHUNKS_DIR));
        self.files.repair(&damaged).map_err(at(&chunks_dir))?;
        for DamagedFile { path, at, lost, .. } in damaged.into_iter().filter(|file| !file.is_zero) {
            let reason = "a chunk is damaged";
            replay.damaged.push(DamagedPart { path, at, lost, reason, saved: None });
        }
        for (path, torn) in torn {
            let saved = Some(cut_off(&path, &torn).map_err(at(&path))?);
            let Torn { at, lost, reason } = torn;
            replay.damaged.push(DamagedPart { path, at, lost, reason, saved });
        }
        checkpoint::remove_replaced(&log_dir).map_err(at(&log_dir))?;
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.begin().map_err(at(&log_dir))?;
        Ok(())
    }
}

/// The segments of the last checkpoint of a log, and those that it does not replace.
fn segments(dir: &Path) -> std::io::Result<Vec<Segment>> {
    let checkpoint = last_checkpoint(dir)?;
    let replaced = checkpoint.as_ref().map(|checkpoint| checkpoint.number);
    let mut segments = checkpoint.map_or_else(|| Ok(Vec::new()), |checkpoint| list(&checkpoint.path))?;
    segments.extend(list(dir)?.into_iter().filter(|segment| Some(segment.number) > replaced));
    Ok(segments)
}

struct Reader<'a> {
    head: &'a Head,
    /// The chunks in files, by the number of their series.
    stored: HashMap<u64, Vec<StoredChunk>>,
    late: LateChunks,
    /// Segments that cannot be read to their end.
    torn: Vec<(PathBuf, Torn)>,
    replay: Replay,
}

impl Reader<'_> {
    fn add_chunks(&mut self, chunks: Vec<FoundChunk>, min_time: Timestamp) {
        for chunk in chunks {
            if chunk.is_out_of_order {
                self.late.add(&chunk);
                continue;
            }
            let of_series = self.stored.entry(chunk.series).or_default();
            // A crash can leave the same chunk in two files.
            let follows = of_series.last().is_none_or(|last| last.range.max < chunk.range.min);
            if follows && chunk.range.max >= min_time {
                of_series.push(StoredChunk { range: chunk.range, place: chunk.place });
            }
        }
    }

    fn read_segment(&mut self, segment: Segment, add: impl Fn(&mut Self, Record)) -> Result<(), HeadError> {
        let Segment { path, .. } = segment;
        let mut reader = SegmentReader::open(&path).map_err(at(&path))?;
        while let Some(record) = reader.next_record().map_err(at(&path))? {
            match Record::parse(record) {
                // A flipped bit in the type of a record lets it look as if it were not compressed.
                Ok(Record::Other(_)) if is_compressed(record) => self.replay.damaged_records += 1,
                Ok(Record::Other(kind)) => {
                    let what = format!("kind {kind} of a record");
                    return Err(HeadError::Newer { path, what });
                }
                Ok(record) => add(self, record),
                Err(_) => self.replay.damaged_records += 1,
            }
        }
        match reader.torn() {
            Some(torn) if torn.reason == NEWER => {
                Err(HeadError::Newer { path, what: torn.reason.to_owned() })
            }
            torn => {
                self.torn.extend(torn.map(|torn| (path, torn)));
                Ok(())
            }
        }
    }

    fn add(&mut self, record: Record) {
        match record {
            Record::Series(series) => {
                let mut index = self.head.index.write().unwrap_or_else(PoisonError::into_inner);
                for logged in series {
                    let series = index.add_logged(logged.reference, logged.labels);
                    if let Some(stored) = self.stored.remove(&logged.reference) {
                        add_stored(&series, stored);
                    }
                    self.late.attach(logged.reference, &series);
                }
            }
            Record::Floats(samples) => self.add_samples(samples, float),
            Record::Histograms(samples) => self.add_samples(samples, histogram),
            Record::Deletions(deletions) => self.delete(&deletions),
            Record::Exemplars(exemplars) => self.add_exemplars(exemplars),
            Record::Metadata(metadata) => self.add_metadata(metadata),
            Record::Markers(_) | Record::Late(_) | Record::Other(_) => {}
        }
    }

    /// Adds what the log of out-of-order samples has.
    fn add_late(&mut self, record: Record) {
        match record {
            Record::Floats(samples) => self.add_late_samples(samples, float),
            Record::Histograms(samples) => self.add_late_samples(samples, histogram),
            Record::Markers(markers) => {
                let index = self.head.index.read().unwrap_or_else(PoisonError::into_inner);
                for LoggedMarker { reference, place } in markers {
                    let series = index.by_reference(reference).filter(|_| self.late.has(place));
                    if let Some(late) =
                        series.map(|series| series.lock()).as_mut().and_then(|s| s.late.as_mut())
                    {
                        late.clear_open();
                    }
                }
            }
            _ => {}
        }
    }

    fn add_late_samples<V>(&mut self, samples: Vec<LoggedSample<V>>, value: impl Fn(&V) -> Value) {
        let index = self.head.index.read().unwrap_or_else(PoisonError::into_inner);
        for LoggedSample { reference, time, start, value: logged } in samples {
            let Some(series) = index.by_reference(reference) else {
                self.replay.without_series += 1;
                continue;
            };
            self.replay.late += 1;
            series.lock().add_late(TimedValue { time, start, value: value(&logged) });
        }
    }

    fn add_samples<V>(&mut self, samples: Vec<LoggedSample<V>>, value: impl Fn(&V) -> Value) {
        let index = self.head.index.read().unwrap_or_else(PoisonError::into_inner);
        let min_valid = *self.head.min_valid.read().unwrap_or_else(PoisonError::into_inner);
        let mut last = LastPage::default();
        for group in samples.chunks(GROUP) {
            let mut found = [None; GROUP];
            for (found, sample) in found.iter_mut().zip(group) {
                *found = index.by_reference_after(&mut last, sample.reference);
            }
            // The processor reads several series from memory at the same time, if none must wait for another one.
            let slots = found.iter().flatten().fold(0, |slots, series| slots ^ series.slot);
            std::hint::black_box(slots);
            for (series, LoggedSample { time, start, value: logged, .. }) in found.iter().zip(group) {
                if *time < min_valid {
                    self.replay.known += 1;
                    continue;
                }
                let Some(series) = series else {
                    self.replay.without_series += 1;
                    continue;
                };
                match series.lock().append(*time, *start, &value(logged), self.head.block_range) {
                    Ok(_) => self.replay.samples += 1,
                    Err(Refused::Unencodable) => self.replay.damaged_records += 1,
                    Err(_) => self.replay.known += 1,
                }
            }
        }
    }

    fn add_exemplars(&mut self, logged: Vec<LoggedExemplar>) {
        let index = self.head.index.read().unwrap_or_else(PoisonError::into_inner);
        let min_valid = *self.head.min_valid.read().unwrap_or_else(PoisonError::into_inner);
        let mut exemplars = self.head.exemplars.write().unwrap_or_else(PoisonError::into_inner);
        for LoggedExemplar { reference, exemplar } in logged {
            match index.by_reference(reference) {
                Some(series) => exemplars.add_logged(&series.labels, exemplar),
                // Its series may have been removed with its samples.
                None if exemplar.time.as_millis() < min_valid => {}
                None => self.replay.without_series += 1,
            }
        }
    }

    fn add_metadata(&self, logged: Vec<LoggedMetadata>) {
        let index = self.head.index.read().unwrap_or_else(PoisonError::into_inner);
        for LoggedMetadata { reference, metadata } in logged {
            // Without a series, it is not needed.
            if let Some(series) = index.by_reference(reference) {
                series.lock().metadata = Some(self.head.metadata.share(metadata));
            }
        }
    }

    fn delete(&self, logged: &[LoggedDeletion]) {
        let index = self.head.index.read().unwrap_or_else(PoisonError::into_inner);
        let mut deletions = self.head.deletions.write().unwrap_or_else(PoisonError::into_inner);
        for LoggedDeletion { reference, min, max } in logged {
            let Some(series) = index.by_reference(*reference) else { continue };
            let range = TimeRange::new(Timestamp::from_millis(*min), Timestamp::from_millis(*max));
            deletions.entry(series.slot).or_default().push(range);
        }
    }
}

/// Samples whose series are looked up together.
const GROUP: usize = 16;

fn float(logged: &f64) -> Value {
    Value::Float(*logged)
}

fn histogram(logged: &LoggedHistogram) -> Value {
    Value::Histogram { integer: logged.integer, histogram: Arc::clone(&logged.histogram) }
}

/// Adds the chunks in files to a series, those that follow what it has.
fn add_stored(series: &Arc<Series>, stored: Vec<StoredChunk>) {
    let mut state = series.lock();
    for chunk in stored {
        let min = chunk.range.min.as_millis();
        if state.last_time().is_none_or(|last| last < min) {
            state.continue_after(chunk.range.max.as_millis());
            state.stored.push(chunk);
        }
    }
}

/// Cuts a segment before its damage, and writes what is cut off to a file beside it.
fn cut_off(path: &Path, torn: &Torn) -> std::io::Result<PathBuf> {
    let saved = path.with_extension("damaged");
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    file.seek(SeekFrom::Start(torn.at))?;
    let mut rest = Vec::new();
    file.read_to_end(&mut rest)?;
    let mut copy = File::create(&saved)?;
    copy.write_all(&rest)?;
    copy.sync_all()?;
    file.set_len(torn.at)?;
    file.sync_all()?;
    Ok(saved)
}
