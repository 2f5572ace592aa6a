//! Counts and names what a salvaged block lacks.

use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};

use model::{Labels, Timestamp};
use tsdb::{BlockError, ChunkMeta};

use crate::error::{DescribeAction, Result};
use crate::text;

/// What was lost, and what was changed: numbers, and a line for each place.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    /// Series of which nothing could be read.
    pub(crate) series: u64,
    /// Chunks that could not be read, or not to their end.
    pub(crate) chunks: u64,
    /// Samples, as far as their number is known: those that `meta.json` counts and that could not be read, and those that have
    /// the time of another sample of their series and another value.
    pub(crate) samples: u64,
    lines: Vec<String>,
    limit: usize,
    left_out: u64,
    log: Option<BufWriter<File>>,
}

impl Losses {
    /// No losses. The first `limit` lines are kept, all go to `log`.
    pub(super) fn new(limit: usize, log: Option<BufWriter<File>>) -> Self {
        Self { limit, log, ..Self::default() }
    }

    /// Whether anything was lost.
    pub(crate) fn is_any(&self) -> bool {
        self.series + self.chunks + self.samples > 0
    }

    /// The kept lines, and how many are missing.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let more =
            (self.left_out > 0).then(|| format!("... and {}", text::count(self.left_out, "more line")));
        self.lines.iter().cloned().chain(more)
    }

    /// Bytes of the index in which no series can be read.
    pub(super) fn entries(&mut self, error: &BlockError) -> Result<()> {
        self.line(format_args!("lost: {}", Place(error)))
    }

    /// Series that `meta.json` counts and that were not found; at least one for each of `places` without one.
    pub(super) fn missing_series(&mut self, missing: u64, places: u64) {
        self.series += missing.max(places);
    }

    /// Samples that `meta.json` counts and that were not read.
    pub(super) fn missing_samples(&mut self, missing: u64) {
        self.samples += missing;
    }

    /// A series of which no chunk could be read.
    pub(super) fn whole_series(&mut self, labels: &Labels) -> Result<()> {
        self.series += 1;
        self.line(format_args!("lost: series {labels}: none of its samples can be read"))
    }

    /// A chunk, or its end. `bytes` is its place, such as `chunks/000001 bytes 8 to 100`.
    pub(super) fn chunk(
        &mut self,
        labels: &Labels,
        meta: &ChunkMeta,
        bytes: &str,
        what: fmt::Arguments<'_>,
    ) -> Result<()> {
        self.chunks += 1;
        let (from, to) = (text::instant(meta.range.min), text::instant(meta.range.max));
        self.line(format_args!("lost: series {labels}: chunk from {from} to {to} in {bytes}: {what}"))
    }

    /// Samples that have the time of another sample and another value.
    pub(super) fn conflicts(&mut self, labels: &Labels, samples: u64, first: Timestamp) -> Result<()> {
        self.samples += samples;
        let (samples, first) = (text::count(samples, "sample"), text::instant(first));
        self.line(format_args!(
            "lost: series {labels}: {samples} from {first} on with the time of another sample and another value"
        ))
    }

    /// Samples of a series that cannot be encoded again.
    pub(super) fn unwritable(
        &mut self,
        labels: &Labels,
        samples: u64,
        error: &dyn std::error::Error,
    ) -> Result<()> {
        self.series += 1;
        self.samples += samples;
        let samples = text::count(samples, "sample");
        self.line(format_args!("lost: series {labels}: its {samples} cannot be encoded again: {error}"))
    }

    /// Something in the labels that was changed, so that no sample was lost.
    pub(super) fn changed(&mut self, labels: &Labels, change: &str) -> Result<()> {
        self.line(format_args!("changed: series {labels}: {change}"))
    }

    fn line(&mut self, line: fmt::Arguments<'_>) -> Result<()> {
        if let Some(log) = &mut self.log {
            writeln!(log, "{line}").context("write the change log")?;
        }
        match self.lines.len() < self.limit {
            true => self.lines.push(line.to_string()),
            false => self.left_out += 1,
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        self.log.as_mut().map_or(Ok(()), |log| log.flush().context("write the change log"))
    }
}

/// A place in a block and what is wrong there, without the name of the block.
struct Place<'a>(&'a BlockError);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.offset {
            Some(offset) => write!(f, "{} at byte {offset}: {}", self.0.part, self.0.problem),
            None => write!(f, "{}: {}", self.0.part, self.0.problem),
        }
    }
}
