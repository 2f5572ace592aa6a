//! Which labels of series can matter, from the answer down to the selects.
//!
//! The answer shows all labels. Further down, an aggregation needs only the labels that it groups by, a join those that it
//! matches by, and so on. Where an operator rejects or merges series that became equal, all labels are needed, unless its
//! input cannot have such series. Labels that an error message could contain are needed too.

use model::METRIC_NAME;

use crate::needed_labels::NeededLabels;
use crate::plan::node::{Grouping, Leaf, LeafKind, Map, NodeId, Op, OperatorNode};
use crate::plan::select;
use crate::select::Select;
use crate::syntax::ast::{AggregateOp, BinaryOp, Boundary, Cardinality, VectorMatching};
use crate::syntax::functions::FunctionId;

/// The labels that are dropped where a value is no longer that of the metric.
const RESERVED: [&str; 3] = [METRIC_NAME, "__type__", "__unit__"];

/// Sets, for each select, which labels its leaves need.
pub(super) fn project(nodes: &[OperatorNode], selects: &mut [Select]) {
    let mut labels: Vec<Option<NeededLabels>> = vec![None; selects.len()];
    // The inputs of an operator come before it.
    let mut needed: Vec<NeededLabels> = vec![NeededLabels::default(); nodes.len()];
    for (id, node) in nodes.iter().enumerate().rev() {
        for (place, &input) in node.inputs.iter().enumerate() {
            needed[input] = input_of(nodes, selects, id, place, &needed[id]);
        }
        if let Op::Leaf(leaf) = &node.op {
            let own = std::mem::take(&mut needed[id]);
            let own = if tells_names(leaf) { own.and([METRIC_NAME]) } else { own };
            let known = &mut labels[leaf.select.index()];
            *known = Some(match known.take() {
                Some(known) => known.union(own),
                None => own,
            });
        }
    }
    for (select, labels) in selects.iter_mut().zip(labels) {
        // A select that no leaf reads keeps all labels.
        select.hints.labels = labels.unwrap_or_default();
    }
}

/// The labels that an operator needs of one of its inputs, if `above` is needed of its output.
fn input_of(
    nodes: &[OperatorNode],
    selects: &[Select],
    id: NodeId,
    place: usize,
    above: &NeededLabels,
) -> NeededLabels {
    let above = || above.clone();
    match &nodes[id].op {
        Op::Number(_) | Op::Time | Op::Leaf(_) | Op::Scalar | Op::Absent(_) => NeededLabels::none(),
        Op::Map(_) | Op::Aggregate(_) | Op::Buckets(_) if place > 0 => NeededLabels::none(),
        // A relabelled series may become equal to another one, which is rejected.
        Op::Map(Map::LabelReplace(_) | Map::LabelJoin(_)) => NeededLabels::default(),
        // Annotations contain the name of the metric.
        Op::Map(Map::Subquery { .. }) => above().and([METRIC_NAME]),
        Op::Map(_) => above(),
        Op::Aggregate(spec) => match spec.op {
            // It selects series by a hash of all labels.
            AggregateOp::LimitRatio => NeededLabels::default(),
            AggregateOp::TopK | AggregateOp::BottomK | AggregateOp::LimitK => {
                above().union(of_groups(&spec.grouping))
            }
            _ => of_groups(&spec.grouping),
        },
        Op::CountValues { grouping, .. } => of_groups(grouping),
        Op::Join(join) => {
            let one_is_left = join.matching.cardinality == Cardinality::OneToMany;
            let is_one = (place == 0) == one_is_left;
            match join.matching.cardinality {
                // Its result has the labels that both sides match by, which may include the name.
                Cardinality::OneToOne if !is_one => of_matching(&join.matching).and(RESERVED),
                // An error shows two series that match the same one, and two results must not be equal.
                _ => NeededLabels::default(),
            }
        }
        Op::Set { op: BinaryOp::And | BinaryOp::Unless, matching } if place > 0 => of_matching(matching),
        Op::Set { matching, .. } => above().union(of_matching(matching)),
        Op::Sort(order) if matches!(order.function, FunctionId::Sort | FunctionId::SortDesc) => above(),
        // Series with equal values of a sort label are ordered by their other labels; histograms, results and info series are
        // identified by all labels.
        Op::Sort(_) | Op::Buckets(_) | Op::Merge | Op::Info(_) => NeededLabels::default(),
        Op::Distinct(rule) => match rule.names {
            Some(_) if has_one_metric(nodes, selects, nodes[id].inputs[0]) => above().and(RESERVED),
            _ => NeededLabels::default(),
        },
    }
}

fn of_groups(grouping: &Grouping) -> NeededLabels {
    let names = grouping.labels.iter().cloned();
    match grouping.without {
        false => NeededLabels::Only(names.collect()),
        true => NeededLabels::AllBut(names.chain([METRIC_NAME.to_owned()]).collect()),
    }
}

fn of_matching(matching: &VectorMatching) -> NeededLabels {
    of_groups(&Grouping { labels: matching.labels.clone(), without: !matching.on })
}

/// Whether an annotation may contain the name of a series' metric.
fn tells_names(leaf: &Leaf) -> bool {
    match leaf.kind {
        LeafKind::Range(_) => true,
        LeafKind::Instant => leaf.window.boundary == Boundary::Smoothed,
        LeafKind::Timestamp | LeafKind::StartTimestamp | LeafKind::InfoTimestamp | LeafKind::Raw => false,
    }
}

