//! `tools bucket verify`: what is wrong with the blocks of a bucket.
//!
//! Reports, and changes nothing: a block that is damaged is best uploaded again, rewritten or marked by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::bucket::{Bucket, DownloadOptions, View, download, layout, manifest_of};
use serde_json::json;
use tsdb::{Block, BlockMeta, Ulid};

use crate::block::{blocking, open_remote, problems};
use crate::bucket::view;
use crate::error::{Cause, Outcome, Result, ToolError};
use crate::folder::WorkingFolder;
use crate::output::Output;
use crate::progress::{Progress, Unit};
use crate::text;

/// Flags of `tools bucket verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// What is looked for (repeatable)
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

    /// Folder for the block that is being read; it must hold the largest block
    #[arg(long = "tmp.dir", value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    tmp_dir: PathBuf,

    /// Form of the report
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "text")]
    output: ReportFormat,

    #[command(flatten)]
    view: view::ViewFlags,
}

/// What can be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum Issue {
    /// Files that are missing, of another size, or no part of the block
    Manifest,
    /// All bytes against checksums and hashes, and index against chunks; reads whole blocks
    IndexKnownIssues,
    /// Blocks of equal labels and resolution with samples of the same time
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
enum ReportFormat {
    /// A line for each problem, then a summary
    Text,
    /// One JSON object
    Json,
}

/// Something that is wrong with a block.
struct Problem {
    block: Ulid,
    issue: &'static str,
    text: String,
}

pub(super) async fn run(args: VerifyArgs, bucket: &Bucket, output: &mut Output) -> Result<Outcome> {
    let view = args.view.fetch(bucket, view::all(true)).await?;
    if let Some(absent) =
        args.id.iter().find(|id| !view.blocks.contains_key(*id) && !view.corrupt.contains_key(*id))
    {
        let why = "it is not there, is marked for deletion, or has no meta.json";
        return Err(ToolError::new(
            Cause::Missing,
            format!("--id: block {absent} cannot be verified in bucket {:?}: {why}", bucket.name()),
        ));
    }
    let is_meant = |id: &Ulid| args.id.is_empty() || args.id.contains(id);
    let mut found: Vec<Problem> = view
        .corrupt
        .iter()
        .filter(|(id, _)| is_meant(id))
        .map(|(id, reason)| Problem { block: *id, issue: "meta", text: reason.clone() })
        .collect();
    let metas: Vec<&BlockMeta> =
        view.blocks.values().map(AsRef::as_ref).filter(|meta| is_meant(&meta.ulid)).collect();
    let total = view::total_bytes(&metas);
    let progress = Progress::new("verify", Unit::Bytes, total);
    // What is known by the time something fails is told all the same.
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
    found.sort_by_key(|problem| problem.block);
    print(&found, checked, &view, &args, output)?;
    match failure {
        Some(error) => Err(error),
        None if found.is_empty() => Ok(Outcome::Fine),
        None => Ok(Outcome::Found),
    }
}

/// Adds what is wrong with one block to what was found; what was added before an error stays.
async fn check(
    meta: &BlockMeta,
    bucket: &Bucket,
    args: &VerifyArgs,
    progress: &Progress,
    found: &mut Vec<Problem>,
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

fn problem(block: Ulid, issue: Issue, text: String) -> Problem {
    Problem { block, issue: issue.name(), text }
}

/// The listing against the manifest.
async fn check_files(meta: &BlockMeta, bucket: &Bucket) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    let objects = bucket.list_all(&meta.ulid.to_string()).await?;
    let mut present: BTreeMap<&str, u64> = objects
        .iter()
        .filter_map(|object| Some((layout::split(&object.name)?.1, object.size_bytes)))
        .collect();
    present.remove(layout::META_FILE);
    present.retain(|path, size| {
        // Some tools show folders by empty objects.
        !layout::MARK_FILES.contains(path)
            && (*size > 0 || !(path.is_empty() || *path == layout::CHUNKS_DIR || path.ends_with('/')))
    });
    let manifest = manifest_of(meta);
    for file in &manifest {
        match present.remove(file.path.as_str()) {
            None => texts.push(format!("{} is missing", file.path)),
            Some(size) if size != file.size_bytes => {
                texts.push(format!("{} has {size} bytes, its manifest says {}", file.path, file.size_bytes));
            }
            Some(_) => {}
        }
    }
    match manifest.is_empty() {
        // Old versions wrote no manifest; what a block needs at least can be told all the same.
        true if !present.contains_key(layout::INDEX_FILE) => texts.push("index is missing".to_owned()),
        true => {}
        false => texts.extend(present.keys().map(|path| format!("{path} is no file of the block"))),
    }
    Ok(texts)
}

