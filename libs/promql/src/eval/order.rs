//! The best order to read selects: a select on which operators wait comes first, so that the remaining ones can stream.

use crate::plan::Plan;
use crate::plan::node::PlanRoot;
use crate::plan::node::{Join, NodeId, Op};
use crate::select::SelectId;
use crate::syntax::ast::{AggregateOp, BinaryOp, Cardinality};

/// All selects of a plan, in reading order. Of two operands, the one that is kept in memory comes before the one that is
/// streamed, unless that needs more memory: in a chain of joins, every right operand would be kept until the leftmost one is
/// read. Parameters come before the series to which they apply.
pub(crate) fn reading_order(plan: &Plan) -> Vec<SelectId> {
    let needs = needs(plan);
    let mut order: Vec<SelectId> = Vec::with_capacity(plan.selects().len());
    let mut known = vec![false; plan.selects().len()];
    let mut stack = match plan.answer {
        PlanRoot::Series(root) => vec![(root, Fate::Streams, false)],
        PlanRoot::String(_) => Vec::new(),
    };
    while let Some((id, fate, inputs_are_done)) = stack.pop() {
        let node = &plan.nodes[id];
        if !inputs_are_done {
            stack.push((id, fate, true));
            let fates = input_fates(&node.op, fate, &node.inputs, &needs);
            let inputs = node.inputs.iter().zip(fates.of).map(|(input, fate)| (*input, fate, false));
            let mut inputs: Vec<_> = inputs.collect();
            // A stack: the input that is pushed last is visited first.
            if fates.left_first {
                inputs.reverse();
            }
            stack.extend(inputs);
        } else if let Op::Leaf(leaf) = &node.op
            && !std::mem::replace(&mut known[leaf.select.index()], true)
        {
            order.push(leaf.select);
        }
    }
    order
}

/// What happens to the output of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Series are folded or passed on as they come.
    Streams,
    /// Series are kept until another input has been read.
    Kept,
}

/// A rough estimate of an operator's memory, in columns for each series of a selector.
#[derive(Clone, Copy, Debug, Default)]
struct Need {
    /// Of its output, if that is kept.
    output: u32,
    /// The maximum while its output is streamed.
    streaming: u32,
    /// The maximum while its output is kept.
    keeping: u32,
}

impl Need {
    fn at(self, fate: Fate) -> u32 {
        match fate {
            Fate::Streams => self.streaming,
            Fate::Kept => self.keeping,
        }
    }
}

/// The memory of each operator of a plan.
fn needs(plan: &Plan) -> Vec<Need> {
    let mut needs: Vec<Need> = Vec::with_capacity(plan.nodes.len());
    for node in &plan.nodes {
        let output = output(&node.op, &node.inputs, &needs);
        let peak = |fate: Fate| match (&node.op, &node.inputs[..]) {
            (Op::Leaf(_), _) => u32::from(fate == Fate::Kept),
            (Op::Join(join), &[left, right]) => {
                let (one, many) = sides(join, left, right);
                let peaks = join_peaks(needs[one], needs[many], fate);
                peaks.0.min(peaks.1)
            }
            (op, inputs) => {
                let fates = input_fates(op, fate, inputs, &needs);
                let peaks = inputs.iter().zip(fates.of).map(|(input, fate)| needs[*input].at(fate));
                peaks.max().unwrap_or(0)
            }
        };
        let (streaming, keeping) = (peak(Fate::Streams), peak(Fate::Kept));
        needs.push(Need { output, streaming, keeping });
    }
    needs
}

/// The columns in an operator's output for each series of a selector: 0 if the output is small.
fn output(op: &Op, inputs: &[NodeId], needs: &[Need]) -> u32 {
    let of = |input: &NodeId| needs[*input].output;
    match op {
        Op::Leaf(_) => 1,
        Op::Map(_) | Op::Distinct(_) | Op::Sort(_) | Op::Merge | Op::Info(_) | Op::Buckets(_) => {
            inputs.first().map_or(0, of)
        }
        Op::Join(_) | Op::Set { .. } => inputs.iter().map(of).max().unwrap_or(0),
        Op::Number(_) | Op::Time | Op::Scalar | Op::Absent(_) | Op::Aggregate(_) | Op::CountValues { .. } => {
            0
        }
    }
}

