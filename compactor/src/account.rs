//! What became of every sample of the sources, and a digest of every chunk that was written.
//!
//! A merged block replaces its sources only if no sample is unaccounted for, and if what was read back from the written block is
//! what was to be written: see invariant 6 in the crate's README.

use model::Labels;
use tsdb::Chunk;
use xxhash_rust::xxh64::xxh64;

/// Parts of the digest, by the hash of the series.
const BUCKETS: usize = 64;

/// Counts of samples. `read` must be the sum of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct SampleAccount {
    pub(crate) read: u64,
    pub(crate) written: u64,
    /// Equal samples that were there several times.
    pub(crate) duplicates: u64,
    /// Samples with another value than one of the same time in an earlier source.
    pub(crate) conflicts: u64,
    /// Samples that deduplication left out, because another replica has others in their place.
    pub(crate) replicas: u64,
    /// Samples that tombstones and deletions of series delete.
    pub(crate) deleted: u64,
    /// Windows of aggregates in whose place there are windows that were calculated again. Those are not counted as written.
    pub(crate) replaced: u64,
}

impl SampleAccount {
    pub(crate) fn is_balanced(&self) -> bool {
        let Self { read, written, duplicates, conflicts, replicas, deleted, replaced } = self;
        *read == written + duplicates + conflicts + replicas + deleted + replaced
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.read += other.read;
        self.written += other.written;
        self.duplicates += other.duplicates;
        self.conflicts += other.conflicts;
        self.replicas += other.replicas;
        self.deleted += other.deleted;
        self.replaced += other.replaced;
    }
}

impl std::fmt::Display for SampleAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { read, written, duplicates, conflicts, replicas, deleted, replaced } = self;
        write!(
            f,
            "{read} samples read, {written} written, {duplicates} duplicates, {conflicts} with another value, \
             {replicas} of other replicas, {deleted} deleted, {replaced} windows calculated again"
        )
    }
}

/// A digest of the chunks of a block, which does not depend on their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChunkDigest {
    series: u64,
    chunks: u64,
    samples: u64,
    folded: [u64; BUCKETS],
}

impl Default for ChunkDigest {
    fn default() -> Self {
        Self { series: 0, chunks: 0, samples: 0, folded: [0; BUCKETS] }
    }
}

impl ChunkDigest {
    /// Adds a series with its chunks.
    pub(crate) fn add(&mut self, labels: &Labels, chunks: &[Chunk]) {
        let mut bytes = Vec::with_capacity(256);
        for label in labels {
            for text in [label.name, label.value] {
                bytes.extend_from_slice(text.as_bytes());
                bytes.push(0xff);
            }
        }
        let series = xxh64(&bytes, 0);
        let folded = &mut self.folded[series as usize % BUCKETS];
        for chunk in chunks {
            let mut identity = [0; 29];
            identity[..8].copy_from_slice(&series.to_le_bytes());
            identity[8..16].copy_from_slice(&chunk.range.min.as_millis().to_le_bytes());
            identity[16..24].copy_from_slice(&chunk.range.max.as_millis().to_le_bytes());
            identity[24..28].copy_from_slice(&crc32c::crc32c(&chunk.data).to_le_bytes());
            identity[28] = chunk.encoding.byte();
            *folded ^= xxh64(&identity, 1);
            self.samples += chunk.sample_count() as u64;
        }
        self.series += 1;
        self.chunks += chunks.len() as u64;
    }
}
