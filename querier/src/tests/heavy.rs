//! Queries that exceed the total memory limit, or whose client has disconnected.

use runtime::RunningRole;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::*;
use crate::tests::web::{get, post, querier};

/// Sends all frames of a store except the last one, which waits for a permit.
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
async fn metric(querier: &RunningRole, name: &str) -> u64 {
    let metrics = get(querier, "/metrics").await.body;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is missing in\n{metrics}")).parse().unwrap()
}

/// Polls a metric until its value is as expected.
async fn metric_becomes(querier: &RunningRole, name: &str, holds: impl Fn(u64) -> bool) {
    let reached = async {
        while !holds(metric(querier, name).await) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), reached).await;
    assert!(waited.is_ok(), "{name} is {} after 60 s", metric(querier, name).await);
}

#[tokio::test]
async fn one_of_two_queries_fails_at_the_total_memory_limit_and_the_other_is_answered() {
    let jobs: Vec<String> = (0..600).map(|n| format!("job-{n}")).collect();
    let jobs: Vec<&str> = jobs.iter().map(String::as_str).collect();
    let gate = Arc::new(Semaphore::new(0));
    let gated = Gated { store: memory(&[("cluster", "eu")], &jobs), gate: Arc::clone(&gate) };
    let flags = ["--query.max-memory=12MiB", "--query.max-total-memory=13MiB"];
    let querier = Arc::new(querier(&[serve(Arc::new(gated)).await], &flags).await);
    // The join keeps both sides in memory: 600 series of 1000 steps, twice.
    let end = START / 1000 + 590;
    let form = format!("query=count(up+%2B+up)&start={}&end={end}&step=0.5&timeout=20", end - 499);
    let ask = || {
        let (querier, form) = (Arc::clone(&querier), form.clone());
        tokio::spawn(async move { post(&querier, "/api/v1/query_range", &form).await })
    };
    let first = ask();
    // All that the store has sent is there, 8.02 MiB, so that the first query needs no more memory now.
    metric_becomes(&querier, "isthmus_query_memory_bytes", |bytes| bytes > 8 << 20).await;
    let second = ask().await.unwrap();
    let error = second.json();
    assert_eq!((second.status, error["errorType"].as_str()), (422, Some("execution")), "{error}");
    let error = error["error"].as_str().unwrap();
    for part in [
        "query would use ",
        " bytes while other queries use ",
        "max_total_bytes=13631488",
        "--query.max-total-memory",
    ] {
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
async fn running_query_is_cancelled_when_the_client_disconnects() {
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
        // These queries run for minutes.
        let query = query.replace('+', "%2B");
        let path = format!("/api/v1/query_range?query={query}&start={}&end={end}&step=1", end - 10_000);
        let mut stream = TcpStream::connect(querier.http_address()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let running = "thanos_query_concurrent_gate_queries_in_flight";
        metric_becomes(&querier, running, |queries| queries == 1).await;
        metric_becomes(&querier, "isthmus_query_memory_bytes", |bytes| bytes > 1 << 20).await;
        drop(stream);
        // The slot is free when the threads are free.
        metric_becomes(&querier, running, |queries| queries == 0).await;
        metric_becomes(&querier, "isthmus_query_memory_bytes", |bytes| bytes == 0).await;
    }
}

/// Percent-encodes `text` for a form.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn invalid_input_is_rejected_with_cause_and_position() {
    let querier = querier(&[serve(memory(&[("cluster", "eu")], &["a"])).await], &[]).await;
    let many = |text: &str| text.repeat(100_000);
    let mut wrong = Vec::new();
    let regex = |text: &str| format!("up{{job=~\"{text}\"}}");
    for (query, status, part) in [
        (many("up + ") + &many("up + ") + "up", 400, "1:1: "),
        (many("("), 400, "1:501: "),
        (many("-") + "1", 200, "[1700000060,\"1\"]"),
        (many("abs("), 400, "1:"),
        ("up".to_owned() + &many("[1m:1m]"), 400, "1:"),
        (many("{"), 400, "1:2: parse error: unexpected left brace"),
        ("[1m:1m]".repeat(10_000), 400, "1:1: parse error: unexpected \"[\""),
        (many("2 ^ ") + "2", 400, "1:"),
        (many("sum by (a) ("), 400, "1:"),
        (many("up or ") + "up", 400, "1:"),
        ("max_over_time(up[11574d:1s])".to_owned(), 422, "1:15: subquery of 9999"),
        ("max_over_time(up[(11574d * 1):(1s + 0s)])".to_owned(), 422, "1:15: subquery of 9999"),
        ("max_over_time(max_over_time(up[100d:100ms])[5000d:1s])".to_owned(), 422, "subquery of "),
        ("up offset 9223372036854775807ms".to_owned(), 400, "1:11: parse error: duration out of range"),
        ("up[300y]".to_owned(), 400, "1:4: parse error: duration out of range"),
        ("up @ 1e300".to_owned(), 400, "timestamp out of bounds"),
        ("up @ NaN".to_owned(), 400, "timestamp out of bounds"),
        ("up @ -Inf".to_owned(), 400, "timestamp out of bounds"),
        (
            regex("(x{1000}){1000}"),
            400,
            "1:4: parse error: error parsing regexp: invalid repeat count: `{1000}`",
        ),
        (regex("(.{0,1000}){50}"), 400, "invalid repeat count: `{50}`"),
        (regex(&".{0,1000}".repeat(4000)), 400, "error parsing regexp: expression too large"),
        (regex(&many("(")), 400, "error parsing regexp: expression nests too deeply"),
        (regex("a**"), 400, "invalid nested repetition operator: `**`"),
        (regex("(a*)*b"), 200, "\"result\":[]"),
        (regex("(x+x+)+y|a"), 200, "\"job\":\"a\""),
        (regex("\\\\pL{1000}|a"), 200, "\"job\":\"a\""),
        (regex(&(many("wor|") + "a")), 200, "\"job\":\"a\""),
        ("label_replace(up, 'b', '$1', 'job', '(.*)*')".to_owned(), 200, "\"b\":\"a\""),
    ] {
        let answer =
            post(&querier, "/api/v1/query", &format!("time={}&query={}", START / 1000 + 60, encoded(&query)))
                .await;
        let (begin, shown) = (&query[..query.len().min(60)], &answer.body[..answer.body.len().min(400)]);
        let shown = answer.json()["error"]
            .as_str()
            .map_or(shown.to_owned(), |error| error.chars().take(400).collect());
        if answer.status != status || !shown.contains(part) {
            wrong.push(format!("{begin}: {} {shown}", answer.status));
        }
    }
    let at = START / 1000;
    let late = at + 100;
    for (parameters, part) in [
        (format!("start={at}&end={late}&step=0"), "zero or negative query resolution step widths"),
        (format!("start={at}&end={late}&step=-1"), "zero or negative query resolution step widths"),
        (format!("start={at}&end={late}&step=NaN"), "invalid parameter \"step\""),
        (format!("start={at}&end={late}&step=1e300"), "invalid parameter \"step\""),
        (format!("start={at}&end={late}&step=1e-12"), "zero or negative query resolution step widths"),
        (format!("start={late}&end={at}&step=1"), "end timestamp must not be before start time"),
        (format!("start={at}&end={}&step=1", at + 1_000_000_000), "11,000 points"),
        ("start=-9223372036854775&end=9223372036854775&step=1".to_owned(), "11,000 points"),
        (format!("start=1e300&end={late}&step=1"), "invalid parameter \"start\""),
        (format!("start={at}&end=NaN&step=1"), "invalid parameter \"end\""),
        (format!("start={at}&end={late}&step=1&timeout=1e300"), "invalid parameter \"timeout\""),
        (format!("start={at}&end={late}&step=1&lookback_delta=-5"), "lookback_delta"),
    ] {
        let answer = post(&querier, "/api/v1/query_range", &format!("query=up&{parameters}")).await;
        if answer.status != 400 || !answer.body.contains(&part.replace('"', "\\\"")) {
            wrong.push(format!("{parameters}: {} {}", answer.status, answer.body));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
