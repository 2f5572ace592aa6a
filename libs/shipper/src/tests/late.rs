//! Samples that arrive out of order. A real Prometheus merges them into blocks of level 2 in the pass that cuts
//! them, so that the shipper never sees the blocks that they were cut into.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::process::Stdio;

use bucket::{FetchMetrics, FetchOptions, Fetcher, Filters};

use super::*;
use crate::faults;
use crate::testing::{Prometheus, free_port, wait_until};

/// All samples: values by series and time in milliseconds.
type Written = BTreeMap<(usize, i64), f64>;

const SERIES: usize = 5;
/// Interval of the samples that arrive in order, in seconds.
const STEP: i64 = 60;

/// A Prometheus with an out-of-order window of a day, and what was written to it.
struct LateWorld {
    dir: TempDir,
    prometheus: Prometheus,
    written: Written,
}

impl LateWorld {
    async fn new() -> Self {
        let dir = TempDir::new().expect("a folder");
        fs::create_dir(dir.path().join("bucket")).expect("a folder");
        let config = "global:\n  external_labels: {cluster: eu-1}\n\
                      storage:\n  tsdb:\n    out_of_order_time_window: 1d\n";
        fs::write(dir.path().join("prometheus.yml"), config).expect("a file");
        let prometheus = start(dir.path());
        let world = Self { dir, prometheus, written: Written::new() };
        world.wait_until_ready().await;
        world
    }

    async fn wait_until_ready(&self) {
        let address = self.prometheus.address;
        wait_until("Prometheus", async || {
            request(address, "GET", "/-/ready", b"").is_ok_and(|code| code == 200)
        })
        .await;
    }

    /// Kills Prometheus and starts it again.
    async fn restart(&mut self) {
        let dir = self.dir.path().to_owned();
        self.prometheus.kill();
        self.prometheus = start(&dir);
        self.wait_until_ready().await;
    }

    /// Writes one sample of each series at each of `times`, in seconds after [`BEGIN`].
    fn write(&mut self, times: impl Iterator<Item = i64> + Clone) {
        let mut body = Vec::new();
        for series in 0..SERIES {
            let mut one = Vec::new();
            for (name, value) in [("__name__", "late"), ("series", &*series.to_string())] {
                let label = [field(1, name.as_bytes()), field(2, value.as_bytes())].concat();
                one.extend(field(1, &label));
            }
            for at in times.clone() {
                let (millis, value) = ((BEGIN + at) * 1000, (at * 7 + series as i64) as f64);
                self.written.insert((series, millis), value);
                let mut sample = vec![0x09];
                sample.extend(value.to_le_bytes());
                sample.push(0x10);
                sample.extend(varint(millis.unsigned_abs()));
                one.extend(field(2, &sample));
            }
            body.extend(field(1, &one));
        }
        let body = snap::raw::Encoder::new().compress_vec(&body).expect("compressed");
        let code = request(self.prometheus.address, "POST", "/api/v1/write", &body).expect("an answer");
        assert!(code == 204 || code == 200, "remote write was answered with {code}");
    }

    fn run(&self) -> ShipperRun {
        let folder = LocalFileSystem::new_with_prefix(self.dir.path().join("bucket")).expect("a bucket");
        run_in(&self.dir.path().join("data"), Bucket::new(Arc::new(folder)))
    }

    /// The blocks of Prometheus that are complete now.
    fn local(&self) -> Vec<BlockMeta> {
        let found = crate::local::LocalBlocks::find(&self.dir.path().join("data")).expect("blocks");
        found.blocks.into_iter().map(|block| block.meta).collect()
    }

    /// Waits until Prometheus has cut `ranges` blocks, and has merged late samples into the blocks `merged`, which
    /// are none of `before`.
    async fn wait_until_merged(&self, ranges: i64, merged: Range<i64>, before: &[BlockMeta]) {
        wait_until("the blocks", async || {
            let blocks = self.local();
            let of = |range: i64| {
                blocks.iter().filter(move |meta| meta.min_time < at(range + 1) && at(range) < meta.max_time)
            };
            let is_new = |meta: &BlockMeta| before.iter().all(|other| other.ulid != meta.ulid);
            (0..ranges).all(|range| of(range).count() == 1)
                && merged.clone().all(|range| of(range).all(|meta| meta.compaction.level > 1 && is_new(meta)))
        })
        .await;
    }

