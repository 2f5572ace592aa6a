//! Checks the meaning of a parsed expression: types, arguments, vector matching.

use std::collections::HashSet;

use model::METRIC_NAME;

use crate::syntax::ast::{AggregateExpr, BinaryExpr, Call, Cardinality, Expr, Span, VectorSelector};
use crate::syntax::error::ParseError;
use crate::syntax::functions::{FunctionId, ValueType, Variadic};
use crate::syntax::quote::quoted;

/// Checks `expr`, which was parsed from `text`, and completes its vector matching.
///
/// If an expression has several errors, the order of the checks decides which is reported. The order is that
/// of Prometheus: inner expressions first, except that the number of a call's arguments is checked before the
/// arguments.
pub(super) fn check(expr: &mut Expr, text: &str) -> Result<(), ParseError> {
    Checker { text }.expr(expr)
}

struct Checker<'a> {
    text: &'a str,
}

impl Checker<'_> {
    fn fail(&self, span: Span, message: impl Into<String>) -> Result<(), ParseError> {
        Err(ParseError::new(self.text, span, message))
    }

    fn expr(&self, expr: &mut Expr) -> Result<(), ParseError> {
        expr.change_chain(|expr| self.node(expr))
    }

    /// Checks an expression. The left operand of a binary operator was already checked.
    fn node(&self, expr: &mut Expr) -> Result<(), ParseError> {
        match expr {
            Expr::Number(_) | Expr::String(_) => Ok(()),
            Expr::Vector(selector) => self.selector(selector, false),
            Expr::Matrix(matrix) => self.selector(&matrix.selector, false),
            Expr::Paren(paren) => self.expr(&mut paren.expr),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate),
            Expr::Binary(binary) => self.binary(binary),
            Expr::Call(call) => self.call(call),
            Expr::Unary(unary) => {
                self.expr(&mut unary.expr)?;
                match unary.expr.value_type() {
                    ValueType::Scalar | ValueType::Vector => Ok(()),
                    other => {
                        let shown = quoted(other.documented());
                        let message = format!(
                            "unary expression only allowed on expressions of type scalar or instant vector, got {shown}"
                        );
                        self.fail(unary.span, message)
                    }
                }
            }
            Expr::Subquery(subquery) => {
                self.expr(&mut subquery.expr)?;
                match subquery.expr.value_type() {
                    ValueType::Vector => Ok(()),
                    other => {
                        let message =
                            format!("subquery is only allowed on instant vector, got {other} instead");
                        self.fail(subquery.span, message)
                    }
                }
            }
        }
    }

    fn expect_type(&self, expr: &mut Expr, wanted: ValueType, place: &str) -> Result<(), ParseError> {
        self.expr(expr)?;
        let found = expr.value_type();
        if found == wanted {
            return Ok(());
        }
        let (wanted, found) = (wanted.documented(), found.documented());
        self.fail(expr.span(), format!("expected type {wanted} in {place}, got {found}"))
    }

    fn aggregate(&self, aggregate: &mut AggregateExpr) -> Result<(), ParseError> {
        self.expect_type(&mut aggregate.expr, ValueType::Vector, "aggregation expression")?;
        match (&mut aggregate.param, aggregate.op.parameter()) {
            (Some(param), Some(wanted)) => self.expect_type(param, wanted, "aggregation parameter"),
            _ => Ok(()),
        }
    }

    fn binary(&self, binary: &mut BinaryExpr) -> Result<(), ParseError> {
        self.expr(&mut binary.rhs)?;
        let (op, span) = (binary.op, binary.span);
        let (left, right) = (binary.lhs.value_type(), binary.rhs.value_type());
        if binary.return_bool && !op.is_comparison() {
            return self
                .fail(self.operator(binary), "bool modifier can only be used on comparison operators");
        }
        let scalars = left == ValueType::Scalar && right == ValueType::Scalar;
        if op.is_comparison() && !binary.return_bool && scalars {
            return self.fail(self.operator(binary), "comparisons between scalars must use BOOL modifier");
        }
        let mut matching = binary.matching.take().unwrap_or_default();
        if op.is_set() && matching.cardinality == Cardinality::OneToOne {
            matching.cardinality = Cardinality::ManyToMany;
        }
        let included: HashSet<&String> = matching.include.iter().collect();
        if matching.on
            && let Some(twice) = matching.labels.iter().find(|label| included.contains(label))
        {
            let message = format!("label {} must not occur in ON and GROUP clause at once", quoted(twice));
            return self.fail(self.operator(binary), message);
        }
        for side in [&binary.lhs, &binary.rhs] {
            if !matches!(side.value_type(), ValueType::Scalar | ValueType::Vector) {
                return self.fail(
                    side.span(),
                    "binary expression must contain only scalar and instant vector types",
                );
            }
        }

        let fills = matching.fill_left.or(matching.fill_right).is_some();
        if left != ValueType::Vector || right != ValueType::Vector {
            if !matching.labels.is_empty() {
                return self.fail(span, "vector matching only allowed between instant vectors");
            }
            if fills {
                return self.fail(span, "filling in missing series only allowed between instant vectors");
            }
            if op.is_set() {
                let shown = quoted(op.as_str());
                let message = format!("set operator {shown} not allowed in binary scalar expression");
                return self.fail(span, message);
            }
            return Ok(());
        }
        if op.is_set() {
            if matching.cardinality != Cardinality::ManyToMany {
                let message = format!("no grouping allowed for {} operation", quoted(op.as_str()));
                return self.fail(span, message);
            }
            if fills {
                return self.fail(span, "filling in missing series not allowed for set operators");
            }
        }
        binary.matching = Some(matching);
        Ok(())
    }

    /// The position of the operator: from the first character after the left operand that is not a space.
    fn operator(&self, binary: &BinaryExpr) -> Span {
        let (start, end) = (binary.lhs.span().end, binary.rhs.span().start);
        let between = self.text.get(start as usize..end as usize).unwrap_or_default();
        let spaces = between.len() - between.trim_ascii_start().len();
        Span::new(start + spaces as u32, start + between.trim_ascii_end().len() as u32)
    }

    fn call(&self, call: &mut Call) -> Result<(), ParseError> {
        let function = call.function;
        let (types, given, name) = (function.args.len(), call.args.len(), quoted(function.name));
        let message = match function.variadic {
            Variadic::Exact if given != types => {
                format!("expected {types} argument(s) in call to {name}, got {given}")
            }
            Variadic::UpTo(_) | Variadic::AnyMore if given + 1 < types => {
                format!("expected at least {} argument(s) in call to {name}, got {given}", types - 1)
            }
            Variadic::UpTo(more) if given > types - 1 + more => {
                format!("expected at most {} argument(s) in call to {name}, got {given}", types - 1 + more)
            }
            _ => String::new(),
        };
        if !message.is_empty() {
            return self.fail(call.span, message);
        }
        let is_info = function.id == FunctionId::Info;
        if is_info && let Some(labels) = call.args.get(1) {
            self.info_labels(labels, call.span)?;
        }
        for (i, arg) in call.args.iter_mut().enumerate() {
            // `info` may select all labels.
            if let (Expr::Vector(selector), true, 1) = (&*arg, is_info, i) {
                self.selector(selector, true)?;
            } else {
                self.expr(arg)?;
            }
            let (wanted, found) = (function.args[i.min(types - 1)], arg.value_type());
            if wanted != found {
                let (wanted, found) = (wanted.documented(), found.documented());
                let message = format!("expected type {wanted} in call to function {name}, got {found}");
                return self.fail(arg.span(), message);
            }
        }
        Ok(())
    }

    /// Checks the second argument of `info`, which selects labels instead of series.
    fn info_labels(&self, labels: &Expr, call: Span) -> Result<(), ParseError> {
        let found = labels.value_type();
        if found != ValueType::Vector {
            let message = format!(
                "expected type {} in call to function \"info\", got {}",
                ValueType::Vector.documented(),
                found.documented()
            );
            return self.fail(call, message);
        }
        match labels {
            Expr::Vector(selector) if selector.name.is_empty() => Ok(()),
            Expr::Vector(_) => {
                self.fail(labels.span(), "expected label selectors only, got vector selector instead")
            }
            _ => self.fail(labels.span(), "expected label selectors only"),
        }
    }

    fn selector(&self, selector: &VectorSelector, may_match_all: bool) -> Result<(), ParseError> {
        if let Some((_, inside)) = selector.matchers.split_last().filter(|_| !selector.name.is_empty()) {
            return match inside.iter().find(|m| m.name() == METRIC_NAME) {
                None => Ok(()),
                Some(twice) => {
                    let (name, other) = (quoted(&selector.name), quoted(twice.value()));
                    self.fail(selector.span, format!("metric name must not be set twice: {name} or {other}"))
                }
            };
        }
        // Reject a selector that would select all series by accident.
        if !may_match_all && selector.matchers.iter().all(model::Matcher::matches_empty) {
            return self.fail(selector.span, "vector selector must contain at least one non-empty matcher");
        }
        Ok(())
    }
}
