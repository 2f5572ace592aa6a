//! Answers that would take too much memory: each is refused before it is decoded, with the name of the limit.

use std::convert::Infallible;

use ::http::{Request, Response};
use budget::{Budget, BudgetLimits, Interrupt, TotalBudget};
use bytes::Bytes;
use http_body_util::StreamBody;
use promql::QUERIES;
use storeapi::{Code, MetadataRequest, collect_series};
use tower::service_fn;

use super::*;
use crate::tests::liars::{message, raw};
use crate::{FanoutEvent, StoreFilter};

const MIB: usize = 1 << 20;

pub(super) fn unlimited() -> Budget {
    Budget::new(&TotalBudget::unlimited(&QUERIES), BudgetLimits::UNLIMITED, Interrupt::new())
}

fn limited(bytes: usize) -> Budget {
    let limits = BudgetLimits::bytes(bytes as u64);
    Budget::new(&TotalBudget::unlimited(&QUERIES), limits, Interrupt::new())
}

/// A proxy over a good store and this one, where one answer may take `store_bytes`.
async fn beside_good(liar: Candidate, store_bytes: usize) -> ProxyStore {
    let good = remote("good", memory(&[("cluster", "eu-1")], &["api", "db"])).await;
    proxy(vec![good, liar], ProxyOptions { store_bytes, ..ProxyOptions::default() })
}

/// A message with a field that is repeated.
fn repeated(field: &[u8], count: usize) -> Vec<u8> {
    let content = field.repeat(count);
    message(content.len() as u32, &content)
}

fn refused_by_the_store_limit(warnings: &[String]) {
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for part in ["store liar: ", "limit for one store is", "--query.max-memory-per-store"] {
        assert!(warnings[0].contains(part), "{warnings:?}");
    }
}

#[tokio::test]
async fn label_values_that_take_too_much_memory_cost_their_store_and_not_the_answer() {
    // Three bytes each on the wire, more than forty in memory.
    let proxy = beside_good(raw(repeated(&[0x0a, 1, b'x'], MIB)), 16 * MIB).await;
    let request = LabelValuesRequest::new("job", TimeRange::ALL, vec![]);
    let answer = proxy.label_values(request).await.unwrap();
    assert_eq!(answer.values, ["api", "db"]);
    refused_by_the_store_limit(&answer.warnings);
    let answer = proxy.label_names(LabelNamesRequest::new(TimeRange::ALL, vec![])).await.unwrap();
    assert_eq!(answer.values, ["__name__", "cluster", "job"]);
    refused_by_the_store_limit(&answer.warnings);
}

#[tokio::test]
async fn a_message_that_is_larger_than_the_limit_is_refused_with_the_name_of_the_limit() {
    let proxy = beside_good(raw(repeated(&[0x0a, 1, b'x'], MIB)), MIB).await;
    let request = LabelValuesRequest::new("job", TimeRange::ALL, vec![]);
    refused_by_the_store_limit(&proxy.label_values(request).await.unwrap().warnings);
    let (series, warnings) = collect_series(proxy.series(up()).await.unwrap()).await.unwrap();
    assert_eq!(series.len(), 2);
    refused_by_the_store_limit(&warnings);
}

#[tokio::test]
async fn empty_label_names_are_a_violation() {
    let proxy = beside_good(raw(repeated(&[0x0a, 0], 10)), MIB).await;
    let answer = proxy.label_names(LabelNamesRequest::new(TimeRange::ALL, vec![])).await.unwrap();
    assert_eq!(answer.values, ["__name__", "cluster", "job"]);
    assert!(answer.warnings[0].contains("empty label name"), "{:?}", answer.warnings);
}

#[tokio::test]
async fn a_batch_of_series_that_takes_too_much_memory_costs_its_store_and_not_the_answer() {
    // A batch with one series of many empty chunks: two bytes each on the wire, hundreds in memory.
    let chunks = [0x12, 0x00].repeat(MIB);
    let mut series = Vec::new();
    prost::encoding::bytes::encode(1, &chunks, &mut series);
    let mut batch = Vec::new();
    prost::encoding::bytes::encode(4, &series, &mut batch);
    let proxy = beside_good(raw(message(batch.len() as u32, &batch)), 64 * MIB).await;
    let (series, warnings) = collect_series(proxy.series(up()).await.unwrap()).await.unwrap();
    assert_eq!(series.len(), 2);
    refused_by_the_store_limit(&warnings);
}

