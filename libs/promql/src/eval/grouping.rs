//! The groups of an aggregation or of a join.

use std::collections::HashMap;

use model::{Labels, METRIC_NAME};

use crate::plan::node::Grouping;

impl Grouping {
    /// Whether groups differ by a label.
    fn counts(&self, name: &str) -> bool {
        let listed = self.labels.binary_search_by(|label| label.as_str().cmp(name)).is_ok();
        if self.without { !listed && name != METRIC_NAME } else { listed }
    }

    /// The labels of the group of a series.
    pub(crate) fn labels_of(&self, labels: &Labels) -> Labels {
        if !self.without && self.labels.is_empty() {
            return Labels::empty();
        }
        labels.only(|name| self.counts(name))
    }

    /// Writes a key into `key` that is unique to the group of a series.
    fn key(&self, labels: &Labels, key: &mut Vec<u8>) {
        key.clear();
        if !self.without && self.labels.is_empty() {
            return;
        }
        for label in labels.iter().filter(|label| self.counts(label.name)) {
            // Neither byte occurs in UTF-8.
            key.extend_from_slice(label.name.as_bytes());
            key.push(0xff);
            key.extend_from_slice(label.value.as_bytes());
            key.push(0xfe);
        }
    }
}

/// Numbers groups in the order in which they first occur.
#[derive(Debug, Default)]
pub(crate) struct GroupNumbers {
    numbers: HashMap<Box<[u8]>, usize>,
    /// The labels of each group.
    pub(crate) labels: Vec<Labels>,
    key: Vec<u8>,
}

impl GroupNumbers {
    /// The number of the group of a series, if it has one; `key` is a buffer.
    pub(crate) fn find(&self, grouping: &Grouping, labels: &Labels, key: &mut Vec<u8>) -> Option<usize> {
        grouping.key(labels, key);
        self.numbers.get(key.as_slice()).copied()
    }

    /// The number of the group of a series. Allocates only for a new group.
    pub(crate) fn number(&mut self, grouping: &Grouping, labels: &Labels) -> usize {
        grouping.key(labels, &mut self.key);
        match self.numbers.get(self.key.as_slice()) {
            Some(number) => *number,
            None => {
                let number = self.labels.len();
                self.numbers.insert(self.key.as_slice().into(), number);
                self.labels.push(grouping.labels_of(labels));
                number
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied()).unwrap()
    }

    fn grouping(names: &[&str], without: bool) -> Grouping {
        Grouping { labels: names.iter().map(|n| (*n).to_owned()).collect(), without }
    }

    #[test]
    fn groups_are_numbered_in_the_order_of_arrival() {
        let by = grouping(&["job"], false);
        let mut groups = GroupNumbers::default();
        let series = |job, instance| labels(&[("__name__", "up"), ("instance", instance), ("job", job)]);
        assert_eq!(groups.number(&by, &series("b", "1")), 0);
        assert_eq!(groups.number(&by, &series("a", "1")), 1);
        assert_eq!(groups.number(&by, &series("b", "2")), 0);
        assert_eq!(groups.labels, [labels(&[("job", "b")]), labels(&[("job", "a")])]);
    }

    #[test]
    fn without_also_drops_the_metric_name() {
        let without = grouping(&["instance"], true);
        let series = labels(&[("__name__", "up"), ("instance", "1"), ("job", "a")]);
        assert_eq!(without.labels_of(&series), labels(&[("job", "a")]));
        assert_eq!(grouping(&[], false).labels_of(&series), Labels::empty());
    }
}
