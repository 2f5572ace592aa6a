//! From encoded replicas to the samples of one series.

use std::ops::Range;
use std::sync::Arc;

use model::{CounterResetHint, TimeRange};
use tsdb::{Aggregate, Chunk};

use crate::error::{DecodeError, DecodeProblem};
use crate::selected::MAX_REPLICAS;
use crate::{AggrChunk, DecodeOptions, Dedup, Samples, SelectedSeries, chain, counter, timeline};

/// Bounds on what a chunk is trusted to announce before it is read: a sample takes at least one bit.
fn announced_samples(chunk: &Chunk) -> usize {
    chunk.sample_count().min(chunk.data.len() * 8)
}

impl SelectedSeries {
    /// Decodes the series into `out`, whose former content is replaced.
    ///
    /// Samples are those within [`DecodeOptions::range`], in time order, one for each timestamp. Replicas are cut to
    /// the range first and then become one as [`DecodeOptions::dedup`] says. A series whose samples are all outside
    /// comes out empty.
    ///
    /// # Errors
    /// When a chunk that matters cannot be read; `out` then is empty. Chunks of a replica whose samples another one
    /// makes unnecessary are not looked at.
    pub fn decode(&self, options: &DecodeOptions, out: &mut Samples) -> Result<(), DecodeError> {
        let result = self.decode_into(options, out);
        if result.is_err() {
            out.clear();
        }
        result
    }

    fn decode_into(&self, options: &DecodeOptions, out: &mut Samples) -> Result<(), DecodeError> {
        out.clear();
        if let [lane] = self.replicas.as_slice() {
            return self.decode_lane(lane.iter(), options, out).map(drop);
        }
        if options.dedup == Dedup::Off {
            let mut chunks: Vec<&AggrChunk> = self.replicas.iter().flatten().collect();
            chunks.sort_by_key(|chunk| (chunk.range().min, chunk.range().max));
            return self.decode_lane(chunks.into_iter(), options, out).map(drop);
        }
        if options.dedup == Dedup::Chain || self.replicas.len() > MAX_REPLICAS {
            let mut replicas = Vec::with_capacity(self.replicas.len());
            for lane in &self.replicas {
                let mut samples = Samples::new();
                self.decode_lane(lane.iter(), options, &mut samples)?;
                replicas.push(samples);
            }
            *out = chain::union(&replicas);
            return Ok(());
        }
        *out = self.decode_by_penalty(options)?;
        Ok(())
    }

    /// Appends the samples of chunks that are sorted by time to the empty `out`, cut to the range. Of overlapping
    /// chunks, only what lies after the end of the earlier counts. Answers whether counter resets were applied.
    pub(crate) fn decode_lane<'a>(
        &self,
        lane: impl Iterator<Item = &'a AggrChunk> + Clone,
        options: &DecodeOptions,
        out: &mut Samples,
    ) -> Result<bool, DecodeError> {
        // Raw counters are left as they are: the functions that read them handle resets, and see more in them
        // (how close to zero a counter started) than in running totals.
        let apply_resets =
            options.aggregate == Aggregate::Counter && lane.clone().any(|chunk| chunk.raw.is_none());
        if apply_resets {
            counter::decode(lane, out).map_err(|(range, problem)| self.error(range, problem))?;
            out.trim(options.range);
            return Ok(true);
        }
        let lane = lane.filter(|chunk| chunk.range().overlaps(&options.range));
        let announced = lane.clone().filter_map(|c| c.parts().next()).filter(|c| c.encoding.holds_floats());
        let announced = announced.map(announced_samples).sum();
        out.timestamps.reserve(announced);
        out.values.reserve(announced);
        let mut next = Some(options.range.min.as_millis());
        for chunk in lane {
            // None when a sample at the end of time was read: nothing can follow.
            let Some(from) = next else { break };
            let (floats, histograms) = (out.timestamps.len(), out.histograms.len());
            append(chunk, options, out)
                .and_then(|()| out.check_order(floats, histograms))
                .map_err(|problem| self.error(chunk.range(), problem))?;
            let overlapped = from > options.range.min.as_millis();
            out.cut_new(floats, histograms, from, options.range.max.as_millis(), overlapped);
            if let Some(last) = out.last_time(floats, histograms) {
                next = last.checked_add(1);
            }
        }
        Ok(false)
    }

    fn error(&self, range: TimeRange, problem: DecodeProblem) -> DecodeError {
        DecodeError { labels: self.labels.clone(), range, problem }
    }
}

/// Appends what a query reads of a chunk: raw samples, else the aggregate.
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
    // A chunk holds floats or histograms, never both, so at most one of these loops has work.
    for (value, count) in out.values[floats..].iter_mut().zip(&counts) {
        *value /= count;
    }
    for ((_, histogram), &count) in out.histograms[histograms..].iter_mut().zip(&counts) {
        let histogram = Arc::make_mut(histogram);
        histogram.div(count);
        // An average does not accumulate.
        histogram.counter_reset_hint = CounterResetHint::Gauge;
    }
    Ok(())
}

/// Whether a list of times ascends strictly.
fn ascends<T>(list: &[T], time: impl Fn(&T) -> i64) -> bool {
    list.is_sorted_by(|a, b| time(a) < time(b))
}

impl Samples {
    /// Checks the samples from the given places on, which came from one chunk.
    fn check_order(&self, floats: usize, histograms: usize) -> Result<(), DecodeProblem> {
        let ordered = ascends(&self.timestamps[floats..], |t| *t)
            && ascends(&self.histograms[histograms..], |(t, _)| *t);
        if ordered { Ok(()) } else { Err(DecodeProblem::Unsorted) }
    }

    /// Of the samples from the given places on, keeps those from `min` to `max`, both included. What was before `min` is
    /// outside the range that is asked for, or was `overlapped` by the chunk before.
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
            // Its hint speaks of a sample that another has taken the place of. A sample that is merely not asked for is
            // still the one before, and Prometheus keeps the hint, too.
            timeline::forget_reset_hint(histogram);
        }
    }

    /// The latest time from the given places on.
    pub(crate) fn last_time(&self, floats: usize, histograms: usize) -> Option<i64> {
        let float = self.timestamps[floats..].last().copied();
        float.max(self.histograms[histograms..].last().map(|(t, _)| *t))
    }

    /// Keeps the samples within `range`.
    fn trim(&mut self, range: TimeRange) {
        self.cut_new(0, 0, range.min.as_millis(), range.max.as_millis(), false);
    }
}

/// Removes the starts of samples that are removed, if there are starts.
fn drain_starts(starts: &mut Vec<i64>, samples: Range<usize>) {
    if !starts.is_empty() {
        starts.drain(samples);
    }
}

#[cfg(test)]
mod tests;
