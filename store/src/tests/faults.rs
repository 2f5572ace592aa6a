//! A store that fails in many ways: no wrong and no silently partial answer.

use std::time::Duration;

use bucket::fault::{Faults, FaultyStore};
use storeapi::PartialResponse;

use super::*;

const HOUR: i64 = 3_600_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_one_in_ten_reads_give_no_wrong_and_no_silently_partial_answer() {
    let seed = std::env::var("ISTHMUS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(11);
    let (bucket_dir, data_dir) = dirs();
    for number in 0..6 {
        let external = labels(&[("cluster", "c"), ("replica", &(number % 2).to_string())]);
        let series: Vec<(Labels, Vec<Sample>)> = (0..300)
            .map(|n| {
                let start = number / 2 * 2 * HOUR;
                let samples = (0..240).map(|at| Sample::new(start + at * 30_000, (n * at) as f64));
                (labels(&[("__name__", "up"), ("pod", &format!("p-{n:03}"))]), samples.collect())
            })
            .collect();
        write_block(bucket_dir.path(), Ulid::from_parts(number as u64 + 1, 1), &external, &series);
    }
    let local = object_store::local::LocalFileSystem::new_with_prefix(bucket_dir.path()).unwrap();
    let faulty = FaultyStore::new(Arc::new(local), seed);
    let bucket = Bucket::new(faulty.clone());
    // A small cache, so that the bucket is asked again and again.
    let served = serve(&bucket, data_dir.path(), &["--index-cache-size=100000"]).await;
    let request = |pod: usize| {
        let pods = Matcher::new(model::MatchOp::Regex, "pod", &format!("p-{}.*", pod % 3)).unwrap();
        SeriesRequest::new(millis((0, 6 * HOUR)), vec![Matcher::equal("__name__", "up"), pods])
    };
    let mut whole = Vec::new();
    for pod in 0..3 {
        whole.push(ask(&served.store, request(pod)).await.unwrap().0);
        assert_eq!(whole[pod].len(), 200);
    }
    let rate = 0.1;
    faulty.set(Faults {
        errors: rate,
        truncated: rate,
        stalls: rate,
        stall: Duration::from_millis(5),
        ..Faults::default()
    });
    let (mut complete, mut partial, mut failed) = (0, 0, 0);
    for round in 0..60 {
        let mut request = request(round);
        if round % 2 == 0 {
            request.partial_response = PartialResponse::Abort;
        }
        match ask(&served.store, request.clone()).await {
            Ok((found, warnings)) if warnings.is_empty() => {
                assert!(
                    found == whole[round % 3],
                    "seed {seed}, round {round}: a wrong answer without a warning"
                );
                complete += 1;
            }
            Ok((found, warnings)) => {
                assert_eq!(request.partial_response, PartialResponse::Warn, "round {round}: {warnings:?}");
                assert!(
                    found.len() <= 200 && warnings.iter().all(|text| text.contains("block")),
                    "{warnings:?}"
                );
                partial += 1;
            }
            Err(_) => failed += 1,
        }
    }
    assert!(complete > 10, "complete {complete}, partial {partial}, failed {failed}");
    faulty.set(Faults::default());
    for (pod, expected) in whole.iter().enumerate() {
        let (found, warnings) = ask(&served.store, request(pod)).await.unwrap();
        assert!(found == *expected && warnings.is_empty(), "after the faults: {warnings:?}");
    }
}
