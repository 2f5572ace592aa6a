//! Reads `thanos.SeriesResponse` straight from its bytes into domain series.
//!
//! Chunk payloads are slices of the frame. A frame is scanned before it is decoded, and its memory is compared with
//! [`AnswerLimits`], because a small message can become a large structure. A series over a limit of [`WireLimits`]
//! on labels is left out and described, because one such label must not cost the series beside it. Unknown fields are
//! skipped; protobuf groups, which StoreAPI does not use, are rejected. The format is that of
//! `proto/proto/thanos/store.proto`.

use std::mem::size_of;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use model::{Label, Labels, LabelsError, TimeRange, Timestamp};
use series::{AggrChunk, Producer, Series};
use tonic::Status;
use tsdb::{Chunk, Encoding};

use crate::answer_limits::AnswerTooLarge;
use crate::limits::shortened;
use crate::{AnswerLimits, SeriesFrame, WireLimits};

/// The number of the field that names the producer of a chunk or a series.
const PRODUCER: u64 = crate::convert::write::PRODUCER as u64;
/// The number of the field with the milliseconds between the windows of a chunk.
const RESOLUTION: u64 = crate::convert::write::RESOLUTION as u64;

/// Why a frame was rejected.
#[derive(Debug, thiserror::Error)]
pub(super) enum SeriesFrameError {
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    #[error("series {labels}: chunk encoding is {value}, expected 0 to 5")]
    Encoding { labels: Labels, value: u64 },
    #[error("length of a chunk of {found} is over the limit of {limit}")]
    ChunkLength { found: usize, limit: usize },
    #[error(transparent)]
    TooLarge(#[from] AnswerTooLarge),
    #[error("series labels: {0}")]
    Labels(#[from] LabelsError),
}

impl From<SeriesFrameError> for Status {
    fn from(error: SeriesFrameError) -> Self {
        match error {
            SeriesFrameError::TooLarge(error) => Self::resource_exhausted(error.to_string()),
            error => Self::data_loss(error.to_string()),
        }
    }
}

/// The value of a field: a number, or the range of its bytes.
pub(super) enum FieldValue {
    Number(u64),
    Bytes(Range<usize>),
    /// The bits of a number of 64 bits, such as a float.
    Fixed(u64),
    /// A number of 32 bits; the messages that are read here have none.
    Skipped,
}

/// A part of the frame that is read field by field.
pub(super) struct MessageFields<'a> {
    /// The frame up to the end of the part.
    bytes: &'a [u8],
    at: usize,
}

impl<'a> MessageFields<'a> {
    pub(super) fn new(frame: &'a Bytes, window: Range<usize>) -> Self {
        MessageFields { bytes: &frame[..window.end], at: window.start }
    }

    /// A number. Most are below 128: keys of fields, lengths of labels.
    #[inline]
    fn varint(&mut self) -> Result<u64, SeriesFrameError> {
        match self.bytes.get(self.at) {
            Some(&byte) if byte & 0x80 == 0 => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, SeriesFrameError> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let Some(&byte) = self.bytes.get(self.at) else {
                return Err(SeriesFrameError::Malformed("number cut short"));
            };
            self.at += 1;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(SeriesFrameError::Malformed("number longer than ten bytes"))
    }

    #[inline]
    fn take(&mut self, length: u64) -> Result<Range<usize>, SeriesFrameError> {
        let start = self.at;
        match usize::try_from(length)
            .ok()
            .and_then(|l| start.checked_add(l))
            .filter(|end| *end <= self.bytes.len())
        {
            Some(end) => {
                self.at = end;
                Ok(start..end)
            }
            None => Err(SeriesFrameError::Malformed("field longer than its message")),
        }
    }

    /// The number and value of the next field, or `None` at the end.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<(u64, FieldValue)>, SeriesFrameError> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        let key = self.varint()?;
        let value = match key & 7 {
            0 => FieldValue::Number(self.varint()?),
            1 => {
                let bytes = self.take(8)?;
                let low_first = self.bytes[bytes].iter().rev();
                FieldValue::Fixed(low_first.fold(0, |bits, byte| bits << 8 | u64::from(*byte)))
            }
            2 => {
                let length = self.varint()?;
                FieldValue::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| FieldValue::Skipped)?,
            _ => return Err(SeriesFrameError::Malformed("unknown wire type")),
        };
        match key >> 3 {
            0 => Err(SeriesFrameError::Malformed("field number 0")),
            number => Ok(Some((number, value))),
        }
    }
}

pub(super) fn text(frame: &Bytes, range: Range<usize>) -> Result<&str, SeriesFrameError> {
    std::str::from_utf8(&frame[range]).map_err(|_| SeriesFrameError::Malformed("text that is not UTF-8"))
}

/// Bytes of an allocation besides its content.
pub(super) const ALLOCATION: usize = 16;

/// Estimates the memory of a decoded frame, including the payload that its chunks refer to. It reads the heads of fields and
/// nothing else.
fn decoded_size(frame: &Bytes) -> Result<usize, SeriesFrameError> {
    let mut bytes = frame.len();
    let mut fields = MessageFields::new(frame, 0..frame.len());
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, FieldValue::Bytes(window)) => bytes += series_size(frame, window)?,
            (2, FieldValue::Bytes(window)) => bytes += window.len(),
            (4, FieldValue::Bytes(window)) => {
                let mut batch = MessageFields::new(frame, window);
                while let Some((number, value)) = batch.next()? {
                    if let (1, FieldValue::Bytes(window)) = (number, value) {
                        bytes += series_size(frame, window)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(bytes)
}

fn series_size(frame: &Bytes, window: Range<usize>) -> Result<usize, SeriesFrameError> {
    let mut bytes = size_of::<Series>() + 2 * ALLOCATION;
    let mut fields = MessageFields::new(frame, window);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, FieldValue::Bytes(window)) => bytes += size_of::<Label<'_>>() + window.len(),
            (2, FieldValue::Bytes(_)) => bytes += size_of::<AggrChunk>(),
            _ => {}
        }
    }
    Ok(bytes)
}

