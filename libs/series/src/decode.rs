//! Decodes the replicas of a series to its samples.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use model::{CounterResetHint, TimeRange, Timestamp};
use tsdb::{Aggregate, Chunk};

use crate::error::{DecodeError, DecodeProblem};
use crate::overlap::{self, Lane};
use crate::selected::MAX_REPLICAS;
use crate::{AggrChunk, DecodeOptions, Dedup, Samples, SelectedSeries, chain, counter, mixed, timeline};

/// The number of samples that a chunk announces, bounded by its size: a sample takes at least one bit.
fn announced_samples(chunk: &Chunk) -> usize {
    chunk.sample_count().min(chunk.data.len() * 8)
}

impl SelectedSeries {
    /// Decodes the series into `out` and replaces its content.
    ///
    /// `out` gets the samples within [`DecodeOptions::range`], in time order, one for each timestamp. Replicas are
    /// deduplicated according to [`DecodeOptions::dedup`], with their samples within [`DecodeOptions::read_range`]. `out` is
    /// empty when the series has no sample in the range.
    ///
    /// # Errors
    /// When a chunk that is needed cannot be decoded; `out` is then empty. Chunks of a replica that deduplication does not
    /// need are not decoded.
    pub fn decode(&self, options: &DecodeOptions, out: &mut Samples) -> Result<(), DecodeError> {
        let result = self.decode_into(options, out);
        if result.is_err() {
            out.clear();
        }
        result
    }

    fn decode_into(&self, options: &DecodeOptions, out: &mut Samples) -> Result<(), DecodeError> {
        out.clear();
        // Raw counters are not changed: the functions that read them handle resets, and raw values show more than running
        // totals do (how close to zero a counter started). Totals and raw values cannot be compared, so all are totals or
        // none.
        let totals = options.aggregate == Aggregate::Counter
            && self.replicas.iter().flatten().any(|chunk| chunk.raw.is_none());
        if let [lane] = self.replicas.as_slice() {
            return self.decode_lane(lane.iter(), options, totals, out);
        }
        if options.dedup == Dedup::Off {
            let mut chunks: Vec<&AggrChunk> = self.replicas.iter().flatten().collect();
            chunks.sort_by_key(|chunk| (chunk.range().min, chunk.range().max));
            return self.decode_lane(chunks.into_iter(), options, totals, out);
        }
        if options.dedup == Dedup::Chain || self.replicas.len() > MAX_REPLICAS {
            let mut replicas = Vec::with_capacity(self.replicas.len());
            for lane in &self.replicas {
                let mut samples = Samples::new();
                self.decode_lane(lane.iter(), options, totals, &mut samples)?;
                replicas.push(samples);
            }
            *out = chain::union(&replicas);
            return Ok(());
        }
        let read = DecodeOptions { range: options.read_range(), ..*options };
        self.decode_by_penalty(&read, totals, out)?;
        out.trim(options.range);
        Ok(())
    }

