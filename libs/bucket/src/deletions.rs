//! Deletions of series: which samples of a block are deleted although they are still in its files.
//!
//! ```text
//! isthmus/tombstones/<ULID>.json   {"version": 1, "id": "<ULID>", "deletions": [
//!                                    {"id": "...", "matchers": [{"name", "op", "value"}], "min_time", "max_time", "time", "details"}]}
//! meta.json                        thanos.rewrites[].deletions_applied[].request_id: deletions that are done in this block
//! ```
//!
//! Readers mask these samples; a compactor writes the block again without them. A deletion in the mark of one block holds for every
//! block that shares a source with it, also for merged and downsampled ones, unless their `meta.json` says that it is done there: so a
//! mark that comes while blocks are being merged is not lost. Thanos ignores these objects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::{ExternalMatch, Labels, MatchOp, Matcher, TimeRange, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tsdb::{BlockMeta, Ulid};

use crate::bucket::Bucket;
use crate::error::{BucketError, ErrorKind};
use crate::layout;
use crate::lease::{LeaseAttempt, LeaseError, Leases};
use crate::retry::Retry;

/// The version of the objects.
const VERSION: u32 = 1;
/// Larger marks are not read.
const MAX_BYTES: usize = 1 << 20;
/// Most deletions in a mark, and most matchers in a deletion.
const MAX_DELETIONS: usize = 1_000;
const MAX_MATCHERS: usize = 64;
/// Most bytes of the id of a deletion.
const MAX_ID_BYTES: usize = 64;
/// Attempts while other processes change the same mark.
const ATTEMPTS: usize = 20;

/// Samples that are deleted: of the series that satisfy all matchers, in a range of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// Differs from that of every other deletion.
    pub id: String,
    /// They match the labels of the series together with the external labels of the block, as those of a query do. At least one does
    /// not match the empty string.
    pub matchers: Vec<Matcher>,
    /// Both ends included.
    pub range: TimeRange,
    /// When it was requested.
    pub time: Timestamp,
    /// The reason as text for people.
    pub details: Option<String>,
}

/// The deletions that were requested of one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TombstonesMark {
    /// The block.
    pub block: Ulid,
    /// In the order in which they came.
    pub deletions: Vec<Arc<Deletion>>,
}

#[derive(Serialize, Deserialize)]
struct RawMark {
    version: u32,
    id: String,
    deletions: Vec<RawDeletion>,
}

#[derive(Serialize, Deserialize)]
struct RawDeletion {
    id: String,
    matchers: Vec<RawMatcher>,
    min_time: i64,
    max_time: i64,
    time: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    details: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct RawMatcher {
    name: String,
    op: String,
    value: String,
}

impl Deletion {
    /// The matchers that are left for the series of a block with these external labels and times; `None` if the deletion does not
    /// concern it.
    pub fn matchers_for(&self, external: &Labels, times: TimeRange) -> Option<Vec<Matcher>> {
        match ExternalMatch::split(&self.matchers, external) {
            ExternalMatch::Rest(rest) if self.range.overlaps(&times) => Some(rest),
            _ => None,
        }
    }

    /// An entry of `deletions_applied` in `meta.json`, as Thanos writes it.
    pub fn log_entry(&self) -> Value {
        let kind = |op: MatchOp| match op {
            MatchOp::Equal => 0,
            MatchOp::NotEqual => 1,
            MatchOp::Regex => 2,
            MatchOp::NotRegex => 3,
        };
        let matcher = |m: &Matcher| json!({ "Type": kind(m.op()), "Name": m.name(), "Value": m.value() });
        json!({
            "matchers": self.matchers.iter().map(matcher).collect::<Vec<_>>(),
            "intervals": [{ "Mint": self.range.min.as_millis(), "Maxt": self.range.max.as_millis() }],
            "request_id": self.id,
        })
    }

    fn from_raw(raw: RawDeletion) -> Result<Self, String> {
        if raw.id.is_empty() || raw.id.len() > MAX_ID_BYTES {
            return Err(format!(
                "a deletion has an id of {} bytes, expected 1 to {MAX_ID_BYTES}",
                raw.id.len()
            ));
        }
        if raw.matchers.len() > MAX_MATCHERS {
            return Err(format!(
                "a deletion has {} matchers, expected at most {MAX_MATCHERS}",
                raw.matchers.len()
            ));
        }
        let matcher = |raw: RawMatcher| {
            let ops = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];
            let op = ops.into_iter().find(|op| op.as_str() == raw.op);
            let op = op.ok_or_else(|| format!("a matcher has the operator {:.10?}", raw.op))?;
            Matcher::new(op, &raw.name, &raw.value).map_err(|error| error.to_string())
        };
        let matchers = raw.matchers.into_iter().map(matcher).collect::<Result<Vec<_>, _>>()?;
        let deletion = Self {
            id: raw.id,
            matchers,
            range: TimeRange::new(Timestamp::from_millis(raw.min_time), Timestamp::from_millis(raw.max_time)),
            time: Timestamp::from_millis(raw.time),
            details: raw.details,
        };
        deletion.check().map(|()| deletion)
    }

