//! Blocks of every kind: downsampled, without a manifest, with labels that the bucket forbids, damaged.

use std::fs;
use std::time::Duration;

use series::Aggregate;
use storeapi::{Code, PartialResponse};

use super::*;

const HOUR: i64 = 3_600_000;

fn up() -> Vec<Matcher> {
    vec![Matcher::equal("__name__", "up")]
}

/// A block with the series `up` of one sample a minute between these hours.
pub(super) fn simple_block(dir: &Path, number: u64, external: &Labels, hours: (i64, i64)) -> BlockMeta {
    let samples =
        (hours.0 * 60..hours.1 * 60).map(|minute| Sample::new(minute * 60_000, minute as f64)).collect();
    write_block(dir, Ulid::from_parts(number, 1), external, &[(labels(&[("__name__", "up")]), samples)])
}

/// A block of aggregates of `up`, one window of five minutes after the other.
pub(super) fn downsampled_block(dir: &Path, number: u64, external: &Labels, hours: (i64, i64)) {
    let options = BlockOptions {
        thanos: Some(thanos(external, 300_000)),
        times: Some((Timestamp::from_millis(hours.0 * HOUR), Timestamp::from_millis(hours.1 * HOUR))),
        ..BlockOptions::new(Ulid::from_parts(number, 1))
    };
    let mut writer = BlockWriter::create(dir, options).unwrap();
    let windows: Vec<i64> = (hours.0 * 12..hours.1 * 12).map(|n| n * 300_000 + 299_999).collect();
    let part = |value: f64| {
        let samples: Vec<Sample> = windows.iter().map(|at| Sample::new(*at, value)).collect();
        AggrChunk::from_floats(&samples).unwrap().into_iter().next().and_then(|chunk| chunk.raw)
    };
    let aggregates = tsdb::Aggregates {
        count: part(5.0),
        sum: part(10.0),
        min: part(1.0),
        max: part(3.0),
        counter: part(7.0),
    };
    let chunk = aggregates.encode(millis((windows[0], *windows.last().unwrap())));
    writer.add_series(&labels(&[("__name__", "up")]), [chunk]).unwrap();
    writer.finish().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_requested_aggregates_of_the_allowed_resolution_are_sent() {
    let (bucket_dir, data_dir) = dirs();
    let external = labels(&[("cluster", "c")]);
    simple_block(bucket_dir.path(), 1, &external, (8, 10));
    downsampled_block(bucket_dir.path(), 2, &external, (0, 8));
    let served = serve(&local(bucket_dir.path()), data_dir.path(), &[]).await;
    let mut request = SeriesRequest::new(millis((0, 10 * HOUR)), up());
    let (raw, _) = ask(&served.store, request.clone()).await.unwrap();
    assert_eq!(raw[0].chunks.iter().filter(|chunk| chunk.raw.is_none()).count(), 0);
    request.max_resolution = Duration::from_secs(300);
    request.aggregates = vec![Aggregate::Max, Aggregate::Count];
    let (both, warnings) = ask(&served.store, request).await.unwrap();
    assert_eq!((both.len(), warnings.len()), (1, 0));
    let (coarse, fine): (Vec<_>, Vec<_>) = both[0].chunks.iter().partition(|chunk| chunk.raw.is_none());
    assert!(!coarse.is_empty() && !fine.is_empty());
    assert!(coarse.iter().all(|chunk| chunk.max.is_some() && chunk.count.is_some() && chunk.sum.is_none()));
    assert!(fine.iter().all(|chunk| chunk.range().min.as_millis() >= 8 * HOUR));
    assert!(both[0].chunks.iter().all(|chunk| chunk.producer == series::Producer::of(&external)));
    assert!(coarse.iter().all(|chunk| chunk.resolution == Duration::from_secs(300)));
    assert!(fine.iter().all(|chunk| chunk.resolution.is_zero()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coarser_aggregates_than_permitted_are_sent_where_nothing_else_is_left_if_the_client_asks() {
    let (bucket_dir, data_dir) = dirs();
    let external = labels(&[("cluster", "c")]);
    simple_block(bucket_dir.path(), 1, &external, (8, 10));
    downsampled_block(bucket_dir.path(), 2, &external, (0, 10));
    let served = serve(&local(bucket_dir.path()), data_dir.path(), &[]).await;
    let mut request = SeriesRequest::new(millis((0, 10 * HOUR)), up());
    request.aggregates = vec![Aggregate::Sum];
    let (raw, _) = ask(&served.store, request.clone()).await.unwrap();
    assert!(raw[0].chunks.iter().all(|chunk| chunk.raw.is_some()));
    request.coarser_if_needed = true;
    let (both, warnings) = ask(&served.store, request).await.unwrap();
    let (coarse, fine): (Vec<_>, Vec<_>) = both[0].chunks.iter().partition(|chunk| chunk.raw.is_none());
    assert_eq!((coarse.len(), fine.len(), warnings.len()), (1, raw[0].chunks.len(), 0));
    assert_eq!(coarse[0].resolution, Duration::from_secs(300));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn info_announces_producers_and_times_within_the_limits() {
    let (bucket_dir, data_dir) = dirs();
    for (number, replica, hours) in [(1, "a", (0, 2)), (2, "a", (2, 4)), (3, "b", (6, 8))] {
        let external = labels(&[("cluster", "c"), ("replica", replica)]);
        simple_block(bucket_dir.path(), number, &external, hours);
    }
    let flags = ["--min-time=1970-01-01T01:00:00Z", "--max-time=1970-01-01T07:00:00Z"];
    let served = serve(&local(bucket_dir.path()), data_dir.path(), &flags).await;
    let info = served.store.info().await.unwrap();
    assert_eq!((info.component.as_str(), info.range), ("store", millis((HOUR, 7 * HOUR))));
    let ranges: Vec<TimeRange> = info.tsdbs.iter().map(|tsdb| tsdb.range).collect();
    // The last sample of a block is one minute before its end.
    assert_eq!(ranges, [millis((HOUR, 4 * HOUR - 60_000)), millis((6 * HOUR, 7 * HOUR))]);
    let (found, _) = ask(&served.store, SeriesRequest::new(millis((0, 30 * 60_000)), up())).await.unwrap();
    assert!(found.is_empty(), "data before --min-time: {found:?}");
    drop(served);
    let (bucket_dir, data_dir) = dirs();
    let served = serve(&local(bucket_dir.path()), data_dir.path(), &[]).await;
    let info = served.store.info().await.unwrap();
    assert!(info.range.is_empty() && info.label_sets.is_empty(), "{info:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_by_block_and_by_label_are_a_partition() {
    let bucket_dir = tempfile::tempdir().unwrap();
    for number in 0..12 {
        let external = labels(&[("cluster", ["x", "y"][number as usize % 2])]);
        simple_block(bucket_dir.path(), number, &external, (number as i64, number as i64 + 1));
    }
    for label in ["__block_id", "cluster"] {
        let mut found = Vec::new();
        for shard in 0..2 {
            let data_dir = tempfile::tempdir().unwrap();
            let rules = format!(
                "--selector.relabel-config=[{{action: hashmod, source_labels: [{label}], target_label: shard, modulus: 2}}, \
                 {{action: keep, source_labels: [shard], regex: \"{shard}\"}}]"
            );
            let served = serve(&local(bucket_dir.path()), data_dir.path(), &[&rules]).await;
            found.extend(served.catalog.current().blocks().map(|block| block.key.block.timestamp_ms()));
        }
        found.sort_unstable();
        assert_eq!(found, (0..12).collect::<Vec<u64>>(), "{label}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_without_a_manifest_is_read_by_its_listing() {
    let (bucket_dir, data_dir) = dirs();
    let meta = simple_block(bucket_dir.path(), 1, &labels(&[("cluster", "c")]), (0, 2));
    let path = bucket_dir.path().join(meta.ulid.to_string()).join("meta.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    json["thanos"]["files"] = serde_json::json!([]);
    fs::write(&path, json.to_string()).unwrap();
    let served = serve(&local(bucket_dir.path()), data_dir.path(), &[]).await;
    let (found, warnings) =
        ask(&served.store, SeriesRequest::new(millis((0, 2 * HOUR)), up())).await.unwrap();
    assert_eq!((samples(&found[0]).len(), warnings.len()), (120, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_series_of_a_known_block_needs_four_requests_in_sequence() {
    let (bucket_dir, data_dir) = dirs();
    let samples: Vec<Sample> = (0..480).map(|n| Sample::new(n * 15_000, n as f64)).collect();
    let series: Vec<(Labels, Vec<Sample>)> = (0..5_000)
        .map(|n| {
            let pod = format!("p-{n:05}");
            let zone = ["a", "b", "c", "d", "e"][n % 5];
            (labels(&[("__name__", "up"), ("pod", &pod), ("zone", zone)]), samples.clone())
        })
        .collect();
    write_block(bucket_dir.path(), Ulid::from_parts(1, 1), &labels(&[("cluster", "c")]), &series);
    drop(series);
    let ask_zone = |store: Arc<BucketStore>, limit: Option<usize>| async move {
        let mut request = SeriesRequest::new(millis((0, 2 * HOUR)), vec![Matcher::equal("zone", "c")]);
        request.limit = limit;
        ask(&store, request).await.unwrap().0.len()
    };
    // The first start builds the header.
    let served = serve(&local(bucket_dir.path()), data_dir.path(), &[]).await;
    assert_eq!(ask_zone(served.store.clone(), None).await, 1_000);
    drop(served);
    let inner = object_store::local::LocalFileSystem::new_with_prefix(bucket_dir.path()).unwrap();
    let counted = bucket::fault::FaultyStore::new(Arc::new(inner), 1);
    let served = serve(&Bucket::new(counted.clone()), data_dir.path(), &[]).await;
    let before = counted.requests();
    assert_eq!(ask_zone(served.store.clone(), Some(10)).await, 10);
    // The listing of the block, a list of postings, entries, and the chunks of the first batch with the header of their segment,
    // which are far apart here; then the batch after it may have begun.
    let first = counted.requests() - before;
    assert!(first <= 14, "{first} requests");
    let before = counted.requests();
    assert_eq!(ask_zone(served.store.clone(), Some(10)).await, 10);
    assert!(
        counted.requests() - before <= 4,
        "{} requests although the pages are cached",
        counted.requests() - before
    );
}

/// Asks with and without partial answers. Returns the number of samples and the warnings, and the error.
async fn both_ways(store: &BucketStore, range: (i64, i64)) -> ((usize, Vec<String>), Option<StoreError>) {
    let mut request = SeriesRequest::new(millis(range), up());
    let (found, warnings) = ask(store, request.clone()).await.unwrap();
    request.partial_response = PartialResponse::Abort;
    let strict = ask(store, request).await.err();
    ((found.iter().map(|series| samples(series).len()).sum(), warnings), strict)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_that_cannot_be_read_is_named_in_every_answer_over_its_time() {
    type Damage = fn(&Path);
    // What is damaged, and whether the whole block is then kept away from requests.
    let damages: [(&str, bool, Damage); 5] = [
        ("meta.json", true, |block| fs::write(block.join("meta.json"), "{").unwrap()),
        ("an index that is cut short", true, |block| {
            let index = fs::read(block.join("index")).unwrap();
            fs::write(block.join("index"), &index[..index.len() - 9]).unwrap();
        }),
        ("a flipped bit in the symbols", true, |block| {
            let mut index = fs::read(block.join("index")).unwrap();
            index[12] ^= 1;
            fs::write(block.join("index"), index).unwrap();
        }),
        ("a missing segment", false, |block| fs::remove_file(block.join("chunks/000001")).unwrap()),
        ("a missing index", true, |block| fs::remove_file(block.join("index")).unwrap()),
    ];
    for (damage, is_whole, apply) in damages {
        let (bucket_dir, data_dir) = dirs();
        let external = labels(&[("cluster", "c")]);
        simple_block(bucket_dir.path(), 10 * HOUR as u64, &external, (0, 2));
        let bad = simple_block(bucket_dir.path(), 11 * HOUR as u64, &external, (2, 4));
        apply(&bucket_dir.path().join(bad.ulid.to_string()));
        let served = serve(&local(bucket_dir.path()), data_dir.path(), &[]).await;
        let ((count, warnings), strict) = both_ways(&served.store, (0, 4 * HOUR)).await;
        assert_eq!(count, 120, "{damage}");
        assert!(warnings.len() == 1 && warnings[0].contains(&bad.ulid.to_string()), "{damage}: {warnings:?}");
        let strict = strict.unwrap_or_else(|| panic!("{damage}: a strict request was answered"));
        assert!(strict.to_string().contains(&bad.ulid.to_string()), "{damage}: {strict}");
        assert_eq!(strict.code(), Code::Aborted, "{damage}: {strict}");
        let after = (12 * HOUR, 13 * HOUR);
        assert_eq!(both_ways(&served.store, after).await, ((0, Vec::new()), None), "{damage}");
        let known = served.catalog.current().unreadable.len() + served.blocks.quarantine().len();
        assert_eq!(known, usize::from(is_whole), "{damage}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_chunk_costs_that_chunk_and_is_named() {
    let (bucket_dir, data_dir) = dirs();
    let samples_of = |step: i64| (0..480).map(|n| Sample::new(n * step, n as f64)).collect::<Vec<_>>();
    let series = [
        (labels(&[("__name__", "up"), ("pod", "a")]), samples_of(15_000)),
        (labels(&[("__name__", "up"), ("pod", "b")]), samples_of(15_000)),
    ];
    let meta = write_block(bucket_dir.path(), Ulid::from_parts(1, 1), &labels(&[("cluster", "c")]), &series);
    let path = bucket_dir.path().join(meta.ulid.to_string()).join("chunks/000001");
    let mut bytes = fs::read(&path).unwrap();
    // In the data of the first chunk, which follows the header of eight bytes, a length and an encoding.
    bytes[20] ^= 1;
    fs::write(&path, bytes).unwrap();
    let served = serve(&local(bucket_dir.path()), data_dir.path(), &[]).await;
    let ((count, warnings), strict) = both_ways(&served.store, (0, 2 * HOUR)).await;
    assert_eq!(count, 480 + 360);
    assert!(warnings.len() == 1 && warnings[0].contains(&meta.ulid.to_string()), "{warnings:?}");
    assert!(strict.is_some_and(|error| error.to_string().contains("checksum")));
    assert!(served.blocks.quarantine().is_empty(), "the rest of the block is still served");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_over_a_limit_end_with_its_name() {
    let (bucket_dir, data_dir) = dirs();
    let series: Vec<(Labels, Vec<Sample>)> = (0..200)
        .map(|n| (labels(&[("__name__", "up"), ("pod", &n.to_string())]), vec![Sample::new(n, 1.0)]))
        .collect();
    write_block(bucket_dir.path(), Ulid::from_parts(1, 1), &labels(&[("cluster", "c")]), &series);
    for (flag, name) in [
        ("--store.limits.request-series=199", "request-series"),
        ("--store.limits.request-samples=23999", "request-samples"),
        ("--store.grpc.downloaded-bytes-limit=1000", "downloaded-bytes-limit"),
    ] {
        let data_dir = data_dir.path().join(name);
        let served = serve(&local(bucket_dir.path()), &data_dir, &[flag]).await;
        let error = ask(&served.store, SeriesRequest::new(millis((0, HOUR)), up())).await.unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    let flags = ["--store.limits.request-series=200", "--store.limits.request-samples=24000"];
    let served = serve(&local(bucket_dir.path()), &data_dir.path().join("enough"), &flags).await;
    assert_eq!(ask(&served.store, SeriesRequest::new(millis((0, HOUR)), up())).await.unwrap().0.len(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn series_that_must_be_sorted_need_no_more_than_the_memory_for_it() {
    let (bucket_dir, data_dir) = dirs();
    // Stored replica labels, so that the order of the index is not that of the answer.
    let series: Vec<(Labels, Vec<Sample>)> = (0..6_000)
        .map(|n| {
            let (replica, pod) = (format!("r{}", n % 7), format!("p-{:05}", n * 31 % 4_001));
            let labels =
                labels(&[("__name__", "up"), ("a_replica", &replica), ("pod", &pod), ("x", &n.to_string())]);
            (labels, vec![Sample::new(n, n as f64)])
        })
        .collect();
    let meta = write_block(bucket_dir.path(), Ulid::from_parts(1, 1), &labels(&[("cluster", "c")]), &series);
    assert_eq!(meta.stats.series, 6_000);
    let served = serve(&local(bucket_dir.path()), data_dir.path(), &[]).await;
    let mut request = SeriesRequest::new(millis((0, HOUR)), up());
    request.without_replica_labels = vec!["a_replica".to_owned()];
    let memory = served.store.sort_memory();
    let free = memory.free_bytes();
    let (expected, warnings) = ask(&served.store, request.clone()).await.unwrap();
    assert_eq!((expected.len(), warnings.len()), (6_000, 0));
    assert!(expected.is_sorted_by(|a, b| a.labels < b.labels));
    assert_eq!(memory.free_bytes(), free, "the memory is given back");
    assert!(memory.take(free));
    let (found, warnings) = ask(&served.store, request.clone()).await.unwrap();
    assert!(found == expected && warnings.is_empty(), "{} series", found.len());
    request.limit = Some(10);
    let (found, _) = ask(&served.store, request).await.unwrap();
    assert!(found[..] == expected[..10]);
}
