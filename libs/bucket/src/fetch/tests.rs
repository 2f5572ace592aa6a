//! Views of small buckets in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::memory::InMemory;
use runtime::TimeArg;

use super::*;
use crate::fault::{Faults, FaultyStore};
use crate::marks::Mark;

/// The time of every view.
const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn id(number: u64) -> Ulid {
    Ulid::from_parts(1_700_000_000_000, u128::from(number))
}

/// A meta that covers hour `number`, of cluster `a`.
fn meta(number: u64) -> BlockMeta {
    let start = Timestamp::EPOCH.offset_millis(3_600_000 * number as i64);
    let mut meta = BlockMeta::new(id(number), start, start.offset_millis(3_600_000));
    meta.thanos = Some(tsdb::ThanosMeta {
        labels: BTreeMap::from([("cluster".into(), "a".into()), ("replica".into(), number.to_string())]),
        ..tsdb::ThanosMeta::default()
    });
    meta
}

fn edit(mut meta: BlockMeta, change: impl FnOnce(&mut tsdb::ThanosMeta)) -> BlockMeta {
    change(meta.thanos.as_mut().expect("it was set"));
    meta
}

async fn bucket_of(metas: &[BlockMeta]) -> Bucket {
    let bucket = Bucket::new(Arc::new(InMemory::new()));
    for meta in metas {
        bucket.put(&layout::meta(meta.ulid), meta.to_json().into()).await.unwrap();
    }
    bucket
}

async fn view(bucket: &Bucket, filters: Filters) -> BucketView {
    let options = FetchOptions { filters, ..FetchOptions::default() };
    let fetcher = Fetcher::new(bucket.clone(), options, FetchMetrics::default()).unwrap();
    fetcher.fetch(NOW).await.unwrap()
}

/// The numbers of the blocks that are left, and how many went into `state`.
async fn check(metas: &[BlockMeta], filters: Filters, left: &[u64], state: BlockState) {
    let view = view(&bucket_of(metas).await, filters.clone()).await;
    let found: Vec<Ulid> = view.blocks.keys().copied().collect();
    assert_eq!(found, left.iter().copied().map(id).collect::<Vec<_>>(), "{filters:?}");
    assert_eq!(view.counts.get(&state).copied().unwrap_or(0), metas.len() - left.len(), "{filters:?}");
    assert_eq!(view.counts[&BlockState::Loaded], left.len());
}

#[tokio::test]
async fn blocks_outside_the_time_are_dropped() {
    let metas = [meta(0), meta(1), meta(2), meta(3)];
    let hours = |min: i64, max: i64| Filters {
        time: Some((
            TimeArg::Absolute(Timestamp::from_millis(min * 3_600_000)),
            TimeArg::Absolute(Timestamp::from_millis(max * 3_600_000 - 1)),
        )),
        ..Filters::default()
    };
    check(&metas, hours(-9, 99), &[0, 1, 2, 3], BlockState::TimeExcluded).await;
    // As in Thanos, a block that ends where the time begins counts as inside.
    check(&metas, hours(2, 3), &[1, 2], BlockState::TimeExcluded).await;
    check(&metas, hours(99, 100), &[], BlockState::TimeExcluded).await;
}

#[tokio::test]
async fn shards_are_chosen_by_labels_and_block_id() {
    let metas = [meta(0), meta(1), meta(2), meta(3)];
    let rules = |yaml: &str| Filters { selector: parse_selector(yaml).unwrap(), ..Filters::default() };
    let keep = |replica: &str| format!("- {{action: keep, source_labels: [replica], regex: '{replica}'}}");
    check(&metas, rules(&keep("1|3")), &[1, 3], BlockState::LabelExcluded).await;
    check(
        &metas,
        rules("- {action: drop, source_labels: [cluster], regex: a}"),
        &[],
        BlockState::LabelExcluded,
    )
    .await;
    let by_id = format!("- {{action: keep, source_labels: [__block_id], regex: {}}}", id(2));
    check(&metas, rules(&by_id), &[2], BlockState::LabelExcluded).await;
    // The rules do not see replica labels, so that replicas are in the same shard.
    let hidden = Filters { replica_labels: vec!["replica".into()], ..rules(&keep("1")) };
    check(&metas, hidden, &[], BlockState::LabelExcluded).await;

    // Two shards by hash take every block exactly once.
    let bucket = bucket_of(&metas).await;
    let mut seen = Vec::new();
    for shard in 0..2 {
        let yaml = format!(
            "- {{action: hashmod, source_labels: [__block_id], target_label: shard, modulus: 2}}\n\
             - {{action: keep, source_labels: [shard], regex: {shard}}}"
        );
        seen.extend(view(&bucket, rules(&yaml)).await.blocks.into_keys());
    }
    seen.sort();
    assert_eq!(seen, [id(0), id(1), id(2), id(3)]);
}

