//! Uploads of blocks: a real Prometheus that cuts blocks, the real sidecar, and a bucket in a folder.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::{MatchOp, Matcher, TimeRange};
use serde_json::Value;
use tempfile::TempDir;
use tests::{Process, Prometheus, free_port, get, isthmus, openmetrics_blocks, percent_encode, wait_for};
use tsdb::Block;

/// Start of the two hours of old samples, in seconds since the epoch.
const BEGIN: i64 = 1_790_006_400;
const PATIENCE: Duration = Duration::from_secs(90);

/// Starts a Prometheus on `dir/data`, which scrapes itself every second.
fn prometheus(dir: &Path, at: SocketAddr, flags: &[&str]) -> Process {
    let config = format!(
        "global:\n  scrape_interval: 1s\n  external_labels: {{cluster: eu-1, replica: a}}\n\
         scrape_configs:\n- job_name: self\n  static_configs: [{{targets: ['{at}']}}]\n"
    );
    fs::write(dir.join("prometheus.yml"), config).expect("a file");
    let mut args = vec![
        format!("--config.file={}", dir.join("prometheus.yml").display()),
        format!("--storage.tsdb.path={}", dir.join("data").display()),
        format!("--web.listen-address={at}"),
        "--storage.tsdb.retention.time=100y".to_owned(),
    ];
    args.extend(flags.iter().map(|flag| (*flag).to_owned()));
    let mut process = Process::start(Path::new("prometheus"), &args, &dir.join("prometheus.log"));
    process.wait_ready("prometheus", at);
    process
}

fn sidecar(dir: &Path, prometheus: SocketAddr, http: SocketAddr) -> Process {
    sidecar_at(dir, prometheus, http, free_port())
}

fn sidecar_at(dir: &Path, prometheus: SocketAddr, http: SocketAddr, grpc: SocketAddr) -> Process {
    let args = [
        "sidecar".to_owned(),
        format!("--prometheus.url=http://{prometheus}"),
        "--prometheus.get_config_interval=1s".to_owned(),
        format!("--tsdb.path={}", dir.join("data").display()),
        format!(
            "--objstore.config=type: FILESYSTEM\nconfig: {{directory: {}}}",
            dir.join("bucket").display()
        ),
        format!("--http-address={http}"),
        format!("--grpc-address={grpc}"),
    ];
    Process::start(&isthmus(), &args, &dir.join("sidecar.log"))
}

/// A querier of one store.
fn querier(dir: &Path, store: SocketAddr, http: SocketAddr) -> Process {
    let args = [
        "query".to_owned(),
        format!("--endpoint={store}"),
        format!("--http-address={http}"),
        format!("--grpc-address={}", free_port()),
    ];
    let mut process = Process::start(&isthmus(), &args, &dir.join("querier.log"));
    process.wait_ready("querier", http);
    process
}

/// Waits until `/api/v1/stores` of the querier lists the sidecar with warnings that satisfy `check`.
fn wait_for_warnings(querier: SocketAddr, check: impl Fn(&[Value]) -> bool) {
    wait_for("the warnings of the sidecar in /api/v1/stores", PATIENCE, || {
        let (_, body) = get(querier, "/api/v1/stores")?;
        let stores: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
        let warnings = stores["data"]["sidecar"][0]["warnings"].as_array();
        if warnings.is_some_and(|warnings| check(warnings)) { Ok(()) } else { Err(body) }
    });
}

/// The blocks in a folder that have a `meta.json`.
fn blocks(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry"));
    let named = entries.filter(|e| e.file_name().to_str().and_then(tsdb::parse_block_id).is_some());
    let mut whole: Vec<PathBuf> =
        named.map(|e| e.path()).filter(|dir| dir.join("meta.json").exists()).collect();
    whole.sort();
    whole
}

type SamplesBySeries = BTreeMap<String, Vec<(i64, u64)>>;

/// All samples of the blocks, with the bits of their values. Series are identified by their labels.
fn samples(blocks: &[PathBuf]) -> SamplesBySeries {
    let all = [Matcher::new(MatchOp::Regex, "__name__", ".+").expect("a matcher")];
    let mut samples = SamplesBySeries::new();
    for dir in blocks {
        let block = Block::open(dir).unwrap_or_else(|error| panic!("{error}"));
        for series in block.select(&all, TimeRange::ALL).expect("series") {
            let series = series.unwrap_or_else(|error| panic!("{error}"));
            for chunk in block.chunks(&series.chunks).unwrap_or_else(|error| panic!("{error}")) {
                let (mut times, mut values) = (Vec::new(), Vec::new());
                chunk.decode_floats(&mut times, &mut values).expect("floats");
                let points = times.into_iter().zip(values.into_iter().map(f64::to_bits));
                samples.entry(series.labels.to_string()).or_default().extend(points);
            }
        }
    }
    samples.values_mut().for_each(|points| points.sort_unstable());
    samples
}

/// The samples of one series within the time of the old blocks, from Prometheus' API.
fn asked(at: SocketAddr, selector: &str) -> Vec<(i64, u64)> {
    let query = percent_encode(&format!("{selector}[4h]"));
    let (status, body) =
        get(at, &format!("/api/v1/query?query={query}&time={}", BEGIN + 4 * 3600)).expect("HTTP");
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(status, 200, "{body}");
    let values = answer["data"]["result"][0]["values"].as_array().expect("values");
    let point = |pair: &Value| {
        let value: f64 = pair[1].as_str().expect("a value").parse().expect("a number");
        ((pair[0].as_f64().expect("a time") * 1000.0) as i64, value.to_bits())
    };
    values.iter().map(point).collect()
}

