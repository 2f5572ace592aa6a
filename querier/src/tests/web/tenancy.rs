//! What belongs to a request and travels to the stores: its tenant, its deadline and its trace.

use std::collections::BTreeMap;
use std::sync::Mutex;

use http::HeaderMap;
use storeapi::{Apis, MetadataAnswer, MetadataRequest, MetadataServer, MetadataStore, MetricMetadata};
use tower::util::MapRequestLayer;

use super::*;

/// A store with metadata.
struct WithMetadata(Arc<MemoryStore>);

#[tonic::async_trait]
impl Store for WithMetadata {
    async fn info(&self) -> Result<StoreInfo, StoreError> {
        let apis = Apis { store: true, metadata: true, ..Apis::default() };
        Ok(StoreInfo { apis, ..self.0.info().await? })
    }
    async fn series(&self, request: SeriesRequest) -> Result<SeriesStream, StoreError> {
        self.0.series(request).await
    }
    async fn label_names(&self, request: LabelNamesRequest) -> Result<LabelsAnswer, StoreError> {
        self.0.label_names(request).await
    }
    async fn label_values(&self, request: LabelValuesRequest) -> Result<LabelsAnswer, StoreError> {
        self.0.label_values(request).await
    }
}

#[tonic::async_trait]
impl MetadataStore for WithMetadata {
    async fn metric_metadata(&self, _: MetadataRequest) -> Result<MetadataAnswer, StoreError> {
        let entry = MetricMetadata { kind: "gauge".into(), help: "x".into(), unit: String::new() };
        let metadata = ["up", "secret"].map(|metric| (metric.to_owned(), vec![entry.clone()]));
        Ok(MetadataAnswer { metadata: metadata.into(), ..MetadataAnswer::default() })
    }
}

/// The headers of the last call of each method.
type Seen = Arc<Mutex<BTreeMap<String, HeaderMap>>>;

/// Serves a store with metadata, and records the headers of its calls.
async fn recorded(store: Arc<MemoryStore>) -> (String, Seen) {
    let (seen, listener) = (Seen::default(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap().to_string();
    let store = Arc::new(WithMetadata(store));
    let mut routes = RoutesBuilder::default();
    MetadataServer::register(store.clone(), &mut routes);
    StoreServer::new(store, RequestLimits::default()).register(&mut routes);
    let record = {
        let seen = Arc::clone(&seen);
        move |request: http::Request<tonic::body::Body>| {
            let method = request.uri().path().rsplit('/').next().unwrap_or("").to_owned();
            seen.lock().unwrap().insert(method, request.headers().clone());
            request
        }
    };
    let server =
        tonic::transport::Server::builder().layer(MapRequestLayer::new(record)).add_routes(routes.routes());
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, seen)
}

/// The trace of each request.
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

async fn get_as(querier: &RunningRole, tenant: &str, path: &str) -> Value {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nTHANOS-TENANT: {tenant}\r\ntraceparent: {TRACE}\r\n\r\n"
    );
    send(querier.http_address(), &request).await.json()
}

#[tokio::test]
async fn tenant_sees_only_its_series_in_every_endpoint() {
    let (own, _) = recorded(memory(&[("tenant_id", "a")], &["api"])).await;
    let (other, _) = recorded(memory(&[("tenant_id", "b")], &["db", "secret"])).await;
    let querier = querier(&[own, other], &["--query.enforce-tenancy"]).await;
    let count = async |tenant: &str, query: &str| {
        let path = format!("/api/v1/query?query={query}&time={AT}");
        get_as(&querier, tenant, &path).await["data"]["result"][0]["value"][1].clone()
    };
    assert_eq!(count("a", "count(up)").await, "1");
    assert_eq!(count("b", "count(up)").await, "2");
    assert_eq!(count("nobody", "count(up)").await, Value::Null);
    // A matcher for another tenant is replaced, as in Thanos, in each selector.
    for query in [
        "count(up%7Btenant_id=%22b%22%7D)",
        "count(up%7Btenant_id=~%22.%2B%22%7D)",
        "count(%7Btenant_id=%22b%22,job!=%22%22%7D+or+up)",
        "count(max_over_time(up%7Btenant_id!=%22a%22%7D%5B5m:1m%5D))",
    ] {
        assert_eq!(count("a", query).await, "1", "{query}");
    }
    let range = format!("/api/v1/query_range?query=count(up)&start={}&end={AT}&step=60", AT - 60);
    assert_eq!(get_as(&querier, "a", &range).await["data"]["result"][0]["values"][0][1], "1");
    for (path, expected) in [
        ("/api/v1/label/job/values", json!(["api"])),
        (
            "/api/v1/label/job/values?match[]=up%7Btenant_id=%22b%22%7D&match[]=%7Bjob=%22db%22%7D",
            json!(["api"]),
        ),
        ("/api/v1/label/tenant_id/values", json!(["a"])),
        ("/api/v1/labels", json!(["__name__", "job", "tenant_id"])),
        (
            "/api/v1/series?match[]=%7Btenant_id=%22b%22%7D&match[]=up",
            json!([{"__name__": "up", "job": "api", "tenant_id": "a"}]),
        ),
        ("/api/v1/metadata", json!({"up": [{"type": "gauge", "help": "x", "unit": ""}]})),
    ] {
        assert_eq!(get_as(&querier, "a", path).await["data"], expected, "{path}");
    }
    assert_eq!(get_as(&querier, "nobody", "/api/v1/metadata?limit=1").await["data"], json!({}));
    let refused = get_as(&querier, "a/../b", "/api/v1/labels").await;
    assert_eq!(refused["errorType"], "bad_data", "{refused}");
}

#[tokio::test]
async fn tenant_deadline_and_trace_of_a_request_reach_every_store() {
    let (store, seen) = recorded(memory(&[("cluster", "eu-1")], &["api"])).await;
    let lower = querier(&[store], &[]).await;
    let flags = ["--query.tenant-header=X-Team", "--query.default-tenant-id=nobody"];
    let upper = querier(&[lower.grpc_address().to_string()], &flags).await;
    for (path, method) in [
        (format!("/api/v1/query?query=up&time={AT}&timeout=60s"), "Series"),
        ("/api/v1/series?match[]=up&timeout=60s".to_owned(), "Series"),
        ("/api/v1/labels?timeout=60s".to_owned(), "LabelNames"),
        ("/api/v1/label/job/values?timeout=60s".to_owned(), "LabelValues"),
        ("/api/v1/metadata?timeout=60s".to_owned(), "MetricMetadata"),
    ] {
        for (tenant, expected) in [("team-1", "team-1"), ("", "nobody")] {
            seen.lock().unwrap().remove(method);
            let answer = get_as(&upper, tenant, &path).await;
            assert_eq!(answer["status"], "success", "{answer}");
            let headers = seen.lock().unwrap().remove(method).unwrap();
            assert_eq!(headers["thanos-tenant"], expected, "{path}");
            assert_eq!(headers["traceparent"], TRACE, "{path}");
            let limit = headers["grpc-timeout"].to_str().unwrap();
            let micros: u64 = limit.strip_suffix('u').unwrap_or_else(|| panic!("{limit}")).parse().unwrap();
            assert!((1_000_000..63_000_000).contains(&micros), "{path}: {limit}");
        }
    }
}