    /// Whether it says what is deleted.
    ///
    /// # Errors
    /// A short text that says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        if self.matchers.iter().all(Matcher::matches_empty) {
            return Err("a deletion needs a matcher that does not match the empty string".to_owned());
        }
        if self.range.is_empty() {
            return Err(format!(
                "a deletion ends at {}, before it begins at {}",
                self.range.max, self.range.min
            ));
        }
        Ok(())
    }

    fn to_raw(&self) -> RawDeletion {
        let matcher = |m: &Matcher| RawMatcher {
            name: m.name().to_owned(),
            op: m.op().as_str().to_owned(),
            value: m.value().to_owned(),
        };
        RawDeletion {
            id: self.id.clone(),
            matchers: self.matchers.iter().map(matcher).collect(),
            min_time: self.range.min.as_millis(),
            max_time: self.range.max.as_millis(),
            time: self.time.as_millis(),
            details: self.details.clone(),
        }
    }
}

impl TombstonesMark {
    /// Parses the content of a mark.
    ///
    /// # Errors
    /// A short text that says what is wrong.
    pub fn parse(block: Ulid, content: &[u8]) -> Result<Self, String> {
        if content.len() > MAX_BYTES {
            return Err(format!("it has {} bytes, expected at most {MAX_BYTES}", content.len()));
        }
        let raw: RawMark = serde_json::from_slice(content).map_err(|error| error.to_string())?;
        if raw.version != VERSION {
            return Err(format!("its version is {}, expected {VERSION}", raw.version));
        }
        if raw.id != block.to_string() {
            return Err(format!("its id is {:.26}, expected {block}", raw.id));
        }
        if raw.deletions.len() > MAX_DELETIONS {
            return Err(format!(
                "it has {} deletions, expected at most {MAX_DELETIONS}",
                raw.deletions.len()
            ));
        }
        let deletions = raw.deletions.into_iter().map(|raw| Deletion::from_raw(raw).map(Arc::new));
        Ok(Self { block, deletions: deletions.collect::<Result<_, _>>()? })
    }

    /// The mark as the content of its object.
    pub fn to_json(&self) -> Bytes {
        let raw = RawMark {
            version: VERSION,
            id: self.block.to_string(),
            deletions: self.deletions.iter().map(|deletion| deletion.to_raw()).collect(),
        };
        Bytes::from(serde_json::to_vec(&raw).expect("texts and numbers can be written as JSON"))
    }

    /// Adds the deletions whose ids it lacks. Returns their number.
    fn add(&mut self, more: &[Arc<Deletion>]) -> usize {
        let before = self.deletions.len();
        for deletion in more {
            if !self.deletions.iter().any(|known| known.id == deletion.id) {
                self.deletions.push(Arc::clone(deletion));
            }
        }
        self.deletions.len() - before
    }
}

/// The deletions that hold for one block and are not done there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockDeletions {
    /// Each with the matchers that are left for the series of the block.
    all: Vec<(Arc<Deletion>, Vec<Matcher>)>,
}

impl BlockDeletions {
    /// Those of `deletions` that concern a block.
    pub fn of<'a>(deletions: impl IntoIterator<Item = &'a Arc<Deletion>>, meta: &BlockMeta) -> Self {
        let (external, times) = (external_labels(meta), times(meta));
        let concerning =
            |deletion: &Arc<Deletion>| Some((Arc::clone(deletion), deletion.matchers_for(&external, times)?));
        Self { all: deletions.into_iter().filter_map(concerning).collect() }
    }

    /// Whether nothing is deleted.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The deletions.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Deletion>> {
        self.all.iter().map(|(deletion, _)| deletion)
    }

    /// The deletions with the matchers that are left for the series of the block.
    pub fn with_matchers(&self) -> impl Iterator<Item = (&Arc<Deletion>, &[Matcher])> {
        self.all.iter().map(|(deletion, matchers)| (deletion, matchers.as_slice()))
    }

    /// The deleted times of a series with these labels, without external ones, in any order.
    pub fn of_series<'a>(&'a self, labels: &'a Labels) -> impl Iterator<Item = TimeRange> + 'a {
        let selects = |matchers: &[Matcher]| matchers.iter().all(|matcher| matcher.matches_labels(labels));
        self.all.iter().filter(move |(_, matchers)| selects(matchers)).map(|(deletion, _)| deletion.range)
    }
}

