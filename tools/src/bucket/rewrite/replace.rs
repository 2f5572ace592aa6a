//! Replaces a block by another one: publishes the new block, then marks the old one for deletion.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::bucket::marks::{self, Mark, MarkKind, MarkState};
use ::bucket::{Bucket, PublishOptions, layout, publish};
use tsdb::{BlockMeta, Ulid};

use crate::bucket::rewrite::RewriteArgs;
use crate::error::{Cause, DescribeAction, Result, ToolError};
use crate::progress::{TaskProgress, Unit};
use crate::text;

/// The result for a block that an earlier run has replaced.
pub(super) const DONE_ALREADY: &str = "done already; old block marked";

/// What takes the place of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replacement {
    Block(Ulid),
    /// Nothing of the block was left.
    Nothing,
}

impl Replacement {
    /// The details of the mark of the old block.
    fn details(self) -> String {
        match self {
            Self::Block(new) => format!("block rewritten as {new}"),
            Self::Nothing => "block rewritten: nothing is left of it".to_owned(),
        }
    }
}

/// Whether an earlier run has replaced block `id` by block `new` and marked it.
///
/// # Errors
/// The block has another deletion mark.
pub(super) async fn replaced_already(id: Ulid, new: Ulid, bucket: &Bucket) -> Result<bool> {
    let refused =
        |why: String| Err(ToolError::new(Cause::Conflict, format!("block {id} {why}: it was not rewritten")));
    match marks::load(bucket, id, MarkKind::Deletion).await? {
        MarkState::Absent => Ok(false),
        MarkState::Marked(mark) => match mark.details {
            Some(details) if details == Replacement::Block(new).details() => Ok(true),
            _ => refused(format!("is marked for deletion since {}", text::instant(mark.time))),
        },
        MarkState::Unusable(reason) => refused(format!("has a deletion mark that cannot be used ({reason})")),
    }
}

/// Publishes the new block with this meta, which is in `folder`. Returns whether the bucket had it already.
pub(super) async fn publish_new(
    args: &RewriteArgs,
    folder: &Path,
    meta: BlockMeta,
    bucket: &Bucket,
) -> Result<bool> {
    let dir = folder.join(meta.ulid.to_string());
    let was_there = bucket.exists(&layout::meta(meta.ulid)).await?;
    let progress = TaskProgress::new("upload", Unit::Bytes, size_of_files(&dir));
    let bar = progress.clone();
    let reported = AtomicU64::new(0);
    let report = move |state: ::bucket::UploadProgress| {
        let before = reported.fetch_max(state.verified_bytes, Ordering::Relaxed);
        bar.add(state.verified_bytes.saturating_sub(before));
    };
    let options = PublishOptions {
        requires_labels: !args.prom_blocks,
        progress: Some(Arc::new(report)),
        ..PublishOptions::default()
    };
    let published = publish(bucket, &dir, meta, &options).await;
    progress.finish();
    published?;
    Ok(was_there)
}

/// Marks block `id` for deletion, which was replaced. Returns the result.
pub(super) async fn mark_old(id: Ulid, by: Replacement, bucket: &Bucket) -> Result<&'static str> {
    let mut mark = Mark::new(MarkKind::Deletion, id, text::now());
    mark.details = Some(by.details());
    let doing = match by {
        Replacement::Nothing => format!("mark block {id} for deletion"),
        Replacement::Block(new) => format!("mark block {id} for deletion, which was rewritten as {new}"),
    };
    match marks::create(bucket, &mark).await.context(&doing)? {
        MarkState::Marked(existing) if existing == mark => Ok(match by {
            Replacement::Nothing => "nothing is left; old block marked",
            Replacement::Block(_) => "rewritten; old block marked",
        }),
        MarkState::Marked(_) => Ok("rewritten; old block had a mark already"),
        MarkState::Unusable(reason) => Err(ToolError::new(
            Cause::Conflict,
            format!("{doing}: it has a mark that cannot be used: {reason}"),
        )),
        MarkState::Absent => {
            Err(ToolError::new(Cause::Failed, format!("{doing}: the mark was written and cannot be found")))
        }
    }
}

/// Size of a block's files in bytes.
fn size_of_files(dir: &Path) -> u64 {
    let files = |dir: PathBuf| std::fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes =
        files(dir.to_owned()).chain(files(dir.join("chunks"))).filter_map(|entry| entry.metadata().ok());
    sizes.filter(|metadata| metadata.is_file()).map(|metadata| metadata.len()).sum()
}
