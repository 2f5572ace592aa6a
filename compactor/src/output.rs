//! The id and the meta of a new block: a function of its sources, so that the same work makes the same block.

use std::collections::BTreeMap;
use std::sync::Arc;

use bucket::deletions::BlockDeletions;
use serde_json::{Value, json};
use series::ReplicaRule;
use tsdb::{BlockDesc, BlockMeta, BlockOptions, Compaction, ThanosMeta, Ulid};

use crate::group::GroupKey;

/// The `thanos.source` of new blocks, as in Thanos. Readers use such blocks at once.
pub(crate) const SOURCE: &str = "compactor";
/// Part of the ids: raised when equal sources would make other bytes.
const ALGORITHM: &str = "1";

/// The deletions that hold for blocks and are not done there.
pub(crate) type DeletionsByBlock = BTreeMap<Ulid, Arc<BlockDeletions>>;

/// The ids of the deletions of each of `sources`, as a part of the id of the block that is made of them; empty without deletions.
fn deletions_text(sources: &[Arc<BlockMeta>], deletions: &DeletionsByBlock) -> String {
    let mut texts: Vec<String> = sources
        .iter()
        .flat_map(|meta| {
            deletions.get(&meta.ulid).into_iter().flat_map(move |all| all.iter().map(move |one| (meta, one)))
        })
        .map(|(meta, deletion)| format!("{}={}", meta.ulid, deletion.id))
        .collect();
    texts.sort_unstable();
    texts.join(",")
}

/// The id of the block that `sources` become without what `deletions` delete.
pub(crate) fn merged_id(
    group: &GroupKey,
    sources: &[Arc<BlockMeta>],
    deletions: &DeletionsByBlock,
    rule: ReplicaRule,
) -> Ulid {
    let mut ids: Vec<String> = sources.iter().map(|meta| meta.ulid.to_string()).collect();
    ids.sort();
    let rule = match rule {
        ReplicaRule::OneToOne => "one to one",
        ReplicaRule::Penalty => "penalty",
    };
    let (group, ids, deleted) = (group.id(), ids.join(","), deletions_text(sources, deletions));
    let mut texts = vec!["merge", ALGORITHM, &group, rule, &ids];
    texts.extend((!deleted.is_empty()).then_some(deleted.as_str()));
    bucket::derived_id(newest_millis(sources), &texts)
}

/// The id of the block that replaces `source` when its deletions are done. It sorts before that of `source`: of two blocks with equal
/// sources, readers use the first one.
pub(crate) fn rewritten_id(source: &Arc<BlockMeta>, deletions: &DeletionsByBlock) -> Ulid {
    let deleted = deletions_text(std::slice::from_ref(source), deletions);
    let texts = ["rewrite", ALGORITHM, &source.ulid.to_string(), &deleted];
    bucket::derived_id(source.ulid.timestamp_ms().saturating_sub(1), &texts)
}

/// The id of the block that `source` becomes at a resolution of `millis`.
pub(crate) fn downsampled_id(source: &Arc<BlockMeta>, deletions: &DeletionsByBlock, millis: i64) -> Ulid {
    let (millis, id) = (millis.to_string(), source.ulid.to_string());
    let deleted = deletions_text(std::slice::from_ref(source), deletions);
    let mut texts = vec!["downsample", ALGORITHM, &millis, &id];
    texts.extend((!deleted.is_empty()).then_some(deleted.as_str()));
    bucket::derived_id(source.ulid.timestamp_ms(), &texts)
}

fn newest_millis(sources: &[Arc<BlockMeta>]) -> u64 {
    sources.iter().map(|meta| meta.ulid.timestamp_ms()).max().unwrap_or(0)
}

/// What to write for the block that `sources` become without what `deletions` delete.
pub(crate) fn merged_options(
    group: &GroupKey,
    sources: &[Arc<BlockMeta>],
    deletions: &DeletionsByBlock,
    id: Ulid,
) -> BlockOptions {
    let mut options = BlockOptions::new(id);
    let min = sources.iter().map(|meta| meta.min_time).min();
    options.times = min.zip(sources.iter().map(|meta| meta.max_time).max());
    let mut of_level_1: Vec<Ulid> = sources.iter().flat_map(|meta| meta.compaction.sources.clone()).collect();
    of_level_1.sort_unstable();
    of_level_1.dedup();
    let mut hints: Vec<String> = sources.iter().flat_map(|meta| meta.compaction.hints.clone()).collect();
    hints.sort_unstable();
    hints.dedup();
    // A remark holds for the new block only if it holds for all of its parents.
    hints.retain(|hint| sources.iter().all(|meta| meta.compaction.hints.contains(hint)));
    options.compaction = Some(Compaction {
        level: sources.iter().map(|meta| meta.compaction.level).max().unwrap_or(0) + 1,
        sources: of_level_1,
        parents: sources.iter().map(|meta| parent(meta)).collect(),
        hints,
        ..Compaction::default()
    });
    let mut thanos =
        ThanosMeta { labels: group.labels.clone(), source: SOURCE.to_owned(), ..ThanosMeta::default() };
    thanos.downsample.resolution_millis = group.resolution;
    thanos.extensions = common_extensions(sources);
    thanos.rewrites = rewrites(sources, deletions);
    options.thanos = Some(thanos);
    options
}

