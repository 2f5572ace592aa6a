//! A real server on loopback and a real client.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::{Sample, TimeRange};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

use super::*;
use crate::memory::MemoryStore;
use crate::{
    Code, LabelLimits, LabelNamesRequest, LabelValuesRequest, LabelsAnswer, MetadataAnswer, MetadataRequest,
    MetricMetadata, SeriesRequest, StoreClient, StoreInfo, WireLimits, acceptance,
};

/// Serves `routes` on loopback until the task is dropped with its runtime.
async fn client(routes: RoutesBuilder) -> StoreClient {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tonic::transport::Server::builder().add_routes(routes.routes());
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    StoreClient::new(address.clone(), mesh::direct(&address).unwrap())
}

async fn served(store: Arc<dyn Store>, limits: RequestLimits) -> StoreClient {
    let mut routes = RoutesBuilder::default();
    StoreServer::new(store, limits).register(&mut routes);
    client(routes).await
}

fn memory(names: impl IntoIterator<Item = String>) -> MemoryStore {
    let series = names.into_iter().map(|name| {
        let labels = Labels::from_pairs([("__name__", "m"), ("n", &name)]).unwrap();
        (labels, (0..240).map(|i| Sample::new(i * 1000, i as f64)).collect())
    });
    MemoryStore::from_samples(Labels::from_pairs([("cluster", "eu-1")]).unwrap(), series).unwrap()
}

fn everything() -> SeriesRequest {
    SeriesRequest::new(TimeRange::ALL, vec![model::Matcher::equal("__name__", "m")])
}

#[tokio::test]
async fn a_remote_store_passes_the_acceptance_suite() {
    acceptance::run(|dataset| async move {
        let store = Arc::new(MemoryStore::from_samples(dataset.external, dataset.series).unwrap());
        (Arc::new(served(store, RequestLimits::default()).await) as Arc<dyn Store>, ())
    })
    .await;
}