/// The ids of the deletions that are done in a block.
pub fn applied(meta: &BlockMeta) -> BTreeSet<&str> {
    let entries = meta.thanos.iter().flat_map(|thanos| &thanos.rewrites);
    let lists = entries.filter_map(|entry| entry.get("deletions_applied")?.as_array()).flatten();
    lists.filter_map(|deletion| deletion.get("request_id")?.as_str()).collect()
}

/// What holds for each of the blocks, by the marks of all blocks. Blocks without deletions are left out.
pub fn effective<'a>(
    marks: &BTreeMap<Ulid, TombstonesMark>,
    metas: impl IntoIterator<Item = &'a Arc<BlockMeta>>,
) -> BTreeMap<Ulid, Arc<BlockDeletions>> {
    if marks.is_empty() {
        return BTreeMap::new();
    }
    let metas: Vec<&Arc<BlockMeta>> = metas.into_iter().collect();
    let mut by_source: BTreeMap<Ulid, Vec<&TombstonesMark>> =
        marks.values().map(|mark| (mark.block, vec![mark])).collect();
    for meta in &metas {
        let Some(mark) = marks.get(&meta.ulid) else { continue };
        for source in meta.compaction.sources.iter().filter(|source| **source != meta.ulid) {
            by_source.entry(*source).or_default().push(mark);
        }
    }
    let of_block = |meta: &&Arc<BlockMeta>| {
        let own = std::iter::once(&meta.ulid).chain(&meta.compaction.sources);
        let marks: BTreeMap<Ulid, &TombstonesMark> =
            own.filter_map(|id| by_source.get(id)).flatten().map(|mark| (mark.block, *mark)).collect();
        if marks.is_empty() {
            return None;
        }
        let done = applied(meta);
        let mut seen = BTreeSet::new();
        let open = marks.values().flat_map(|mark| &mark.deletions);
        let open = open.filter(|deletion| !done.contains(&*deletion.id) && seen.insert(&*deletion.id));
        let deletions = BlockDeletions::of(open, meta);
        (!deletions.is_empty()).then(|| (meta.ulid, Arc::new(deletions)))
    };
    metas.iter().filter_map(of_block).collect()
}

/// Why a mark could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum TombstonesError {
    /// An error of the store.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// There is an object that is not a mark.
    #[error("{object} in bucket {bucket:?} is not a list of deletions: {reason}; correct it, or remove it")]
    Unusable {
        /// Its name.
        object: String,
        /// The bucket.
        bucket: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The block has too many deletions that are not done yet.
    #[error(
        "block {0} has {MAX_DELETIONS} deletions or {MAX_BYTES} bytes of them, which is the most; run the compactor, which applies them"
    )]
    Full(Ulid),
    /// The lock of a bucket in a local directory cannot be taken.
    #[error("lock the marks: {0}")]
    Lock(#[from] LeaseError),
    /// Other processes changed the mark each time.
    #[error("the mark of block {0} is changed by other processes all the time; try again")]
    Busy(Ulid),
}

