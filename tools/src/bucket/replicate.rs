//! `tools bucket replicate`: blocks of one bucket into another.
//!
//! A block is downloaded whole, which compares it with its manifest, and published like any other: files first,
//! read back, `meta.json` last. The copy has the same id and content; only the time of the upload in its
//! `meta.json` is its own, and the manifest has hashes even where the original had none.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::bucket::{Bucket, DownloadOptions, PublishOptions, download, publish};
use clap::Args;
use model::{Matcher, TimeRange};
use runtime::{TimeArg, parse_duration};
use tsdb::{BlockMeta, Ulid};

use crate::bucket::other::OtherBucket;
use crate::bucket::view;
use crate::digest;
use crate::error::{Cause, Context, Outcome, Result, ToolError};
use crate::folder::make_private;
use crate::output::{Cell, Output, Table, TableFormat};
use crate::progress::{Progress, Unit};
use crate::text;

/// Flags of `tools bucket replicate`.
#[derive(Debug, Args)]
pub(crate) struct ReplicateArgs {
    #[command(flatten)]
    to: To,

    /// Only this block, whatever the flags below say (repeatable); ends after one run
    #[arg(long, value_name = "ULID", value_parser = text::block_id)]
    id: Vec<Ulid>,

    /// Only blocks of this resolution (repeatable)
    #[arg(long, value_name = "DURATION", default_values = ["0s", "5m", "1h"], value_parser = parse_duration)]
    resolution: Vec<Duration>,

    /// Only blocks of at least this compaction level
    #[arg(long, value_name = "LEVEL", default_value_t = 1)]
    compaction_min: u32,

    /// Only blocks of at most this compaction level
    #[arg(long, value_name = "LEVEL", default_value_t = 4)]
    compaction_max: u32,

    /// Only blocks of this compaction level; replaces the two flags above (repeatable)
    #[arg(long, value_name = "LEVEL")]
    compaction: Vec<u32>,

    /// Only blocks whose external labels match, such as cluster=~"eu-.*"
    #[arg(long, value_name = "SELECTOR", default_value = "")]
    matcher: String,

    /// Only blocks that end at or after this time: RFC 3339, or relative to now such as -2w
    #[arg(long, value_name = "TIME", default_value = "0000-01-01T00:00:00Z", allow_hyphen_values = true)]
    min_time: TimeArg,

    /// Only blocks that begin at or before this time
    #[arg(long, value_name = "TIME", default_value = "9999-12-31T23:59:59Z", allow_hyphen_values = true)]
    max_time: TimeArg,

    /// Leaves out blocks that are marked for deletion
    #[arg(long)]
    ignore_marked_for_deletion: bool,

    /// Ends after one run instead of looking for new blocks again and again
    #[arg(long)]
    single_run: bool,

    /// Time between two runs
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = parse_duration)]
    interval: Duration,

    /// Folder for the block that is on its way; it must hold the largest block
    #[arg(long = "tmp.dir", value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    tmp_dir: PathBuf,

    /// Says what would be copied, and copies nothing
    #[arg(long)]
    dry_run: bool,

    /// Form of the report of a run
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    output: TableFormat,

    #[command(flatten)]
    view: view::ViewFlags,
}

/// The bucket to copy to.
#[derive(Debug, Args)]
struct To {
    /// Object storage to copy to, as YAML; $(NAME) is replaced from the environment
    #[arg(long = "objstore-to.config", value_name = "YAML")]
    to_config: Option<String>,

    /// File with the YAML of --objstore-to.config
    #[arg(long = "objstore-to.config-file", value_name = "FILE")]
    to_config_file: Option<PathBuf>,
}