/// What to write for the block that replaces `source` when its deletions are done: as before, but for the id.
pub(crate) fn rewritten_options(
    source: &Arc<BlockMeta>,
    deletions: &DeletionsByBlock,
    id: Ulid,
) -> BlockOptions {
    let mut options = BlockOptions::new(id);
    options.times = Some((source.min_time, source.max_time));
    options.compaction = Some(Compaction { parents: vec![parent(source)], ..source.compaction.clone() });
    let old = source.thanos.clone().unwrap_or_default();
    options.thanos = Some(ThanosMeta {
        source: SOURCE.to_owned(),
        rewrites: rewrites(std::slice::from_ref(source), deletions),
        files: Vec::new(),
        segment_files: Vec::new(),
        ..old
    });
    options
}

/// What was rewritten in `sources`, and the deletions that are done in the block that is made of them. A deletion that concerns
/// another source, of which it was not requested yet, is not listed: it holds for the new block when it is requested.
pub(crate) fn rewrites(sources: &[Arc<BlockMeta>], deletions: &DeletionsByBlock) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    for entry in sources.iter().flat_map(|meta| meta.thanos.iter().flat_map(|thanos| thanos.rewrites.clone()))
    {
        if !all.contains(&entry) {
            all.push(entry);
        }
    }
    let mut done: BTreeMap<&str, Value> = BTreeMap::new();
    for deletion in sources.iter().filter_map(|meta| deletions.get(&meta.ulid)).flat_map(|all| all.iter()) {
        let is_done = |meta: &Arc<BlockMeta>| {
            let holds =
                deletions.get(&meta.ulid).is_some_and(|all| all.iter().any(|one| one.id == deletion.id));
            holds
                || bucket::deletions::applied(meta).contains(&*deletion.id)
                || BlockDeletions::of([deletion], meta).is_empty()
        };
        if sources.iter().all(is_done) {
            done.insert(&deletion.id, deletion.log_entry());
        }
    }
    if !done.is_empty() {
        let ids: Vec<String> = sources.iter().map(|meta| meta.ulid.to_string()).collect();
        all.push(json!({ "sources": ids, "deletions_applied": done.into_values().collect::<Vec<_>>() }));
    }
    all
}

fn parent(meta: &BlockMeta) -> BlockDesc {
    BlockDesc { ulid: meta.ulid, min_time: meta.min_time, max_time: meta.max_time }
}

/// The extensions that all sources have, with the values of the first one, as in Thanos.
fn common_extensions(sources: &[Arc<BlockMeta>]) -> Option<Value> {
    let mut of_all = sources.iter().map(|meta| meta.thanos.as_ref()?.extensions.as_ref());
    let mut first = of_all.next()??.clone();
    for other in of_all {
        match (&mut first, other) {
            (Value::Object(fields), Some(Value::Object(others))) => {
                fields.retain(|name, _| others.contains_key(name));
            }
            (first, Some(other)) if *first == *other => {}
            _ => return None,
        }
    }
    Some(first)
}

#[cfg(test)]
mod tests {
    use model::Timestamp;
    use serde_json::json;

    use super::*;

    fn block(number: u128, min: i64, max: i64) -> BlockMeta {
        let at = Timestamp::from_millis;
        let mut meta = BlockMeta::new(Ulid::from_parts(number as u64, number), at(min), at(max));
        meta.thanos = Some(ThanosMeta::default());
        meta
    }

    #[test]
    fn the_same_sources_in_any_order_make_the_same_id() {
        let group = GroupKey::of(&block(1, 0, 1), &[]);
        let (a, b) = (Arc::new(block(1, 0, 10)), Arc::new(block(2, 10, 20)));
        let none = DeletionsByBlock::new();
        let merged_id =
            |group: &GroupKey, sources: &[Arc<BlockMeta>], rule| merged_id(group, sources, &none, rule);
        let id = merged_id(&group, &[a.clone(), b.clone()], ReplicaRule::OneToOne);
        assert_eq!(id, merged_id(&group, &[b.clone(), a.clone()], ReplicaRule::OneToOne));
        assert_ne!(id, merged_id(&group, &[a.clone(), b.clone()], ReplicaRule::Penalty));
        assert_ne!(id, merged_id(&group, std::slice::from_ref(&b), ReplicaRule::OneToOne));
        assert_eq!(id.timestamp_ms(), 2);
        assert_ne!(downsampled_id(&a, &none, 300_000), downsampled_id(&a, &none, 3_600_000));
    }

    #[test]
    fn a_merged_block_has_the_times_and_the_sources_of_all() {
        let (mut a, mut b) = (block(1, 0, 10), block(2, 5, 30));
        a.compaction.level = 2;
        a.compaction.sources = vec![Ulid::from_parts(7, 7), Ulid::from_parts(3, 3)];
        a.compaction.hints = vec!["from-out-of-order".to_owned(), "x".to_owned()];
        b.compaction.hints = vec!["from-out-of-order".to_owned()];
        a.thanos.as_mut().unwrap().extensions = Some(json!({ "kept": 1, "lost": 2 }));
        b.thanos.as_mut().unwrap().extensions = Some(json!({ "kept": 3 }));
        let group = GroupKey::of(&a, &[]);
        let options = merged_options(
            &group,
            &[Arc::new(a), Arc::new(b)],
            &DeletionsByBlock::new(),
            Ulid::from_parts(9, 9),
        );
        let at = Timestamp::from_millis;
        assert_eq!(options.times, Some((at(0), at(30))));
        let compaction = options.compaction.unwrap();
        let sources: Vec<u128> = compaction.sources.iter().map(Ulid::random).collect();
        assert_eq!((compaction.level, sources, compaction.parents.len()), (3, vec![2, 3, 7], 2));
        assert_eq!(compaction.hints, ["from-out-of-order"]);
        assert_eq!(options.thanos.unwrap().extensions, Some(json!({ "kept": 1 })));
    }
}
