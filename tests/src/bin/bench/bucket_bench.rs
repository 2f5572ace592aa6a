//! Uploads and downloads of blocks, compared with plain copies of their files, and listing a bucket with 10,000 blocks.
//!
//! An upload hashes the files, sends them, reads them back and compares them, which is three times the bytes of a copy. Each
//! stage runs in its own process, so that its peak memory can be measured; the servers run in other processes. The page cache is
//! warm.
//!
//! `ISTHMUS_BENCH_MIB` sets the size of the block and `ISTHMUS_BENCH_BLOCKS` the number of blocks.

#[path = "../../../../libs/bucket/tests/bucket/gcs.rs"]
mod gcs;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use bucket::{
    Bucket, BucketConfig, BucketMetrics, Discovery, DownloadOptions, FetchMetrics, FetchOptions, Fetcher,
    PublishOptions, download, layout, publish,
};
use model::Timestamp;
use serde_json::{Value, json};
use tests::Usage;
use tokio::runtime::Runtime;
use tsdb::{BlockMeta, ThanosMeta, Ulid};

use crate::moto::Moto;
use crate::report::{BenchReport, BenchRow, median};

/// The first argument with which the benchmark program runs one stage and prints the measurement.
pub(crate) const ROLE: &str = "--bucket-stage";

/// Size of the block in MiB. A block of two hours and about 200,000 series has this size.
const BLOCK_MIB: usize = 512;
/// Number of blocks in the bucket that is listed.
const BLOCKS: u64 = 10_000;
const ROUNDS: u64 = 3;
const MIB: usize = 1 << 20;

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(usual)
}

pub(crate) fn run(report: &mut BenchReport) {
    let runtime = Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let block = dir.path().join("block");
    write_block(&block, setting("ISTHMUS_BENCH_MIB", BLOCK_MIB as u64) as usize * MIB);
    let copied = stage("copy", "", &block, &dir.path().join("copy"));
    let base = median(&copied.0);
    report.add(&BenchRow::new("bucket/copy of files", "MiB/s", copied.0).peak(copied.1));

    let folder = dir.path().join("bucket");
    fs::create_dir(&folder).expect("a folder");
    let directory = format!("type: FILESYSTEM\nconfig: {{directory: {folder:?}}}");
    move_block(report, "directory", &directory, &block, dir.path(), base);
    let mock = runtime.block_on(gcs::start(1000));
    move_block(report, "http mock", &gcs_yaml(mock), &block, dir.path(), base);
    if let Some(moto) = Moto::start() {
        move_block(report, "moto", &moto.yaml(moto.address()), &block, dir.path(), base);
    }

    let blocks = setting("ISTHMUS_BENCH_BLOCKS", BLOCKS);
    let folder = dir.path().join("many");
    fs::create_dir(&folder).expect("a folder");
    let directory = format!("type: FILESYSTEM\nconfig: {{directory: {folder:?}}}");
    let mock = gcs_yaml(runtime.block_on(gcs::start(1000)));
    for (name, yaml) in [("directory", &directory), ("http mock", &mock)] {
        runtime.block_on(fill(&open(yaml, ""), blocks));
        for (discovery, how) in [("concurrent", "heads"), ("recursive", "listing")] {
            for look in ["first", "again", "after a restart"] {
                let (values, peak) =
                    stage(&format!("{discovery} {look}"), yaml, &block, &dir.path().join("data"));
                let row = BenchRow::new(format!("bucket/view/{name}/{how}/{look}/{blocks}"), "s", values);
                report.add(&row.peak(peak));
            }
        }
    }
}

fn move_block(report: &mut BenchReport, name: &str, yaml: &str, block: &Path, dir: &Path, base: f64) {
    let copy = dir.join("download");
    for what in ["upload", "download"] {
        let (values, peak) = stage(what, yaml, block, &copy);
        let row = BenchRow::new(format!("bucket/{what}/{name}"), "MiB/s", values);
        report.add(&row.versus("copy", base).peak(peak));
    }
}

fn gcs_yaml(address: std::net::SocketAddr) -> String {
    let account = json!({
        "gcs_base_url": format!("http://{address}"),
        "disable_oauth": true,
        "client_email": "", "private_key": "", "private_key_id": "",
    });
    format!("type: GCS\nconfig: {{bucket: {}, service_account: '{account}'}}", gcs::BUCKET)
}

fn open(yaml: &str, prefix: &str) -> Bucket {
    let config = BucketConfig::parse(&format!("{yaml}\nprefix: \"{prefix}\"")).expect("a configuration");
    config.open(&BucketMetrics::default()).expect("a bucket")
}

