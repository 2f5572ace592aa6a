//! Series that were deleted, and are still in the files of their blocks.

use ::bucket::{Bucket, BucketView};
use tsdb::Ulid;

use crate::bucket::delete_series::count;
use crate::bucket::verify::FoundProblem;
use crate::error::Result;
use crate::text;

/// A problem for each deletion that is not done in a block and selects something of it.
pub(super) async fn left(
    view: &BucketView,
    bucket: &Bucket,
    is_meant: impl Fn(&Ulid) -> bool,
) -> Result<Vec<FoundProblem>> {
    let mut found = Vec::new();
    for (block, deletions) in view.deletions.iter().filter(|(block, _)| is_meant(block)) {
        for (deletion, matchers) in deletions.with_matchers() {
            let selected = count(bucket, *block, matchers, deletion.range).await?;
            if selected.chunks > 0 {
                let text = format!(
                    "{} with samples that were deleted ({}): stores mask them, Thanos answers with them; the compactor removes them",
                    text::count(selected.series, "series"),
                    deletion.id
                );
                found.push(FoundProblem { block: *block, issue: "deleted_series", text });
            }
        }
    }
    Ok(found)
}
