//! Buckets that require labels of their blocks: a writer of one of them cannot claim the labels of another one.

use storeapi::PartialResponse;

use super::*;

const HOUR: i64 = 3_600_000;

fn write(dir: &Path, number: u64, cluster: &str, sources: &[Ulid], value: f64) -> Ulid {
    let id = Ulid::from_parts(number, 1);
    let sources = if sources.is_empty() { vec![id] } else { sources.to_vec() };
    let compaction = tsdb::Compaction { level: 2, sources, ..tsdb::Compaction::default() };
    let options = BlockOptions {
        thanos: Some(thanos(&labels(&[("cluster", cluster)]), 0)),
        compaction: Some(compaction),
        ..BlockOptions::new(id)
    };
    let mut writer = BlockWriter::create(dir, options).unwrap();
    let samples: Vec<Sample> = (0..60).map(|n| Sample::new(n * 60_000, value)).collect();
    let chunks = AggrChunk::from_floats(&samples).unwrap().into_iter().filter_map(|chunk| chunk.raw);
    writer.add_series(&labels(&[("__name__", "up")]), chunks.collect::<Vec<_>>()).unwrap();
    writer.finish().unwrap();
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_with_labels_that_its_bucket_may_not_have_is_not_served_and_hides_no_other_block() {
    let (a_dir, b_dir) = dirs();
    let data_dir = tempfile::tempdir().unwrap();
    let (a, b) = (write(a_dir.path(), 1, "a", &[], 1.0), write(b_dir.path(), 2, "b", &[], 2.0));
    // The uploader of cluster b claims to be cluster a, and to have replaced the blocks of both.
    let claimed = write(b_dir.path(), 3, "a", &[a, b, Ulid::from_parts(9, 9)], 666.0);
    let config = config_of(
        "[{type: FILESYSTEM, config: {directory: /a}, required_labels: {cluster: a}}, \
          {type: FILESYSTEM, config: {directory: /b}, required_labels: {cluster: b}}]",
        &[],
    );
    let served = serve_all(config, &[local(a_dir.path()), local(b_dir.path())], data_dir.path()).await;
    let mut request = SeriesRequest::new(millis((0, HOUR)), any());
    request.partial_response = PartialResponse::Abort;
    let (found, warnings) = ask(&served.store, request).await.unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let values: Vec<(Option<&str>, f64, usize)> = found
        .iter()
        .map(|series| (series.labels.get("cluster"), samples(series)[0].value, samples(series).len()))
        .collect();
    assert_eq!(values, [(Some("a"), 1.0, 60), (Some("b"), 2.0, 60)]);
    assert_eq!(served.metric("isthmus_store_blocks_refused"), 1.0);
    let announced = served.store.info().await.unwrap().warnings;
    assert!(announced.len() == 1 && announced[0].contains(&claimed.to_string()), "{announced:?}");
}
