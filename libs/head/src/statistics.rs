//! Which labels and metrics have most series.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::PoisonError;

use model::METRIC_NAME;

use crate::head::Head;

/// Names with numbers, the largest first.
type Ranking = Vec<(String, u64)>;

/// What needs most of a head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadStatistics {
    /// Pairs of a label and a value.
    pub label_pairs: u64,
    /// The metrics with most series.
    pub series_by_metric: Ranking,
    /// The labels with most values.
    pub values_by_label: Ranking,
    /// The labels whose names and values have most bytes in all series.
    pub bytes_by_label: Ranking,
    /// The labels and values, as `name=value`, with most series.
    pub series_by_pair: Ranking,
}

impl Head {
    /// The statistics, each list with at most `most` entries. It looks at every value of every label.
    pub fn statistics(&self, most: usize) -> HeadStatistics {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let mut label_pairs = 0;
        let [mut metrics, mut values, mut bytes, mut pairs] = [(); 4].map(|()| Top::new(most));
        for (name, counts) in index.cardinalities() {
            let (mut of_label, mut size) = (0, 0);
            for (value, series) in counts {
                of_label += 1;
                size += series * (name.len() + value.len()) as u64;
                if name == METRIC_NAME {
                    metrics.offer(series, || value.to_owned());
                }
                pairs.offer(series, || format!("{name}={value}"));
            }
            label_pairs += of_label;
            values.offer(of_label, || name.to_owned());
            bytes.offer(size, || name.to_owned());
        }
        HeadStatistics {
            label_pairs,
            series_by_metric: metrics.finish(),
            values_by_label: values.finish(),
            bytes_by_label: bytes.finish(),
            series_by_pair: pairs.finish(),
        }
    }
}

/// The largest numbers; of equal ones those whose names sort first.
struct Top {
    most: usize,
    /// The smallest is on top.
    heap: BinaryHeap<(Reverse<u64>, String)>,
}

impl Top {
    fn new(most: usize) -> Self {
        Self { most, heap: BinaryHeap::new() }
    }

    fn offer(&mut self, count: u64, name: impl FnOnce() -> String) {
        if self.heap.len() >= self.most && self.heap.peek().is_none_or(|(least, _)| count < least.0) {
            return;
        }
        self.heap.push((Reverse(count), name()));
        if self.heap.len() > self.most {
            self.heap.pop();
        }
    }

    fn finish(self) -> Ranking {
        self.heap.into_sorted_vec().into_iter().map(|(count, name)| (name, count.0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_numbers_are_kept() {
        let mut top = Top::new(3);
        for (name, count) in [("a", 1), ("z", 5), ("b", 2), ("c", 2), ("y", 5), ("d", 0), ("e", 2)] {
            top.offer(count, || name.to_owned());
        }
        let expected = [("y", 5), ("z", 5), ("b", 2)];
        assert_eq!(top.finish(), expected.map(|(name, count)| (name.to_owned(), count)));
        let mut none = Top::new(0);
        none.offer(1, || unreachable!("no entry is kept"));
        assert!(none.finish().is_empty());
    }
}