/// The mark of a block; `None` if there is none.
///
/// # Errors
/// See [`TombstonesError`].
pub async fn load(
    bucket: &Bucket,
    block: Ulid,
    retry: Retry,
) -> Result<Option<TombstonesMark>, TombstonesError> {
    let name = layout::tombstones_mark(block);
    match retry.run(|| bucket.get(&name)).await {
        Ok(content) => parse(bucket, block, &content).map(Some),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Adds deletions to the mark of a block, and returns how many it did not have yet.
///
/// # Errors
/// See [`TombstonesError`]. A mark that cannot be used is never overwritten.
pub async fn add(
    bucket: &Bucket,
    block: Ulid,
    deletions: &[Arc<Deletion>],
    retry: Retry,
) -> Result<usize, TombstonesError> {
    // A local directory has no conditional updates, but locks.
    let _lock = if bucket.inner.settings.folder.is_some() { Some(lock(bucket).await?) } else { None };
    let name = layout::tombstones_mark(block);
    for _ in 0..ATTEMPTS {
        let (mut mark, version) = match retry.run(|| bucket.get_versioned(&name)).await {
            Ok((content, info)) => (parse(bucket, block, &content)?, Some(info.version)),
            Err(error) if error.is_not_found() => (TombstonesMark { block, deletions: Vec::new() }, None),
            Err(error) => return Err(error.into()),
        };
        let added = mark.add(deletions);
        if added == 0 {
            return Ok(0);
        }
        let content = mark.to_json();
        if mark.deletions.len() > MAX_DELETIONS || content.len() > MAX_BYTES {
            return Err(TombstonesError::Full(block));
        }
        let written = match version {
            None => bucket.put_if_absent(&name, content).await,
            Some(version) => match bucket.update(&name, content.clone(), version).await {
                Err(error) if error.kind() == ErrorKind::Unsupported => bucket.put(&name, content).await,
                written => written,
            },
        };
        match written {
            Ok(_) => return Ok(added),
            // Another process was faster, or the answer to an earlier attempt was lost: the next look shows it.
            Err(error) if error.kind() == ErrorKind::Conflict || error.is_retryable() => {
                tokio::time::sleep(retry.delay).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(TombstonesError::Busy(block))
}

/// Gives each block the deletions that hold for it because a block that shares a source with it has them: one that was merged or
/// downsampled while they were requested. Otherwise they would be forgotten when that block is removed. `effective` and `marks` are those
/// of a view; `may_write` is asked before each write. Returns the number of blocks.
///
/// # Errors
/// See [`TombstonesError`]. No block should be removed then.
pub async fn carry(
    bucket: &Bucket,
    effective: &BTreeMap<Ulid, Arc<BlockDeletions>>,
    marks: &BTreeMap<Ulid, TombstonesMark>,
    may_write: impl Fn() -> bool,
    retry: Retry,
) -> Result<usize, TombstonesError> {
    let mut carried = 0;
    for (block, effective) in effective {
        let own = marks.get(block).into_iter().flat_map(|mark| &mark.deletions);
        let own: BTreeSet<&str> = own.map(|deletion| &*deletion.id).collect();
        let missing: Vec<Arc<Deletion>> =
            effective.iter().filter(|deletion| !own.contains(&*deletion.id)).cloned().collect();
        if missing.is_empty() {
            continue;
        }
        if !may_write() {
            break;
        }
        let added = add(bucket, *block, &missing, retry).await?;
        tracing::info!(%block, bucket = bucket.name(), deletions = added, "deletions of series go over to a block");
        carried += 1;
    }
    Ok(carried)
}

/// Gives block `new`, which is made of block `old`, or is a copy of it, the deletions that were requested of `old`.
///
/// # Errors
/// See [`TombstonesError`]. The new block must not be published then.
pub async fn copy(
    from: &Bucket,
    old: Ulid,
    to: &Bucket,
    new: Ulid,
    retry: Retry,
) -> Result<(), TombstonesError> {
    match load(from, old, retry).await? {
        Some(mark) if !mark.deletions.is_empty() => add(to, new, &mark.deletions, retry).await.map(|_| ()),
        _ => Ok(()),
    }
}

/// Removes the mark of a block. It is not an error if there is none.
///
/// # Errors
/// Any error of the store.
pub async fn remove(bucket: &Bucket, block: Ulid) -> Result<(), BucketError> {
    bucket.delete(&layout::tombstones_mark(block)).await
}

fn parse(bucket: &Bucket, block: Ulid, content: &[u8]) -> Result<TombstonesMark, TombstonesError> {
    TombstonesMark::parse(block, content).map_err(|reason| TombstonesError::Unusable {
        object: layout::tombstones_mark(block),
        bucket: bucket.name().to_owned(),
        reason,
    })
}

async fn lock(bucket: &Bucket) -> Result<crate::lease::Lease, TombstonesError> {
    let leases = Leases::new(bucket, "tombstones", Duration::from_secs(60));
    loop {
        match leases.acquire("tombstones").await? {
            LeaseAttempt::Held(lease) => return Ok(lease),
            LeaseAttempt::Taken { .. } => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// The external labels of a block; none where they are not valid.
pub(crate) fn external_labels(meta: &BlockMeta) -> Labels {
    let pairs = meta.thanos.iter().flat_map(|thanos| &thanos.labels);
    Labels::from_pairs(pairs).unwrap_or_else(|_| Labels::empty())
}

/// The instants of which a block may have samples. The end in `meta.json` is exclusive.
fn times(meta: &BlockMeta) -> TimeRange {
    TimeRange::new(meta.min_time, meta.max_time.offset_millis(-1))
}

#[cfg(test)]
mod tests;
