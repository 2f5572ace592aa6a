//! Reads the log from a place on, while it is written.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{FloatHistogram, Labels, Timestamp};

use crate::exemplars::Exemplar;
use crate::log::reader::SegmentReader;
use crate::log::record::{LoggedHistogram, LoggedSample, Record};
use crate::log::segments::{Segment, checkpoint_name, last_checkpoint, list, segment_name};
use crate::metadata::Metadata;

/// A place in the log: the end of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    /// The segment.
    pub segment: u32,
    /// Bytes from its begin.
    pub offset: u64,
}

/// What a record contains that a reader may need. Numbers name series.
#[derive(Clone, Debug, PartialEq)]
pub enum LogEntries {
    /// New series, before their samples.
    Series(Vec<(u64, Labels)>),
    /// Samples, also those that are out of order.
    Samples(Vec<LogSample>),
    /// Exemplars.
    Exemplars(Vec<(u64, Exemplar)>),
    /// What the metrics of series are.
    Metadata(Vec<(u64, Metadata)>),
}

/// A sample of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogSample {
    /// The number of its series.
    pub series: u64,
    /// When it was taken.
    pub time: Timestamp,
    /// When its counter began; the epoch if that is not known.
    pub start: Timestamp,
    /// Its value.
    pub value: LogValue,
}

/// The value of a sample of the log.
#[derive(Clone, Debug, PartialEq)]
pub enum LogValue {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram {
        /// Whether its counts are integers.
        integer: bool,
        /// The histogram.
        histogram: Arc<FloatHistogram>,
    },
}

/// Reads the records of a log in order: those of the last checkpoint, then those of the segments after it.
pub struct LogFollower {
    dir: PathBuf,
    /// Segments of the checkpoint that are still to be read, the last one first.
    checkpoint: Vec<Segment>,
    checkpoint_reader: Option<SegmentReader>,
    /// Zero in the checkpoint.
    position: LogPosition,
    reader: Option<SegmentReader>,
    /// The last segment that the checkpoint replaces.
    replaced: Option<u32>,
    damaged: u64,
}