/// Writes files of the sizes of a block's files, with random content: four segments and an index a quarter of their size.
fn write_block(dir: &Path, bytes: usize) {
    fs::create_dir_all(dir.join("chunks")).expect("a folder");
    let mut state = 1u64;
    let mut noise = |length: usize| -> Vec<u8> {
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        (0..length.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(length).collect()
    };
    for segment in 1..=4 {
        fs::write(dir.join(format!("chunks/{segment:06}")), noise(bytes / 5)).expect("a segment");
    }
    fs::write(dir.join("index"), noise(bytes / 5)).expect("an index");
}

fn meta(number: u64) -> BlockMeta {
    let start = Timestamp::from_millis(1_700_000_000_000 + 7_200_000 * number as i64);
    let id = Ulid::from_parts(1_700_000_000_000 + number, u128::from(number));
    let mut meta = BlockMeta::new(id, start, start.offset_millis(7_200_000));
    let label = |name: &str, value: String| (name.to_owned(), value);
    meta.thanos = Some(ThanosMeta {
        labels: BTreeMap::from([
            label("cluster", format!("eu-{}", number % 40)),
            label("replica", (number % 2).to_string()),
        ]),
        source: "sidecar".to_owned(),
        segment_files: vec!["000001".to_owned()],
        ..ThanosMeta::default()
    });
    meta
}

/// Uploads a `meta.json` and an index for each block.
async fn fill(bucket: &Bucket, blocks: u64) {
    use futures::StreamExt;
    let puts = (0..blocks).map(|number| async move {
        let meta = meta(number);
        bucket.put(&layout::block_file(meta.ulid, "index"), "x".into()).await.expect("an index");
        bucket.put(&layout::meta(meta.ulid), meta.to_json().into()).await.expect("a meta");
    });
    futures::stream::iter(puts).buffer_unordered(32).collect::<()>().await;
}

/// Runs a stage in its own process. Returns its measurements and its peak memory.
fn stage(name: &str, yaml: &str, block: &Path, out: &Path) -> (Vec<f64>, u64) {
    let this = std::env::current_exe().expect("a running program has a file");
    let args = json!({"stage": name, "yaml": yaml, "block": block, "out": out});
    let output = Command::new(this).args([ROLE, &args.to_string()]).output().expect("the stage runs");
    let told = String::from_utf8_lossy(&output.stdout);
    let value: Value = serde_json::from_str(&told)
        .unwrap_or_else(|e| panic!("{name}: {e}: {told}{}", String::from_utf8_lossy(&output.stderr)));
    let values = value["values"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
    (values, value["peak"].as_u64().unwrap_or(0))
}

/// Runs the stage that [`stage`] requested, in the child process.
pub(crate) fn run_stage(args: &str) {
    let args: Value = serde_json::from_str(args).expect("arguments of `stage`");
    let text = |key: &str| args[key].as_str().unwrap_or_default().to_owned();
    let (block, out) = (PathBuf::from(text("block")), PathBuf::from(text("out")));
    let runtime = Runtime::new().expect("a runtime");
    let values: Vec<f64> = match text("stage").as_str() {
        "copy" => (0..ROUNDS).map(|_| rate(&block, || copy(&block, &out))).collect(),
        "upload" => (0..ROUNDS)
            .map(|round| {
                let bucket = open(&text("yaml"), &format!("round-{round}"));
                rate(&block, || {
                    let done =
                        runtime.block_on(publish(&bucket, &block, meta(0), &PublishOptions::default()));
                    assert!(done.expect("a published block").sent_bytes > 0);
                })
            })
            .collect(),
        "download" => (0..ROUNDS)
            .map(|round| {
                let bucket = open(&text("yaml"), &format!("round-{round}"));
                let rate = rate(&block, || {
                    let options = DownloadOptions::default();
                    let done = runtime.block_on(download(&bucket, meta(0).ulid, &out, &options));
                    done.expect("a downloaded block");
                });
                fs::remove_dir_all(&out).expect("a folder to remove");
                rate
            })
            .collect(),
        look => runtime.block_on(view(&open(&text("yaml"), ""), look, &out)),
    };
    println!("{}", json!({"values": values, "peak": Usage::of(std::process::id()).peak_rss_bytes}));
}

/// Seconds for listing a bucket: the first time, with everything in memory, and with everything on disk.
async fn view(bucket: &Bucket, look: &str, data: &Path) -> Vec<f64> {
    let (discovery, look) = look.split_once(' ').expect("a discovery and a look");
    let options = || FetchOptions {
        discovery: discovery.parse::<Discovery>().expect("a discovery"),
        data_dir: Some(data.to_owned()),
        ..FetchOptions::default()
    };
    let open =
        || Fetcher::new(bucket.clone(), options(), FetchMetrics::default()).expect("a folder for the cache");
    let mut values = Vec::new();
    for _ in 0..ROUNDS {
        if look == "first" && data.exists() {
            fs::remove_dir_all(data).expect("a folder to remove");
        }
        let fetcher = open();
        if look == "again" {
            fetcher.fetch(Timestamp::EPOCH).await.expect("a view");
        }
        let begun = Instant::now();
        let view = fetcher.fetch(Timestamp::EPOCH).await.expect("a view");
        values.push(begun.elapsed().as_secs_f64());
        assert!(!view.blocks.is_empty());
    }
    values
}

/// MiB of the block per second.
fn rate(block: &Path, work: impl FnOnce()) -> f64 {
    let files = files(block);
    let bytes: u64 = files.iter().map(|file| fs::metadata(file).expect("a file").len()).sum();
    let begun = Instant::now();
    work();
    bytes as f64 / MIB as f64 / begun.elapsed().as_secs_f64()
}

fn files(block: &Path) -> Vec<PathBuf> {
    let segments = fs::read_dir(block.join("chunks")).expect("segments");
    let mut files: Vec<PathBuf> = segments.map(|entry| entry.expect("an entry").path()).collect();
    files.push(block.join("index"));
    files
}

/// A copy that is synced to disk, like the files to which it is compared.
fn copy(block: &Path, out: &Path) {
    fs::create_dir_all(out).expect("a folder");
    for file in files(block) {
        let to = out.join(file.file_name().expect("a name"));
        fs::copy(&file, &to).expect("a copy");
        File::open(&to).and_then(|file| file.sync_all()).expect("a copy on disk");
    }
}
