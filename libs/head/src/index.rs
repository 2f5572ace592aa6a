//! Finds series by their labels.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use model::{Labels, MatchOp, Matcher};
use tsdb::{Postings, SeriesRef};

use crate::paged::{LastPage, PagedMap};
use crate::series::Series;

/// The series of a head, by labels and by number.
#[derive(Default)]
pub(crate) struct HeadIndex {
    by_labels: HashMap<Labels, Arc<Series>>,
    by_slot: PagedMap<Arc<Series>>,
    /// By the numbers in the log. A log can have several numbers for one series.
    references: PagedMap<Arc<Series>>,
    /// For each name and value the slots of its series, ascending.
    postings: HashMap<Box<str>, HashMap<Box<str>, Vec<u32>>>,
    next_slot: u32,
    last_reference: u64,
}

impl HeadIndex {
    /// Number of series.
    pub(crate) fn len(&self) -> usize {
        self.by_labels.len()
    }

    /// The series with these labels.
    pub(crate) fn get(&self, labels: &Labels) -> Option<&Arc<Series>> {
        self.by_labels.get(labels)
    }

    /// The series with this number in the log.
    pub(crate) fn by_reference(&self, reference: u64) -> Option<&Arc<Series>> {
        self.references.get(reference)
    }

    /// The same, faster after a neighbour.
    pub(crate) fn by_reference_after<'a>(
        &'a self,
        last: &mut LastPage<'a, Arc<Series>>,
        reference: u64,
    ) -> Option<&'a Arc<Series>> {
        self.references.get_after(last, reference)
    }

    /// The numbers of all series in the log.
    pub(crate) fn references(&self) -> impl Iterator<Item = u64> {
        self.references.iter().map(|(reference, _)| reference)
    }

    /// All series, in no order.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Series>> {
        self.by_slot.iter().map(|(_, series)| series)
    }

    /// The series with these labels, which is created with the next number if it is missing, and whether it was.
    pub(crate) fn get_or_create(&mut self, labels: &Labels) -> (Arc<Series>, bool) {
        match self.by_labels.get(labels) {
            Some(series) => (Arc::clone(series), false),
            None => (self.insert(self.last_reference.saturating_add(1), labels.clone()), true),
        }
    }

    /// Adds a series of the log. If there is one with these labels, its number stands for that one.
    pub(crate) fn add_logged(&mut self, reference: u64, labels: Labels) -> Arc<Series> {
        self.last_reference = self.last_reference.max(reference);
        match self.by_labels.get(&labels) {
            Some(series) => {
                let series = Arc::clone(series);
                self.references.insert(reference, Arc::clone(&series));
                series
            }
            None => self.insert(reference, labels),
        }
    }

    fn insert(&mut self, reference: u64, labels: Labels) -> Arc<Series> {
        let slot = self.next_slot;
        self.next_slot += 1;
        self.last_reference = self.last_reference.max(reference);
        for label in labels.iter() {
            if !self.postings.contains_key(label.name) {
                self.postings.insert(label.name.into(), HashMap::new());
            }
            let Some(values) = self.postings.get_mut(label.name) else { continue };
            match values.get_mut(label.value) {
                Some(list) => list.push(slot),
                None => drop(values.insert(label.value.into(), vec![slot])),
            }
        }
        let series = Arc::new(Series::new(reference, slot, labels.clone()));
        self.by_labels.insert(labels, Arc::clone(&series));
        self.by_slot.insert(u64::from(slot), Arc::clone(&series));
        self.references.insert(reference, Arc::clone(&series));
        series
    }

    /// Removes series by their slots.
    pub(crate) fn remove(&mut self, slots: &HashSet<u32>) {
        let mut lists: HashSet<(Box<str>, Box<str>)> = HashSet::new();
        for series in slots.iter().filter_map(|slot| self.by_slot.remove(u64::from(*slot))) {
            self.by_labels.remove(&series.labels);
            lists.extend(series.labels.iter().map(|label| (label.name.into(), label.value.into())));
        }
        self.references.retain(|series| !slots.contains(&series.slot));
        for (name, value) in lists {
            let Some(values) = self.postings.get_mut(&name) else { continue };
            if let Some(list) = values.get_mut(&value) {
                list.retain(|slot| !slots.contains(slot));
                if list.is_empty() {
                    values.remove(&value);
                }
            }
            if values.is_empty() {
                self.postings.remove(&name);
            }
        }
        if self.by_labels.len() * 4 < self.by_labels.capacity() {
            self.by_labels.shrink_to_fit();
        }
    }

    /// The series that satisfy all of `matchers`, in no order.
    pub(crate) fn matching(&self, matchers: &[Matcher]) -> Vec<Arc<Series>> {
        let mut matchers: Vec<&Matcher> = matchers.iter().collect();
        matchers.sort_by_key(|matcher| (matcher.matches_empty(), matcher.op() != MatchOp::Equal));
        let mut found: Option<Postings> = None;
        for matcher in matchers {
            if found.as_ref().is_some_and(Postings::is_empty) {
                break;
            }
            let wanted = !matcher.matches_empty();
            let listed = self.listed(matcher, wanted);
            found = Some(match found {
                None if wanted => listed,
                None => {
                    self.all().map(|series| SeriesRef(series.slot)).collect::<Postings>().difference(&listed)
                }
                Some(found) if wanted => found.intersect(&listed),
                Some(found) => found.difference(&listed),
            });
        }
        match found {
            None => self.all().cloned().collect(),
            Some(found) => {
                found.iter().filter_map(|slot| self.by_slot.get(u64::from(slot.0)).cloned()).collect()
            }
        }
    }

    /// The series with a value that the matcher matches (or, if not `wanted`, does not match).
    fn listed(&self, matcher: &Matcher, wanted: bool) -> Postings {
        let Some(values) = self.postings.get(matcher.name()) else { return Postings::empty() };
        let slots = |list: &Vec<u32>| list.iter().map(|slot| SeriesRef(*slot)).collect::<Vec<_>>();
        if matcher.op() == MatchOp::Equal && wanted || matcher.op() == MatchOp::NotEqual && !wanted {
            return values.get(matcher.value()).into_iter().flat_map(slots).collect();
        }
        let lists = values.iter().filter(|(value, _)| matcher.matches(value) == wanted);
        lists.flat_map(|(_, list)| slots(list)).collect()
    }

    /// For each label its values with the numbers of their series, in no order.
    pub(crate) fn cardinalities(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = (&str, u64)>)> {
        self.postings.iter().map(|(name, values)| {
            (&**name, values.iter().map(|(value, series)| (&**value, series.len() as u64)))
        })
    }

    /// All names of labels, in no order.
    pub(crate) fn label_names(&self) -> impl Iterator<Item = &str> {
        self.postings.keys().map(|name| &**name)
    }

    /// All values of a label, in no order.
    pub(crate) fn label_values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.postings.get(name).into_iter().flatten().map(|(value, _)| &**value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What matchers find is what a scan of all labels finds, also after series were removed.
    #[test]
    fn matchers_find_what_a_scan_finds() {
        let mut index = HeadIndex::default();
        for n in 0..200 {
            let mut pairs = vec![("__name__", format!("m{}", n % 7)), ("instance", format!("i{n}"))];
            if n % 3 == 0 {
                pairs.push(("job", format!("j{}", n % 4)));
            }
            index.get_or_create(&Labels::from_pairs(pairs).unwrap());
        }
        let matcher = |op, name: &str, value: &str| Matcher::new(op, name, value).unwrap();
        let lists = [
            vec![],
            vec![matcher(MatchOp::Equal, "__name__", "m3")],
            vec![matcher(MatchOp::Equal, "__name__", "none")],
            vec![matcher(MatchOp::NotEqual, "__name__", "m3")],
            vec![matcher(MatchOp::Equal, "job", "")],
            vec![matcher(MatchOp::NotEqual, "job", "")],
            vec![matcher(MatchOp::Regex, "job", "j[12]|")],
            vec![matcher(MatchOp::Regex, "job", ".+"), matcher(MatchOp::Regex, "instance", "i1.*")],
            vec![matcher(MatchOp::NotRegex, "job", "j.*"), matcher(MatchOp::Equal, "__name__", "m1")],
            vec![matcher(MatchOp::NotRegex, "job", "|j0")],
            vec![matcher(MatchOp::Equal, "absent", ""), matcher(MatchOp::NotEqual, "absent", "x")],
            vec![matcher(MatchOp::Equal, "absent", "x")],
        ];
        for round in 0..2 {
            for matchers in &lists {
                let satisfies =
                    |series: &&Arc<Series>| matchers.iter().all(|m| m.matches_labels(&series.labels));
                let mut expected: Vec<u32> =
                    index.all().filter(satisfies).map(|series| series.slot).collect();
                let mut found: Vec<u32> = index.matching(matchers).iter().map(|series| series.slot).collect();
                expected.sort_unstable();
                found.sort_unstable();
                assert_eq!(found, expected, "{matchers:?}");
            }
            if round == 0 {
                index.remove(&(0..150).filter(|slot| slot % 5 != 1).collect());
                assert_eq!(index.len(), 80);
            }
        }
        index.remove(&(0..200).collect());
        assert_eq!((index.len(), index.label_names().count()), (0, 0));
    }
}