impl LogFollower {
    /// A reader of the log in a directory.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let checkpoint = last_checkpoint(dir)?;
        let replaced = checkpoint.as_ref().map(|checkpoint| checkpoint.number);
        let mut segments = checkpoint.map_or_else(|| Ok(Vec::new()), |checkpoint| list(&checkpoint.path))?;
        segments.reverse();
        let mut follower = Self {
            dir: dir.to_owned(),
            checkpoint: segments,
            checkpoint_reader: None,
            position: LogPosition::default(),
            reader: None,
            replaced,
            damaged: 0,
        };
        let begin = replaced.map_or(0, |replaced| replaced.saturating_add(1));
        let first = list(dir)?.into_iter().map(|segment| segment.number).find(|number| *number >= begin);
        follower.position.segment = first.unwrap_or(begin);
        Ok(follower)
    }

    /// Where the next record begins. It stays at the first segment while the checkpoint is read.
    pub fn position(&self) -> LogPosition {
        self.position
    }

    /// Whether the next record is one of the checkpoint.
    pub fn is_in_checkpoint(&self) -> bool {
        self.checkpoint_reader.is_some() || !self.checkpoint.is_empty()
    }

    /// The segment up to which the checkpoint that was read replaces the log.
    pub fn replaced(&self) -> Option<u32> {
        self.replaced
    }

    /// Parts of the log that could not be read so far.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Reads the last checkpoint again, if there is a newer one. The series in it are all that segments after it need.
    ///
    /// # Errors
    /// When a file cannot be read. The next call tries again.
    pub fn newer_checkpoint(&mut self) -> io::Result<Option<Vec<u64>>> {
        let Some(checkpoint) = last_checkpoint(&self.dir)?.filter(|last| Some(last.number) > self.replaced)
        else {
            return Ok(None);
        };
        let mut references = Vec::new();
        for segment in list(&self.dir.join(checkpoint_name(checkpoint.number)))? {
            let mut reader = SegmentReader::open(&segment.path)?;
            while let Some(record) = reader.next_record()? {
                if let Ok(Record::Series(series)) = Record::parse(record) {
                    references.extend(series.into_iter().map(|series| series.reference));
                }
            }
        }
        self.replaced = Some(checkpoint.number);
        Ok(Some(references))
    }

    /// The next record before `end`, which must be a place that [`Head::log_end`](crate::Head::log_end) returned, or this reader. None
    /// at the end.
    ///
    /// What is damaged is passed over, up to the end of its segment.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn next_record(&mut self, end: LogPosition) -> io::Result<Option<LogEntries>> {
        while self.is_in_checkpoint() {
            if let Some(entries) = self.next_of_checkpoint()? {
                return Ok(Some(entries));
            }
        }
        while self.position < end {
            let is_last = self.position.segment == end.segment;
            let limit = if is_last { end.offset } else { u64::MAX };
            if self.reader.as_ref().is_none_or(|reader| reader.limit() != limit) {
                let path = self.dir.join(segment_name(self.position.segment));
                self.reader = match SegmentReader::open_at(&path, self.position.offset, limit) {
                    Ok(reader) => Some(reader),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                    Err(error) => return Err(error),
                };
            }
            let Some(reader) = &mut self.reader else {
                self.damaged += 1;
                self.next_segment(end)?;
                continue;
            };
            let entries = match reader.next_record()? {
                Some(record) => Record::parse(record).map(LogEntries::of),
                None => {
                    self.damaged += u64::from(reader.torn().is_some());
                    self.next_segment(end)?;
                    continue;
                }
            };
            self.position.offset = reader.position();
            match entries {
                Ok(Some(entries)) => return Ok(Some(entries)),
                Ok(None) => {}
                Err(_) => self.damaged += 1,
            }
        }
        Ok(None)
    }

    fn next_of_checkpoint(&mut self) -> io::Result<Option<LogEntries>> {
        let reader = match &mut self.checkpoint_reader {
            Some(reader) => reader,
            None => {
                let Some(segment) = self.checkpoint.pop() else { return Ok(None) };
                self.checkpoint_reader.insert(SegmentReader::open(&segment.path)?)
            }
        };
        match reader.next_record()? {
            Some(record) => match Record::parse(record).map(LogEntries::of) {
                Ok(entries) => Ok(entries),
                Err(_) => {
                    self.damaged += 1;
                    Ok(None)
                }
            },
            None => {
                self.damaged += u64::from(reader.torn().is_some());
                self.checkpoint_reader = None;
                Ok(None)
            }
        }
    }

    /// Goes to the next segment, or to the end.
    fn next_segment(&mut self, end: LogPosition) -> io::Result<()> {
        self.reader = None;
        let next = list(&self.dir)?.into_iter().find(|segment| segment.number > self.position.segment);
        self.position = match next {
            Some(next) if next.number <= end.segment => LogPosition { segment: next.number, offset: 0 },
            _ => end,
        };
        if self.position.segment == end.segment {
            self.position = self.position.min(end);
        }
        Ok(())
    }
}

impl LogEntries {
    /// What a record contains; none if it is nothing that a reader needs.
    fn of(record: Record) -> Option<Self> {
        Some(match record {
            Record::Series(series) => {
                Self::Series(series.into_iter().map(|series| (series.reference, series.labels)).collect())
            }
            Record::Floats(samples) => {
                Self::Samples(samples.into_iter().map(|logged| sample(logged, LogValue::Float)).collect())
            }
            Record::Histograms(samples) => {
                Self::Samples(samples.into_iter().map(|logged| sample(logged, histogram)).collect())
            }
            Record::Exemplars(logged) => Self::Exemplars(
                logged.into_iter().map(|logged| (logged.reference, logged.exemplar)).collect(),
            ),
            Record::Metadata(logged) => {
                Self::Metadata(logged.into_iter().map(|logged| (logged.reference, logged.metadata)).collect())
            }
            Record::Late(samples) => return Self::of(*samples),
            Record::Deletions(_) | Record::Markers(_) | Record::Other(_) => return None,
        })
    }
}

fn sample<V>(logged: LoggedSample<V>, value: impl Fn(V) -> LogValue) -> LogSample {
    LogSample {
        series: logged.reference,
        time: Timestamp::from_millis(logged.time),
        start: Timestamp::from_millis(logged.start),
        value: value(logged.value),
    }
}

fn histogram(LoggedHistogram { integer, histogram }: LoggedHistogram) -> LogValue {
    LogValue::Histogram { integer, histogram }
}
