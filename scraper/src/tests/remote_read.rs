//! Remote read of the role, beside and by a real Prometheus.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use head::{Database, DatabaseOptions};
use model::{BucketSpan, FloatHistogram, Labels, MatchOp, Matcher, TimeRange, Timestamp};
use promapi::{ChunkEncoding, ClientOptions, PrometheusClient, ReadData, ReadQuery};
use series::{ChunkSampleValue, decode_chunk};
use shipper::testing::{Prometheus, free_port, installed, labels};
use tsdb::{Chunk, Encoding};

use super::role::*;

const MINUTE: i64 = 60_000;
/// On the boundary of a block.
const BEGIN: i64 = 1_699_992_000_000;
const END: i64 = BEGIN + 5 * 60 * MINUTE;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn histogram(n: i64) -> Arc<FloatHistogram> {
    let spans = vec![BucketSpan { offset: 0, length: 2 }];
    let buckets = vec![n as f64, 1.0];
    Arc::new(FloatHistogram {
        schema: 1,
        count: n as f64 + 1.0,
        sum: n as f64 * 1.5,
        positive_spans: spans,
        positive_buckets: buckets,
        ..FloatHistogram::default()
    })
}

/// Five hours of floats, histograms, a series with a label of its own that is external, and late samples; partly in blocks.
fn fill(dir: &Path) {
    let options = DatabaseOptions {
        out_of_order_window: std::time::Duration::from_secs(3_600),
        ..DatabaseOptions::default()
    };
    let (database, _) = Database::open(dir, options).unwrap();
    let head = database.head();
    let series = |pairs: &[(&str, &str)]| head.series(&labels(pairs));
    let own = series(&[("__name__", "m"), ("cluster", "own"), ("n", "5")]);
    let names: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    let floats: Vec<_> = names.iter().map(|n| series(&[("__name__", "m"), ("n", n)])).collect();
    let integers = series(&[("__name__", "h"), ("kind", "integer")]);
    let fractions = series(&[("__name__", "h"), ("kind", "float")]);
    let late = series(&[("__name__", "late")]);
    for minute in 0..300 {
        let time = BEGIN + minute * MINUTE;
        let mut appender = head.appender();
        for (n, series) in floats.iter().chain([&own]).enumerate() {
            appender
                .append_float(series, at(time + n as i64), at(0), minute as f64 / (n + 1) as f64)
                .unwrap();
        }
        appender.append_histogram(&integers, at(time), at(0), true, histogram(minute)).unwrap();
        appender.append_histogram(&fractions, at(time), at(0), false, histogram(minute)).unwrap();
        appender.append_float(&late, at(time), at(0), 1.0).unwrap();
        if minute % 7 == 6 {
            appender.append_float(&late, at(time - 5 * MINUTE - 1), at(0), 2.0).unwrap();
        }
        appender.commit().unwrap();
        database.maintain(at(time)).unwrap();
    }
    assert!(!database.blocks(TimeRange::ALL).is_empty());
}

/// Labels, and samples by time, in the order of the answer.
type Answer = Vec<(Labels, Vec<(i64, String)>)>;

async fn ask_for(address: SocketAddr, query: &ReadQuery) -> Answer {
    let client = PrometheusClient::new(&format!("http://{address}"), ClientOptions::default()).unwrap();
    let mut stream = client.read(query).await.unwrap();
    let mut answer = Answer::new();
    while let Some(series) = stream.next().await.unwrap() {
        let ReadData::Chunks(chunks) = series.data else { panic!("samples: {series:?}") };
        let mut samples = Vec::new();
        for chunk in chunks {
            let encoding = match chunk.encoding {
                ChunkEncoding::Xor => Encoding::Xor,
                ChunkEncoding::Histogram => Encoding::Histogram,
                ChunkEncoding::FloatHistogram => Encoding::FloatHistogram,
                other => panic!("{other:?}"),
            };
            decode_chunk(&Chunk { range: chunk.range, encoding, data: chunk.data }, &mut samples).unwrap();
        }
        samples.retain(|sample| query.range.contains(sample.at));
        let shown = samples.iter().map(|sample| {
            let value = match &sample.value {
                ChunkSampleValue::Float(value) => format!("{:?} {value}", sample.encoding),
                ChunkSampleValue::Histogram(h) => {
                    format!("{:?} {} {} {:?}", sample.encoding, h.count, h.sum, h.positive_buckets)
                }
            };
            (sample.at.as_millis(), value)
        });
        answer.push((series.labels, shown.collect()));
    }
    answer
}

