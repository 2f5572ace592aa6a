//! Queries of one instant that select the same series for the same function ask the stores once.

use model::Timestamp;
use promql::QueryValue;
use series::{AggrChunk, Dedup};
use storeapi::PartialResponse;

use super::*;
use crate::fanout::StoreFilter;
use crate::query::{Driver, Question};
use crate::tests::web::{post, querier};
use crate::{LocalQueryArgs, QueryEngine};

#[derive(clap::Parser)]
struct Command {
    #[command(flatten)]
    args: LocalQueryArgs,
}

/// Counts the requests to a store.
struct Counted(Arc<dyn Store>, Arc<AtomicUsize>);

#[tonic::async_trait]
impl Store for Counted {
    async fn info(&self) -> Result<StoreInfo, StoreError> {
        self.0.info().await
    }
    async fn series(&self, request: SeriesRequest) -> Result<SeriesStream, StoreError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.series(request).await
    }
    async fn label_names(&self, request: LabelNamesRequest) -> Result<LabelsAnswer, StoreError> {
        self.0.label_names(request).await
    }
    async fn label_values(&self, request: LabelValuesRequest) -> Result<LabelsAnswer, StoreError> {
        self.0.label_values(request).await
    }
}

/// A driver that shares selects of a store with two series, and the number of requests to this store.
fn driver(frames: Vec<Result<SeriesFrame, StoreError>>) -> (Driver, Arc<AtomicUsize>) {
    let series = |job: &str, value: f64| {
        let chunks = AggrChunk::from_floats(&[Sample::new(1_000, value)]).unwrap();
        Series { labels: labels(&[("__name__", "up"), ("job", job)]), chunks }
    };
    let all = SeriesFrame::Series(vec![series("a", 2.0), series("b", 3.0)]);
    let script = std::iter::once(Ok(all)).chain(frames).collect();
    let requests = Arc::new(AtomicUsize::new(0));
    let store = Counted(Arc::new(Scripted::new(script)), Arc::clone(&requests));
    let stores = proxy(vec![local("s", Arc::new(store))], ProxyOptions::default());
    let command: Command = clap::Parser::try_parse_from(["x"]).unwrap();
    let engine = QueryEngine::new(command.args.check(vec![]).unwrap(), &mut Registry::default());
    (engine.driver(&stores, false).sharing_selects(1 << 20), requests)
}

/// The value of the only series that a query has at an instant, and the number of warnings.
async fn ask(driver: &Driver, text: &str, at: i64) -> (f64, usize) {
    let at = Timestamp::from_millis(at);
    let question = Question {
        text: text.to_owned(),
        start: at,
        end: at,
        step: None,
        lookback: Duration::from_secs(300),
        dynamic_lookback: None,
        dedup: Dedup::Off,
        replica_labels: Vec::new(),
        partial_response: PartialResponse::Warn,
        stores: StoreFilter::default(),
        shard: None,
        max_resolution: Duration::ZERO,
        timeout: Duration::from_secs(20),
        analyze: false,
        allows_shared: true,
    };
    let answer = driver.ask(question, |answer, _, _| Ok((answer.output.value, answer.warnings.len())));
    let (value, warnings) = answer.await.unwrap();
    let QueryValue::Vector(samples) = value else { panic!("{value:?}") };
    let [promql::VectorSample { value: promql::SampleValue::Float(value), .. }] = &samples[..] else {
        panic!("{samples:?}")
    };
    (*value, warnings)
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_of_one_instant_ask_the_store_once() {
    let (driver, requests) = driver(vec![]);
    for (aggregation, expected) in [("sum", 5.0), ("max", 3.0), ("count", 2.0)] {
        let text = format!("{aggregation}(last_over_time(up[1m]))");
        assert_eq!(ask(&driver, &text, 1_500).await, (expected, 0));
    }
    assert_eq!(requests.load(Ordering::SeqCst), 1);

    println!("another instant, other matchers and another function are other requests");
    for (text, at) in [
        ("sum(last_over_time(up[1m]))", 2_500),
        (r#"sum(last_over_time(up{job!=""}[1m]))"#, 1_500),
        ("sum(max_over_time(up[1m]))", 1_500),
    ] {
        assert_eq!(ask(&driver, text, at).await, (5.0, 0));
    }
    assert_eq!(requests.load(Ordering::SeqCst), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_partial_is_not_used_again() {
    let (driver, requests) = driver(vec![Ok(SeriesFrame::Warning("a block is missing".to_owned()))]);
    for asked in 1..=2 {
        assert_eq!(ask(&driver, "sum(up)", 1_500).await, (5.0, 1));
        assert_eq!(requests.load(Ordering::SeqCst), asked);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_over_http_share_selects_only_if_they_ask_for_it() {
    let requests = Arc::new(AtomicUsize::new(0));
    let store = Counted(memory(&[("cluster", "eu")], &["a", "b"]), Arc::clone(&requests));
    let querier = querier(&[serve(Arc::new(store)).await], &[]).await;
    let time = START / 1000 + 60;
    let asked = async |aggregation: &str, more: &str| {
        let before = requests.load(Ordering::SeqCst);
        let form = format!("time={time}&query={aggregation}(last_over_time(up[1m])){more}");
        let answer = post(&querier, "/api/v1/query", &form).await;
        assert_eq!(answer.json()["data"]["result"].as_array().map(Vec::len), Some(1), "{}", answer.body);
        requests.load(Ordering::SeqCst) - before
    };
    let (shares, some) = ("&share_selects=true", "&storeMatch[]=%7B__address__%3D~%22.%2B%22%7D");
    assert_eq!([asked("sum", "").await, asked("max", "").await], [1, 1]);
    assert_eq!([asked("sum", shares).await, asked("max", shares).await], [1, 0]);
    assert_eq!(asked("min", "").await, 1, "a query of a user");
    assert_eq!(asked("min", &format!("{shares}{some}")).await, 1, "a query of some stores");
}
