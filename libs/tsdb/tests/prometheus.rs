//! Chunks that a real Prometheus wrote decode to the samples that it got.

#![allow(
    clippy::disallowed_methods,
    reason = "the crate has no clock and starts no process; its tests run a real Prometheus"
)]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on may panic; helpers are no test functions to clippy"
)]

mod blocks;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use model::{BucketSpan, FloatHistogram, TimeRange};
use tsdb::{Chunk, Encoding};

/// Whether a program of Prometheus is installed; prints a line if it is not.
fn is_installed(program: &str) -> bool {
    let found =
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        println!("skipped: {program} is not installed (Debian package prometheus)");
    }
    found
}

fn uvarint(bytes: &mut &[u8]) -> usize {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return value;
        }
    }
}

/// The chunks of a segment file, in the order of the file.
fn read_segment(bytes: &[u8]) -> Vec<Chunk> {
    assert_eq!(bytes[..8], [0x85, 0xbd, 0x40, 0xdd, 1, 0, 0, 0], "header of a chunk segment");
    let mut rest = &bytes[8..];
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        let length = uvarint(&mut rest);
        let (record, after) = rest.split_at(1 + length);
        let (checksum, after) = after.split_at(4);
        assert_eq!(checksum, crc32c::crc32c(record).to_be_bytes());
        let encoding = match record[0] {
            1 => Encoding::Xor,
            2 => Encoding::Histogram,
            3 => Encoding::FloatHistogram,
            other => panic!("unexpected encoding {other}"),
        };
        chunks.push(Chunk { range: TimeRange::ALL, encoding, data: record[1..].to_vec().into() });
        rest = after;
    }
    chunks
}

/// The chunks of the only block below `dir`.
fn read_only_block(dir: &Path) -> Vec<Chunk> {
    let blocks: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [block] = blocks.as_slice() else { panic!("expected one block, found {blocks:?}") };
    read_segment(&std::fs::read(block.join("chunks/000001")).unwrap())
}

fn floats(chunks: &[Chunk]) -> Vec<(i64, u64)> {
    let (mut timestamps, mut values) = (Vec::new(), Vec::new());
    for chunk in chunks.iter().filter(|chunk| chunk.encoding == Encoding::Xor) {
        let before = timestamps.len();
        chunk.decode_floats(&mut timestamps, &mut values).unwrap();
        assert_eq!(timestamps.len() - before, chunk.sample_count());
    }
    timestamps.into_iter().zip(values.into_iter().map(f64::to_bits)).collect()
}

#[test]
fn floats_that_promtool_wrote_are_read_back() {
    if !is_installed("promtool") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut text = String::from("# TYPE walk gauge\n");
    let mut expected = Vec::new();
    let mut random = 0x2545_f491_4f6c_dd1du64;
    for series in 0..8u32 {
        // A whole number of two hours since the epoch, so that all is one block.
        let (mut t, mut value) = (1_699_999_200_000i64, f64::from(series));
        for _ in 0..1_300 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let jitter =
                if series < 3 { 0 } else { (random >> 20) % [1, 8, 3_000, 4_000][series as usize % 4] };
            t += 1_500 + jitter as i64;
            value = match series % 4 {
                0 => value,
                1 => value + (random % 50) as f64,
                2 => (random % 100_000) as f64 / 128.0,
                _ if random.is_multiple_of(9) => f64::INFINITY,
                _ => f64::from_bits(0x4000_0000_0000_0000 | random >> 12),
            };
            // Rust writes floats so that they are read back bit by bit.
            let shown = if value.is_infinite() { "+Inf".to_owned() } else { value.to_string() };
            writeln!(text, "walk{{series=\"{series}\"}} {shown} {}.{:03}", t / 1000, t % 1000).unwrap();
            expected.push((t, value.to_bits()));
        }
    }
    text.push_str("# EOF\n");
    let input = dir.path().join("input.om");
    std::fs::write(&input, text).unwrap();
    let blocks = dir.path().join("blocks");
    let status = Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics", "--quiet"])
        .args([&input, &blocks])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let chunks = read_only_block(&blocks);
    assert!(chunks.len() > 8 * 10);
    assert!(floats(&chunks) == expected, "samples differ");
}

/// A running Prometheus. It is terminated at the end of the test.
struct Prometheus {
    process: Child,
    address: String,
}

