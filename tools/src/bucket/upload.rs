//! `tools bucket upload-blocks`: uploads the blocks of a local folder to the bucket.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::bucket::marks::{self, MarkKind, MarkState};
use ::bucket::{Bucket, PublishError, PublishOptions, layout, manifest_of, publish};
use tsdb::{Block, BlockMeta, META_FILE, parse_block_id};

use crate::blocking::blocking;
use crate::bucket::view;
use crate::digest;
use crate::error::{Cause, CommandOutcome, DescribeAction, Result, ToolError};
use crate::output::{Output, Table, TableCell, TableFormat};
use crate::progress::{TaskProgress, Unit};
use crate::text;

/// The `thanos.source` of uploaded blocks.
const SOURCE: &str = "bucket.upload";

/// Prometheus' hint on a block whose samples arrived out of order. Such blocks overlap others.
const OUT_OF_ORDER: &str = "from-out-of-order";

/// Flags of `tools bucket upload-blocks`.
#[derive(Debug, clap::Args)]
pub(crate) struct UploadArgs {
    /// Folder with blocks, such as the data folder of a Prometheus
    #[arg(long, value_name = "DIR", default_value = "./data")]
    path: PathBuf,

    /// External label of the blocks, in addition to those that a block has already; the labels identify their producer
    /// (repeatable)
    #[arg(long, value_name = "NAME=\"VALUE\"", required = true, value_parser = text::label)]
    label: Vec<(String, String)>,

    /// Upload blocks that were compacted locally too
    #[arg(long = "shipper.upload-compacted")]
    upload_compacted: bool,

    /// Number of files of a block that are uploaded concurrently
    #[arg(long = "shipper.upload-concurrency", value_name = "N", default_value_t = 5)]
    upload_concurrency: usize,

    /// Print what would be uploaded, and upload nothing
    #[arg(long)]
    dry_run: bool,

    /// Format of the report
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    output: TableFormat,

    #[command(flatten)]
    view: view::ViewFlags,
}

/// A block of the folder.
struct Local {
    dir: PathBuf,
    meta: BlockMeta,
    /// Paths of index and segments below `dir`, with their sizes.
    files: BTreeMap<String, u64>,
    size_bytes: u64,
}

pub(super) async fn run(args: UploadArgs, bucket: &Bucket, output: &mut Output) -> Result<CommandOutcome> {
    let (blocks, damaged) = find_blocks(&args.path)?;
    let view = args.view.fetch(bucket, view::all(false)).await?;
    let mut report = UploadReport::new();
    for (dir, error) in damaged {
        report.push(&dir.display().to_string(), None, Verdict::Failed(error));
    }
    let total_bytes = blocks.iter().map(|block| block.size_bytes).sum();
    let progress = TaskProgress::new("upload", Unit::Bytes, total_bytes);
    let mut uploaded: Vec<BlockMeta> = Vec::new();
    for block in &blocks {
        let id = block.meta.ulid.to_string();
        progress.at(id.clone());
        match upload(block, &args, bucket, &view, &uploaded, &progress).await {
            Ok(verdict) => {
                if matches!(verdict, Verdict::Uploaded | Verdict::WouldBe) {
                    uploaded.push(with_labels(block.meta.clone(), &args.label));
                }
                report.push(&id, Some(block), verdict);
            }
            // The results of earlier blocks are printed too.
            Err(error) => {
                progress.finish();
                output.table(&report.table, args.output)?;
                return Err(error);
            }
        }
    }
    progress.finish();
    output.table(&report.table, args.output)?;
    Ok(if report.failed { CommandOutcome::Found } else { CommandOutcome::Fine })
}

