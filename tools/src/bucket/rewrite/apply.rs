//! Applies the changes to all series of a block.

use std::fs::File;
use std::io::{BufWriter, Write};

use model::{Labels, TimeRange};
use tsdb::{Block, BlockSeries, BlockWriter};

use crate::bucket::rewrite::config::{Changes, Interval, ToDelete};
use crate::bucket::rewrite::series::{SampleAccount, cut, join};
use crate::error::{DescribeAction, Result};
use crate::progress::TaskProgress;
use crate::text;

/// The counts of a rewrite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rewritten {
    pub(super) account: SampleAccount,
    /// Series that were read.
    pub(super) series: u64,
    /// Series of which nothing is left.
    pub(super) deleted_series: u64,
    /// Series whose labels changed.
    pub(super) relabelled_series: u64,
    /// Series that were joined with another one, because their labels became equal.
    pub(super) joined_series: u64,
}

impl Rewritten {
    /// Whether the new block would differ from the old one.
    pub(super) fn has_changes(&self) -> bool {
        self.account.read != self.account.written || self.deleted_series > 0 || self.relabelled_series > 0
    }
}

/// Where changes are recorded, one line for each series.
pub(super) enum ChangeLog {
    None,
    /// Keeps the first lines and counts the rest.
    First {
        lines: Vec<String>,
        limit: usize,
        left_out: u64,
    },
    File(BufWriter<File>),
}

impl ChangeLog {
    fn line(&mut self, line: std::fmt::Arguments<'_>) -> Result<()> {
        match self {
            Self::None => Ok(()),
            Self::First { lines, limit, .. } if lines.len() < *limit => {
                lines.push(line.to_string());
                Ok(())
            }
            Self::First { left_out, .. } => {
                *left_out += 1;
                Ok(())
            }
            Self::File(file) => writeln!(file, "{line}").context("write the change log"),
        }
    }

    fn deleted(&mut self, labels: &Labels, intervals: &[Interval]) -> Result<()> {
        let intervals: Vec<String> = intervals.iter().map(|i| format!("{{{} {}}}", i.min, i.max)).collect();
        self.line(format_args!("Deleted {labels} [{}]", intervals.join(" ")))
    }

    /// The lines to print.
    pub(super) fn finish(self) -> Result<Vec<String>> {
        match self {
            Self::None => Ok(Vec::new()),
            Self::First { mut lines, left_out, .. } => {
                if left_out > 0 {
                    lines.push(format!("... and {}", text::count(left_out, "more change")));
                }
                Ok(lines)
            }
            Self::File(mut file) => file.flush().context("write the change log").map(|()| Vec::new()),
        }
    }
}

/// Applies `changes` to every series of `block` and writes the result to `writer`, if there is one.
///
/// Without relabelling, one series is in memory at a time. With relabelling the order changes, so the labels and chunk
/// references of all series are in memory; chunks are still read one series at a time.
///
/// # Errors
/// A damaged block, a file that cannot be written, or a change that would lose samples.
pub(super) fn rewrite(
    block: &Block,
    changes: &Changes,
    writer: Option<&mut BlockWriter>,
    log: &mut ChangeLog,
    progress: &TaskProgress,
) -> Result<Rewritten> {
    let mut run = Run { block, changes, writer, log, progress, done: Rewritten::default() };
    let series = block.select(&[], TimeRange::ALL)?.with_deleted_chunks();
    if changes.relabeling.is_empty() {
        for series in series {
            let series = series?;
            let labels = series.labels.clone();
            run.group(&labels, vec![series])?;
        }
        return Ok(run.done);
    }
    let mut relabelled: Vec<(Labels, BlockSeries)> = Vec::new();
    for series in series {
        let series = series?;
        match changes.relabeling.apply(&series.labels).filter(|labels| !labels.is_empty()) {
            Some(labels) => relabelled.push((labels, series)),
            None => run.dropped(&series)?,
        }
    }
    // The sort is stable: series that become equal keep the order of the old block.
    relabelled.sort_by(|a, b| a.0.cmp(&b.0));
    let mut rest = relabelled.into_iter().peekable();
    while let Some((labels, first)) = rest.next() {
        let mut group = vec![first];
        while let Some((_, next)) = rest.next_if(|(next, _)| *next == labels) {
            group.push(next);
        }
        run.group(&labels, group)?;
    }
    Ok(run.done)
}

/// A rewrite that is running.
struct Run<'a> {
    block: &'a Block,
    changes: &'a Changes,
    writer: Option<&'a mut BlockWriter>,
    log: &'a mut ChangeLog,
    progress: &'a TaskProgress,
    done: Rewritten,
}

impl Run<'_> {
    /// Counts a series that relabelling drops.
    fn dropped(&mut self, series: &BlockSeries) -> Result<()> {
        let chunks = self.block.chunks(&series.chunks)?;
        let samples: u64 = chunks.iter().map(|chunk| chunk.sample_count() as u64).sum();
        self.done.series += 1;
        self.done.deleted_series += 1;
        self.done.account.add(SampleAccount { read: samples, deleted: samples, ..SampleAccount::default() });
        self.progress.add(1);
        let all = chunks.first().zip(chunks.last());
        let interval = all.map(|(first, last)| Interval {
            min: first.range.min.as_millis(),
            max: last.range.max.as_millis(),
        });
        self.log.deleted(&series.labels, interval.as_slice())
    }

    /// Writes the remaining samples of the series that now have `labels`.
    fn group(&mut self, labels: &Labels, group: Vec<BlockSeries>) -> Result<()> {
        let (mut account, mut kept) = (SampleAccount::default(), Vec::new());
        let several = group.len() > 1;
        self.done.joined_series += group.len() as u64 - 1;
        for series in group {
            let chunks = self.block.chunks(&series.chunks)?;
            account.read += chunks.iter().map(|chunk| chunk.sample_count() as u64).sum::<u64>();
            let to_delete = with_tombstones(self.changes.to_delete(&series.labels), &series.deleted);
            let left = cut(&series.labels, chunks, &to_delete)?;
            account.deleted += left.deleted;
            self.done.series += 1;
            self.progress.add(1);
            if left.deleted > 0 {
                self.log.deleted(&series.labels, &left.intervals)?;
            }
            if left.chunks.is_empty() {
                self.done.deleted_series += 1;
            } else if series.labels != *labels {
                self.done.relabelled_series += 1;
                self.log.line(format_args!("Relabelled {} {labels}", series.labels))?;
            }
            kept.extend(left.chunks);
        }
        if several {
            let joined = join(labels, kept)?;
            (kept, account.duplicates) = (joined.chunks, joined.duplicates);
        }
        account.written = kept.iter().map(|chunk| chunk.sample_count() as u64).sum();
        self.done.account.add(account);
        match &mut self.writer {
            Some(writer) if !kept.is_empty() => Ok(writer.add_series(labels, kept)?),
            _ => Ok(()),
        }
    }
}

/// Adds the intervals of tombstones to `to_delete`, because the new block has no tombstones.
fn with_tombstones(to_delete: ToDelete, deleted: &[TimeRange]) -> ToDelete {
    let gone =
        deleted.iter().map(|range| Interval { min: range.min.as_millis(), max: range.max.as_millis() });
    match to_delete {
        ToDelete::Everything => ToDelete::Everything,
        ToDelete::Nothing if deleted.is_empty() => ToDelete::Nothing,
        ToDelete::Nothing => ToDelete::Intervals(gone.collect()),
        ToDelete::Intervals(intervals) => ToDelete::Intervals(crate::bucket::rewrite::config::merged(
            intervals.into_iter().chain(gone).collect(),
        )),
    }
}
