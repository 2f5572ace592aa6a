//! Reads series of a head.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, PoisonError};
use std::vec::IntoIter;

use model::{Labels, METRIC_NAME, Matcher, TimeRange};
use tsdb::Chunk;

use crate::chunk_format::StoredChunk;
use crate::error::{HeadError, at};
use crate::exemplars::SeriesExemplars;
use crate::head::{CHUNKS_DIR, Head};
use crate::late::LateSamples;
use crate::merge::{merged, without};
use crate::metadata::Metadata;
use crate::series::{Series, SeriesState};

/// A series with its chunks.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadSeries {
    /// Its labels.
    pub labels: Labels,
    /// Its chunks with samples in the range that was asked for, in order of time. They may have samples outside of it.
    pub chunks: Vec<Chunk>,
}

/// The series that match, in the order of their labels. Chunks are read one series at a time. What was removed from the head meanwhile
/// is left out: a [`DatabaseView`](crate::DatabaseView) says whether that happened.
pub struct HeadSelection<'a> {
    head: &'a Head,
    range: TimeRange,
    series: IntoIter<Arc<Series>>,
    deletions: HashMap<u32, Vec<TimeRange>>,
    is_late_included: bool,
}

/// A series that was found, and not read yet. It can be read as long as it is kept, also when the head has removed it.
#[derive(Clone)]
pub struct FoundSeries(Arc<Series>);

impl FoundSeries {
    /// Its labels.
    pub fn labels(&self) -> &Labels {
        &self.0.labels
    }
}

impl Head {
    /// The series that satisfy all of `matchers`, in the order of their labels, to be read with [`Head::read`].
    pub fn find(&self, matchers: &[Matcher]) -> Vec<FoundSeries> {
        let mut series = self.index.read().unwrap_or_else(PoisonError::into_inner).matching(matchers);
        series.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        series.into_iter().map(FoundSeries).collect()
    }

    /// The chunks of a series with samples in `range`, in order of time. They may have samples outside of it.
    ///
    /// # Errors
    /// When a chunk file cannot be read.
    pub fn read(&self, series: &FoundSeries, range: TimeRange) -> Result<Vec<Chunk>, HeadError> {
        let chunks = self.chunks(&series.0, range, true)?;
        let deletions = self.deletions.read().unwrap_or_else(PoisonError::into_inner);
        Ok(match deletions.get(&series.0.slot) {
            Some(deleted) => chunks.iter().flat_map(|chunk| without(chunk, deleted)).collect(),
            None => chunks,
        })
    }

    /// Whether a series has chunks with samples in `range`, as far as their times show it.
    pub fn has_chunks(&self, series: &FoundSeries, range: TimeRange) -> bool {
        let state = series.0.lock();
        let is_late = |late: &LateSamples| late.range().is_some_and(|times| times.overlaps(&range));
        state.stored.iter().any(|chunk| chunk.range.overlaps(&range))
            || state.has_memory_in(range)
            || state.late.as_deref().is_some_and(is_late)
    }

