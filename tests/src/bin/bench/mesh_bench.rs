//! Transfers through two gateways over QUIC and over TCP, compared with a direct connection, and with two Envoys.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::join_all;
use mesh::Channel;
use proto::thanos::store_client::StoreClient;
use proto::thanos::{LabelNamesRequest, SeriesRequest};
use tests::{Cluster, Mesh, Process, Reach, Usage, wait_for};
use tokio::runtime::Runtime;

use crate::envoy::{self, EnvoyPair};
use crate::h2load;
use crate::report::{BenchReport, BenchRow, median};
use crate::source;

const ROUNDS: usize = 3;
const MIB: f64 = (1 << 20) as f64;
/// Bytes that one bulk stream transfers in one round.
const STREAM_BYTES: usize = 512 << 20;
const START: Duration = Duration::from_secs(30);
/// More than a cluster serves by default (500), and than one connection has (512): the gateways of this measurement have two
/// connections, and [`IDLE_POLICY`]. Envoy's limits are in its configuration, and it opens connections as it needs them.
const IDLE_STREAMS: usize = 1_000;
const IDLE_POLICY: &str = "policy: {max_concurrent_requests: 1100}\n";
/// Streams beside which small calls are measured.
const BESIDE_STREAMS: usize = 16;

/// A route from the client to the source.
struct Way {
    name: &'static str,
    channel: Channel,
    /// Where the first proxy takes requests, or the source itself.
    address: SocketAddr,
    /// Process ids of the gateways on the route: observability side, cluster side.
    gateways: Vec<u32>,
    _mesh: Option<Mesh>,
    _envoys: Option<EnvoyPair>,
}

/// Ways that are compared with the first of them, and the name of the benchmark.
struct Race<'a> {
    bench: &'static str,
    runtime: &'a Runtime,
    ways: Vec<Way>,
}

impl Race<'_> {
    /// A row of the way at `at`, with its ratio to the first one.
    fn row(&self, at: usize, what: &str, unit: &'static str, values: &[Vec<f64>]) -> BenchRow {
        let name = format!("{}/{}/{what}", self.bench, self.ways[at].name);
        let row = BenchRow::new(name, unit, values[at].clone());
        if at == 0 { row } else { row.versus(self.ways[0].name, median(&values[0])) }
    }
}

impl Way {
    fn cpu_seconds(&self) -> f64 {
        self.gateways.iter().map(|id| Usage::of(*id).cpu_seconds).sum()
    }

    fn peak_rss(&self) -> u64 {
        self.gateways.iter().map(|id| Usage::of(*id).peak_rss_bytes).max().unwrap_or(0)
    }
}

pub(crate) fn run(report: &mut BenchReport) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (_source, address) = source::start(dir.path(), source::CLUSTER);
    let runtime = Runtime::new().expect("a runtime");
    let _inside = runtime.enter();

    let channel = mesh::direct(&address.to_string()).expect("an address");
    let mut ways =
        vec![Way { name: "direct", channel, address, gateways: Vec::new(), _mesh: None, _envoys: None }];
    for transport in ["tcp", "quic"] {
        let folder = dir.path().join(transport);
        ways.push(through_gateways(&folder, transport, address, Reach::IsDialled));
    }
    let race = Race { bench: "mesh", runtime: &runtime, ways };
    race.wait();
    bulk(report, &race, "stream of 64 KiB messages", 64 << 10, 1);
    bulk(report, &race, "stream of 1 KiB messages", 1 << 10, 1);
    bulk(report, &race, "8 streams of 64 KiB messages", 64 << 10, 8);
    unary(report, &race, 1, 2_000);
    unary(report, &race, 32, 20_000);
    drop(race);
    memory(report, &runtime, dir.path(), address);
}