fn metric(at: SocketAddr, name: &str) -> Result<f64, String> {
    let (_, text) = get(at, "/metrics")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).ok_or_else(|| format!("metric {name} not found in\n{text}"))
}

/// The steps of a cluster owner: enables uploads, gets an error with its reason, fixes it. Then the sidecar is killed during
/// uploads.
#[test]
fn blocks_of_a_real_prometheus_arrive_in_the_bucket() {
    if !Prometheus::is_installed("uploads of blocks") {
        return;
    }
    let dir = TempDir::new().expect("a folder");
    let dir = dir.path();
    fs::create_dir(dir.join("bucket")).expect("a folder");
    let mut text = String::new();
    for at in (BEGIN..BEGIN + 4 * 3600).step_by(30) {
        let _ = writeln!(text, "temperature{{room=\"cellar\"}} {}.25 {at}", at % 97);
    }
    openmetrics_blocks(dir, &(text + "# EOF\n"));
    let (at, http, grpc, web) = (free_port(), free_port(), free_port(), free_port());

    println!(
        "the blocks of a Prometheus that compacts are not uploaded, and the log names the flags that it needs"
    );
    let mut process = prometheus(dir, at, &[]);
    let mut shipping = sidecar_at(dir, at, http, grpc);
    shipping.wait_ready("sidecar", http);
    let _querier = querier(dir, grpc, web);
    wait_for_warnings(web, |warnings| {
        let reason = warnings.first().and_then(Value::as_str).unwrap_or_default();
        reason.contains("not uploaded") && reason.contains("--storage.tsdb.max-block-duration=2h")
    });
    wait_for("the metric", PATIENCE, || match metric(http, "isthmus_sidecar_uploads_blocked")? {
        1.0 => Ok(()),
        other => Err(format!("{other}")),
    });
    let log = shipping.output();
    assert!(log.contains("not uploaded") && log.contains("--storage.tsdb.max-block-duration=2h"), "{log}");
    assert!(blocks(&dir.join("bucket")).is_empty());
    process.kill();

    println!("Prometheus is restarted with these flags and cuts a block every 10 seconds");
    let short = ["--storage.tsdb.min-block-duration=10s", "--storage.tsdb.max-block-duration=10s"];
    let mut process = prometheus(dir, at, &short);
    wait_for_warnings(web, |warnings| !warnings.iter().any(|w| w.to_string().contains("not uploaded")));
    wait_for("the upload of the old blocks", PATIENCE, || match blocks(&dir.join("bucket")).len() {
        0 | 1 => Err(shipping.output()),
        _ => Ok(()),
    });
    wait_for("a block that Prometheus cuts", PATIENCE, || match blocks(&dir.join("data")).len() {
        0..=2 => Err("no block was cut".to_owned()),
        _ => Ok(()),
    });

    println!("the sidecar is killed and started again");
    shipping.kill();
    process.kill();
    let cut = blocks(&dir.join("data"));
    let mut process = prometheus(dir, at, &short[..]);
    let mut shipping = sidecar(dir, at, http);
    shipping.wait_ready("sidecar", http);
    wait_for("the upload of all blocks", PATIENCE, || {
        let there: Vec<_> =
            blocks(&dir.join("bucket")).iter().map(|b| b.file_name().map(ToOwned::to_owned)).collect();
        let is_there = |block: &&PathBuf| there.contains(&block.file_name().map(ToOwned::to_owned));
        if cut.iter().all(|block| is_there(&block)) { Ok(()) } else { Err(shipping.output()) }
    });

    println!("every sample is in the bucket exactly once, as in Prometheus");
    let remote: Vec<PathBuf> =
        cut.iter().map(|b| dir.join("bucket").join(b.file_name().expect("a name"))).collect();
    let (ours, theirs) = (samples(&remote), samples(&cut));
    assert!(ours == theirs && ours.len() > 100, "{} series in the bucket, {} here", ours.len(), theirs.len());
    let old = ours.iter().find(|(labels, _)| labels.contains("cellar")).expect("the old series").1;
    assert_eq!(*old, asked(at, "temperature"));
    assert_eq!(old.len(), 480);

    wait_for("an empty backlog", PATIENCE, || match metric(http, "isthmus_shipper_backlog_blocks")? {
        0.0 => Ok(()),
        n => Err(format!("{n} blocks are waiting")),
    });
    for name in ["thanos_shipper_dir_syncs_total", "thanos_sidecar_prometheus_up"] {
        assert!(metric(http, name).expect(name) > 0.0, "{name}");
    }
    assert_eq!(metric(http, "thanos_shipper_upload_failures_total"), Ok(0.0));
    let uploads = metric(http, "thanos_shipper_uploads_total").expect("a counter");
    assert!((uploads as usize) < blocks(&dir.join("bucket")).len(), "blocks were uploaded twice");
    let list = fs::read_to_string(dir.join("data/thanos.shipper.json")).expect("the list");
    let name = |block: &PathBuf| block.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(cut.iter().all(|block| list.contains(&name(block))), "{list}");
    process.kill();
}
