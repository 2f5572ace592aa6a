//! Plans as trees for readers, with measurements of each operator if there are any.

use std::fmt::{self, Display, Write as _};
use std::time::Duration;

use model::{METRIC_NAME, MatchOp, Matcher};

use crate::needed_labels::NeededLabels;
use crate::plan::Plan;
use crate::plan::node::PlanRoot;
use crate::plan::node::{Grouping, Leaf, LeafKind, Map, NodeId, Op, OperatorNode};
use crate::select::{Select, SelectId};
use crate::syntax::ast::{Boundary, DurationArg};
use crate::text::{go_date, go_f, go_quoted};
use crate::value::steps::Window;

/// Levels of operators that are shown: more than a reader needs, and few enough for code that walks the tree recursively.
const MAX_LEVELS: usize = 100;

/// An operator of a plan and its inputs, up to 100 levels of them. Displays as a tree, one operator per line.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanNode {
    /// What it does, in terms close to those of the query.
    pub name: String,
    /// The number of instants at which it is evaluated.
    pub steps: usize,
    /// The select that it reads, if it is a selector.
    pub select: Option<SelectId>,
    /// The labels of its series that matter, if it is a selector that does not need them all.
    pub labels: Option<NeededLabels>,
    /// What it did; `None` for a query that was not evaluated, or not measured.
    pub measured: Option<OperatorStats>,
    /// Its inputs, in the order of the operator's arguments, scalars after vectors. Arguments that are numbers are part of
    /// the name.
    pub children: Vec<Self>,
}

/// What an operator did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperatorStats {
    /// Series in its output; for a selector the series that it read.
    pub series: u64,
    /// Values in its output, one for each series and step; for a selector the samples that it decoded.
    pub samples: u64,
    /// Most bytes that it had reserved at one time.
    pub peak_bytes: u64,
    /// Time of all workers together, without that of its inputs.
    pub time: Duration,
}

impl PlanNode {
    /// The operators of `plan`. `measured` has an entry for each operator, in the order of the plan.
    pub(crate) fn of(plan: &Plan, measured: Option<&[OperatorStats]>) -> Self {
        match &plan.answer {
            PlanRoot::String(text) => Self {
                name: go_quoted(text),
                steps: plan.steps.count,
                select: None,
                labels: None,
                measured: None,
                children: Vec::new(),
            },
            PlanRoot::Series(root) => Self::node(plan, measured, *root, MAX_LEVELS),
        }
    }

    /// The operator `id` with `levels` of its inputs.
    fn node(plan: &Plan, all: Option<&[OperatorStats]>, id: NodeId, levels: usize) -> Self {
        let node = &plan.nodes[id];
        if let Op::Distinct(_) = node.op {
            // This operator is shown as part of the one that changed the labels.
            let mut child = Self::node(plan, all, node.inputs[0], levels);
            if let (Some(measured), Some(all)) = (&mut child.measured, all) {
                measured.peak_bytes += all[id].peak_bytes;
                measured.time += all[id].time;
            }
            return child;
        }
        let children = match levels.checked_sub(1) {
            Some(levels) => {
                let shown = node.inputs.iter().enumerate().filter(|(place, input)| {
                    *place < vectors(&node.op) || !matches!(plan.nodes[**input].op, Op::Number(_))
                });
                shown.map(|(_, input)| Self::node(plan, all, *input, levels)).collect()
            }
            None if node.inputs.is_empty() => Vec::new(),
            None => vec![Self::left_out(plan, id)],
        };
        let select = match &node.op {
            Op::Leaf(leaf) => Some(leaf.select),
            _ => None,
        };
        let labels = select.map(|select| plan.selects()[select.index()].hints.labels.clone());
        Self {
            name: describe(plan, id),
            steps: node.steps.count,
            select,
            labels: labels.filter(|labels| !labels.is_all()),
            measured: all.map(|all| all[id]),
            children,
        }
    }

    /// Replaces the inputs of `id` below the last level that is shown.
    fn left_out(plan: &Plan, id: NodeId) -> Self {
        let mut below = plan.nodes[id].inputs.clone();
        let mut count = 0;
        while let Some(next) = below.pop() {
            count += 1;
            below.extend(&plan.nodes[next].inputs);
        }
        let steps = plan.nodes[id].steps.count;
        let name = format!("... and {count} more operators");
        Self { name, steps, select: None, labels: None, measured: None, children: Vec::new() }
    }

