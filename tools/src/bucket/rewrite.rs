//! `tools bucket rewrite`: deletes or relabels series of blocks. Each block is replaced by a new block.
//!
//! ```text
//! config.rs    the requested changes
//! series.rs    applies them to the chunks of one series
//! apply.rs     applies them to all series of a block, in order, and accounts for every sample
//! salvage.rs   --salvage: replaces a damaged block by what can be read of it
//! replace.rs   publishes the new block, and marks the old one for deletion
//! ```
//! The old block is never changed. The new one is published only after it was read back and verified and its account is
//! balanced. Only then, and only with `--delete-blocks`, the old one is marked for deletion.

mod apply;
mod config;
mod replace;
mod salvage;
mod series;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::bucket::{Bucket, DownloadOptions, Retry, deletions, download};
use tsdb::{Block, BlockDesc, BlockMeta, BlockOptions, BlockWriter, Compaction, Ulid};

use self::apply::{ChangeLog, Rewritten, rewrite};
use self::config::Changes;
use self::replace::{Replacement, mark_old, publish_new, replaced_already};
use crate::block::problems;
use crate::blocking::blocking;
use crate::digest;
use crate::error::{Cause, CommandOutcome, DescribeAction, Result, ToolError};
use crate::folder::WorkingFolder;
use crate::output::{Output, Table, TableCell, TableFormat};
use crate::progress::{TaskProgress, Unit};
use crate::text;

/// The `thanos.source` of rewritten blocks.
const SOURCE: &str = "bucket.rewrite";

/// Flags of `tools bucket rewrite`.
#[derive(Debug, clap::Args)]
pub(crate) struct RewriteArgs {
    /// Block to rewrite (repeatable)
    #[arg(long, value_name = "ULID", required = true, value_parser = text::block_id)]
    id: Vec<Ulid>,

    /// Series and intervals to delete, as YAML: a list of {matchers, intervals}
    #[arg(long = "rewrite.to-delete-config", value_name = "YAML", allow_hyphen_values = true)]
    to_delete: Option<String>,

    /// File with the YAML of --rewrite.to-delete-config
    #[arg(long = "rewrite.to-delete-config-file", value_name = "FILE")]
    to_delete_file: Option<PathBuf>,

    /// Relabel rules for all series, as YAML
    #[arg(long = "rewrite.to-relabel-config", value_name = "YAML", allow_hyphen_values = true)]
    to_relabel: Option<String>,

    /// File with the YAML of --rewrite.to-relabel-config
    #[arg(long = "rewrite.to-relabel-config-file", value_name = "FILE")]
    to_relabel_file: Option<PathBuf>,

    /// Remove the samples that tombstones delete, also without other changes; other changes remove them too
    #[arg(long)]
    apply_tombstones: bool,

    /// Replace damaged blocks by what can be read of them; every loss is reported, and the exit code is then 1
    #[arg(
        long,
        conflicts_with_all = ["to_delete", "to_delete_file", "to_relabel", "to_relabel_file", "apply_tombstones"]
    )]
    salvage: bool,

    /// Print what would be changed, and change nothing; use --no-dry-run to rewrite
    #[arg(
        long,
        value_name = "BOOL",
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = clap::ArgAction::Set
    )]
    dry_run: bool,

    /// Number of changes that a dry run prints for each block; with --salvage, of problems and of losses
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,

    /// Mark the old blocks for deletion after the new ones were published
    #[arg(long)]
    delete_blocks: bool,

    /// Accept blocks without external labels, which only a Prometheus can use
    #[arg(long)]
    prom_blocks: bool,

    /// Write every change of a series to <new ULID>.change.log in --tmp.dir
    #[arg(
        long = "rewrite.add-change-log",
        value_name = "BOOL",
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = clap::ArgAction::Set
    )]
    add_change_log: bool,

    /// Folder for the old and the new block; it needs space for twice the largest block
    #[arg(long = "tmp.dir", value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    tmp_dir: PathBuf,

    /// Format of the report
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    output: TableFormat,
}

