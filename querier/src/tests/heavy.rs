//! Queries that are too much: for the memory of all queries, and for whoever has stopped waiting.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::web::{get, post, querier};
use super::*;
use crate::Querier;

/// Sends all that a store has but for the last frame, which waits for its turn.
struct Gated {
    store: Arc<MemoryStore>,
    gate: Arc<Semaphore>,
}

#[tonic::async_trait]
impl Store for Gated {
    async fn info(&self) -> Result<StoreInfo, StoreError> {
        self.store.info().await
    }
    async fn series(&self, request: SeriesRequest) -> Result<SeriesStream, StoreError> {
        let frames: Vec<_> = self.store.series(request).await?.collect().await;
        let gate = Arc::clone(&self.gate);
        let last = stream::once(async move {
            let _turn = gate.acquire().await;
            Ok(SeriesFrame::Series(Vec::new()))
        });
        Ok(stream::iter(frames).chain(last).boxed())
    }
    async fn label_names(&self, request: LabelNamesRequest) -> Result<LabelsAnswer, StoreError> {
        self.store.label_names(request).await
    }
    async fn label_values(&self, request: LabelValuesRequest) -> Result<LabelsAnswer, StoreError> {
        self.store.label_values(request).await
    }
}

/// The value of a metric without labels.
async fn metric(querier: &Querier, name: &str) -> u64 {
    let metrics = get(querier, "/metrics").await.body;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is missing in\n{metrics}")).parse().unwrap()
}

/// Waits until a metric is as it should be.
async fn metric_becomes(querier: &Querier, name: &str, holds: impl Fn(u64) -> bool) {
    let reached = async {
        while !holds(metric(querier, name).await) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), reached).await;
    assert!(waited.is_ok(), "{name} is {} after 60 s", metric(querier, name).await);
}

#[tokio::test]
async fn of_two_queries_that_are_too_much_together_one_ends_and_the_other_is_answered() {
    let jobs: Vec<String> = (0..600).map(|n| format!("job-{n}")).collect();
    let jobs: Vec<&str> = jobs.iter().map(String::as_str).collect();
    let gate = Arc::new(Semaphore::new(0));
    let gated = Gated { store: memory(&[("cluster", "eu")], &jobs), gate: Arc::clone(&gate) };
    let flags = ["--query.max-memory=12MiB", "--query.max-total-memory=13MiB"];
    let querier = Arc::new(querier(&[serve(Arc::new(gated)).await], &flags).await);
    // The join holds both sides: 600 series of 1000 steps, twice.
    let end = START / 1000 + 590;
    let form = format!("query=count(up+%2B+up)&start={}&end={end}&step=0.5&timeout=20", end - 499);
    let ask = || {
        let (querier, form) = (Arc::clone(&querier), form.clone());
        tokio::spawn(async move { post(&querier, "/api/v1/query_range", &form).await })
    };
    let first = ask();
    metric_becomes(&querier, "isthmus_query_memory_bytes", |bytes| bytes > 6 << 20).await;
    let second = ask().await.unwrap();
    let error = second.json();
    assert_eq!((second.status, error["errorType"].as_str()), (422, Some("execution")), "{error}");
    let error = error["error"].as_str().unwrap();
    for part in
        ["query would use ", " bytes beside the ", "max_total_bytes=13631488", "--query.max-total-memory"]
    {
        assert!(error.contains(part), "{error}");
    }
    gate.add_permits(1);
    let first = first.await.unwrap();
    assert_eq!(first.status, 200, "{}", first.body);
    let values = first.json()["data"]["result"][0]["values"].as_array().unwrap().clone();
    assert!(values.len() == 999 && values.iter().all(|point| point[1] == "600"), "{}", first.body);
    metric_becomes(&querier, "isthmus_query_memory_bytes", |bytes| bytes == 0).await;
}

#[tokio::test]
async fn a_query_that_computes_ends_with_the_connection_that_asked() {
    let samples = (0..100_000).map(|n| Sample::new(START + n * 1000, (n % 100) as f64)).collect();
    let long = (labels(&[("__name__", "long")]), samples);
    let store = Arc::new(MemoryStore::from_samples(labels(&[("cluster", "eu")]), [long]).unwrap());
    let querier = querier(&[serve(store).await], &[]).await;
    let end = START / 1000 + 100_000;
    for query in [
        "quantile_over_time(0.3,long[1d])",
        "predict_linear(long[1d],3600)",
        "sum_over_time((long/(long!=50))[1d:1s])",
        "max_over_time(predict_linear(long[6h],60)[1d:10s])",
        "sum_over_time((0*long*quantile_over_time(0.5,long[12h]))[5h:10s])",
    ] {
        // Minutes of work.
        let query = query.replace('+', "%2B");
        let path = format!("/api/v1/query_range?query={query}&start={}&end={end}&step=1", end - 10_000);
        let mut stream = TcpStream::connect(querier.http_addr()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let running = "thanos_query_concurrent_gate_queries_in_flight";
        metric_becomes(&querier, running, |queries| queries == 1).await;
        metric_becomes(&querier, "isthmus_query_memory_bytes", |bytes| bytes > 1 << 20).await;
        drop(stream);
        // Its turn is over when its threads are free.
        metric_becomes(&querier, running, |queries| queries == 0).await;
        metric_becomes(&querier, "isthmus_query_memory_bytes", |bytes| bytes == 0).await;
    }
}
