//! Beside a real Prometheus and its `promtool`, Debian package `prometheus`. Without them, a line says that a test was skipped.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use model::TimeRange;
use tsdb::{Block, Chunk, Ulid};

use crate::tests::{AllSamples, at, labels, open, samples_of};
use crate::{Head, HeadOptions};

/// Floats by series and time, as bits.
pub(crate) type Floats = BTreeMap<String, BTreeMap<i64, u64>>;

pub(crate) fn is_installed(program: &str) -> bool {
    let found =
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        println!("skipped: {program} is not installed");
    }
    found
}

/// The samples that `promtool` reads from a data folder.
pub(crate) fn dumped(dir: &Path) -> Floats {
    let out = Command::new("promtool").args(["tsdb", "dump"]).arg(dir).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let mut floats = Floats::new();
    for line in String::from_utf8(out.stdout).unwrap().lines() {
        let (series, rest) = line.rsplit_once("} ").unwrap();
        let (value, time) = rest.split_once(' ').unwrap();
        // Label sets are printed with spaces after the commas, and the name of the metric among the others.
        let series = series.trim_start_matches('{').strip_suffix('"').unwrap();
        let pairs = series.split("\", ").map(|pair| {
            let (name, value) = pair.split_once("=\"").unwrap();
            (name.to_owned(), value.replace("\\\"", "\"").replace("\\\\", "\\"))
        });
        let series = model::Labels::from_pairs(pairs).unwrap().to_string();
        let value: f64 = value.parse().unwrap();
        floats.entry(series).or_default().insert(time.parse().unwrap(), value.to_bits());
    }
    floats
}

pub(crate) fn floats_of(samples: &AllSamples) -> Floats {
    let of_series = |(series, samples): (&String, &BTreeMap<i64, (i64, Vec<u64>)>)| {
        (series.clone(), samples.iter().map(|(time, (_, bits))| (*time, bits[0])).collect())
    };
    samples.iter().map(of_series).collect()
}

#[test]
fn prometheus_reads_our_log_and_chunk_files() {
    if !is_installed("promtool") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut all = Floats::new();
    let append = |head: &Head, scrapes: std::ops::Range<i64>, all: &mut Floats| {
        for scrape in scrapes {
            let mut appender = head.appender();
            for n in 0..30i64 {
                let series = labels(&[("__name__", "m"), ("n", &n.to_string()), ("path", "a\\b \"c\"")]);
                let (time, value) = (1_700_000_000_000 + scrape * 15_000 + n, scrape as f64 / 3.0 + n as f64);
                appender.append_float(&head.series(&series), at(time), at(0), value).unwrap();
                all.entry(series.to_string()).or_default().insert(time, value.to_bits());
            }
            appender.commit().unwrap();
        }
    };
    let (head, _) = open(dir.path(), i64::MIN);
    append(&head, 0..300, &mut all);
    head.store_chunks().unwrap();
    append(&head, 300..400, &mut all);
    drop(head);
    assert!(dumped(dir.path()) == all, "before a block");
    // With a block and a checkpoint.
    let (head, _) = open(dir.path(), i64::MIN);
    append(&head, 400..900, &mut all);
    for number in 0..2 {
        let range = head.next_block().unwrap();
        head.cut_block(dir.path(), Ulid::from_parts(1_700_000_000_000, number), range).unwrap().unwrap();
        head.truncate(range.1).unwrap();
        append(&head, 900 + number as i64 * 400..1_300 + number as i64 * 400, &mut all);
    }
    assert!(
        fs::read_dir(dir.path().join("wal"))
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_string_lossy().starts_with("checkpoint.") })
    );
    drop(head);
    assert!(dumped(dir.path()) == all, "after two blocks");
}