/// The same beside two Envoys with mutual TLS between them, in one run.
pub(crate) fn run_versus(report: &mut BenchReport) {
    let Some(program) = envoy::program() else {
        println!("mesh-vs-envoy: skipped, because there is no `envoy` on the PATH and $ENVOY is not set");
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (_source, address) = source::start(dir.path(), source::CLUSTER);
    let runtime = Runtime::new().expect("a runtime");
    let _inside = runtime.enter();
    let ways = |reach| -> Vec<Way> {
        let fresh = tempfile::tempdir_in(dir.path()).expect("a folder").keep();
        let gateways = ["tcp", "quic"]
            .map(|transport| through_gateways(&fresh.join(transport), transport, address, reach));
        std::iter::once(through_envoys(&program, &fresh.join("envoy"), address)).chain(gateways).collect()
    };
    let race = Race { bench: "mesh-vs-envoy", runtime: &runtime, ways: ways(Reach::IsDialled) };
    race.wait();
    bulk(report, &race, "8 streams of 64 KiB messages", 64 << 10, 8);
    unary(report, &race, 1, 2_000);
    unary(report, &race, 32, 20_000);
    if h2load::is_installed() {
        unary_of_h2load(report, &race, dir.path(), 1, 5_000);
        unary_of_h2load(report, &race, dir.path(), 32, 50_000);
    } else {
        println!(
            "mesh-vs-envoy: the rows of h2load are skipped, because it is not installed (Debian: nghttp2-client)"
        );
    }
    beside(report, &race);
    drop(race);
    let mut idle = vec![Vec::new(); 3];
    for _ in 0..ROUNDS {
        let race = Race { bench: "mesh-vs-envoy", runtime: &runtime, ways: ways(Reach::Both) };
        race.wait();
        for (values, way) in idle.iter_mut().zip(&race.ways) {
            values.push(idle_stream(&runtime, way));
        }
    }
    let race = Race { bench: "mesh-vs-envoy", runtime: &runtime, ways: ways(Reach::Both) };
    for at in 0..race.ways.len() {
        report.add(&race.row(at, "idle stream, both proxies", "KiB", &idle));
    }
}

impl Race<'_> {
    fn wait(&self) {
        for way in &self.ways {
            wait_for(&format!("an answer, {}", way.name), START, || {
                self.runtime.block_on(label_names(&way.channel))
            });
        }
    }
}

fn through_envoys(program: &Path, dir: &Path, source: SocketAddr) -> Way {
    let pair = EnvoyPair::start(program, dir, source);
    let channel = mesh::direct(&pair.address.to_string()).expect("an address");
    let gateways = pair.processes.iter().map(Process::id).collect();
    Way { name: "envoy", channel, address: pair.address, gateways, _mesh: None, _envoys: Some(pair) }
}

fn through_gateways(dir: &Path, transport: &'static str, source: SocketAddr, reach: Reach) -> Way {
    std::fs::create_dir_all(dir).expect("a folder");
    let cluster = Cluster { name: source::CLUSTER, reach, targets: vec![("source".to_owned(), source)] };
    let more = if reach == Reach::Both { IDLE_POLICY } else { "" };
    let mesh = Mesh::start_with(dir, transport, &[cluster], more);
    let target = target().parse().expect("a target's name");
    let channel = mesh::via(&mesh.grpc.to_string(), &target).expect("an address");
    let gateways = vec![mesh.observability.id(), mesh.clusters[0].id()];
    Way { name: transport, channel, address: mesh.grpc, gateways, _mesh: Some(mesh), _envoys: None }
}

/// The name of the source in the mesh.
fn target() -> String {
    format!("source.{}", source::CLUSTER)
}

fn client(channel: &Channel) -> StoreClient<Channel> {
    StoreClient::new(channel.clone()).max_decoding_message_size(16 << 20)
}

/// Requests `count` messages of `bytes` each; see the source.
fn series_request(bytes: usize, count: usize) -> SeriesRequest {
    SeriesRequest { min_time: bytes as i64, max_time: count as i64, ..SeriesRequest::default() }
}

async fn label_names(channel: &Channel) -> Result<usize, String> {
    let answer =
        client(channel).label_names(LabelNamesRequest::default()).await.map_err(|e| e.to_string())?;
    Ok(answer.into_inner().names.len())
}

async fn read_stream(channel: &Channel, bytes: usize, count: usize) {
    let mut stream =
        client(channel).series(series_request(bytes, count)).await.expect("a stream").into_inner();
    let mut seen = 0;
    while let Some(message) = stream.next().await {
        message.expect("a message");
        seen += 1;
    }
    assert_eq!(seen, count, "messages of the stream");
}

