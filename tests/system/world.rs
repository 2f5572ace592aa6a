//! The samples of the end-to-end tests, and the system that serves them.
//!
//! Two clusters with two replicas each have the same synthetic metrics. A reference Prometheus has the samples of both clusters
//! once, with the external labels as ordinary labels.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tests::{
    Cluster, Mesh, Process, Prometheus, Reach, free_port, get, isthmus, openmetrics_blocks, wait_for,
};

/// Time of the first sample, in seconds since the epoch: shortly after a two-hour boundary of blocks, and not on a full minute,
/// because subqueries are evaluated there.
pub(crate) const BEGIN: i64 = 1_790_000_000 / 7200 * 7200 + 3;
/// Seconds between samples.
const INTERVAL: i64 = 15;
/// Number of samples of each series: three hours.
const SAMPLES: i64 = 3 * 3600 / INTERVAL;
/// Time of the last sample.
pub(crate) const END: i64 = BEGIN + (SAMPLES - 1) * INTERVAL;

/// Names of the clusters. The first dials out, the second is dialled.
pub(crate) const CLUSTERS: [&str; 2] = ["eu-1", "us-1"];

/// Writes the samples of one cluster in OpenMetrics format. `extra` is added to every label set.
pub(crate) fn exposition(cluster: &str, extra: &str) -> String {
    let seed = cluster.bytes().map(i64::from).sum::<i64>();
    let mut text = String::new();
    let times = || (0..SAMPLES).map(|i| (i, BEGIN + i * INTERVAL));
    let comma = if extra.is_empty() { "" } else { "," };
    text.push_str("# TYPE http_requests counter\n");
    for (at, (path, code)) in
        [("/", "200"), ("/", "500"), ("/api", "200"), ("/api", "404")].iter().enumerate()
    {
        let mut total = 0i64;
        for (i, time) in times() {
            // The counter is reset in the middle of the second series.
            total = if at == 1 && i == SAMPLES / 2 { 0 } else { total + (i * 7 + seed + at as i64) % 23 };
            let _ = writeln!(
                text,
                "http_requests_total{{path=\"{path}\",code=\"{code}\"{comma}{extra}}} {total} {time}"
            );
        }
    }
    text.push_str("# TYPE temperature_celsius gauge\n");
    for room in ["attic", "cellar", "kitchen"] {
        for (i, time) in times() {
            // The thermometer in the cellar has a gap of half an hour.
            if room == "cellar" && (300..420).contains(&i) {
                continue;
            }
            let value = (((i * 31 + seed * 17 + room.len() as i64 * 101) % 400) as f64) / 10.0 - 12.5;
            let _ = writeln!(text, "temperature_celsius{{room=\"{room}\"{comma}{extra}}} {value} {time}");
        }
    }
    text.push_str("# TYPE latency_seconds histogram\n");
    for handler in ["query", "write"] {
        let mut buckets = [0i64; 5];
        let mut sum = 0.0;
        for (i, time) in times() {
            for (at, bucket) in buckets.iter_mut().enumerate() {
                *bucket += (i + seed) % 5 + at as i64 * 3;
            }
            sum += ((i + seed) % 11) as f64 * 0.25;
            let mut cumulative = 0;
            for (bound, bucket) in ["0.1", "0.5", "1.0", "5.0", "+Inf"].iter().zip(buckets) {
                cumulative += bucket;
                let _ = writeln!(
                    text,
                    "latency_seconds_bucket{{handler=\"{handler}\",le=\"{bound}\"{comma}{extra}}} {cumulative} {time}"
                );
            }
            let _ = writeln!(
                text,
                "latency_seconds_count{{handler=\"{handler}\"{comma}{extra}}} {cumulative} {time}"
            );
            let _ = writeln!(text, "latency_seconds_sum{{handler=\"{handler}\"{comma}{extra}}} {sum} {time}");
        }
    }
    text.push_str("# EOF\n");
    text
}

/// Joins expositions, so that each metric family is contiguous.
fn joined(parts: &[String]) -> String {
    let family = |text: &str, name: &str| -> String {
        let begin = text.find(&format!("# TYPE {name} ")).expect("the family");
        let rest = &text[begin..];
        let body = rest.find('\n').expect("a line") + 1;
        let end = rest[body..].find("# ").expect("another family or the end") + body;
        rest[body..end].to_owned()
    };
    let mut text = String::new();
    for (name, kind) in
        [("http_requests", "counter"), ("temperature_celsius", "gauge"), ("latency_seconds", "histogram")]
    {
        let _ = writeln!(text, "# TYPE {name} {kind}");
        parts.iter().for_each(|part| text.push_str(&family(part, name)));
    }
    text.push_str("# EOF\n");
    text
}

