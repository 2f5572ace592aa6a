//! Tests that kill the shipper: at each step, and at random times.
//!
//! The shipper runs in its own process, which is this test program started again. It kills itself with
//! SIGKILL before or after a given step: each change of a file (see `disk`) and each request to the bucket.
//! Then it is started again, and the result must be the same as without the kill.

use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bucket::Bucket;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use rustix::process::{Signal, getpid, kill_process};
use tempfile::TempDir;
use tsdb::Ulid;

use crate::testing::installed;
use crate::tests::{content, make_blocks, run_in};

/// Environment variable for the child: its working directory.
const FOLDER: &str = "ISTHMUS_TEST_SHIPPER_FOLDER";
/// Environment variable for the child: the step at which it kills itself.
const DIE_AT: &str = "ISTHMUS_TEST_SHIPPER_DIE_AT";

/// Steps so far.
static STEPS: AtomicU64 = AtomicU64::new(0);
/// The last step; 0 for no limit.
static LAST: AtomicU64 = AtomicU64::new(0);

/// Counts a step; kills the process at the last one.
pub(crate) fn step() {
    let step = STEPS.fetch_add(1, Ordering::SeqCst) + 1;
    if step == LAST.load(Ordering::SeqCst) {
        kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
    }
}

/// A bucket that counts a step before and after each request.
#[derive(Debug)]
struct Stepping(LocalFileSystem);

impl fmt::Display for Stepping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bucket")
    }
}

async fn stepping<T>(request: impl Future<Output = T>) -> T {
    step();
    let answer = request.await;
    step();
    answer
}

#[async_trait]
impl ObjectStore for Stepping {
    async fn put_opts(&self, at: &ObjectPath, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        stepping(self.0.put_opts(at, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        at: &ObjectPath,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        stepping(self.0.put_multipart_opts(at, options)).await
    }

    async fn get_opts(&self, at: &ObjectPath, options: GetOptions) -> Result<GetResult> {
        stepping(self.0.get_opts(at, options)).await
    }

    async fn get_ranges(&self, at: &ObjectPath, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        stepping(self.0.get_ranges(at, ranges)).await
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, Result<ObjectPath>>,
    ) -> BoxStream<'static, Result<ObjectPath>> {
        let before = at.inspect(|_| step()).boxed();
        self.0.delete_stream(before).inspect(|_| step()).boxed()
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, Result<ObjectMeta>> {
        step();
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&ObjectPath>) -> Result<ListResult> {
        stepping(self.0.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &ObjectPath, to: &ObjectPath, options: CopyOptions) -> Result<()> {
        stepping(self.0.copy_opts(from, to, options)).await
    }
}

/// The child: uploads all blocks, and writes the number of steps. Does nothing in a normal test run.
#[tokio::test]
async fn child_of_the_kill_tests() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let last = std::env::var(DIE_AT).ok().and_then(|at| at.parse().ok());
    let folder = Path::new(&folder);
    let bucket = LocalFileSystem::new_with_prefix(folder.join("bucket")).expect("a bucket").with_fsync(true);
    let bucket = Bucket::new(Arc::new(Stepping(bucket)));
    LAST.store(last.unwrap_or(0), Ordering::SeqCst);
    let mut run = run_in(&folder.join("data"), bucket);
    run.pass().await.expect("a pass");
    fs::write(folder.join("steps"), STEPS.load(Ordering::SeqCst).to_string()).expect("a file");
}

/// A child that runs one pass in `folder` and kills itself at a step.
pub(crate) fn child(folder: &Path, die_at: Option<u64>) -> Command {
    let mut child = Command::new(std::env::current_exe().expect("a running program has a file"));
    child.args(["--exact", "faults::child_of_the_kill_tests", "--quiet"]);
    child.env(FOLDER, folder).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(at) = die_at {
        child.env(DIE_AT, at.to_string());
    }
    child
}

/// A seed for random faults: `ISTHMUS_SEED`, or a new one.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("ISTHMUS_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| u64::from(std::process::id()) | 1)
}

/// Random numbers below a bound, the same for the same seed.
pub(crate) fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    }
}

/// A data directory and a bucket that consecutive children share.
struct KillScene {
    dir: TempDir,
    blocks: Vec<Ulid>,
}

impl KillScene {
    /// Copies the blocks in `template` with hard links; blocks are never modified.
    fn new(template: &Path, blocks: &[Ulid]) -> Self {
        let dir = TempDir::new().expect("a folder");
        fs::create_dir_all(dir.path().join("bucket")).expect("a folder");
        fs::create_dir_all(dir.path().join("data")).expect("a folder");
        let copied =
            Command::new("cp").arg("-rl").arg(template.join(".")).arg(dir.path().join("data")).status();
        assert!(copied.is_ok_and(|status| status.success()), "cp");
        Self { dir, blocks: blocks.to_vec() }
    }

