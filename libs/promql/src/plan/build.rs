//! Builds the operators of a syntax tree.

use std::sync::Arc;

use budget::{Budget, LimitError, Reservation};
use model::Matcher;

use crate::error::QueryError;
use crate::options::{EngineOptions, QueryParams};
use crate::plan::fold::Constants;
use crate::plan::invariant::Invariants;
use crate::plan::node::{Aggregation, Grouping, LeafKind, Map, Names, NodeId, Op, OperatorNode, PlanRoot};
use crate::plan::select::{Selects, Surroundings};
use crate::plan::traits::Traits;
use crate::select::Select;
use crate::syntax::ParseError;
use crate::syntax::ast::{AggregateExpr, AggregateOp, Expr, Span, UnaryOp};
use crate::syntax::functions::FunctionId;
use crate::syntax::{DurationContext, MAX_REGEX_BYTES, too_large_regexes};
use crate::text::go_quoted;
use crate::value::steps::Steps;

/// Operators under construction.
pub(super) struct Builder<'q> {
    pub(super) text: &'q str,
    pub(super) budget: &'q Budget,
    pub(super) query: (i64, i64),
    pub(super) steps: Steps,
    pub(super) durations: DurationContext,
    step: i64,
    pub(super) lookback: i64,
    pub(super) subquery_step: i64,
    pub(super) use_starts: bool,
    pub(super) delayed_name_removal: bool,
    invariants: Invariants,
    constants: Constants,
    nodes: Vec<OperatorNode>,
    /// One entry for each operator.
    pub(super) traits: Vec<Traits>,
    pub(super) selects: Selects,
    /// Memory of the regular expressions of all matchers in the text.
    matcher_bytes: usize,
    /// Memory of the regular expressions of `label_replace`.
    regex_bytes: usize,
}

/// Most different selects of an expression: each is a request to every store.
const MAX_SELECTS: usize = 1000;

/// Rejects a query that needs a value at each of `steps`, whatever the data, if that is more than its budget allows. `part`
/// names the part of the query that has these steps.
pub(super) fn check_steps(
    budget: &Budget,
    steps: &Steps,
    part: impl FnOnce() -> String,
) -> Result<(), LimitError> {
    let count = steps.count as u64;
    let value_bytes = size_of::<f64>() as u64;
    budget.check_need(count, count.saturating_mul(value_bytes)).map_err(|error| error.with_part(part()))
}

/// The result of a builder.
pub(super) struct Built {
    pub(super) nodes: Vec<OperatorNode>,
    pub(super) answer: PlanRoot,
    pub(super) selects: Vec<Select>,
    pub(super) leaves: Vec<Vec<NodeId>>,
    /// The memory of all regular expressions.
    pub(super) regexes: Reservation,
}

/// Memory of the regular expressions of all matchers in `root`.
fn matcher_bytes(root: &Expr) -> usize {
    let (mut bytes, mut open) = (0, vec![root]);
    while let Some(expr) = open.pop() {
        let matchers = match expr {
            Expr::Vector(selector) => selector.matchers.as_slice(),
            Expr::Matrix(matrix) => matrix.selector.matchers.as_slice(),
            _ => &[],
        };
        bytes += matchers.iter().map(Matcher::regex_bytes).sum::<usize>();
        expr.for_each_child(|child| open.push(child));
    }
    bytes
}

fn millis(length: std::time::Duration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX)
}

impl<'q> Builder<'q> {
    pub(super) fn new(
        text: &'q str,
        params: &QueryParams,
        engine: &EngineOptions,
        budget: &'q Budget,
        steps: Steps,
    ) -> Self {
        let (start, end) = (params.start.as_millis(), params.end.as_millis());
        Builder {
            text,
            budget,
            query: (start, end),
            steps,
            durations: DurationContext {
                step_seconds: params.step.map_or(0.0, |step| step.as_secs_f64()),
                range_seconds: end.saturating_sub(start) as f64 / 1000.0,
            },
            step: params.step.map_or(0, millis),
            lookback: millis(params.lookback).max(1),
            subquery_step: millis(engine.subquery_step).max(1),
            use_starts: engine.use_start_timestamps,
            delayed_name_removal: engine.delayed_name_removal,
            invariants: Invariants::default(),
            constants: Constants::default(),
            nodes: Vec::new(),
            traits: Vec::new(),
            selects: Selects::new(params.dedup, !params.replica_labels.is_empty()),
            matcher_bytes: 0,
            regex_bytes: 0,
        }
    }

