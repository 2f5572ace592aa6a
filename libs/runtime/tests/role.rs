//! Whole roles, tested from outside.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use clap::Parser;
use compression::{ClientCompressionLayer, MessageEncoding};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioIo};
use runtime::{
    CommonArgs, ConfigMistakes, HttpMetrics, Probes, Reload, RoleError, RoleInfo, RunningRole, Shutdown,
    Startup,
};
use tonic::transport::Endpoint;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{FILE_DESCRIPTOR_SET, HealthCheckRequest};
use tower::Layer;

/// A role on ports that the system chose.
struct TestRole {
    http: String,
    grpc: String,
    probes: Probes,
    reload: Reload,
    shutdown: Shutdown,
    running: tokio::task::JoinHandle<ExitCode>,
}

const ROLE: RoleInfo = RoleInfo {
    name: "test",
    descriptors: &[FILE_DESCRIPTOR_SET],
    services: &["grpc.health.v1.Health"],
    ..RoleInfo::DEFAULT
};

#[derive(Parser)]
struct TestFlags {
    #[command(flatten)]
    common: CommonArgs,
}

/// The flags of every role, with ports that the system chooses.
fn common(grace: Duration) -> CommonArgs {
    let args = ["test", "--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0"];
    let common = TestFlags::parse_from(args).common;
    CommonArgs { http_grace_period: grace, grpc_grace_period: grace, ..common }
}

async fn start(grace: Duration) -> TestRole {
    start_with(common(grace)).await
}

async fn start_with(common: CommonArgs) -> TestRole {
    let mut startup = Startup::bind(ROLE, &common).await.unwrap();
    let metrics = HttpMetrics::new(startup.registry());
    let words = get(|| async { "word ".repeat(1000) }).layer(metrics.layer("words"));
    startup.add_routes(Router::new().route("/words", words));
    let role = startup.serve();
    TestRole {
        http: format!("http://{}", role.http_address()),
        grpc: format!("http://{}", role.grpc_address()),
        probes: role.probes(),
        reload: role.reload(),
        shutdown: role.shutdown(),
        running: tokio::spawn(role.wait()),
    }
}

impl TestRole {
    async fn ask(
        &self,
        method: Method,
        path: &str,
        header: Option<(&str, &str)>,
    ) -> (StatusCode, HeaderMap, Bytes) {
        let client = legacy::Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.http));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let answer = client.request(request.body(Full::default()).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        (head.status, head.headers, body.collect().await.unwrap().to_bytes())
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let (status, _, body) = self.ask(Method::GET, path, None).await;
        (status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
    }

    async fn health(&self) -> HealthClient<tonic::transport::Channel> {
        HealthClient::new(Endpoint::from_shared(self.grpc.clone()).unwrap().connect().await.unwrap())
    }
}

#[tokio::test]
async fn probes_show_over_http_and_grpc() {
    let role = start(Duration::from_secs(60)).await;
    let mut watch = role.health().await.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert_eq!(role.get("/-/ready").await, (503, "not ready: starting\n".to_owned()));
    assert_eq!(role.get("/-/healthy").await, (200, "OK\n".to_owned()));

    role.probes.ready();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    assert_eq!(role.get("/-/ready").await, (200, "OK\n".to_owned()));

    role.probes.not_ready("Prometheus does not answer");
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert_eq!(role.get("/-/ready").await, (503, "not ready: Prometheus does not answer\n".to_owned()));
}

