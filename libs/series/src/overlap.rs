//! Unites downsampled chunks of one producer that overlap, as those of blocks that are cut differently do.
//!
//! A downsampled sample has the aggregates of a window. Two blocks can have the same window: with equal values, with other
//! values where one of them lacks raw samples, or in two parts where one of them cuts its chunks within the window. So chunks
//! that follow each other are joined to lanes, and of each window those samples are taken that aggregate most raw samples.

use std::ops::Range;
use std::time::Duration;

use tsdb::Aggregate;

use crate::error::DecodeProblem;
use crate::selected::MAX_REPLICAS;
use crate::timeline::{MixedTimeline, Timeline};
use crate::{AggrChunk, Samples, chain};

/// No window is longer. Where chunks overlap, one that begins so soon after another one can have the rest of a window.
pub(crate) const LONGEST_WINDOW: Duration = Duration::from_secs(3600);

/// The samples of one chunk, or of chunks that follow each other.
#[derive(Default)]
pub(crate) struct Lane {
    pub(crate) samples: Samples,
    /// Times of samples with the number of raw samples in their windows; empty where the store did not send it.
    counts: Vec<(i64, f64)>,
    /// The length of the windows in milliseconds. Windows begin at multiples of it, and their samples are in their last
    /// millisecond, but for the last one of a chunk, which ends with its last raw sample.
    resolution: i64,
}

/// Samples of one lane in one window.
struct WindowPart {
    window: i64,
    /// More is better.
    weight: f64,
    lane: usize,
    /// Their indices in the timeline of the lane.
    samples: Range<usize>,
}

impl Lane {
    /// Sets the length of the windows of a chunk, and their counts if it has them.
    pub(crate) fn set_windows(&mut self, chunk: &AggrChunk) -> Result<(), DecodeProblem> {
        self.resolution = i64::try_from(chunk.estimated_resolution().as_millis()).unwrap_or(i64::MAX);
        if let Some(count) = &chunk.count {
            let (mut times, mut counts) = (Vec::new(), Vec::new());
            count.decode_floats(&mut times, &mut counts)?;
            self.counts = times.into_iter().zip(counts).collect();
        }
        Ok(())
    }

    /// About when the first raw sample of a chunk was. Its first window can be the rest of one in which another chunk ends.
    fn begin(&self, first: i64, resolution: i64, most: f64) -> i64 {
        let share = self.counts.first().map_or(0.0, |(_, count)| (count / most).clamp(0.0, 1.0));
        // Half an interval of raw samples less.
        first.saturating_sub(((share - 0.5 / most).max(0.0) * resolution as f64) as i64)
    }

    fn first_time(&self) -> Option<i64> {
        let float = self.samples.timestamps.first().copied();
        let histogram = self.samples.histograms.first().map(|(time, _)| *time);
        float.into_iter().chain(histogram).min()
    }

    /// The samples of chunks in the order of time. One timestamp can be in several chunks only if there are too many lanes.
    fn of_chunks(chunks: Vec<Self>) -> Self {
        let mut counts: Vec<(i64, f64)> =
            chunks.iter().flat_map(|chunk| chunk.counts.iter().copied()).collect();
        counts.sort_by_key(|(time, _)| *time);
        let samples: Vec<Samples> = chunks.into_iter().map(|chunk| chunk.samples).collect();
        Self { samples: chain::union(&samples), counts, resolution: 0 }
    }
}

/// Joins chunks, which are sorted by min time, to lanes. A chunk continues the lane that ends shortly before it begins, so that
/// the chunks of one block are in one lane. If there are too many lanes, chunks of the last one overlap.
fn lanes(chunks: Vec<Lane>, resolution: i64) -> Vec<Lane> {
    let counts = chunks.iter().flat_map(|chunk| &chunk.counts).map(|(_, count)| *count);
    let most = counts.fold(1.0, f64::max);
    let mut lanes: Vec<(i64, Vec<Lane>)> = Vec::new();
    for chunk in chunks {
        let (Some(first), Some(last)) = (chunk.first_time(), chunk.samples.last_time(0, 0)) else { continue };
        let begin = chunk.begin(first, resolution, most);
        let ended = lanes.iter().enumerate().filter(|(_, (end, _))| *end < begin);
        let continued = ended.max_by_key(|(_, (end, _))| *end).map(|(at, _)| at);
        let full = (lanes.len() >= MAX_REPLICAS).then(|| lanes.len() - 1);
        match continued.or(full).and_then(|at| lanes.get_mut(at)) {
            Some((end, lane)) => {
                *end = last.max(*end);
                lane.push(chunk);
            }
            None => lanes.push((last, vec![chunk])),
        }
    }
    lanes.into_iter().map(|(_, chunks)| Lane::of_chunks(chunks)).collect()
}

/// Whether downsampled chunks overlap. All chunks are sorted by min time.
pub(crate) fn is_in<'a>(chunks: impl Iterator<Item = &'a AggrChunk>) -> bool {
    let mut end = None;
    chunks.filter(|chunk| chunk.raw.is_none()).map(AggrChunk::range).any(|range| {
        let overlaps = end.is_some_and(|end| range.min <= end);
        end = end.max(Some(range.max));
        overlaps
    })
}

/// The samples of chunks, which are sorted by min time: for each window those of one lane.
pub(crate) fn unite(chunks: Vec<Lane>, aggregate: Aggregate) -> Samples {
    // Windows of one resolution are parts of those of a coarser one.
    let resolution = chunks.iter().map(|chunk| chunk.resolution).max().unwrap_or(0).max(1);
    let lanes = lanes(chunks, resolution);
    let timelines: Vec<MixedTimeline<'_>> =
        lanes.iter().map(|lane| MixedTimeline::new(&lane.samples)).collect();
    let mut parts: Vec<WindowPart> = Vec::new();
    for (lane, timeline) in timelines.iter().enumerate() {
        let mut counts = lanes[lane].counts.iter().peekable();
        for index in 0..timeline.len() {
            let time = timeline.time(index);
            while counts.next_if(|(at, _)| *at < time).is_some() {}
            let count = counts.peek().filter(|(at, _)| *at == time).map(|(_, count)| *count);
            let (window, weight) = match aggregate {
                // The least of parts of a window is that of the window, so all parts can be taken.
                Aggregate::Min => (time, -timeline.float(index).unwrap_or(0.0)),
                Aggregate::Max => (time, timeline.float(index).unwrap_or(0.0)),
                _ => (time.div_euclid(resolution), count.or(timeline.float(index)).unwrap_or(0.0).abs()),
            };
            match parts.last_mut() {
                Some(part) if part.lane == lane && part.window == window => {
                    part.weight += weight;
                    part.samples.end = index + 1;
                }
                _ => parts.push(WindowPart { window, weight, lane, samples: index..index + 1 }),
            }
        }
    }
    // Where two lanes have as many samples, the one whose window has fewer parts.
    parts.sort_by(|a, b| {
        let order = a.window.cmp(&b.window).then(b.weight.total_cmp(&a.weight));
        order.then(a.samples.len().cmp(&b.samples.len())).then(a.lane.cmp(&b.lane))
    });
    parts.dedup_by_key(|part| part.window);
    let mut out = Samples::new();
    let mut before = None;
    for WindowPart { lane, samples, .. } in parts {
        for index in samples {
            let switched = before.is_some_and(|before| before != (lane, index.wrapping_sub(1)));
            timelines[lane].emit(index, 0.0, switched, &mut out);
            before = Some((lane, index));
        }
    }
    out
}

#[cfg(test)]
mod tests;