fn bulk(report: &mut BenchReport, race: &Race<'_>, what: &str, bytes: usize, streams: usize) {
    // Small messages use more CPU time in the client and the source. Fewer bytes are enough for them.
    let total = if bytes < 64 << 10 { STREAM_BYTES / 4 } else { STREAM_BYTES };
    let count = total / bytes / streams;
    let mut rates = vec![Vec::new(); race.ways.len()];
    let mut costs = vec![Vec::new(); race.ways.len()];
    for _ in 0..ROUNDS {
        for (at, way) in race.ways.iter().enumerate() {
            let (begun, cpu) = (Instant::now(), way.cpu_seconds());
            race.runtime.block_on(join_all((0..streams).map(|_| read_stream(&way.channel, bytes, count))));
            let mib = (count * streams * bytes) as f64 / MIB;
            rates[at].push(mib / begun.elapsed().as_secs_f64());
            costs[at].push((way.cpu_seconds() - cpu) / (mib / 1024.0));
        }
    }
    for (at, way) in race.ways.iter().enumerate() {
        let row = race.row(at, what, "MiB/s", &rates);
        report.add(&if way.gateways.is_empty() { row } else { row.peak(way.peak_rss()) });
    }
    // A way without gateways costs nothing, and is no reference.
    let has_cost = |way: &Way| !way.gateways.is_empty();
    for (at, way) in race.ways.iter().enumerate().filter(|(_, way)| has_cost(way)) {
        let cost = format!("{what}/cpu of both");
        report.add(&match has_cost(&race.ways[0]) {
            true => race.row(at, &cost, "s/GiB", &costs),
            false => BenchRow::new(format!("{}/{}/{cost}", race.bench, way.name), "s/GiB", costs[at].clone()),
        });
    }
}

/// The times of small calls of `concurrency` callers, in microseconds, sorted.
fn call(race: &Race<'_>, way: &Way, concurrency: usize, calls: usize) -> Vec<f64> {
    let workers = (0..concurrency).map(|_| async {
        let mut micros = Vec::with_capacity(calls / concurrency);
        for _ in 0..calls / concurrency {
            let call = Instant::now();
            label_names(&way.channel).await.expect("an answer");
            micros.push(call.elapsed().as_secs_f64() * 1e6);
        }
        micros
    });
    let mut micros: Vec<f64> = race.runtime.block_on(join_all(workers)).into_iter().flatten().collect();
    micros.sort_by(f64::total_cmp);
    micros
}

fn quantile(sorted: &[f64], quantile: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * quantile) as usize]
}

fn unary(report: &mut BenchReport, race: &Race<'_>, concurrency: usize, calls: usize) {
    let mut rates = vec![Vec::new(); race.ways.len()];
    let (mut p50, mut p99) = (rates.clone(), rates.clone());
    for _ in 0..ROUNDS {
        for (at, way) in race.ways.iter().enumerate() {
            let begun = Instant::now();
            let micros = call(race, way, concurrency, calls);
            rates[at].push(micros.len() as f64 / begun.elapsed().as_secs_f64());
            p50[at].push(quantile(&micros, 0.5));
            p99[at].push(quantile(&micros, 0.99));
        }
    }
    for at in 0..race.ways.len() {
        let what = format!("unary, {concurrency} at once");
        report.add(&race.row(at, &what, "calls/s", &rates));
        report.add(&race.row(at, &format!("{what}/p50"), "us", &p50));
        report.add(&race.row(at, &format!("{what}/p99"), "us", &p99));
    }
}

/// The same calls by a client that takes little processor time. The one of [`unary`], which the components use, takes more of it
/// than the proxies.
fn unary_of_h2load(report: &mut BenchReport, race: &Race<'_>, dir: &Path, concurrency: usize, calls: usize) {
    let bytes = source::label_names_answer_bytes();
    let mut rates = vec![Vec::new(); race.ways.len()];
    let (mut p99, mut costs) = (rates.clone(), rates.clone());
    for _ in 0..ROUNDS {
        for (at, way) in race.ways.iter().enumerate() {
            let cpu = way.cpu_seconds();
            let made = h2load::label_names(dir, way.address, &target(), (concurrency, calls), bytes);
            costs[at].push((way.cpu_seconds() - cpu) * 1e6 / calls as f64);
            rates[at].push(calls as f64 / made.seconds);
            p99[at].push(quantile(&made.micros, 0.99));
        }
    }
    for at in 0..race.ways.len() {
        let what = format!("unary of h2load, {concurrency} at once");
        report.add(&race.row(at, &what, "calls/s", &rates));
        report.add(&race.row(at, &format!("{what}/p99"), "us", &p99));
        report.add(&race.row(at, &format!("{what}/cpu of both"), "us", &costs));
    }
}