#[tokio::test]
async fn metrics_come_in_the_format_that_the_client_accepts() {
    let role = start(Duration::from_secs(60)).await;
    role.get("/words").await;
    let (_, headers, body) = role.ask(Method::GET, "/metrics", None).await;
    assert_eq!(headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert!(text.contains("# TYPE http_requests_total counter\n"), "{text}");
    assert!(
        text.contains("http_requests_total{code=\"200\",handler=\"words\",method=\"get\"} 1\n"),
        "{text}"
    );

    let accept = Some(("accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"));
    let (_, headers, body) = role.ask(Method::GET, "/metrics", accept).await;
    assert_eq!(headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(body.ends_with(b"# EOF\n"));

    let (_, headers, body) = role.ask(Method::GET, "/words", Some(("accept-encoding", "gzip"))).await;
    assert_eq!(headers["content-encoding"], "gzip");
    assert!(body.len() < 500, "{} bytes", body.len());
}

#[tokio::test]
async fn a_failed_reload_is_answered_with_its_cause() {
    let role = start(Duration::from_secs(60)).await;
    assert_eq!(role.ask(Method::POST, "/-/reload", None).await.0, 200);
    assert_eq!(role.ask(Method::GET, "/-/reload", None).await.0, 405);
    role.reload.register("stores.yaml", || async { Err("no such file".into()) });
    let (status, _, body) = role.ask(Method::PUT, "/-/reload", None).await;
    assert_eq!((status.as_u16(), &*body), (500, &b"reload failed: stores.yaml: no such file\n"[..]));
}

#[tokio::test]
async fn reflection_answers_in_both_versions() {
    use tonic_reflection::pb::{v1, v1alpha};
    let role = start(Duration::from_secs(60)).await;
    let channel = Endpoint::from_shared(role.grpc.clone()).unwrap().connect().await.unwrap();

    let request = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let answers = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    assert!(format!("{answer:?}").contains("grpc.health.v1.Health"), "{answer:?}");

    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::ListServices(String::new()),
        ),
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let answers = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    assert!(format!("{answer:?}").contains("grpc.health.v1.Health"), "{answer:?}");
}

#[tokio::test]
async fn open_calls_continue_while_the_role_stops() {
    let role = start(Duration::from_secs(60)).await;
    role.probes.ready();
    let mut health = role.health().await;
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    while watch.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}
    role.shutdown.trigger();
    // The open stream still reports that the role is no longer ready.
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    let deadline = Instant::now() + Duration::from_secs(20);
    while Endpoint::from_shared(role.grpc.clone()).unwrap().connect().await.is_ok() {
        assert!(Instant::now() < deadline, "new connections are still accepted");
    }
    assert!(!role.running.is_finished());
    // The role ends after its last call.
    drop((watch, health));
    assert_eq!(role.running.await.unwrap(), ExitCode::SUCCESS);
}

#[tokio::test]
async fn calls_that_outlast_the_grace_period_are_cut() {
    let role = start(Duration::from_millis(100)).await;
    let mut watch = role.health().await.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap();
    role.shutdown.trigger();
    assert_eq!(role.running.await.unwrap(), ExitCode::SUCCESS);
    while let Ok(Some(_)) = watch.message().await {}
}

#[tokio::test]
async fn a_stream_is_cut_at_the_deadline_of_its_caller() {
    let role = start(Duration::from_secs(60)).await;
    let mut request = tonic::Request::new(HealthCheckRequest::default());
    request.set_timeout(Duration::from_millis(300));
    let mut watch = role.health().await.watch(request).await.unwrap().into_inner();
    watch.message().await.unwrap();
    let status = watch.message().await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::DeadlineExceeded, "{status}");
    let (_, text) = role.get("/metrics").await;
    let counted = "grpc_server_handled_total{grpc_code=\"DeadlineExceeded\",grpc_method=\"Watch\",grpc_service=\"grpc.health.v1.Health\",grpc_type=\"server_stream\"} 1\n";
    assert!(text.contains(counted), "{text}");
}

