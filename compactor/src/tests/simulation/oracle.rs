//! What a store answers, compared with everything that was ever published: the invariants that hold after each step.
//!
//! * No published sample is missing: it is in a raw block, or it is older than raw samples are kept and in a window of a coarser block.
//! * No sample has another value than the one that was published, and a raw sample that is there was published.
//! * A block that readers see has all files of its manifest, and never changes.
//! * Aggregates count exactly the samples that the block was made of.

use std::collections::BTreeMap;
use std::sync::Arc;

use bucket::{
    Bucket, Discovery, FetchMetrics, FetchOptions, Fetcher, Filters, ObjectInfo, ObjectVersion, manifest_of,
};
use model::Labels;
use series::{AggrChunk, Aggregate};
use tsdb::{BlockMeta, Encoding, Ulid};

use super::super::{ONCE, OpenBlockOptions, SeriesKey, TimeRange, Timestamp, layout};
use super::{DELETE_DELAY, RAW_KEPT, REPLICA_LABEL};
use crate::group::{GroupKey, resolution};
use crate::plan::HOUR;

const FIVE_MINUTES: i64 = 300_000;

/// The samples of a block by series: times and bits of raw values, or windows of five minutes with the numbers of their samples.
type BlockContent = Vec<(Labels, Vec<(i64, u64)>)>;

/// What was read of blocks, with the versions of their objects.
type ReadBlocks = BTreeMap<Ulid, (Vec<(String, ObjectVersion)>, Arc<BlockContent>)>;

/// A block that was published whole.
pub(super) struct Published {
    pub(super) series: SeriesKey,
    /// Times and bits of values.
    pub(super) samples: Vec<(i64, u64)>,
}

/// A store that reads the bucket: it has the view of its last sync, and reads what it has not read before.
pub(super) struct Reader {
    bucket: Bucket,
    fetcher: Fetcher,
    read: ReadBlocks,
    view: Vec<Arc<BlockMeta>>,
    /// The number of blocks that were published before the last sync.
    known: usize,
    /// When each block was last seen without a deletion mark.
    unmarked: BTreeMap<Ulid, i64>,
}

impl Reader {
    pub(super) fn new(bucket: &Bucket) -> Self {
        // As the store does it, with a shorter delay than that of removal.
        let filters = Filters {
            deduplicates: true,
            ignore_marked_after: Some(std::time::Duration::from_millis(DELETE_DELAY as u64 / 2)),
            ..Filters::default()
        };
        let options =
            FetchOptions { discovery: Discovery::Recursive, filters, retry: ONCE, ..FetchOptions::default() };
        Self {
            bucket: bucket.clone(),
            fetcher: Fetcher::new(bucket.clone(), options, FetchMetrics::default()).unwrap(),
            read: BTreeMap::new(),
            view: Vec::new(),
            known: 0,
            unmarked: BTreeMap::new(),
        }
    }

    /// Checks the answers of a store that syncs now and of one whose last sync was earlier.
    pub(super) async fn check(&mut self, seed: u64, now: i64, published: &[Published], syncs: bool) {
        let objects = self.bucket.list_all("").await.unwrap();
        let mut by_block: BTreeMap<Ulid, BTreeMap<String, ObjectInfo>> = BTreeMap::new();
        for object in objects {
            let Some((block, file)) = layout::split(&object.name) else { continue };
            by_block.entry(block).or_default().insert(file.to_owned(), object);
        }
        self.check_removals(seed, now, &by_block);
        let fetched = self.fetcher.fetch(Timestamp::from_millis(now)).await.unwrap();
        let fresh: Vec<Arc<BlockMeta>> = fetched.blocks.into_values().collect();
        self.read_blocks(seed, &fresh, &by_block).await;
        check_answer(seed, now, &fresh, &self.read, published);
        // A store that meets a block that is gone syncs at once.
        let is_gone =
            |meta: &&Arc<BlockMeta>| !by_block.get(&meta.ulid).is_some_and(|files| is_whole(meta, files));
        if syncs || self.view.iter().any(|meta| is_gone(&meta)) {
            (self.view, self.known) = (fresh, published.len());
        } else {
            check_answer(seed, now, &self.view, &self.read, &published[..self.known]);
        }
        let view = &self.view;
        self.read.retain(|id, _| by_block.contains_key(id) || view.iter().any(|meta| meta.ulid == *id));
    }

    /// A block is removed only a while after it was marked, whatever the clocks say.
    fn check_removals(&mut self, seed: u64, now: i64, blocks: &BTreeMap<Ulid, BTreeMap<String, ObjectInfo>>) {
        for (block, files) in blocks.iter().filter(|(_, files)| files.contains_key("meta.json")) {
            if !files.contains_key("deletion-mark.json") {
                self.unmarked.insert(*block, now);
            }
        }
        self.unmarked.retain(|block, since| {
            let is_there = blocks.get(block).is_some_and(|files| files.contains_key("meta.json"));
            let tolerated = 6 * 60_000;
            assert!(
                is_there || now - *since >= DELETE_DELAY - tolerated,
                "seed {seed}: {block} was removed {} min after it was last seen unmarked",
                (now - *since) / 60_000
            );
            is_there
        });
    }

