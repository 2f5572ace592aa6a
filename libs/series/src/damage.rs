//! Finds chunks that cannot be decoded.

use model::TimeRange;

use crate::{AggrChunk, Aggregate, DecodeError, DecodeOptions, Dedup, Samples, SelectedSeries, Series};

impl Series {
    /// Memory that [`Series::remove_damaged_chunks`] takes at most, in bytes: that of the largest chunk when it is decoded.
    pub fn largest_decoded_bytes(&self, aggregate: Aggregate) -> usize {
        let options = options(aggregate);
        let bytes = |chunk: &AggrChunk| {
            let replicas = vec![vec![chunk.clone()]];
            SelectedSeries { labels: self.labels.clone(), replicas }.decoded_bytes(&options)
        };
        self.chunks.iter().map(bytes).max().unwrap_or(0)
    }

    /// Decodes each chunk, removes those that cannot be decoded, and returns why.
    ///
    /// `aggregate` is the aggregate that the query reads of downsampled chunks, as in [`DecodeOptions`]. This takes as long as
    /// evaluating the series, so a query uses it only after it met a damaged chunk.
    pub fn remove_damaged_chunks(&mut self, aggregate: Aggregate) -> Vec<DecodeError> {
        let options = options(aggregate);
        let (mut damage, mut samples) = (Vec::new(), Samples::new());
        let labels = self.labels.clone();
        self.chunks.retain(|chunk| {
            let alone = SelectedSeries { labels: labels.clone(), replicas: vec![vec![chunk.clone()]] };
            match alone.decode(&options, &mut samples) {
                Ok(()) => true,
                Err(error) => {
                    damage.push(error);
                    false
                }
            }
        });
        damage
    }
}

/// Decodes a chunk as it is.
fn options(aggregate: Aggregate) -> DecodeOptions {
    DecodeOptions {
        range: TimeRange::ALL,
        dedup: Dedup::Off,
        counter: false,
        aggregate,
        starts: true,
        window: 0,
    }
}

#[cfg(test)]
mod tests {
    use model::Labels;

    use super::*;
    use crate::testing::chunk;

    #[test]
    fn only_damaged_chunks_are_removed() {
        let whole = chunk(&[(10, 1.0), (20, 2.0)]);
        let cut = tsdb::Chunk { data: whole.data.slice(..3), ..whole.clone() };
        let (whole, cut) = (AggrChunk::raw(whole), AggrChunk::raw(cut));
        let sums = AggrChunk { raw: None, sum: whole.raw.clone(), ..AggrChunk::default() };
        let mut series =
            Series { labels: Labels::empty(), chunks: vec![whole.clone(), cut, sums.clone(), whole.clone()] };
        let damage = series.clone().remove_damaged_chunks(Aggregate::Sum);
        assert!(damage.len() == 1 && damage[0].range == whole.range(), "{damage:?}");
        let damage = series.remove_damaged_chunks(Aggregate::Max);
        assert_eq!((damage.len(), series.chunks), (2, vec![whole.clone(), whole]));
    }
}