#[test]
fn rules_that_do_not_apply_to_blocks_are_rejected() {
    let check = |yaml: &str, expected: &str| {
        let error = parse_selector(yaml).unwrap_err().to_string();
        assert!(error.contains(expected), "{yaml}: {error}");
    };
    check("- {action: labelmap, regex: a}", "\"labelmap\" is unknown, expected keep, drop or hashmod");
    check("- {source_labels: [a]}", "[0].action: is missing");
    check("- {action: keep, source_label: [a]}", "[0].source_label: unknown field");
    check("- {action: keep, source_labels: [a], regex: '('}", "rule 1");
    check("action: keep", "expected a list of rules");
    assert!(parse_selector("").unwrap().is_empty());
}

#[tokio::test]
async fn fresh_blocks_wait_unless_a_compactor_made_them() {
    let uploaded = |number, source: &str, minutes: i64| {
        let at = NOW.offset_millis(-60_000 * minutes).as_millis() / 1000;
        let at = time::OffsetDateTime::from_unix_timestamp(at).unwrap();
        let at = at.format(&time::format_description::well_known::Rfc3339).unwrap();
        edit(meta(number), |thanos| (thanos.upload_time, thanos.source) = (at, source.to_owned()))
    };
    let metas = [
        uploaded(0, "sidecar", 29),
        uploaded(1, "sidecar", 31),
        uploaded(2, "compactor", 1),
        uploaded(3, "bucket.repair", 1),
        // Without a time of upload that of the id counts, long ago.
        meta(4),
    ];
    let delay = Duration::from_secs(1_800);
    let filters = Filters { consistency_delay: delay, ..Filters::default() };
    check(&metas, filters, &[1, 2, 3, 4], BlockState::TooFresh).await;
}

#[tokio::test]
async fn blocks_with_old_deletion_marks_are_dropped_and_bad_marks_are_ignored() {
    let bucket = bucket_of(&[meta(0), meta(1), meta(2), meta(3)]).await;
    let hour = |hours: i64| NOW.offset_millis(-3_600_000 * hours);
    marks::create(&bucket, &Mark::new(MarkKind::Deletion, id(0), hour(25))).await.unwrap();
    marks::create(&bucket, &Mark::new(MarkKind::Deletion, id(1), hour(23))).await.unwrap();
    marks::create(&bucket, &Mark::new(MarkKind::NoCompact, id(1), hour(1))).await.unwrap();
    let bad = layout::block_file(id(2), layout::DELETION_MARK_FILE);
    bucket.put(&bad, Bytes::from_static(b"{\"version\":2,\"deletion_time\":1}")).await.unwrap();
    for discovery in [Discovery::Concurrent, Discovery::Recursive] {
        let filters =
            Filters { ignore_marked_after: Some(Duration::from_secs(86_400)), ..Filters::default() };
        let options =
            FetchOptions { discovery, filters, gather: vec![MarkKind::NoCompact], ..FetchOptions::default() };
        let fetcher = Fetcher::new(bucket.clone(), options, FetchMetrics::default()).unwrap();
        let view = fetcher.fetch(NOW).await.unwrap();
        assert_eq!(view.blocks.keys().copied().collect::<Vec<_>>(), [id(1), id(2), id(3)]);
        assert_eq!(view.counts[&BlockState::MarkedForDeletion], 1);
        assert_eq!(view.counts[&BlockState::MarkedForNoCompaction], 1);
        let marked: Vec<_> = view.marks.keys().copied().collect();
        let expected =
            [(MarkKind::Deletion, id(0)), (MarkKind::Deletion, id(1)), (MarkKind::NoCompact, id(1))];
        assert_eq!(marked, expected);
        let unusable: Vec<_> = view.unusable_marks.keys().copied().collect();
        assert_eq!(unusable, [(MarkKind::Deletion, id(2))]);
    }
}

#[tokio::test]
async fn replica_labels_are_removed_and_a_block_always_keeps_a_label() {
    let only_replica = edit(meta(1), |thanos| _ = thanos.labels.remove("cluster"));
    let filters = Filters {
        replica_labels: vec!["replica".into()],
        removes_replica_labels: true,
        ..Filters::default()
    };
    let view = view(&bucket_of(&[meta(0), only_replica]).await, filters).await;
    let labels = |number| view.blocks[&id(number)].thanos.as_ref().unwrap().labels.clone();
    assert_eq!(labels(0), BTreeMap::from([("cluster".into(), "a".into())]));
    assert_eq!(labels(1), BTreeMap::from([("replica".into(), "deduped".into())]));
}