pub(super) async fn run(args: RewriteArgs, bucket: &Bucket, output: &mut Output) -> Result<CommandOutcome> {
    if args.delete_blocks && args.dry_run {
        return Err(ToolError::usage("--delete-blocks has no effect in a dry run: add --no-dry-run"));
    }
    if args.salvage {
        return salvage::run(&args, bucket, output).await;
    }
    let load = |flag: &str, text: &Option<String>, file: &Option<PathBuf>| {
        runtime::load_config(flag, text.as_deref(), file.as_deref())
            .map_err(|error| ToolError::usage(error.to_string()))
    };
    let to_delete = load("rewrite.to-delete-config", &args.to_delete, &args.to_delete_file)?;
    let to_relabel = load("rewrite.to-relabel-config", &args.to_relabel, &args.to_relabel_file)?;
    let origin = |flag, file: &Option<PathBuf>| runtime::config_origin(flag, file.as_deref());
    let deletions = (origin("rewrite.to-delete-config", &args.to_delete_file), to_delete);
    let relabels = (origin("rewrite.to-relabel-config", &args.to_relabel_file), to_relabel);
    let changes = Changes::parse(
        (&deletions.0, deletions.1.as_deref()),
        (&relabels.0, relabels.1.as_deref()),
        args.apply_tombstones,
    )?;
    let changes = Arc::new(changes);

    let mut table = Table::new(&[
        ("BLOCK", "block"),
        ("NEW", "new"),
        ("#SERIES", "series"),
        ("#DELETED", "seriesDeleted"),
        ("#RELABELLED", "seriesRelabelled"),
        ("#JOINED", "seriesJoined"),
        ("#SAMPLES", "samples"),
        ("#KEPT", "samplesKept"),
        ("#DELETED SAMPLES", "samplesDeleted"),
        ("#DUPLICATES", "samplesDuplicate"),
        ("RESULT", "result"),
    ]);
    let mut failure = None;
    for id in &args.id {
        match rewrite_block(*id, &args, &changes, bucket, output).await {
            Ok((rewritten, new, result)) => table.push(row(*id, rewritten, new, result)),
            // The results of earlier blocks are printed too.
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    if failure.is_none() || !table.is_empty() {
        output.table(&table, args.output)?;
    }
    failure.map_or(Ok(CommandOutcome::Fine), Err)
}

fn row(id: Ulid, rewritten: Option<Rewritten>, new: Option<Ulid>, result: &str) -> Vec<TableCell> {
    let number = |count: fn(&Rewritten) -> u64| {
        rewritten.as_ref().map_or(TableCell::Absent, |r| TableCell::Number(count(r)))
    };
    vec![
        TableCell::text(id.to_string()),
        new.map_or(TableCell::Absent, |new| TableCell::text(new.to_string())),
        number(|r| r.series),
        number(|r| r.deleted_series),
        number(|r| r.relabelled_series),
        number(|r| r.joined_series),
        number(|r| r.account.read),
        number(|r| r.account.written),
        number(|r| r.account.deleted),
        number(|r| r.account.duplicates),
        TableCell::text(result),
    ]
}

/// The id of the new block. It is derived from the old block and the changes, so that the same command finds the block of an
/// earlier run and finishes that run.
fn new_id(old: Ulid, changes: &Changes) -> Ulid {
    digest::derived_id(old, &changes.log_entry(&[]).to_string())
}

/// Rewrites a block. Returns the counts, the id of the new block if there is one, and the result.
async fn rewrite_block(
    id: Ulid,
    args: &RewriteArgs,
    changes: &Arc<Changes>,
    bucket: &Bucket,
    output: &mut Output,
) -> Result<(Option<Rewritten>, Option<Ulid>, &'static str)> {
    let new = new_id(id, changes);
    if replaced_already(id, new, bucket).await? {
        return Ok((None, Some(new), replace::DONE_ALREADY));
    }
    let folder = WorkingFolder::create(&args.tmp_dir, "rewrite")?;
    let source = fetch(id, bucket, folder.path()).await?;

    let log = change_log(args, folder.path())?;
    let (parent, changes) = (folder.path().to_owned(), Arc::clone(changes));
    let (dry_run, prom_blocks) = (args.dry_run, args.prom_blocks);
    let work = move || write(&source, &parent, &changes, new, log, dry_run, prom_blocks);
    let (rewritten, meta, printed) = blocking(work).await?;
    if args.output == TableFormat::Table {
        printed.iter().try_for_each(|line| output.line(line))?;
    }

    let nothing_left = rewritten.account.written == 0 && rewritten.account.read > 0;
    let result = match (meta, args.dry_run) {
        _ if !rewritten.has_changes() => return Ok((Some(rewritten), None, "nothing to change")),
        (_, true) if nothing_left => return Ok((Some(rewritten), None, "nothing would be left")),
        (_, true) => return Ok((Some(rewritten), None, "would be rewritten")),
        (Some(meta), false) => {
            deletions::copy(bucket, id, bucket, new, Retry::default()).await?;
            let was_there = publish_new(args, folder.path(), meta, bucket).await?;
            keep_change_log(args, folder.path(), new)?;
            if was_there { "done already" } else { "rewritten" }
        }
        (None, false) => "nothing is left",
    };
    let result = match (args.delete_blocks, nothing_left) {
        (false, _) => result,
        (true, true) => mark_old(id, Replacement::Nothing, bucket).await?,
        (true, false) => mark_old(id, Replacement::Block(new), bucket).await?,
    };
    Ok((Some(rewritten), (!nothing_left).then_some(new), result))
}

/// Downloads a block, which compares it with its manifest, and opens it.
async fn fetch(id: Ulid, bucket: &Bucket, parent: &Path) -> Result<Block> {
    let dir = parent.join(id.to_string());
    let progress = TaskProgress::new("download", Unit::Bytes, 0);
    let (reported, bar) = (AtomicU64::new(0), progress.clone());
    let report = move |done: u64, _: u64| {
        let before = reported.fetch_max(done, Ordering::Relaxed);
        bar.add(done.saturating_sub(before));
    };
    let options = DownloadOptions { progress: Some(Arc::new(report)), ..DownloadOptions::default() };
    let downloaded = download(bucket, id, &dir, &options).await;
    progress.finish();
    downloaded?;
    blocking(move || Ok(Block::open(&dir)?)).await
}

/// Name of the change log in the working folder.
const CHANGE_LOG: &str = "change.log";

/// Where changes of series are recorded: a dry run prints them, otherwise they are written to a file in the working folder.
fn change_log(args: &RewriteArgs, folder: &Path) -> Result<ChangeLog> {
    if args.dry_run {
        return Ok(ChangeLog::First { lines: Vec::new(), limit: args.limit, left_out: 0 });
    }
    if !args.add_change_log {
        return Ok(ChangeLog::None);
    }
    let path = folder.join(CHANGE_LOG);
    let file = std::fs::File::create(&path).context(format_args!("write {}", path.display()))?;
    Ok(ChangeLog::File(std::io::BufWriter::new(file)))
}

/// Moves the change log of a published block out of the working folder.
fn keep_change_log(args: &RewriteArgs, folder: &Path, new: Ulid) -> Result<()> {
    if args.add_change_log {
        let path = args.tmp_dir.join(format!("{new}.change.log"));
        std::fs::rename(folder.join(CHANGE_LOG), &path)
            .context(format_args!("write {}; the block itself was published", path.display()))?;
        eprintln!("changes of series were written to {}", path.display());
    }
    Ok(())
}

/// Writes the new block into `parent` and checks it, unless nothing changes or it is a dry run. Returns its meta and the
/// lines to print.
fn write(
    source: &Block,
    parent: &Path,
    changes: &Changes,
    new: Ulid,
    mut log: ChangeLog,
    dry_run: bool,
    prom_blocks: bool,
) -> Result<(Rewritten, Option<BlockMeta>, Vec<String>)> {
    let old = source.meta();
    let mut thanos = old.thanos.clone().unwrap_or_default();
    if thanos.labels.is_empty() && !prom_blocks {
        return Err(ToolError::usage(format!(
            "block {} has no external labels: use --prom-blocks to rewrite it nevertheless",
            old.ulid
        )));
    }
    thanos.source = SOURCE.to_owned();
    thanos.files.clear();
    thanos.segment_files.clear();
    // Sidecars look up the ids of their blocks in both lists, and then do not upload the old block again.
    let mut sources = old.compaction.sources.clone();
    if !sources.contains(&old.ulid) {
        sources.push(old.ulid);
    }
    thanos.rewrites.push(changes.log_entry(&sources));
    let parent_block = BlockDesc { ulid: old.ulid, min_time: old.min_time, max_time: old.max_time };
    let mut options = BlockOptions::new(new);
    options.times = Some((old.min_time, old.max_time));
    options.compaction =
        Some(Compaction { sources: vec![new], parents: vec![parent_block], ..old.compaction.clone() });
    options.thanos = Some(thanos);

    let mut writer = match dry_run {
        true => None,
        false => Some(BlockWriter::create(parent, options)?),
    };
    let progress = TaskProgress::new("rewrite", Unit::Count("series"), old.stats.series);
    let rewritten = rewrite(source, changes, writer.as_mut(), &mut log, &progress);
    progress.finish();
    let rewritten = rewritten?;
    let printed = log.finish()?;
    let account = rewritten.account;
    if !account.is_balanced() {
        return Err(ToolError::new(
            Cause::Failed,
            format!(
                "block {}: {} samples were read, but {} written, {} deleted and {} dropped as duplicates; \
                 nothing was published",
                old.ulid, account.read, account.written, account.deleted, account.duplicates
            ),
        ));
    }
    let Some(writer) = writer.filter(|_| rewritten.has_changes() && account.written > 0) else {
        return Ok((rewritten, None, printed));
    };
    let meta = writer.finish()?;
    check(&parent.join(new.to_string()), account.written)?;
    Ok((rewritten, Some(meta), printed))
}

/// Reads the new block back and verifies it.
fn check(dir: &Path, samples: u64) -> Result<()> {
    let block = Block::open(dir)?;
    let found = problems(&block);
    if let Some(first) = found.first() {
        return Err(ToolError::new(
            Cause::Failed,
            format!("the new block has a problem: {first}; nothing was published"),
        ));
    }
    let written = block.meta().stats.samples;
    if written != samples {
        return Err(ToolError::new(
            Cause::Failed,
            format!("the new block has {written} samples, expected {samples}; nothing was published"),
        ));
    }
    Ok(())
}
