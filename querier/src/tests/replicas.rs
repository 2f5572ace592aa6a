//! Answers over replicas that lose samples, and over several stores of one producer, asked as a user asks.

use model::Sample;
use runtime::RunningRole;
use serde_json::Value;
use series::{AggrChunk, Producer, Series};
use storeapi::memory::MemoryStore;

use super::{START, labels, serve};
use crate::tests::web::{get, querier};

const INTERVAL: i64 = 30_000;
const SCRAPES: i64 = 360;

/// A counter that grows by one each second, scraped by one replica with these losses.
async fn replica(name: &str, phase: i64, lost: impl Fn(i64) -> bool) -> String {
    let kept = (0..SCRAPES).filter(|scrape| !lost(*scrape)).map(|scrape| scrape * INTERVAL + phase);
    let samples = kept.map(|at| Sample::new(START + at, at as f64 / 1_000.0)).collect();
    let external = labels(&[("cluster", "eu-1"), ("replica", name)]);
    let store = MemoryStore::from_samples(external, [(labels(&[("__name__", "x")]), samples)]);
    serve(std::sync::Arc::new(store.unwrap())).await
}

/// The values of a query by time, from so many seconds after the first scrape on.
async fn values(querier: &RunningRole, query: &str, from: i64) -> Vec<Value> {
    let (start, end) = (START / 1000 + from, (START + SCRAPES * INTERVAL) / 1000);
    let query = query.replace('[', "%5B").replace(']', "%5D");
    let path = format!("/api/v1/query_range?query={query}&start={start}&end={end}&step=30");
    let answer = get(querier, &path).await.json();
    answer["data"]["result"][0]["values"].as_array().cloned().unwrap_or_default()
}

#[tokio::test]
async fn a_flaky_replica_costs_no_step_that_the_other_one_answers() {
    let whole = replica("b", 11_000, |_| false).await;
    let one = querier(std::slice::from_ref(&whole), &[]).await;
    for every in [2, 3, 7] {
        let flaky = replica("a", 0, |scrape| scrape % every == 1).await;
        let two = querier(&[flaky, whole.clone()], &[]).await;
        for query in ["rate(x[1m])", "rate(x[90s])", "count_over_time(x[5m])", "x"] {
            let alone = values(&one, query, 300).await;
            let both = values(&two, query, 300).await;
            let steps = |values: &[Value]| values.iter().map(|point| point[0].clone()).collect::<Vec<_>>();
            assert_eq!(steps(&both), steps(&alone), "{query}, every {every}");
            let number = |point: &Value| point[1].as_str().unwrap().parse::<f64>().unwrap();
            let differs = alone.iter().zip(&both).map(|(a, b)| (number(a) - number(b)).abs());
            // One scrape: 30 of the counter, which a rate divides by its window. Where the replica changes, a window of
            // two intervals can have two samples that are close, and a rate is not extrapolated far.
            let most = match query {
                "rate(x[1m])" => 0.67,
                "rate(x[90s])" => 0.334,
                "x" => 30.0,
                _ => 1.0,
            };
            assert!(differs.fold(0.0, f64::max) <= most, "{query}, every {every}");
        }
    }
}

#[tokio::test]
async fn an_answer_does_not_depend_on_where_the_query_begins() {
    let lost = |salt: i64| move |scrape: i64| (scrape * 7_919 + salt) % 13 < 4;
    let stores = [replica("a", 0, lost(3)).await, replica("b", 17_000, lost(8)).await];
    let querier = querier(&stores, &[]).await;
    for query in ["rate(x[2m])", "count_over_time(x[5m])", "x"] {
        let all = values(&querier, query, 0).await;
        // The second chunks of the replicas begin shortly after 5,000 seconds. A query that begins after that needs the first
        // ones for deduplication only.
        for from in [30, 600, 1_230].into_iter().chain((5_100..6_000).step_by(60)) {
            let later = values(&querier, query, from).await;
            let since = all.iter().filter(|point| point[0].as_i64() >= Some(START / 1000 + from));
            assert!(since.eq(&later), "{query} from {from}");
            assert!(later.len() > 100);
        }
    }
}

/// A store of a producer, with chunks of these samples.
async fn part(producer: Option<&str>, samples: &[Vec<i64>]) -> String {
    let external = labels(&[("cluster", "eu-1"), ("replica", "a")]);
    let producer = producer.and_then(|name| Producer::of(&labels(&[("replica", name)])));
    let chunks = samples.iter().flat_map(|times| {
        let samples: Vec<Sample> = times.iter().map(|t| Sample::new(START + t * INTERVAL, 1.0)).collect();
        AggrChunk::from_floats(&samples).unwrap()
    });
    let chunks = chunks.map(|chunk| chunk.from_producer(producer)).collect();
    let series = Series { labels: labels(&[("__name__", "x")]), chunks };
    serve(std::sync::Arc::new(MemoryStore::new(external, vec![series]))).await
}

#[tokio::test]
async fn overlapping_chunks_of_one_producer_are_united() {
    let times = |kept: fn(i64) -> bool| (0..100).filter(|t| kept(*t)).collect::<Vec<i64>>();
    let (even, odd) = (times(|t| t % 2 == 0), times(|t| t % 2 == 1));
    let (early, late) = (times(|t| t < 60), times(|t| t > 40));
    let sets = [
        vec![part(Some("a"), &[even.clone(), odd.clone()]).await],
        vec![part(Some("a"), &[even]).await, part(Some("a"), &[odd]).await],
        // Stores that do not say the producer, but have equal samples.
        vec![part(None, std::slice::from_ref(&early)).await, part(None, std::slice::from_ref(&late)).await],
        vec![part(None, &[early, late]).await],
    ];
    let at = START / 1000 + 100 * 30;
    for stores in sets {
        let querier = querier(&stores, &[]).await;
        for dedup in ["true", "false"] {
            let query = "count_over_time(x%5B2h%5D)";
            let path = format!("/api/v1/query?query={query}&time={at}&dedup={dedup}");
            let answer = get(&querier, &path).await.json();
            assert_eq!(answer["data"]["result"][0]["value"][1], "100", "dedup={dedup}: {answer}");
        }
    }
}
