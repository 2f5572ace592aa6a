//! Tests of the client and of the printed forms against a real Prometheus that scrapes itself.
//!
//! If `prometheus` is not installed, the tests print a line and pass.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use model::{Labels, MatchOp, Matcher, Sample, TimeRange, Timestamp};
use promapi::{
    ChunkEncoding, ClientError, ClientOptions, PrometheusClient, ReadData, ReadQuery, ReadSeries,
    ResultWriter, SeriesSelection, format_float,
};
use prost::Message;
use proto::prometheus as wire;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CONFIG: &str = "
global:
  scrape_interval: 200ms
  external_labels: {cluster: eu-1, replica: '0'}
scrape_configs:
- job_name: self
  static_configs: [{targets: ['HOST']}]
  metrics_path: /prefix/metrics
";

/// A Prometheus process that is killed on drop.
struct Prometheus {
    process: Child,
    url: String,
    _dir: TempDir,
}

impl Prometheus {
    /// Starts Prometheus with route prefix `/prefix`, and waits until it is ready and has scraped itself a
    /// few times.
    async fn start() -> Option<Self> {
        // Two attempts: another process may take the port before Prometheus binds it.
        for _ in 0..2 {
            let dir = tempfile::tempdir().unwrap();
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let address = format!("127.0.0.1:{port}");
            let config = dir.path().join("prometheus.yml");
            std::fs::write(&config, CONFIG.replace("HOST", &address)).unwrap();
            let log = dir.path().join("log");
            let started = Command::new("prometheus")
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
                .arg(format!("--web.listen-address={address}"))
                .arg(format!("--web.external-url=http://{address}/prefix"))
                .stdout(Stdio::null())
                .stderr(File::create(&log).unwrap())
                .spawn();
            let process = match started {
                Ok(process) => process,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    println!("skipped: prometheus is not installed");
                    return None;
                }
                Err(error) => panic!("start prometheus: {error}"),
            };
            let mut prometheus = Self { process, url: format!("http://{address}/prefix/"), _dir: dir };
            let deadline = Instant::now() + Duration::from_secs(60);
            loop {
                if prometheus.has_scraped().await {
                    return Some(prometheus);
                }
                if prometheus.process.try_wait().unwrap().is_some() {
                    println!("prometheus exited: {}", std::fs::read_to_string(&log).unwrap());
                    break;
                }
                assert!(
                    Instant::now() < deadline,
                    "prometheus has no data: {}",
                    std::fs::read_to_string(&log).unwrap()
                );
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        panic!("prometheus did not start in two attempts");
    }

    fn client(&self) -> PrometheusClient {
        PrometheusClient::new(&self.url, ClientOptions::default()).unwrap()
    }

    async fn has_scraped(&self) -> bool {
        if self.client().ready().await.is_err() {
            return false;
        }
        let text = self.query("count_over_time(up[1m]) > 3", "").await;
        text.contains("\"metric\"")
    }

    /// The body of an instant query.
    async fn query(&self, expression: &str, more: &str) -> String {
        let escaped: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
        self.get(&format!("api/v1/query?query={escaped}{more}")).await
    }

    async fn get(&self, path: &str) -> String {
        let client = legacy::Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let request = Request::get(format!("{}{path}", self.url)).body(Full::default()).unwrap();
        let body = client.request(request).await.unwrap().into_body().collect().await.unwrap();
        String::from_utf8(body.to_bytes().to_vec()).unwrap()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // The process may have exited already; that is not an error.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Compares our output with that of Prometheus for the same values.
async fn check_printed_forms(prometheus: &Prometheus) {
    println!("printed forms of floats");
    for value in [
        0.0000005,
        0.000001,
        -0.0,
        1e20,
        1e21,
        123456.789,
        1.0 / 3.0,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        5e-324,
        1.7976931348623157e308,
    ] {
        let expression = format!("vector({value:e})").replace("inf", "Inf");
        let body = prometheus.query(&expression, "&time=1.5").await;
        let mut ours = Vec::new();
        let mut vector = ResultWriter::vector(&mut ours);
        vector.sample(&mut ours, &Labels::empty(), Timestamp::from_millis(1500), value);
        vector.end(&mut ours);
        let expected =
            format!("{{\"status\":\"success\",\"data\":{{{}}}}}", String::from_utf8(ours).unwrap());
        assert_eq!(body, expected, "{expression}");
    }
    println!("scalar and string results");
    for (expression, at) in [
        ("1", 1500),
        ("1", 2000),
        ("-0.5", 1435781451781),
        ("1e21", 0),
        ("-1.7976931348623157e308", 1),
        ("5e-324", 1500),
        ("0.0000005", 1500),
        ("-0", 1500),
        ("NaN", 1500),
        ("-Inf", 1500),
    ] {
        let body = prometheus.query(expression, &format!("&time={}", format_float(at as f64 / 1000.0))).await;
        let mut ours = Vec::new();
        ResultWriter::scalar(&mut ours, Timestamp::from_millis(at), expression.parse().unwrap());
        assert_eq!(
            body,
            format!("{{\"status\":\"success\",\"data\":{{{}}}}}", String::from_utf8(ours).unwrap())
        );
    }
    let body = prometheus.query("\"a<b>&\\u2028\\t\\\"\"", "&time=1.5").await;
    let mut ours = Vec::new();
    ResultWriter::string(&mut ours, Timestamp::from_millis(1500), "a<b>&\u{2028}\t\"");
    assert_eq!(body, format!("{{\"status\":\"success\",\"data\":{{{}}}}}", String::from_utf8(ours).unwrap()));
    println!("label sets with HTML characters");
    let expression = "label_replace(vector(1), \"l\", \"a<b>&\\n\", \"\", \"\")";
    let body = prometheus.query(expression, "&time=1.5").await;
    let mut ours = Vec::new();
    let mut vector = ResultWriter::vector(&mut ours);
    let labels = Labels::from_pairs([("l", "a<b>&\n")]).unwrap();
    vector.sample(&mut ours, &labels, Timestamp::from_millis(1500), 1.0);
    vector.end(&mut ours);
    // Prometheus 2.42 still writes label sets with the escapes of plain strings; later versions do not.
    let unescaped = body.replace("\\u003c", "<").replace("\\u003e", ">").replace("\\u0026", "&");
    assert_eq!(
        unescaped,
        format!("{{\"status\":\"success\",\"data\":{{{}}}}}", String::from_utf8(ours).unwrap())
    );
}

/// Compares our errors with those of Prometheus for the same parameters.
async fn check_parameter_errors(prometheus: &Prometheus) {
    println!("texts of parameter errors");
    for query in [
        "query=up&start=x&end=1&step=1",
        "query=up&start=1&end=&step=1",
        "query=up&start=2&end=1&step=1",
        "query=up&start=1&end=2&step=0",
        "query=up&start=1&end=2&step=1q",
        "query=up&start=1&end=2&step=1e10",
        "query=up&start=0&end=11001&step=1",
    ] {
        let theirs = prometheus.get(&format!("api/v1/query_range?{query}")).await;
        let params = promapi::Params::parse(Some(query), None).unwrap();
        let ours = promapi::ApiError::from(params.range_query(|_| None).unwrap_err());
        assert_eq!(String::from_utf8(ours.body()).unwrap(), theirs, "{query}");
    }
    println!("the greatest range is accepted");
    let body = prometheus.get("api/v1/query_range?query=up&start=0&end=11000&step=1").await;
    assert!(body.starts_with("{\"status\":\"success\""), "{body}");
}

async fn check_small_requests(prometheus: &Prometheus) {
    let client = prometheus.client();
    println!("configuration, flags, version, lowest timestamp");
    let external = Labels::from_pairs([("cluster", "eu-1"), ("replica", "0")]).unwrap();
    assert_eq!(client.external_labels().await.unwrap(), external);
    let flags = client.flags().await.unwrap().unwrap();
    assert_eq!(flags["web.enable-lifecycle"], "false");
    assert!(client.version().await.unwrap().unwrap().contains('.'));
    let lowest = client.lowest_timestamp().await.unwrap().unwrap();
    assert!(lowest > Timestamp::from_millis(1_600_000_000_000), "{lowest}");

    println!("series, label names and values");
    let up = [Matcher::equal("__name__", "up")];
    let selection = SeriesSelection { matchers: &up, range: TimeRange::ALL, limit: Some(10) };
    let series = client.series(selection).await.unwrap().data;
    assert_eq!(series.len(), 1);
    assert_eq!((series[0].metric_name(), series[0].value("job")), ("up", "self"));
    assert_eq!(client.label_names(selection).await.unwrap().data, ["__name__", "instance", "job"]);
    assert_eq!(client.label_values("job", selection).await.unwrap().data, ["self"]);
    let long_ago = TimeRange::new(Timestamp::EPOCH, Timestamp::from_millis(1500));
    let before = client.series(SeriesSelection { range: long_ago, ..selection }).await.unwrap().data;
    assert!(before.is_empty());
    let metadata = client.metadata(Some("prometheus_tsdb_head_series"), None).await.unwrap().data;
    assert_eq!(metadata["prometheus_tsdb_head_series"][0].kind, "gauge");

    println!("matchers that are too long for a URL");
    let long = ["up", "absent"].map(|name| format!("{name}|{}", "x".repeat(100_000)));
    for (regex, expected) in long.iter().zip([&["self"][..], &[]]) {
        let matchers = [Matcher::new(MatchOp::Regex, "__name__", regex).unwrap()];
        let selection = SeriesSelection { matchers: &matchers, ..selection };
        assert_eq!(client.series(selection).await.unwrap().data.len(), expected.len());
        assert_eq!(client.label_names(selection).await.unwrap().data.is_empty(), expected.is_empty());
        assert_eq!(client.label_values("job", selection).await.unwrap().data, expected);
    }

    println!("an answer that is an error");
    let all =
        SeriesSelection { matchers: &[Matcher::new(MatchOp::Regex, "job", ".*").unwrap()], ..selection };
    let error = client.series(all).await.unwrap_err();
    assert_eq!(error.status().map(|status| status.as_u16()), Some(400));
    assert!(error.to_string().contains("at least one non-empty matcher"), "{error}");
}

async fn read_all(
    client: &PrometheusClient,
    query: &ReadQuery,
) -> Result<Vec<ReadSeries>, Box<dyn std::error::Error>> {
    let mut stream = client.read(query).await?;
    let mut all = Vec::new();
    while let Some(series) = stream.next().await? {
        all.push(series);
    }
    Ok(all)
}

async fn check_remote_read(prometheus: &Prometheus) {
    println!("remote read of everything");
    let client = prometheus.client();
    let everything = ReadQuery {
        matchers: vec![Matcher::new(MatchOp::NotEqual, "__name__", "").unwrap()],
        range: TimeRange::ALL,
    };
    let all = read_all(&client, &everything).await.unwrap();
    assert!(all.len() > 300, "{} series", all.len());
    let own = |series: &ReadSeries| series.labels.without(|name| matches!(name, "cluster" | "replica"));
    assert!(all.is_sorted_by(|a, b| own(a) < own(b)), "each series once, in the order of its own labels");
    for series in &all {
        assert_eq!((series.labels.value("cluster"), series.labels.value("replica")), ("eu-1", "0"));
        let ReadData::Chunks(chunks) = &series.data else { panic!("{} has samples", series.labels) };
        for chunk in chunks {
            assert!(
                chunk.encoding == ChunkEncoding::Xor && !chunk.data.is_empty() && !chunk.range.is_empty()
            );
        }
    }
    println!("remote read of nothing");
    let nothing = ReadQuery { matchers: vec![Matcher::equal("__name__", "absent")], range: TimeRange::ALL };
    assert!(read_all(&client, &nothing).await.unwrap().is_empty());
    println!("remote read that is refused");
    let bad = ReadQuery { matchers: vec![Matcher::equal("", "x")], range: TimeRange::ALL };
    // Prometheus may accept the unusual name. If it rejects it, the error must not be one of a damaged
    // answer.
    if let Err(error) = read_all(&client, &bad).await {
        assert!(error.to_string().contains("/api/v1/read"), "{error}");
    }
}

#[tokio::test]
async fn client_and_printed_forms_agree_with_a_real_prometheus() {
    let Some(prometheus) = Prometheus::start().await else { return };
    check_printed_forms(&prometheus).await;
    check_parameter_errors(&prometheus).await;
    check_small_requests(&prometheus).await;
    check_remote_read(&prometheus).await;
}

#[tokio::test]
async fn connection_error_names_the_url() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let client =
        PrometheusClient::new(&format!("http://127.0.0.1:{port}"), ClientOptions::default()).unwrap();
    let error = client.ready().await.unwrap_err().to_string();
    assert!(
        error.contains(&format!("http://127.0.0.1:{port}/-/ready")) && error.contains("refused"),
        "{error}"
    );
}

#[tokio::test]
async fn request_without_answer_times_out() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limit = Duration::from_millis(100);
    let options = ClientOptions { timeout: limit, stream_timeout: limit, ..ClientOptions::default() };
    let client =
        PrometheusClient::new(&format!("http://{}", listener.local_addr().unwrap()), options).unwrap();
    assert!(matches!(client.version().await, Err(ClientError::Timeout { .. })));
    let query = ReadQuery { matchers: vec![Matcher::equal("a", "b")], range: TimeRange::ALL };
    assert!(matches!(client.read(&query).await, Err(ClientError::Timeout { .. })));
}

/// Answers one request with status 200, this content type and this body, and closes the connection.
async fn serve_once(content_type: &str, body: Vec<u8>) -> PrometheusClient {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\nconnection: close\r\n\r\n");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // The request arrives in one piece; its content does not matter.
        let mut request = [0; 4096];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        stream.shutdown().await.unwrap();
        // Waits until the client has closed the connection too, so that a reset does not discard the answer.
        while stream.read(&mut request).await.is_ok_and(|read| read > 0) {}
    });
    PrometheusClient::new(&url, ClientOptions::default()).unwrap()
}

