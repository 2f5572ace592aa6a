//! The deletions of series in a view. Marks are cached, so that each content is read once.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use futures::{StreamExt, TryStreamExt};
use tsdb::Ulid;

use crate::bucket::ObjectInfo;
use crate::deletions::{TombstonesMark, effective};
use crate::error::{BucketError, ErrorKind};
use crate::fetch::Fetcher;
use crate::fetch::view::BucketView;
use crate::layout;

/// A mark, or why it cannot be used.
type ReadMark = Result<TombstonesMark, String>;

/// The marks of the last view, each with the object that it was read from.
pub(super) type TombstonesCache = Mutex<BTreeMap<Ulid, (ObjectInfo, ReadMark)>>;

impl Fetcher {
    /// Adds the deletions to a view of all blocks. A block whose mark cannot be used is corrupt: it is not known which of its samples
    /// are deleted.
    ///
    /// # Errors
    /// Any error of the store: without the marks, deleted samples would be answered.
    pub(super) async fn mask(&self, view: &mut BucketView) -> Result<(), BucketError> {
        for (block, mark) in self.tombstones().await? {
            match mark {
                Ok(mark) => _ = view.tombstones.insert(block, mark),
                Err(reason) if view.blocks.remove(&block).is_some() => {
                    let object = layout::tombstones_mark(block);
                    let reason = format!(
                        "{object} is not a list of deletions, so that it is not known which samples are deleted: {reason}; correct it, \
                         or remove it"
                    );
                    tracing::warn!(%block, bucket = self.bucket.name(), %reason, "block is not used");
                    view.corrupt.insert(block, reason);
                }
                Err(_) => {}
            }
        }
        view.deletions = effective(&view.tombstones, view.blocks.values());
        Ok(())
    }

    /// All marks of the bucket.
    async fn tombstones(&self) -> Result<BTreeMap<Ulid, ReadMark>, BucketError> {
        let retry = self.options.retry;
        let listed = retry.run(|| self.bucket.list_all(layout::TOMBSTONES_DIR)).await?;
        let known = self.tombstones.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let reads = listed.into_iter().filter_map(|object| {
            let block = layout::block_of_tombstones(&object.name)?;
            Some((block, object))
        });
        let reads = reads.map(|(block, object)| {
            // In a local directory, two versions may have the same size and time.
            let is_known = |(known, _): &&(ObjectInfo, ReadMark)| object.is_identified() && *known == object;
            let known = known.get(&block).filter(is_known).map(|(_, mark)| mark.clone());
            async move {
                if let Some(mark) = known {
                    return Ok(Some((block, (object, mark))));
                }
                let mark = match retry.run(|| self.bucket.get(&object.name)).await {
                    Ok(content) => TombstonesMark::parse(block, &content),
                    Err(error) if error.is_not_found() => return Ok(None),
                    Err(error) if error.kind() == ErrorKind::TooLarge => Err(error.to_string()),
                    Err(error) => return Err(error),
                };
                Ok(Some((block, (object, mark))))
            }
        });
        let reads = futures::stream::iter(reads).buffer_unordered(self.concurrency());
        let found: BTreeMap<Ulid, (ObjectInfo, ReadMark)> =
            reads.try_filter_map(|found| async move { Ok(found) }).try_collect().await?;
        let marks = found.iter().map(|(block, (_, mark))| (*block, mark.clone())).collect();
        *self.tombstones.lock().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(marks)
    }
}
