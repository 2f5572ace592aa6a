//! Checks chunks against the index, and segments against the chunks.

use model::{TimeRange, Timestamp};

use crate::block::verify::findings::Findings;
use crate::error::{BlockPart, BlockProblem};
use crate::segments::{HEADER_BYTES, ReadAhead, Segments};
use crate::{Chunk, ChunkError, ChunkMeta};

/// Where the next chunk has to begin: chunks follow each other without gaps.
pub(super) struct ChunkCheck<'a> {
    segments: &'a Segments,
    segment: u32,
    /// `None` when the end of the chunk before is unknown.
    offset: Option<u64>,
    ahead: ReadAhead,
    timestamps: Vec<i64>,
    values: Vec<f64>,
}

impl<'a> ChunkCheck<'a> {
    pub(super) fn new(segments: &'a Segments) -> Self {
        ChunkCheck {
            segments,
            segment: 0,
            offset: Some(HEADER_BYTES),
            ahead: ReadAhead::default(),
            timestamps: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Some chunks could not be read, so the next offset is unknown.
    pub(super) fn lose_track(&mut self) {
        self.offset = None;
    }

    pub(super) fn add(&mut self, findings: &mut Findings<'_>, meta: &ChunkMeta) {
        self.move_to(findings, meta.reference.segment(), meta.reference.offset());
        findings.found.stats.chunks += 1;
        let read = self.segments.read_record(meta, &mut self.ahead);
        let Some((chunk, length)) = findings.ok_or_report(read) else {
            self.lose_track();
            return;
        };
        self.offset = Some(meta.reference.offset() + length);
        findings.found.chunk_max_bytes = findings.found.chunk_max_bytes.max(length);
        if let Err(problem) = self.samples(findings, &chunk) {
            let place = findings.place(BlockPart::Segment(meta.reference.segment()));
            findings.problem(place.error(meta.reference.offset(), problem));
        }
        findings.found.range = Some(match findings.found.range {
            None => meta.range,
            Some(range) => TimeRange::new(range.min.min(meta.range.min), range.max.max(meta.range.max)),
        });
    }

    /// The next chunk begins at `offset` of `segment`.
    fn move_to(&mut self, findings: &mut Findings<'_>, segment: u32, offset: u64) {
        while self.segment < segment && (self.segment as usize) < self.segments.count() {
            self.end_segment(findings);
            (self.segment, self.offset) = (self.segment + 1, Some(HEADER_BYTES));
        }
        let place = findings.place(BlockPart::Segment(segment));
        if segment < self.segment {
            findings.problem(place.malformed(
                offset,
                "the index has this chunk after a chunk that is further on; references must ascend",
            ));
            (self.segment, self.offset) = (segment, None);
        }
        match self.offset {
            Some(expected) if expected < offset => {
                let what = format!("the bytes from here to {offset} belong to no chunk of the index");
                findings.problem(place.malformed(expected, what));
            }
            Some(expected) if expected > offset => {
                let what = format!(
                    "the chunk begins before the end of the one before it, which is at byte {expected}"
                );
                findings.problem(place.malformed(offset, what));
            }
            _ => {}
        }
    }

    fn end_segment(&self, findings: &mut Findings<'_>) {
        let size = self.segments.size_bytes(self.segment);
        if let Some(end) = self.offset.filter(|&end| end != size) {
            let what = format!("the last chunk of the index ends here, but the segment has {size} bytes");
            let place = findings.place(BlockPart::Segment(self.segment));
            findings.problem(place.contradiction(end, what));
        }
    }

    pub(super) fn finish(mut self, findings: &mut Findings<'_>) {
        while (self.segment as usize) < self.segments.count() {
            self.end_segment(findings);
            (self.segment, self.offset) = (self.segment + 1, Some(HEADER_BYTES));
        }
    }

    /// The number of samples and their times are those in header and index.
    fn samples(&mut self, findings: &mut Findings<'_>, chunk: &Chunk) -> Result<(), BlockProblem> {
        let stats = &mut findings.found.stats;
        let announced = chunk.sample_count() as u64;
        stats.samples += announced;
        let own = match chunk.encoding {
            encoding if encoding.holds_floats() => Some(&mut stats.float_samples),
            encoding if encoding.holds_histograms() => Some(&mut stats.histogram_samples),
            _ => None,
        };
        if let Some(own) = own {
            *own += announced;
            self.decode(chunk).map_err(BlockProblem::Chunk)?;
            return in_range(&self.timestamps, chunk.range);
        }
        let aggregates = chunk.aggregates().map_err(BlockProblem::Chunk)?;
        for part in
            [&aggregates.count, &aggregates.sum, &aggregates.min, &aggregates.max].into_iter().flatten()
        {
            self.decode(part).map_err(BlockProblem::Chunk)?;
            in_range(&self.timestamps, chunk.range)?;
        }
        // The counter has a sample before its first window, and repeats the last time.
        if let Some(counter) = &aggregates.counter {
            self.decode(counter).map_err(BlockProblem::Chunk)?;
        }
        match aggregates.count {
            Some(_) => Ok(()),
            None => Err(BlockProblem::Malformed("the chunk of aggregates has no count".to_owned())),
        }
    }

    /// Decodes the times of all samples.
    fn decode(&mut self, chunk: &Chunk) -> Result<(), ChunkError> {
        self.timestamps.clear();
        self.values.clear();
        if !chunk.encoding.holds_histograms() {
            return chunk.decode_floats(&mut self.timestamps, &mut self.values);
        }
        let mut histograms = Vec::new();
        chunk.decode_histograms(&mut histograms)?;
        self.timestamps.extend(histograms.iter().map(|(t, _)| t));
        Ok(())
    }
}

/// Checks that times ascend from the beginning of `range` to its end.
fn in_range(timestamps: &[i64], range: TimeRange) -> Result<(), BlockProblem> {
    let (Some(first), Some(last)) = (timestamps.first(), timestamps.last()) else {
        return Err(BlockProblem::Malformed("the chunk has no samples".to_owned()));
    };
    if let Some(pair) = timestamps.windows(2).find(|pair| pair[0] >= pair[1]) {
        let what = format!("the chunk has a sample at {} after one at {}", pair[1], pair[0]);
        return Err(BlockProblem::Malformed(what));
    }
    for (at, expected) in [(*first, range.min), (*last, range.max)] {
        let at = Timestamp::from_millis(at);
        if at != expected {
            return Err(BlockProblem::ChunkTimes { at, min: range.min, max: range.max });
        }
    }
    Ok(())
}
