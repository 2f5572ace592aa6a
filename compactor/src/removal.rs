//! Removes what was marked long enough ago, and abandoned uploads.
//!
//! A marked block is removed only while what replaces it is there. A mark is as old as its object, by the clock of the bucket: the time
//! in it was written by a program whose clock may have been wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bucket::marks::{self, Mark, MarkKind, MarkState};
use bucket::{PartialVerdict, delete_block, delete_partial, layout};
use tsdb::{BlockMeta, Ulid};

use crate::group::{GroupKey, resolution, resolution_name};
use crate::history::{Action, Decision};
use crate::housekeeping::{HousekeepingOutcome, Pass};
use crate::worker::BucketWorker;

impl BucketWorker {
    /// Removes blocks whose marks are old enough.
    pub(crate) async fn remove_marked(&self, pass: &Pass<'_>, outcome: &mut HousekeepingOutcome) {
        let mut old = in_order(&pass.view.marked);
        old.retain(|(_, mark)| mark.age(pass.now) >= self.settings.delete_delay);
        for (block, mark) in old {
            let why = mark.details.as_deref().unwrap_or("marked for deletion");
            let decision = Decision::new(&self.name, Action::Deleted, "", why)
                .from([block])
                .to(mark.replaced_by.clone());
            match self.remove(block, mark, pass).await {
                Ok(Removal::Done) => {
                    outcome.removed += 1;
                    self.metrics.cleaned(true);
                    self.history.note(decision);
                }
                Ok(Removal::NotYet) => {}
                Ok(Removal::Keep(why)) => {
                    self.history.note(Decision { action: Action::Skipped, why, ..decision })
                }
                Err(why) => {
                    outcome.failed += 1;
                    self.metrics.cleaned(false);
                    self.history.note(Decision { action: Action::Failed, why, ..decision });
                }
            }
        }
    }

    /// Removes a marked block, unless it has to stay.
    async fn remove(&self, block: Ulid, mark: &Mark, pass: &Pass<'_>) -> Result<Removal, String> {
        if let Some(why) = self.missing_replacement(block, mark, pass) {
            return Ok(Removal::Keep(why));
        }
        let (retry, delay) = (self.workshop.retry, self.settings.delete_delay);
        let object = layout::block_file(block, MarkKind::Deletion.file());
        let written = match retry.run(|| self.bucket.head(&object)).await {
            Ok(info) => info.last_modified,
            Err(error) if error.is_not_found() => return Ok(Removal::Keep(CHANGED.to_owned())),
            Err(error) => return Err(error.to_string()),
        };
        let millis = u64::try_from(pass.now.millis_since(written)).unwrap_or(0);
        if Duration::from_millis(millis) < delay {
            return Ok(Removal::NotYet);
        }
        let has_meta = pass.view.marked_blocks.contains_key(&block);
        if has_meta && !self.index.has_told(block, pass.now, delay).await {
            return Ok(Removal::NotYet);
        }
        if has_meta && self.must_wait_for_readers(block, written, pass).await? {
            return Ok(Removal::NotYet);
        }
        let found = retry.run(|| marks::load(&self.bucket, block, MarkKind::Deletion)).await;
        match found.map_err(|error| error.to_string())? {
            MarkState::Marked(found) if found.age(pass.now) >= delay => {}
            _ => return Ok(Removal::Keep(CHANGED.to_owned())),
        }
        if self.has_new_deletions(block, &pass.view).await? {
            // They go over to other blocks in the next pass.
            return Ok(Removal::NotYet);
        }
        if !pass.lease.is_held() {
            return Err("the lease was lost".to_owned());
        }
        let deleted = delete_block(&self.bucket, block, retry).await;
        deleted.map(|_| Removal::Done).map_err(|error| error.to_string())
    }

    /// Why a marked block must stay although its time has come: what has its samples is not there.
    fn missing_replacement(&self, block: Ulid, mark: &Mark, pass: &Pass<'_>) -> Option<String> {
        let blocks = &pass.view.blocks;
        // What replaced it may be marked, too: when nothing is left of it, or it was replaced in its turn. It is removed later.
        let is_there = |id: &Ulid| {
            blocks.iter().any(|meta| meta.ulid == *id) || pass.view.marked_blocks.contains_key(id)
        };
        let first = mark.replaced_by.iter().find(|id| !is_there(id))?;
        // What replaced it may have been merged further since.
        let meta = pass.view.marked_blocks.get(&block)?;
        let of_group = |other: &BlockMeta| {
            let key = |meta| GroupKey::of(meta, &self.settings.replica_labels);
            key(other).labels == key(meta).labels && resolution(other) >= resolution(meta)
        };
        let mut left = meta.compaction.sources.clone();
        for other in blocks.iter().filter(|other| of_group(other)) {
            left.retain(|source| !other.compaction.sources.contains(source));
        }
        let is_past = pass.trusts_retention && self.settings.retention.is_past(meta, pass.now);
        (!left.is_empty() && !is_past).then(|| {
            format!(
                "block {first}, which replaced it at {}, is not in the bucket, and no other block has its samples: it is kept; remove its \
                 deletion mark to use it again",
                resolution_name(resolution(meta))
            )
        })
    }

    /// Removes uploads that were abandoned.
    pub(crate) async fn remove_abandoned(&self, pass: &Pass<'_>, outcome: &mut HousekeepingOutcome) {
        for block in pass.view.partial.iter().filter(|block| !pass.view.marked.contains_key(block)) {
            if !pass.lease.is_held() {
                return;
            }
            match delete_partial(&self.bucket, *block, pass.now, self.workshop.retry).await {
                Ok(PartialVerdict::Abandoned { newest }) => {
                    outcome.removed += 1;
                    self.metrics.partial_removed();
                    let why = format!("its upload was abandoned at {}", crate::history::rfc3339(newest));
                    self.history.note(Decision::new(&self.name, Action::Cleaned, "", why).from([*block]));
                }
                Ok(PartialVerdict::Keep(reason)) => {
                    tracing::debug!(bucket = %self.name, %block, reason, "an incomplete block is kept");
                }
                Err(error) => {
                    outcome.failed += 1;
                    self.metrics.cleaned(false);
                    self.history.note(Decision::new(&self.name, Action::Failed, "", error).from([*block]));
                }
            }
        }
    }
}

/// The marked blocks, each before those that replaced it, so that these are there when it is removed. Of blocks that replace each other
/// in a circle, none is removed.
fn in_order(marked: &BTreeMap<Ulid, Mark>) -> Vec<(Ulid, &Mark)> {
    let mut left: Vec<(Ulid, &Mark)> = marked.iter().map(|(block, mark)| (*block, mark)).collect();
    let mut ordered = Vec::with_capacity(left.len());
    loop {
        let replacing: BTreeSet<Ulid> = left.iter().flat_map(|(_, mark)| mark.replaced_by.clone()).collect();
        let (later, next): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|(block, _)| replacing.contains(block));
        if next.is_empty() {
            return ordered;
        }
        ordered.extend(next);
        left = later;
    }
}

/// What became of a marked block.
enum Removal {
    Done,
    /// Its mark is younger than the time in it says, deletions of its series are new, or a reader may still need it.
    NotYet,
    Keep(String),
}

const CHANGED: &str = "its deletion mark was changed or removed meanwhile";