/// Small calls while other streams of the same connection transfer as fast as they can.
fn beside(report: &mut BenchReport, race: &Race<'_>) {
    let mut p99 = vec![Vec::new(); race.ways.len()];
    for _ in 0..ROUNDS {
        for (at, way) in race.ways.iter().enumerate() {
            let streams: Vec<_> = (0..BESIDE_STREAMS)
                .map(|_| {
                    let channel = way.channel.clone();
                    race.runtime.spawn(async move { read_stream(&channel, 64 << 10, 1 << 20).await })
                })
                .collect();
            p99[at].push(quantile(&call(race, way, 1, 300), 0.99));
            streams.iter().for_each(tokio::task::JoinHandle::abort);
        }
    }
    for at in 0..race.ways.len() {
        report.add(&race.row(at, &format!("unary beside {BESIDE_STREAMS} streams/p99"), "us", &p99));
    }
}

/// Measures the memory of newly started gateways, because a gateway keeps buffers from earlier traffic.
fn memory(report: &mut BenchReport, runtime: &Runtime, dir: &Path, source: SocketAddr) {
    for transport in ["tcp", "quic"] {
        let (mut held, mut idle) = ([Vec::new(), Vec::new()], Vec::new());
        for round in 0..ROUNDS {
            let fresh = |what: &str, reach| {
                let folder = dir.join(format!("{what}-{transport}-{round}"));
                let way = through_gateways(&folder, transport, source, reach);
                wait_for("an answer of fresh gateways", START, || {
                    runtime.block_on(label_names(&way.channel))
                });
                runtime.block_on(read_stream(&way.channel, 64 << 10, 16));
                way
            };
            let grown = stalled(runtime, &fresh("stalled", Reach::IsDialled));
            held.iter_mut().zip(grown).for_each(|(values, grown)| values.push(grown));
            idle.push(idle_stream(runtime, &fresh("idle", Reach::Both)));
        }
        for (side, values) in ["observability", "cluster"].iter().zip(held) {
            let name = format!("mesh/{transport}/stalled reader, held by the {side} gateway");
            report.add(&BenchRow::new(name, "MiB", values));
        }
        report.add(&BenchRow::new(format!("mesh/{transport}/idle stream, both gateways"), "KiB", idle));
    }
}

/// A reader takes one message of a 1 GiB stream and then stops. Returns the most by which each gateway grows, in MiB.
fn stalled(runtime: &Runtime, way: &Way) -> Vec<f64> {
    let before: Vec<u64> = way.gateways.iter().map(|id| Usage::of(*id).rss_bytes).collect();
    let mut most = before.clone();
    runtime.block_on(async {
        let request = series_request(64 << 10, 16 << 10);
        let mut stream = client(&way.channel).series(request).await.expect("a stream").into_inner();
        stream.next().await.expect("a message").expect("a message");
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            for (most, id) in most.iter_mut().zip(&way.gateways) {
                *most = (*most).max(Usage::of(*id).rss_bytes);
            }
        }
    });
    most.iter().zip(before).map(|(most, before)| (most - before) as f64 / MIB).collect()
}

/// Streams that have sent one message and are idle since. Returns the memory per stream in both gateways together, in KiB.
fn idle_stream(runtime: &Runtime, way: &Way) -> f64 {
    let rss = || way.gateways.iter().map(|id| Usage::of(*id).rss_bytes).sum::<u64>();
    let before = rss();
    let after = runtime.block_on(async {
        let mut streams = Vec::new();
        for _ in 0..IDLE_STREAMS {
            let mut stream =
                client(&way.channel).series(series_request(1, 0)).await.expect("a stream").into_inner();
            stream.next().await.expect("a message").expect("a message");
            streams.push(stream);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        rss()
    });
    after.saturating_sub(before) as f64 / IDLE_STREAMS as f64 / 1024.0
}