/// Asks for the health of `service` with compressed requests; also returns the encoding of the answer.
async fn compressed_check(
    role: &TestRole,
    encoding: MessageEncoding,
    service: String,
) -> (Result<i32, tonic::Status>, String) {
    let channel = Endpoint::from_shared(role.grpc.clone()).unwrap().connect().await.unwrap();
    let answered = std::sync::Arc::<std::sync::Mutex<String>>::default();
    let noted = answered.clone();
    let seen = tower::ServiceExt::map_response(channel, move |answer: http::Response<tonic::body::Body>| {
        let name = answer.headers().get("grpc-encoding").map(|name| name.to_str().unwrap().to_owned());
        *noted.lock().unwrap() = name.unwrap_or_default();
        answer
    });
    let compressing = ClientCompressionLayer::new(Some(encoding), 1 << 20).layer(seen);
    let answer = HealthClient::new(compressing).check(HealthCheckRequest { service }).await;
    let answer = answer.map(|answer| answer.into_inner().status);
    let answered = answered.lock().unwrap().clone();
    (answer, answered)
}

#[tokio::test]
async fn requests_may_be_compressed_and_are_answered_likewise() {
    let role = start(Duration::from_secs(60)).await;
    for encoding in MessageEncoding::ALL {
        let (answer, answered) = compressed_check(&role, encoding, String::new()).await;
        assert_eq!(answer.unwrap(), ServingStatus::NotServing as i32);
        assert_eq!(answered, encoding.name());
        let unknown = "word ".repeat(1000);
        let (answer, _) = compressed_check(&role, encoding, unknown).await;
        assert_eq!(answer.unwrap_err().code(), tonic::Code::NotFound);
    }
}

#[tokio::test]
async fn request_above_the_limit_is_refused_as_resource_exhausted() {
    let role = start(Duration::from_secs(60)).await;
    let large = "a".repeat(5 << 20);
    let mut plain = role.health().await;
    let plain = plain.check(HealthCheckRequest { service: large.clone() }).await;
    let (compressed, _) = compressed_check(&role, MessageEncoding::Snappy, large).await;
    for status in [plain.unwrap_err(), compressed.unwrap_err()] {
        assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
        assert!(status.message().contains("the limit is 4194304 bytes"), "{status}");
    }
}

#[tokio::test]
async fn a_connection_is_closed_at_its_maximum_age() {
    let age = Duration::from_millis(100);
    let role = start_with(CommonArgs { grpc_server_max_connection_age: age, ..common(age) }).await;
    let address = role.grpc.strip_prefix("http://").unwrap();
    let stream = TokioIo::new(tokio::net::TcpStream::connect(address).await.unwrap());
    let (_sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), stream)
            .await
            .unwrap();
    tokio::time::timeout(Duration::from_secs(20), connection)
        .await
        .expect("the server closes the connection")
        .unwrap();
}

/// When a server answers before it has read the whole request, the rest of the request arrives late. h2 counts such frames
/// over the whole life of a connection, and by default closes the connection after 1024 of them, with all its calls.
#[tokio::test]
async fn a_connection_survives_any_number_of_calls_that_are_answered_early() {
    let role = start(Duration::from_secs(60)).await;
    let address = role.grpc.strip_prefix("http://").unwrap();
    let stream = TokioIo::new(tokio::net::TcpStream::connect(address).await.unwrap());
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    for round in 0..60 {
        let calls = (0..100).map(|_| {
            let mut sender = sender.clone();
            let body = Full::new(Bytes::from_static(&[0; 60_000]));
            let request = Request::post(format!("{}/no.such.Service/Method", role.grpc)).body(body).unwrap();
            async move { sender.send_request(request).await }
        });
        for answer in futures::future::join_all(calls).await {
            let answer = answer.unwrap_or_else(|error| panic!("round {round}: {error:?}"));
            assert_eq!(answer.headers()["grpc-status"], "12");
        }
    }
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let common = CommonArgs { http_address: address.to_string().parse().unwrap(), ..common(Duration::ZERO) };
    let error = Startup::bind(ROLE, &common).await.unwrap_err();
    let error_text = error.to_string();
    assert!(error_text.starts_with(&format!("--http-address={address}: ")), "{error}");
    assert!(error_text.ends_with("give this one another port with --http-address=HOST:PORT"), "{error}");
    assert_eq!(error.exit_code(), 1);
}

/// In the environment of a child process: run as a role until a signal stops it.
const CHILD: &str = "RUNTIME_TEST_BE_A_ROLE";

