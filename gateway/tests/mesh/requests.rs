//! Requests: which are forwarded, which are rejected, and how streams end.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use compression::{ClientCompressionLayer, MessageEncoding};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use proto::thanos::{
    LabelValuesRequest,
    info::{InfoRequest, info_client::InfoClient},
    store_client::StoreClient,
};
use tokio::net::TcpStream;
use tonic::{Code, Request, transport::Endpoint};
use tower::{Layer, ServiceExt};

use crate::{
    stores::{self, TestStore},
    world::{MeshWorld, RunningGateway, client, count, healthy, messages, within},
};

const EU_1: &[(&str, &str)] = &[("cluster", "eu-1"), ("environment", "test")];

struct Scene {
    obs: RunningGateway,
    store: stores::RunningStore,
    _cluster: RunningGateway,
    _world: MeshWorld,
}

/// One cluster with one store; `policy` is added to the cluster's configuration.
async fn scene(policy: &str) -> Scene {
    let world = MeshWorld::new();
    let obs = world.observability("targets: [{name: scraper-0.eu-1, listen: 127.0.0.1:0}]\n").await;
    let store = TestStore::start(EU_1).await;
    let cluster = world.cluster("eu-1", &[("scraper-0", store.address)], &obs, policy).await;
    healthy(&obs, "scraper-0.eu-1").await;
    Scene { obs, store, _cluster: cluster, _world: world }
}

/// Sends a raw request and returns HTTP status and gRPC status.
async fn raw(address: SocketAddr, authority: &str, path: &str) -> Option<(u16, Option<String>)> {
    let uri = http::Uri::builder().scheme("http").authority(authority).path_and_query(path).build().ok()?;
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(uri)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from_static(&[0; 5])))
        .ok()?;
    let response = sender.send_request(request).await.ok()?;
    let status = response.status().as_u16();
    let in_head = response.headers().get("grpc-status").cloned();
    let trailers = response.into_body().collect().await.ok()?.trailers().cloned();
    let code = in_head.or_else(|| trailers?.get("grpc-status").cloned());
    Some((status, code.map(|code| code.to_str().unwrap().to_owned())))
}

/// The store announces rules and targets. A querier that expects what the policy refuses has a warning in each answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_announced_with_the_services_that_the_policy_allows() {
    for (policy, rules, targets) in
        [("", false, false), ("policy: {methods: [Info, Series, Rules]}\n", true, false)]
    {
        let scene = scene(policy).await;
        let info = healthy(&scene.obs, "scraper-0.eu-1").await.info.expect("Info");
        assert!(info.store.is_some() && info.rules.is_some() == rules, "{policy}: {info:?}");
        assert_eq!(info.targets.is_some(), targets, "{policy}: {info:?}");
    }
}