/// A sidecar and the address of its StoreAPI.
pub(crate) struct SidecarProcess {
    pub(crate) process: Process,
    pub(crate) grpc: SocketAddr,
}

/// Starts a sidecar for `prometheus` and waits until it is ready.
pub(crate) fn sidecar(dir: &Path, prometheus: &Prometheus) -> SidecarProcess {
    let (http, grpc) = (free_port(), free_port());
    let args = [
        "sidecar".to_owned(),
        format!("--prometheus.url=http://{}", prometheus.address),
        format!("--tsdb.path={}", dir.join("data").display()),
        "--prometheus.get_config_interval=1s".to_owned(),
        format!("--http-address={http}"),
        format!("--grpc-address={grpc}"),
    ];
    let mut process = Process::start(&isthmus(), &args, &dir.join("sidecar.log"));
    process.wait_ready("sidecar", http);
    SidecarProcess { process, grpc }
}

/// Starts a querier with additional flags. Returns it with the address of its HTTP API.
pub(crate) fn querier(dir: &Path, name: &str, flags: &[String]) -> (Process, SocketAddr) {
    let http = free_port();
    let mut args = vec![
        "query".to_owned(),
        "--query.replica-label=replica".to_owned(),
        format!("--http-address={http}"),
        format!("--grpc-address={}", free_port()),
    ];
    args.extend_from_slice(flags);
    let mut process = Process::start(&isthmus(), &args, &dir.join(format!("{name}.log")));
    process.wait_ready(name, http);
    (process, http)
}

/// Waits until the querier at `http` has `wanted` healthy stores.
pub(crate) fn wait_for_stores(http: SocketAddr, wanted: usize) {
    wait_for(&format!("{wanted} healthy stores"), Duration::from_secs(30), || {
        let (_, body) = get(http, "/api/v1/stores")?;
        let stores: Value = serde_json::from_str(&body).map_err(|e| format!("{e}: {body}"))?;
        let groups = stores["data"].as_object().ok_or_else(|| body.clone())?;
        let all = groups.values().flat_map(|group| group.as_array().into_iter().flatten());
        let healthy = all.filter(|store| store["lastError"].is_null()).count();
        if healthy == wanted { Ok(()) } else { Err(body) }
    });
}

/// All processes of the end-to-end tests.
pub(crate) struct World {
    /// Has all samples once.
    pub(crate) reference: Prometheus,
    /// A querier that reads through two gateways.
    pub(crate) over_mesh: SocketAddr,
    /// A querier that reads the sidecars directly.
    pub(crate) direct: SocketAddr,
    pub(crate) scrapers: Vec<(Prometheus, SidecarProcess)>,
    _queriers: [Process; 2],
    _mesh: Mesh,
    _dir: TempDir,
}

impl World {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let labelled: Vec<String> = CLUSTERS
            .iter()
            .map(|c| exposition(c, &format!("cluster=\"{c}\",environment=\"testing\"")))
            .collect();
        let reference_dir = dir.path().join("reference");
        openmetrics_blocks(&reference_dir, &joined(&labelled));
        let reference = Prometheus::start(&reference_dir, &[]);

        let mut scrapers = Vec::new();
        let mut clusters = Vec::new();
        for (name, reach) in CLUSTERS.into_iter().zip([Reach::DialsOut, Reach::IsDialled]) {
            let plain = exposition(name, "");
            let mut targets = Vec::new();
            for replica in ["scraper-0", "scraper-1"] {
                let home = dir.path().join(format!("{name}-{replica}"));
                openmetrics_blocks(&home, &plain);
                let labels = [("cluster", name), ("environment", "testing"), ("replica", replica)];
                let prometheus = Prometheus::start(&home, &labels);
                let sidecar = sidecar(&home, &prometheus);
                targets.push((replica.to_owned(), sidecar.grpc));
                scrapers.push((prometheus, sidecar));
            }
            clusters.push(Cluster { name, reach, targets });
        }
        let mesh = Mesh::start(&dir.path().join("mesh"), "auto", &clusters);
        let gateway = [format!("--gateway={}", mesh.grpc)];
        let endpoints: Vec<String> = scrapers.iter().map(|(_, s)| format!("--endpoint={}", s.grpc)).collect();
        let (first, over_mesh) = querier(dir.path(), "querier-mesh", &gateway);
        let (second, direct) = querier(dir.path(), "querier-direct", &endpoints);
        wait_for_stores(over_mesh, 4);
        wait_for_stores(direct, 4);
        Self { reference, over_mesh, direct, scrapers, _queriers: [first, second], _mesh: mesh, _dir: dir }
    }
}
