//! Makes a new block of what can be read of a damaged one: `tools bucket rewrite --salvage` and `tools block salvage`.
//!
//! ```text
//! series.rs   reads the chunks of one series and puts their samples in order
//! losses.rs   counts and names what was lost
//! (this)      all series of a block, in order, and its meta.json
//! ```
//! Only bytes whose checksums are right become samples of the new block. It is verified before it is used.

mod losses;
mod series;

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use tsdb::{
    BlockDesc, BlockMeta, BlockOptions, BlockSalvage, BlockWriter, Compaction, SalvagedSeries, ThanosMeta,
    Ulid, VerifyEvent, verify_dir,
};

use crate::digest;
use crate::error::{Cause, DescribeAction, Result, ToolError};
use crate::output::{Table, TableCell};
use crate::progress::{TaskProgress, Unit};
use crate::text;
pub(crate) use losses::Losses;
use series::SeriesReader;

/// What to do with what can be read.
pub(crate) struct SalvageOptions {
    /// The id of the new block: [`new_id`].
    pub(crate) new: Ulid,
    /// Writes nothing.
    pub(crate) dry_run: bool,
    /// `thanos.source` of the new block, if the old one has a `thanos` section.
    pub(crate) source: &'static str,
    /// Number of lines about problems, and about losses, that are kept for printing.
    pub(crate) limit: usize,
    /// Receives all lines about losses.
    pub(crate) log: Option<BufWriter<File>>,
}

/// The result of a salvage.
#[derive(Debug, Default)]
pub(crate) struct Salvaged {
    /// The meta of the new block; `None` in a dry run, and if the old block is good.
    pub(crate) meta: Option<BlockMeta>,
    /// Number of problems of the old block. If there are none, no new block is made.
    pub(crate) problems: u64,
    /// The first of them, one line each.
    problem_lines: Vec<String>,
    /// What the new block lacks.
    pub(crate) losses: Losses,
    /// Series that were read, and samples of them.
    pub(crate) series: u64,
    pub(crate) read: u64,
    pub(crate) written: u64,
    /// Samples that tombstones delete.
    pub(crate) deleted: u64,
    /// Samples that are in the old block more than once.
    pub(crate) duplicates: u64,
}

/// The id of the block that is salvaged from `old`. It is always the same, so that an interrupted command can be repeated.
pub(crate) fn new_id(old: Ulid) -> Ulid {
    digest::derived_id(old, "salvage")
}

/// Writes what can be read of the block in `dir` as a new block to folder `parent`, unless the block is good.
///
/// `found` are problems that are known already. Memory: labels and places of chunks of all series, and the samples of one.
///
/// # Errors
/// [`Cause::Damaged`] if nothing can be read. A file that cannot be written; the new block has a problem.
pub(crate) fn salvage(
    dir: &Path,
    found: Vec<String>,
    parent: &Path,
    options: SalvageOptions,
) -> Result<Salvaged> {
    let (mut problems, mut problem_lines) = (found.len() as u64, found);
    verify_dir(dir, &mut |event| {
        if let VerifyEvent::Problem(error) = event {
            problems += 1;
            if problem_lines.len() < options.limit {
                problem_lines.push(error.to_string());
            }
        }
    });
    if problems == 0 {
        return Ok(Salvaged::default());
    }
    let reader = BlockSalvage::open(dir).context("nothing can be salvaged")?;
    let (mut all, unread) = reader.series()?;
    let old = reader.meta().clone();
    let mut losses = Losses::new(options.limit, options.log);
    for error in &unread {
        losses.entries(error)?;
    }
    let mut done = Salvaged { problems, problem_lines, series: all.len() as u64, ..Salvaged::default() };
    losses.missing_series(old.stats.series.saturating_sub(done.series), unread.len() as u64);

    let mut writer = match options.dry_run {
        true => None,
        false => Some(BlockWriter::create(parent, block_options(&old, options.new, options.source))?),
    };
    // The sort is stable: series with equal labels keep the order of the file.
    all.sort_by(|a, b| a.labels.cmp(&b.labels));
    let progress = TaskProgress::new("salvage", Unit::Count("series"), done.series);
    let written = write(reader, all, &mut writer, &mut losses, &mut done, &progress);
    progress.finish();
    written?;
    // Without samples in meta.json, as in blocks of other programs, there is nothing to compare with.
    losses.missing_samples(old.stats.samples.saturating_sub(done.read));
    losses.flush()?;
    done.losses = losses;
    if done.written == 0 {
        return Err(ToolError::new(
            Cause::Damaged,
            format!("block {}: nothing can be salvaged: no sample of it can be read", old.ulid),
        ));
    }
    if let Some(writer) = writer {
        done.meta = Some(writer.finish()?);
        check(&parent.join(options.new.to_string()), done.written)?;
    }
    Ok(done)
}

