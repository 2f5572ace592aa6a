//! A bucket that changes while queries run.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::*;

const HOUR: i64 = 3_600_000;
const PODS: i64 = 20;

fn block_of(dir: &Path, number: u64, hours: (i64, i64), sources: &[Ulid]) -> Ulid {
    let id = Ulid::from_parts(number, 1);
    let external = labels(&[("cluster", "c")]);
    let compaction = tsdb::Compaction {
        level: if sources.is_empty() { 1 } else { 2 },
        sources: if sources.is_empty() { vec![id] } else { sources.to_vec() },
        ..tsdb::Compaction::default()
    };
    let options = BlockOptions {
        thanos: Some(thanos(&external, 0)),
        compaction: Some(compaction),
        ..BlockOptions::new(id)
    };
    let mut writer = BlockWriter::create(dir, options).unwrap();
    for pod in 0..PODS {
        let samples: Vec<Sample> = (hours.0 * 60..hours.1 * 60)
            .map(|minute| Sample::new(minute * 60_000, (pod * minute) as f64))
            .collect();
        let chunks = AggrChunk::from_floats(&samples).unwrap().into_iter().filter_map(|chunk| chunk.raw);
        writer
            .add_series(
                &labels(&[("__name__", "up"), ("pod", &format!("p-{pod:02}"))]),
                chunks.collect::<Vec<_>>(),
            )
            .unwrap();
    }
    writer.finish().unwrap();
    id
}

/// Blocks are compacted, and their sources removed at once, while requests run. A bucket without delays for deletion is harder
/// than any that Thanos or this program leaves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_and_removal_do_not_disturb_queries() {
    let (bucket_dir, data_dir) = dirs();
    let staging = tempfile::tempdir().unwrap();
    let ids: Vec<Ulid> = (0..8).map(|n| block_of(bucket_dir.path(), 1 + n as u64, (n, n + 1), &[])).collect();
    let flags = ["--sync-block-duration=100ms", "--index-cache-size=100000"];
    let served = serve(&local(bucket_dir.path()), data_dir.path(), &flags).await;
    let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let queries: Vec<_> = (0..3)
        .map(|_| {
            let (store, stop, answers) = (served.store.clone(), stop.clone(), answers.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let request = SeriesRequest::new(millis((0, 8 * HOUR)), any());
                    let (found, warnings) = ask(&store, request).await.unwrap();
                    assert!(warnings.is_empty(), "{warnings:?}");
                    assert_eq!(found.len(), PODS as usize);
                    for series in &found {
                        let raw: usize = series
                            .chunks
                            .iter()
                            .filter_map(|c| c.raw.as_ref())
                            .map(tsdb::Chunk::sample_count)
                            .sum();
                        assert_eq!((samples(series).len(), raw), (480, 480), "{}", series.labels);
                    }
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut current: Vec<(Ulid, i64, i64)> =
        ids.iter().zip(0..).map(|(id, hour)| (*id, hour, hour + 1)).collect();
    for change in 0..40_u64 {
        // Two neighbours become one block, or one block is written anew under another id.
        let at = change as usize % current.len();
        let merged: Vec<(Ulid, i64, i64)> = current.drain(at..(at + 2).min(current.len())).collect();
        let (from, to) = (merged[0].1, merged[merged.len() - 1].2);
        let sources: Vec<Ulid> = ids[from as usize..to as usize].to_vec();
        let id = block_of(staging.path(), 1_000 + change, (from, to), &sources);
        let block = bucket_dir.path().join(id.to_string());
        // As an upload does it: all files, then meta.json.
        let built = staging.path().join(id.to_string());
        std::fs::create_dir_all(block.join("chunks")).unwrap();
        for file in ["chunks/000001", "index", "meta.json"] {
            std::fs::rename(built.join(file), block.join(file)).unwrap();
        }
        current.insert(at, (id, from, to));
        if current.len() == 1 {
            // Begin anew with eight blocks: the sources were removed, so they are written again, and then the large one goes.
            for (hour, id) in ids.iter().enumerate() {
                block_of(bucket_dir.path(), id.timestamp_ms(), (hour as i64, hour as i64 + 1), &[]);
            }
        }
        // The pace of the changes, not a wait for a result: sometimes a sync comes between upload and removal, sometimes not.
        let wait = Duration::from_millis(if change % 3 == 0 { 0 } else { 150 });
        tokio::time::sleep(wait).await;
        for (old, _, _) in merged {
            let old = bucket_dir.path().join(old.to_string());
            std::fs::remove_file(old.join("meta.json")).unwrap();
            std::fs::remove_dir_all(old).unwrap();
        }
        if current.len() == 1 {
            // The small blocks are hidden by the large one while it is there, so no condition shows that they were found.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let large = bucket_dir.path().join(id.to_string());
            std::fs::remove_file(large.join("meta.json")).unwrap();
            std::fs::remove_dir_all(large).unwrap();
            current = ids.iter().zip(0..).map(|(id, hour)| (*id, hour, hour + 1)).collect();
        }
    }
    stop.store(true, Ordering::Relaxed);
    for query in queries {
        query.await.unwrap();
    }
    assert!(answers.load(Ordering::Relaxed) > 40, "{} answers", answers.load(Ordering::Relaxed));
    assert!(served.probes.health().is_ready());
}