/// Serves an exposition, which may change with each request, and returns the address.
pub(crate) fn serve(content_type: &'static str, body: impl Fn(usize) -> String + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for (number, connection) in listener.incoming().enumerate() {
            let Ok(mut connection) = connection else { continue };
            let mut request = BufReader::new(connection.try_clone().unwrap());
            let mut line = String::new();
            while request.read_line(&mut line).is_ok_and(|read| read > 2) {
                line.clear();
            }
            let body = body(number);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nConnection: close");
            let _ = write!(connection, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    address
}

/// Metrics that change with each scrape.
fn metrics(number: usize) -> String {
    let mut body = format!("scrapes_total {number}\n");
    // A series that comes and goes has staleness markers.
    if !number.is_multiple_of(3) {
        body.push_str("sometimes 1.5\n");
    }
    (0..50)
        .for_each(|n| body.push_str(&format!("gauge{{n=\"{n}\"}} {}\n", number as f64 * 0.7 + f64::from(n))));
    body
}

/// A Prometheus with a data folder, which ends when it is dropped.
pub(crate) struct Prometheus {
    process: Child,
    address: String,
}

impl Prometheus {
    /// Starts it. It scrapes the target every 100 ms; without one, nothing.
    pub(crate) fn start(dir: &Path, data: &Path, target: Option<&str>, args: &[&str]) -> Self {
        Self::start_with(dir, data, "", target, args)
    }

    /// The same with more lines of the configuration.
    pub(crate) fn start_with(
        dir: &Path,
        data: &Path,
        more: &str,
        target: Option<&str>,
        args: &[&str],
    ) -> Self {
        let config = dir.join("prometheus.yml");
        let targets = target.map(|target| format!("\"{target}\"")).unwrap_or_default();
        let text = format!(
            "global: {{scrape_interval: 100ms}}\nscrape_configs:\n- job_name: t\n  static_configs: [{{targets: [{targets}]}}]\n{more}"
        );
        fs::write(&config, text).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={address}"))
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, address }
    }

    /// The answer to a request for this path; empty while nothing listens.
    pub(crate) fn get(&self, path: &str) -> String {
        let mut answer = String::new();
        if let Ok(mut connection) = TcpStream::connect(&self.address) {
            let _ = write!(connection, "GET {path} HTTP/1.0\r\n\r\n");
            let _ = connection.read_to_string(&mut answer);
        }
        answer
    }

    /// Kills it.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits for a condition.
pub(crate) fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what} did not happen within a minute");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_data_folder_of_a_prometheus_that_was_killed_is_read() {
    if !is_installed("prometheus") || !is_installed("promtool") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let target = serve("text/plain; version=0.0.4", metrics);
    let data = dir.path().join("data");
    let prometheus = Prometheus::start(dir.path(), &data, Some(&target), &[]);
    let log = data.join("wal/00000000");
    wait_for("a page of the log", || fs::metadata(&log).map_or(0, |file| file.len()) >= 32_768);
    prometheus.kill();
    let theirs = dumped(&data);
    assert!(theirs.len() > 50, "{} series", theirs.len());
    let (head, replay) = open(&data, i64::MIN);
    assert_eq!((replay.damaged_records, replay.without_series, replay.late), (0, 0, 0));
    let ours = floats_of(&samples_of(&head, TimeRange::ALL));
    // promtool prints every NaN as NaN.
    let number = |floats: Floats| -> Floats {
        let nan = f64::NAN.to_bits();
        let same = |bits: u64| if f64::from_bits(bits).is_nan() { nan } else { bits };
        floats
            .into_iter()
            .map(|(s, list)| (s, list.into_iter().map(|(t, bits)| (t, same(bits))).collect()))
            .collect()
    };
    assert!(number(ours) == number(theirs));
    // It goes on where Prometheus ended, and Prometheus reads that.
    let last = head.stats().times.unwrap().max;
    let series = head.series(&labels(&[("__name__", "ours")]));
    let mut appender = head.appender();
    appender.append_float(&series, at(last.as_millis() + 1), at(0), 5.0).unwrap();
    appender.commit().unwrap();
    drop(head);
    assert_eq!(dumped(&data)["ours"].len(), 1);
}

/// Our blocks of the same samples have the same chunks, byte by byte.
#[test]
fn our_block_has_the_chunks_of_promtools_block() {
    if !is_installed("promtool") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (data, text) = (dir.path().join("data"), dir.path().join("metrics.txt"));
    fs::create_dir(&data).unwrap();
    let mut lines = String::from("# TYPE m gauge\n");
    // promtool's head has chunks of up to two blocks.
    let options = HeadOptions { block_range: Duration::from_secs(4 * 3_600), ..HeadOptions::default() };
    let (head, _) = Head::open(&dir.path().join("head"), options).unwrap();
    let begin = 1_699_992_000_000; // a boundary of two hours
    let mut samples: Vec<(i64, i64, f64)> = Vec::new();
    for n in 0..8i64 {
        // Intervals from 1 s to 2 min. Chunks of 120 values have less than a kilobyte, which old versions do not limit.
        let interval = [1_000, 5_000, 15_000, 30_000, 60_000, 120_000, 10_000, 15_000][n as usize];
        for scrape in 0..7_200_000 / interval {
            let value = if n < 6 { (scrape / 7) as f64 } else { (scrape * 37 % 1_000) as f64 };
            samples.push((begin + n * 7 + scrape * interval, n, value));
        }
    }
    samples.sort_by_key(|sample| (sample.0, sample.1));
    for &(time, n, value) in &samples {
        let series = head.series(&labels(&[("__name__", "m"), ("n", &n.to_string())]));
        let mut appender = head.appender();
        appender.append_float(&series, at(time), at(0), value).unwrap();
        appender.commit().unwrap();
    }
    samples.sort_by_key(|sample| (sample.1, sample.0));
    for (time, n, value) in samples {
        lines.push_str(&format!("m{{n=\"{n}\"}} {value} {}.{:03}\n", time / 1_000, time % 1_000));
    }
    lines.push_str("# EOF\n");
    fs::write(&text, lines).unwrap();
    let create = Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .args([&text, &data])
        .output()
        .unwrap();
    assert!(create.status.success(), "{}", String::from_utf8_lossy(&create.stderr));
    let ours = Ulid::from_parts(1, 1);
    head.cut_block(dir.path(), ours, (at(begin), at(begin + 7_200_000))).unwrap().unwrap();
    let chunks = |dir: &Path| -> Vec<(model::Labels, Vec<Chunk>)> {
        let block = Block::open(dir).unwrap();
        let selected = block.select(&[], TimeRange::ALL).unwrap();
        selected.map(|series| series.unwrap()).map(|s| (s.labels, block.chunks(&s.chunks).unwrap())).collect()
    };
    let blocks: Vec<_> = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [theirs] = blocks.as_slice() else { panic!("{blocks:?}") };
    let (ours, theirs) = (chunks(&dir.path().join(ours.to_string())), chunks(theirs));
    assert_eq!(ours.len(), 8);
    for ((labels, ours), (_, theirs)) in ours.iter().zip(&theirs) {
        let shape = |chunks: &[Chunk]| chunks.iter().map(|chunk| chunk.sample_count()).collect::<Vec<_>>();
        assert_eq!(shape(ours), shape(theirs), "{labels}");
        assert!(ours == theirs, "{labels}");
    }
}