/// Writes all series, which are in the order of their labels.
fn write(
    reader: BlockSalvage,
    all: Vec<SalvagedSeries>,
    writer: &mut Option<BlockWriter>,
    losses: &mut Losses,
    done: &mut Salvaged,
    progress: &TaskProgress,
) -> Result<()> {
    let mut reader = SeriesReader::new(reader, &all);
    for group in all.chunk_by(|a, b| a.labels == b.labels) {
        let Some(labels) = group.first().map(|series| &series.labels) else { continue };
        let merged = reader.merge(labels, group, losses)?;
        progress.add(group.len() as u64);
        done.read += merged.read;
        done.deleted += merged.deleted;
        done.duplicates += merged.duplicates;
        let (Some(first), Some(last)) = (merged.chunks.first(), merged.chunks.last()) else { continue };
        let range = model::TimeRange::new(first.range.min, last.range.max);
        done.written += merged.chunks.iter().map(|chunk| chunk.sample_count() as u64).sum::<u64>();
        if let Some(writer) = writer {
            writer.extend_times(range);
            writer.add_series(labels, merged.chunks)?;
        }
    }
    Ok(())
}

/// The new block continues the old one: the same times, labels and level.
fn block_options(old: &BlockMeta, new: Ulid, source: &str) -> BlockOptions {
    let mut sources = old.compaction.sources.clone();
    if !sources.contains(&old.ulid) {
        sources.push(old.ulid);
    }
    let thanos = old.thanos.clone().map(|thanos| {
        let mut rewrites = thanos.rewrites.clone();
        let sources: Vec<String> = sources.iter().map(ToString::to_string).collect();
        rewrites.push(serde_json::json!({ "sources": sources, "salvaged": true }));
        ThanosMeta {
            source: source.to_owned(),
            files: Vec::new(),
            segment_files: Vec::new(),
            rewrites,
            ..thanos
        }
    });
    let parent = BlockDesc { ulid: old.ulid, min_time: old.min_time, max_time: old.max_time };
    let compaction = Compaction { sources: vec![new], parents: vec![parent], ..old.compaction.clone() };
    let mut options = BlockOptions::new(new);
    options.times = Some((old.min_time, old.max_time));
    options.compaction = Some(compaction);
    options.thanos = thanos;
    options
}

/// Reads the new block back and verifies it.
fn check(dir: &Path, samples: u64) -> Result<()> {
    let mut first = None;
    let found = verify_dir(dir, &mut |event| {
        if let VerifyEvent::Problem(error) = event {
            first.get_or_insert(error);
        }
    });
    let failed =
        |why: String| Err(ToolError::new(Cause::Failed, format!("internal error: the new block {why}")));
    match first {
        Some(error) => failed(format!("has a problem: {error}")),
        None if found.stats.samples != samples => {
            failed(format!("has {} samples, expected {samples}", found.stats.samples))
        }
        None => Ok(()),
    }
}

impl Salvaged {
    /// The kept lines about problems and losses, and how many are missing.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> =
            self.problem_lines.iter().map(|problem| format!("problem: {problem}")).collect();
        let more = self.problems - lines.len() as u64;
        if more > 0 {
            lines.push(format!("... and {}", text::count(more, "more problem")));
        }
        lines.extend(self.losses.lines());
        lines
    }

    /// An empty table for the results of several blocks.
    pub(crate) fn table() -> Table {
        Table::new(&[
            ("BLOCK", "block"),
            ("NEW", "new"),
            ("#PROBLEMS", "problems"),
            ("#SERIES", "series"),
            ("#SAMPLES", "samples"),
            ("#KEPT", "samplesKept"),
            ("#DELETED SAMPLES", "samplesDeleted"),
            ("#DUPLICATES", "samplesDuplicate"),
            ("#LOST SERIES", "seriesLost"),
            ("#LOST CHUNKS", "chunksLost"),
            ("#LOST SAMPLES", "samplesLost"),
            ("RESULT", "result"),
        ])
    }

    /// The row of this block.
    pub(crate) fn row(&self, old: &str, new: Option<Ulid>, result: &str) -> Vec<TableCell> {
        let read = |count: u64| match self.problems == 0 {
            true => TableCell::Absent,
            false => TableCell::Number(count),
        };
        vec![
            TableCell::text(old),
            new.map_or(TableCell::Absent, |new| TableCell::text(new.to_string())),
            TableCell::Number(self.problems),
            read(self.series),
            read(self.read),
            read(self.written),
            read(self.deleted),
            read(self.duplicates),
            read(self.losses.series),
            read(self.losses.chunks),
            read(self.losses.samples),
            TableCell::text(result),
        ]
    }
}
