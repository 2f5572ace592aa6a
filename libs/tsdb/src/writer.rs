//! Writes a block: series in the order of their labels, each with its chunks.
//!
//! ```text
//! labels   names and values by number            spill    series until the symbols are known
//! index    the index from both                   (this)   the directory, meta.json, and when all of it counts
//! ```

mod error;
mod index;
mod labels;
mod spill;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::{Labels, TimeRange, Timestamp};
use ulid::Ulid;

use crate::files::{CHUNKS_DIR, INDEX_FILE};
use crate::meta::{BlockMeta, BlockStats, Compaction, Downsample, META_FILE, ThanosMeta};
use crate::segments::SegmentWriter;
use crate::tombstones::{TOMBSTONES_FILE, Tombstones};
use crate::{Chunk, ChunkMeta, ChunkRef};
pub use error::WriteError;
use error::at;
use index::IndexWriter;

/// The end of the name of a directory while its block is being written. A program may remove such directories when it
/// starts.
pub const UNFINISHED_SUFFIX: &str = ".tmp-for-creation";

/// Most bytes of a segment: 512 MiB, as in Prometheus.
const SEGMENT_BYTES: u64 = 512 << 20;

/// What to write besides the samples.
#[derive(Clone, Debug)]
pub struct BlockOptions {
    /// The id of the block. The same id, options, series and chunks make the same bytes.
    pub ulid: Ulid,
    /// The times that the block covers, the second exclusive. Every sample must be within them. By default from the first sample
    /// to 1 ms after the last one.
    pub times: Option<(Timestamp, Timestamp)>,
    /// Where the block comes from. By default it has level 1 and is its own source.
    pub compaction: Option<Compaction>,
    /// The `thanos` section, none by default. The sizes in it are filled in.
    pub thanos: Option<ThanosMeta>,
    /// Most bytes of a segment: 512 MiB by default, at most 4 GiB. A small limit makes many files, a large one makes objects
    /// that take long to upload again.
    pub segment_bytes: u64,
    /// Numbers of float and of histogram samples to note in `meta.json`. By default those that are written; chunks of aggregates
    /// count as neither.
    pub samples_by_kind: Option<(u64, u64)>,
}

impl BlockOptions {
    /// The defaults for a block with this id.
    pub fn new(ulid: Ulid) -> Self {
        Self {
            ulid,
            times: None,
            compaction: None,
            thanos: None,
            segment_bytes: SEGMENT_BYTES,
            samples_by_kind: None,
        }
    }

    /// The options for the block with this id that is made of `block` by downsampling it to `resolution`, as by Thanos.
    ///
    /// It has the times, labels, level, sources and parents of `block`, and its numbers of samples by kind, which are those of the
    /// raw block. The number of all samples becomes the number of windows.
    pub fn downsampled(ulid: Ulid, block: &BlockMeta, resolution: Duration) -> Self {
        let resolution_millis = i64::try_from(resolution.as_millis()).unwrap_or(i64::MAX);
        let thanos = ThanosMeta {
            downsample: Downsample { resolution_millis },
            source: "compactor".to_owned(),
            files: Vec::new(),
            segment_files: Vec::new(),
            upload_time: ThanosMeta::NOT_UPLOADED.to_owned(),
            ..block.thanos.clone().unwrap_or_default()
        };
        Self {
            times: Some((block.min_time, block.max_time)),
            compaction: Some(block.compaction.clone()),
            thanos: Some(thanos),
            samples_by_kind: Some((block.stats.float_samples, block.stats.histogram_samples)),
            ..Self::new(ulid)
        }
    }
}