/// Most series over a limit that a frame describes.
const DESCRIBED: usize = 10;
/// Most labels that the description of a series shows.
const SHOWN_LABELS: usize = 12;

/// A frame, and what was left out of it.
#[derive(Debug)]
pub(crate) struct ReadFrame {
    pub(crate) frame: SeriesFrame,
    pub(crate) dropped: DroppedSeries,
}

/// Series that are over a limit on labels.
#[derive(Debug, Default)]
pub(crate) struct DroppedSeries {
    /// The first of them, each with the limit.
    pub(crate) described: Vec<String>,
    /// How many there are.
    pub(crate) count: u64,
}

struct SeriesReader<'a> {
    frame: &'a Bytes,
    limits: &'a WireLimits,
    dropped: DroppedSeries,
}

/// Reads one message. A message with hints, or with unknown fields only, becomes a frame without series.
pub(super) fn frame(
    frame: &Bytes,
    limits: &WireLimits,
    memory: &AnswerLimits,
) -> Result<ReadFrame, SeriesFrameError> {
    memory.admit(decoded_size(frame)?)?;
    let mut reader = SeriesReader { frame, limits, dropped: DroppedSeries::default() };
    let mut fields = MessageFields::new(frame, 0..frame.len());
    let mut result = SeriesFrame::Series(Vec::new());
    // As in protobuf, the last member of the oneof wins. Protobuf would merge a repeated series, but no store sends one.
    while let Some((number, value)) = fields.next()? {
        result = match (number, value) {
            (1, FieldValue::Bytes(window)) => {
                SeriesFrame::Series(reader.series(window)?.into_iter().collect())
            }
            (2, FieldValue::Bytes(window)) => SeriesFrame::Warning(text(frame, window)?.to_owned()),
            (3, FieldValue::Bytes(_)) => SeriesFrame::Series(Vec::new()),
            (4, FieldValue::Bytes(window)) => SeriesFrame::Series(reader.batch(window)?),
            (1..=4, _) => return Err(SeriesFrameError::Malformed("a field has the wrong type")),
            _ => result,
        };
    }
    Ok(ReadFrame { frame: result, dropped: reader.dropped })
}

impl<'a> SeriesReader<'a> {
    fn batch(&mut self, window: Range<usize>) -> Result<Vec<Series>, SeriesFrameError> {
        let mut fields = MessageFields::new(self.frame, window);
        let mut batch = Vec::new();
        while let Some((number, value)) = fields.next()? {
            if let (1, FieldValue::Bytes(window)) = (number, value) {
                batch.extend(self.series(window)?);
            }
        }
        Ok(batch)
    }

