//! Which blocks of a group are merged next. Pure: a function of the blocks, the rules and the time.
//!
//! Time is cut into windows of 8 h, 2 d and 14 d, aligned to the epoch. The blocks of a window become one block when the window is
//! closed: every producer that is alive has uploaded up to its end and there is a later block, or a while has passed. Blocks that
//! overlap are merged together with the rest of their window, so that late samples and replicas cost no pass of their own. Blocks
//! that overlap across windows are merged when they are found.
//!
//! Larger windows come first: after an outage, blocks of 2 h become one of 2 d at once. Thanos (`pkg/compact/planner.go`) goes from
//! small windows to large ones and merges overlaps first, which writes most samples twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::Timestamp;
use tsdb::{BlockMeta, Ulid};

use crate::group::{external_labels, resolution};

pub(crate) const HOUR: i64 = 3_600_000;
/// Lengths of the windows by level, as in Thanos, in milliseconds: 2 h, 8 h, 2 d, 14 d.
pub(crate) const RANGES: [i64; 4] = [2 * HOUR, 8 * HOUR, 48 * HOUR, 14 * 24 * HOUR];
/// Most blocks that are merged at once, which bounds the memory of a job.
pub(crate) const MOST_SOURCES: usize = 16;
/// The part of the largest index at which blocks are no longer merged, as in Thanos: the sum of the sources is only an estimate.
const INDEX_SHARE: f64 = 0.85;

/// How blocks are planned.
#[derive(Clone, Debug)]
pub(crate) struct PlanRules {
    /// Lengths of the windows that become one block, ascending, in milliseconds.
    pub(crate) ranges: Vec<i64>,
    /// Most bytes of the index of a merged block.
    pub(crate) max_index_bytes: u64,
}

impl PlanRules {
    /// The rules for compaction up to `level`, from 1 to 4.
    pub(crate) fn up_to(level: usize, max_index_bytes: u64) -> Self {
        let ranges = match level.clamp(1, RANGES.len()) {
            1 => RANGES[..1].to_vec(),
            // Blocks of 2 h are merged as parts of 8 h.
            level => RANGES[1..level].to_vec(),
        };
        Self { ranges, max_index_bytes }
    }
}

/// Blocks that are merged into one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    /// At least two, sorted by time.
    pub(crate) sources: Vec<Arc<BlockMeta>>,
    pub(crate) why: PlanReason,
}

/// Why blocks are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlanReason {
    /// They are all blocks of a closed window of this many milliseconds.
    Window(i64),
    /// They overlap, and do not fit into a window.
    Overlap,
}

impl Plan {
    /// Whether two of the sources overlap.
    pub(crate) fn is_vertical(&self) -> bool {
        overlaps(&self.sources)
    }
}

impl std::fmt::Display for PlanReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Window(millis) if millis % (24 * HOUR) == 0 => {
                write!(f, "window of {} d", millis / (24 * HOUR))
            }
            Self::Window(millis) => write!(f, "window of {} h", millis / HOUR),
            Self::Overlap => f.write_str("overlap"),
        }
    }
}

/// The next plan for a group, or none. `group` is sorted by time; `is_excluded` says which blocks are never merged.
pub(crate) fn plan(
    group: &[Arc<BlockMeta>],
    is_excluded: impl Fn(Ulid) -> bool,
    rules: &PlanRules,
    now: Timestamp,
) -> Option<Plan> {
    plan_with(group, &Ends::of(group), is_excluded, rules, now)
}

/// As [`plan`], for a part of a group whose producers have uploaded up to `ends`.
fn plan_with(
    group: &[Arc<BlockMeta>],
    ends: &Ends,
    is_excluded: impl Fn(Ulid) -> bool,
    rules: &PlanRules,
    now: Timestamp,
) -> Option<Plan> {
    let is_usable = |meta: &BlockMeta| !is_excluded(meta.ulid) && !meta.compaction.failed;
    for &range in rules.ranges.iter().rev() {
        for (start, window) in windows(group, range) {
            if window.len() < 2 || !ends.is_closed(start, range, now) {
                continue;
            }
            let runs = window.split(|meta| !is_usable(meta)).flat_map(mergeable_runs);
            let mut runs = runs.filter(|run| run.len() > 1 && fits(run, rules));
            if let Some(run) = runs.find(|run| run.len() <= MOST_SOURCES) {
                return Some(Plan { sources: run.to_vec(), why: PlanReason::Window(range) });
            }
        }
    }
    let smallest = rules.ranges.first().copied()?;
    let usable: Vec<Arc<BlockMeta>> = group.iter().filter(|meta| is_usable(meta)).cloned().collect();
    overlapping_runs(&usable)
        .filter(|run| resolution(&run[0]) == 0 && fits(run, rules))
        .find(|run| ends.is_due(run, smallest, now))
        .map(|run| Plan { sources: run[..run.len().min(MOST_SOURCES)].to_vec(), why: PlanReason::Overlap })
}