/// Uploads a block, or returns why not. A block that fails does not stop the others. `uploaded` are the blocks that this
/// run has uploaded.
///
/// # Errors
/// The store is unreachable or refuses access, so no other block can be uploaded.
async fn upload(
    block: &Local,
    args: &UploadArgs,
    bucket: &Bucket,
    view: &::bucket::BucketView,
    uploaded: &[BlockMeta],
    progress: &TaskProgress,
) -> Result<Verdict> {
    let meta = with_labels(block.meta.clone(), &args.label);
    let id = meta.ulid;
    let without_upload = |verdict: Verdict| {
        progress.add(block.size_bytes);
        Ok(verdict)
    };
    if meta.compaction.level > 1 && !args.upload_compacted {
        let why = "compacted locally; use --shipper.upload-compacted to upload it";
        return without_upload(Verdict::Skipped(why.to_owned()));
    }
    let others = || view.blocks.values().map(|other| &**other).chain(uploaded);
    let holds_it = |other: &&BlockMeta| other.ulid != id && other.compaction.sources.contains(&id);
    if let Some(other) = others().find(holds_it) {
        return without_upload(Verdict::Skipped(format!("part of block {} in the bucket", other.ulid)));
    }
    // Readers that do not deduplicate would count samples of overlapping blocks twice.
    let is_out_of_order = |meta: &BlockMeta| meta.compaction.hints.iter().any(|hint| hint == OUT_OF_ORDER);
    let overlaps = |other: &&BlockMeta| {
        other.ulid != id
            && view::group(other) == view::group(&meta)
            && other.time_range().overlaps(&meta.time_range())
            && !is_out_of_order(&meta)
            && !is_out_of_order(other)
    };
    if let Some(other) = others().find(overlaps) {
        let why = format!("overlaps block {} with the same labels in the bucket", other.ulid);
        return without_upload(Verdict::Failed(why));
    }
    let dir = block.dir.clone();
    let checked = tokio::task::spawn_blocking(move || verify(&dir)).await;
    if let Err(error) = checked.unwrap_or_else(|error| Err(error.to_string())) {
        return without_upload(Verdict::Failed(error));
    }
    if args.dry_run {
        return without_upload(plan(block, &meta, bucket, view).await?);
    }
    let (moved, bar) = (AtomicU64::new(0), progress.clone());
    let tell = move |state: ::bucket::UploadProgress| {
        let before = moved.fetch_max(state.verified_bytes, Ordering::Relaxed);
        bar.add(state.verified_bytes.saturating_sub(before));
    };
    let options = PublishOptions {
        concurrency: args.upload_concurrency,
        progress: Some(Arc::new(tell)),
        ..PublishOptions::default()
    };
    match publish(bucket, &block.dir, meta, &options).await {
        // Without its meta.json it was not a block in the bucket, even if all of its files were.
        Ok(published) if published.sent_bytes == 0 && view.blocks.contains_key(&id) => {
            Ok(Verdict::Skipped(EXISTS.to_owned()))
        }
        Ok(_) => Ok(Verdict::Uploaded),
        Err(error) => {
            let error = ToolError::from(error);
            match error.cause() {
                Cause::Unreachable | Cause::Refused => Err(error),
                _ => Ok(Verdict::Failed(error.to_string())),
            }
        }
    }
}

/// Why a block that exists in the bucket is not uploaded.
const EXISTS: &str = "exists already";

/// What a run would do with a good block. Nothing is written.
async fn plan(
    block: &Local,
    meta: &BlockMeta,
    bucket: &Bucket,
    view: &::bucket::BucketView,
) -> Result<Verdict> {
    let id = meta.ulid;
    if marks::load(bucket, id, MarkKind::Deletion).await? != MarkState::Absent {
        return Ok(Verdict::Failed(PublishError::Marked(id).to_string()));
    }
    let differs = |object: &str| {
        let error = PublishError::Different { block: id, object: object.to_owned() };
        Ok(Verdict::Failed(error.to_string()))
    };
    let objects = bucket.list_all(&id.to_string()).await?;
    let listed: BTreeMap<&str, u64> = objects
        .iter()
        .filter_map(|object| Some((layout::split(&object.name)?.1, object.size_bytes)))
        .collect();
    let is_other = |path: &str, size: u64| listed.get(path).is_some_and(|listed| *listed != size);
    if let Some((path, _)) = block.files.iter().find(|(path, size)| is_other(path, **size)) {
        return differs(path);
    }
    match view.blocks.get(&id) {
        None if view.corrupt.contains_key(&id) => differs(META_FILE),
        None => Ok(Verdict::WouldBe),
        Some(theirs) if !view::describe_same(theirs, meta) || !has_files(block, theirs).await? => {
            differs(META_FILE)
        }
        Some(_) if block.files.keys().all(|path| listed.contains_key(path.as_str())) => {
            Ok(Verdict::Skipped(EXISTS.to_owned()))
        }
        Some(_) => Ok(Verdict::WouldBe),
    }
}