/// The whole block, downloaded; adds what is wrong to `texts`, also where an error follows.
async fn check_content(
    meta: &BlockMeta,
    bucket: &Bucket,
    args: &VerifyArgs,
    progress: &Progress,
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
        // What is wrong with the block is what we came for; a store out of reach is not.
        return match error.cause() {
            Cause::Damaged => {
                texts.push(error.to_string());
                texts.extend(look_closer(meta.ulid, bucket).await?);
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

/// What exactly is wrong with a block whose files are not those of its manifest, read where it lies.
async fn look_closer(id: Ulid, bucket: &Bucket) -> Result<Vec<String>> {
    match open_remote(bucket, id).await {
        Ok(block) => blocking(move || Ok(problems(&block))).await,
        // That it cannot even be opened follows from what is known already.
        Err(error) if matches!(error.cause(), Cause::Damaged | Cause::Missing) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// What is wrong between blocks of equal labels and resolution.
fn neighbours(view: &View, issues: &[Issue]) -> Vec<(Issue, Vec<(Ulid, String)>)> {
    let mut groups: BTreeMap<_, Vec<&BlockMeta>> = BTreeMap::new();
    for meta in view.blocks.values() {
        groups.entry(view::group(meta)).or_default().push(meta);
    }
    let (mut duplicates, mut overlaps) = (Vec::new(), Vec::new());
    for (_, mut metas) in groups {
        metas.sort_by_key(|meta| (meta.min_time, meta.ulid));
        for (index, meta) in metas.iter().enumerate() {
            // Sorted by their begin: those behind that begin later than this one ends cannot overlap.
            let behind = metas[index + 1..].iter().take_while(|other| other.min_time < meta.max_time);
            for other in behind.filter(|other| other.time_range().overlaps(&meta.time_range())) {
                if is_duplicate(meta, other) {
                    duplicates.push((
                        other.ulid,
                        format!("holds the same as block {}: one of them can go", meta.ulid),
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

/// Whether two blocks were made from the same sources by the same step.
fn is_duplicate(a: &BlockMeta, b: &BlockMeta) -> bool {
    let sources = |meta: &BlockMeta| meta.compaction.sources.iter().copied().collect::<BTreeSet<_>>();
    (a.min_time, a.max_time, a.compaction.level, &a.stats)
        == (b.min_time, b.max_time, b.compaction.level, &b.stats)
        && sources(a) == sources(b)
}

fn print(
    found: &[Problem],
    blocks: usize,
    view: &View,
    args: &VerifyArgs,
    output: &mut Output,
) -> Result<()> {
    if args.output == ReportFormat::Json {
        let problems: Vec<_> = found
            .iter()
            .map(|p| json!({ "block": p.block.to_string(), "issue": p.issue, "problem": p.text }))
            .collect();
        let partial: Vec<String> = view.partial.iter().map(ToString::to_string).collect();
        return output.json(&json!({ "blocks": blocks, "partial": partial, "problems": problems }));
    }
    for Problem { block, issue, text } in found {
        output.line(format_args!("{block}: {issue}: {text}"))?;
    }
    let partial = match view.partial.len() as u64 {
        0 => String::new(),
        partial => format!("; {} without meta.json", text::count(partial, "folder")),
    };
    let (blocks, problems) =
        (text::count(blocks as u64, "block"), text::count(found.len() as u64, "problem"));
    output.line(format_args!("{blocks}, {problems}{partial}"))
}
