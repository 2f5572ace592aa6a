//! Tests of the shipper with real blocks made by promtool, and a bucket in a directory.

mod disks;
mod gone;
mod late;
mod twice;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bucket::fault::{Faults, FaultyStore};
use bucket::{Bucket, layout};
use model::{MatchOp, Matcher, TimeRange, Timestamp};
use object_store::local::LocalFileSystem;
use runtime::Registry;
use tempfile::TempDir;
use tokio::sync::watch;
use tsdb::{Block, BlockMeta, Ulid};

use crate::config::ShipperConfig;
use crate::metrics::ShipperMetrics;
use crate::shipper::{Producer, Shipper, now};
use crate::testing::{installed, labels};

/// A multiple of two hours, so that blocks start at the same times as those of Prometheus.
const BEGIN: i64 = 1_700_006_400;
const RANGE: i64 = 7200;

/// Interval of the comparison of journal and bucket.
const HOUR: Duration = Duration::from_secs(3600);

/// The content of a block for comparison: series by their labels, each with encodings and bytes of its
/// chunks.
type BlockContent = BTreeMap<String, Vec<(u8, Vec<u8>)>>;

/// Reads the whole content of a block.
pub(crate) fn content(dir: &Path) -> BlockContent {
    let block = Block::open(dir).unwrap_or_else(|error| panic!("{error}"));
    let all = Matcher::new(MatchOp::Regex, "__name__", ".*").expect("a matcher");
    let series = block.select(&[all], TimeRange::ALL).expect("series").map(|series| {
        let series = series.unwrap_or_else(|error| panic!("{error}"));
        let chunks = block.chunks(&series.chunks).unwrap_or_else(|error| panic!("{error}"));
        let chunks = chunks.iter().map(|chunk| (chunk.encoding.byte(), chunk.data.to_vec()));
        (series.labels.to_string(), chunks.collect())
    });
    series.collect()
}

