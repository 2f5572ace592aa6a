//! Chunks of out-of-order samples that a start finds in files.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use crate::chunk_files::ChunkFiles;
use crate::chunk_format::{FoundChunk, StoredChunk};
use crate::head::Head;
use crate::series::Series;

/// What was found, until the series are known.
#[derive(Default)]
pub(crate) struct LateChunks {
    /// By the number of the series.
    by_series: HashMap<u64, Vec<StoredChunk>>,
    /// Where chunks are, as marks in the log name it.
    places: HashSet<u64>,
    /// The first place of a chunk in files that exist.
    first: u64,
    /// Chunks up to this place are in blocks.
    cut_until: Option<u64>,
    /// Those of them that were found.
    cut: Vec<StoredChunk>,
}

impl LateChunks {
    pub(crate) fn new(first_file: Option<u32>, cut_until: Option<u64>) -> Self {
        Self { first: u64::from(first_file.unwrap_or(0)) << 32, cut_until, ..Self::default() }
    }

    /// Adds a chunk.
    pub(crate) fn add(&mut self, chunk: &FoundChunk) {
        let stored = StoredChunk { range: chunk.range, place: chunk.place };
        let is_cut = self.cut_until.is_some_and(|until| chunk.place.number() <= until);
        match (chunk.is_forgotten(), is_cut) {
            (true, _) => {}
            (false, true) => self.cut.push(stored),
            (false, false) => self.by_series.entry(chunk.series).or_default().push(stored),
        }
        self.places.insert(chunk.place.number());
    }

    /// Gives a series with this number in the log its chunks.
    pub(crate) fn attach(&mut self, reference: u64, series: &Arc<Series>) {
        if let Some(chunks) = self.by_series.remove(&reference) {
            series.lock().late.get_or_insert_default().stored.extend(chunks);
        }
    }

    /// Whether the samples before a mark with this place need not be read again: the chunk is there, or was removed because its
    /// samples are in a block. Otherwise the chunk was lost in a crash, and the log has its samples.
    pub(crate) fn has(&self, place: u64) -> bool {
        place < self.first || self.places.contains(&place)
    }

    /// Forgets the chunks that are in blocks.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn forget_cut(&self, files: &ChunkFiles) -> io::Result<()> {
        files.forget_late(&self.cut)?;
        files.release_late(&self.cut);
        Ok(())
    }

    /// Frees the chunks whose series are not known, and returns their number.
    pub(crate) fn release_unknown(&mut self, head: &Head) -> u64 {
        let unknown: Vec<StoredChunk> = self.by_series.drain().flat_map(|(_, chunks)| chunks).collect();
        head.files.release_late(&unknown);
        unknown.len() as u64
    }
}