const STREAMED: &str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";

fn any() -> ReadQuery {
    ReadQuery { matchers: vec![Matcher::equal("a", "b")], range: TimeRange::ALL }
}

/// A frame with one series of one chunk.
fn frame(job: &str) -> Vec<u8> {
    let labels = vec![wire::Label { name: "job".to_owned(), value: job.to_owned() }];
    let chunk = wire::Chunk { min_time_ms: 1, max_time_ms: 2, r#type: 1, data: Bytes::from_static(b"chunk") };
    let chunked_series = vec![wire::ChunkedSeries { labels, chunks: vec![chunk] }];
    let data = wire::ChunkedReadResponse { chunked_series, query_index: 0 }.encode_to_vec();
    let mut out = Vec::new();
    prost::encoding::encode_varint(data.len() as u64, &mut out);
    out.extend_from_slice(&crc32c::crc32c(&data).to_be_bytes());
    out.extend_from_slice(&data);
    out
}

#[tokio::test]
async fn incomplete_stream_is_an_error() {
    let whole = [frame("a"), frame("b"), frame("b"), frame("c")].concat();
    let client = serve_once(STREAMED, whole.clone()).await;
    let all = read_all(&client, &any()).await.unwrap();
    let jobs: Vec<&str> = all.iter().map(|series| series.labels.value("job")).collect();
    assert_eq!(jobs, ["a", "b", "c"]);

    println!("cut short");
    let client = serve_once(STREAMED, whole[..whole.len() - 1].to_vec()).await;
    let error = read_all(&client, &any()).await.unwrap_err().to_string();
    assert!(error.contains("ends in the middle of a frame"), "{error}");

    println!("an error of the server after the frames");
    let broken = [whole, b"expanding series: context canceled\n".to_vec()].concat();
    let client = serve_once(STREAMED, broken).await;
    let error = read_all(&client, &any()).await.unwrap_err().to_string();
    assert!(error.contains("expanding series: context canceled"), "{error}");

    println!("not remote read at all");
    let client = serve_once("text/html", b"<html>".to_vec()).await;
    let error = read_all(&client, &any()).await.unwrap_err().to_string();
    assert!(error.contains("content type \"text/html\""), "{error}");
}

#[tokio::test]
async fn samples_of_an_old_server_are_decoded() {
    let labels = vec![wire::Label { name: "job".to_owned(), value: "a".to_owned() }];
    let samples = vec![wire::Sample { value: 1.5, timestamp: 7 }];
    let timeseries = vec![wire::TimeSeries { labels, samples, ..Default::default() }];
    let message = wire::ReadResponse { results: vec![wire::QueryResult { timeseries }] }.encode_to_vec();
    let body = snap::raw::Encoder::new().compress_vec(&message).unwrap();
    let client = serve_once("application/x-protobuf", body).await;
    let all = read_all(&client, &any()).await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].data, ReadData::Samples(vec![Sample::new(7, 1.5)]));
}

#[test]
fn unsupported_urls_are_rejected() {
    let refused = |url: &str| PrometheusClient::new(url, ClientOptions::default()).unwrap_err().to_string();
    assert!(PrometheusClient::new("https://prometheus:9090", ClientOptions::default()).is_ok());
    assert!(refused("localhost:9090").contains("is not of the form"));
    assert!(refused("http://user:secret@localhost:9090").contains("are not supported; remove them"));
    assert!(refused("/metrics").contains("is not of the form"));
}
