//! Sorts the series of one store after their labels were changed.

use model::Labels;

use crate::{AggrChunk, Series};

/// Puts series back in label order after external labels were added or replica labels removed.
///
/// Both change the order of label sets (`{a="1"}` sorts before `{a="1", b="2"}`, but `{a="1", c="x"}` after
/// `{a="1", b="2", c="x"}`), and a StoreAPI stream must be sorted. So all series of the request are kept in memory until the
/// last one has arrived, within a limit.
#[derive(Debug)]
pub struct SeriesSorter {
    series: Vec<Series>,
    size_bytes: usize,
    limit_bytes: usize,
}

/// The series of one request exceed the memory limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request selects more than {limit_bytes} bytes of series; narrow its matchers or its time range")]
pub struct SorterFull {
    /// The limit.
    pub limit_bytes: usize,
}

impl SeriesSorter {
    /// A sorter for at most `limit_bytes` of labels and encoded chunks.
    pub fn new(limit_bytes: usize) -> Self {
        Self { series: Vec::new(), size_bytes: 0, limit_bytes }
    }

    /// Adds a series, or a part of one, with its new labels. Consecutive parts of one series are joined.
    ///
    /// # Errors
    /// When the limit is exceeded; the request fails.
    pub fn push(&mut self, labels: Labels, chunks: Vec<AggrChunk>) -> Result<(), SorterFull> {
        self.size_bytes += chunks.iter().map(|c| size_of::<AggrChunk>() + c.size_bytes()).sum::<usize>();
        match self.series.last_mut().filter(|last| last.labels == labels) {
            Some(last) => last.chunks.extend(chunks),
            None => {
                self.size_bytes += size_of::<Series>() + labels.size_bytes();
                self.series.push(Series { labels, chunks });
            }
        }
        if self.size_bytes > self.limit_bytes {
            Err(SorterFull { limit_bytes: self.limit_bytes })
        } else {
            Ok(())
        }
    }

    /// Bytes of labels and chunks so far.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// The series in label order. Equal label sets are adjacent, in the order in which they were added.
    pub fn into_sorted(mut self) -> Vec<Series> {
        if !self.series.is_sorted_by(|a, b| a.labels <= b.labels) {
            self.series.sort_by(|a, b| a.labels.cmp(&b.labels));
        }
        self.series
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{labels, raw};

    #[test]
    fn series_are_sorted_by_their_new_labels_and_equal_ones_are_adjacent() {
        let mut sorter = SeriesSorter::new(1 << 20);
        let external = labels(&[("cluster", "eu-1")]);
        // Sorted as the store has them, but not any more with the external label, nor without the replica.
        let stored = [
            (labels(&[("a", "1")]), 1),
            (labels(&[("a", "1"), ("b", "2"), ("replica", "0")]), 2),
            (labels(&[("a", "1"), ("b", "3"), ("replica", "0")]), 3),
            (labels(&[("a", "1"), ("b", "2"), ("z", "9")]), 4),
            (labels(&[("a", "1"), ("b", "2"), ("replica", "1")]), 5),
            (labels(&[("a", "1"), ("b", "2"), ("replica", "1")]), 6),
        ];
        for (stored, t) in &stored {
            let labels = stored.extended(&external).without(|name| name == "replica");
            sorter.push(labels, vec![raw(&[(*t, 1.0)])]).unwrap();
        }
        let sorted = sorter.into_sorted();
        let times =
            |series: &Series| series.chunks.iter().map(|c| c.range().min.as_millis()).collect::<Vec<_>>();
        assert!(sorted.is_sorted_by(|a, b| a.labels <= b.labels));
        assert_eq!(
            sorted.iter().map(times).collect::<Vec<_>>(),
            [vec![2], vec![5, 6], vec![4], vec![3], vec![1]]
        );
    }

    #[test]
    fn more_than_the_limit_is_rejected() {
        let mut sorter = SeriesSorter::new(1_000);
        let refused = (0..100).find_map(|n| sorter.push(labels(&[("a", &n.to_string())]), Vec::new()).err());
        assert_eq!(
            refused.map(|error| error.to_string()).as_deref(),
            Some("the request selects more than 1000 bytes of series; narrow its matchers or its time range")
        );
        assert!(sorter.size_bytes() > 1_000 && sorter.size_bytes() < 1_200);
    }
}