/// Whether the local files are those of the manifest, if there is one.
async fn has_files(block: &Local, theirs: &BlockMeta) -> Result<bool> {
    let manifest = manifest_of(theirs);
    let is_same = |path: &str, size: u64| block.files.get(path) == Some(&size);
    if manifest.is_empty() {
        return Ok(true);
    }
    if manifest.len() != block.files.len() || !manifest.iter().all(|f| is_same(&f.path, f.size_bytes)) {
        return Ok(false);
    }
    let dir = block.dir.clone();
    blocking(move || {
        for file in manifest {
            let path = dir.join(&file.path);
            let Some(expected) = file.sha256 else { continue };
            if digest::of_file(&path).context(path.display())? != expected {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await
}

/// The problems of a block in one line. A damaged block must not be uploaded.
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

/// The meta with these external labels, which override labels of the same name that the block has.
fn with_labels(mut meta: BlockMeta, labels: &[(String, String)]) -> BlockMeta {
    let thanos = meta.thanos.get_or_insert_default();
    thanos.labels.extend(labels.iter().cloned());
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
                "--path: {} contains no block: give a folder that contains folders named by ULIDs",
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
            format!("{}: its id is {}, expected {id}, the name of the folder", path.display(), meta.ulid),
        ));
    }
    let size = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.len());
    let index = dir.join(layout::INDEX_FILE);
    let mut files = BTreeMap::from([(layout::INDEX_FILE.to_owned(), size(&index).context(index.display())?)]);
    let chunks = dir.join(layout::CHUNKS_DIR);
    for entry in std::fs::read_dir(&chunks).context(chunks.display())? {
        let entry = entry.context(chunks.display())?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.bytes().all(|byte| byte.is_ascii_digit()) {
            let path = entry.path();
            files.insert(format!("{}/{name}", layout::CHUNKS_DIR), size(&path).context(path.display())?);
        }
    }
    let size_bytes = files.values().sum();
    Ok(Local { dir: dir.to_owned(), meta, files, size_bytes })
}

enum Verdict {
    Uploaded,
    WouldBe,
    Skipped(String),
    Failed(String),
}

/// Warns about deletions that an upload drops: a bucket has no tombstones.
fn deletions(local: &Local) -> String {
    let deletions = match local.meta.stats.tombstones {
        0 => return String::new(),
        count => text::count(count, "deletion"),
    };
    eprintln!(
        "warning: block {}: tombstones are not uploaded, so deleted samples appear again: let Prometheus clean its \
         tombstones first",
        local.meta.ulid
    );
    format!("undoes {deletions}: tombstones are not uploaded")
}

/// The result for each block.
struct UploadReport {
    table: Table,
    failed: bool,
}

impl UploadReport {
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
        let or_absent = |cell: Option<TableCell>| cell.unwrap_or(TableCell::Absent);
        self.table.push(vec![
            TableCell::text(block),
            or_absent(local.map(|local| TableCell::text(text::instant(local.meta.min_time)))),
            or_absent(local.map(|local| TableCell::text(text::instant(local.meta.max_time)))),
            or_absent(local.map(|local| TableCell::Bytes(local.size_bytes))),
            TableCell::text(result),
            TableCell::text(why),
        ]);
    }
}
