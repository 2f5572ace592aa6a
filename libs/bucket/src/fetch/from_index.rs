//! Views by the index of a bucket ([`crate::bucket_index`]): one small request instead of some for each block.

use std::sync::{Arc, MutexGuard, PoisonError};

use model::Timestamp;

use crate::bucket::ObjectInfo;
use crate::bucket_index::{BucketIndex, OBJECT};
use crate::deletions::effective;
use crate::error::ErrorKind;
use crate::fetch::Fetcher;
use crate::fetch::metrics::IndexUse;
use crate::fetch::view::BucketView;

/// What is known of the index of a bucket.
#[derive(Debug, Default)]
pub(super) struct IndexState {
    /// The last index that was read, and its object.
    known: Option<(ObjectInfo, Arc<BucketIndex>)>,
    /// The index with this sequence number, and those before it, are not used: they have told of a block that is gone.
    distrusted: u64,
    /// The problem that was logged last.
    logged: Option<String>,
}

impl Fetcher {
    /// Lists the bucket next time, because the index has told of a block that is gone. A newer index is used again.
    pub fn distrust_index(&self) {
        let mut state = self.index_state();
        let known = state.known.as_ref().map(|(_, index)| index.sequence);
        state.distrusted = state.distrusted.max(known.unwrap_or(0));
    }

    /// The sequence number of the index that the last view is of; `None` if the bucket was listed.
    pub fn used_index(&self) -> Option<u64> {
        *self.used_index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_state(&self) -> MutexGuard<'_, IndexState> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index of the bucket, if it may be used at `now`.
    pub(super) async fn usable_index(&self, now: Timestamp) -> Option<Arc<BucketIndex>> {
        let used = self.find_index(now).await;
        let outcome = used.as_ref().map_or_else(|(outcome, _)| *outcome, |(_, outcome)| *outcome);
        self.metrics.index_read(outcome);
        let problem = used.as_ref().err().and_then(|(_, problem)| problem.clone());
        let mut state = self.index_state();
        if problem != state.logged {
            match &problem {
                Some(reason) => {
                    tracing::warn!(bucket = self.bucket.name(), %reason, "the bucket is listed, because its index cannot be used");
                }
                None => tracing::info!(bucket = self.bucket.name(), "the index of the bucket is used again"),
            }
            state.logged = problem;
        }
        drop(state);
        *self.used_index.lock().unwrap_or_else(PoisonError::into_inner) =
            used.as_ref().ok().map(|(index, _)| index.sequence);
        used.ok().map(|(index, _)| index)
    }

    /// The index, or why it cannot be used: a bucket without one needs no words.
    async fn find_index(
        &self,
        now: Timestamp,
    ) -> Result<(Arc<BucketIndex>, IndexUse), (IndexUse, Option<String>)> {
        let retry = self.options.retry;
        let info = match retry.run(|| self.bucket.head(OBJECT)).await {
            Ok(info) => info,
            Err(error) if error.is_not_found() => return Err((IndexUse::Missing, None)),
            Err(error) => return Err((IndexUse::Unreadable, Some(error.to_string()))),
        };
        let known = self.index_state().known.clone();
        let unchanged = known.as_ref().filter(|(known, _)| known.is_identified() && *known == info);
        let (index, info, outcome) = match unchanged {
            Some((_, index)) => (Arc::clone(index), info, IndexUse::Unchanged),
            None => {
                let (content, info) = match retry.run(|| self.bucket.get_versioned(OBJECT)).await {
                    Ok(read) => read,
                    Err(error) if error.kind() == ErrorKind::TooLarge => {
                        return Err((IndexUse::Damaged, Some(error.to_string())));
                    }
                    Err(error) => return Err((IndexUse::Unreadable, Some(error.to_string()))),
                };
                let parsed = tokio::task::spawn_blocking(move || BucketIndex::parse(&content)).await;
                let parsed = parsed.map_err(|error| error.to_string()).flatten();
                let index = parsed.map_err(|reason| {
                    (
                        IndexUse::Damaged,
                        Some(format!("{OBJECT} is not an index: {reason}; a compactor writes it again")),
                    )
                })?;
                (Arc::new(index), info, IndexUse::Changed)
            }
        };
        let last = known.as_ref().map_or(0, |(_, index)| index.sequence);
        if index.sequence < last {
            let problem = format!("{OBJECT} has sequence number {}, it had {last} before", index.sequence);
            return Err((IndexUse::Damaged, Some(problem)));
        }
        let written = info.last_modified;
        let distrusted = {
            let mut state = self.index_state();
            state.known = Some((info, Arc::clone(&index)));
            state.distrusted
        };
        if index.sequence <= distrusted {
            return Err((IndexUse::Distrusted, Some(format!("{OBJECT} has told of a block that is gone"))));
        }
        if !index.is_fresh(written, now) {
            let problem = format!("{OBJECT} is too old; no compactor keeps it up to date");
            return Err((IndexUse::Old, Some(problem)));
        }
        Ok((index, outcome))
    }

    /// A view of the blocks that an index lists.
    pub(super) fn view_of_index(&self, index: &BucketIndex, now: Timestamp) -> BucketView {
        let content = &index.content;
        let mut view = BucketView {
            blocks: content.blocks.clone(),
            partial: content.partial.clone(),
            corrupt: content.corrupt.clone(),
            marks: content.marks.clone(),
            unusable_marks: content.unusable_marks.clone(),
            tombstones: content.tombstones.clone(),
            ..BucketView::default()
        };
        view.deletions = effective(&view.tombstones, view.blocks.values());
        self.filter_before_marks(&mut view, now);
        self.keep_marks_of_view(&mut view);
        self.filter_by_marks(&mut view, now);
        view
    }
}
