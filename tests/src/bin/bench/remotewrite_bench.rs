//! Remote write: how much one core sends of a log, to a receiver that reads requests and does nothing with them.
//!
//! The samples are in the log before the sender starts, as after an hour in which the receiver was away. Sender and receiver are
//! processes of their own; measured is the CPU time of the sender, from its start to the last answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use head::{Database, DatabaseOptions, SeriesHandle};
use model::{Labels, Timestamp};
use remotewrite::{RemoteWriteConfig, RemoteWriteMessage, RemoteWriteMetrics, RemoteWriter};
use runtime::{Registry, Shutdown};
use serde_json::{Value, json};
use tests::{Process, Usage};

use crate::report::{BenchReport, BenchRow};

/// The first argument with which the benchmark program runs one stage.
pub(crate) const ROLE: &str = "--remotewrite-stage";

const SERIES: usize = 50_000;
const SCRAPES: i64 = 40;
/// How long everything may take to be sent.
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) fn run(report: &mut BenchReport) {
    let this = std::env::current_exe().expect("a running program has a file");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let args = [ROLE.to_owned(), "receive".to_owned()];
    let receiver = Process::start(&this, &args, &dir.path().join("receiver.log"));
    let address: SocketAddr = tests::wait_for("the receiver", Duration::from_secs(30), || {
        receiver.output().lines().next().and_then(|line| line.parse().ok()).ok_or_else(|| receiver.output())
    });
    for version in ["1.0", "2.0"] {
        let args = [ROLE, "send", version, &address.to_string()];
        let output = Command::new(&this).args(args).output().expect("the stage runs");
        let sent: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
        let number = |key: &str| sent[key].as_f64().unwrap_or(f64::NAN);
        let row = BenchRow::new(
            format!("remotewrite/send {version}"),
            "M samples/s of CPU time",
            vec![number("cpu")],
        );
        report.add(&row.peak(sent["peak"].as_u64().unwrap_or(0)));
        let row =
            BenchRow::new(format!("remotewrite/send {version}, wall"), "M samples/s", vec![number("wall")]);
        report.add(&row);
    }
}

/// Runs a stage in a child process.
pub(crate) fn run_stage(args: &[String]) {
    match args {
        [stage] if stage == "receive" => receive(),
        [stage, version, address] if stage == "send" => send(version, address),
        _ => panic!("unknown stage {args:?}"),
    }
}

fn receive() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    for connection in listener.incoming().flatten() {
        std::thread::spawn(move || answer(connection));
    }
}

/// Reads requests and takes them.
fn answer(mut connection: TcpStream) -> Option<()> {
    let mut requests = BufReader::new(connection.try_clone().ok()?);
    let (mut line, mut length, mut body) = (String::new(), 0, Vec::new());
    while requests.read_line(&mut line).ok()? > 0 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            body.resize(length, 0);
            requests.read_exact(&mut body).ok()?;
            // A receiver of 2.0 says what it has written.
            let answer = "HTTP/1.1 204 No Content\r\nX-Prometheus-Remote-Write-Samples-Written: 1\r\n\r\n";
            connection.write_all(answer.as_bytes()).ok()?;
        }
        line.clear();
    }
    Some(())
}

fn send(version: &str, address: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (database, _) = Database::open(dir.path(), DatabaseOptions::default()).expect("a database");
        let database = Arc::new(database);
        let mut config = RemoteWriteConfig::new(format!("http://{address}/api/v1/write"));
        config.message = if version == "2.0" { RemoteWriteMessage::V2 } else { RemoteWriteMessage::V1 };
        // It begins where the log ends, so it begins before the samples.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let begin = i64::try_from(now.as_millis()).expect("before the year 3000") - 1_000 * SCRAPES;
        let series: Vec<SeriesHandle> =
            (0..SERIES).map(|number| database.head().series(&labels(number))).collect();
        with_sender(dir.path(), &database, &config, async |sent| {
            for time in begin - 60_000.. {
                if sent() > 0 {
                    break;
                }
                append(&database, &series[..1], time);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        for scrape in 0..SCRAPES {
            append(&database, &series, begin + scrape * 1_000);
        }
        let total = SERIES as u64 * SCRAPES as u64;
        let (cpu, begun) = (Usage::of(std::process::id()).cpu_seconds, Instant::now());
        with_sender(dir.path(), &database, &config, async |sent| {
            while sent() < total {
                assert!(begun.elapsed() < PATIENCE, "{} of {total} samples were sent", sent());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        let (usage, millions) = (Usage::of(std::process::id()), total as f64 / 1e6);
        let wall = millions / begun.elapsed().as_secs_f64();
        let cpu = millions / (usage.cpu_seconds - cpu);
        println!("{}", json!({"cpu": cpu, "wall": wall, "peak": usage.peak_rss_bytes}));
    });
}

/// Runs a sender while `until` waits, which can ask how many samples were sent.
async fn with_sender(
    dir: &std::path::Path,
    database: &Arc<Database>,
    config: &RemoteWriteConfig,
    until: impl AsyncFnOnce(&dyn Fn() -> u64),
) {
    let (mut registry, shutdown) = (Registry::default(), Shutdown::new());
    let metrics = RemoteWriteMetrics::new(&mut registry);
    let writer = Arc::new(RemoteWriter::new(dir, Arc::clone(database), metrics));
    let task = tokio::spawn({
        let (writer, shutdown) = (Arc::clone(&writer), shutdown.clone());
        async move { writer.run(shutdown).await }
    });
    let prepared = RemoteWriter::prepare(std::slice::from_ref(config), &Labels::empty());
    writer.apply(prepared.expect("it can be used"));
    let sent = || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
        let name = "prometheus_remote_storage_samples_total{";
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0) as u64
    };
    until(&sent).await;
    shutdown.trigger();
    task.await.expect("no panic");
}

fn append(database: &Database, series: &[SeriesHandle], time: i64) {
    for batch in series.chunks(1_000) {
        let mut appender = database.head().appender();
        for (number, series) in batch.iter().enumerate() {
            let value = (time % 1_000 + number as i64) as f64;
            let added = appender.append_float(series, Timestamp::from_millis(time), Timestamp::EPOCH, value);
            added.expect("a later sample");
        }
        appender.commit().expect("the log is written");
    }
}

/// Eight labels, as those of a counter of an application.
fn labels(number: usize) -> Labels {
    let pairs = [
        ("__name__", format!("app_events_{:03}_total", number % 100)),
        ("code", format!("{}", 200 + number / 100 % 5)),
        ("instance", format!("10.0.{}.{}:9090", number / 500 / 256, number / 500 % 256)),
        ("job", "app".to_owned()),
        ("method", "GET".to_owned()),
        ("namespace", format!("team-{:02}", number / 500 % 20)),
        ("path", format!("/api/v1/things/{}", number % 500)),
        ("pod", format!("app-7d9f8b6c5-{:05}", number / 500)),
    ];
    Labels::from_pairs(pairs).expect("valid labels")
}