    /// Appends the samples of the chunks of one producer, which are sorted by min time, to `out`, which is empty, cut to the
    /// range. Where raw chunks overlap, their samples are united, and where downsampled ones do, their windows. Where raw ones
    /// overlap downsampled ones, each window has samples of one kind.
    pub(crate) fn decode_lane<'a>(
        &self,
        lane: impl Iterator<Item = &'a AggrChunk> + Clone,
        options: &DecodeOptions,
        totals: bool,
        out: &mut Samples,
    ) -> Result<(), DecodeError> {
        if mixed::is_in(lane.clone()) {
            let mut kinds = [Samples::new(), Samples::new()];
            let [raw, aggregates] = &mut kinds;
            self.decode_kind(lane.clone().filter(|chunk| chunk.raw.is_some()), options, totals, raw)?;
            self.decode_kind(lane.clone().filter(|chunk| chunk.raw.is_none()), options, totals, aggregates)?;
            *out = mixed::choose(lane, &kinds[0], &kinds[1], totals);
            return Ok(());
        }
        self.decode_kind(lane, options, totals, out)
    }

    /// The same for chunks of which raw ones do not overlap downsampled ones.
    fn decode_kind<'a>(
        &self,
        lane: impl Iterator<Item = &'a AggrChunk> + Clone,
        options: &DecodeOptions,
        totals: bool,
        out: &mut Samples,
    ) -> Result<(), DecodeError> {
        if totals {
            counter::decode(lane, out).map_err(|(range, problem)| self.error(range, problem))?;
            out.trim(options.range);
            return Ok(());
        }
        let lane = lane.filter(|chunk| chunk.range().overlaps(&options.range));
        let announced = lane.clone().filter_map(|c| c.parts().next()).filter(|c| c.encoding.holds_floats());
        let announced = announced.map(announced_samples).sum();
        out.timestamps.reserve(announced);
        out.values.reserve(announced);
        let same_window = if overlap::is_in(lane.clone()) { overlap::LONGEST_WINDOW } else { Duration::ZERO };
        let mut lane = lane.peekable();
        let mut next = Some(options.range.min.as_millis());
        let mut overlapping = Vec::new();
        while let Some(chunk) = lane.next() {
            let mut end = chunk.range().max;
            let reaches = |end: Timestamp, later: &AggrChunk| {
                let windows = chunk.raw.is_none() && later.raw.is_none();
                later.range().min <= if windows { end + same_window } else { end }
            };
            while let Some(later) = lane.next_if(|later| reaches(end, later)) {
                if overlapping.is_empty() {
                    overlapping.push(chunk);
                }
                overlapping.push(later);
                end = end.max(later.range().max);
            }
            next = match overlapping.is_empty() {
                true => self.add_chunk(chunk, options, next, out)?,
                false => self.unite(&overlapping, options, next, out)?,
            };
            overlapping.clear();
        }
        Ok(())
    }

    /// Appends the samples of one chunk from `next` on. Returns the least time of the next sample; none after a sample at
    /// the greatest time, which no sample can follow.
    fn add_chunk(
        &self,
        chunk: &AggrChunk,
        options: &DecodeOptions,
        next: Option<i64>,
        out: &mut Samples,
    ) -> Result<Option<i64>, DecodeError> {
        let Some(from) = next else { return Ok(None) };
        let (floats, histograms) = (out.timestamps.len(), out.histograms.len());
        append(chunk, options, out)
            .and_then(|()| out.check_order(floats, histograms))
            .map_err(|problem| self.error(chunk.range(), problem))?;
        let overlapped = from > options.range.min.as_millis();
        out.cut_new(floats, histograms, from, options.range.max.as_millis(), overlapped);
        Ok(out.last_time(floats, histograms).map_or(next, |last| last.checked_add(1)))
    }

    /// Appends the samples of chunks that overlap, one for each time or window; otherwise like [`add_chunk`](Self::add_chunk).
    fn unite(
        &self,
        overlapping: &[&AggrChunk],
        options: &DecodeOptions,
        next: Option<i64>,
        out: &mut Samples,
    ) -> Result<Option<i64>, DecodeError> {
        let Some(from) = next else { return Ok(None) };
        let mut parts = Vec::with_capacity(overlapping.len());
        for chunk in overlapping {
            let mut part = Lane::default();
            append(chunk, options, &mut part.samples)
                .and_then(|()| part.samples.check_order(0, 0))
                .and_then(|()| part.set_windows(chunk))
                .map_err(|problem| self.error(chunk.range(), problem))?;
            parts.push(part);
        }
        let mut united = if overlapping.iter().any(|chunk| chunk.raw.is_none()) {
            overlap::unite(parts, options.aggregate)
        } else {
            chain::union(&parts.into_iter().map(|part| part.samples).collect::<Vec<_>>())
        };
        united.cut_new(0, 0, from, options.range.max.as_millis(), from > options.range.min.as_millis());
        let last = united.last_time(0, 0);
        out.append(united);
        Ok(last.map_or(next, |last| last.checked_add(1)))
    }

    fn error(&self, range: TimeRange, problem: DecodeProblem) -> DecodeError {
        DecodeError { labels: self.labels.clone(), range, problem }
    }
}

/// Appends the samples that a query reads of a chunk: raw samples, otherwise the aggregate.
fn append(chunk: &AggrChunk, options: &DecodeOptions, out: &mut Samples) -> Result<(), DecodeProblem> {
    let missing = DecodeProblem::MissingAggregate;
    if let Some(raw) = &chunk.raw {
        return Ok(out.append_chunk(raw, options.starts)?);
    }
    if options.aggregate == Aggregate::Raw {
        let sum = chunk.sum.as_ref().ok_or(missing(Aggregate::Sum))?;
        let count = chunk.count.as_ref().ok_or(missing(Aggregate::Count))?;
        return append_average(sum, count, out);
    }
    let part = chunk.part(options.aggregate).ok_or(missing(options.aggregate))?;
    Ok(out.append_chunk(part, options.starts)?)
}