    /// Checks that readers of the bucket, such as stores and compactors, find each sample before `until`, in seconds after [`BEGIN`], once.
    async fn check(&self, until: i64) {
        assert_eq!(self.missing(until).await, None);
    }

    /// A sample before `until` that readers do not find once, and the values that they find.
    async fn missing(&self, until: i64) -> Option<String> {
        let end = (BEGIN + until) * 1000;
        let expected = self.written.iter().filter(|((_, at), _)| *at < end);
        self.not_found_once(expected).await
    }

    /// A sample in a block of Prometheus that readers of the bucket do not find once.
    async fn left_behind(&self) -> Option<String> {
        let mut expected = Written::new();
        for meta in self.local() {
            let dir = self.dir.path().join("data").join(meta.ulid.to_string());
            let Some(block) = samples(&dir) else { return Some(format!("{} was removed", meta.ulid)) };
            expected.extend(block.into_iter().map(|(series, at, value)| ((series, at), value)));
        }
        self.not_found_once(expected.iter()).await
    }

    async fn not_found_once<'a>(
        &self,
        mut expected: impl Iterator<Item = (&'a (usize, i64), &'a f64)>,
    ) -> Option<String> {
        let bucket = self.dir.path().join("bucket");
        let folder = LocalFileSystem::new_with_prefix(&bucket).expect("a bucket");
        let metrics = FetchMetrics::new(&mut Registry::default());
        let filters = Filters { deduplicates: true, ..Filters::default() };
        let options = FetchOptions { filters, ..FetchOptions::default() };
        let fetcher = Fetcher::new(Bucket::new(Arc::new(folder)), options, metrics);
        let view = fetcher.expect("a fetcher").fetch(now()).await.expect("a view");
        let mut found: BTreeMap<(usize, i64), Vec<f64>> = BTreeMap::new();
        for id in view.blocks.keys() {
            for (series, at, value) in samples(&bucket.join(id.to_string())).expect("a block") {
                found.entry((series, at)).or_default().push(value);
            }
        }
        let wrong = expected.find(|(key, value)| found.get(key).map(Vec::as_slice) != Some(&[**value]));
        wrong.map(|(key, value)| {
            format!("series and time {key:?}: expected {value} once, found {:?}", found.get(key))
        })
    }
}

fn start(dir: &Path) -> Prometheus {
    let flags = [
        "--web.enable-remote-write-receiver",
        "--storage.tsdb.min-block-duration=2h",
        "--storage.tsdb.max-block-duration=2h",
    ];
    Prometheus::run(Path::new("prometheus"), dir, free_port(), &flags)
}

/// All samples of a block: the number of the series, the time in milliseconds, and the value. `None` if the block was
/// removed meanwhile.
fn samples(dir: &Path) -> Option<Vec<(usize, i64, f64)>> {
    read_samples(dir).map_err(|error| assert!(!dir.exists(), "{error}")).ok()
}

fn read_samples(dir: &Path) -> Result<Vec<(usize, i64, f64)>, tsdb::BlockError> {
    let block = Block::open(dir)?;
    let mut out = Vec::new();
    for series in block.select(&[], TimeRange::ALL)? {
        let series = series?;
        let number = series.labels.get("series").and_then(|value| value.parse().ok()).expect("a number");
        for chunk in block.chunks(&series.chunks)? {
            let (mut times, mut values) = (Vec::new(), Vec::new());
            chunk.decode_floats(&mut times, &mut values).expect("floats");
            out.extend(times.into_iter().zip(values).map(|(at, value)| (number, at, value)));
        }
    }
    Ok(out)
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A field of a protobuf message that is bytes or a message.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2][..], &varint(content.len() as u64), content].concat()
}

/// Sends one request; returns the status code.
fn request(address: SocketAddr, method: &str, path: &str, body: &[u8]) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Encoding: snappy\r\n\
         Content-Type: application/x-protobuf\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    )?;
    stream.write_all(body)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0))
}