/// The value of an instant query.
async fn query(address: SocketAddr, query: &str, at: i64) -> Result<Value, String> {
    let (status, body) = get(address, &format!("/api/v1/query?query={query}&time={}", at / 1_000)).await;
    if status != 200 {
        return Err(body);
    }
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["warnings"], Value::Null, "{query}");
    Ok(answer["data"]["result"].clone())
}

const CONFIG: &str = "global: {external_labels: {cluster: eu-1, replica: a}}\n\
     storage: {tsdb: {out_of_order_time_window: 1h}}\n";

#[tokio::test(flavor = "multi_thread")]
async fn remote_read_answers_as_a_prometheus_does() {
    if !installed() {
        return;
    }
    let (dir, copy) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    fill(&dir.path().join("data"));
    let copied = Command::new("cp").arg("-a").arg(dir.path().join("data")).arg(copy.path()).status();
    assert!(copied.unwrap().success());
    write(dir.path(), CONFIG);
    write(copy.path(), CONFIG);
    let role = start(dir.path(), &["--storage.tsdb.retention.time=100y"]).await;
    let address = free_port();
    let mut prometheus = Prometheus::run(Path::new("prometheus"), copy.path(), address, &[]);
    until("Prometheus", async || {
        TcpStream::connect(address).await.is_ok() && get(address, "/-/ready").await.0 == 200
    })
    .await;
    let matcher = |op, name: &str, value: &str| Matcher::new(op, name, value).unwrap();
    let equal = |name: &str, value: &str| matcher(MatchOp::Equal, name, value);
    let range = |from: i64, to: i64| TimeRange::new(at(from), at(to));
    for (matchers, range, series) in [
        (vec![equal("__name__", "m")], TimeRange::new(at(0), at(END)), 11),
        (vec![matcher(MatchOp::Regex, "__name__", "m|h|late")], range(BEGIN + 7, BEGIN + 170 * MINUTE), 14),
        (vec![equal("__name__", "m"), equal("cluster", "eu-1")], range(BEGIN, END), 10),
        (vec![equal("__name__", "m"), equal("cluster", "own")], range(BEGIN, END), 1),
        (vec![equal("__name__", "m"), matcher(MatchOp::NotEqual, "cluster", "eu-1")], range(BEGIN, END), 11),
        (vec![matcher(MatchOp::Regex, "replica", "a|")], range(END - 3 * MINUTE, END), 14),
        (vec![equal("replica", "b")], range(BEGIN, END), 0),
        (vec![equal("__name__", "late")], range(BEGIN + 100 * MINUTE, END), 1),
        (vec![equal("__name__", "m")], range(0, 5), 0),
    ] {
        let query = ReadQuery { matchers, range };
        let (ours, theirs) = (ask_for(role.http_address(), &query).await, ask_for(address, &query).await);
        assert_eq!(ours.len(), series, "{query:?}");
        for ((own, samples), (their, expected)) in ours.iter().zip(&theirs) {
            assert_eq!(own, their, "{query:?}");
            let differs = samples.iter().zip(expected).find(|(a, b)| a != b);
            assert_eq!((differs, samples.len()), (None, expected.len()), "{query:?}: {own}");
        }
    }
    prometheus.kill();

    println!("a Prometheus without samples reads them");
    let reader = TempDir::new().unwrap();
    let url = format!("http://{}/api/v1/read", role.http_address());
    // It removes its external labels from what it reads, and ours are the same.
    let file = format!("{CONFIG}remote_read: [{{url: '{url}', read_recent: true}}]\n");
    write(reader.path(), &file);
    let address = free_port();
    let mut prometheus = Prometheus::run(Path::new("prometheus"), reader.path(), address, &[]);
    until("Prometheus", async || {
        TcpStream::connect(address).await.is_ok() && get(address, "/-/ready").await.0 == 200
    })
    .await;
    // Native histograms are read by Prometheus 2.43 and later. Versions also differ in what a range has at its begin: none begins at the time of a sample.
    for (theirs, ours) in [
        ("sort(m)", "sort(m{cluster=%22%22})"),
        ("sum(rate(m%5B9m55s%5D))", "sum(rate(m{cluster=%22%22}%5B9m55s%5D))"),
        ("late%5B59m50s%5D", "late%5B59m50s%5D"),
    ] {
        let time = END - 90 * MINUTE;
        let found = query(address, theirs, time).await.unwrap();
        assert!(!found.as_array().unwrap().is_empty(), "{theirs}");
        assert_eq!(found, query(role.http_address(), ours, time).await.unwrap(), "{theirs}");
    }
    prometheus.kill();
    stop(role).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_too_large_and_wrong_requests_are_refused() {
    let dir = TempDir::new().unwrap();
    fill(&dir.path().join("data"));
    write(dir.path(), CONFIG);
    let flags = ["--storage.tsdb.retention.time=100y", "--storage.remote.read-sample-limit=1000"];
    let role = start(dir.path(), &flags).await;
    let request = |accepted: Vec<i32>, name: &str| {
        let matchers = vec![proto::prometheus::LabelMatcher {
            r#type: 0,
            name: "__name__".to_owned(),
            value: name.to_owned(),
        }];
        let query = proto::prometheus::Query {
            start_timestamp_ms: BEGIN,
            end_timestamp_ms: END,
            matchers,
            hints: None,
        };
        let request =
            proto::prometheus::ReadRequest { queries: vec![query], accepted_response_types: accepted };
        snap::raw::Encoder::new().compress_vec(&prost::Message::encode_to_vec(&request)).unwrap()
    };
    for (body, status, text) in [
        (request(vec![], "late"), 200, "content-encoding: snappy"),
        (request(vec![1], "m"), 200, "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse"),
        (request(vec![0], "m"), 400, "exceeded sample limit (1000)"),
        (request(vec![7], "m"), 400, "no accepted response type is supported"),
        (b"{}".to_vec(), 400, "cannot be decompressed"),
    ] {
        let (found, answer) = post(role.http_address(), "/api/v1/read", &body).await;
        assert!(found == status && answer.contains(text), "{found} {answer:.300}");
    }
    assert_eq!(get(role.http_address(), "/api/v1/read").await.0, 405);

    println!("samples have native histograms, with integer counts or others");
    let (_, _, body) = post_bytes(role.http_address(), "/api/v1/read", &request(vec![0], "h")).await;
    let body = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
    let answer: proto::prometheus::ReadResponse = prost::Message::decode(body.as_slice()).unwrap();
    let [float, integer] = &answer.results[0].timeseries[..] else { panic!("{answer:?}") };
    assert_eq!((float.labels[1].value.as_str(), integer.labels[2].value.as_str()), ("eu-1", "integer"));
    let (float, integer) = (&float.histograms[200], &integer.histograms[200]);
    assert_eq!(
        (&float.positive_counts[..], &integer.positive_deltas[..]),
        (&[200.0, 1.0][..], &[200, -199][..])
    );
    assert_eq!((float.timestamp, integer.sum), (BEGIN + 200 * MINUTE, 300.0));
    stop(role).await;
}

/// Status, and headers and body, as far as they are text.
async fn post(to: SocketAddr, path: &str, body: &[u8]) -> (u16, String) {
    let (status, head, body) = post_bytes(to, path, body).await;
    (status, format!("{head}{}", String::from_utf8_lossy(&body)))
}

/// Status, headers and body.
async fn post_bytes(to: SocketAddr, path: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = TcpStream::connect(to).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.0\r\nhost: x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let end = bytes.windows(4).position(|part| part == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head, bytes.split_off(end))
}
