//! `tools bucket upload-blocks`: the blocks of a local folder into the bucket.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::bucket::{Bucket, PublishOptions, publish};
use tsdb::{Block, BlockMeta, META_FILE, parse_block_id};

use super::view;
use crate::error::{Cause, Context, Outcome, Result, ToolError};
use crate::output::{Cell, Output, Table, TableFormat};
use crate::progress::{Progress, Unit};
use crate::text;

/// What `thanos.source` says of blocks that come this way.
const SOURCE: &str = "bucket.upload";

/// Flags of `tools bucket upload-blocks`.
#[derive(Debug, clap::Args)]
pub(crate) struct UploadArgs {
    /// Folder with blocks, such as the data folder of a Prometheus
    #[arg(long, value_name = "DIR", default_value = "./data")]
    path: PathBuf,

    /// External label of the blocks, which tells their producer from others (repeatable)
    #[arg(long, value_name = "NAME=\"VALUE\"", required = true, value_parser = text::label)]
    label: Vec<(String, String)>,

    /// Uploads blocks that were compacted locally, too
    #[arg(long = "shipper.upload-compacted")]
    upload_compacted: bool,

    /// Files of a block on their way at once
    #[arg(long = "shipper.upload-concurrency", value_name = "N", default_value_t = 5)]
    upload_concurrency: usize,

    /// Says what would be uploaded, and uploads nothing
    #[arg(long)]
    dry_run: bool,

    /// Form of the report
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    output: TableFormat,

    #[command(flatten)]
    view: view::ViewFlags,
}

/// A block of the folder, and what becomes of it.
struct Local {
    dir: PathBuf,
    meta: BlockMeta,
    size_bytes: u64,
}

pub(super) async fn run(args: UploadArgs, bucket: &Bucket, output: &mut Output) -> Result<Outcome> {
    let (blocks, damaged) = find_blocks(&args.path)?;
    let view = args.view.fetch(bucket, view::all(false)).await?;
    let mut report = Report::new();
    for (dir, error) in damaged {
        report.push(&dir.display().to_string(), None, Verdict::Failed(error));
    }
    let total_bytes = blocks.iter().map(|block| block.size_bytes).sum();
    let progress = Progress::new("upload", Unit::Bytes, total_bytes);
    for block in &blocks {
        let id = block.meta.ulid.to_string();
        progress.at(id.clone());
        let verdict = upload(block, &args, bucket, &view, &progress).await;
        report.push(&id, Some(block), verdict);
    }
    progress.finish();
    output.table(&report.table, args.output)?;
    Ok(if report.failed { Outcome::Found } else { Outcome::Fine })
}

/// Uploads a block, or says why not. One that fails holds up no other.
async fn upload(
    block: &Local,
    args: &UploadArgs,
    bucket: &Bucket,
    view: &::bucket::View,
    progress: &Progress,
) -> Verdict {
    let meta = with_labels(block.meta.clone(), &args.label);
    if meta.compaction.level > 1 && !args.upload_compacted {
        progress.add(block.size_bytes);
        return Verdict::Skipped("compacted locally; --shipper.upload-compacted uploads it".to_owned());
    }
    let overlaps = |other: &&Arc<BlockMeta>| {
        other.ulid != meta.ulid
            && view::group(other) == view::group(&meta)
            && other.time_range().overlaps(&meta.time_range())
    };
    if let Some(other) = view.blocks.values().find(|other| other.compaction.sources.contains(&meta.ulid))
        && other.ulid != meta.ulid
    {
        progress.add(block.size_bytes);
        return Verdict::Skipped(format!("part of block {} in the bucket", other.ulid));
    }
    // Samples of the same time in two blocks would be counted twice where nobody deduplicates.
    if let Some(other) = view.blocks.values().find(overlaps) {
        progress.add(block.size_bytes);
        return Verdict::Failed(format!("overlaps block {} of the same labels in the bucket", other.ulid));
    }
    let (dir, block_bytes) = (block.dir.clone(), block.size_bytes);
    let checked = tokio::task::spawn_blocking(move || verify(&dir)).await;
    if let Err(error) = checked.unwrap_or_else(|error| Err(error.to_string())) {
        progress.add(block_bytes);
        return Verdict::Failed(error);
    }
    if args.dry_run {
        progress.add(block_bytes);
        return match view.blocks.contains_key(&meta.ulid) {
            true => Verdict::Skipped("in the bucket already".to_owned()),
            false => Verdict::WouldBe,
        };
    }
    let (moved, bar) = (AtomicU64::new(0), progress.clone());
    let tell = move |state: ::bucket::Progress| {
        let before = moved.fetch_max(state.verified_bytes, Ordering::Relaxed);
        bar.add(state.verified_bytes.saturating_sub(before));
    };
    let options = PublishOptions {
        concurrency: args.upload_concurrency,
        progress: Some(Arc::new(tell)),
        ..PublishOptions::default()
    };
    match publish(bucket, &block.dir, meta, &options).await {
        Ok(published) if published.sent_bytes == 0 => Verdict::Skipped("in the bucket already".to_owned()),
        Ok(_) => Verdict::Uploaded,
        Err(error) => Verdict::Failed(error.to_string()),
    }
}

