//! `tools bucket verify`: finds problems of the blocks of a bucket.
//!
//! It reports problems and changes nothing. Upload a damaged block again, rewrite it, or mark it for deletion. `marks.rs` has
//! the problems of marks, `deletions.rs` finds deleted samples that are still there.

mod deletions;
mod marks;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::bucket::marks::MarkKind;
use ::bucket::{
    BlockFault, Bucket, BucketView, DownloadOptions, FetchOptions, OpenBlockOptions, download, layout,
    manifest_of,
};
use serde_json::json;
use tsdb::{Block, BlockMeta, Ulid};

use crate::block::problems;
use crate::blocking::blocking;
use crate::bucket::view;
use crate::error::{Cause, CommandOutcome, Result, ToolError};
use crate::folder::WorkingFolder;
use crate::output::Output;
use crate::progress::{TaskProgress, Unit};
use crate::text;

/// Flags of `tools bucket verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct BucketVerifyArgs {
    /// Kind of problem to look for (repeatable)
    #[arg(
        short,
        long,
        value_name = "ISSUE",
        value_enum,
        default_values = ["manifest", "index_known_issues", "overlapped_blocks", "duplicated_compaction"]
    )]
    issues: Vec<Issue>,

    /// Only this block (repeatable)
    #[arg(long, value_name = "ULID", value_parser = text::block_id)]
    id: Vec<Ulid>,

    /// Folder for the block that is being read; it needs space for the largest block
    #[arg(long = "tmp.dir", value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    tmp_dir: PathBuf,

    /// Format of the report
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "text")]
    output: BucketReportFormat,

    #[command(flatten)]
    view: view::ViewFlags,
}

/// Kinds of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum Issue {
    /// Files that are missing, have another size, or do not belong to the block
    Manifest,
    /// Checksums and hashes of all bytes, and the index against the chunks; reads whole blocks
    IndexKnownIssues,
    /// Blocks with equal labels and resolution whose times overlap
    OverlappedBlocks,
    /// Blocks that were compacted twice from the same sources
    DuplicatedCompaction,
}

