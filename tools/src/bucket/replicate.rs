//! `tools bucket replicate`: copies blocks of one bucket to another.
//!
//! A block is downloaded whole, which compares it with its manifest, and published: files first, read back, `meta.json`
//! last. The copy has the same id and content. Its `meta.json` has its own upload time, and its manifest has hashes even if
//! the original has none.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::bucket::{Bucket, DownloadOptions, PublishOptions, Retry, deletions, download, layout, publish};
use clap::Args;
use model::{Matcher, TimeRange};
use runtime::{TimeArg, parse_duration};
use tsdb::{BlockMeta, Ulid};

use crate::bucket::view;
use crate::connect::OtherBucket;
use crate::digest;
use crate::error::{Cause, CommandOutcome, DescribeAction, Result, ToolError};
use crate::folder::make_private;
use crate::output::{Output, Table, TableCell, TableFormat};
use crate::progress::{TaskProgress, Unit};
use crate::text;

/// Flags of `tools bucket replicate`.
#[derive(Debug, Args)]
pub(crate) struct ReplicateArgs {
    #[command(flatten)]
    to: To,

    /// Only this block, whatever --resolution, --compaction, --matcher, --min-time and --max-time say; the command exits
    /// after one run (repeatable)
    #[arg(long, value_name = "ULID", value_parser = text::block_id)]
    id: Vec<Ulid>,

    /// Only blocks of this resolution (repeatable)
    #[arg(long, value_name = "DURATION", default_values = ["0s", "5m", "1h"], value_parser = parse_duration)]
    resolution: Vec<Duration>,

    /// Minimum compaction level of blocks
    #[arg(long, value_name = "LEVEL", default_value_t = 1)]
    compaction_min: u32,

    /// Maximum compaction level of blocks
    #[arg(long, value_name = "LEVEL", default_value_t = 4)]
    compaction_max: u32,

    /// Only blocks of this compaction level; replaces the two flags above (repeatable)
    #[arg(long, value_name = "LEVEL")]
    compaction: Vec<u32>,

    /// Only blocks whose external labels match, such as cluster=~"eu-.*"
    #[arg(long, value_name = "SELECTOR", default_value = "")]
    matcher: String,

    /// Only blocks that end at or after this time: RFC 3339, or relative to now, such as -2w
    #[arg(long, value_name = "TIME", default_value = "0000-01-01T00:00:00Z", allow_hyphen_values = true)]
    min_time: TimeArg,

    /// Only blocks that begin at or before this time
    #[arg(long, value_name = "TIME", default_value = "9999-12-31T23:59:59Z", allow_hyphen_values = true)]
    max_time: TimeArg,

    /// Leave out blocks that are marked for deletion
    #[arg(long)]
    ignore_marked_for_deletion: bool,

    /// Exit after one run instead of checking for new blocks every --interval
    #[arg(long)]
    single_run: bool,

    /// Time between two runs
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = parse_duration)]
    interval: Duration,

    /// Folder for the block that is being copied; it needs space for the largest block
    #[arg(long = "tmp.dir", value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    tmp_dir: PathBuf,

    /// Print what would be copied, and copy nothing
    #[arg(long)]
    dry_run: bool,

    /// Format of the report of a run
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    output: TableFormat,

    #[command(flatten)]
    view: view::ViewFlags,
}

/// The bucket to copy to.
#[derive(Debug, Args)]
struct To {
    /// Object storage configuration of the target, as YAML; $(NAME) is replaced by the environment variable NAME
    #[arg(long = "objstore-to.config", value_name = "YAML")]
    to_config: Option<String>,

    /// File with the YAML of --objstore-to.config
    #[arg(long = "objstore-to.config-file", value_name = "FILE")]
    to_config_file: Option<PathBuf>,
}

