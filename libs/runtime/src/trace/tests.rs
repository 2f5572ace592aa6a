//! Spans of a role, received by a collector.

use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::{get, post};
use bytes::Bytes;
use clap::Parser;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prometheus_client::metrics::counter::Counter;
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::net::TcpListener;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::Layer;

use crate::trace::sampler::Sampler;
use crate::trace::span::{SpanKind, Tracer};
use crate::trace::wire::{AnyValueKind, ExportTraceServiceRequest, KeyValue, WireSpan};
use crate::{CommonArgs, ContextLayer, RoleInfo, RunningRole, Startup};

const ROLE: RoleInfo =
    RoleInfo { name: "test", descriptors: &[tonic_health::pb::FILE_DESCRIPTOR_SET], ..RoleInfo::DEFAULT };
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

#[derive(Parser)]
struct TestFlags {
    #[command(flatten)]
    common: CommonArgs,
}

type Received = Arc<Mutex<Vec<(HeaderMap, ExportTraceServiceRequest)>>>;

/// A collector for both protocols.
async fn collector() -> (String, Received) {
    collector_with(None).await
}

/// A collector for both protocols, with a certificate for `localhost` of a CA in the folder if there is one.
async fn collector_with(folder: Option<&Path>) -> (String, Received) {
    let tls = folder.map(server_tls);
    let received = Received::default();
    let record = |received: Received, is_grpc: bool| {
        move |headers: HeaderMap, body: Bytes| async move {
            let message = if is_grpc { body.slice(5..) } else { body };
            received.lock().unwrap().push((headers, ExportTraceServiceRequest::decode(message).unwrap()));
            [("content-type", "application/grpc"), ("grpc-status", "0")]
        }
    };
    let routes = Router::new().route("/v1/traces", post(record(Arc::clone(&received), false))).route(
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        post(record(Arc::clone(&received), true)),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("localhost:{}", listener.local_addr().unwrap().port());
    let service = hyper_util::service::TowerToHyperService::new(routes);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let (service, tls) = (service.clone(), tls.clone());
            tokio::spawn(async move {
                match tls {
                    None => drop(server.serve_connection(TokioIo::new(stream), service).await),
                    Some(tls) => {
                        let Ok(stream) = tls.accept(stream).await else { return };
                        drop(server.serve_connection(TokioIo::new(stream), service).await);
                    }
                }
            });
        }
    });
    (address, received)
}