impl Issue {
    fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::IndexKnownIssues => "index_known_issues",
            Self::OverlappedBlocks => "overlapped_blocks",
            Self::DuplicatedCompaction => "duplicated_compaction",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum BucketReportFormat {
    /// One line for each problem, then a summary
    Text,
    /// One JSON object
    Json,
}

/// A problem of a block.
struct FoundProblem {
    block: Ulid,
    issue: &'static str,
    text: String,
}

pub(super) async fn run(
    args: BucketVerifyArgs,
    bucket: &Bucket,
    output: &mut Output,
) -> Result<CommandOutcome> {
    let options = FetchOptions { gather: MarkKind::ALL.to_vec(), ..view::all(true) };
    let view = args.view.fetch(bucket, options).await?;
    if let Some(absent) =
        args.id.iter().find(|id| !view.blocks.contains_key(*id) && !view.corrupt.contains_key(*id))
    {
        let why = "it does not exist, is marked for deletion, or has no meta.json";
        return Err(ToolError::new(
            Cause::Missing,
            format!("--id: block {absent} cannot be verified in bucket {:?}: {why}", bucket.name()),
        ));
    }
    let is_meant = |id: &Ulid| args.id.is_empty() || args.id.contains(id);
    let mut found: Vec<FoundProblem> = view
        .corrupt
        .iter()
        .filter(|(id, _)| is_meant(id))
        .map(|(id, reason)| FoundProblem { block: *id, issue: "meta", text: reason.clone() })
        .collect();
    let metas: Vec<&BlockMeta> =
        view.blocks.values().map(AsRef::as_ref).filter(|meta| is_meant(&meta.ulid)).collect();
    let total = view::total_bytes(&metas);
    let progress = TaskProgress::new("verify", Unit::Bytes, total);
    // Problems that were found before a failure are reported too.
    let (mut checked, mut failure) = (0, None);
    for meta in &metas {
        progress.at(meta.ulid.to_string());
        if let Err(error) = check(meta, bucket, &args, &progress, &mut found).await {
            failure = Some(error);
            break;
        }
        checked += 1;
    }
    progress.finish();
    for (issue, texts) in neighbours(&view, &args.issues) {
        found.extend(
            texts.into_iter().filter(|(id, _)| is_meant(id)).map(|(id, text)| problem(id, issue, text)),
        );
    }
    found.extend(marks::odd(&view, text::now()).filter(|problem| is_meant(&problem.block)));
    for problem in deletions::left(&view, bucket, is_meant).await? {
        found.push(problem);
    }
    found.sort_by_key(|problem| problem.block);
    print(&found, checked, &view, &args, output)?;
    match failure {
        Some(error) => Err(error),
        None if found.is_empty() => Ok(CommandOutcome::Fine),
        None => Ok(CommandOutcome::Found),
    }
}

/// Adds the problems of one block to `found`, also if an error follows.
async fn check(
    meta: &BlockMeta,
    bucket: &Bucket,
    args: &BucketVerifyArgs,
    progress: &TaskProgress,
    found: &mut Vec<FoundProblem>,
) -> Result<()> {
    if args.issues.contains(&Issue::Manifest) {
        let texts = check_files(meta, bucket).await?;
        found.extend(texts.into_iter().map(|text| problem(meta.ulid, Issue::Manifest, text)));
    }
    if args.issues.contains(&Issue::IndexKnownIssues) {
        let mut texts = Vec::new();
        let result = check_content(meta, bucket, args, progress, &mut texts).await;
        found.extend(texts.into_iter().map(|text| problem(meta.ulid, Issue::IndexKnownIssues, text)));
        result?;
    }
    Ok(())
}

fn problem(block: Ulid, issue: Issue, text: String) -> FoundProblem {
    FoundProblem { block, issue: issue.name(), text }
}

/// Compares the listing with the manifest.
async fn check_files(meta: &BlockMeta, bucket: &Bucket) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    let objects = bucket.list_all(&meta.ulid.to_string()).await?;
    let mut present: BTreeMap<&str, u64> = objects
        .iter()
        .filter_map(|object| Some((layout::split(&object.name)?.1, object.size_bytes)))
        .collect();
    present.remove(layout::META_FILE);
    present.retain(|path, size| {
        // Some tools represent folders by empty objects.
        !layout::MARK_FILES.contains(path)
            && (*size > 0 || !(path.is_empty() || *path == layout::CHUNKS_DIR || path.ends_with('/')))
    });
    let manifest = manifest_of(meta);
    for file in &manifest {
        match present.remove(file.path.as_str()) {
            None => texts.push(format!("{} is missing", file.path)),
            Some(size) if size != file.size_bytes => {
                texts.push(format!(
                    "{} is {size} bytes large, its manifest says {}",
                    file.path, file.size_bytes
                ));
            }
            Some(_) => {}
        }
    }
    match manifest.is_empty() {
        // Old versions wrote no manifest, but every block needs an index.
        true if !present.contains_key(layout::INDEX_FILE) => texts.push("index is missing".to_owned()),
        true => {}
        false => texts.extend(present.keys().map(|path| foreign(path))),
    }
    Ok(texts)
}

/// The problem of an object that the manifest does not list.
fn foreign(path: &str) -> String {
    match path {
        layout::TOMBSTONES_FILE => {
            "tombstones: Thanos ignores them in a bucket and answers with the deleted samples; remove these with \
             `rewrite --apply-tombstones`"
                .to_owned()
        }
        path => format!("{path} does not belong to the block"),
    }
}

/// Downloads the block and checks it. Adds problems to `texts`, also if an error follows.
async fn check_content(
    meta: &BlockMeta,
    bucket: &Bucket,
    args: &BucketVerifyArgs,
    progress: &TaskProgress,
    texts: &mut Vec<String>,
) -> Result<()> {
    let folder = WorkingFolder::create(&args.tmp_dir, "verify")?;
    let dir = folder.path().join(meta.ulid.to_string());
    let (told, bar) = (AtomicU64::new(0), progress.clone());
    let tell = move |done: u64, _: u64| {
        let before = told.fetch_max(done, Ordering::Relaxed);
        bar.add(done.saturating_sub(before));
    };
    let options = DownloadOptions { progress: Some(Arc::new(tell)), ..DownloadOptions::default() };
    if let Err(error) = download(bucket, meta.ulid, &dir, &options).await {
        let error = ToolError::from(error);
        // Damage of the block is a result; an unreachable store is a failure.
        return match error.cause() {
            Cause::Damaged => {
                texts.push(error.to_string());
                texts.extend(verify_remote(meta.ulid, bucket).await?);
                Ok(())
            }
            _ => Err(error),
        };
    }
    let problems = blocking(move || match Block::open(&dir) {
        Ok(block) => Ok(problems(&block)),
        Err(error) if error.is_damage() => Ok(vec![error.to_string()]),
        Err(error) => Err(error.into()),
    })
    .await?;
    drop(folder);
    texts.extend(problems);
    Ok(())
}