    /// Time of this operator and of all operators below it.
    pub fn total_time(&self) -> Duration {
        let own = self.measured.map_or(Duration::ZERO, |measured| measured.time);
        self.children.iter().map(Self::total_time).fold(own, Duration::saturating_add)
    }

    /// Samples that this operator and those below it decoded.
    pub fn total_samples(&self) -> u64 {
        let own = self.measured.filter(|_| self.select.is_some()).map_or(0, |measured| measured.samples);
        own + self.children.iter().map(Self::total_samples).sum::<u64>()
    }

    /// Writes its line with the prefix `first` and those of its inputs with the prefix `rest`. `above` is the number of steps of
    /// the operator that it feeds, which is not repeated.
    fn write(
        &self,
        f: &mut fmt::Formatter<'_>,
        first: &str,
        rest: &str,
        above: Option<usize>,
    ) -> fmt::Result {
        write!(f, "{first}{}", self.name)?;
        if let Some(select) = self.select {
            write!(f, "  (select {}", select.index())?;
            if let Some(labels) = &self.labels {
                write!(f, ", labels: {}", labels.unreserved())?;
            }
            f.write_char(')')?;
        }
        if above != Some(self.steps) {
            write!(f, "  steps={}", self.steps)?;
        }
        if let Some(m) = &self.measured {
            write!(
                f,
                "  series={} samples={} bytes={} time={:?}",
                m.series, m.samples, m.peak_bytes, m.time
            )?;
        }
        f.write_char('\n')?;
        for (at, child) in self.children.iter().enumerate() {
            let (branch, below) =
                if at + 1 < self.children.len() { ("├─ ", "│  ") } else { ("└─ ", "   ") };
            child.write(f, &format!("{rest}{branch}"), &format!("{rest}{below}"), Some(self.steps))?;
        }
        Ok(())
    }
}

impl Display for PlanNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, "", "", None)
    }
}

/// How many inputs of an operator are series. The remaining ones are scalar arguments.
fn vectors(op: &Op) -> usize {
    match op {
        Op::Leaf(_) => 0,
        Op::Join(_) | Op::Set { .. } | Op::Info(_) => 2,
        _ => 1,
    }
}

fn describe(plan: &Plan, id: NodeId) -> String {
    let OperatorNode { op, inputs, .. } = &plan.nodes[id];
    let number = |input: &NodeId| match plan.nodes[*input].op {
        Op::Number(value) => Some(go_f(value)),
        _ => None,
    };
    let arguments: Vec<Option<String>> = inputs.iter().skip(vectors(op)).map(number).collect();
    match op {
        Op::Map(Map::Arithmetic { op, swapped, return_bool, .. }) => {
            let returns = if *return_bool && op.is_comparison() { " bool" } else { "" };
            match (arguments.first().and_then(Option::as_ref), swapped) {
                (Some(number), false) => format!("{op}{returns} {number}"),
                (Some(number), true) => format!("{number} {op}{returns}"),
                (None, false) => format!("{op}{returns} (scalar on the right)"),
                (None, true) => format!("{op}{returns} (scalar on the left)"),
            }
        }
        _ if arguments.iter().any(Option::is_some) => {
            let list: Vec<String> =
                arguments.into_iter().map(|number| number.unwrap_or_else(|| "…".to_owned())).collect();
            format!("{} ({})", describe_alone(plan, op), list.join(", "))
        }
        _ => describe_alone(plan, op),
    }
}