/// The "one" side of a join, which is needed first, and the "many" side.
fn sides(join: &Join, left: NodeId, right: NodeId) -> (NodeId, NodeId) {
    match join.matching.cardinality {
        Cardinality::OneToMany => (left, right),
        _ => (right, left),
    }
}

/// The memory of a join if the "one" side is read first, so that the "many" side is streamed, and if the "many" side is read
/// first and kept.
fn join_peaks(one: Need, many: Need, fate: Fate) -> (u32, u32) {
    let one_first = one.keeping.max(one.output.saturating_add(many.at(fate)));
    let many_first = many.keeping.max(many.output.saturating_add(one.keeping));
    (one_first, many_first)
}

/// What happens to the inputs of an operator, and which of them is read first.
struct Inputs {
    of: Vec<Fate>,
    /// Whether the first input is read first; otherwise the last one is.
    left_first: bool,
}

fn input_fates(op: &Op, fate: Fate, inputs: &[NodeId], needs: &[Need]) -> Inputs {
    let all = |fate: Fate, left_first: bool| Inputs { of: vec![fate; inputs.len()], left_first };
    match (op, inputs) {
        (Op::Join(join), &[left, right]) => {
            let (one, many) = sides(join, left, right);
            let (one_first, many_first) = join_peaks(needs[one], needs[many], fate);
            let many_fate = if one_first <= many_first { fate } else { Fate::Kept };
            let of = if one == left { vec![Fate::Kept, many_fate] } else { vec![many_fate, Fate::Kept] };
            Inputs { of, left_first: (one == left) == (one_first <= many_first) }
        }
        // Of the side that is read first, only the steps with values are kept.
        (Op::Set { op, .. }, _) if *op == BinaryOp::Or => {
            Inputs { of: vec![Fate::Streams, fate], left_first: true }
        }
        (Op::Set { .. }, _) => Inputs { of: vec![fate, Fate::Streams], left_first: false },
        // Which info series it needs depends on its first operand.
        (Op::Info(_), _) => all(Fate::Kept, true),
        (Op::Sort(_) | Op::Merge | Op::Buckets(_) | Op::CountValues { .. }, _) => all(Fate::Kept, false),
        (Op::Aggregate(spec), _) if spec.op == AggregateOp::Quantile => all(Fate::Kept, false),
        (Op::Map(_) | Op::Distinct(_), _) => all(fate, false),
        _ => all(Fate::Streams, false),
    }
}

#[cfg(test)]
mod tests {
    use model::{METRIC_NAME, Timestamp};

    use crate::{EngineOptions, Query, QueryParams};

    #[test]
    fn a_select_on_which_operators_wait_is_read_first() {
        for (text, expected) in [
            ("a / b", "b a"),
            ("a / on (x) group_left () b", "b a"),
            ("a / on (x) group_right () b", "a b"),
            ("a and b unless c", "c b a"),
            ("a or b", "a b"),
            ("clamp_max(a, scalar(k))", "k a"),
            ("quantile_over_time(scalar(q), a[5m]) + on () group_right () b", "q a b"),
            ("sum(a) + a / b", "b a"),
            ("a + b + c", "c b a"),
            // If these were read from the right, all operands but the first would be kept.
            ("sum(a + b + c + d + e)", "b a c d e"),
            ("a + b + c + d + sum(e)", "e b a c d"),
            ("a and b and c and d", "d c b a"),
        ] {
            let params = QueryParams::instant(Timestamp::EPOCH);
            let query = Query::plan(text, &params, &EngineOptions::default()).unwrap();
            let selects = query.selects().to_vec();
            let mut evaluation = query.evaluation();
            let mut order = Vec::new();
            while let Some(select) = evaluation.next_select() {
                let name = selects[select.index()].matchers.iter().find(|m| m.name() == METRIC_NAME);
                order.push(name.unwrap().value().to_owned());
                evaluation.end_select(select).unwrap();
            }
            assert_eq!(order.join(" "), expected, "{text}");
        }
    }
}