/// The exact problems of a block whose files differ from its manifest. It is read from the bucket.
async fn verify_remote(id: Ulid, bucket: &Bucket) -> Result<Vec<String>> {
    match bucket.open_block(id, &OpenBlockOptions::default()).await {
        Ok(opened) => blocking(move || Ok(problems(opened.block()))).await,
        Err(error) => match error.fault() {
            // The download has already reported why the block cannot be opened.
            BlockFault::Corrupt | BlockFault::NewerVersion | BlockFault::Gone => Ok(Vec::new()),
            BlockFault::Unavailable | BlockFault::Refused => Err(error.into()),
        },
    }
}

/// Problems between blocks with equal labels and resolution.
fn neighbours(view: &BucketView, issues: &[Issue]) -> Vec<(Issue, Vec<(Ulid, String)>)> {
    let mut groups: BTreeMap<_, Vec<&BlockMeta>> = BTreeMap::new();
    for meta in view.blocks.values() {
        groups.entry(view::group(meta)).or_default().push(meta);
    }
    let (mut duplicates, mut overlaps) = (Vec::new(), Vec::new());
    for (_, mut metas) in groups {
        metas.sort_by_key(|meta| (meta.min_time, meta.ulid));
        for (index, meta) in metas.iter().enumerate() {
            // The blocks are sorted by their start, so only those that start before this one ends can overlap it.
            let candidates = metas[index + 1..].iter().take_while(|other| other.min_time < meta.max_time);
            for other in candidates.filter(|other| other.time_range().overlaps(&meta.time_range())) {
                if is_duplicate(meta, other) {
                    duplicates.push((
                        other.ulid,
                        format!("has the same content as block {}: one of them can be deleted", meta.ulid),
                    ));
                } else {
                    let (from, until) =
                        (other.min_time.max(meta.min_time), other.max_time.min(meta.max_time));
                    overlaps.push((
                        other.ulid,
                        format!(
                            "overlaps block {} from {} to {}",
                            meta.ulid,
                            text::instant(from),
                            text::instant(until)
                        ),
                    ));
                }
            }
        }
    }
    let both = [(Issue::OverlappedBlocks, overlaps), (Issue::DuplicatedCompaction, duplicates)];
    both.into_iter().filter(|(issue, _)| issues.contains(issue)).collect()
}

/// Whether two blocks were compacted from the same sources to the same result.
fn is_duplicate(a: &BlockMeta, b: &BlockMeta) -> bool {
    let sources = |meta: &BlockMeta| meta.compaction.sources.iter().copied().collect::<BTreeSet<_>>();
    (a.min_time, a.max_time, a.compaction.level, &a.stats)
        == (b.min_time, b.max_time, b.compaction.level, &b.stats)
        && sources(a) == sources(b)
}

fn print(
    found: &[FoundProblem],
    blocks: usize,
    view: &BucketView,
    args: &BucketVerifyArgs,
    output: &mut Output,
) -> Result<()> {
    if args.output == BucketReportFormat::Json {
        let problems: Vec<_> = found
            .iter()
            .map(|p| json!({ "block": p.block.to_string(), "issue": p.issue, "problem": p.text }))
            .collect();
        let partial: Vec<String> = view.partial.iter().map(ToString::to_string).collect();
        return output.json(&json!({ "blocks": blocks, "partial": partial, "problems": problems }));
    }
    for FoundProblem { block, issue, text: problem } in found {
        output.line(format_args!("{block}: {issue}: {}", text::printable(problem, false)))?;
    }
    let partial = match view.partial.len() as u64 {
        0 => String::new(),
        partial => format!("; {} without meta.json", text::count(partial, "folder")),
    };
    let (blocks, problems) =
        (text::count(blocks as u64, "block"), text::count(found.len() as u64, "problem"));
    output.line(format_args!("{blocks}, {problems}{partial}"))
}