impl Prometheus {
    fn start(dir: &Path) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        // Sums of integer histograms are float histograms: the only way to have this version write such chunks.
        let config = "global: {evaluation_interval: 100ms}\nrule_files: [rules.yml]\n";
        let rules = "groups: [{name: a, rules: [{record: total, expr: sum(part)}]}]\n";
        std::fs::write(dir.join("prometheus.yml"), config).unwrap();
        std::fs::write(dir.join("rules.yml"), rules).unwrap();
        let process = Command::new("prometheus")
            .current_dir(dir)
            .arg("--config.file=prometheus.yml")
            .arg(format!("--web.listen-address={address}"))
            .args(["--storage.tsdb.path=data", "--storage.tsdb.retention.time=100y"])
            .args(["--web.enable-remote-write-receiver", "--web.enable-admin-api"])
            .arg("--enable-feature=native-histograms")
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut server = Self { process, address };
        let deadline = Instant::now() + Duration::from_secs(30);
        while server.request("GET", "/-/ready", &[]).is_none_or(|answer| !answer.contains(" 200 ")) {
            let log = || std::fs::read_to_string(dir.join("log")).unwrap_or_default();
            assert_eq!(
                server.process.try_wait().unwrap(),
                None,
                "Prometheus ended before it was ready: {}",
                log()
            );
            assert!(Instant::now() < deadline, "Prometheus did not become ready: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// Sends series by remote write.
    fn write(&self, series: &[Message]) {
        let mut request = Message::default();
        series.iter().for_each(|series| request.bytes(1, &series.0));
        let body = snap::raw::Encoder::new().compress_vec(&request.0).unwrap();
        let answer = self.request("POST", "/api/v1/write", &body).unwrap();
        assert!(answer.contains(" 204 "), "{answer}");
    }

    /// The chunks of everything that was stored so far.
    fn snapshot(&self, dir: &Path) -> Vec<Chunk> {
        read_only_block(&self.snapshot_dir(dir))
    }

    /// A directory with blocks of everything that was stored so far.
    fn snapshot_dir(&self, dir: &Path) -> PathBuf {
        let answer = self.request("POST", "/api/v1/admin/tsdb/snapshot", &[]).unwrap();
        let name = answer.split("\"name\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect(&answer);
        dir.join("data/snapshots").join(name)
    }

    /// The whole response, with its headers; none when the server does not respond.
    fn request(&self, method: &str, path: &str, body: &[u8]) -> Option<String> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Encoding: snappy\r\n\
             Content-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // An error means that the process has exited already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Just enough of protobuf to write a remote-write request.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn signed(&mut self, field: u64, value: i64) {
        self.number(field, ((value << 1) ^ (value >> 63)) as u64);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }
}

fn series(name: &str, field: u64, samples: impl Iterator<Item = Message>) -> Message {
    let mut label = Message::default();
    label.bytes(1, b"__name__");
    label.bytes(2, name.as_bytes());
    let mut out = Message::default();
    out.bytes(1, &label.0);
    samples.for_each(|sample| out.bytes(field, &sample.0));
    out
}

fn sample(t: i64, value: f64) -> Message {
    let mut out = Message::default();
    out.double(1, value);
    out.number(2, t as u64);
    out
}

fn histogram_message(t: i64, histogram: &FloatHistogram) -> Message {
    let mut out = Message::default();
    out.number(1, histogram.count as u64);
    out.double(3, histogram.sum);
    out.signed(4, i64::from(histogram.schema));
    out.double(5, histogram.zero_threshold);
    out.number(6, histogram.zero_count as u64);
    let sides = [
        (8, &histogram.negative_spans, &histogram.negative_buckets),
        (11, &histogram.positive_spans, &histogram.positive_buckets),
    ];
    for (field, spans, buckets) in sides {
        for span in spans {
            let mut message = Message::default();
            message.signed(1, i64::from(span.offset));
            message.number(2, u64::from(span.length));
            out.bytes(field, &message.0);
        }
        let mut before = 0;
        for &bucket in buckets {
            out.signed(field + 1, bucket as i64 - before);
            before = bucket as i64;
        }
    }
    out.number(15, t as u64);
    out
}

/// A histogram without its layout: totals, and the buckets that are not empty by side (negative or not) and number.
#[derive(Debug, PartialEq)]
struct Content {
    t: i64,
    totals: [u64; 3],
    schema: i32,
    buckets: BTreeMap<(bool, i32), u64>,
}

fn content(t: i64, histogram: &FloatHistogram) -> Content {
    let mut buckets = BTreeMap::new();
    let sides = [
        (true, &histogram.negative_spans, &histogram.negative_buckets),
        (false, &histogram.positive_spans, &histogram.positive_buckets),
    ];
    for (negative, spans, counts) in sides {
        let mut counts = counts.iter();
        let mut index = 0;
        for span in spans {
            index += span.offset;
            for count in counts.by_ref().take(span.length as usize) {
                buckets.insert((negative, index), count.to_bits());
                index += 1;
            }
        }
    }
    buckets.retain(|_, count| *count != 0);
    let totals = [histogram.count, histogram.zero_count, histogram.sum].map(f64::to_bits);
    Content { t, totals, schema: histogram.schema, buckets }
}

/// Counter histograms that grow, get a new bucket, are reset once, and end with a staleness marker.
fn histograms() -> Vec<(i64, FloatHistogram)> {
    let mut out = Vec::new();
    for index in 0..200u32 {
        let age = f64::from(index % 150) + 1.0;
        let length = if index % 150 < 40 { 2 } else { 3 };
        let mut histogram = FloatHistogram {
            schema: 3,
            zero_threshold: 2f64.powi(-128),
            zero_count: age * 3.0,
            sum: age * 1.7,
            positive_spans: vec![
                BucketSpan { offset: -4, length: 2 },
                BucketSpan { offset: 9, length: length - 1 },
            ],
            positive_buckets: (0..=length).map(|bucket| age * f64::from(bucket * bucket)).collect(),
            negative_spans: vec![BucketSpan { offset: 2, length: 1 }],
            negative_buckets: vec![age * 1000.0],
            ..FloatHistogram::default()
        };
        histogram.count = histogram.zero_count
            + histogram.positive_buckets.iter().chain(&histogram.negative_buckets).sum::<f64>();
        out.push((1_700_000_000_000 + i64::from(index) * 15_000 + i64::from(index % 3), histogram));
    }
    out.push((1_700_003_100_000, FloatHistogram::stale()));
    out
}

#[test]
fn histograms_that_prometheus_wrote_are_read_back() {
    if !is_installed("prometheus") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Prometheus::start(dir.path());
    let walk: Vec<(i64, f64)> =
        (0..500).map(|n| (1_700_000_000_000 + n * 7_001, (n * n % 97) as f64 / 3.0)).collect();
    let sample = |&(t, value): &(i64, f64)| sample(t, value);
    let expected = histograms();
    let samples = expected.iter().map(|(t, histogram)| histogram_message(*t, histogram));
    server.write(&[series("a_float", 2, walk.iter().map(sample)), series("b_histogram", 4, samples)]);
    let chunks = server.snapshot(dir.path());

    let expected_floats: Vec<_> = walk.iter().map(|&(t, value)| (t, value.to_bits())).collect();
    assert_eq!(floats(&chunks), expected_floats);
    let chunks: Vec<_> = chunks.iter().filter(|chunk| chunk.encoding == Encoding::Histogram).collect();
    assert!(chunks.len() > 1, "the reset starts a chunk");
    let mut decoded: Vec<(i64, Arc<FloatHistogram>)> = Vec::new();
    chunks.iter().for_each(|chunk| chunk.decode_histograms(&mut decoded).unwrap());
    assert_eq!(decoded.len(), expected.len());
    for ((t, histogram), (expected_t, expected)) in decoded.iter().zip(&expected) {
        assert_eq!(histogram.validate(), Ok(()));
        assert_eq!(content(*t, histogram), content(*expected_t, expected));
    }
}

#[test]
fn float_histograms_that_prometheus_wrote_are_read_back() {
    if !is_installed("prometheus") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Prometheus::start(dir.path());
    let parts: Vec<FloatHistogram> =
        histograms().into_iter().map(|(_, histogram)| histogram).step_by(30).take(5).collect();
    for part in &parts {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
        server.write(&[series("part", 4, std::iter::once(histogram_message(now, part)))]);
        // The rule's last result shows that this part has arrived.
        let deadline = Instant::now() + Duration::from_secs(30);
        let count = format!("\"{}\"", part.count);
        let arrived = || server.request("GET", "/api/v1/query?query=histogram_count(total)", &[]).unwrap();
        while !arrived().contains(&count) {
            assert!(Instant::now() < deadline, "no sum of {count}: {}", arrived());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let chunks = server.snapshot(dir.path());
    let mut sums: Vec<(i64, Arc<FloatHistogram>)> = Vec::new();
    for chunk in chunks.iter().filter(|chunk| chunk.encoding == Encoding::FloatHistogram) {
        chunk.decode_histograms(&mut sums).unwrap();
    }
    assert!(sums.is_sorted_by(|a, b| a.0 < b.0));
    // Every sum is one of the parts, in their order, and none is missing.
    sums.dedup_by(|later, kept| later.1.count == kept.1.count);
    let content_of = |histogram: &FloatHistogram| content(0, histogram);
    assert_eq!(
        sums.iter().map(|(_, sum)| content_of(sum)).collect::<Vec<_>>(),
        parts.iter().map(content_of).collect::<Vec<_>>()
    );
}