/// A store may explain at length what it does not like about a query.
#[tokio::test(flavor = "multi_thread")]
async fn long_errors_arrive_cut_and_end_no_other_request() {
    for transport in ["quic", "tcp"] {
        let scene = scene(&format!("transport: {transport}\n")).await;
        let mut client = client(&scene.obs, "scraper-0.eu-1");
        let mut other = client.series(messages(-1, Duration::ZERO)).await.unwrap().into_inner();
        assert!(other.message().await.unwrap().is_some());
        for length in [2_000, 20_000, 70_000, 300_000] {
            let request = LabelValuesRequest { limit: length, ..LabelValuesRequest::default() };
            let status = within("an error", client.label_values(request)).await.unwrap_err();
            let text = status.message();
            assert_eq!(status.code(), Code::FailedPrecondition, "{transport}, {length} bytes: {status}");
            assert!(text.starts_with("éé"), "{transport}, {length} bytes: {text}");
            match length {
                2_000 => assert_eq!(text.len(), 2_000),
                _ => assert!(text.ends_with(" bytes follow]") && text.len() > 2_000, "{text}"),
            }
        }
        let more = tokio::time::timeout(Duration::from_millis(100), other.message()).await;
        assert!(more.is_err(), "{transport}: the other stream has ended: {more:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_port_serves_an_ordinary_grpc_client() {
    let scene = scene("").await;
    let (name, address) = scene.obs.addresses.targets[0].clone();
    assert_eq!(name.as_str(), "scraper-0.eu-1");
    let plain = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let plain = plain.connect().await.unwrap();
    let mut info = InfoClient::new(plain.clone());
    let info = info.info(InfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.component_type, "sidecar");
    let mut store = StoreClient::new(plain);
    let mut request = Request::new(messages(3, Duration::ZERO));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    request.metadata_mut().insert("thanos-tenant", "team-a".parse().unwrap());
    request.metadata_mut().insert("traceparent", trace.parse().unwrap());
    request.set_timeout(Duration::from_secs(50));
    let stream = store.series(request).await.unwrap().into_inner();
    assert_eq!(count(stream).await.unwrap(), 3);
    let seen = scene.store.store.seen();
    for (name, expected) in [("thanos-tenant", "team-a"), ("traceparent", trace)] {
        assert_eq!(seen.get(name).unwrap(), expected, "{name}");
    }
    assert!(seen.get("grpc-timeout").is_some(), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_exact_methods_and_known_names_reach_a_store() {
    let scene = scene("").await;
    let (named, plain) = (scene.obs.addresses.grpc, scene.obs.addresses.targets[0].1);
    assert_eq!(raw(named, "scraper-0.eu-1", "/thanos.Store/LabelNames").await, Some((200, Some("0".into()))));
    assert_eq!(
        raw(named, "scraper-0.eu-1:10941", "/thanos.Store/LabelNames").await,
        Some((200, Some("0".into())))
    );
    let reached = scene.store.store.calls();

    let paths = [
        "/",
        "/thanos.Store",
        "/thanos.Store/",
        "//thanos.Store/LabelNames",
        "/thanos.Store//LabelNames",
        "/thanos.Store/LabelNames/",
        "/thanos.Store/LabelNames?x",
        "/thanos.Store/LabelNames;x",
        "/thanos.Store/./LabelNames",
        "/x/../thanos.Store/LabelNames",
        "/thanos.Store%2fLabelNames",
        "/thanos.Store/LabelName%73",
        "/thanos.store/LabelNames",
        "/thanos.Store/labelnames",
        "/thanos.WriteableStore/RemoteWrite",
        "/isthmus.mesh.v1.Control/Session",
        "/isthmus.pki.v1.Enrolment/Enrol",
        "/thanos.Rules/Rules",
    ];
    for path in paths {
        for address in [named, plain] {
            if let Some((_, code)) = raw(address, "scraper-0.eu-1", path).await {
                assert_ne!(code.as_deref(), Some("0"), "{path}");
            }
        }
    }
    for authority in [
        "scraper-1.eu-1",
        "scraper-0.us-1",
        "scraper-0.eu-1.evil",
        "127.0.0.1:10901",
        "localhost",
        "169.254.169.254",
        "127.1",
        "2130706433",
        "[::1]:80",
        "metadata.google.internal",
    ] {
        let (http, code) = raw(named, authority, "/thanos.Store/LabelNames").await.unwrap();
        assert_eq!(http, 200, "{authority}");
        assert!(code.as_deref().is_some_and(|code| code == "5" || code == "14"), "{authority}: {code:?}");
    }
    assert_eq!(scene.store.store.calls(), reached, "a request reached the store");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_decides_which_methods_may_be_called_and_how_many_at_once() {
    let scene = scene("policy: {methods: [Info, Series], max_concurrent_requests: 1}\n").await;
    let mut client = client(&scene.obs, "scraper-0.eu-1");
    let refused = client.label_names(proto::thanos::LabelNamesRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("policy of cluster eu-1"), "{}", refused.message());

    let first = client.series(messages(-1, Duration::ZERO)).await.unwrap().into_inner();
    let second = client.series(messages(1, Duration::ZERO)).await.unwrap_err();
    assert_eq!(second.code(), Code::ResourceExhausted);
    drop(first);
    within("another request is accepted", async {
        while client.series(messages(1, Duration::ZERO)).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_running_stream() {
    let scene = scene("").await;
    let (_, plain) = scene.obs.addresses.targets[0].clone();
    let stream = TcpStream::connect(plain).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    // Encoded by hand, because tonic's client would end the stream itself at the deadline.
    let mut message = vec![0, 0, 0, 0, 0];
    prost_encode(&messages(-1, Duration::ZERO), &mut message);
    let request = http::Request::post(format!("http://{plain}/thanos.Store/Series"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "300m")
        .body(Full::new(Bytes::from(message)))
        .unwrap();
    let began = Instant::now();
    let response = sender.send_request(request).await.unwrap();
    let body = within("the end of the stream", response.into_body().collect()).await.unwrap();
    let trailers = body.trailers().cloned().unwrap();
    assert_eq!(trailers["grpc-status"], "4", "{trailers:?}");
    assert!(!body.to_bytes().is_empty(), "the message before the deadline is lost");
    assert!(began.elapsed() >= Duration::from_millis(290), "{:?}", began.elapsed());
    within("the store sees the cancellation", scene.store.store.cancelled()).await;
}

fn prost_encode(message: &impl prost::Message, out: &mut Vec<u8>) {
    out[1..5].copy_from_slice(&(message.encoded_len() as u32).to_be_bytes());
    message.encode(out).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_stream_cancels_it_in_the_store() {
    let scene = scene("").await;
    let mut client = client(&scene.obs, "scraper-0.eu-1");
    let mut stream = client.series(messages(-1, Duration::ZERO)).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    // The stream is idle now, so only a reset can reach the store.
    drop(stream);
    within("the store sees the cancellation", scene.store.store.cancelled()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_stops_ends_its_running_streams_with_an_error() {
    let scene = scene("").await;
    let mut client = client(&scene.obs, "scraper-0.eu-1");
    let mut stream = client.series(messages(-1, Duration::ZERO)).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    let Scene { store, .. } = scene;
    drop(store);
    let status = within("the end of the stream", stream.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("scraper-0.eu-1"), "{}", status.message());
}

/// Thanos' querier with `--grpc-compression=snappy` reads plain ports.
#[tokio::test]
async fn compressed_messages_pass_between_client_and_store_unchanged() {
    let scene = scene("").await;
    let endpoint = |address: SocketAddr| Endpoint::from_shared(format!("http://{address}")).unwrap();
    let named = endpoint(scene.obs.addresses.grpc).origin("http://scraper-0.eu-1".parse().unwrap());
    let plain = endpoint(scene.obs.addresses.targets[0].1);
    for channel in [named.connect_lazy(), plain.connect_lazy()] {
        for encoding in MessageEncoding::ALL {
            let encodings = Arc::new(Mutex::new(Vec::new()));
            let seen = encodings.clone();
            let witness = channel.clone().map_response(move |answer: http::Response<tonic::body::Body>| {
                seen.lock().unwrap().push(answer.headers()["grpc-encoding"].clone());
                answer
            });
            let compressing = ClientCompressionLayer::new(Some(encoding), 1 << 20).layer(witness);
            let mut client = StoreClient::new(compressing);
            let stream = client.series(messages(100, Duration::ZERO)).await.unwrap().into_inner();
            assert_eq!(count(stream).await.unwrap(), 100, "{encoding}");
            assert_eq!(*encodings.lock().unwrap(), [encoding.name()]);
        }
    }
}