    fn child(&self, die_at: Option<u64>) -> Command {
        child(self.dir.path(), die_at)
    }

    /// Runs a child to its end; returns whether it was not killed.
    fn run(&self, die_at: Option<u64>) -> bool {
        self.child(die_at).status().expect("a child").success()
    }

    /// Runs a child without a kill and checks the result; returns its duration.
    fn finish(&self, what: &str) -> Duration {
        let begun = Instant::now();
        assert!(self.run(None), "{what}: the shipper does not recover");
        let taken = begun.elapsed();
        assert!(taken < Duration::from_secs(60), "{what}: {taken:?}");
        let bucket = self.dir.path().join("bucket");
        for block in &self.blocks {
            let (local, remote) =
                (self.dir.path().join("data").join(block.to_string()), bucket.join(block.to_string()));
            assert_eq!(content(&remote), content(&local), "{what}: block {block}");
            let mut files = Vec::new();
            list(&remote, "", &mut files);
            // A killed writer leaves partial files in a local bucket, whose names no object has.
            files.retain(|name| !name.contains('#'));
            assert_eq!(files, ["chunks/000001", "index", "meta.json"], "{what}: block {block}");
        }
        let names: Vec<_> =
            fs::read_dir(&bucket).expect("a bucket").map(|e| e.expect("an entry").file_name()).collect();
        let blocks = names.iter().filter(|name| name.to_str().and_then(tsdb::parse_block_id).is_some());
        assert_eq!(blocks.count(), self.blocks.len(), "{what}: {names:?}");
        let pins = fs::read_dir(self.dir.path().join("data/thanos/upload")).expect("pins").count();
        assert_eq!(pins, 0, "{what}: pins are left");
        let list = fs::read_to_string(self.dir.path().join("data/thanos.shipper.json")).expect("the list");
        assert!(self.blocks.iter().all(|block| list.contains(&block.to_string())), "{what}: {list}");
        taken
    }
}

fn list(dir: &Path, prefix: &str, files: &mut Vec<String>) {
    let mut entries: Vec<_> =
        fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry")).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            list(&entry.path(), &format!("{name}/"), files);
        } else {
            files.push(name);
        }
    }
}

#[test]
fn kill_at_any_step_neither_loses_nor_duplicates_blocks() {
    if !installed() {
        return;
    }
    let template = TempDir::new().expect("a folder");
    let blocks = make_blocks(template.path(), 2);
    let scene = KillScene::new(template.path(), &blocks);
    scene.finish("without a kill");
    let steps: u64 =
        fs::read_to_string(scene.dir.path().join("steps")).expect("steps").parse().expect("a number");
    assert!(steps > 50, "only {steps} steps: are they counted?");
    let mut slowest = Duration::ZERO;
    for step in 1..=steps {
        let scene = KillScene::new(template.path(), &blocks);
        // Files are sent concurrently, so the number of steps varies a little between runs.
        assert!(!scene.run(Some(step)) || step + 4 > steps, "step {step} of {steps} was never reached");
        slowest = slowest.max(scene.finish(&format!("killed at step {step} of {steps}")));
    }
    println!("killed at each of {steps} steps; the slowest recovery took {slowest:?}");
}

/// 20 kills; 200 with `ISTHMUS_LONG=1`. `ISTHMUS_SEED` repeats a run.
#[test]
fn kills_at_random_times_neither_lose_nor_duplicate_blocks() {
    if !installed() {
        return;
    }
    let seed = seed();
    let kills = if std::env::var_os("ISTHMUS_LONG").is_some() { 200 } else { 20 };
    println!("seed {seed} (ISTHMUS_SEED), {kills} kills");
    let mut random = numbers(seed);
    let template = TempDir::new().expect("a folder");
    let blocks = make_blocks(template.path(), 3);
    let whole = {
        let begun = Instant::now();
        KillScene::new(template.path(), &blocks).finish("without a kill");
        begun.elapsed()
    };
    let mut done = 0;
    while done < kills {
        let scene = KillScene::new(template.path(), &blocks);
        // Several kills in one scene, each at a random time within the duration of a full run.
        for _ in 0..1 + random(4) {
            let mut child = scene.child(None).spawn().expect("a child");
            std::thread::sleep(Duration::from_micros(random(whole.as_micros() as u64 + 1)));
            drop(child.kill());
            done += u64::from(!child.wait().expect("a child").success());
        }
        scene.finish(&format!("seed {seed}, after {done} kills"));
    }
}