#[tokio::test]
async fn batches_have_the_requested_size() {
    let store = Arc::new(memory((0..7).map(|i| i.to_string())));
    let client = served(store, RequestLimits::default()).await;
    for (batch_size, expected) in [(3, vec![3, 3, 1]), (0, vec![1; 7]), (100, vec![7])] {
        let mut request = everything();
        request.batch_size = batch_size;
        let frames: Vec<_> = client.series(request).await.unwrap().collect().await;
        let sizes: Vec<usize> = frames
            .into_iter()
            .map(|frame| match frame.unwrap() {
                SeriesFrame::Series(batch) => batch.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(sizes, expected);
    }
}

#[tokio::test]
async fn a_long_series_is_split_into_messages_of_about_a_mebibyte() {
    let chunk =
        tsdb::Chunk { range: TimeRange::ALL, encoding: tsdb::Encoding::Xor, data: vec![1; 100 << 10].into() };
    let series = Series {
        labels: Labels::from_pairs([("__name__", "m")]).unwrap(),
        chunks: vec![series::AggrChunk::raw(chunk); 30],
    };
    let client =
        served(Arc::new(MemoryStore::new(Labels::empty(), vec![series])), RequestLimits::default()).await;
    let frames: Vec<_> = client.series(everything()).await.unwrap().collect().await;
    let chunks = frames.iter().map(|frame| match frame {
        Ok(SeriesFrame::Series(batch)) => batch[0].chunks.len(),
        other => panic!("{other:?}"),
    });
    assert_eq!(chunks.collect::<Vec<_>>(), [11, 11, 8]);
}

#[tokio::test]
async fn limits_end_an_answer_with_an_error_that_names_them() {
    let store = Arc::new(memory((0..7).map(|i| i.to_string())));
    let limits = RequestLimits { series: Some(5), samples: None };
    let (series, error) = until_error(served(store.clone(), limits).await, everything()).await;
    assert_eq!((series, error.code()), (5, Code::ResourceExhausted));
    assert!(error.message().contains("--store.limits.request-series"), "{error}");
    let limits = RequestLimits { series: None, samples: Some(480) };
    let (series, error) = until_error(served(store, limits).await, everything()).await;
    assert_eq!((series, error.code()), (2, Code::ResourceExhausted));
    assert!(error.message().contains("--store.limits.request-samples"), "{error}");
}

async fn until_error(client: StoreClient, request: SeriesRequest) -> (usize, StoreError) {
    let mut stream = client.series(request).await.unwrap();
    let mut series = 0;
    loop {
        match stream.next().await.expect("an error has to come") {
            Ok(SeriesFrame::Series(batch)) => series += batch.len(),
            Ok(other) => panic!("{other:?}"),
            Err(error) => return (series, error),
        }
    }
}

/// Sends series without end, and records when its stream is dropped.
struct Endless {
    dropped: Arc<AtomicBool>,
}

struct NoteDrop(Arc<AtomicBool>);

impl Drop for NoteDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tonic::async_trait]
impl Store for Endless {
    async fn info(&self) -> Result<StoreInfo, StoreError> {
        Err(StoreError::unavailable("not ready"))
    }
    async fn series(&self, _: SeriesRequest) -> Result<SeriesStream, StoreError> {
        let state = (0u64, NoteDrop(Arc::clone(&self.dropped)));
        let frames = stream::unfold(state, |(i, note)| async move {
            let labels = Labels::from_pairs([("n", format!("{i:020}"))]).unwrap();
            Some((Ok(SeriesFrame::Series(vec![Series { labels, chunks: vec![] }])), (i + 1, note)))
        });
        Ok(frames.boxed())
    }
    async fn label_names(&self, _: LabelNamesRequest) -> Result<LabelsAnswer, StoreError> {
        Err(StoreError::internal("index is damaged"))
    }
    async fn label_values(&self, _: LabelValuesRequest) -> Result<LabelsAnswer, StoreError> {
        Ok(LabelsAnswer {
            values: vec!["a".into()],
            warnings: vec!["b is away".into()],
            ..Default::default()
        })
    }
}

#[tokio::test]
async fn a_disconnected_caller_cancels_the_work_of_the_store() {
    let dropped = Arc::new(AtomicBool::new(false));
    let client = served(Arc::new(Endless { dropped: dropped.clone() }), RequestLimits::default()).await;
    let mut stream = client.series(everything()).await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    drop(stream);
    let deadline = Duration::from_secs(10);
    tokio::time::timeout(deadline, async {
        while !dropped.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the store's stream was not dropped");
}

#[tokio::test]
async fn codes_messages_and_warnings_cross_the_wire() {
    let client = served(Arc::new(Endless { dropped: Arc::default() }), RequestLimits::default()).await;
    let error = client.info().await.unwrap_err();
    assert_eq!((error.code(), error.message(), error.is_retryable()), (Code::Unavailable, "not ready", true));
    let error = client.label_names(LabelNamesRequest::new(TimeRange::ALL, vec![])).await.unwrap_err();
    assert_eq!(
        (error.code(), error.message(), error.is_retryable()),
        (Code::Internal, "index is damaged", false)
    );
    let answer = client.label_values(LabelValuesRequest::new("n", TimeRange::ALL, vec![])).await.unwrap();
    assert_eq!((answer.values, answer.warnings), (vec!["a".to_owned()], vec!["b is away".to_owned()]));
}

#[tokio::test]
async fn an_unreachable_store_is_an_error_that_names_its_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let client = StoreClient::new(address.clone(), mesh::direct(&address).unwrap());
    for error in [client.info().await.unwrap_err(), client.series(everything()).await.err().unwrap()] {
        assert_eq!(error.code(), Code::Unavailable, "{error}");
        assert!(error.message().contains(&address), "{error}");
    }
}

#[tonic::async_trait]
impl MetadataStore for Endless {
    async fn metric_metadata(&self, request: MetadataRequest) -> Result<MetadataAnswer, StoreError> {
        let entry = MetricMetadata { kind: "counter".into(), help: "Requests.".into(), unit: String::new() };
        let metric = request.metric.unwrap_or_else(|| "requests_total".into());
        let warnings = vec![format!("{:?}", request.limit)];
        Ok(MetadataAnswer { metadata: [(metric, vec![entry])].into(), warnings, ..Default::default() })
    }
}

#[tokio::test]
async fn metadata_crosses_the_wire() {
    let store = Arc::new(Endless { dropped: Arc::default() });
    let mut routes = RoutesBuilder::default();
    MetadataServer::register(store.clone(), &mut routes);
    let client = client(routes).await;
    for request in [
        MetadataRequest::default(),
        MetadataRequest { metric: Some("up".into()), limit: Some(0), ..Default::default() },
    ] {
        let there = store.metric_metadata(request.clone()).await.unwrap();
        assert_eq!(client.metric_metadata(request).await.unwrap(), there);
    }
}

/// A store whose one series has chunks with start timestamps: floats, and histograms of both kinds.
fn started() -> MemoryStore {
    use tsdb::{HistogramEncoder, Xor2Encoder};
    let at = model::Timestamp::from_millis;
    let mut floats = Xor2Encoder::new();
    (0..200).for_each(|n| floats.append(Sample::new(n * 1000, n as f64), at(n * 900)).unwrap());
    let encoders = [HistogramEncoder::integer_with_starts(), HistogramEncoder::float_with_starts()];
    let histograms = encoders.into_iter().zip([200_000, 300_000]).map(|(mut encoder, from)| {
        for t in [from, from + 15_000] {
            encoder.append_with_start(at(t), &model::FloatHistogram::default(), at(from - 5)).unwrap();
        }
        encoder.finish().unwrap()
    });
    let chunks = floats.finish().into_iter().chain(histograms).map(series::AggrChunk::raw).collect();
    let labels = Labels::from_pairs([("__name__", "m")]).unwrap();
    MemoryStore::new(Labels::empty(), vec![Series { labels, chunks }])
}

/// The chunks of the only series that a store sends.
async fn chunks_of(store: &dyn Store) -> Vec<tsdb::Chunk> {
    let (series, _) = crate::collect_series(store.series(everything()).await.unwrap()).await.unwrap();
    series.into_iter().flat_map(|series| series.chunks).filter_map(|chunk| chunk.raw).collect()
}

#[tokio::test]
async fn our_client_gets_start_timestamps_through_any_number_of_stores() {
    let client = served(Arc::new(started()), RequestLimits::default()).await;
    let behind = served(Arc::new(client.clone()), RequestLimits::default()).await;
    let stored = chunks_of(&started()).await;
    assert_eq!(stored.len(), 3);
    assert!(stored.iter().all(|chunk| chunk.encoding.may_hold_starts()));
    assert_eq!(chunks_of(&client).await, stored);
    assert_eq!(chunks_of(&behind).await, stored);
}

#[tokio::test]
async fn a_client_that_does_not_ask_gets_the_same_samples_without_start_timestamps() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut routes = RoutesBuilder::default();
    StoreServer::new(Arc::new(started()), RequestLimits::default()).register(&mut routes);
    let server = tonic::transport::Server::builder().add_routes(routes.routes());
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let mut foreign = wire::store_client::StoreClient::new(mesh::direct(&address).unwrap());
    let mut ask = async |accepted_encodings: Vec<i32>| {
        let request = wire::SeriesRequest {
            accepted_encodings,
            // As the generated code of Thanos sends it, without fields that it does not have.
            ..convert::series_request_to_wire(&everything())
        };
        let frame = foreign.series(request).await.unwrap().into_inner().next().await.unwrap().unwrap();
        let Some(wire::series_response::Result::Series(series)) = frame.result else { panic!("{frame:?}") };
        series.chunks.into_iter().map(|chunk| chunk.raw.unwrap()).collect::<Vec<_>>()
    };
    let stored = chunks_of(&started()).await;
    let plain = ask(vec![]).await;
    assert_eq!(plain.iter().map(|chunk| chunk.r#type).collect::<Vec<_>>(), [0, 1, 2]);
    for (sent, stored) in plain.iter().zip(&stored) {
        assert_eq!(sent.data, stored.without_starts().unwrap().data);
        assert_eq!(sent.hash, xxhash_rust::xxh64::xxh64(&sent.data, 0));
    }
    // Unknown numbers are ignored.
    let some = ask(vec![wire::chunk::Encoding::Xor2.into(), 77]).await;
    assert_eq!(some.iter().map(|chunk| chunk.r#type).collect::<Vec<_>>(), [3, 1, 2]);
    assert_eq!(some[0].data, stored[0].data);
}

#[tokio::test]
async fn a_damaged_chunk_that_has_to_be_converted_is_an_error_that_names_it() {
    let mut store = chunks_of(&started()).await;
    store.truncate(1);
    store[0].data.truncate(40);
    let labels = Labels::from_pairs([("__name__", "m")]).unwrap();
    let mut series = Series { labels, chunks: store.into_iter().map(series::AggrChunk::raw).collect() };
    let unchanged = series.clone();
    let error = AcceptedEncodings::of(&wire::SeriesRequest::default()).apply(&mut series).unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    assert!(error.message().starts_with("series m: chunk from "), "{error}");
    assert!(error.message().contains("XOR2 chunk of 40 bytes is damaged"), "{error}");
    AcceptedEncodings::of(&convert::series_request_to_wire(&everything())).apply(&mut series).unwrap();
    assert_eq!(series, unchanged, "what is passed on is not looked at");
}

#[tokio::test]
async fn series_over_a_limit_on_labels_cost_a_warning_and_not_the_store() {
    let names =
        (0..40).map(|i| if i % 4 == 0 { format!("{i:02}") } else { format!("{i:02}-{}", "x".repeat(50)) });
    let client = served(Arc::new(memory(names)), RequestLimits::default()).await;
    let labels = LabelLimits { value_bytes: Some(20), flags: "--gateway", ..LabelLimits::OFF };
    let client = client.with_limits(WireLimits { labels, ..WireLimits::default() });
    let (series, warnings) = crate::collect_series(client.series(everything()).await.unwrap()).await.unwrap();
    assert_eq!(series.len(), 10);
    assert!(series.iter().all(|series| series.labels.value("n").len() == 2));
    assert_eq!(warnings.len(), 11, "{warnings:?}");
    assert!(warnings[0].starts_with("series m{cluster=\"eu-1\", n=\"01-xxx"), "{}", warnings[0]);
    assert!(warnings[0].ends_with("has 53 bytes, the limit is 20 (--gateway.label-value-length-limit)"));
    assert_eq!(warnings[10], "20 more series are dropped, because they are over a limit on labels");
}

/// Sends two series, and the third one when it is asked to.
struct PausingStore(std::sync::Mutex<Option<tokio::sync::oneshot::Receiver<()>>>);

#[tonic::async_trait]
impl Store for PausingStore {
    async fn info(&self) -> Result<StoreInfo, StoreError> {
        Ok(StoreInfo::new("store", Vec::new(), TimeRange::ALL))
    }

    async fn series(&self, _: SeriesRequest) -> Result<SeriesStream, StoreError> {
        let go_on = self.0.lock().unwrap().take().expect("one request");
        let of = |n: &str| Series {
            labels: Labels::from_pairs([("__name__", "m"), ("n", n)]).unwrap(),
            chunks: Vec::new(),
        };
        let first = stream::iter([Ok(SeriesFrame::Series(vec![of("1"), of("2")]))]);
        let rest = stream::once(async move {
            go_on.await.expect("the test asks for it");
            Ok(SeriesFrame::Series(vec![of("3")]))
        });
        Ok(first.chain(rest).boxed())
    }

    async fn label_names(&self, _: LabelNamesRequest) -> Result<LabelsAnswer, StoreError> {
        Ok(LabelsAnswer::default())
    }

    async fn label_values(&self, _: LabelValuesRequest) -> Result<LabelsAnswer, StoreError> {
        Ok(LabelsAnswer::default())
    }
}

#[tokio::test]
async fn the_first_series_are_sent_before_a_batch_is_full() {
    let (ask, asked) = tokio::sync::oneshot::channel();
    let store = Arc::new(PausingStore(std::sync::Mutex::new(Some(asked))));
    let client = served(store, RequestLimits::default()).await;
    let request = SeriesRequest { batch_size: 64, ..everything() };
    let mut frames = client.series(request).await.unwrap();
    let first = tokio::time::timeout(Duration::from_secs(30), frames.next()).await;
    let first = first.expect("the first series are held back").unwrap().unwrap();
    assert!(matches!(&first, SeriesFrame::Series(series) if series.len() == 2), "{first:?}");
    ask.send(()).unwrap();
    let rest: Vec<_> = frames.collect().await;
    assert!(matches!(&rest[..], [Ok(SeriesFrame::Series(series))] if series.len() == 1), "{rest:?}");
}