/// Creates `n` blocks of two hours in `data`, starting at [`BEGIN`]; returns their ids in time order.
pub(crate) fn make_blocks(data: &Path, n: i64) -> Vec<Ulid> {
    let dir = TempDir::new().expect("a folder");
    let mut text = String::new();
    for series in 0..7 {
        for at in (BEGIN..BEGIN + n * RANGE).step_by(60) {
            let value = (at * (series + 3)) % 1009;
            let _ = writeln!(text, "temperature{{room=\"{series}\"}} {value}.5 {at}");
        }
    }
    text.push_str("# EOF\n");
    let input = dir.path().join("input.om");
    fs::write(&input, text).expect("a file");
    fs::create_dir_all(data).expect("a folder");
    let output = Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .args([&input, data])
        .output()
        .expect("promtool runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = crate::local::LocalBlocks::find(data).expect("blocks");
    assert_eq!(found.blocks.len() as i64, n);
    found.blocks.iter().map(|block| block.meta.ulid).collect()
}

/// The data directory of Prometheus, and a bucket.
pub(crate) struct ShipperWorld {
    dir: TempDir,
    pub(crate) store: Arc<FaultyStore>,
    pub(crate) blocks: Vec<Ulid>,
}

impl ShipperWorld {
    pub(crate) fn new(blocks: i64) -> Self {
        let dir = TempDir::new().expect("a folder");
        fs::create_dir(dir.path().join("bucket")).expect("a folder");
        let folder = LocalFileSystem::new_with_prefix(dir.path().join("bucket")).expect("a bucket");
        let blocks = make_blocks(&dir.path().join("data"), blocks);
        Self { store: FaultyStore::new(Arc::new(folder), 1), dir, blocks }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn local(&self, block: Ulid) -> PathBuf {
        self.data().join(block.to_string())
    }

    pub(crate) fn remote(&self, block: Ulid) -> PathBuf {
        self.dir.path().join("bucket").join(block.to_string())
    }

    fn pin(&self, block: Ulid) -> PathBuf {
        self.data().join("thanos/upload").join(block.to_string())
    }

    fn uploaded_list(&self) -> String {
        fs::read_to_string(self.data().join("thanos.shipper.json")).expect("the list")
    }

    fn is_in_bucket(&self, block: Ulid) -> bool {
        self.remote(block).join("meta.json").exists()
    }

    fn assert_in_bucket(&self, block: Ulid) {
        assert!(self.is_in_bucket(block), "{block} is not in the bucket");
        assert_eq!(content(&self.remote(block)), content(&self.local(block)), "{block}");
    }

    fn remote_meta(&self, block: Ulid) -> BlockMeta {
        BlockMeta::parse(&fs::read(self.remote(block).join("meta.json")).expect("a meta")).expect("a meta")
    }

    pub(crate) fn run(&self) -> ShipperRun {
        self.run_with(|_| {})
    }

    fn run_with(&self, change: impl FnOnce(&mut ShipperConfig)) -> ShipperRun {
        let mut config = config(&self.data());
        change(&mut config);
        run(config, Bucket::new(Arc::clone(&self.store) as Arc<dyn object_store::ObjectStore>))
    }
}

fn config(data: &Path) -> ShipperConfig {
    ShipperConfig {
        data_dir: data.to_owned(),
        uploaded_file: data.join("thanos.shipper.json"),
        upload_compacted: false,
        allow_overlaps: false,
        concurrency: 2,
        serve_uploaded: false,
        source: crate::BlockSource::Sidecar,
    }
}

/// Creates a shipper of the blocks in `data`.
pub(crate) fn run_in(data: &Path, bucket: Bucket) -> ShipperRun {
    run(config(data), bucket)
}

fn run(config: ShipperConfig, bucket: Bucket) -> ShipperRun {
    let metrics = ShipperMetrics::new(&mut Registry::default());
    let shipper = Shipper::new(config, bucket, metrics.clone());
    ShipperRun { serve_from: shipper.shipped().serve_from, shipper, metrics, producer: producer("a") }
}

/// A shipper during the lifetime of one process.
pub(crate) struct ShipperRun {
    shipper: Shipper,
    metrics: ShipperMetrics,
    serve_from: watch::Receiver<Timestamp>,
    producer: Producer,
}

impl ShipperRun {
    pub(crate) async fn pass_at(&mut self, now: Timestamp) -> Result<(), String> {
        self.shipper.pass(&self.producer, now).await.map_err(|error| error.to_string())
    }

    pub(crate) async fn pass(&mut self) -> Result<(), String> {
        self.pass_at(now()).await
    }

    fn serve_from(&self) -> Timestamp {
        *self.serve_from.borrow()
    }
}

pub(crate) fn producer(replica: &str) -> Producer {
    Producer {
        external: labels(&[("cluster", "eu-1"), ("replica", replica)]),
        out_of_order_window: Duration::ZERO,
        block_range: Duration::from_secs(RANGE.unsigned_abs()),
    }
}

/// Start of block `n`.
fn at(n: i64) -> Timestamp {
    Timestamp::from_millis((BEGIN + n * RANGE) * 1000)
}

/// End of block `n`: just after its last sample, as promtool sets it.
fn end_of(n: i64) -> Timestamp {
    at(n + 1).offset_millis(1 - 60_000)
}

fn edit_meta(dir: &Path, edit: impl FnOnce(&mut BlockMeta)) {
    let file = dir.join("meta.json");
    let mut meta = BlockMeta::parse(&fs::read(&file).expect("a meta")).expect("a meta");
    edit(&mut meta);
    // As in Prometheus, a new file replaces the old one, so that a pin keeps the old one.
    fs::write(dir.join("meta.json.tmp"), meta.to_json()).expect("a meta");
    fs::rename(dir.join("meta.json.tmp"), file).expect("a meta");
}

fn out_of_order(dir: &Path) {
    edit_meta(dir, |meta| meta.compaction.hints = vec!["from-out-of-order".to_owned()]);
}

/// Imitates `clean_tombstones` of Prometheus: a new block of level 1 replaces the old one.
fn clean(world: &ShipperWorld, old: Ulid) -> Ulid {
    let new = Ulid::from_parts(old.timestamp_ms() + 5, 5);
    fs::rename(world.local(old), world.local(new)).expect("a block");
    edit_meta(&world.local(new), |meta| {
        let (min_time, max_time) = (meta.min_time, meta.max_time);
        meta.compaction.parents = vec![tsdb::BlockDesc { ulid: old, min_time, max_time }];
        meta.compaction.sources = vec![new];
        meta.compaction.level = 1;
        meta.ulid = new;
    });
    new
}

fn flip(file: &Path) {
    let mut bytes = fs::read(file).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::remove_file(file).expect("a file");
    fs::write(file, bytes).expect("a file");
}

#[tokio::test]
async fn blocks_are_uploaded_completely_with_external_labels() {
    if !installed() {
        return;
    }
    let world = ShipperWorld::new(3);
    let mut run = world.run();
    run.pass().await.expect("a pass");
    for block in &world.blocks {
        world.assert_in_bucket(*block);
        assert!(!world.pin(*block).exists(), "a pin is left");
        assert!(world.uploaded_list().contains(&block.to_string()));
        let thanos = world.remote_meta(*block).thanos.expect("Thanos' section");
        assert_eq!(thanos.source, "sidecar");
        let expected = [("cluster", "eu-1"), ("replica", "a")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(thanos.labels, BTreeMap::from(expected));
        assert!(
            thanos.files.iter().all(|file| file.hash.is_some() || file.rel_path == "meta.json"),
            "{:?}",
            thanos.files
        );
        assert!(
            !fs::read_to_string(world.local(*block).join("meta.json")).expect("a meta").contains("thanos")
        );
    }
    assert_eq!(run.metrics.uploads.get(), 3);

    println!("a second pass, and a restart, have nothing to do");
    let requests = world.store.requests();
    run.pass().await.expect("a pass");
    assert_eq!(world.store.requests(), requests, "a pass without new blocks sends requests to the bucket");
    let mut run = world.run();
    run.pass().await.expect("a pass");
    assert_eq!(run.metrics.uploads.get(), 0);
}

#[tokio::test]
async fn removed_block_is_uploaded_from_its_pin() {
    if !installed() {
        return;
    }
    let world = ShipperWorld::new(2);
    let copy = content(&world.local(world.blocks[0]));
    let mut run = world.run();
    world.store.set(Faults { requests_left: Some(0), ..Faults::default() });
    run.pass().await.expect_err("no store");
    assert_eq!(run.serve_from(), Timestamp::MIN, "the sidecar serves all");
    fs::remove_dir_all(world.local(world.blocks[0])).expect("a block");
    drop(run);

    println!("the store is back, after a restart");
    world.store.set(Faults::default());
    let mut run = world.run();
    run.pass().await.expect("a pass");
    assert_eq!(content(&world.remote(world.blocks[0])), copy);
    world.assert_in_bucket(world.blocks[1]);
    assert_eq!(run.metrics.lost.get(), 0);
}

#[tokio::test]
async fn damaged_block_does_not_delay_others_and_is_still_served() {
    if !installed() {
        return;
    }
    for damage in ["chunks/000001", "index", "meta.json"] {
        let world = ShipperWorld::new(3);
        let [first, bad, last] = world.blocks[..] else { panic!("three blocks") };
        let file = world.local(bad).join(damage);
        if damage == "meta.json" {
            fs::write(&file, "{").expect("a file")
        } else {
            flip(&file)
        }
        let mut run = world.run();
        for _ in 0..2 {
            let refused = run.pass().await.expect_err("a damaged block");
            assert!(refused.contains(&bad.to_string()) && refused.contains("1 of "), "{refused}");
        }
        world.assert_in_bucket(first);
        world.assert_in_bucket(last);
        assert!(!world.is_in_bucket(bad) && !world.uploaded_list().contains(&bad.to_string()));
        assert_eq!(run.metrics.corrupted.get(), 1);
        run.pass_at(now() + Duration::from_secs(86_400)).await.ok();
        assert_eq!(run.metrics.corrupted.get(), 1, "counted once");
        assert!(
            run.serve_from() <= at(1),
            "{damage}: data that is not in the bucket must be served: {:?}",
            run.serve_from()
        );
    }
}

#[tokio::test]
async fn serve_from_moves_when_a_store_had_time_to_load_the_block() {
    if !installed() {
        return;
    }
    let world = ShipperWorld::new(2);
    let mut run = world.run();
    let now = now();
    run.pass_at(now).await.expect("a pass");
    assert_eq!(run.serve_from(), Timestamp::MIN);
    run.pass_at(now + Duration::from_secs(3600)).await.expect("a pass");
    assert_eq!(run.serve_from(), Timestamp::MIN);
    let later = now + Duration::from_secs(7200);
    run.pass_at(later).await.expect("a pass");
    assert_eq!(run.serve_from(), end_of(1));

    println!("after a restart the result is the same");
    let mut run = world.run();
    run.pass_at(later).await.expect("a pass");
    assert_eq!(run.serve_from(), end_of(1));

    println!("a block of late samples for old times appears, and the store is away");
    fs::remove_dir_all(world.remote(world.blocks[0])).expect("a block");
    out_of_order(&world.local(world.blocks[0]));
    world.store.set(Faults { requests_left: Some(0), ..Faults::default() });
    fs::remove_file(world.data().join("thanos/shipper-journal.json")).expect("the journal");
    let mut run = world.run();
    run.pass_at(later).await.expect_err("no store");
    assert_eq!(run.serve_from(), Timestamp::MIN);

    println!("--store.serve-uploaded");
    world.store.set(Faults::default());
    let mut run = world.run_with(|config| config.serve_uploaded = true);
    run.pass_at(later).await.expect("a pass");
    run.pass_at(later + Duration::from_secs(7200)).await.expect("a pass");
    assert_eq!(run.serve_from(), Timestamp::MIN);
}

#[tokio::test]
async fn blocks_lost_in_the_bucket_are_uploaded_again() {
    if !installed() {
        return;
    }
    let world = ShipperWorld::new(4);
    let [accident, marked, compacted, there] = world.blocks[..] else { panic!("four blocks") };
    let mut run = world.run();
    run.pass().await.expect("a pass");
    let heir = {
        let mut meta = world.remote_meta(compacted);
        meta.ulid = Ulid::from_parts(compacted.timestamp_ms() + 1, 7);
        meta.compaction.level = 2;
        meta
    };
    fs::remove_dir_all(world.remote(compacted)).expect("a block");
    fs::remove_file(world.remote(accident).join("meta.json")).expect("a meta");
    let mark = bucket::marks::Mark::new(bucket::marks::MarkKind::Deletion, marked, now());
    fs::write(world.remote(marked).join("deletion-mark.json"), mark.to_json()).expect("a mark");
    fs::remove_file(world.remote(marked).join("meta.json")).expect("a meta");
    fs::create_dir(world.remote(heir.ulid)).expect("a folder");
    fs::write(world.remote(heir.ulid).join("meta.json"), heir.to_json()).expect("a meta");

    run.pass().await.expect("a pass");
    assert!(!world.is_in_bucket(accident), "it is looked for once an hour only");
    run.pass_at(now() + HOUR).await.expect("a pass");
    world.assert_in_bucket(accident);
    world.assert_in_bucket(there);
    assert!(!world.is_in_bucket(marked) && !world.is_in_bucket(compacted));
    assert_eq!(run.metrics.repeated.get(), 1);

    println!("without the journal, and with the block compacted in the bucket, nothing is duplicated");
    fs::remove_file(world.data().join("thanos/shipper-journal.json")).expect("the journal");
    let mut run = world.run();
    run.pass().await.expect("a pass");
    assert!(!world.is_in_bucket(compacted) && !world.is_in_bucket(marked));
    assert_eq!(run.metrics.uploads.get(), 2, "found in the bucket and compared");
}

#[tokio::test]
async fn blocks_of_two_producers_with_the_same_labels_are_not_mixed() {
    if !installed() {
        return;
    }
    let (world, twin) = (ShipperWorld::new(2), ShipperWorld::new(2));
    let mut run = world.run();
    run.pass().await.expect("a pass");
    let bucket = Bucket::new(Arc::clone(&world.store) as Arc<dyn object_store::ObjectStore>);
    let mut second = twin.run();
    second.shipper.bucket = bucket;
    let refused = second.pass().await.expect_err("the labels of another");
    assert!(refused.contains("replica=\"a\"") && refused.contains("same external labels"), "{refused}");
    assert!(twin.blocks.iter().all(|block| !world.is_in_bucket(*block)));
    run.pass().await.expect("the first one continues");

    println!("with a label of its own its blocks follow");
    second.producer = producer("b");
    second.pass().await.expect("a pass");
    for block in &twin.blocks {
        assert_eq!(content(&world.remote(*block)), content(&twin.local(*block)));
    }
    assert_eq!(world.remote_meta(twin.blocks[0]).thanos.expect("Thanos' section").labels["replica"], "b");
}

#[tokio::test]
async fn blocks_with_earlier_labels_or_from_thanos_are_recognized() {
    if !installed() {
        return;
    }
    let world = ShipperWorld::new(2);
    let [thanos, renamed] = world.blocks[..] else { panic!("two blocks") };
    let mut run = world.run();
    run.pass().await.expect("a pass");
    edit_meta(&world.remote(thanos), |meta| {
        let section = meta.thanos.as_mut().expect("Thanos' section");
        section.files.iter_mut().for_each(|file| file.hash = None);
        section.version = 0;
    });
    fs::remove_dir_all(world.data().join("thanos")).expect("the shipper's folder");
    let mut run = world.run();
    run.producer = producer("renamed");
    run.pass().await.expect("a pass");
    for block in [thanos, renamed] {
        assert_eq!(world.remote_meta(block).thanos.expect("Thanos' section").labels["replica"], "a");
        assert!(world.uploaded_list().contains(&block.to_string()));
    }
}

#[tokio::test]
async fn blocks_compacted_before_uploads_began_are_uploaded_only_on_request() {
    if !installed() {
        return;
    }
    // Blocks of two hours are then longer than those that Prometheus cuts.
    let short_ranges = |mut run: ShipperRun| {
        run.producer.block_range = HOUR;
        run
    };
    let world = ShipperWorld::new(3);
    let [shipped, old, part] = world.blocks[..] else { panic!("three blocks") };
    for block in [old, part] {
        edit_meta(&world.local(block), |meta| {
            meta.compaction.level = 2;
            meta.compaction.sources = vec![Ulid(1), Ulid(2)];
        });
    }
    let mut run = short_ranges(world.run());
    let now = now();
    run.pass_at(now).await.expect("a pass");
    assert!(world.is_in_bucket(shipped) && !world.is_in_bucket(old));
    assert_eq!(run.metrics.compacted_done.get(), 0);
    run.pass_at(now + Duration::from_secs(7200)).await.expect("a pass");
    assert_eq!(run.serve_from(), end_of(0), "compacted blocks that stay here are served");

    println!("compacted from what is in the bucket already");
    edit_meta(&world.local(part), |meta| meta.compaction.sources = vec![shipped]);
    run.pass_at(now + Duration::from_secs(7200)).await.expect("a pass");
    assert!(world.uploaded_list().contains(&part.to_string()));

    println!("--shipper.upload-compacted");
    let mut run = short_ranges(world.run_with(|config| config.upload_compacted = true));
    run.pass().await.expect("a pass");
    world.assert_in_bucket(old);
    assert!(!world.is_in_bucket(part));
    assert_eq!(run.metrics.compacted_done.get(), 1);

    println!("one that overlaps what is in the bucket");
    fs::remove_file(world.data().join("thanos/shipper-journal.json")).expect("the journal");
    let mut run = short_ranges(world.run_with(|config| config.upload_compacted = true));
    edit_meta(&world.local(part), |meta| {
        meta.compaction.sources = vec![Ulid(3), Ulid(4)];
        meta.min_time = at(1);
    });
    let refused = run.pass().await.expect_err("an overlap");
    assert!(refused.contains("--shipper.allow-out-of-order-uploads"), "{refused}");
    let mut run = short_ranges(world.run_with(|config| {
        config.upload_compacted = true;
        config.allow_overlaps = true;
    }));
    run.pass().await.ok();
    assert!(world.is_in_bucket(part));
}

#[tokio::test]
async fn cleaned_block_replaces_a_waiting_one_and_does_not_duplicate_an_uploaded_one() {
    if !installed() {
        return;
    }
    let world = ShipperWorld::new(2);
    let [shipped, waiting] = world.blocks[..] else { panic!("two blocks") };
    let mut run = world.run();
    fs::rename(world.local(waiting), world.data().join("aside")).expect("a block");
    run.pass().await.expect("a pass");
    fs::rename(world.data().join("aside"), world.local(waiting)).expect("a block");
    world.store.set(Faults { requests_left: Some(0), ..Faults::default() });
    run.pass().await.expect_err("no store");

    println!("Prometheus applies deletions: new blocks without the deleted samples, the old ones go");
    let (of_shipped, of_waiting) = (clean(&world, shipped), clean(&world, waiting));
    world.store.set(Faults::default());
    run.pass().await.expect("a pass");
    world.assert_in_bucket(of_waiting);
    assert!(!world.is_in_bucket(waiting) && !world.is_in_bucket(of_shipped) && world.is_in_bucket(shipped));
    assert!(world.uploaded_list().contains(&of_shipped.to_string()));

    println!("deletions that are not applied do not reach the bucket, and are counted");
    let world = ShipperWorld::new(1);
    edit_meta(&world.local(world.blocks[0]), |meta| meta.stats.tombstones = 3);
    let mut run = world.run();
    run.pass().await.ok();
    assert_eq!(run.metrics.deletions_not_shipped.get(), 1);
}

#[tokio::test]
async fn uploads_recover_from_errors_and_lost_answers_of_the_store() {
    if !installed() {
        return;
    }
    for seed in 1..=4 {
        let mut world = ShipperWorld::new(3);
        let folder = LocalFileSystem::new_with_prefix(world.dir.path().join("bucket")).expect("a bucket");
        world.store = FaultyStore::new(Arc::new(folder), seed);
        world.store.set(Faults { errors: 0.1, lost_answers: 0.1, truncated: 0.05, ..Faults::default() });
        let mut run = world.run();
        let mut passes = 0;
        while let Err(cause) = run.pass().await {
            passes += 1;
            assert!(passes < 100, "seed {seed}: {cause}");
        }
        println!("seed {seed}: {passes} passes failed, injected {:?}", world.store.injected());
        world.store.set(Faults::default());
        for block in &world.blocks {
            world.assert_in_bucket(*block);
        }
        assert_eq!(run.metrics.uploads.get(), 3, "each is counted once");
    }
}

#[tokio::test]
async fn upload_intents_are_removed() {
    if !installed() {
        return;
    }
    let world = ShipperWorld::new(1);
    world.run().pass().await.expect("a pass");
    let left = world.dir.path().join("bucket").join(layout::INTENT_DIR);
    assert!(fs::read_dir(left).map_or(true, |entries| entries.count() == 0));
}

#[tokio::test]
async fn block_may_be_removed_when_stores_have_had_time_to_load_it() {
    if !installed() {
        return;
    }
    let world = ShipperWorld::new(2);
    let mut run = world.run();
    let removable = run.shipper.shipped().removable;
    let now = now();
    world.store.set(Faults { requests_left: Some(0), ..Faults::default() });
    run.pass_at(now).await.expect_err("the bucket is gone");
    world.store.set(Faults::default());
    run.pass_at(now).await.expect("a pass");
    world.assert_in_bucket(world.blocks[0]);
    assert!(removable.borrow().is_empty(), "{:?}", removable.borrow());
    run.pass_at(now + HOUR).await.expect("a pass");
    assert!(removable.borrow().is_empty(), "{:?}", removable.borrow());
    run.pass_at(now + 2 * HOUR).await.expect("a pass");
    assert_eq!(removable.borrow().iter().copied().collect::<Vec<_>>(), world.blocks);
}