/// All problems of a block in one line; a damaged block would be a burden in the bucket for good.
fn verify(dir: &Path) -> Result<(), String> {
    let block = Block::open(dir).map_err(|error| error.to_string())?;
    let problems = crate::block::problems(&block);
    match problems.as_slice() {
        [] => Ok(()),
        [first, rest @ ..] => Err(match rest.len() {
            0 => first.clone(),
            more => format!("{first} (and {more} more: see `tools block verify {}`)", dir.display()),
        }),
    }
}

fn with_labels(mut meta: BlockMeta, labels: &[(String, String)]) -> BlockMeta {
    let thanos = meta.thanos.get_or_insert_default();
    thanos.labels = labels.iter().cloned().collect();
    thanos.source = SOURCE.to_owned();
    meta
}

/// The folder of a block whose `meta.json` cannot be used, and why.
type Damaged = (PathBuf, String);

/// The blocks of a folder, oldest first, and those whose `meta.json` cannot be used, with the reason.
fn find_blocks(path: &Path) -> Result<(Vec<Local>, Vec<Damaged>)> {
    let (mut blocks, mut damaged) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(path).context(format_args!("--path: open folder {}", path.display()))? {
        let entry = entry.context(path.display())?;
        let Some(id) = entry.file_name().to_str().and_then(parse_block_id) else { continue };
        let dir = entry.path();
        match read_local(&dir, id) {
            Ok(block) => blocks.push(block),
            Err(error) => damaged.push((dir, error.to_string())),
        }
    }
    if blocks.is_empty() && damaged.is_empty() {
        return Err(ToolError::new(
            Cause::Missing,
            format!(
                "--path: {} holds no block: give the folder whose folders are named by ULIDs",
                path.display()
            ),
        ));
    }
    blocks.sort_by_key(|block| (block.meta.min_time, block.meta.ulid));
    damaged.sort();
    Ok((blocks, damaged))
}

fn read_local(dir: &Path, id: tsdb::Ulid) -> Result<Local> {
    let path = dir.join(META_FILE);
    let bytes = std::fs::read(&path).context(path.display())?;
    let meta = BlockMeta::parse(&bytes)
        .map_err(|error| ToolError::new(Cause::Damaged, format!("{}: {error}", path.display())))?;
    if meta.ulid != id {
        return Err(ToolError::new(
            Cause::Damaged,
            format!("{}: is of block {}, but the folder is named {id}", path.display(), meta.ulid),
        ));
    }
    let mut size_bytes = std::fs::metadata(dir.join("index")).context(dir.join("index").display())?.len();
    let chunks = dir.join("chunks");
    for entry in std::fs::read_dir(&chunks).context(chunks.display())? {
        size_bytes += entry.and_then(|entry| entry.metadata()).context(chunks.display())?.len();
    }
    Ok(Local { dir: dir.to_owned(), meta, size_bytes })
}

enum Verdict {
    Uploaded,
    WouldBe,
    Skipped(String),
    Failed(String),
}

/// What an upload does not carry: there are no tombstones in a bucket.
fn deletions(local: &Local) -> String {
    match local.meta.stats.tombstones {
        0 => String::new(),
        count => format!("undoes {}: tombstones are not uploaded", text::count(count, "deletion")),
    }
}

/// What became of each block.
struct Report {
    table: Table,
    failed: bool,
}

impl Report {
    fn new() -> Self {
        let table = Table::new(&[
            ("BLOCK", "block"),
            ("FROM", "from"),
            ("UNTIL", "until"),
            ("SIZE", "sizeBytes"),
            ("RESULT", "result"),
            ("WHY", "why"),
        ]);
        Self { table, failed: false }
    }

    fn push(&mut self, block: &str, local: Option<&Local>, verdict: Verdict) {
        let (result, why) = match verdict {
            Verdict::Uploaded => ("uploaded", local.map(deletions).unwrap_or_default()),
            Verdict::WouldBe => ("would be uploaded", local.map(deletions).unwrap_or_default()),
            Verdict::Skipped(why) => ("skipped", why),
            Verdict::Failed(why) => {
                self.failed = true;
                ("FAILED", why)
            }
        };
        let or_absent = |cell: Option<Cell>| cell.unwrap_or(Cell::Absent);
        self.table.push(vec![
            Cell::text(block),
            or_absent(local.map(|local| Cell::text(text::instant(local.meta.min_time)))),
            or_absent(local.map(|local| Cell::text(text::instant(local.meta.max_time)))),
            or_absent(local.map(|local| Cell::Bytes(local.size_bytes))),
            Cell::text(result),
            Cell::text(why),
        ]);
    }
}