pub(super) async fn run(args: ReplicateArgs, from: &Bucket, output: &mut Output) -> Result<CommandOutcome> {
    if args.compaction_min > args.compaction_max {
        return Err(ToolError::usage(
            "--compaction-min is greater than --compaction-max: no block has such a level",
        ));
    }
    let selection = ReplicateSelection {
        matchers: text::matchers("--matcher", &args.matcher)?,
        compactions: match args.compaction.is_empty() {
            true => (args.compaction_min..=args.compaction_max).collect(),
            false => args.compaction.clone(),
        },
    };
    let to = OtherBucket {
        flag: "objstore-to.config",
        text: args.to.to_config.as_deref(),
        file: args.to.to_config_file.as_deref(),
    };
    let to = to.open().await?;
    loop {
        let outcome = replicate(&args, &selection, from, &to, output).await?;
        if args.single_run || args.dry_run || !args.id.is_empty() {
            return Ok(outcome);
        }
        output.flush()?;
        tokio::time::sleep(args.interval).await;
    }
}

/// Parsed flags that select blocks.
struct ReplicateSelection {
    matchers: Vec<Matcher>,
    compactions: Vec<u32>,
}

impl ReplicateSelection {
    fn selects(&self, args: &ReplicateArgs, meta: &BlockMeta) -> bool {
        let now = text::now();
        let range = TimeRange::new(args.min_time.at(now), args.max_time.at(now));
        let labels = text::labels_of(view::labels(meta));
        match args.id.is_empty() {
            false => args.id.contains(&meta.ulid),
            true => {
                meta.max_time >= range.min
                    && meta.min_time <= range.max
                    && args.resolution.contains(&meta.resolution())
                    && self.compactions.contains(&meta.compaction.level)
                    && self.matchers.iter().all(|matcher| matcher.matches_labels(&labels))
            }
        }
    }
}

/// The result for a block that exists in the other bucket.
const EXISTS: &str = "exists already";

/// One run: copies the selected blocks that the other bucket lacks. The oldest are copied first, so that a compactor of that
/// bucket sees no gaps.
async fn replicate(
    args: &ReplicateArgs,
    selection: &ReplicateSelection,
    from: &Bucket,
    to: &Bucket,
    output: &mut Output,
) -> Result<CommandOutcome> {
    let view = args.view.fetch(from, view::all(args.ignore_marked_for_deletion)).await?;
    if let Some(absent) = args.id.iter().find(|id| !view.blocks.contains_key(*id)) {
        return Err(ToolError::new(
            Cause::Missing,
            format!("--id: block {absent} is not in bucket {:?}, or cannot be read", from.name()),
        ));
    }
    let mut metas: Vec<&BlockMeta> = view
        .blocks
        .values()
        .map(AsRef::as_ref)
        .filter(|meta: &&BlockMeta| selection.selects(args, meta))
        .collect();
    metas.sort_by_key(|meta| (meta.min_time, meta.ulid));

    let mut table = Table::new(&[
        ("BLOCK", "block"),
        ("FROM", "from"),
        ("UNTIL", "until"),
        ("LEVEL", "level"),
        ("RESOLUTION", "resolutionMillis"),
        ("SIZE", "sizeBytes"),
        ("RESULT", "result"),
        ("WHY", "why"),
    ]);
    let total = view::total_bytes(&metas);
    let progress = TaskProgress::new("replicate", Unit::Bytes, total);
    view::note_hidden(&view);
    let is_repeated = !(args.single_run || args.dry_run || !args.id.is_empty());
    let mut outcome = CommandOutcome::Fine;
    for meta in metas {
        progress.at(meta.ulid.to_string());
        let (result, why) = match copy(args, meta, from, to, &progress).await {
            // In repeated runs, blocks that exist already are not reported.
            Ok(EXISTS) if is_repeated => continue,
            Ok(result) => (result, String::new()),
            // The store is unreachable, so no other block can be copied.
            Err(error) if matches!(error.cause(), Cause::Unreachable | Cause::Refused) => {
                progress.finish();
                return Err(error);
            }
            Err(error) => {
                outcome = CommandOutcome::Found;
                ("FAILED", error.to_string())
            }
        };
        table.push(vec![
            TableCell::text(meta.ulid.to_string()),
            TableCell::text(text::instant(meta.min_time)),
            TableCell::text(text::instant(meta.max_time)),
            TableCell::Number(meta.compaction.level.into()),
            TableCell::Length(meta.resolution().as_millis() as i64),
            view::size_bytes(meta).map_or(TableCell::Absent, TableCell::Bytes),
            TableCell::text(result),
            TableCell::text(why),
        ]);
    }
    progress.finish();
    if !is_repeated || !table.is_empty() {
        output.table(&table, args.output)?;
    }
    Ok(outcome)
}

