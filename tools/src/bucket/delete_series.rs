//! `tools bucket delete-series`: deletes series in a range of time.
//!
//! The command writes no block. It notes the deletion beside each block that has such samples. Stores mask them from their next sync on,
//! and the compactor writes the blocks again without them. Blocks that appear while the command runs are looked at, too.

use std::sync::Arc;

use ::bucket::deletions::{self, Deletion, applied};
use ::bucket::{Bucket, BucketView, OpenBlockOptions, Retry, derived_id};
use model::{Matcher, TimeRange};
use runtime::TimeArg;
use tsdb::{BlockMeta, Ulid};

use crate::blocking::blocking;
use crate::bucket::view;
use crate::error::{Cause, CommandOutcome, Result, ToolError};
use crate::output::{Output, Table, TableCell, TableFormat};
use crate::progress::{TaskProgress, Unit};
use crate::text;

/// The bucket is looked at again after blocks were marked, at most so often.
const ROUNDS: usize = 10;

/// Flags of `tools bucket delete-series`.
#[derive(Debug, clap::Args)]
pub(crate) struct DeleteSeriesArgs {
    /// Series to delete, as a selector that matches their labels and the external labels of their block, such as '{job="api"}'
    /// (repeatable: what any of them selects is deleted)
    #[arg(long = "match", value_name = "SELECTOR", required = true)]
    selectors: Vec<String>,

    /// Delete samples from this time on: RFC 3339, or relative to now, such as -2w
    #[arg(long, value_name = "TIME", default_value = "0000-01-01T00:00:00Z", allow_hyphen_values = true)]
    min_time: TimeArg,

    /// Delete samples up to this time, which is included
    #[arg(long, value_name = "TIME", default_value = "9999-12-31T23:59:59Z", allow_hyphen_values = true)]
    max_time: TimeArg,

    /// Only in this block (repeatable)
    #[arg(long, value_name = "ULID", value_parser = text::block_id)]
    id: Vec<Ulid>,

    /// Reason for the deletion, as text for people
    #[arg(long, value_name = "TEXT")]
    details: Option<String>,

    /// Print what would be deleted, and do nothing
    #[arg(long)]
    dry_run: bool,

    /// Format of the report
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    output: TableFormat,

    #[command(flatten)]
    view: view::ViewFlags,
}

/// What a deletion selects of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SelectedSeries {
    pub(super) series: u64,
    /// Chunks with times in the range.
    pub(super) chunks: u64,
}

pub(super) async fn run(
    args: DeleteSeriesArgs,
    bucket: &Bucket,
    output: &mut Output,
) -> Result<CommandOutcome> {
    let requests = requests(&args)?;
    let mut table = Table::new(&[
        ("BLOCK", "block"),
        ("FROM", "from"),
        ("UNTIL", "until"),
        ("LABELS", "labels"),
        ("RESOLUTION", "resolutionMillis"),
        ("#SERIES", "series"),
        ("#CHUNKS", "chunks"),
        ("DELETION", "deletion"),
        ("RESULT", "result"),
    ]);
    let mut changed = false;
    for round in 0..ROUNDS {
        let view = args.view.fetch(bucket, view::all(false)).await?;
        if round == 0 {
            check(&args, &view)?;
        }
        let found = find(&args, &view, &requests, bucket).await?;
        let mut marked = false;
        for Found { meta, deletion, selected, is_masked } in found {
            let result = match (is_masked, args.dry_run) {
                // Reported in the first round.
                (true, _) if round > 0 => continue,
                (true, _) => "masked already",
                (false, true) => "would be masked",
                (false, false) => {
                    let one = std::slice::from_ref(&deletion);
                    deletions::add(bucket, meta.ulid, one, Retry::default()).await?;
                    marked = true;
                    "masked"
                }
            };
            changed |= !is_masked;
            table.push(row(&meta, &deletion, selected, result));
        }
        // A block that is merged meanwhile may have been published after it was looked for.
        if args.dry_run || !marked {
            break;
        }
    }
    output.table(&table, args.output)?;
    if changed && !args.dry_run && args.output == TableFormat::Table {
        output.line(
            "Stores mask these samples from their next sync on. The compactor removes them; until then, Thanos answers with them.",
        )?;
    }
    // A script must notice that the command had no effect.
    Ok(if changed { CommandOutcome::Fine } else { CommandOutcome::Found })
}