    /// One series; `None` where it is over a limit on labels.
    fn series(&mut self, window: Range<usize>) -> Result<Option<Series>, SeriesFrameError> {
        let Some(labels) = self.labels(window.clone())? else { return Ok(None) };
        let mut fields = MessageFields::new(self.frame, window);
        let (mut chunks, mut producer) = (Vec::new(), None);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (2, FieldValue::Bytes(window)) => chunks.push(self.aggr_chunk(&labels, window)?),
                (PRODUCER, FieldValue::Fixed(number)) => producer = Producer::from_number(number),
                _ => {}
            }
        }
        if producer.is_some() {
            chunks.iter_mut().for_each(|chunk| chunk.producer = chunk.producer.or(producer));
        }
        Ok(Some(Series { labels, chunks }))
    }

    /// The labels of a series, in any order; a name must not occur twice.
    fn labels(&mut self, window: Range<usize>) -> Result<Option<Labels>, SeriesFrameError> {
        let limits = &self.limits.labels;
        let mut fields = MessageFields::new(self.frame, window);
        let mut pairs: Vec<(&'a str, &'a str)> = Vec::with_capacity(16);
        let mut problem = None;
        while let Some((number, value)) = fields.next()? {
            let (1, FieldValue::Bytes(window)) = (number, value) else { continue };
            let Label { name, value } = self.label(window)?;
            if problem.is_none() {
                problem = limits.name_problem(name).or_else(|| limits.value_problem(name, value));
            }
            pairs.push((name, value));
        }
        if let Some(problem) = limits.count_problem(pairs.len()).or(problem) {
            self.drop_series(&pairs, &problem);
            return Ok(None);
        }
        Ok(Some(Labels::from_pairs(pairs)?))
    }

    fn drop_series(&mut self, pairs: &[(&str, &str)], problem: &str) {
        self.dropped.count += 1;
        if self.dropped.described.len() < DESCRIBED {
            let shown = pairs.iter().map(|(name, value)| (shortened(name), shortened(value)));
            let labels = Labels::from_pairs(shown.take(SHOWN_LABELS));
            let labels =
                labels.map_or_else(|_| "without a valid name".to_owned(), |labels| labels.to_string());
            self.dropped.described.push(format!("series {labels} is dropped: {problem}"));
        }
    }

    fn label(&self, window: Range<usize>) -> Result<Label<'a>, SeriesFrameError> {
        let mut fields = MessageFields::new(self.frame, window);
        let mut label = Label { name: "", value: "" };
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, FieldValue::Bytes(window)) => label.name = text(self.frame, window)?,
                (2, FieldValue::Bytes(window)) => label.value = text(self.frame, window)?,
                _ => {}
            }
        }
        Ok(label)
    }

    fn aggr_chunk(&mut self, labels: &Labels, window: Range<usize>) -> Result<AggrChunk, SeriesFrameError> {
        // The times of a chunk may come after its data, so they are read first.
        let mut range = TimeRange::new(Timestamp::EPOCH, Timestamp::EPOCH);
        let mut times = MessageFields::new(self.frame, window.clone());
        while let Some((number, value)) = times.next()? {
            match (number, value) {
                (1, FieldValue::Number(n)) => range.min = Timestamp::from_millis(n as i64),
                (2, FieldValue::Number(n)) => range.max = Timestamp::from_millis(n as i64),
                _ => {}
            }
        }
        let mut fields = MessageFields::new(self.frame, window);
        let mut chunk = AggrChunk::default();
        while let Some((number, value)) = fields.next()? {
            let window = match value {
                FieldValue::Bytes(window) => window,
                FieldValue::Fixed(producer) if number == PRODUCER => {
                    chunk.producer = Producer::from_number(producer);
                    continue;
                }
                FieldValue::Number(millis) if number == RESOLUTION => {
                    chunk.resolution = Duration::from_millis(millis);
                    continue;
                }
                _ => continue,
            };
            let part = match number {
                3 => &mut chunk.raw,
                4 => &mut chunk.count,
                5 => &mut chunk.sum,
                6 => &mut chunk.min,
                7 => &mut chunk.max,
                8 => &mut chunk.counter,
                _ => continue,
            };
            *part = Some(self.chunk(labels, range, window)?);
        }
        Ok(chunk)
    }

    fn chunk(
        &self,
        labels: &Labels,
        range: TimeRange,
        window: Range<usize>,
    ) -> Result<Chunk, SeriesFrameError> {
        let mut fields = MessageFields::new(self.frame, window);
        let (mut encoding, mut data) = (0, 0..0);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, FieldValue::Number(n)) => encoding = n,
                (2, FieldValue::Bytes(window)) => data = window,
                _ => {}
            }
        }
        let (found, limit) = (data.len(), self.limits.chunk_bytes);
        if found > limit {
            return Err(SeriesFrameError::ChunkLength { found, limit });
        }
        let encoding = match encoding {
            0 => Encoding::Xor,
            1 => Encoding::Histogram,
            2 => Encoding::FloatHistogram,
            3 => Encoding::Xor2,
            4 => Encoding::HistogramSt,
            5 => Encoding::FloatHistogramSt,
            value => return Err(SeriesFrameError::Encoding { labels: labels.clone(), value }),
        };
        Ok(Chunk { range, encoding, data: self.frame.slice(data) })
    }
}