pub(super) async fn run(args: ReplicateArgs, from: &Bucket, output: &mut Output) -> Result<Outcome> {
    if args.compaction_min > args.compaction_max {
        return Err(ToolError::usage(
            "--compaction-min is above --compaction-max: no block has such a level",
        ));
    }
    let selection = Selection {
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

/// Which blocks are meant, beside what the flags say themselves.
struct Selection {
    matchers: Vec<Matcher>,
    compactions: Vec<u32>,
}

impl Selection {
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

/// The result for a block that the other bucket has.
const THERE: &str = "there already";

/// One run: everything selected that the other bucket lacks, oldest first, so that whoever compacts there sees no
/// gaps.
async fn replicate(
    args: &ReplicateArgs,
    selection: &Selection,
    from: &Bucket,
    to: &Bucket,
    output: &mut Output,
) -> Result<Outcome> {
    let view = args.view.fetch(from, view::all(args.ignore_marked_for_deletion)).await?;
    if let Some(absent) = args.id.iter().find(|id| !view.blocks.contains_key(*id)) {
        return Err(ToolError::new(
            Cause::Missing,
            format!("--id: block {absent} is not in bucket {:?}, or cannot be read there", from.name()),
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
    let progress = Progress::new("replicate", Unit::Bytes, total);
    view::note_hidden(&view);
    let is_repeated = !(args.single_run || args.dry_run || !args.id.is_empty());
    let mut outcome = Outcome::Fine;
    for meta in metas {
        progress.at(meta.ulid.to_string());
        let (result, why) = match copy(args, meta, from, to, &progress).await {
            // What was there before is news once.
            Ok(THERE) if is_repeated => continue,
            Ok(result) => (result, String::new()),
            // The store is out of reach: no other block will fare better.
            Err(error) if matches!(error.cause(), Cause::Unreachable | Cause::Refused) => {
                progress.finish();
                return Err(error);
            }
            Err(error) => {
                outcome = Outcome::Found;
                ("FAILED", error.to_string())
            }
        };
        table.push(vec![
            Cell::text(meta.ulid.to_string()),
            Cell::text(text::instant(meta.min_time)),
            Cell::text(text::instant(meta.max_time)),
            Cell::Number(meta.compaction.level.into()),
            Cell::Length(meta.resolution().as_millis() as i64),
            view::size_bytes(meta).map_or(Cell::Absent, Cell::Bytes),
            Cell::text(result),
            Cell::text(why),
        ]);
    }
    progress.finish();
    if !is_repeated || !table.is_empty() {
        output.table(&table, args.output)?;
    }
    Ok(outcome)
}

/// Copies a block unless it is there; says what was done.
async fn copy(
    args: &ReplicateArgs,
    meta: &BlockMeta,
    from: &Bucket,
    to: &Bucket,
    progress: &Progress,
) -> Result<&'static str> {
    if is_there(meta, to).await? {
        progress.add(view::size_bytes(meta).unwrap_or(0));
        return Ok(THERE);
    }
    if args.dry_run {
        return Ok("would be copied");
    }
    let dir = working_folder(&args.tmp_dir, from, to, meta.ulid)?;
    // Each byte is moved twice: half of the way is made when the block is here.
    let halves = |progress: &Progress| {
        let (told, bar) = (AtomicU64::new(0), progress.clone());
        move |done: u64| {
            let before = told.fetch_max(done / 2, Ordering::Relaxed);
            bar.add((done / 2).saturating_sub(before));
        }
    };
    let (down, up) = (halves(progress), halves(progress));
    let options =
        DownloadOptions { progress: Some(Arc::new(move |done, _| down(done))), ..DownloadOptions::default() };
    let downloaded = download(from, meta.ulid, &dir, &options).await?;
    let options = PublishOptions {
        progress: Some(Arc::new(move |state: ::bucket::Progress| up(state.verified_bytes))),
        ..PublishOptions::default()
    };
    publish(to, &dir, downloaded, &options).await?;
    remove_folder(&dir)?;
    Ok("copied")
}

/// Whether the other bucket has the block with the same content, as far as both metas tell.
async fn is_there(meta: &BlockMeta, to: &Bucket) -> Result<bool> {
    let content = match to.get(&::bucket::layout::meta(meta.ulid)).await {
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
            format!("bucket {:?} has another block of this id; nothing was overwritten", to.name()),
        )),
    }
}

/// The folder of a block on its way; what an earlier run between the same buckets left in it is used.
fn working_folder(tmp_dir: &Path, from: &Bucket, to: &Bucket, id: Ulid) -> Result<PathBuf> {
    let buckets = digest::of_texts(&[from.name(), from.prefix(), to.name(), to.prefix()]);
    let parent = tmp_dir.join(format!("isthmus-replicate-{}", digest::hex(&buckets[..8])));
    make_private(&parent)?;
    let dir = parent.join(id.to_string());
    std::fs::create_dir_all(&dir).context(format_args!("--tmp.dir: make folder {}", dir.display()))?;
    Ok(dir)
}

fn remove_folder(dir: &Path) -> Result<()> {
    std::fs::remove_dir_all(dir).context(format_args!("remove {}", dir.display()))?;
    if let Some(parent) = dir.parent() {
        // It stays while another block is on its way.
        let _ = std::fs::remove_dir(parent);
    }
    Ok(())
}