/// Whether the series of an operator are a subset of those of one selector for one metric, with unchanged labels. Then they
/// differ in labels other than the name.
pub(super) fn has_one_metric(nodes: &[OperatorNode], selects: &[Select], mut id: NodeId) -> bool {
    loop {
        match &nodes[id].op {
            Op::Leaf(leaf) => return select::has_one_metric(&selects[leaf.select.index()].matchers),
            Op::Map(Map::LabelReplace(_) | Map::LabelJoin(_)) => return false,
            Op::Map(_) | Op::Sort(_) => id = nodes[id].inputs[0],
            Op::Distinct(rule) if rule.names.is_some() => id = nodes[id].inputs[0],
            Op::Aggregate(spec) => match spec.op {
                AggregateOp::TopK | AggregateOp::BottomK | AggregateOp::LimitK | AggregateOp::LimitRatio => {
                    id = nodes[id].inputs[0];
                }
                _ => return false,
            },
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::Timestamp;

    use crate::{EngineOptions, ParseOptions, Query, QueryParams};

    /// The labels that each select of a range query needs.
    fn needed(text: &str, delayed_name_removal: bool) -> String {
        let end = Timestamp::from_millis(600_000);
        let params = QueryParams::range(Timestamp::EPOCH, end, Duration::from_secs(60));
        let engine =
            EngineOptions { parse: ParseOptions::ALL, delayed_name_removal, ..EngineOptions::default() };
        let query = Query::plan(text, &params, &engine).unwrap();
        let sets: Vec<String> = query.selects().iter().map(|s| s.hints.labels.to_string()).collect();
        sets.join("; ")
    }

    #[test]
    fn operators_report_the_labels_that_they_need() {
        for (text, expected) in [
            ("m", "all"),
            ("count(m)", "none"),
            ("sum by (job) (m)", "job"),
            ("sum without (pod) (m)", "all but __name__, pod"),
            ("max(sum by (job) (m))", "job"),
            ("quantile by (a) (0.9, m)", "a"),
            ("count_values by (a) ('v', m)", "a, v"),
            ("topk(3, m)", "all"),
            ("sum(topk by (a) (3, m))", "a"),
            ("sum by (b) (limitk without (a) (3, m))", "all but __name__, a"),
            ("sum(limit_ratio(0.5, m))", "all"),
            ("scalar(m)", "none"),
            ("absent(m)", "none"),
            ("absent_over_time(m[5m])", "__name__"),
            ("sum(m) by (job) / on (job) count by (job) (n)", "job; job"),
            ("vector(scalar(m))", "none"),
            // Annotations contain the names of metrics. Rejecting equal series needs no further labels if there is one metric.
            ("sum by (job) (rate(m[5m]))", "__name__, __type__, __unit__, job"),
            ("sum by (job) (-m)", "__name__, __type__, __unit__, job"),
            ("sum by (job) (rate({job='x'}[5m]))", "all"),
            ("sum by (job) (abs({__name__='m'}))", "__name__, __type__, __unit__, job"),
            ("sum by (job) (-topk(3, m))", "__name__, __type__, __unit__, job"),
            ("sum by (job) (max_over_time(m[1h:1m]))", "__name__, __type__, __unit__, job"),
            ("sum by (job) (max_over_time((-m)[1h:1m]))", "all"),
            ("sum(timestamp(m))", "__name__, __type__, __unit__"),
            ("sum(label_replace(m, 'a', '', '', ''))", "all"),
            ("sum(label_join(m, 'a', '', 'b'))", "all"),
            ("sum(sort(m))", "none"),
            ("sum(sort_by_label(m, 'a'))", "all"),
            // Errors show series of the right side; the left one is only matched.
            ("sum by (b) (m / on (a) n)", "all; __name__, __type__, __unit__, a"),
            ("sum by (b) (m / ignoring (a) n)", "all; all but a"),
            ("sum by (b) (m * on (a) group_left (c) n)", "all; all"),
            ("sum by (b) (m and on (a) n)", "a; a, b"),
            ("sum by (b) (m unless on (a) n)", "a; a, b"),
            ("sum by (b) (m or on (a) n)", "a, b; a, b"),
            ("sum by (b) (m or n)", "all but __name__; all but __name__"),
            ("histogram_quantile(0.9, sum by (le, job) (m))", "job, le"),
            ("sum(histogram_quantile(0.9, m))", "all"),
            ("sum by (v) (info(m))", "all; all"),
            // A shared select needs the labels of both.
            ("sum by (a) (m) / on () group_left () sum by (b) (m)", "a, b"),
            ("sum without (a, b) (m) - ignoring (x) sum by (a) (m)", "all but __name__, b"),
            ("m / on () group_left () sum(m)", "all"),
        ] {
            assert_eq!(needed(text, false), expected, "{text}");
        }
    }

    #[test]
    fn with_delayed_name_removal_operators_do_not_need_names() {
        assert_eq!(needed("sum by (job) (-m)", true), "job");
        assert_eq!(needed("sum by (job) (rate({job='x'}[5m]))", true), "__name__, job");
        assert_eq!(needed("sum by (__name__) (rate(m[5m]))", true), "__name__");
        assert_eq!(needed("sum(label_replace(m, 'a', '', '', ''))", true), "all");
    }
}
