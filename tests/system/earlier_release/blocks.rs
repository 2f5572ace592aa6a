//! A bucket with blocks, and the folders of the compactor and of the store.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tests::wait_for;

use crate::earlier_release::role::{PATIENCE, Role, querier, run};

/// The first sample of the generated blocks, 2026-01-01T00:00:00Z.
pub(crate) const BLOCKS_BEGIN: &str = "2026-01-01T00:00:00Z";
/// An hour and a half later.
const IN_BLOCKS: f64 = 1_767_231_000.0;

const STORED: &str = "sum({cluster=\"eu-1\",replica=\"a\"})";

pub(crate) struct Blocks {
    dir: PathBuf,
}

impl Blocks {
    /// Those in a folder.
    pub(crate) fn of(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Writes blocks, merges them, and returns what a store answers: the sum of the generated series in the middle of the first block.
    pub(crate) fn fill(&self, program: &Path) -> String {
        let bucket = self.path("bucket");
        let more = ["--blocks=5", "--label=cluster=eu-1", "--label=replica=a"];
        generate(program, &bucket, &more);
        self.compact(program, &[]);
        let (store, reader) = self.store_and_querier(program);
        let stored = wait_for("the store", PATIENCE, || reader.value(STORED, IN_BLOCKS));
        reader.end();
        store.end();
        stored
    }

    /// Lets a compactor and a store of a program find what is there.
    pub(crate) fn are_used(&self, program: &Path, stored: &str) {
        self.compact(program, &[]);
        self.are_read(program, stored);
    }

    /// Lets a store of a program find what is there.
    pub(crate) fn are_read(&self, program: &Path, stored: &str) {
        let (store, reader) = self.store_and_querier(program);
        reader.answers(STORED, IN_BLOCKS, stored);
        reader.end();
        store.end();
    }

    /// Runs a compactor with further flags to its end.
    pub(crate) fn compact(&self, program: &Path, flags: &[&str]) {
        let (bucket, data) = (self.bucket(), format!("--data-dir={}", self.path("compact")));
        let own = ["compact", &bucket, &data, "--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0"];
        run(program, &[&own[..], flags].concat());
    }

    /// Number of blocks that are marked for deletion.
    pub(crate) fn marked(&self) -> usize {
        let blocks = fs::read_dir(self.dir.join("bucket")).expect("a bucket");
        blocks
            .filter(|block| block.as_ref().expect("an entry").path().join("deletion-mark.json").exists())
            .count()
    }

    /// Makes everything in the bucket and in both folders this old.
    pub(crate) fn set_back(&self, age: Duration) {
        let time = SystemTime::now() - age;
        ["bucket", "compact", "store"].iter().for_each(|name| set_time(&self.dir.join(name), time));
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn bucket(&self) -> String {
        format!("--objstore.config=type: FILESYSTEM\nconfig: {{directory: {}}}", self.path("bucket"))
    }

    /// A store, and a querier of it.
    fn store_and_querier(&self, program: &Path) -> (Role, Role) {
        let flags = [self.bucket(), format!("--data-dir={}", self.path("store"))];
        let store = Role::start(program, &self.dir, "store", &flags);
        let reader = querier(program, &self.dir, &[format!("--endpoint={}", store.grpc)]);
        (store, reader)
    }
}

/// Writes a generated block into a folder.
pub(crate) fn generate(program: &Path, out: &str, more: &[&str]) {
    let args = ["tools", "block", "generate", "--series=20", "--start", BLOCKS_BEGIN, "--output-dir", out];
    run(program, &[&args[..], more].concat());
}

fn set_time(path: &Path, time: SystemTime) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder") {
            set_time(&entry.expect("an entry").path(), time);
        }
    }
    fs::File::open(path).and_then(|file| file.set_modified(time)).expect("a time");
}
