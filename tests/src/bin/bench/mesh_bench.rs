//! Transfers through two gateways over QUIC and over TCP, compared with a direct connection.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::join_all;
use mesh::Channel;
use proto::thanos::store_client::StoreClient;
use proto::thanos::{LabelNamesRequest, SeriesRequest};
use tests::{Cluster, Mesh, Process, Reach, Usage, free_port, wait_for};
use tokio::runtime::Runtime;

use crate::report::{BenchReport, BenchRow, median};
use crate::source;

const ROUNDS: usize = 3;
const MIB: f64 = (1 << 20) as f64;
/// Bytes that one bulk stream transfers in one round.
const STREAM_BYTES: usize = 512 << 20;
const START: Duration = Duration::from_secs(30);
/// Must be lower than the number of streams that a cluster's gateway allows per peer.
const IDLE_STREAMS: usize = 200;

/// A route from the client to the source.
struct Way {
    name: &'static str,
    channel: Channel,
    /// Process ids of the gateways on the route: observability side, cluster side.
    gateways: Vec<u32>,
    _mesh: Option<Mesh>,
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
    let address = free_port();
    let me = std::env::current_exe().expect("a running program has a file");
    let args = [source::ROLE.to_owned(), address.to_string()];
    let _source = Process::start(&me, &args, &dir.path().join("source.log"));
    let runtime = Runtime::new().expect("a runtime");
    let _inside = runtime.enter();

    let direct = mesh::direct(&address.to_string()).expect("an address");
    let mut ways = vec![Way { name: "direct", channel: direct, gateways: Vec::new(), _mesh: None }];
    for transport in ["tcp", "quic"] {
        ways.push(through_gateways(&dir.path().join(transport), transport, address));
    }
    for way in &ways {
        wait_for(&format!("an answer, {}", way.name), START, || runtime.block_on(label_names(&way.channel)));
    }
    bulk(report, &runtime, &ways, "stream of 64 KiB messages", 64 << 10, 1);
    bulk(report, &runtime, &ways, "stream of 1 KiB messages", 1 << 10, 1);
    bulk(report, &runtime, &ways, "8 streams of 64 KiB messages", 64 << 10, 8);
    unary(report, &runtime, &ways, 1, 2_000);
    unary(report, &runtime, &ways, 32, 20_000);
    drop(ways);
    memory(report, &runtime, dir.path(), address);
}

fn through_gateways(dir: &Path, transport: &'static str, source: SocketAddr) -> Way {
    std::fs::create_dir_all(dir).expect("a folder");
    let cluster = Cluster {
        name: source::CLUSTER,
        reach: Reach::IsDialled,
        targets: vec![("source".to_owned(), source)],
    };
    let mesh = Mesh::start(dir, transport, &[cluster]);
    let target = format!("source.{}", source::CLUSTER).parse().expect("a target's name");
    let channel = mesh::via(&mesh.grpc.to_string(), &target).expect("an address");
    let gateways = vec![mesh.observability.id(), mesh.clusters[0].id()];
    Way { name: transport, channel, gateways, _mesh: Some(mesh) }
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

fn bulk(report: &mut BenchReport, runtime: &Runtime, ways: &[Way], what: &str, bytes: usize, streams: usize) {
    // Small messages use more CPU time in the client and the source. Fewer bytes are enough for them.
    let total = if bytes < 64 << 10 { STREAM_BYTES / 4 } else { STREAM_BYTES };
    let count = total / bytes / streams;
    let mut rates = vec![Vec::new(); ways.len()];
    let mut costs = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for (at, way) in ways.iter().enumerate() {
            let (begun, cpu) = (Instant::now(), way.cpu_seconds());
            runtime.block_on(join_all((0..streams).map(|_| read_stream(&way.channel, bytes, count))));
            let mib = (count * streams * bytes) as f64 / MIB;
            rates[at].push(mib / begun.elapsed().as_secs_f64());
            costs[at].push((way.cpu_seconds() - cpu) / (mib / 1024.0));
        }
    }
    let direct = median(&rates[0]);
    for (at, way) in ways.iter().enumerate() {
        let row = BenchRow::new(format!("mesh/{}/{what}", way.name), "MiB/s", rates[at].clone());
        let row = if at == 0 { row } else { row.versus("direct", direct).peak(way.peak_rss()) };
        report.add(&row);
    }
    for (at, way) in ways.iter().enumerate().skip(1) {
        report.add(&BenchRow::new(
            format!("mesh/{}/{what}/cpu of both", way.name),
            "s/GiB",
            costs[at].clone(),
        ));
    }
}

fn unary(report: &mut BenchReport, runtime: &Runtime, ways: &[Way], concurrency: usize, calls: usize) {
    let mut rates = vec![Vec::new(); ways.len()];
    let mut quantiles = vec![[Vec::new(), Vec::new()]; ways.len()];
    for _ in 0..ROUNDS {
        for (at, way) in ways.iter().enumerate() {
            let begun = Instant::now();
            let workers = (0..concurrency).map(|_| async {
                let mut micros = Vec::with_capacity(calls / concurrency);
                for _ in 0..calls / concurrency {
                    let call = Instant::now();
                    label_names(&way.channel).await.expect("an answer");
                    micros.push(call.elapsed().as_secs_f64() * 1e6);
                }
                micros
            });
            let mut micros: Vec<f64> = runtime.block_on(join_all(workers)).into_iter().flatten().collect();
            rates[at].push(micros.len() as f64 / begun.elapsed().as_secs_f64());
            micros.sort_by(f64::total_cmp);
            for (quantile, values) in [0.5, 0.99].into_iter().zip(&mut quantiles[at]) {
                values.push(micros[((micros.len() - 1) as f64 * quantile) as usize]);
            }
        }
    }
    for (at, way) in ways.iter().enumerate() {
        let name = format!("mesh/{}/unary, {concurrency} at once", way.name);
        let compare = |row: BenchRow, direct: f64| if at == 0 { row } else { row.versus("direct", direct) };
        report.add(&compare(BenchRow::new(&name, "calls/s", rates[at].clone()), median(&rates[0])));
        for (label, i) in [("p50", 0), ("p99", 1)] {
            let row = BenchRow::new(format!("{name}/{label}"), "us", quantiles[at][i].clone());
            report.add(&compare(row, median(&quantiles[0][i])));
        }
    }
}

/// Measures the memory of newly started gateways, because a gateway keeps buffers from earlier traffic.
fn memory(report: &mut BenchReport, runtime: &Runtime, dir: &Path, source: SocketAddr) {
    for transport in ["tcp", "quic"] {
        let (mut held, mut idle) = ([Vec::new(), Vec::new()], Vec::new());
        for round in 0..ROUNDS {
            let fresh = |what: &str| {
                let way =
                    through_gateways(&dir.join(format!("{what}-{transport}-{round}")), transport, source);
                wait_for("an answer of fresh gateways", START, || {
                    runtime.block_on(label_names(&way.channel))
                });
                runtime.block_on(read_stream(&way.channel, 64 << 10, 16));
                way
            };
            let grown = stalled(runtime, &fresh("stalled"));
            held.iter_mut().zip(grown).for_each(|(values, grown)| values.push(grown));
            idle.push(idle_stream(runtime, &fresh("idle")));
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