/// Writes a block. The block appears whole or not at all.
///
/// It is built in `<ULID>.tmp-for-creation` and renamed after everything is synced. When the writer is dropped without
/// [`BlockWriter::finish`], the directory is removed.
///
/// Memory: each distinct label name and value once, about a hundred bytes each, and forty bytes for each distinct pair; four
/// bytes per series, and at most 64 MiB of postings. Series are in a temporary file until all symbols are known.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use tsdb::{BlockOptions, BlockWriter, Ulid, XorEncoder};
/// let mut writer = BlockWriter::create(dir.path(), BlockOptions::new(Ulid::from_parts(1, 2)))?;
/// let mut encoder = XorEncoder::new();
/// encoder.append(model::Sample::new(1_000, 1.5))?;
/// writer.add_series(&model::Labels::from_pairs([("__name__", "up")])?, encoder.finish())?;
/// let meta = writer.finish()?;
/// assert_eq!((meta.stats.series, meta.stats.samples), (1, 1));
/// assert!(dir.path().join(meta.ulid.to_string()).join("index").exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct BlockWriter {
    options: BlockOptions,
    parent: PathBuf,
    /// The directory while the block is written; removed on drop.
    unfinished: UnfinishedDir,
    segments: SegmentWriter,
    index: IndexWriter,
    last: Labels,
    stats: BlockStats,
    range: Option<TimeRange>,
    chunk_max_bytes: u64,
    /// The chunks of the series that is being added, and their references.
    chunks: Vec<Chunk>,
    references: Vec<ChunkRef>,
    /// Whether a write failed, so that files may be incomplete.
    is_broken: bool,
}

/// A directory that is removed unless it is kept.
struct UnfinishedDir(PathBuf);