/// Copies a block unless it exists. Returns the result.
async fn copy(
    args: &ReplicateArgs,
    meta: &BlockMeta,
    from: &Bucket,
    to: &Bucket,
    progress: &TaskProgress,
) -> Result<&'static str> {
    if is_there(meta, to).await? {
        progress.add(view::size_bytes(meta).unwrap_or(0));
        return Ok(EXISTS);
    }
    // A copy has no tombstones, so deleted samples would appear again.
    if from.exists(&layout::block_file(meta.ulid, layout::TOMBSTONES_FILE)).await? {
        let why = "it has tombstones, which a copy would not have: apply them with \
                   `rewrite --apply-tombstones`, then copy the new block";
        return Err(ToolError::new(Cause::Conflict, why));
    }
    if args.dry_run {
        return Ok("would be copied");
    }
    let dir = working_folder(&args.tmp_dir, from, to, meta.ulid)?;
    // Each byte is transferred twice: the download is the first half of the progress.
    let halves = |progress: &TaskProgress| {
        let (reported, bar) = (AtomicU64::new(0), progress.clone());
        move |done: u64| {
            let before = reported.fetch_max(done / 2, Ordering::Relaxed);
            bar.add((done / 2).saturating_sub(before));
        }
    };
    let (down, up) = (halves(progress), halves(progress));
    let options =
        DownloadOptions { progress: Some(Arc::new(move |done, _| down(done))), ..DownloadOptions::default() };
    let downloaded = download(from, meta.ulid, &dir, &options).await?;
    let options = PublishOptions {
        progress: Some(Arc::new(move |state: ::bucket::UploadProgress| up(state.verified_bytes))),
        ..PublishOptions::default()
    };
    // Before the block: otherwise deleted samples would appear again for a moment.
    deletions::copy(from, meta.ulid, to, meta.ulid, Retry::default()).await?;
    publish(to, &dir, downloaded, &options).await?;
    remove_folder(&dir)?;
    Ok("copied")
}

/// Whether the other bucket has the block, with the same meta.
async fn is_there(meta: &BlockMeta, to: &Bucket) -> Result<bool> {
    let content = match to.get(&layout::meta(meta.ulid)).await {
        Ok(content) => content,
        Err(error) if error.is_not_found() => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let theirs = BlockMeta::parse(&content).map_err(|error| {
        ToolError::new(Cause::Damaged, format!("block {} in bucket {:?}: {error}", meta.ulid, to.name()))
    })?;
    match view::describe_same(meta, &theirs) {
        true => Ok(true),
        false => Err(ToolError::new(
            Cause::Conflict,
            format!(
                "bucket {:?} has a different block with this id; nothing was overwritten: verify both blocks",
                to.name()
            ),
        )),
    }
}

/// The folder of a block that is being copied. Files of an earlier run between the same buckets are used.
fn working_folder(tmp_dir: &Path, from: &Bucket, to: &Bucket, id: Ulid) -> Result<PathBuf> {
    let buckets = digest::of_texts(&[from.name(), from.prefix(), to.name(), to.prefix()]);
    let parent = tmp_dir.join(format!("isthmus-replicate-{}", digest::hex(&buckets[..8])));
    make_private(&parent)?;
    let dir = parent.join(id.to_string());
    std::fs::create_dir_all(&dir).context(format_args!("--tmp.dir: create folder {}", dir.display()))?;
    Ok(dir)
}

fn remove_folder(dir: &Path) -> Result<()> {
    std::fs::remove_dir_all(dir).context(format_args!("remove {}", dir.display()))?;
    if let Some(parent) = dir.parent() {
        // It is not removed while another run uses it.
        let _ = std::fs::remove_dir(parent);
    }
    Ok(())
}
