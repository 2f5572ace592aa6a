//! Selects: which series and samples the leaves need, shared where they need the same.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use model::{METRIC_NAME, MatchOp, Matcher, TimeRange, Timestamp};
use series::{Aggregate, DecodeOptions, Dedup};

use crate::needed_labels::NeededLabels;
use crate::plan::node::NodeId;
use crate::select::{Select, SelectHints, SelectId};
use crate::value::steps::{Steps, Window};

/// What stands around a selector, as far as stores are told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    /// The nearest function or aggregation up to the next binary operator.
    pub(crate) func: &'static str,
    /// The grouping of an aggregation directly around it.
    pub(crate) grouping: Option<(Vec<String>, bool)>,
    /// Milliseconds between evaluations; 0 for one instant.
    pub(crate) step: i64,
    /// Whether something around it takes only the count or sum of histograms.
    pub(super) counts: bool,
    /// Whether something around it needs the buckets of histograms.
    pub(super) buckets: bool,
}

impl Surroundings {
    /// Inside of the function or aggregation `func`.
    pub(crate) fn inside(&self, func: &'static str) -> Self {
        let counts = matches!(func, "histogram_count" | "histogram_sum" | "histogram_avg");
        let buckets = matches!(func, "histogram_quantile" | "histogram_quantiles" | "histogram_fraction");
        Self {
            func,
            grouping: None,
            step: self.step,
            counts: self.counts || counts,
            buckets: self.buckets || buckets,
        }
    }

    /// The same, but buckets of histograms are needed.
    pub(crate) fn with_buckets(self) -> Self {
        Self { buckets: true, ..self }
    }

    /// Whether only count and sum of histograms matter.
    pub(crate) fn statistics(&self) -> bool {
        self.counts && !self.buckets
    }

    /// Inside of something that is neither.
    pub(crate) fn below(&self) -> Self {
        self.inside(self.func)
    }
}

/// Whether leaves that need the same series may read one select.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// They may.
    Shared,
    /// This one has a select of its own: it has to wait for its arguments, and what it waits for might be behind the
    /// same select.
    Own,
    /// The same, and which series it needs is only known when others are.
    Late,
}

/// The selects of a plan and the leaves that read them.
#[derive(Debug, Default)]
pub(crate) struct Selects {
    pub(crate) list: Vec<Select>,
    pub(crate) leaves: Vec<Vec<NodeId>>,
    /// Those that later leaves may read too, by a hash of their matchers and range.
    shared: HashMap<u64, Vec<usize>>,
}

impl Selects {
    /// The select for a leaf.
    pub(crate) fn add(
        &mut self,
        matchers: &[Matcher],
        window: &Window,
        steps: &Steps,
        around: &Surroundings,
        range: i64,
        sharing: Sharing,
    ) -> SelectId {
        let (min, max) = window.needs(steps);
        let millis = |length: i64| Duration::from_millis(length.max(0).unsigned_abs());
        let (grouping, by) = match &around.grouping {
            Some((labels, without)) => (labels.clone(), !without),
            None => (Vec::new(), false),
        };
        let select = Select {
            matchers: matchers.to_vec(),
            range: TimeRange::new(Timestamp::from_millis(min), Timestamp::from_millis(max)),
            hints: SelectHints {
                func: around.func.to_owned(),
                range: millis(range),
                step: millis(around.step),
                grouping,
                by,
                labels: NeededLabels::default(),
                // Of data that is coarser, a range might have a single sample.
                resolution: (range > 0 && needs_several(around.func)).then(|| millis(range / 2)),
            },
            late: sharing == Sharing::Late,
        };
        let same = |known: &Select| {
            // Grouping is a hint for pushing work down; a select that is read twice only loses the hint.
            known.matchers == select.matchers
                && known.range == select.range
                && known.hints.aggregate() == select.hints.aggregate()
        };
        let key = key(&select);
        let known = self.shared.get(&key).filter(|_| sharing == Sharing::Shared);
        if let Some(id) = known.and_then(|ids| ids.iter().copied().find(|&id| same(&self.list[id]))) {
            let hints = &mut self.list[id].hints;
            hints.resolution = [hints.resolution, select.hints.resolution].into_iter().flatten().min();
            if hints.func != select.hints.func || hints.grouping != select.hints.grouping {
                hints.grouping.clear();
                hints.by = false;
            }
            return SelectId(id);
        }
        let id = self.list.len();
        self.list.push(select);
        self.leaves.push(Vec::new());
        if sharing == Sharing::Shared {
            self.shared.entry(key).or_default().push(id);
        }
        SelectId(id)
    }

    /// How a leaf of `id` decodes, with start timestamps or without.
    pub(crate) fn decode(&self, id: SelectId, dedup: Dedup, starts: bool) -> DecodeOptions {
        let select = &self.list[id.index()];
        let aggregate = select.hints.aggregate();
        DecodeOptions {
            range: select.range,
            dedup,
            // A change of replica must not look like a reset.
            counter: aggregate == Aggregate::Counter,
            aggregate,
            starts,
        }
    }
}

/// A hash of what two selects have to have in common to be one.
fn key(select: &Select) -> u64 {
    let mut hasher = DefaultHasher::new();
    (select.range.min, select.range.max).hash(&mut hasher);
    for matcher in &select.matchers {
        (matcher.name(), matcher.op().as_str(), matcher.value()).hash(&mut hasher);
    }
    hasher.finish()
}

/// Whether matchers ask for series of one metric.
pub(crate) fn has_one_metric(matchers: &[Matcher]) -> bool {
    matchers.iter().any(|m| m.name() == METRIC_NAME && m.op() == MatchOp::Equal && !m.value().is_empty())
}

/// Whether `func` gives nothing for a range of a single sample.
fn needs_several(func: &str) -> bool {
    matches!(
        func,
        "rate"
            | "irate"
            | "increase"
            | "delta"
            | "idelta"
            | "deriv"
            | "predict_linear"
            | "double_exponential_smoothing"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downsampled_data_is_read_by_the_aggregate_of_the_function() {
        let aggregate =
            |func: &str| SelectHints { func: func.to_owned(), ..SelectHints::default() }.aggregate();
        assert_eq!(aggregate("sum"), Aggregate::Raw);
        assert_eq!(aggregate("sum_over_time"), Aggregate::Sum);
        assert_eq!(aggregate("max"), Aggregate::Max);
        assert_eq!(aggregate("rate"), Aggregate::Counter);
        assert_eq!(aggregate(""), Aggregate::Raw);
    }
}