    /// Reads the blocks that are new or have changed. Each must be whole.
    async fn read_blocks(
        &mut self,
        seed: u64,
        metas: &[Arc<BlockMeta>],
        blocks: &BTreeMap<Ulid, BTreeMap<String, ObjectInfo>>,
    ) {
        for meta in metas {
            let files =
                blocks.get(&meta.ulid).unwrap_or_else(|| panic!("seed {seed}: {} has no files", meta.ulid));
            assert!(is_whole(meta, files), "seed {seed}: {} is not whole: {:?}", meta.ulid, files.keys());
            let data = files.iter().filter(|(name, _)| !name.ends_with(".json"));
            let versions: Vec<_> = data.map(|(name, info)| (name.clone(), info.version.clone())).collect();
            match self.read.get(&meta.ulid) {
                Some((known, _)) => assert!(*known == versions, "seed {seed}: {} was changed", meta.ulid),
                None => {
                    let content = Arc::new(read_block(seed, &self.bucket, meta).await);
                    self.read.insert(meta.ulid, (versions, content));
                }
            }
        }
    }
}

fn is_whole(meta: &BlockMeta, files: &BTreeMap<String, ObjectInfo>) -> bool {
    let is_there = |path: &str, bytes| files.get(path).is_some_and(|info| info.size_bytes == bytes);
    let manifest = manifest_of(meta);
    manifest.len() >= 2 && manifest.iter().all(|file| is_there(&file.path, file.size_bytes))
}

async fn read_block(seed: u64, bucket: &Bucket, meta: &BlockMeta) -> BlockContent {
    let remote = bucket.open_block(meta.ulid, &OpenBlockOptions::default()).await;
    let block = remote.unwrap_or_else(|error| panic!("seed {seed}: {error}")).into_block();
    let content: BlockContent = tokio::task::spawn_blocking(move || {
        let mut content = Vec::new();
        for series in block.select(&[], TimeRange::ALL).unwrap() {
            let series = series.unwrap();
            let mut samples = Vec::new();
            for chunk in block.chunks(&series.chunks).unwrap() {
                let is_coarse = chunk.encoding == Encoding::Aggregates;
                let parts = AggrChunk::from_block(chunk, &[Aggregate::Count]).unwrap();
                let part = if is_coarse { parts.part(Aggregate::Count) } else { parts.raw.as_ref() };
                let (mut times, mut values) = (Vec::new(), Vec::new());
                part.unwrap().decode_floats(&mut times, &mut values).unwrap();
                let of_window = |(at, value): (i64, f64)| (at.div_euclid(FIVE_MINUTES), value as u64);
                let all = times.into_iter().zip(values);
                if is_coarse {
                    samples.extend(all.map(of_window));
                } else {
                    samples.extend(all.map(|(at, value)| (at, value.to_bits())));
                }
            }
            assert!(
                samples.windows(2).all(|pair| pair[0].0 < pair[1].0),
                "seed {seed}: a sample is there twice"
            );
            content.push((series.labels, samples));
        }
        content
    })
    .await
    .unwrap();
    if resolution(meta) > 0 {
        let counted: u64 = content.iter().flat_map(|(_, windows)| windows).map(|(_, count)| count).sum();
        // As in Thanos, a merge of downsampled blocks does not keep the number of their raw samples.
        let (known, is_merge) = (meta.stats.float_samples, meta.compaction.parents.len() > 1);
        assert!(
            counted == known || (known == 0 && is_merge && counted > 0),
            "seed {seed}: {} counts {counted} samples of {known}",
            meta.ulid
        );
    }
    content
}

/// Compares what the blocks of a view have with what was published.
fn check_answer(seed: u64, now: i64, view: &[Arc<BlockMeta>], read: &ReadBlocks, published: &[Published]) {
    let mut raw: BTreeMap<SeriesKey, BTreeMap<i64, u64>> = BTreeMap::new();
    let mut coarse: BTreeMap<SeriesKey, BTreeMap<i64, u64>> = BTreeMap::new();
    for meta in view {
        let group = GroupKey { resolution: 0, ..GroupKey::of(meta, &[REPLICA_LABEL.to_owned()]) };
        let is_raw = resolution(meta) == 0;
        for (labels, samples) in &*read[&meta.ulid].1 {
            let key = (group.clone(), labels.clone());
            for (at, value) in samples {
                if is_raw {
                    let other = raw.entry(key.clone()).or_default().insert(*at, *value);
                    assert!(
                        other.is_none_or(|other| other == *value),
                        "seed {seed}: {key:?} has two values at {at}"
                    );
                } else {
                    *coarse.entry(key.clone()).or_default().entry(*at).or_default() += value;
                }
            }
        }
    }
    let mut expected: BTreeMap<&SeriesKey, BTreeMap<i64, u64>> = BTreeMap::new();
    for block in published {
        expected.entry(&block.series).or_default().extend(block.samples.iter().copied());
    }
    for (key, samples) in &raw {
        let expected =
            expected.get(key).unwrap_or_else(|| panic!("seed {seed}: {key:?} was never published"));
        for (at, value) in samples {
            assert_eq!(expected.get(at), Some(value), "seed {seed}: {key:?} at {at} was made up");
        }
    }
    for (key, samples) in expected {
        let mut retired: BTreeMap<i64, u64> = BTreeMap::new();
        for at in samples.keys().filter(|at| !raw.get(key).is_some_and(|raw| raw.contains_key(at))) {
            assert!(
                now - at > RAW_KEPT,
                "seed {seed}: {key:?}: the sample of {} h ago is lost",
                (now - at) / HOUR
            );
            *retired.entry(at.div_euclid(FIVE_MINUTES)).or_default() += 1;
        }
        for (window, count) in retired {
            let found = coarse.get(key).and_then(|windows| windows.get(&window)).copied().unwrap_or(0);
            assert!(
                found >= count,
                "seed {seed}: {key:?}: {found} of {count} samples of a window are counted"
            );
        }
    }
}
