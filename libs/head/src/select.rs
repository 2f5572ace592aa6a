//! Reads series of a head.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};
use std::vec::IntoIter;

use model::{Labels, METRIC_NAME, Matcher, TimeRange, Timestamp};
use tsdb::{Chunk, ChunkBuilder};

use crate::error::{HeadError, at};
use crate::exemplars::SeriesExemplars;
use crate::head::{CHUNKS_DIR, Head};
use crate::metadata::Metadata;
use crate::series::Series;

/// A series with its chunks.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadSeries {
    /// Its labels.
    pub labels: Labels,
    /// Its chunks with samples in the range that was asked for, in order of time. They may have samples outside of it.
    pub chunks: Vec<Chunk>,
}

/// The series that match, in the order of their labels. Chunks are read one series at a time.
pub struct HeadSelection<'a> {
    head: &'a Head,
    range: TimeRange,
    series: IntoIter<Arc<Series>>,
    deletions: HashMap<u32, Vec<TimeRange>>,
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
        let chunks = self.chunks(&series.0, range)?;
        let deletions = self.deletions.read().unwrap_or_else(PoisonError::into_inner);
        Ok(match deletions.get(&series.0.slot) {
            Some(deleted) => chunks.iter().flat_map(|chunk| without(chunk, deleted)).collect(),
            None => chunks,
        })
    }

    /// Whether a series has chunks with samples in `range`, as far as their times show it.
    pub fn has_chunks(&self, series: &FoundSeries, range: TimeRange) -> bool {
        let state = series.0.lock();
        state.stored.iter().any(|chunk| chunk.range.overlaps(&range)) || state.has_memory_in(range)
    }

    /// The series that satisfy all of `matchers` and have chunks in `range`, in the order of their labels.
    pub fn select(&self, matchers: &[Matcher], range: TimeRange) -> HeadSelection<'_> {
        let mut series = self.index.read().unwrap_or_else(PoisonError::into_inner).matching(matchers);
        series.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        let deletions = self.deletions.read().unwrap_or_else(PoisonError::into_inner).clone();
        HeadSelection { head: self, range, series: series.into_iter(), deletions }
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
    fn chunks(&self, series: &Series, range: TimeRange) -> Result<Vec<Chunk>, HeadError> {
        // Chunks move from memory to files, so both are found at once.
        let (places, in_memory) = {
            let state = series.lock();
            let stored = state.stored.iter().filter(|chunk| chunk.range.overlaps(&range));
            (stored.map(|chunk| chunk.place).collect::<Vec<_>>(), state.chunks_in_memory(range))
        };
        let mut chunks = Vec::with_capacity(places.len() + in_memory.len());
        for place in places {
            match self.files.read(place) {
                Ok(chunk) => chunks.push(chunk),
                // Its time was cut into a block, and the file removed, since the place was found.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(at(&self.dir.join(CHUNKS_DIR))(error)),
            }
        }
        chunks.extend(in_memory);
        Ok(chunks)
    }
}

impl Iterator for HeadSelection<'_> {
    /// An error ends nothing: the next series may be readable.
    type Item = Result<HeadSeries, HeadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let series = self.series.next()?;
            let mut chunks = match self.head.chunks(&series, self.range) {
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

/// A chunk without the samples in these ranges. A chunk that cannot be decoded stays as it is.
pub(crate) fn without(chunk: &Chunk, deleted: &[TimeRange]) -> Vec<Chunk> {
    if !deleted.iter().any(|range| range.overlaps(&chunk.range)) {
        return vec![chunk.clone()];
    }
    keep(chunk, &|time| !deleted.iter().any(|range| range.contains(time)))
        .unwrap_or_else(|| vec![chunk.clone()])
}

/// The samples of a chunk whose times are kept, encoded again. None if the chunk cannot be decoded.
pub(crate) fn keep(chunk: &Chunk, is_kept: &dyn Fn(Timestamp) -> bool) -> Option<Vec<Chunk>> {
    let mut builder = ChunkBuilder::new();
    let start =
        |starts: &[i64], index: usize| Timestamp::from_millis(starts.get(index).copied().unwrap_or(0));
    let mut starts = Vec::new();
    if chunk.encoding.holds_floats() {
        let (mut times, mut values) = (Vec::new(), Vec::new());
        chunk.decode_floats_with_starts(&mut times, &mut values, &mut starts).ok()?;
        for (index, (&time, &value)) in times.iter().zip(&values).enumerate() {
            let sample = model::Sample::new(time, value);
            if is_kept(sample.timestamp) {
                builder.append_float(chunk.encoding, sample, start(&starts, index)).ok()?;
            }
        }
    } else {
        let mut histograms = Vec::new();
        chunk.decode_histograms_with_starts(&mut histograms, &mut starts).ok()?;
        for (index, (time, histogram)) in histograms.iter().enumerate() {
            let time = Timestamp::from_millis(*time);
            if is_kept(time) {
                builder.append_histogram(chunk.encoding, time, histogram, start(&starts, index)).ok()?;
            }
        }
    }
    builder.finish().ok()
}