    /// The series that satisfy all of `matchers` and have chunks in `range`, in the order of their labels.
    pub fn select(&self, matchers: &[Matcher], range: TimeRange) -> HeadSelection<'_> {
        let mut series = self.index.read().unwrap_or_else(PoisonError::into_inner).matching(matchers);
        series.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        let deletions = self.deletions.read().unwrap_or_else(PoisonError::into_inner).clone();
        HeadSelection { head: self, range, series: series.into_iter(), deletions, is_late_included: true }
    }

    /// All series with the chunks of samples that are in order.
    pub(crate) fn select_in_order(&self, range: TimeRange) -> HeadSelection<'_> {
        HeadSelection { is_late_included: false, ..self.select(&[], range) }
    }

    /// The names of all labels, sorted.
    pub fn label_names(&self) -> BTreeSet<String> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index.label_names().map(str::to_owned).collect()
    }

    /// The values of a label, sorted.
    pub fn label_values(&self, name: &str) -> BTreeSet<String> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index.label_values(name).map(str::to_owned).collect()
    }

    /// The exemplars in a range of the series that satisfy all matchers of at least one selector, in the order of their labels.
    pub fn exemplars(&self, selectors: &[Vec<Matcher>], range: TimeRange) -> Vec<SeriesExemplars> {
        self.exemplars.read().unwrap_or_else(PoisonError::into_inner).select(selectors, range)
    }

    /// The metadata of a metric, or of all metrics, by name. A metric has several if targets disagree.
    pub fn metadata(&self, metric: Option<&str>) -> BTreeMap<String, Vec<Arc<Metadata>>> {
        let matchers: Vec<Matcher> =
            metric.map(|metric| Matcher::equal(METRIC_NAME, metric)).into_iter().collect();
        let series = self.index.read().unwrap_or_else(PoisonError::into_inner).matching(&matchers);
        let mut found: BTreeMap<String, Vec<Arc<Metadata>>> = BTreeMap::new();
        for series in series {
            let Some(metadata) = series.lock().metadata.clone() else { continue };
            let name = series.labels.metric_name();
            match found.get_mut(name) {
                Some(others) if others.contains(&metadata) => {}
                Some(others) => others.push(metadata),
                None => drop(found.insert(name.to_owned(), vec![metadata])),
            }
        }
        found.values_mut().for_each(|of_metric| of_metric.sort_unstable());
        found
    }

    /// The chunks of a series with samples in a range.
    fn chunks(
        &self,
        series: &Series,
        range: TimeRange,
        is_late_included: bool,
    ) -> Result<Vec<Chunk>, HeadError> {
        // Chunks move from memory to files, so both are found at once.
        let (stored, in_memory, late) = {
            let state = series.lock();
            (overlapping(&state.stored, range), state.chunks_in_memory(range), late_chunks(&state, range))
        };
        let mut chunks = self.read_existing(stored)?;
        chunks.extend(in_memory);
        let Some((stored, open)) = late.filter(|_| is_late_included) else { return Ok(chunks) };
        let mut late = self.read_existing(stored)?;
        late.extend(open);
        Ok(merged(chunks, late))
    }

    /// Reads chunks in files, except those that were cut into a block and removed since they were found.
    fn read_existing(&self, stored: Vec<StoredChunk>) -> Result<Vec<Chunk>, HeadError> {
        let mut chunks = Vec::with_capacity(stored.len());
        for chunk in stored {
            match self.files.read(chunk.place) {
                Ok(chunk) => chunks.push(chunk),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(at(&self.dir.join(CHUNKS_DIR))(error)),
            }
        }
        Ok(chunks)
    }

    /// Reads chunks in files.
    pub(crate) fn read_stored(&self, stored: &[StoredChunk]) -> Result<Vec<Chunk>, HeadError> {
        let read = stored.iter().map(|chunk| self.files.read(chunk.place));
        read.collect::<io::Result<_>>().map_err(at(&self.dir.join(CHUNKS_DIR)))
    }
}

/// Those with samples in a range.
fn overlapping(stored: &[StoredChunk], range: TimeRange) -> Vec<StoredChunk> {
    stored.iter().filter(|chunk| chunk.range.overlaps(&range)).copied().collect()
}

/// Out-of-order samples in a range: chunks in files, and the others as chunks. None without such samples.
fn late_chunks(state: &SeriesState, range: TimeRange) -> Option<(Vec<StoredChunk>, Vec<Chunk>)> {
    let late = state.late.as_deref()?;
    // They were encoded once, when they were appended.
    let open = late.open_chunks().unwrap_or_default();
    let open = open.into_iter().filter(|chunk| chunk.range.overlaps(&range));
    Some((overlapping(&late.stored, range), open.collect()))
}

impl Iterator for HeadSelection<'_> {
    /// An error ends nothing: the next series may be readable.
    type Item = Result<HeadSeries, HeadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let series = self.series.next()?;
            let mut chunks = match self.head.chunks(&series, self.range, self.is_late_included) {
                Ok(chunks) => chunks,
                Err(error) => return Some(Err(error)),
            };
            if let Some(deleted) = self.deletions.get(&series.slot) {
                chunks = chunks.iter().flat_map(|chunk| without(chunk, deleted)).collect();
            }
            if !chunks.is_empty() {
                return Some(Ok(HeadSeries { labels: series.labels.clone(), chunks }));
            }
        }
    }
}
