//! Selects: which series and samples the leaves need. Leaves that need the same share a select.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use model::{METRIC_NAME, MatchOp, Matcher, TimeRange, Timestamp};
use series::{Aggregate, DecodeOptions, Dedup};

use crate::needed_labels::NeededLabels;
use crate::plan::node::NodeId;
use crate::select::{Select, SelectHints, SelectId};
use crate::value::steps::{Steps, Window};

/// The functions and aggregations around a selector, as far as hints to stores depend on them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    /// The nearest function or aggregation, if no binary operator is nearer.
    pub(crate) func: &'static str,
    /// The grouping of an aggregation directly around it.
    pub(crate) grouping: Option<(Vec<String>, bool)>,
    /// Milliseconds between evaluations; 0 for one instant.
    pub(crate) step: i64,
    /// Whether a function around it uses only the count or sum of histograms.
    pub(super) counts: bool,
    /// Whether a function around it needs the buckets of histograms.
    pub(super) buckets: bool,
}

impl Surroundings {
    /// The surroundings of an argument of the function or aggregation `func`.
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

    /// The surroundings of an operand of anything else, such as parentheses.
    pub(crate) fn below(&self) -> Self {
        self.inside(self.func)
    }
}

/// Whether leaves that need the same series may read one select.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// They may.
    Shared,
    /// This leaf has a select of its own: it waits for its arguments, and these may depend on the series of the same select.
    Own,
    /// As `Own`; in addition, the series that the leaf needs are known only after other selects were read.
    Late,
}

/// The selects of a plan and the leaves that read them.
#[derive(Debug, Default)]
pub(crate) struct Selects {
    pub(crate) list: Vec<Select>,
    pub(crate) leaves: Vec<Vec<NodeId>>,
    dedup: Dedup,
    /// Whether series can have replicas, whose samples before the range matter.
    replicas: bool,
    /// The selects that later leaves may share, by a hash of their matchers and range.
    shared: HashMap<u64, Vec<usize>>,
}

impl Selects {
    /// No selects yet. `replicas`: whether series can have replicas.
    pub(crate) fn new(dedup: Dedup, replicas: bool) -> Self {
        Self { dedup, replicas, ..Self::default() }
    }

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
        let evaluated = TimeRange::new(Timestamp::from_millis(min), Timestamp::from_millis(max));
        let select = Select {
            matchers: matchers.to_vec(),
            range: evaluated,
            evaluated,
            hints: SelectHints {
                func: around.func.to_owned(),
                range: millis(range),
                step: millis(around.step),
                grouping,
                by,
                labels: NeededLabels::default(),
                // A range of coarser data might have a single sample.
                resolution: (range > 0 && needs_several(around.func)).then(|| millis(range / 2)),
            },
            late: sharing == Sharing::Late,
        };
        let same = |id: usize| {
            let known = &self.list[id];
            // Grouping is a hint for stores that aggregate; a shared select only loses the hint.
            known.matchers == select.matchers
                && known.evaluated == select.evaluated
                && known.hints.aggregate() == select.hints.aggregate()
        };
        let key = key(&select);
        let known = self.shared.get(&key).filter(|_| sharing == Sharing::Shared);
        if let Some(id) = known.and_then(|ids| ids.iter().copied().find(|&id| same(id))) {
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

    /// How a leaf of `id` with this window decodes, with start timestamps or without. Where series can have replicas, the
    /// select reads the samples before its range that deduplication needs.
    pub(crate) fn decode(&mut self, id: SelectId, window: &Window, starts: bool) -> DecodeOptions {
        let select = &mut self.list[id.index()];
        let aggregate = select.hints.aggregate();
        let options = DecodeOptions {
            range: select.evaluated,
            dedup: self.dedup,
            // A change of replica must not look like a reset.
            counter: aggregate == Aggregate::Counter,
            aggregate,
            starts,
            // In short windows the replica would change too often.
            window: window.range.max(window.lookback / 3),
        };
        if self.replicas {
            select.range.min = select.range.min.min(options.read_range().min);
        }
        options
    }
}

/// A hash of the properties that two selects must have in common to be shared.
fn key(select: &Select) -> u64 {
    let mut hasher = DefaultHasher::new();
    (select.range.min, select.range.max).hash(&mut hasher);
    for matcher in &select.matchers {
        (matcher.name(), matcher.op().as_str(), matcher.value()).hash(&mut hasher);
    }
    hasher.finish()
}

/// Whether matchers select series of one metric only.
pub(crate) fn has_one_metric(matchers: &[Matcher]) -> bool {
    matchers.iter().any(|m| m.name() == METRIC_NAME && m.op() == MatchOp::Equal && !m.value().is_empty())
}

/// Whether `func` returns nothing for a range of a single sample.
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