/// In the environment of a child process: the start-up never completes.
const STUCK: &str = "RUNTIME_TEST_NEVER_START";

/// Not a test of its own: the process that the tests of signals and exit codes start.
#[test]
fn child_role() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let mistakes = match std::env::var("RUNTIME_TEST_MISTAKES") {
        Ok(mistakes) => mistakes.lines().map(str::to_owned).collect(),
        Err(_) => ConfigMistakes::default(),
    };
    let code = runtime::start(ROLE, &common(Duration::from_secs(60)), mistakes.or_ok(()), child);
    // `ExitCode` does not give its number.
    let number = (0..=u8::MAX).find(|number| ExitCode::from(*number) == code);
    std::process::exit(number.map_or(255, i32::from));
}

async fn child((): (), mut startup: Startup) -> Result<RunningRole, RoleError> {
    if std::env::var_os(STUCK).is_some() {
        println!("waiting for the bucket");
        std::future::pending::<()>().await;
    }
    startup.reload().register("config", || async {
        println!("reloaded");
        Ok(())
    });
    let (gate, shutdown) = (startup.gate(), startup.shutdown());
    startup.spawn("worker", async move {
        let upload = gate.enter();
        println!("running");
        shutdown.triggered().await;
        println!("stopping");
        // The upload ends with the next line of input, which may never come.
        let waiting = tokio::task::spawn_blocking(|| std::io::stdin().lines().next());
        let line = waiting.await.map_err(RoleError::failed)?;
        drop(upload);
        match line.transpose()?.as_deref() {
            Some("refuse") => Err(RoleError::wrong_configuration("the bucket refuses the credential")),
            _ => Ok(()),
        }
    });
    Ok(startup.serve())
}

struct ChildRole {
    process: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl ChildRole {
    fn start() -> Self {
        Self::start_until("running", &[])
    }

    /// Starts a role with more variables in its environment, and waits for a line of its output.
    fn start_until(line: &str, variables: &[(&str, &str)]) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["child_role", "--exact", "--nocapture"])
            .env(CHILD, "1")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut role = Self { process, lines };
        role.expect(line);
        role
    }

    fn expect(&mut self, expected: &str) {
        let found = self.lines.any(|line| line.unwrap().ends_with(expected));
        assert!(found, "the role ended before it printed {expected:?}");
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.process.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }
}

#[test]
fn sighup_reloads_and_sigterm_stops_the_role_in_order() {
    let mut role = ChildRole::start();
    role.signal("HUP");
    role.expect("reloaded");
    role.signal("TERM");
    role.expect("stopping");
    drop(role.process.stdin.take());
    assert_eq!(role.process.wait().unwrap().code(), Some(0));
}

#[test]
fn a_signal_before_the_start_up_is_complete_ends_the_process_at_once() {
    let mut role = ChildRole::start_until("waiting for the bucket", &[(STUCK, "1")]);
    role.signal("TERM");
    assert_eq!(role.process.wait().unwrap().code(), Some(0));
}

#[test]
fn a_task_that_fails_decides_the_exit_code() {
    let mut role = ChildRole::start();
    role.signal("TERM");
    role.expect("stopping");
    role.process.stdin.take().unwrap().write_all(b"refuse\n").unwrap();
    assert_eq!(role.process.wait().unwrap().code(), Some(2));
}

#[test]
fn all_mistakes_are_printed_one_line_each_and_the_exit_code_is_2() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["child_role", "--exact", "--nocapture"])
        .env(CHILD, "1")
        .env("RUNTIME_TEST_MISTAKES", "--a: is too small\n--b: is too large")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text, "error: --a: is too small\nerror: --b: is too large\n");
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let mut role = ChildRole::start();
    role.signal("INT");
    role.expect("stopping");
    // `wait` would close the input of the process, which ends its upload and then the role.
    let input = role.process.stdin.take();
    role.signal("INT");
    assert_eq!(role.process.wait().unwrap().code(), Some(130));
    drop(input);
}
