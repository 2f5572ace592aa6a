//! The order in which selects are best read: what others wait for comes first, so that these can stream.

use crate::plan::Plan;
use crate::plan::node::PlanRoot;
use crate::plan::node::{Join, NodeId, Op};
use crate::select::SelectId;
use crate::syntax::ast::{AggregateOp, BinaryOp, Cardinality};

/// All selects of a plan. Of two operands, the one that is kept comes before the one that streams past it, unless that would
/// hold more: in a chain of joins, every right operand would wait until the leftmost is read. Parameters come before the
/// series that they are for.
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
            // What is put on the stack last is taken from it first.
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

/// What becomes of the series that an operator gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// They are folded, or handed on, as they come.
    Streams,
    /// They are kept until something else has been read.
    KeptRows,
}

/// What an operator holds, roughly: in columns for each of the series that a selector finds.
#[derive(Clone, Copy, Debug, Default)]
struct Need {
    /// Its output, where that is kept.
    output: u32,
    /// At most at one time, by the fate of its output.
    streaming: u32,
    keeping: u32,
}

impl Need {
    fn at(self, fate: Fate) -> u32 {
        match fate {
            Fate::Streams => self.streaming,
            Fate::KeptRows => self.keeping,
        }
    }
}

/// What each operator of a plan needs; inputs come before what they feed.
fn needs(plan: &Plan) -> Vec<Need> {
    let mut needs: Vec<Need> = Vec::with_capacity(plan.nodes.len());
    for node in &plan.nodes {
        let output = output(&node.op, &node.inputs, &needs);
        let peak = |fate: Fate| match (&node.op, &node.inputs[..]) {
            (Op::Leaf(_), _) => u32::from(fate == Fate::KeptRows),
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
        let (streaming, keeping) = (peak(Fate::Streams), peak(Fate::KeptRows));
        needs.push(Need { output, streaming, keeping });
    }
    needs
}

/// The columns that an operator gives for each of the series that a selector finds: none where it gives few.
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

/// The "one" side of a join, which is looked at first, and the "many" side.
fn sides(join: &Join, left: NodeId, right: NodeId) -> (NodeId, NodeId) {
    match join.matching.cardinality {
        Cardinality::OneToMany => (left, right),
        _ => (right, left),
    }
}

/// What a join holds at most where the "one" side is read first, so that the other streams past it, and where the "many"
/// side is, and waits.
fn join_peaks(one: Need, many: Need, fate: Fate) -> (u32, u32) {
    let one_first = one.keeping.max(one.output.saturating_add(many.at(fate)));
    let many_first = many.keeping.max(many.output.saturating_add(one.keeping));
    (one_first, many_first)
}

/// What becomes of the inputs of an operator, and which comes first.
struct Inputs {
    of: Vec<Fate>,
    /// Whether the first is read first; otherwise the last is.
    left_first: bool,
}

fn input_fates(op: &Op, fate: Fate, inputs: &[NodeId], needs: &[Need]) -> Inputs {
    let all = |fate: Fate, left_first: bool| Inputs { of: vec![fate; inputs.len()], left_first };
    match (op, inputs) {
        (Op::Join(join), &[left, right]) => {
            let (one, many) = sides(join, left, right);
            let (one_first, many_first) = join_peaks(needs[one], needs[many], fate);
            let many_fate = if one_first <= many_first { fate } else { Fate::KeptRows };
            let of =
                if one == left { vec![Fate::KeptRows, many_fate] } else { vec![many_fate, Fate::KeptRows] };
            Inputs { of, left_first: (one == left) == (one_first <= many_first) }
        }
        // Of the side that is looked at first, only the steps with values are kept.
        (Op::Set { op, .. }, _) if *op == BinaryOp::Or => {
            Inputs { of: vec![Fate::Streams, fate], left_first: true }
        }
        (Op::Set { .. }, _) => Inputs { of: vec![fate, Fate::Streams], left_first: false },
        // Which info series it needs is known from its first operand.
        (Op::Info(_), _) => all(Fate::KeptRows, true),
        (Op::Sort(_) | Op::Merge | Op::Buckets(_) | Op::CountValues { .. }, _) => all(Fate::KeptRows, false),
        (Op::Aggregate(spec), _) if spec.op == AggregateOp::Quantile => all(Fate::KeptRows, false),
        (Op::Map(_) | Op::Distinct(_), _) => all(fate, false),
        _ => all(Fate::Streams, false),
    }
}

#[cfg(test)]
mod tests {
    use model::{METRIC_NAME, Timestamp};

    use crate::{EngineOptions, Query, QueryParams};

    #[test]
    fn what_others_wait_for_is_read_first() {
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
            // Read from the right, all but the first operand would be kept.
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
