//! The order in which selects are best read: what others wait for comes first, so that these can stream.

use crate::plan::node::Op;
use crate::plan::{Answer, Plan};
use crate::query::SelectId;
use crate::syntax::ast::{BinaryOp, Cardinality};

/// All selects of a plan. Of two operands, the one that is kept comes before the one that streams past it; parameters come
/// before the series that they are for.
pub(crate) fn reading_order(plan: &Plan) -> Vec<SelectId> {
    let mut order: Vec<SelectId> = Vec::with_capacity(plan.selects().len());
    let mut known = vec![false; plan.selects().len()];
    let mut stack = match plan.answer {
        Answer::Series(root) => vec![(root, false)],
        Answer::String(_) => Vec::new(),
    };
    while let Some((id, inputs_are_done)) = stack.pop() {
        let node = &plan.nodes[id];
        if !inputs_are_done {
            stack.push((id, true));
            // What is put on the stack last is taken from it first.
            let inputs = node.inputs.iter().map(|input| (*input, false));
            if keeps_left(&node.op) { stack.extend(inputs.rev()) } else { stack.extend(inputs) }
        } else if let Op::Leaf(leaf) = &node.op
            && !std::mem::replace(&mut known[leaf.select.index()], true)
        {
            order.push(leaf.select);
        }
    }
    order
}

/// Whether an operator looks at its left operand before the right one.
fn keeps_left(op: &Op) -> bool {
    match op {
        // Which info series it needs is known from its first operand.
        Op::Info(_) => true,
        Op::Join(join) => join.matching.cardinality == Cardinality::OneToMany,
        Op::Set { op, .. } => *op == BinaryOp::Or,
        _ => false,
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