/// The deletions, one for each selector. Their ids are the same for the same command at the same second.
fn requests(args: &DeleteSeriesArgs) -> Result<Vec<Deletion>> {
    let now = text::now();
    let range = TimeRange::new(args.min_time.at(now), args.max_time.at(now));
    let request = |selector: &String| {
        let texts = [selector.as_str(), &range.min.to_string(), &range.max.to_string()];
        let deletion = Deletion {
            id: derived_id(u64::try_from(now.as_millis()).unwrap_or(0), &texts).to_string(),
            matchers: text::matchers("--match", selector)?,
            range,
            time: now,
            details: args.details.clone(),
        };
        let wrong = |reason| ToolError::usage(format!("--match {selector:?}: {reason}"));
        deletion.check().map(|()| deletion).map_err(wrong)
    };
    args.selectors.iter().map(request).collect()
}

/// Nothing is changed when a block of `--id` is not there.
fn check(args: &DeleteSeriesArgs, view: &BucketView) -> Result<()> {
    view::note_hidden(view);
    match args.id.iter().find(|id| !view.blocks.contains_key(*id)) {
        None => Ok(()),
        Some(absent) => Err(ToolError::new(
            Cause::Missing,
            format!("--id: block {absent} does not exist or cannot be read: nothing was deleted"),
        )),
    }
}

/// A deletion that selects something of a block.
struct Found {
    meta: Arc<BlockMeta>,
    deletion: Arc<Deletion>,
    selected: SelectedSeries,
    is_masked: bool,
}

/// What the deletions select of the blocks.
async fn find(
    args: &DeleteSeriesArgs,
    view: &BucketView,
    requests: &[Deletion],
    bucket: &Bucket,
) -> Result<Vec<Found>> {
    let mut concerned = Vec::new();
    for meta in view.blocks.values().filter(|meta| args.id.is_empty() || args.id.contains(&meta.ulid)) {
        let times = TimeRange::new(meta.min_time, meta.max_time.offset_millis(-1));
        let external = text::labels_of(view::labels(meta));
        for request in requests {
            if let Some(matchers) = request.matchers_for(&external, times) {
                concerned.push((meta, request, matchers));
            }
        }
    }
    let progress = TaskProgress::new("look at", Unit::Count("blocks"), concerned.len() as u64);
    let mut found = Vec::new();
    for (meta, request, matchers) in concerned {
        progress.at(meta.ulid.to_string());
        progress.add(1);
        let pending = view.deletions.get(&meta.ulid);
        let is_same =
            |other: &&Arc<Deletion>| other.matchers == request.matchers && other.range == request.range;
        let same = pending.and_then(|all| all.iter().find(is_same)).cloned();
        let selected = match count(bucket, meta.ulid, &matchers, request.range).await {
            Ok(selected) => selected,
            // It was removed since the bucket was looked at.
            Err(error) if error.cause() == Cause::Missing => continue,
            Err(error) => {
                progress.finish();
                return Err(error);
            }
        };
        if selected.chunks == 0 {
            continue;
        }
        let is_masked = same.is_some();
        let deletion = same.unwrap_or_else(|| Arc::new(fresh(request, meta)));
        found.push(Found { meta: Arc::clone(meta), deletion, selected, is_masked });
    }
    progress.finish();
    Ok(found)
}

/// The deletion, under another id if that one is said to be done in the block: a part of it was merged before it was marked.
fn fresh(request: &Deletion, meta: &BlockMeta) -> Deletion {
    let done = applied(meta);
    let ids = std::iter::once(request.id.clone()).chain((2..).map(|n| format!("{}-{n}", request.id)));
    let id = ids.into_iter().find(|id| !done.contains(id.as_str()));
    Deletion { id: id.unwrap_or_else(|| request.id.clone()), ..request.clone() }
}

/// What matchers select of a block in a range of time. The index is read, and no chunks.
pub(super) async fn count(
    bucket: &Bucket,
    block: Ulid,
    matchers: &[Matcher],
    range: TimeRange,
) -> Result<SelectedSeries> {
    let opened = bucket.open_block(block, &OpenBlockOptions::default()).await?.into_block();
    let matchers = matchers.to_vec();
    blocking(move || {
        let mut selected = SelectedSeries::default();
        for series in opened.select(&matchers, range)? {
            selected.series += 1;
            selected.chunks += series?.chunks.len() as u64;
        }
        Ok(selected)
    })
    .await
}

fn row(meta: &BlockMeta, deletion: &Deletion, selected: SelectedSeries, result: &str) -> Vec<TableCell> {
    vec![
        TableCell::text(meta.ulid.to_string()),
        TableCell::text(text::instant(meta.min_time)),
        TableCell::text(text::instant(meta.max_time)),
        TableCell::Labels(view::labels(meta).clone()),
        TableCell::Length(meta.resolution().as_millis() as i64),
        TableCell::Number(selected.series),
        TableCell::Number(selected.chunks),
        TableCell::text(deletion.id.clone()),
        TableCell::text(result),
    ]
}