#[tokio::test]
async fn blocks_whose_sources_are_all_in_another_are_duplicates() {
    let of = |number, sources: &[u64]| {
        let mut meta = edit(meta(number), |thanos| _ = thanos.labels.remove("replica"));
        meta.compaction.sources = sources.iter().copied().map(id).collect();
        meta
    };
    let elsewhere = edit(of(7, &[1, 2]), |thanos| _ = thanos.labels.insert("cluster".into(), "b".into()));
    let coarser = edit(of(8, &[1, 2]), |thanos| thanos.downsample.resolution_millis = 300_000);
    let metas = [
        of(1, &[1]),
        of(2, &[2]),
        of(3, &[1, 2, 3]),
        of(4, &[1, 2, 3]),
        of(5, &[3, 5]),
        of(6, &[3]),
        elsewhere,
        coarser,
    ];
    let filters = Filters { deduplicates: true, ..Filters::default() };
    check(&metas, filters.clone(), &[3, 5, 7, 8], BlockState::Duplicate).await;
    let view = view(&bucket_of(&metas).await, filters).await;
    assert_eq!(view.duplicates.into_iter().collect::<Vec<_>>(), [id(1), id(2), id(4), id(6)]);
}

#[tokio::test]
async fn other_objects_are_ignored_and_corrupt_blocks_are_not_partial_uploads() {
    let bucket = bucket_of(&[meta(0)]).await;
    for name in ["debug/metas/x.json", "isthmus/clock", "meta.json", "notes"] {
        bucket.put(name, Bytes::from_static(b"x")).await.unwrap();
    }
    bucket.put(&layout::block_file(id(1), "index"), Bytes::new()).await.unwrap();
    bucket.put(&layout::meta(id(2)), Bytes::from_static(b"{}")).await.unwrap();
    bucket.put(&layout::meta(id(3)), meta(9).to_json().into()).await.unwrap();
    let mut newer = meta(4);
    newer.version = 2;
    bucket.put(&layout::meta(id(4)), newer.to_json().into()).await.unwrap();
    for discovery in [Discovery::Concurrent, Discovery::Recursive] {
        let options = FetchOptions { discovery, ..FetchOptions::default() };
        let fetcher = Fetcher::new(bucket.clone(), options, FetchMetrics::default()).unwrap();
        let view = fetcher.fetch(NOW).await.unwrap();
        assert_eq!(view.blocks.keys().copied().collect::<Vec<_>>(), [id(0)]);
        assert_eq!(view.partial.iter().copied().collect::<Vec<_>>(), [id(1)]);
        assert_eq!(view.corrupt.keys().copied().collect::<Vec<_>>(), [id(2), id(3), id(4)]);
        assert!(view.corrupt[&id(3)].contains(&id(9).to_string()));
        assert!(view.corrupt[&id(4)].contains("version 2"));
        assert_eq!((view.counts[&BlockState::NoMeta], view.counts[&BlockState::Corrupt]), (1, 3));
    }
}

#[tokio::test]
async fn a_meta_that_is_too_large_makes_its_block_corrupt_and_no_view_incomplete() {
    let bucket = bucket_of(&[meta(0)]).await;
    bucket.put(&layout::meta(id(1)), vec![b' '; (64 << 20) + 1].into()).await.unwrap();
    let view = view(&bucket, Filters::default()).await;
    assert_eq!(view.blocks.keys().copied().collect::<Vec<_>>(), [id(0)]);
    assert!(view.corrupt[&id(1)].contains("expected at most 67108864"), "{:?}", view.corrupt);
}

