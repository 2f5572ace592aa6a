//! Divides the chunks of a series into runs of one kind, and reads the chunks of each run.

use model::TimeRange;
use tsdb::{Aggregate, Aggregates, Chunk, Encoding};

use crate::downsample::histograms::HistogramWindows;
use crate::downsample::windows::{RAW_RESOLUTION, chunk_count};
use crate::downsample::{DownsampleError, DownsampleProblem, Downsampler, part};
use crate::timeline;

/// What a chunk contains.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Floats,
    Histograms,
    FloatAggregates,
    HistogramAggregates,
}

/// A chunk with its aggregates, if it has any.
struct Input<'a> {
    chunk: &'a Chunk,
    kind: Kind,
    aggregates: Aggregates,
}

impl<'a> Input<'a> {
    fn of(chunk: &'a Chunk) -> Result<Self, DownsampleProblem> {
        if chunk.encoding != Encoding::Aggregates {
            let kind = if chunk.encoding.holds_floats() { Kind::Floats } else { Kind::Histograms };
            return Ok(Self { chunk, kind, aggregates: Aggregates::default() });
        }
        let aggregates = chunk.aggregates()?;
        let counter = part(&aggregates, Aggregate::Counter)?;
        let kind =
            if counter.encoding.holds_floats() { Kind::FloatAggregates } else { Kind::HistogramAggregates };
        Ok(Self { chunk, kind, aggregates })
    }
}

/// Downsamples the chunks of one series.
pub(super) fn downsample(state: &mut Downsampler, chunks: &[Chunk]) -> Result<Vec<Chunk>, DownsampleError> {
    let mut inputs = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let input = Input::of(chunk).map_err(|problem| DownsampleError { range: chunk.range, problem })?;
        // A chunk without samples has no kind; some versions of Thanos wrote such chunks into downsampled blocks.
        if chunk.sample_count() > 0 {
            inputs.push(input);
        }
    }
    let mut out = Vec::new();
    let mut order = Order { last: None };
    for run in inputs.chunk_by(|a, b| a.kind == b.kind) {
        match run[0].kind {
            Kind::Floats => state.floats(run, &mut order, &mut out)?,
            Kind::FloatAggregates => state.float_aggregates(run, &mut order, &mut out)?,
            Kind::Histograms | Kind::HistogramAggregates => state.histograms(run, &mut order, &mut out)?,
        }
    }
    Ok(out)
}

/// Checks that times ascend over all chunks of a series.
struct Order {
    last: Option<i64>,
}

impl Order {
    /// Checks the times of the next chunk.
    fn check(&mut self, times: impl Iterator<Item = i64> + Clone) -> Result<(), DownsampleProblem> {
        let first = times.clone().next();
        let after = self.last.zip(first).is_none_or(|(last, first)| last < first);
        if !after || !times.clone().is_sorted_by(|a, b| a < b) {
            return Err(DownsampleProblem::Unsorted);
        }
        self.last = times.last().or(self.last);
        Ok(())
    }
}

impl Downsampler {
    /// Downsamples consecutive chunks of floats.
    fn floats(
        &mut self,
        run: &[Input<'_>],
        order: &mut Order,
        out: &mut Vec<Chunk>,
    ) -> Result<(), DownsampleError> {
        self.floats.clear();
        for input in run {
            self.add_floats(input.chunk, order).map_err(at(input))?;
        }
        self.windows.raw(&self.floats, self.to, out).map_err(at_all(run))
    }

    /// Decodes a chunk of floats without staleness markers.
    fn add_floats(&mut self, chunk: &Chunk, order: &mut Order) -> Result<(), DownsampleProblem> {
        let start = self.floats.timestamps.len();
        self.floats.append_chunk(chunk, false)?;
        order.check(self.floats.timestamps[start..].iter().copied())?;
        if timeline::holds_markers(&self.floats.values[start..]) {
            self.floats.remove_floats(start, model::is_stale_nan);
        }
        Ok(())
    }

    /// Downsamples consecutive chunks with aggregates of floats.
    fn float_aggregates(
        &mut self,
        run: &[Input<'_>],
        order: &mut Order,
        out: &mut Vec<Chunk>,
    ) -> Result<(), DownsampleError> {
        // Chunks are joined and not divided, because only at their borders the counter has raw values.
        let each = (run.len() / chunks_of(run, self.from, self.to)).max(1);
        for group in run.chunks(each) {
            self.windows.clear();
            for input in group {
                let added = self.windows.add_aggregates(&input.aggregates);
                added.and_then(|times| order.check(times.iter().copied())).map_err(at(input))?;
            }
            self.windows.coarser(self.to, out).map_err(at_all(group))?;
        }
        Ok(())
    }

    /// Downsamples consecutive chunks of histograms, or with aggregates of histograms.
    fn histograms(
        &mut self,
        run: &[Input<'_>],
        order: &mut Order,
        out: &mut Vec<Chunk>,
    ) -> Result<(), DownsampleError> {
        let raw = run[0].kind == Kind::Histograms;
        let from = if raw { RAW_RESOLUTION } else { self.from };
        let samples: usize = run.iter().map(|input| input.chunk.sample_count()).sum();
        let mut windows = HistogramWindows::new(self.to, samples / chunks_of(run, from, self.to) + 1);
        for input in run {
            self.histograms.clear();
            let added = if raw {
                input.chunk.decode_histograms(&mut self.histograms).map_err(DownsampleProblem::from).and_then(
                    |()| {
                        order.check(self.histograms.iter().map(|(t, _)| *t))?;
                        windows.add_raw(&self.histograms, out)
                    },
                )
            } else {
                windows
                    .add_aggregates(&input.aggregates, out)
                    .and_then(|times| order.check(times.iter().copied()))
            };
            added.map_err(at(input))?;
        }
        windows.finish(out).map_err(at_all(run))
    }
}

/// Into how many chunks to divide the aggregates of a run.
fn chunks_of(run: &[Input<'_>], from: i64, to: i64) -> usize {
    let range = range_of(run);
    let samples = run.iter().map(|input| input.chunk.sample_count()).sum();
    chunk_count(range.min.as_millis(), range.max.as_millis(), from, to, samples)
}

fn range_of(run: &[Input<'_>]) -> TimeRange {
    TimeRange::new(run[0].chunk.range.min, run[run.len() - 1].chunk.range.max)
}

fn at(input: &Input<'_>) -> impl Fn(DownsampleProblem) -> DownsampleError {
    let range = input.chunk.range;
    move |problem| DownsampleError { range, problem }
}

fn at_all(run: &[Input<'_>]) -> impl Fn(DownsampleProblem) -> DownsampleError {
    let range = range_of(run);
    move |problem| DownsampleError { range, problem }
}