    /// Counts the memory of the regular expression of a function call at `span`.
    pub(super) fn take_regex(&mut self, bytes: usize, span: Span) -> Result<(), QueryError> {
        self.regex_bytes = self.regex_bytes.saturating_add(bytes);
        if self.matcher_bytes.saturating_add(self.regex_bytes) > MAX_REGEX_BYTES {
            return Err(ParseError::new(self.text, span, too_large_regexes()).into());
        }
        Ok(self.budget.check()?)
    }

    /// Builds the whole plan of `expr`.
    pub(super) fn finish(mut self, expr: &Expr) -> Result<Built, QueryError> {
        self.matcher_bytes = matcher_bytes(expr);
        self.invariants = Invariants::of(expr);
        self.constants = Constants::of(expr, &|what| self.query_number(what));
        let around = Surroundings { step: self.step, ..Surroundings::default() };
        let answer = match expr.without_parens() {
            Expr::String(text) => PlanRoot::String(text.value.clone()),
            Expr::Matrix(matrix) => PlanRoot::Series(self.raw(matrix, &around)?),
            Expr::Subquery(subquery) => {
                let window = self.subquery_window(subquery)?;
                PlanRoot::Series(self.subquery(subquery, &window, self.steps, &around)?)
            }
            _ => PlanRoot::Series(self.build(expr, self.steps, &around)?),
        };
        let selects = self.selects.list;
        let matchers = selects.iter().flat_map(|select| &select.matchers);
        let regex_bytes = self.regex_bytes + matchers.map(Matcher::regex_bytes).sum::<usize>();
        let mut regexes = Reservation::new(self.budget);
        regexes.add(regex_bytes as u64)?;
        Ok(Built { nodes: self.nodes, answer, selects, leaves: self.selects.leaves, regexes })
    }

    /// Adds an operator, whose inputs were added before.
    pub(super) fn add(&mut self, op: Op, inputs: Vec<NodeId>, steps: Steps) -> Result<NodeId, QueryError> {
        let id = self.nodes.len();
        for (place, input) in inputs.iter().enumerate() {
            self.nodes[*input].parent = Some((id, place));
        }
        if let Op::Leaf(leaf) = &op {
            if leaf.select.index() >= MAX_SELECTS {
                let message =
                    format!("expression has more than the limit of {MAX_SELECTS} different selectors");
                return Err(ParseError::new(self.text, leaf.span, message).into());
            }
            self.selects.leaves[leaf.select.index()].push(id);
        }
        let below: Vec<Traits> = inputs.iter().map(|&input| self.traits[input]).collect();
        self.traits.push(Traits::of(&op, &below));
        self.nodes.push(OperatorNode { op, inputs, parent: None, steps });
        Ok(id)
    }

