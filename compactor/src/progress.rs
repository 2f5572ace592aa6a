//! What is left to do, for people: by group, what the planner would do next, and what waits for a person.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::Timestamp;
use serde::Serialize;
use tsdb::{BlockMeta, Ulid};

use crate::group::{GroupKey, size_bytes};
use crate::output;
use crate::plan::{Plan, PlanRules, look_ahead};

/// What is left to do in a group.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GroupProgress {
    pub(crate) group: String,
    pub(crate) bucket: String,
    /// Blocks of the group now.
    pub(crate) blocks_now: usize,
    /// Merges, the blocks that they read and their bytes.
    pub(crate) jobs: usize,
    pub(crate) blocks: usize,
    pub(crate) bytes: u64,
    pub(crate) downsample_blocks: usize,
    /// What is done now, or why nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<String>,
}

/// A block that a person should look at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct TroubledBlock {
    pub(crate) ulid: String,
    pub(crate) bucket: String,
    /// `quarantined`, `corrupt`, `refused`, `kept`.
    pub(crate) state: &'static str,
    pub(crate) reason: String,
}

/// Sums over all groups of all buckets.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Backlog {
    pub(crate) jobs: usize,
    pub(crate) blocks: usize,
    pub(crate) bytes: u64,
    pub(crate) downsample: usize,
    pub(crate) marked: usize,
    pub(crate) quarantined: usize,
    pub(crate) corrupt: usize,
    pub(crate) refused: usize,
    pub(crate) skipped: usize,
    pub(crate) waiting: usize,
}

/// The progress of one bucket.
#[derive(Clone, Debug, Default)]
pub(crate) struct BucketProgress {
    pub(crate) groups: BTreeMap<GroupKey, GroupProgress>,
    pub(crate) troubled: Vec<TroubledBlock>,
    pub(crate) marked: usize,
}

/// The progress of all buckets, and how fast jobs run; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    shared: Arc<Mutex<SharedProgress>>,
}

#[derive(Debug, Default)]
struct SharedProgress {
    buckets: BTreeMap<String, BucketProgress>,
    states: BTreeMap<(String, GroupKey), String>,
    done_bytes: u64,
    took: Duration,
}

/// How the states of groups begin that are counted in metrics.
pub(crate) const WAITING: &str = "waiting";
pub(crate) const SKIPPED: &str = "skipped";

impl Progress {
    /// Replaces what is known about a bucket.
    pub(crate) fn set(&self, bucket: &str, progress: BucketProgress) {
        self.lock().buckets.insert(bucket.to_owned(), progress);
    }

    /// Says what is done in a group; `None` for nothing.
    pub(crate) fn state(&self, bucket: &str, group: &GroupKey, state: Option<String>) {
        let key = (bucket.to_owned(), group.clone());
        let mut shared = self.lock();
        match state {
            Some(state) => shared.states.insert(key, state),
            None => shared.states.remove(&key),
        };
    }

    /// Forgets that groups waited for another compactor, except those in which something is still due.
    pub(crate) fn stop_waiting(&self, bucket: &str, due: &[GroupKey]) {
        self.lock()
            .states
            .retain(|(name, key), state| name != bucket || due.contains(key) || !state.starts_with(WAITING));
    }

    /// A merge of this many bytes took so long.
    pub(crate) fn done(&self, bytes: u64, took: Duration) {
        let mut shared = self.lock();
        shared.done_bytes += bytes;
        shared.took += took;
    }

    /// All groups, troubled blocks, sums, and the time that the merges need at the speed so far.
    pub(crate) fn all(&self) -> (Vec<GroupProgress>, Vec<TroubledBlock>, Backlog, Option<Duration>) {
        let shared = self.lock();
        let (mut groups, mut troubled, mut backlog) = (Vec::new(), Vec::new(), Backlog::default());
        for (name, bucket) in &shared.buckets {
            backlog.marked += bucket.marked;
            troubled.extend(bucket.troubled.iter().cloned());
            for (key, group) in &bucket.groups {
                let state = shared.states.get(&(name.clone(), key.clone())).cloned();
                backlog.jobs += group.jobs;
                backlog.blocks += group.blocks;
                backlog.bytes += group.bytes;
                backlog.downsample += group.downsample_blocks;
                backlog.waiting +=
                    usize::from(state.as_ref().is_some_and(|state| state.starts_with(WAITING)));
                backlog.skipped +=
                    usize::from(state.as_ref().is_some_and(|state| state.starts_with(SKIPPED)));
                groups.push(GroupProgress { state, ..group.clone() });
            }
        }
        let count = |state| troubled.iter().filter(|block: &&TroubledBlock| block.state == state).count();
        (backlog.quarantined, backlog.corrupt, backlog.refused) =
            (count("quarantined"), count("corrupt"), count("refused"));
        let speed = shared.done_bytes as f64 / shared.took.as_secs_f64();
        let left =
            (speed > 0.0 && speed.is_finite()).then(|| Duration::from_secs_f64(backlog.bytes as f64 / speed));
        (groups, troubled, backlog, left)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, SharedProgress> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The merges that the planner would do one after the other, without doing them.
pub(crate) fn next_plans(
    group: &GroupKey,
    blocks: &[Arc<BlockMeta>],
    is_excluded: impl Fn(Ulid) -> bool,
    rules: &PlanRules,
    now: Timestamp,
) -> Vec<Plan> {
    look_ahead(blocks, is_excluded, rules, now, |plan| imagined(group, plan))
}

/// The block that a plan would make, with the files of its sources together.
fn imagined(group: &GroupKey, plan: &Plan) -> BlockMeta {
    // What is deleted does not change what is planned.
    let none = output::DeletionsByBlock::new();
    let id = output::merged_id(group, &plan.sources, &none, series::ReplicaRule::OneToOne);
    let options = output::merged_options(group, &plan.sources, &none, id);
    let (min, max) = options.times.unwrap_or((Timestamp::EPOCH, Timestamp::EPOCH));
    let mut meta = BlockMeta::new(id, min, max);
    meta.compaction = options.compaction.unwrap_or_default();
    meta.thanos = options.thanos.map(|mut thanos| {
        thanos.files =
            plan.sources.iter().flat_map(|meta| meta.thanos.iter().flat_map(|t| t.files.clone())).collect();
        thanos
    });
    meta
}

/// The progress of a group: `blocks` of it, sorted by time.
pub(crate) fn of_group(
    bucket: &str,
    group: &GroupKey,
    blocks: &[Arc<BlockMeta>],
    is_excluded: impl Fn(Ulid) -> bool,
    rules: &PlanRules,
    now: Timestamp,
) -> GroupProgress {
    let plans = next_plans(group, blocks, is_excluded, rules, now);
    let sources = plans.iter().flat_map(|plan| &plan.sources);
    GroupProgress {
        group: group.to_string(),
        bucket: bucket.to_owned(),
        blocks_now: blocks.len(),
        jobs: plans.len(),
        blocks: sources.clone().count(),
        bytes: sources.map(|meta| size_bytes(meta)).sum(),
        downsample_blocks: 0,
        state: None,
    }
}