impl Drop for UnfinishedDir {
    fn drop(&mut self) {
        // After a rename there is nothing to remove. If removing fails, the next start removes the directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl BlockWriter {
    /// Begins a block in directory `parent`, which must exist. The remains of an earlier attempt are removed.
    ///
    /// # Errors
    /// When the files cannot be created, or there is a block with this id.
    pub fn create(parent: &Path, options: BlockOptions) -> Result<Self, WriteError> {
        let dir = parent.join(options.ulid.to_string());
        if dir.exists() {
            return Err(at(&dir)(io::ErrorKind::AlreadyExists.into()));
        }
        let unfinished = parent.join(format!("{}{UNFINISHED_SUFFIX}", options.ulid));
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&unfinished)(error)),
            _ => {}
        }
        fs::create_dir(&unfinished).map_err(at(&unfinished))?;
        let unfinished = UnfinishedDir(unfinished);
        let chunks = unfinished.0.join(CHUNKS_DIR);
        let segments = SegmentWriter::create(&chunks, options.segment_bytes).map_err(at(&chunks))?;
        let index = IndexWriter::create(&unfinished.0.join(INDEX_FILE))?;
        Ok(Self {
            options,
            parent: parent.to_owned(),
            unfinished,
            segments,
            index,
            last: Labels::empty(),
            stats: BlockStats::default(),
            range: None,
            chunk_max_bytes: 0,
            chunks: Vec::new(),
            references: Vec::new(),
            is_broken: false,
        })
    }

    /// Adds a series, which must sort after the last one by labels, with its chunks, which must be sorted by time and must not
    /// overlap. A series without chunks is dropped.
    ///
    /// Chunks are written unchanged. The caller has to make sure that their samples are within their ranges.
    ///
    /// # Errors
    /// When the series or its chunks are out of order; the writer is then unchanged. When a file cannot be written; the writer
    /// can then only be dropped.
    pub fn add_series(
        &mut self,
        labels: &Labels,
        chunks: impl IntoIterator<Item = Chunk>,
    ) -> Result<(), WriteError> {
        self.chunks.clear();
        self.chunks.extend(chunks);
        let (Some(first), Some(last)) = (self.chunks.first(), self.chunks.last()) else {
            return Ok(());
        };
        let range = TimeRange::new(first.range.min, last.range.max);
        self.check(labels)?;
        for chunk in &self.chunks {
            let samples = chunk.sample_count() as u64;
            self.stats.samples += samples;
            if chunk.encoding.holds_floats() {
                self.stats.float_samples += samples;
            } else if chunk.encoding.holds_histograms() {
                self.stats.histogram_samples += samples;
            }
            self.chunk_max_bytes = self.chunk_max_bytes.max(chunk.data.len() as u64);
        }
        self.stats.series += 1;
        self.stats.chunks += self.chunks.len() as u64;
        self.range = Some(match self.range {
            None => range,
            Some(all) => TimeRange::new(all.min.min(range.min), all.max.max(range.max)),
        });
        self.references.clear();
        self.is_broken = true;
        let dir = self.unfinished.0.join(CHUNKS_DIR);
        self.segments.write(&self.chunks, &mut self.references).map_err(at(&dir))?;
        let metas = self.chunks.iter().zip(&self.references);
        self.index
            .add(labels, metas.map(|(chunk, &reference)| ChunkMeta { reference, range: chunk.range }))?;
        self.last = labels.clone();
        self.is_broken = false;
        Ok(())
    }

    /// Checks that the series sorts after the last one, and its chunks are in order.
    fn check(&self, labels: &Labels) -> Result<(), WriteError> {
        let refused = |what: String| Err(WriteError::Series { series: labels.clone(), what });
        if labels.is_empty() {
            return refused("it has no labels".to_owned());
        }
        if *labels <= self.last {
            return Err(WriteError::Order { series: labels.clone(), last: self.last.clone() });
        }
        if let Some(chunk) = self.chunks.iter().find(|chunk| chunk.range.is_empty()) {
            return refused(format!(
                "a chunk begins at {}, after its end at {}",
                chunk.range.min, chunk.range.max
            ));
        }
        match self.chunks.windows(2).find(|pair| pair[0].range.max >= pair[1].range.min) {
            Some([a, b, ..]) => refused(format!(
                "a chunk begins at {}, but the one before it ends at {}",
                b.range.min, a.range.max
            )),
            _ => Ok(()),
        }
    }

    /// Extends the times that the block covers, if its options have some, so that they contain the samples of `range`.
    pub fn extend_times(&mut self, range: TimeRange) {
        if let Some((min, max)) = &mut self.options.times {
            *min = (*min).min(range.min);
            *max = (*max).max(range.max.offset_millis(1));
        }
    }

    /// Series so far.
    pub fn series(&self) -> u64 {
        self.stats.series
    }

    /// Writes the index and `meta.json`, syncs everything, and renames the directory to its final name.
    ///
    /// # Errors
    /// When there is no series, samples are outside of the times of the block, or a file cannot be written. The directory is
    /// then removed.
    pub fn finish(self) -> Result<BlockMeta, WriteError> {
        let Self { options, parent, unfinished, segments, index, stats, range, .. } = self;
        let dir = &unfinished.0;
        if self.is_broken {
            return Err(at(dir)(io::Error::other("an earlier write failed")));
        }
        let range = range.ok_or(WriteError::Empty)?;
        let (min_time, max_time) = options.times.unwrap_or((range.min, range.max.offset_millis(1)));
        if range.min < min_time || range.max >= max_time {
            let (first, last) = (range.min, range.max);
            return Err(WriteError::Times { min: min_time, max: max_time, first, last });
        }
        segments.finish().map_err(at(&dir.join(CHUNKS_DIR)))?;
        let series_max_bytes = index.finish()?;

        let mut meta = BlockMeta::new(options.ulid, min_time, max_time);
        meta.stats = stats;
        if let Some((floats, histograms)) = options.samples_by_kind {
            (meta.stats.float_samples, meta.stats.histogram_samples) = (floats, histograms);
        }
        if let Some(compaction) = options.compaction {
            meta.compaction = compaction;
        }
        meta.thanos = options.thanos.map(|mut thanos| {
            thanos.index_stats.series_max_size = Some(series_max_bytes);
            thanos.index_stats.chunk_max_size = Some(self.chunk_max_bytes);
            thanos
        });
        write_file(&dir.join(TOMBSTONES_FILE), &Tombstones::none().to_bytes())?;
        write_file(&dir.join(META_FILE), &meta.to_json())?;
        sync_dir(dir)?;
        let finished = parent.join(meta.ulid.to_string());
        fs::rename(dir, &finished).map_err(at(&finished))?;
        sync_dir(&parent)?;
        Ok(meta)
    }
}

fn write_file(path: &Path, content: &[u8]) -> Result<(), WriteError> {
    let write = || {
        let mut file = File::create_new(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(at(path))
}

fn sync_dir(path: &Path) -> Result<(), WriteError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(at(path))
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