/// TLS with a new certificate for `localhost`, whose CA is written to `ca.pem`.
fn server_tls(folder: &Path) -> tls::ServerHandshake {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "a CA for tests");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    std::fs::write(folder.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let (issuer, key) = (Issuer::new(params, key), KeyPair::generate().unwrap());
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let (cert, private) = (folder.join("server.pem"), folder.join("server.key"));
    std::fs::write(&cert, params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    std::fs::write(&private, key.serialize_pem()).unwrap();
    let mut options = tls::ServerTlsOptions::new(cert, private, None, tls::TlsVersion::Tls13);
    options.alpn = vec![b"h2", b"http/1.1"];
    options.load().unwrap().value
}

/// Starts a role with this configuration, asks it once, and stops it, which sends what waits.
async fn ask_and_stop(tracing: &str) {
    let role = role(tracing).await;
    ask(&role, &[]).await;
    let shutdown = role.shutdown();
    let ended = tokio::spawn(role.wait());
    shutdown.trigger();
    ended.await.unwrap();
}

#[tokio::test]
async fn collectors_with_tls_are_reached_only_with_their_ca() {
    for protocol in ["http", "grpc"] {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        server_tls(other.path());
        let (collector, received) = collector_with(Some(folder.path())).await;
        let config = |ca: &Path| {
            format!(
                "type: OTLP\nconfig:\n  client_type: {protocol}\n  endpoint: {collector}\n  \
                 tls_config: {{ca_file: {}}}\n",
                ca.join("ca.pem").display()
            )
        };
        ask_and_stop(&config(other.path())).await;
        assert!(received.lock().unwrap().is_empty(), "{protocol}: the CA is another one");
        ask_and_stop(&config(folder.path())).await;
        let spans = |(_, request): &(HeaderMap, ExportTraceServiceRequest)| {
            request
                .resource_spans
                .iter()
                .flat_map(|r| &r.scope_spans)
                .map(|scope| scope.spans.len())
                .sum::<usize>()
        };
        assert_eq!(received.lock().unwrap().iter().map(spans).sum::<usize>(), 3, "{protocol}");
    }
}

/// A role whose handler asks the gRPC health service of the same role.
async fn role(tracing: &str) -> RunningRole {
    let flags =
        ["test", "--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0", "--tracing.config", tracing];
    let common = TestFlags::parse_from(flags).common;
    let mut startup = Startup::bind(ROLE, &common).await.unwrap();
    let address = Arc::new(Mutex::new(String::new()));
    let ask = {
        let address = Arc::clone(&address);
        move || async move {
            let endpoint = tonic::transport::Endpoint::from_shared(address.lock().unwrap().clone()).unwrap();
            let channel = ContextLayer.layer(endpoint.connect_lazy());
            let request = HealthCheckRequest { service: String::new() };
            HealthClient::new(channel).check(request).await.unwrap();
            "answer"
        }
    };
    startup.add_routes(Router::new().route("/ask/{name}", get(ask)));
    let role = startup.serve();
    *address.lock().unwrap() = format!("http://{}", role.grpc_address());
    role
}

async fn ask(role: &RunningRole, headers: &[(&str, &str)]) -> HeaderMap {
    let mut request = Request::get(format!("http://{}/ask/x?a=b", role.http_address()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let answer = client.request(request.body(Full::default()).unwrap()).await.unwrap();
    let (head, body) = answer.into_parts();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "answer");
    head.headers
}

fn attribute(span: &WireSpan, key: &str) -> Option<AnyValueKind> {
    span.attributes.iter().find(|a| a.key == key)?.value.clone()?.value
}

#[tokio::test]
async fn spans_of_a_request_and_its_calls_reach_the_collector() {
    for protocol in ["http", "grpc"] {
        let (collector, received) = collector().await;
        let role = role(&format!(
            "type: OTLP\nconfig:\n  client_type: {protocol}\n  endpoint: {collector}\n  insecure: true\n  \
             service_name: querier-1\n  resource_attributes: {{env: test}}\n  headers: {{x-key: secret}}\n"
        ))
        .await;
        let traceparent = format!("00-{TRACE}-b7ad6b7169203331-01");
        let head = ask(&role, &[("traceparent", &traceparent)]).await;
        assert_eq!(head["x-thanos-trace-id"], TRACE);
        let shutdown = role.shutdown();
        let ended = tokio::spawn(role.wait());
        // At its end a role sends what waits.
        shutdown.trigger();
        ended.await.unwrap();

        let received = std::mem::take(&mut *received.lock().unwrap());
        assert!(received.iter().all(|(headers, _)| headers["x-key"] == "secret"), "{protocol}");
        let resources: Vec<_> = received.iter().flat_map(|(_, request)| &request.resource_spans).collect();
        let of_resource: Vec<&str> =
            resources[0].resource.as_ref().unwrap().attributes.iter().map(|a| a.key.as_str()).collect();
        assert_eq!(of_resource, ["service.name", "env"]);
        let spans: Vec<&WireSpan> =
            resources.iter().flat_map(|r| &r.scope_spans).flat_map(|scope| &scope.spans).collect();
        let named = |name: &str, kind| {
            let mut found = spans.iter().filter(|span| span.name == name && span.kind == kind);
            *found.next().unwrap_or_else(|| panic!("{protocol}: no span {name}: {spans:?}"))
        };
        let outer = named("GET /ask/{name}", 2);
        let (client, server) =
            (named("/grpc.health.v1.Health/Check", 3), named("/grpc.health.v1.Health/Check", 2));
        assert!(
            spans.iter().all(|span| span.trace_id == u128::from_str_radix(TRACE, 16).unwrap().to_be_bytes())
        );
        assert_eq!(outer.parent_span_id, 0xb7ad6b7169203331u64.to_be_bytes());
        assert_eq!((&client.parent_span_id, &server.parent_span_id), (&outer.span_id, &client.span_id));
        assert!(outer.start_time_unix_nano <= client.start_time_unix_nano);
        assert!(client.start_time_unix_nano < client.end_time_unix_nano);
        assert_eq!(attribute(outer, "http.response.status_code"), Some(AnyValueKind::Number(200)));
        assert_eq!(attribute(outer, "url.query"), Some(AnyValueKind::Text("a=b".into())));
        assert_eq!(attribute(server, "rpc.grpc.status_code"), Some(AnyValueKind::Number(0)));
    }
}

#[test]
fn texts_of_spans_are_bounded_whatever_the_request_contains() {
    let (queue, mut spans) = tokio::sync::mpsc::channel(1);
    let tracer = Tracer::new(Sampler::new("", "").unwrap(), queue, Counter::default());
    let long = "ü".repeat(1 << 20);
    let mut span = tracer.start(long.as_str(), SpanKind::Server, None, true);
    span.note(|| KeyValue::text("url.query", &long));
    span.fail(|| long.clone());
    drop(span);
    let span = spans.try_recv().unwrap();
    let Some(AnyValueKind::Text(query)) = attribute(&span, "url.query") else { panic!("{span:?}") };
    assert!(query.len() > 1000 && query.ends_with('…'), "{} bytes", query.len());
    assert!(prost::Message::encoded_len(&span) < 4 << 10, "{} bytes", prost::Message::encoded_len(&span));
}

#[tokio::test]
async fn only_sampled_traces_are_recorded_and_named_in_the_answer() {
    let (collector, received) = collector().await;
    let role = role(&format!(
        "type: OTLP\nconfig: {{client_type: http, endpoint: \"{collector}\", insecure: true, sampler_type: neversample}}"
    ))
    .await;
    assert!(!ask(&role, &[]).await.contains_key("x-thanos-trace-id"));
    let forced = ask(&role, &[("X-Thanos-Force-Tracing", "1")]).await["x-thanos-trace-id"].clone();
    let shutdown = role.shutdown();
    let ended = tokio::spawn(role.wait());
    shutdown.trigger();
    ended.await.unwrap();
    let received = received.lock().unwrap();
    let spans = received.iter().flat_map(|(_, r)| &r.resource_spans).flat_map(|r| &r.scope_spans);
    let ids: Vec<String> = spans
        .flat_map(|scope| &scope.spans)
        .map(|span| format!("{:032x}", u128::from_be_bytes(span.trace_id.as_slice().try_into().unwrap())))
        .collect();
    assert!(!ids.is_empty() && ids.iter().all(|id| forced == id.as_str()), "{ids:?}");
}
