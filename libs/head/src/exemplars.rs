//! Exemplars: the newest ones of all series, up to a number.

use std::collections::{HashMap, VecDeque};

use model::{Labels, Matcher, TimeRange, Timestamp};

/// Most characters of the names and values of the labels of an exemplar, as in OpenMetrics.
const MOST_CHARACTERS: usize = 128;

/// An observation beside the samples of a series, such as the trace of one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// Its own labels.
    pub labels: Labels,
    /// The value that was observed.
    pub value: f64,
    /// When it was observed.
    pub time: Timestamp,
    /// Whether the target sent the time. If not, it is the time of the scrape, and an exemplar that is the same except for its time
    /// is a duplicate.
    pub has_own_time: bool,
}

/// Why an exemplar was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExemplarRefused {
    /// It is earlier than the last exemplar of its series, or has its time and a smaller value.
    #[error("the exemplar is earlier than the last one of its series")]
    OutOfOrder,
    /// Its labels have more than 128 characters.
    #[error("the labels of the exemplar have more than 128 characters")]
    TooLong,
}

/// The exemplars of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesExemplars {
    /// The labels of the series.
    pub labels: Labels,
    /// Its exemplars, in order of time.
    pub exemplars: Vec<Exemplar>,
}

/// The last exemplars that were added. They do not depend on whether their series have samples.
///
/// Memory: about 200 bytes for each exemplar with the id of a trace.
#[derive(Default)]
pub(crate) struct ExemplarBuffer {
    /// Most exemplars; 0 keeps none.
    most: usize,
    by_series: HashMap<Labels, VecDeque<Exemplar>>,
    /// The series of each exemplar, in the order in which they were added.
    order: VecDeque<Labels>,
}

