//! Function calls as operators.

use std::collections::HashSet;
use std::sync::Arc;

use model::{LabelsBuilder, METRIC_NAME, MatchOp, Matcher};

use crate::error::QueryError;
use crate::functions::label::{LabelJoin, LabelReplace};
use crate::functions::range::RangeCall;
use crate::plan::build::Builder;
use crate::plan::node::{BucketCall, Distinct, InfoCall, LeafKind, Map, Names, NodeId, Op, SortOrder};
use crate::plan::select::Surroundings;
use crate::syntax::ast::{At, Boundary, Call, DurationArg, Expr, Span, StringLiteral, VectorSelector};
use crate::syntax::functions::FunctionId;
use crate::syntax::functions::ValueType;
use crate::value::steps::Steps;

impl Builder<'_> {
    /// The operators of a function call.
    pub(super) fn call(
        &mut self,
        call: &Call,
        steps: Steps,
        around: &Surroundings,
    ) -> Result<NodeId, QueryError> {
        use FunctionId as F;
        let inside = around.inside(call.function.name);
        let arg = |index: usize| argument(call, index);
        match call.function.id {
            F::Time => self.add(Op::Time, Vec::new(), steps),
            F::Scalar => {
                let input = self.build(arg(0)?, steps, &inside)?;
                self.add(Op::Scalar, vec![input], steps)
            }
            F::Vector => {
                let input = self.build(arg(0)?, steps, &inside)?;
                self.add(Op::Map(Map::Identity), vec![input], steps)
            }
            F::Timestamp => self.timestamp(call, steps, &inside),
            F::MaxOf | F::MinOf => {
                let inputs = vec![self.build(arg(0)?, steps, &inside)?, self.build(arg(1)?, steps, &inside)?];
                self.add(Op::Map(Map::Extreme(call.function.id)), inputs, steps)
            }
            id @ (F::DayOfMonth
            | F::DayOfWeek
            | F::DayOfYear
            | F::DaysInMonth
            | F::Hour
            | F::Minute
            | F::Month
            | F::Year) => self.date(id, call, steps, &inside),
            id @ (F::HistogramCount
            | F::HistogramSum
            | F::HistogramAvg
            | F::HistogramStddev
            | F::HistogramStdvar) => {
                let input = self.build(arg(0)?, steps, &inside)?;
                let numbers = self.add(Op::Map(Map::Statistic(id)), vec![input], steps)?;
                // Prometheus keeps type and unit here.
                self.unnamed(numbers, Names::Metric, false)
            }
            F::LabelReplace => self.label_replace(call, steps, &inside),
            F::LabelJoin => self.label_join(call, steps, &inside),
            F::Sort | F::SortDesc | F::SortByLabel | F::SortByLabelDesc => self.sort(call, steps, &inside),
            F::Absent => {
                let labels = absent_labels(arg(0)?);
                let input = self.build(arg(0)?, steps, &inside)?;
                self.add(Op::Absent(labels), vec![input], steps)
            }
            F::AbsentOverTime => {
                let labels = absent_labels(arg(0)?);
                let present = self.over_range(call, steps, &inside)?;
                self.add(Op::Absent(labels), vec![present], steps)
            }
            F::HistogramQuantile | F::HistogramFraction | F::HistogramQuantiles => {
                self.buckets(call, steps, &inside)
            }
            F::Info => self.info(call, steps, &inside),
            F::StartTimestamp => self.start_timestamp(call, steps, &inside),
            id if call.function.args.contains(&ValueType::Matrix) => {
                let values = self.over_range(call, steps, &inside)?;
                match id {
                    F::LastOverTime | F::FirstOverTime => Ok(values),
                    _ => self.unnamed(values, Names::Reserved, true),
                }
            }
            id => self.math(id, call, steps, &inside),
        }
    }

    /// `timestamp`: of samples, or of the steps of an expression.
    fn timestamp(&mut self, call: &Call, steps: Steps, around: &Surroundings) -> Result<NodeId, QueryError> {
        let times = match argument(call, 0)? {
            Expr::Vector(selector) => self.instant(selector, LeafKind::Timestamp, steps, around)?,
            expr => {
                let input = self.build(expr, steps, around)?;
                self.add(Op::Map(Map::StepTime), vec![input], steps)?
            }
        };
        self.unnamed(times, Names::Reserved, false)
    }

    /// `start_timestamp`. Only samples have one; for any other expression the function returns nothing.
    fn start_timestamp(
        &mut self,
        call: &Call,
        steps: Steps,
        around: &Surroundings,
    ) -> Result<NodeId, QueryError> {
        let times = match argument(call, 0)? {
            Expr::Vector(selector) if self.uses_starts() => {
                self.instant(selector, LeafKind::StartTimestamp, steps, around)?
            }
            expr => {
                let input = self.build(expr, steps, around)?;
                self.add(Op::Map(Map::Statistic(FunctionId::StartTimestamp)), vec![input], steps)?
            }
        };
        self.unnamed(times, Names::Reserved, false)
    }

    /// A part of the date of each float, or of the time of the step if there is no argument.
    fn date(
        &mut self,
        part: FunctionId,
        call: &Call,
        steps: Steps,
        around: &Surroundings,
    ) -> Result<NodeId, QueryError> {
        let input = match call.args.is_empty() {
            true => self.add(Op::Time, Vec::new(), steps)?,
            false => self.build(argument(call, 0)?, steps, around)?,
        };
        let parts = self.add(Op::Map(Map::Date(part)), vec![input], steps)?;
        self.unnamed(parts, Names::Reserved, false)
    }

    fn label_replace(
        &mut self,
        call: &Call,
        steps: Steps,
        around: &Surroundings,
    ) -> Result<NodeId, QueryError> {
        let (replacement, source, regex) = (text(call, 2)?, text(call, 3)?, text(call, 4)?);
        if matches!(argument(call, 4)?, Expr::String(StringLiteral { not_utf8: Some(_), .. })) {
            return Err(LabelReplace::invalid_regex(regex));
        }
        let replace = LabelReplace::new(destination(call)?, replacement, source, regex)?;
        self.take_regex(replace.regex_bytes(), call.span)?;
        let input = self.build(argument(call, 0)?, steps, around)?;
        let replaced = self.add(Op::Map(Map::LabelReplace(Arc::new(replace))), vec![input], steps)?;
        self.distinct(replaced, Distinct { names: None, any_step: false })
    }

    fn label_join(&mut self, call: &Call, steps: Steps, around: &Surroundings) -> Result<NodeId, QueryError> {
        let sources = (3..call.args.len()).map(|index| text(call, index)).collect::<Result<Vec<_>, _>>()?;
        let join = LabelJoin::new(destination(call)?, text(call, 2)?, &sources)?;
        let input = self.build(argument(call, 0)?, steps, around)?;
        let joined = self.add(Op::Map(Map::LabelJoin(Arc::new(join))), vec![input], steps)?;
        self.distinct(joined, Distinct { names: None, any_step: false })
    }

    /// `sort`, `sort_by_label` and their descending forms; the labels to sort by follow the vector.
    fn sort(&mut self, call: &Call, steps: Steps, around: &Surroundings) -> Result<NodeId, QueryError> {
        let labels = (1..call.args.len())
            .map(|index| text(call, index).map(str::to_owned))
            .collect::<Result<Vec<_>, _>>()?;
        let input = self.build(argument(call, 0)?, steps, around)?;
        let order = SortOrder { function: call.function.id, labels, span: call.span };
        self.add(Op::Sort(order), vec![input], steps)
    }

    /// A function of one float; `round` and `clamp` take scalars after the vector.
    fn math(
        &mut self,
        function: FunctionId,
        call: &Call,
        steps: Steps,
        around: &Surroundings,
    ) -> Result<NodeId, QueryError> {
        let scalars = (1..call.args.len())
            .map(|index| self.build(argument(call, index)?, steps, around))
            .collect::<Result<Vec<_>, _>>()?;
        let input = self.build(argument(call, 0)?, steps, around)?;
        let inputs = std::iter::once(input).chain(scalars).collect();
        let values = self.add(Op::Map(Map::Math(function)), inputs, steps)?;
        self.unnamed(values, Names::Reserved, false)
    }

    /// A function over a range selector or a subquery.
    fn over_range(&mut self, call: &Call, steps: Steps, around: &Surroundings) -> Result<NodeId, QueryError> {
        let mut scalars = Vec::new();
        let mut range = None;
        for index in 0..call.args.len() {
            match argument(call, index)? {
                expr @ (Expr::Matrix(_) | Expr::Subquery(_)) => range = Some(expr),
                expr => scalars.push(self.build(expr, steps, around)?),
            }
        }
        let place = call.args.first().map_or(call.span, Self::place).to(call.span);
        let function = RangeCall { function: call.function.id, span: place, budget: self.budget() };
        match range {
            Some(Expr::Matrix(matrix)) => {
                check_boundary(call, matrix.selector.boundary)?;
                self.range(matrix, function, scalars, steps, around)
            }
            Some(Expr::Subquery(subquery)) => {
                let window = self.subquery_window(subquery)?;
                let series = self.subquery(subquery, &window, steps, around)?;
                let inner = self.steps_of(series);
                let inputs = std::iter::once(series).chain(scalars).collect();
                self.add(Op::Map(Map::Subquery { call: function, window, inner }), inputs, steps)
            }
            _ => Err(QueryError::execution(format!("{}: expected a range vector", call.function.name))),
        }
    }

    fn buckets(&mut self, call: &Call, steps: Steps, around: &Surroundings) -> Result<NodeId, QueryError> {
        let mut scalars = Vec::new();
        let (mut params, mut vector, mut label) = (Vec::new(), None, String::new());
        for index in 0..call.args.len() {
            match argument(call, index)? {
                Expr::String(name) => label.clone_from(&name.value),
                expr if expr.value_type() == ValueType::Scalar => {
                    params.push(expr.span());
                    scalars.push(self.build(expr, steps, around)?);
                }
                expr => vector = Some(expr),
            }
        }
        let Some(vector) = vector else {
            return Err(QueryError::execution(format!("{}: expected an instant vector", call.function.name)));
        };
        let input = self.build(vector, steps, around)?;
        // The parameters are evaluated after the operand, so their annotations are ordered after it.
        params.iter_mut().for_each(|param: &mut Span| param.end = param.end.max(vector.span().end));
        let op = Op::Buckets(BucketCall {
            function: call.function.id,
            operand: vector.span().to(call.span),
            params,
            label,
            named: self.delayed_name_removal,
        });
        let inputs = std::iter::once(input).chain(scalars).collect();
        let values = self.add(op, inputs, steps)?;
        let values = self.unnamed(values, Names::Reserved, false)?;
        // The series may have differed only in the label that the quantiles replace.
        if call.function.id == FunctionId::HistogramQuantiles && self.looks_for_equal_labels(values) {
            return self.distinct(values, Distinct { names: None, any_step: false });
        }
        Ok(values)
    }

    fn info(&mut self, call: &Call, steps: Steps, around: &Surroundings) -> Result<NodeId, QueryError> {
        let mut matchers = Vec::new();
        let mut names = Vec::new();
        if call.args.len() > 1 {
            let Expr::Vector(selector) = argument(call, 1)? else {
                return Err(QueryError::execution("info: expected a label selector as the second argument"));
            };
            for matcher in &selector.matchers {
                let list = if matcher.name() == METRIC_NAME { &mut names } else { &mut matchers };
                list.push(matcher.clone());
            }
        }
        let positive = |m: &Matcher| matches!(m.op(), MatchOp::Equal | MatchOp::Regex);
        if names.is_empty() {
            names.push(Matcher::equal(METRIC_NAME, "target_info"));
        } else if !names.iter().any(positive) {
            let any = Matcher::new(MatchOp::Regex, METRIC_NAME, ".+_info");
            names.insert(0, any.map_err(|error| QueryError::execution(error.to_string()))?);
        }
        // The info series are read at the time of the first argument.
        let mut time = (None, 0);
        self.first_selector(argument(call, 0)?, &mut time)?;
        let asked: Vec<Matcher> = names.iter().chain(&matchers).cloned().collect();
        let selector = VectorSelector {
            name: String::new(),
            matchers: asked,
            offset: DurationArg::Millis(time.1),
            at: time.0,
            boundary: Boundary::Plain,
            span: call.span,
        };
        // The select of the info series comes last: which of them are needed depends on the other series.
        let base = self.build(argument(call, 0)?, steps, around)?;
        let infos = self.instant(&selector, LeafKind::InfoTimestamp, steps, around)?;
        let id = self.add(Op::Info(InfoCall { names, matchers }), vec![base, infos], steps)?;
        self.distinct(id, Distinct { names: None, any_step: false })
    }

    /// Finds the first selector below `expr`: the `@` of it or of a subquery around it, and the sum of the offsets down to
    /// it. Returns whether there is one.
    fn first_selector(&self, expr: &Expr, time: &mut (Option<At>, i64)) -> Result<bool, QueryError> {
        let selector = match expr {
            Expr::Vector(selector) => Some(&**selector),
            Expr::Matrix(matrix) => Some(&matrix.selector),
            _ => None,
        };
        if let Some(selector) = selector {
            *time = (selector.at, self.offset(&selector.offset)?);
            return Ok(true);
        }
        let mut children = Vec::new();
        let (first, operators) = expr.chain();
        if let Expr::Aggregate(aggregate) = expr {
            // As in Prometheus, the operand comes before the parameter.
            children.push(&aggregate.expr);
            children.extend(&aggregate.param);
        } else if operators.is_empty() {
            expr.for_each_child(|child| children.push(child));
        } else {
            children.push(first);
            children.extend(operators.into_iter().map(|operator| &operator.rhs));
        }
        for child in children {
            if !self.first_selector(child, time)? {
                continue;
            }
            if let Expr::Subquery(subquery) = expr
                && time.0.is_none()
            {
                *time = (subquery.at, time.1.saturating_add(self.offset(&subquery.offset)?));
            }
            return Ok(true);
        }
        Ok(false)
    }
}