#[tokio::test]
async fn metas_are_fetched_once_and_kept_on_disk() {
    let memory = Arc::new(InMemory::new());
    let store = FaultyStore::new(memory.clone(), 1);
    let (bucket, plain) = (Bucket::new(store.clone()), Bucket::new(memory));
    for number in 0..3 {
        plain.put(&layout::meta(id(number)), meta(number).to_json().into()).await.unwrap();
    }
    let data = tempfile::tempdir().unwrap();
    let options = |discovery| FetchOptions {
        discovery,
        data_dir: Some(data.path().to_owned()),
        ..FetchOptions::default()
    };
    let open = |discovery| Fetcher::new(bucket.clone(), options(discovery), FetchMetrics::default()).unwrap();
    let requests = async |fetcher: &Fetcher, blocks: usize| {
        let before = store.requests();
        assert_eq!(fetcher.fetch(NOW).await.unwrap().blocks.len(), blocks);
        store.requests() - before
    };
    // One listing of the bucket, one of deletions of series, and each meta.
    let fetcher = open(Discovery::Recursive);
    assert_eq!(requests(&fetcher, 3).await, 5);
    assert_eq!(requests(&fetcher, 3).await, 2);
    assert!(data.path().join("meta-syncer").join(id(0).to_string()).join("meta.json").is_file());
    // After a restart the disk has them.
    let fetcher = open(Discovery::Recursive);
    assert_eq!(requests(&fetcher, 3).await, 2);
    assert_eq!(requests(&open(Discovery::Concurrent), 3).await, 5);

    // The meta of a removed block is removed, and damaged and changed metas are fetched again.
    plain.delete(&layout::meta(id(0))).await.unwrap();
    std::fs::write(data.path().join("meta-syncer").join(id(1).to_string()).join("meta.json"), "{").unwrap();
    assert_eq!(requests(&open(Discovery::Concurrent), 2).await, 5);
    assert!(!data.path().join("meta-syncer").join(id(0).to_string()).exists());
    let renewed = edit(meta(2), |thanos| thanos.source = "bucket.rewrite".into());
    let fetcher = open(Discovery::Recursive);
    requests(&fetcher, 2).await;
    let before = plain.head(&layout::meta(id(2))).await.unwrap().last_modified;
    while plain.head(&layout::meta(id(2))).await.unwrap().last_modified == before {
        plain.put(&layout::meta(id(2)), renewed.to_json().into()).await.unwrap();
    }
    let view = fetcher.fetch(NOW).await.unwrap();
    assert_eq!(view.blocks[&id(2)].thanos.as_ref().unwrap().source, "bucket.rewrite");

    store.set(Faults { requests_left: Some(0), ..Faults::default() });
    let quick = FetchOptions { retry: Retry { attempts: 1, ..Retry::default() }, ..FetchOptions::default() };
    let fetcher = Fetcher::new(bucket.clone(), quick, FetchMetrics::default()).unwrap();
    assert!(matches!(fetcher.fetch(NOW).await, Err(FetchError::Listing(_))));
}

/// Another program publishes a merged block and removes its sources between the listing and the reads.
#[tokio::test]
async fn a_block_that_is_published_while_its_sources_are_removed_is_seen() {
    for discovery in [Discovery::Concurrent, Discovery::Recursive] {
        let memory = Arc::new(InMemory::new());
        let store = FaultyStore::new(memory.clone(), 1);
        let plain = Bucket::new(memory);
        let put = async |number: u64| {
            plain.put(&layout::meta(id(number)), meta(number).to_json().into()).await.unwrap();
        };
        put(0).await;
        let options = FetchOptions { discovery, ..FetchOptions::default() };
        let fetcher = Fetcher::new(Bucket::new(store.clone()), options, FetchMetrics::default()).unwrap();
        assert_eq!(fetcher.fetch(NOW).await.unwrap().blocks.len(), 1);
        put(1).await;
        let (changed, merged) = (plain.clone(), meta(2).to_json());
        let is_done = Arc::new(std::sync::atomic::AtomicBool::new(false));
        store.before_read(move |_| {
            let (changed, merged, is_done) = (changed.clone(), merged.clone(), Arc::clone(&is_done));
            Box::pin(async move {
                if !is_done.swap(true, std::sync::atomic::Ordering::SeqCst) {
                    changed.put(&layout::meta(id(2)), merged.into()).await.unwrap();
                    changed.delete(&layout::meta(id(0))).await.unwrap();
                    changed.delete(&layout::meta(id(1))).await.unwrap();
                }
            })
        });
        let found: Vec<Ulid> = fetcher.fetch(NOW).await.unwrap().blocks.keys().copied().collect();
        assert_eq!(found, [id(2)], "{discovery:?}");
    }
}

#[tokio::test]
async fn the_metrics_have_thanos_names_and_count_blocks_by_state() {
    let mut registry = runtime::Registry::default();
    let metrics = FetchMetrics::new(&mut registry);
    let bucket = bucket_of(&[meta(0), meta(1)]).await;
    bucket.put(&layout::block_file(id(5), "index"), Bytes::new()).await.unwrap();
    let fetcher = Fetcher::new(bucket, FetchOptions::default(), metrics).unwrap();
    fetcher.fetch(NOW).await.unwrap();
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "thanos_blocks_meta_syncs_total 1",
        "thanos_blocks_meta_sync_failures_total 0",
        "thanos_blocks_meta_synced{state=\"loaded\"} 2",
        "thanos_blocks_meta_synced{state=\"no-meta-json\"} 1",
        "thanos_blocks_meta_synced{state=\"corrupted-meta-json\"} 0",
        "thanos_blocks_meta_modified{modified=\"replica-label-removed\"} 0",
        "thanos_blocks_meta_sync_duration_seconds_count 1",
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
}