impl ExemplarBuffer {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, ..Self::default() }
    }

    /// Number of exemplars.
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether an exemplar of a series is added; false if it is there already, or none are kept.
    pub(crate) fn check(&self, series: &Labels, exemplar: &Exemplar) -> Result<bool, ExemplarRefused> {
        if self.most == 0 {
            return Ok(false);
        }
        let characters = |text: &str| text.chars().count();
        let labels = exemplar.labels.iter();
        if labels.map(|label| characters(label.name) + characters(label.value)).sum::<usize>()
            > MOST_CHARACTERS
        {
            return Err(ExemplarRefused::TooLong);
        }
        let Some(last) = self.by_series.get(series).and_then(VecDeque::back) else { return Ok(true) };
        let has_time = exemplar.has_own_time || last.has_own_time;
        if last.labels == exemplar.labels
            && last.value == exemplar.value
            && (!has_time || last.time == exemplar.time)
        {
            return Ok(false);
        }
        let is_before = exemplar.time < last.time
            || exemplar.time == last.time
                && (exemplar.value < last.value
                    || exemplar.value == last.value && exemplar.labels < last.labels);
        if is_before { Err(ExemplarRefused::OutOfOrder) } else { Ok(true) }
    }

    /// Adds an exemplar in place of the oldest one of all series if there are too many. Returns whether it was added.
    pub(crate) fn add(&mut self, series: &Labels, exemplar: Exemplar) -> bool {
        if self.check(series, &exemplar) != Ok(true) {
            return false;
        }
        if self.order.len() >= self.most
            && let Some(oldest) = self.order.pop_front()
            && let Some(of_series) = self.by_series.get_mut(&oldest)
        {
            of_series.pop_front();
            if of_series.is_empty() {
                self.by_series.remove(&oldest);
            }
        }
        // The key of the map is the one allocation of the labels.
        let key = self.by_series.get_key_value(series).map_or(series, |(key, _)| key).clone();
        self.by_series.entry(key.clone()).or_default().push_back(exemplar);
        self.order.push_back(key);
        true
    }

    /// Adds an exemplar of a log. It was not a duplicate when it was logged.
    pub(crate) fn add_logged(&mut self, series: &Labels, exemplar: Exemplar) {
        if self.add(series, Exemplar { has_own_time: true, ..exemplar })
            && let Some(added) = self.by_series.get_mut(series).and_then(VecDeque::back_mut)
        {
            // The log does not say whose time it is. As in Prometheus, the next scrape may have it again.
            added.has_own_time = false;
        }
    }

    /// The exemplars in a range of the series that satisfy all matchers of at least one selector, in the order of their labels.
    pub(crate) fn select(&self, selectors: &[Vec<Matcher>], range: TimeRange) -> Vec<SeriesExemplars> {
        let matches = |labels: &Labels| {
            selectors.iter().any(|matchers| matchers.iter().all(|matcher| matcher.matches_labels(labels)))
        };
        let mut found: Vec<SeriesExemplars> = Vec::new();
        for (labels, of_series) in &self.by_series {
            let is_inside = |exemplar: &&Exemplar| range.contains(exemplar.time);
            if of_series.iter().any(|exemplar| is_inside(&exemplar)) && matches(labels) {
                let exemplars = of_series.iter().filter(is_inside).cloned().collect();
                found.push(SeriesExemplars { labels: labels.clone(), exemplars });
            }
        }
        found.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exemplar(time: i64, value: f64, trace: &str, has_own_time: bool) -> Exemplar {
        let labels = Labels::from_pairs([("trace", trace)]).unwrap();
        Exemplar { labels, value, time: Timestamp::from_millis(time), has_own_time }
    }

    #[test]
    fn duplicates_are_ignored_and_earlier_ones_refused() {
        let series = Labels::from_pairs([("__name__", "m")]).unwrap();
        let mut buffer = ExemplarBuffer::new(10);
        let mut check = |exemplar: Exemplar, expected: Result<bool, ExemplarRefused>| {
            assert_eq!(buffer.check(&series, &exemplar), expected, "{exemplar:?}");
            assert_eq!(buffer.add(&series, exemplar), expected == Ok(true));
        };
        check(exemplar(1_000, 1.0, "a", false), Ok(true));
        // Without a time of its own, the same exemplar is in each scrape.
        check(exemplar(2_000, 1.0, "a", false), Ok(false));
        check(exemplar(1_000, 1.0, "a", true), Ok(false));
        check(exemplar(2_000, 1.0, "a", true), Ok(true));
        check(exemplar(3_000, 1.0, "a", false), Ok(true));
        // At one time, by value and then by labels.
        check(exemplar(3_000, 0.5, "a", true), Err(ExemplarRefused::OutOfOrder));
        check(exemplar(3_000, 1.0, "b", true), Ok(true));
        check(exemplar(3_000, 1.0, "a", true), Err(ExemplarRefused::OutOfOrder));
        check(exemplar(3_000, 1.5, "a", true), Ok(true));
        check(exemplar(2_999, 9.0, "z", true), Err(ExemplarRefused::OutOfOrder));
        // 5 characters of the name, 123 of the value; each has two bytes.
        check(exemplar(4_000, 1.0, &"ü".repeat(123), true), Ok(true));
        check(exemplar(5_000, 1.0, &"ü".repeat(124), true), Err(ExemplarRefused::TooLong));
    }

    #[test]
    fn the_oldest_ones_make_room() {
        let series = |n: usize| Labels::from_pairs([("__name__", format!("m{n}"))]).unwrap();
        let mut buffer = ExemplarBuffer::new(5);
        for n in 0..100 {
            assert!(buffer.add(&series(n * n % 7), exemplar(n as i64, 1.0, "a", true)));
            assert_eq!(buffer.len(), 5.min(n + 1));
            let found = buffer.select(&[vec![]], TimeRange::ALL);
            let mut times: Vec<i64> = found
                .iter()
                .flat_map(|found| found.exemplars.iter().map(|exemplar| exemplar.time.as_millis()))
                .collect();
            times.sort_unstable();
            assert!(times.into_iter().eq((n as i64 - 4).max(0)..=n as i64), "{n}");
            assert_eq!(found.len(), buffer.by_series.len());
        }
        assert!(!ExemplarBuffer::new(0).add(&series(1), exemplar(1, 1.0, "a", true)));
    }
}
