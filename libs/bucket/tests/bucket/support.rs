//! Test blocks, and the invariants of a bucket.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bucket::{Bucket, PublishOptions, Retry, layout, manifest_of};
use model::Timestamp;
use tsdb::{BlockMeta, ThanosMeta, Ulid};

/// Retries with a short delay.
pub(crate) const QUICK: Retry = Retry { attempts: 8, delay: Duration::from_millis(1) };

pub(crate) fn options() -> PublishOptions {
    PublishOptions { retry: QUICK, ..PublishOptions::default() }
}

/// The seed of a run; it is printed so that the run can be repeated.
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("ISTHMUS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_122);
    println!("seed {seed} (ISTHMUS_SEED={seed} repeats this run)");
    seed
}

/// Number of rounds of a test with faults.
pub(crate) fn rounds(usual: u64) -> u64 {
    std::env::var("ISTHMUS_FAULT_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(usual)
}

pub(crate) fn block_id(number: u64) -> Ulid {
    Ulid::from_parts(1_700_000_000_000 + number, u128::from(number))
}

/// Pseudo-random bytes; the same seed gives the same bytes.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Writes the files of a block with random content, because uploads and downloads do not read it.
pub(crate) fn write_block(dir: &Path, number: u64, file_bytes: usize) -> BlockMeta {
    std::fs::create_dir_all(dir.join("chunks")).unwrap();
    std::fs::write(dir.join("chunks/000001"), noise(number * 3 + 1, file_bytes)).unwrap();
    std::fs::write(dir.join("chunks/000002"), noise(number * 3 + 2, file_bytes / 2)).unwrap();
    std::fs::write(dir.join("index"), noise(number * 3 + 3, file_bytes / 3)).unwrap();
    std::fs::write(dir.join("tombstones"), [0; 9]).unwrap();
    meta(number)
}

pub(crate) fn meta(number: u64) -> BlockMeta {
    let start = 1_700_000_000_000 + 7_200_000 * number as i64;
    let (min, max) = (Timestamp::from_millis(start), Timestamp::from_millis(start + 7_200_000));
    let mut meta = BlockMeta::new(block_id(number), min, max);
    meta.thanos = Some(ThanosMeta {
        labels: BTreeMap::from([("cluster".to_owned(), "eu-1".to_owned())]),
        source: "sidecar".to_owned(),
        ..ThanosMeta::default()
    });
    meta
}

/// All objects of a bucket with their content.
pub(crate) async fn content(bucket: &Bucket) -> BTreeMap<String, Vec<u8>> {
    let mut content = BTreeMap::new();
    for object in bucket.list_all("").await.unwrap() {
        content.insert(object.name.clone(), bucket.get(&object.name).await.unwrap().to_vec());
    }
    content
}

/// The invariant of publishing: if there is a `meta.json`, every file of its manifest exists and is equal. Returns the number of
/// blocks.
pub(crate) async fn check_blocks_are_whole(bucket: &Bucket) -> usize {
    let content = content(bucket).await;
    let mut blocks = 0;
    for (name, json) in &content {
        let Some((block, layout::META_FILE)) = layout::split(name) else { continue };
        let meta = BlockMeta::parse(json).unwrap_or_else(|error| panic!("{name}: {error}"));
        let manifest = manifest_of(&meta);
        assert!(!manifest.is_empty(), "{name} has no manifest");
        for file in manifest {
            let name = layout::block_file(block, &file.path);
            let found = content.get(&name).unwrap_or_else(|| panic!("{name} is missing beside meta.json"));
            assert_eq!(found.len() as u64, file.size_bytes, "{name}");
            assert_eq!(Some(sha256(found)), file.sha256, "{name}");
        }
        blocks += 1;
    }
    blocks
}

pub(crate) fn sha256(content: &[u8]) -> String {
    digest(&SHA256, content).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