/// An operator without its arguments.
fn describe_alone(plan: &Plan, op: &Op) -> String {
    match op {
        Op::Number(value) => go_f(*value),
        Op::Time => "time()".to_owned(),
        Op::Leaf(leaf) => describe_leaf(&plan.selects()[leaf.select.index()], leaf),
        Op::Map(map) => describe_map(map),
        Op::Scalar => "scalar".to_owned(),
        Op::Absent(labels) => format!("absent {labels}"),
        Op::Aggregate(spec) => format!("{}{}", spec.op, describe_grouping(&spec.grouping)),
        Op::CountValues { grouping, label } => {
            format!("count_values({}){}", go_quoted(label), describe_grouping(grouping))
        }
        Op::Join(join) => {
            let returns = if join.return_bool { " bool" } else { "" };
            format!("{}{returns}{}", join.op, join.matching)
        }
        Op::Set { op, matching } => format!("{op}{matching}"),
        Op::Buckets(call) => call.function.signature().name.to_owned(),
        Op::Sort(order) => order.function.signature().name.to_owned(),
        Op::Merge => "join series with equal labels".to_owned(),
        Op::Distinct(_) => "keep series apart".to_owned(),
        Op::Info(_) => "info".to_owned(),
    }
}

fn describe_leaf(select: &Select, leaf: &Leaf) -> String {
    let selector = describe_selector(&select.matchers);
    let window = describe_window(&leaf.window);
    match &leaf.kind {
        LeafKind::Instant => format!("{selector}{window}"),
        LeafKind::Timestamp => format!("timestamp of {selector}{window}"),
        LeafKind::InfoTimestamp => {
            format!("info series {selector}{window} of these instances and jobs")
        }
        LeafKind::StartTimestamp => format!("start_timestamp of {selector}{window}"),
        LeafKind::Range(call) => {
            let range = DurationArg::Millis(leaf.window.range);
            format!("{} of {selector}[{range}]{window}", call.function.signature().name)
        }
        LeafKind::Raw => format!("{selector}[{}]{window}", DurationArg::Millis(leaf.window.range)),
    }
}

/// Matchers as they are written in a query, the name first.
fn describe_selector(matchers: &[Matcher]) -> String {
    let legacy = |name: &str| {
        let mut letters = name.bytes();
        letters.next().is_some_and(|b| b.is_ascii_alphabetic() || b"_:".contains(&b))
            && letters.all(|b| b.is_ascii_alphanumeric() || b"_:".contains(&b))
    };
    let is_name = |m: &&Matcher| m.name() == METRIC_NAME && m.op() == MatchOp::Equal && legacy(m.value());
    let name = matchers.iter().find(is_name);
    let others = matchers.iter().filter(|matcher| Some(*matcher) != name);
    let others: Vec<String> = others.map(ToString::to_string).collect();
    match (name, others.is_empty()) {
        (Some(name), true) => name.value().to_owned(),
        (name, _) => format!("{}{{{}}}", name.map_or("", Matcher::value), others.join(", ")),
    }
}

fn describe_window(window: &Window) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    if let Some(at) = window.at {
        let _ = write!(text, " @ {}", go_date(at));
    }
    match window.boundary {
        Boundary::Plain => {}
        Boundary::Anchored => text.push_str(" anchored"),
        Boundary::Smoothed => text.push_str(" smoothed"),
    }
    if window.offset != 0 {
        let _ = write!(text, " offset {}", DurationArg::Millis(window.offset));
    }
    text
}

fn describe_map(map: &Map) -> String {
    match map {
        Map::Identity => "vector".to_owned(),
        Map::Negate => "-".to_owned(),
        Map::Math(id) | Map::Date(id) | Map::Extreme(id) | Map::Statistic(id) => {
            id.signature().name.to_owned()
        }
        Map::StepTime => "timestamp".to_owned(),
        Map::Arithmetic { op, .. } => op.to_string(),
        Map::LabelReplace(_) => "label_replace".to_owned(),
        Map::LabelJoin(_) => "label_join".to_owned(),
        Map::Subquery { call, window, inner } => format!(
            "{} of subquery [{}:{}]{}",
            call.function.signature().name,
            DurationArg::Millis(window.range),
            DurationArg::Millis(inner.interval),
            describe_window(window),
        ),
        Map::Repeat => "the same at all steps".to_owned(),
    }
}

fn describe_grouping(grouping: &Grouping) -> String {
    match (grouping.without, grouping.labels.is_empty()) {
        (false, true) => String::new(),
        (without, _) => {
            format!(" {} ({})", if without { "without" } else { "by" }, grouping.labels.join(", "))
        }
    }
}