/// Appends sum divided by count of each window.
fn append_average(sum: &Chunk, count: &Chunk, out: &mut Samples) -> Result<(), DecodeProblem> {
    let (mut times, mut counts) = (Vec::new(), Vec::new());
    count.decode_floats(&mut times, &mut counts)?;
    let (floats, histograms) = (out.timestamps.len(), out.histograms.len());
    out.append_chunk(sum, false)?;
    let windows = out.timestamps[floats..].iter().chain(out.histograms[histograms..].iter().map(|(t, _)| t));
    if !windows.eq(&times) {
        return Err(DecodeProblem::Unaligned);
    }
    // A chunk has floats or histograms, never both, so at most one of these loops does anything.
    for (value, count) in out.values[floats..].iter_mut().zip(&counts) {
        *value /= count;
    }
    for ((_, histogram), &count) in out.histograms[histograms..].iter_mut().zip(&counts) {
        let histogram = Arc::make_mut(histogram);
        histogram.div(count);
        // An average is a gauge.
        histogram.counter_reset_hint = CounterResetHint::Gauge;
    }
    Ok(())
}

/// Whether the times of a list ascend strictly.
fn ascends<T>(list: &[T], time: impl Fn(&T) -> i64) -> bool {
    list.is_sorted_by(|a, b| time(a) < time(b))
}

impl Samples {
    /// Checks the samples from the given indices on, which came from one chunk.
    fn check_order(&self, floats: usize, histograms: usize) -> Result<(), DecodeProblem> {
        let ordered = ascends(&self.timestamps[floats..], |t| *t)
            && ascends(&self.histograms[histograms..], |(t, _)| *t);
        if ordered { Ok(()) } else { Err(DecodeProblem::Unsorted) }
    }

    /// Keeps the samples from `min` to `max`, both included, of those from the given indices on. Samples before `min` are
    /// outside of the range of the query, or were `overlapped` by the chunk before.
    fn cut_new(&mut self, floats: usize, histograms: usize, min: i64, max: i64, overlapped: bool) {
        let end = floats + self.timestamps[floats..].partition_point(|&t| t <= max);
        self.timestamps.truncate(end);
        self.values.truncate(end);
        self.starts.truncate(end);
        let start = floats + self.timestamps[floats..].partition_point(|&t| t < min);
        if start > floats {
            self.timestamps.drain(floats..start);
            self.values.drain(floats..start);
            drain_starts(&mut self.starts, floats..start);
        }
        let end = histograms + self.histograms[histograms..].partition_point(|(t, _)| *t <= max);
        self.histograms.truncate(end);
        self.histogram_starts.truncate(end);
        let start = histograms + self.histograms[histograms..].partition_point(|(t, _)| *t < min);
        self.histograms.drain(histograms..start);
        drain_starts(&mut self.histogram_starts, histograms..start);
        if start > histograms
            && overlapped
            && let Some((_, histogram)) = self.histograms.get_mut(histograms)
        {
            // Its hint compares it with a sample that another one replaced. A sample outside of the range is still the one
            // before it, so the hint stays, as in Prometheus.
            timeline::forget_reset_hint(histogram);
        }
    }

    /// The latest time of the samples from the given indices on.
    pub(crate) fn last_time(&self, floats: usize, histograms: usize) -> Option<i64> {
        let float = self.timestamps[floats..].last().copied();
        float.max(self.histograms[histograms..].last().map(|(t, _)| *t))
    }

    /// Keeps the samples within `range`.
    fn trim(&mut self, range: TimeRange) {
        self.cut_new(0, 0, range.min.as_millis(), range.max.as_millis(), false);
    }
}

/// Removes the starts of removed samples, if there are starts.
fn drain_starts(starts: &mut Vec<i64>, samples: Range<usize>) {
    if !starts.is_empty() {
        starts.drain(samples);
    }
}

#[cfg(test)]
mod tests;