/// The plans that follow each other, if `merged` is the block that a plan makes. Each of the largest windows is looked at alone, so
/// overlaps across them are left out.
pub(crate) fn look_ahead(
    group: &[Arc<BlockMeta>],
    is_excluded: impl Fn(Ulid) -> bool,
    rules: &PlanRules,
    now: Timestamp,
    merged: impl Fn(&Plan) -> BlockMeta,
) -> Vec<Plan> {
    let (ends, mut plans) = (Ends::of(group), Vec::new());
    let Some(&largest) = rules.ranges.last() else { return plans };
    for (_, mut blocks) in windows(group, largest) {
        while let Some(next) = plan_with(&blocks, &ends, &is_excluded, rules, now) {
            blocks.retain(|meta| !next.sources.iter().any(|source| source.ulid == meta.ulid));
            blocks.push(Arc::new(merged(&next)));
            blocks.sort_by_key(|meta| (meta.min_time, meta.max_time, meta.ulid));
            plans.push(next);
        }
    }
    plans
}

/// Blocks that cannot be merged with others because the index would be too large: of each plan that was dropped for this reason,
/// the block with the largest index.
pub(crate) fn too_large(
    group: &[Arc<BlockMeta>],
    is_excluded: impl Fn(Ulid) -> bool,
    rules: &PlanRules,
) -> Vec<Ulid> {
    let mut found = Vec::new();
    for &range in &rules.ranges {
        for (_, window) in windows(group, range) {
            for run in window.split(|meta| is_excluded(meta.ulid)).flat_map(mergeable_runs) {
                if run.len() > 1 && !fits(run, rules) {
                    found.extend(run.iter().max_by_key(|meta| index_bytes(meta)).map(|meta| meta.ulid));
                }
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// How far each producer of a group has uploaded.
struct Ends {
    /// Earliest and latest time by external labels.
    producers: BTreeMap<Vec<(String, String)>, (Timestamp, Timestamp)>,
    last_begin: Timestamp,
}

impl Ends {
    fn of(group: &[Arc<BlockMeta>]) -> Self {
        let mut producers: BTreeMap<Vec<(String, String)>, (Timestamp, Timestamp)> = BTreeMap::new();
        for meta in group {
            let labels = external_labels(meta).iter().map(|(n, v)| (n.clone(), v.clone())).collect();
            let ends = producers.entry(labels).or_insert((meta.min_time, meta.max_time));
            *ends = (ends.0.min(meta.min_time), ends.1.max(meta.max_time));
        }
        let last_begin = group.iter().map(|meta| meta.min_time).max().unwrap_or(Timestamp::MIN);
        Self { producers, last_begin }
    }

    /// Whether no more blocks of the window are expected: all producers that were alive in it have reached its end and there is
    /// a later block, or a quarter of its length, at least 4 h, has passed.
    fn is_closed(&self, start: i64, range: i64, now: Timestamp) -> bool {
        let end = Timestamp::from_millis(start.saturating_add(range));
        let patience = (range / 4).max(4 * HOUR);
        if now >= end.offset_millis(patience) {
            return true;
        }
        // A producer that had reached the beginning may still be behind.
        let was_alive = |(begin, last): &&(Timestamp, Timestamp)| *begin < end && last.as_millis() >= start;
        self.last_begin >= end && self.producers.values().filter(was_alive).all(|(_, last)| *last >= end)
    }

    /// Whether blocks that overlap are merged now: unless all are in one window that is still open.
    fn is_due(&self, run: &[Arc<BlockMeta>], range: i64, now: Timestamp) -> bool {
        let start = window_start(run[0].min_time, range);
        let is_within = run.iter().all(|meta| meta.max_time.as_millis() <= start.saturating_add(range));
        !is_within || self.is_closed(start, range, now)
    }
}

/// The windows of this length with the blocks that are within each. A block that crosses a boundary is in none.
fn windows(group: &[Arc<BlockMeta>], range: i64) -> impl Iterator<Item = (i64, Vec<Arc<BlockMeta>>)> {
    let mut windows: BTreeMap<i64, Vec<Arc<BlockMeta>>> = BTreeMap::new();
    for meta in group {
        let start = window_start(meta.min_time, range);
        if meta.max_time.as_millis() <= start.saturating_add(range) {
            windows.entry(start).or_default().push(Arc::clone(meta));
        }
    }
    windows.into_iter()
}

fn window_start(at: Timestamp, range: i64) -> i64 {
    at.as_millis().div_euclid(range).saturating_mul(range)
}

/// The parts of neighbours that can be merged: raw blocks all together, downsampled ones as long as they do not overlap, because
/// windows of aggregates cannot be joined.
fn mergeable_runs(neighbours: &[Arc<BlockMeta>]) -> Vec<&[Arc<BlockMeta>]> {
    let is_raw = neighbours.first().is_none_or(|meta| resolution(meta) == 0);
    if is_raw { vec![neighbours] } else { neighbours.chunk_by(|a, b| a.max_time <= b.min_time).collect() }
}

/// The runs of at least two blocks in which each overlaps an earlier one. `blocks` are sorted by time.
fn overlapping_runs(blocks: &[Arc<BlockMeta>]) -> impl Iterator<Item = &[Arc<BlockMeta>]> {
    let (mut runs, mut begin, mut end) = (Vec::new(), 0, Timestamp::MIN);
    for (number, meta) in blocks.iter().enumerate() {
        if meta.min_time >= end {
            runs.push(&blocks[begin..number]);
            begin = number;
        }
        end = end.max(meta.max_time);
    }
    runs.push(&blocks[begin..]);
    runs.into_iter().filter(|run| run.len() > 1)
}

/// Whether two blocks of the list, which is sorted by time, overlap.
pub(crate) fn overlaps(blocks: &[Arc<BlockMeta>]) -> bool {
    overlapping_runs(blocks).next().is_some()
}

fn fits(run: &[Arc<BlockMeta>], rules: &PlanRules) -> bool {
    let bytes: u64 = run.iter().map(|meta| index_bytes(meta)).sum();
    (bytes as f64) < rules.max_index_bytes as f64 * INDEX_SHARE
}

fn index_bytes(meta: &BlockMeta) -> u64 {
    let files = meta.thanos.iter().flat_map(|thanos| &thanos.files);
    files.filter(|file| file.rel_path == bucket::layout::INDEX_FILE).filter_map(|file| file.size_bytes).sum()
}

#[cfg(test)]
mod tests {
    use tsdb::{FileMeta, ThanosMeta};

    use super::*;

    /// A block from hour `from` to hour `to` of a replica. Its id is `number`.
    fn block(number: u128, from: i64, to: i64, replica: &str) -> Arc<BlockMeta> {
        let at = |hours: i64| Timestamp::from_millis(hours * HOUR);
        let mut meta = BlockMeta::new(Ulid::from_parts(1, number), at(from), at(to));
        let mut thanos = ThanosMeta::default();
        thanos.labels.insert("replica".to_owned(), replica.to_owned());
        meta.thanos = Some(thanos);
        Arc::new(meta)
    }

    fn edit(meta: Arc<BlockMeta>, change: impl FnOnce(&mut ThanosMeta)) -> Arc<BlockMeta> {
        let mut meta = BlockMeta::clone(&meta);
        change(meta.thanos.as_mut().unwrap());
        Arc::new(meta)
    }

    fn sorted(mut group: Vec<Arc<BlockMeta>>) -> Vec<Arc<BlockMeta>> {
        group.sort_by_key(|meta| (meta.min_time, meta.max_time, meta.ulid));
        group
    }

    /// The ids of the next plan at hour `now`.
    fn planned(group: Vec<Arc<BlockMeta>>, excluded: &[u128], now: i64) -> Vec<u128> {
        let rules = PlanRules::up_to(4, 64 << 30);
        let is_excluded = |id: Ulid| excluded.contains(&id.random());
        let plan = plan(&sorted(group), is_excluded, &rules, Timestamp::from_millis(now * HOUR));
        plan.map_or_else(Vec::new, |plan| plan.sources.iter().map(|meta| meta.ulid.random()).collect())
    }

    fn two_hours(from: i64, to: i64, replica: &str) -> Vec<Arc<BlockMeta>> {
        (from..to).step_by(2).map(|at| block(at as u128, at, at + 2, replica)).collect()
    }

    #[test]
    fn the_blocks_of_a_window_are_merged_when_a_later_block_exists() {
        assert_eq!(planned(two_hours(0, 8, "a"), &[], 8), [0; 0]);
        assert_eq!(planned(two_hours(0, 10, "a"), &[], 10), [0, 2, 4, 6]);
        // A producer that ended is merged after a while.
        assert_eq!(planned(two_hours(0, 6, "a"), &[], 11), [0; 0]);
        assert_eq!(planned(two_hours(0, 6, "a"), &[], 12), [0, 2, 4]);
        assert_eq!(planned(two_hours(0, 2, "a"), &[], 1000), [0; 0]);
    }

    #[test]
    fn a_window_waits_for_the_slower_replica() {
        let with = |second: Vec<Arc<BlockMeta>>| {
            let second = second.into_iter().map(|meta| {
                let mut meta = BlockMeta::clone(&meta);
                meta.ulid = Ulid::from_parts(1, 100 + meta.ulid.random());
                Arc::new(meta)
            });
            two_hours(0, 10, "a").into_iter().chain(second).collect::<Vec<_>>()
        };
        assert_eq!(planned(with(two_hours(0, 6, "b")), &[], 10), [0; 0]);
        assert_eq!(planned(with(two_hours(0, 8, "b")), &[], 10), [0, 100, 2, 102, 4, 104, 6, 106]);
        assert_eq!(planned(with(two_hours(0, 6, "b")), &[], 13), [0, 100, 2, 102, 4, 104, 6]);
    }

    #[test]
    fn after_an_outage_the_largest_window_of_few_blocks_comes_first() {
        let days = [block(1, 0, 48, "a"), block(2, 48, 96, "a"), block(3, 336, 384, "a")];
        assert_eq!(planned(days.to_vec(), &[], 384), [1, 2]);
        // 24 blocks are too many at once, so they are merged by 8 h first.
        assert_eq!(planned(two_hours(0, 50, "a"), &[], 50), [0, 2, 4, 6]);
        let rules = PlanRules::up_to(4, 64 << 30);
        assert_eq!((rules.ranges, PlanRules::up_to(1, 1).ranges), (RANGES[1..].to_vec(), vec![2 * HOUR]));
    }

    #[test]
    fn late_blocks_join_the_window_and_excluded_blocks_split_it() {
        let late = |number| block(number, 1, 2, "a");
        let merged = vec![block(1, 0, 8, "a"), late(2), block(3, 8, 10, "a")];
        assert_eq!(planned(merged.clone(), &[], 10), [1, 2]);
        assert_eq!(planned(merged, &[2], 10), [0; 0]);
        assert_eq!(planned(two_hours(0, 10, "a"), &[2], 10), [4, 6]);
        // In an open window they wait for it to close.
        assert_eq!(planned(vec![block(1, 0, 2, "a"), late(2)], &[], 3), [0; 0]);
        let across = vec![block(1, 6, 10, "a"), block(2, 9, 12, "a")];
        assert_eq!(planned(across, &[], 12), [1, 2]);
    }

    #[test]
    fn the_plans_that_follow_are_seen_ahead() {
        let rules = PlanRules::up_to(4, 64 << 30);
        let merged = |plan: &Plan| {
            let (first, last) = (&plan.sources[0], &plan.sources[plan.sources.len() - 1]);
            let mut meta = BlockMeta::clone(first);
            (meta.ulid, meta.max_time) = (Ulid::from_parts(2, first.ulid.random()), last.max_time);
            meta
        };
        let group = sorted(two_hours(0, 50, "a"));
        let plans = look_ahead(&group, |_| false, &rules, Timestamp::from_millis(50 * HOUR), merged);
        // Three windows of 8 h; then the rest of two days are few enough blocks for one merge.
        assert_eq!(plans.iter().map(|plan| plan.sources.len()).collect::<Vec<_>>(), [4, 4, 4, 15]);
    }

    #[test]
    fn downsampled_blocks_that_overlap_are_left_alone() {
        let coarse = |meta| edit(meta, |thanos| thanos.downsample.resolution_millis = 300_000);
        let group = vec![
            coarse(block(1, 0, 48, "a")),
            coarse(block(2, 40, 48, "a")),
            coarse(block(3, 336, 384, "a")),
        ];
        assert_eq!(planned(group, &[], 1000), [0; 0]);
        let group = vec![
            coarse(block(1, 0, 48, "a")),
            coarse(block(2, 48, 96, "a")),
            coarse(block(3, 336, 384, "a")),
        ];
        assert_eq!(planned(group, &[], 1000), [1, 2]);
    }

    #[test]
    fn blocks_whose_index_would_be_too_large_are_not_merged() {
        let with_index = |meta, gigabytes: u64| {
            edit(meta, |thanos| {
                thanos.files.push(FileMeta {
                    rel_path: "index".to_owned(),
                    size_bytes: Some(gigabytes << 30),
                    hash: None,
                });
            })
        };
        let group = vec![
            with_index(block(1, 0, 2, "a"), 20),
            with_index(block(2, 2, 4, "a"), 40),
            block(3, 8, 10, "a"),
        ];
        assert_eq!(planned(group.clone(), &[], 10), [0; 0]);
        let found = too_large(&group, |_| false, &PlanRules::up_to(4, 64 << 30));
        assert_eq!(found, [Ulid::from_parts(1, 2)]);
    }
}
