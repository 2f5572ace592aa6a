//! A StoreAPI server that sends as many bytes as requested, for the mesh benchmarks.
//!
//! It runs in its own process, so that its CPU time is counted separately.

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use prost::Message;
use proto::thanos::info::info_server::{Info, InfoServer};
use proto::thanos::info::{InfoRequest, InfoResponse, StoreInfo};
use proto::thanos::store_server::{Store, StoreServer};
use proto::thanos::{
    AggrChunk, Chunk, Label, LabelNamesRequest, LabelNamesResponse, LabelSet, LabelValuesRequest,
    LabelValuesResponse, Series, SeriesRequest, SeriesResponse, series_response,
};
use tests::{Process, free_port};
use tonic::{Request, Response, Status};

/// The first argument with which the benchmark program runs this server.
pub(crate) const ROLE: &str = "--serve-source";
/// The cluster of a single source.
pub(crate) const CLUSTER: &str = "bench-1";

#[derive(Clone)]
struct Source {
    /// The cluster in its labels.
    cluster: String,
}

fn labels(cluster: &str) -> Vec<Label> {
    [("cluster", cluster), ("environment", "testing"), ("replica", "0")]
        .map(|(name, value)| Label { name: name.to_owned(), value: value.to_owned() })
        .to_vec()
}

fn label_names_answer() -> LabelNamesResponse {
    let names = labels(CLUSTER).into_iter().map(|label| label.name).collect();
    LabelNamesResponse { names, ..LabelNamesResponse::default() }
}

/// Bytes of the body of an answer with the label names: a gRPC message with its head of five bytes.
pub(crate) fn label_names_answer_bytes() -> usize {
    5 + label_names_answer().encoded_len()
}

#[tonic::async_trait]
impl Store for Source {
    type SeriesStream = BoxStream<'static, Result<SeriesResponse, Status>>;

    /// Sends `max_time` messages with `min_time` bytes of payload each. If `max_time` is 0, sends one message and is then idle.
    async fn series(&self, request: Request<SeriesRequest>) -> Result<Response<Self::SeriesStream>, Status> {
        let SeriesRequest { min_time, max_time, .. } = request.into_inner();
        let payload = Bytes::from(vec![0x5a; usize::try_from(min_time).unwrap_or(0)]);
        let chunk = Chunk { r#type: 0, data: payload, hash: 0 };
        let chunk = AggrChunk { raw: Some(chunk), ..AggrChunk::default() };
        let series = Series { labels: labels(&self.cluster), chunks: vec![chunk], ..Series::default() };
        let message = SeriesResponse { result: Some(series_response::Result::Series(series)) };
        let stream = match usize::try_from(max_time).unwrap_or(0) {
            0 => stream::iter([Ok(message)]).chain(stream::pending()).boxed(),
            count => stream::repeat_with(move || Ok(message.clone())).take(count).boxed(),
        };
        Ok(Response::new(stream))
    }

    async fn label_names(
        &self,
        _: Request<LabelNamesRequest>,
    ) -> Result<Response<LabelNamesResponse>, Status> {
        Ok(Response::new(label_names_answer()))
    }

    async fn label_values(
        &self,
        _: Request<LabelValuesRequest>,
    ) -> Result<Response<LabelValuesResponse>, Status> {
        Ok(Response::new(LabelValuesResponse::default()))
    }
}

#[tonic::async_trait]
impl Info for Source {
    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let store = StoreInfo {
            min_time: 0,
            max_time: i64::MAX,
            supports_sharding: true,
            supports_without_replica_labels: true,
            ..StoreInfo::default()
        };
        Ok(Response::new(InfoResponse {
            label_sets: vec![LabelSet { labels: labels(&self.cluster) }],
            component_type: "sidecar".to_owned(),
            store: Some(store),
            ..InfoResponse::default()
        }))
    }
}

/// Starts the source of a cluster, and returns its address. Its log is in `dir`.
pub(crate) fn start(dir: &Path, cluster: &str) -> (Process, SocketAddr) {
    let address = free_port();
    let me = std::env::current_exe().expect("a running program has a file");
    let args = [ROLE.to_owned(), address.to_string(), cluster.to_owned()];
    (Process::start(&me, &args, &dir.join(format!("source-{cluster}.log"))), address)
}

/// Serves the source of a cluster until the process is killed.
pub(crate) fn serve(address: &str, cluster: &str) {
    let source = Source { cluster: cluster.to_owned() };
    let address: SocketAddr = address.parse().expect("an address");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let server = tonic::transport::Server::builder()
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(64 << 20)
        .max_frame_size(256 << 10)
        .add_service(StoreServer::new(source.clone()))
        .add_service(InfoServer::new(source))
        .serve(address);
    runtime.block_on(server).expect("the source serves");
}