/// An argument, without parentheses.
fn argument(call: &Call, index: usize) -> Result<&Expr, QueryError> {
    let missing =
        || QueryError::execution(format!("{}: expected more than {index} arguments", call.function.name));
    call.args.get(index).map(Expr::without_parens).ok_or_else(missing)
}

/// An argument that is a string.
fn text(call: &Call, index: usize) -> Result<&str, QueryError> {
    match argument(call, index)? {
        Expr::String(text) => Ok(&text.value),
        _ => Err(QueryError::execution(format!(
            "{}: expected a string as argument {index}",
            call.function.name
        ))),
    }
}

/// The name of the label that a function sets, its second argument.
fn destination(call: &Call) -> Result<&str, QueryError> {
    if let Expr::String(StringLiteral { not_utf8: Some(quoted), .. }) = argument(call, 1)? {
        let function = call.function.name;
        return Err(QueryError::execution(format!(
            "invalid destination label name in {function}(): {quoted}"
        )));
    }
    text(call, 1)
}

/// Rejects `anchored` and `smoothed` for functions that cannot use samples outside the range.
fn check_boundary(call: &Call, boundary: Boundary) -> Result<(), QueryError> {
    use FunctionId::{Changes, Delta, Increase, Rate, Resets};
    let id = call.function.id;
    let (modifier, safe, names) = match boundary {
        Boundary::Plain => return Ok(()),
        Boundary::Anchored => (
            "anchored",
            matches!(id, Changes | Delta | Increase | Rate | Resets),
            "changes, delta, increase, rate, resets",
        ),
        Boundary::Smoothed => ("smoothed", matches!(id, Delta | Increase | Rate), "delta, increase, rate"),
    };
    if safe {
        return Ok(());
    }
    let name = call.function.name;
    Err(QueryError::execution(format!(
        "{modifier} modifier can only be used with: {names} - not with {name}"
    )))
}

/// The labels that all series of a selector have: those with exactly one condition, which is `=`.
fn absent_labels(expr: &Expr) -> model::Labels {
    let matchers = match expr {
        Expr::Vector(selector) => &selector.matchers,
        Expr::Matrix(matrix) => &matrix.selector.matchers,
        _ => return model::Labels::empty(),
    };
    let mut labels = LabelsBuilder::new();
    let mut seen: HashSet<&str> = HashSet::new();
    for matcher in matchers.iter().filter(|m| m.name() != METRIC_NAME) {
        if matcher.op() == MatchOp::Equal && seen.insert(matcher.name()) {
            labels.set(matcher.name(), matcher.value());
        } else {
            labels.remove(matcher.name());
        }
    }
    labels.build()
}