/// A peer that answers with this message again and again.
fn endless(message: Vec<u8>) -> Candidate {
    let service = service_fn(move |_: Request<tonic::body::Body>| {
        let frame = ::http_body_util::BodyExt::boxed_unsync(StreamBody::new(
            stream::repeat(Bytes::from(message.clone()))
                .map(|bytes| Ok::<_, Infallible>(http_body::Frame::data(bytes))),
        ));
        let response = Response::builder().header("content-type", "application/grpc").body(frame);
        async move { Ok::<_, Infallible>(response.expect("the response is well formed")) }
    });
    let client = Arc::new(StoreClient::new("liar", mesh::Channel::new("liar", service)));
    Candidate { metadata: Some(Arc::clone(&client) as _), ..local("liar", client) }
}

#[tokio::test]
async fn metadata_without_end_is_refused_at_the_limit() {
    use proto::thanos as wire;
    let meta = wire::Meta { r#type: "gauge".to_owned(), help: "h".repeat(1000), unit: String::new() };
    let entry = wire::MetricMetadataEntry { metas: vec![meta] };
    let metadata = wire::MetricMetadata { metadata: [("up".to_owned(), entry)].into_iter().collect() };
    let result = Some(wire::metric_metadata_response::Result::Metadata(metadata));
    let content = prost::Message::encode_to_vec(&wire::MetricMetadataResponse { result });
    let proxy = beside_good(endless(message(content.len() as u32, &content)), 8 * MIB).await;
    let (answer, _) = proxy.metadata(MetadataRequest::default(), &unlimited()).await.unwrap();
    assert!(answer.metadata.is_empty());
    refused_by_the_store_limit(&answer.warnings);
}

#[tokio::test]
async fn labels_and_metadata_count_towards_the_budget_of_the_request() {
    let many: Vec<String> = (0..10_000).map(|n| format!("job-{n:05}-{}", "x".repeat(50))).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let proxy = proxy(
        vec![
            remote("a", memory(&[("cluster", "eu-1"), ("replica", "a")], &many)).await,
            remote("b", memory(&[("cluster", "eu-1"), ("replica", "b")], &many)).await,
        ],
        ProxyOptions::default(),
    );
    let ask = |bytes: usize| {
        let (proxy, budget) = (proxy.clone(), limited(bytes));
        async move {
            let request = LabelValuesRequest::new("job", TimeRange::ALL, vec![]);
            proxy.values(request, &StoreFilter::default(), &budget).await
        }
    };
    let error = ask(MIB).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(error.message().contains("(--query.max-memory)"), "{error}");
    // Values that both stores have count once. Both answers may be read at the same time, which takes 4,241,435 bytes.
    let (answer, reserved) = ask(5 * MIB).await.unwrap();
    assert_eq!((answer.values.len(), answer.warnings.len()), (10_000, 0));
    assert!(reserved.bytes() > MIB as u64 && reserved.bytes() < 2 * MIB as u64, "{}", reserved.bytes());
}

#[tokio::test]
async fn requests_over_grpc_have_a_budget_too() {
    let many: Vec<String> = (0..20_000).map(|n| format!("job-{n:05}-{}", "x".repeat(50))).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let options = ProxyOptions { request_bytes: MIB as u64, ..ProxyOptions::default() };
    let proxy = proxy(vec![remote("a", memory(&[("cluster", "eu-1")], &many)).await], options);
    let request = LabelValuesRequest::new("job", TimeRange::ALL, vec![]);
    let error = proxy.label_values(request).await.unwrap_err();
    assert!(error.code() == Code::ResourceExhausted && error.message().contains("max-memory"), "{error}");
}

#[tokio::test]
async fn answers_over_grpc_stay_reserved_until_they_are_sent() {
    use proto::thanos as wire;
    let many: Vec<String> = (0..1000).map(|n| format!("job-{n:05}-{}", "x".repeat(50))).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let total = TotalBudget::unlimited(&QUERIES);
    let options = ProxyOptions { total: total.clone(), ..ProxyOptions::default() };
    let proxy = proxy(vec![remote("a", memory(&[("cluster", "eu-1")], &many)).await], options);
    let server = StoreServer::new(Arc::new(proxy), RequestLimits::default());
    let request = |path: &str, message: Vec<u8>| {
        let body = tonic::body::Body::new(http_body_util::Full::new(Bytes::from(message)));
        let request = Request::builder().method("POST").uri(path).header("content-type", "application/grpc");
        request.body(body).unwrap()
    };
    let encoded = |content: Vec<u8>| message(content.len() as u32, &content);
    let end = i64::MAX;
    let values = wire::LabelValuesRequest { label: "job".to_owned(), end, ..Default::default() };
    let names = wire::LabelNamesRequest { end, ..Default::default() };
    for (path, message) in [
        ("/thanos.Store/LabelValues", encoded(prost::Message::encode_to_vec(&values))),
        ("/thanos.Store/LabelNames", encoded(prost::Message::encode_to_vec(&names))),
    ] {
        let response = tower::ServiceExt::oneshot(server.clone(), request(path, message)).await.unwrap();
        assert!(total.reserved_bytes() > 0, "{path}: {response:?}");
        drop(response);
        assert_eq!(total.reserved_bytes(), 0, "{path}");
    }
}

/// A peer that sends half of a message of `bytes` and then nothing.
fn stalled(bytes: usize) -> Candidate {
    let service = service_fn(move |_: Request<tonic::body::Body>| {
        let begin = Bytes::from(message(bytes as u32, &vec![0; bytes / 2]));
        let frames = stream::iter([Ok::<_, Infallible>(http_body::Frame::data(begin))]);
        let body = StreamBody::new(frames.chain(stream::pending()));
        let response = Response::builder().header("content-type", "application/grpc");
        let response = response.body(http_body_util::BodyExt::boxed_unsync(body));
        async move { Ok::<_, Infallible>(response.expect("the response is well formed")) }
    });
    local("stalled", Arc::new(StoreClient::new("stalled", mesh::Channel::new("stalled", service))))
}

#[tokio::test]
async fn messages_count_towards_the_budget_while_they_are_received() {
    let total = TotalBudget::unlimited(&QUERIES);
    let options = ProxyOptions { total: total.clone(), ..ProxyOptions::default() };
    let proxy = proxy(vec![stalled(20 * MIB)], options);
    let budget = |bytes: usize| Budget::new(&total, BudgetLimits::bytes(bytes as u64), Interrupt::new());
    let enough = budget(100 * MIB);
    let mut fanout = proxy.select_within(up(), &StoreFilter::default(), &enough).unwrap();
    let counted = async {
        while total.reserved_bytes() < 10 * MIB as u64 {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        tokio::select! { _ = fanout.next() => panic!("nothing was sent"), () = counted => {} }
    });
    waited.await.unwrap_or_else(|_| panic!("only {} bytes are counted", total.reserved_bytes()));
    assert!(total.reserved_bytes() < 12 * MIB as u64, "what is only announced is not counted");
    drop(fanout);
    let mut fanout = proxy.select_within(up(), &StoreFilter::default(), &budget(8 * MIB)).unwrap();
    let error = fanout.next().await.unwrap().unwrap_err();
    assert!(error.message().contains("(--query.max-memory)"), "{error}");
    let request = LabelValuesRequest::new("job", TimeRange::ALL, vec![]);
    let error = proxy.values(request, &StoreFilter::default(), &budget(8 * MIB)).await.unwrap_err();
    assert!(error.message().contains("(--query.max-memory)"), "{error}");
}

/// Each store may have one message in the merge and one in hand. What they read ahead is one window for all of them.
#[tokio::test]
async fn stores_of_one_answer_share_one_window() {
    const STORES: usize = 40;
    const MESSAGE: usize = 16 << 10;
    let frame = |store: usize, n: usize| {
        let (cluster, n) = (format!("c-{store:03}"), format!("{n:03}"));
        let labels = labels(&[("__name__", "up"), ("cluster", &cluster), ("n", &n)]);
        let data = Bytes::from(vec![0; MESSAGE]);
        let chunk = tsdb::Chunk { range: TimeRange::ALL, encoding: tsdb::Encoding::Xor, data };
        Ok(SeriesFrame::Series(vec![Series { labels, chunks: vec![series::AggrChunk::raw(chunk)] }]))
    };
    let stores = (0..STORES).map(|store| {
        let frames = (0..30).map(|n| frame(store, n)).collect();
        local(&format!("{store:03}"), Arc::new(Scripted::new(frames)))
    });
    let window_bytes = 256 << 10;
    let options = ProxyOptions { window_bytes, ..ProxyOptions::default() };
    let proxy = proxy(stores.collect(), options);
    let budget = unlimited();
    let mut fanout = proxy.select_within(up(), &StoreFilter::default(), &budget).unwrap();
    let mut series = 0;
    while let Some(event) = fanout.next().await {
        let FanoutEvent::Series(batch) = event.unwrap() else { panic!("a warning") };
        series += batch.len();
        // The other tasks run as far as they can.
        for _ in 0..3 * STORES {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(series, STORES * 30);
    let streams = STORES * mesh::StreamWindow::Small.bytes() as usize;
    let peak = budget.peak_bytes() as usize - streams;
    assert!(peak < (STORES + 4) * (MESSAGE + 1000) + window_bytes + STORES * 1000, "{peak}");
}