#[tokio::test]
async fn late_samples_that_prometheus_merges_at_once_reach_the_bucket_once() {
    if !installed() {
        return;
    }
    let mut world = LateWorld::new().await;
    let mut run = world.run();
    let hours = |from: i64, to: i64| (from * 3600..to * 3600).step_by(STEP as usize);

    println!("late samples before the first block is cut");
    world.write(hours(0, 2));
    world.write((600..3000).step_by(100).map(|at| at + 30));
    world.write(hours(2, 6));
    world.wait_until_merged(2, 0..1, &[]).await;
    run.pass().await.expect("a pass");
    world.check(4 * 3600).await;
    assert_eq!((run.metrics.lost.get(), run.metrics.compacted_done.get()), (0, 1));

    println!("late samples for blocks that are in the bucket");
    let before = world.local();
    world.write((5000..13_000).step_by(500).map(|at| at + 7));
    world.write(hours(6, 8));
    world.wait_until_merged(3, 0..2, &before).await;
    run.pass().await.expect("a pass");
    world.check(6 * 3600).await;

    println!("the same again, without the journal");
    let before = world.local();
    fs::remove_file(world.dir.path().join("data/thanos/shipper-journal.json")).expect("the journal");
    world.write((200..6000).step_by(700).map(|at| at + 11));
    world.write(hours(8, 10));
    world.wait_until_merged(4, 0..1, &before).await;
    let mut run = world.run();
    run.pass().await.expect("a pass");
    world.check(8 * 3600).await;
    assert_eq!((run.metrics.lost.get(), run.metrics.compacted_done.get()), (0, 1));
    world.restart().await;
    run.pass().await.expect("a pass");
    world.check(8 * 3600).await;
}

/// 10 kills of the shipper; 50 with `ISTHMUS_LONG=1`. `ISTHMUS_SEED` repeats the writes and the steps of the kills.
#[tokio::test]
async fn late_samples_survive_kills_of_shipper_and_prometheus() {
    if !installed() {
        return;
    }
    let seed = faults::seed();
    let rounds = if std::env::var_os("ISTHMUS_LONG").is_some() { 50 } else { 10 };
    println!("seed {seed} (ISTHMUS_SEED), {rounds} rounds");
    let mut random = faults::numbers(seed);
    let mut world = LateWorld::new().await;
    let (mut kills, mut restarts) = (0, 0);
    for round in 0..rounds {
        let end = (round + 1) * RANGE;
        let before: Vec<Ulid> = world.local().iter().map(|meta| meta.ulid).collect();
        world.write((round * RANGE..end).step_by(STEP as usize));
        // Each sample is written once, so those of this round have a second of their own.
        let begin = (end - 86_000 + random(80_000) as i64).clamp(0, end - 1800);
        let late = (begin / 60 * 60 + 1 + round % 59..end - 600).step_by(60 * (1 + random(40) as usize));
        world.write(late);
        // The head is cut from the second round on. Prometheus may be merging blocks meanwhile.
        if round > 1 {
            let is_new = |meta: &BlockMeta| !before.contains(&meta.ulid);
            wait_until("a block", async || world.local().iter().any(is_new)).await;
        }
        for _ in 0..1 + random(2) {
            let step = 1 + random(40);
            let ended = faults::child(world.dir.path(), Some(step)).status().expect("a child");
            kills += u64::from(!ended.success());
        }
        if random(4) == 0 {
            world.restart().await;
            restarts += 1;
        }
    }
    let hours = rounds * 2;
    world.write((hours * 3600..(hours + 4) * 3600).step_by(STEP as usize));
    world.wait_until_merged(rounds, 0..0, &[]).await;
    // A pass may run while Prometheus merges the last late samples. A killed Prometheus may lose samples, so what counts
    // is what its blocks have.
    let mut last = String::new();
    wait_until("all samples of all blocks", async || {
        let child = faults::child(world.dir.path(), None).stdout(Stdio::piped()).output().expect("a child");
        let left = match child.status.success() {
            true => world.left_behind().await.unwrap_or_default(),
            false => String::from_utf8_lossy(&child.stdout).into_owned(),
        };
        if left != last {
            println!("left behind: {left}");
            last.clone_from(&left);
        }
        left.is_empty()
    })
    .await;
    println!("lost by the kills of Prometheus: {:?}", world.missing(hours * 3600).await);
    println!("killed the shipper {kills} times and Prometheus {restarts} times");
    assert!(kills * 3 > rounds as u64, "only {kills} kills");
}