    /// Builds the operators of an expression that is a scalar or an instant vector at each of `steps`.
    pub(super) fn build(
        &mut self,
        expr: &Expr,
        steps: Steps,
        around: &Surroundings,
    ) -> Result<NodeId, QueryError> {
        if let Some(value) = self.constants.value(expr) {
            return self.add(Op::Number(value), Vec::new(), steps);
        }
        if self.is_built_once(expr, steps) {
            let once = self.build(expr, Steps::single(steps.start), around)?;
            return self.add(Op::Map(Map::Repeat), vec![once], steps);
        }
        match expr {
            Expr::Number(number) => self.add(Op::Number(number.value), Vec::new(), steps),
            Expr::Paren(paren) => self.build(&paren.expr, steps, &around.below()),
            Expr::Unary(unary) => {
                let input = self.build(&unary.expr, steps, &around.below())?;
                match unary.op {
                    UnaryOp::Plus => Ok(input),
                    UnaryOp::Minus => {
                        let negated = self.add(Op::Map(Map::Negate), vec![input], steps)?;
                        self.unnamed(negated, Names::Reserved, false)
                    }
                }
            }
            Expr::Vector(selector) => self.instant(selector, LeafKind::Instant, steps, around),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate, steps, around),
            Expr::Binary(_) => self.binary(expr, steps, around),
            Expr::Call(call) => self.call(call, steps, around),
            Expr::String(_) | Expr::Matrix(_) | Expr::Subquery(_) => {
                // The parser has checked types: these occur only as arguments that their function builds itself.
                Err(QueryError::execution(format!(
                    "internal error: {} where a scalar or an instant vector was expected",
                    expr.value_type().documented()
                )))
            }
        }
    }

    /// Whether start timestamps count.
    pub(super) fn uses_starts(&self) -> bool {
        self.use_starts
    }

    /// Whether an expression has the same value at all steps of a range, so that it is evaluated at one step.
    pub(super) fn is_built_once(&self, expr: &Expr, steps: Steps) -> bool {
        // Also for a range of one step: a `sort` that does not depend on the range does not cause a warning there.
        let ranges = steps.count > 0 && steps.end != steps.start;
        ranges && !matches!(expr, Expr::Number(_)) && self.invariants.holds(expr)
    }

    /// Whether an expression is a number that the plan has computed.
    pub(super) fn is_constant(&self, expr: &Expr) -> bool {
        self.constants.value(expr).is_some()
    }

    /// What the query may use.
    pub(super) fn budget(&self) -> Budget {
        self.budget.clone()
    }

    fn aggregate(
        &mut self,
        aggregate: &AggregateExpr,
        steps: Steps,
        around: &Surroundings,
    ) -> Result<NodeId, QueryError> {
        let operand = aggregate.expr.without_parens();
        let mut labels = aggregate.grouping.clone();
        let inside = Surroundings {
            grouping: Some((labels.clone(), aggregate.without)),
            ..around.inside(aggregate.op.as_str())
        };
        let param = aggregate.param.as_ref().map(Expr::without_parens);
        if aggregate.op == AggregateOp::CountValues {
            let Some(Expr::String(label)) = param else {
                return Err(QueryError::execution("count_values: expected a label name as the parameter"));
            };
            if label.value.is_empty() || label.not_utf8.is_some() {
                let quoted = label.not_utf8.as_deref().map_or_else(|| go_quoted(&label.value), str::to_owned);
                return Err(QueryError::execution(format!("invalid label name {quoted}")));
            }
            if !aggregate.without {
                labels.push(label.value.clone());
            }
            let grouping = Arc::new(grouping(labels, aggregate.without));
            let input = self.build(operand, steps, &inside)?;
            return self.add(Op::CountValues { grouping, label: label.value.clone() }, vec![input], steps);
        }
        // The parameter is read first: until it is known, the operand would have to be kept in memory.
        let scalar = match param {
            Some(param) => Some((self.build(param, steps, &around.below())?, param.span())),
            None => None,
        };
        let input = self.build(operand, steps, &inside)?;
        let op = Op::Aggregate(Arc::new(Aggregation {
            op: aggregate.op,
            grouping: grouping(labels, aggregate.without),
            operand: operand.span().to(aggregate.span),
            param: scalar.map_or(operand.span(), |(_, span)| span).to(aggregate.span),
            span: aggregate.span,
        }));
        let inputs = std::iter::once(input).chain(scalar.map(|(id, _)| id)).collect();
        self.add(op, inputs, steps)
    }

    /// The instants of an operator's output.
    pub(super) fn steps_of(&self, id: NodeId) -> Steps {
        self.nodes[id].steps
    }

    /// The position of an argument, without parentheses around it.
    pub(super) fn place(expr: &Expr) -> Span {
        expr.without_parens().span()
    }

    /// The value of `start()`, `end()`, `range()` or `step()`, in seconds.
    fn query_number(&self, what: FunctionId) -> f64 {
        use FunctionId::{End, Range, Start};
        let millis = match what {
            Start => self.query.0,
            End => self.query.1,
            Range => self.query.1.saturating_sub(self.query.0),
            _ if self.query.0 == self.query.1 => 0,
            _ => self.step,
        };
        millis as f64 / 1000.0
    }
}

fn grouping(mut labels: Vec<String>, without: bool) -> Grouping {
    labels.sort_unstable();
    labels.dedup();
    Grouping { labels, without }
}
