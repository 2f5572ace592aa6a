//! Prints a syntax tree in Prometheus' form. Parsing the text gives the same tree.

use std::fmt::{self, Display, Formatter, Write};

use model::{METRIC_NAME, MatchOp, Matcher};

use crate::syntax::ast::{
    AggregateExpr, At, BinaryExpr, BinaryOp, Boundary, Call, Cardinality, DurationArg, DurationExpr,
    DurationNode, Expr, NumberLiteral, SubqueryExpr, VectorMatching, VectorSelector,
};
use crate::syntax::number::{write_duration, write_float};
use crate::syntax::quote::{quoted, write_quoted};

/// The sign flag (`{:+}`) means that an arithmetic operator follows, which must not become part of an offset
/// in parentheses.
impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::String(string) => match &string.not_utf8 {
                Some(quoted) => f.write_str(quoted),
                None => write_quoted(f, &string.value),
            },
            Self::Vector(selector) => {
                write_selector(f, selector)?;
                write_at(f, selector.at)?;
                write_boundary(f, selector.boundary)?;
                write_offset(f, &selector.offset, f.sign_plus())
            }
            Self::Matrix(matrix) => {
                let selector = &matrix.selector;
                write_selector(f, selector)?;
                write!(f, "[{}]", matrix.range)?;
                write_boundary(f, selector.boundary)?;
                write_at(f, selector.at)?;
                write_offset(f, &selector.offset, f.sign_plus())
            }
            Self::Subquery(subquery) => subquery.fmt(f),
            Self::Paren(paren) => write!(f, "({})", paren.expr),
            Self::Unary(unary) => {
                f.write_str(unary.op.as_str())?;
                unary.expr.fmt(f)
            }
            Self::Binary(binary) => binary.fmt(f),
            Self::Aggregate(aggregate) => aggregate.fmt(f),
            Self::Call(call) => call.fmt(f),
        }
    }
}

impl Display for NumberLiteral {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_number(f, self.value, self.duration)
    }
}

fn write_number(out: &mut impl Write, value: f64, duration: bool) -> fmt::Result {
    if duration {
        // The sign of a zero must be printed, too.
        if value.is_sign_negative() {
            out.write_char('-')?;
        }
        // Durations are whole milliseconds. Dividing by 1000 does not lose any.
        write_duration(out, (value.abs() * 1000.0).round() as i64)
    } else {
        write_float(out, value)
    }
}

fn write_selector(f: &mut Formatter<'_>, selector: &VectorSelector) -> fmt::Result {
    f.write_str(&selector.name)?;
    let named = |m: &&Matcher| {
        let is_name = m.name() == METRIC_NAME && m.op() == MatchOp::Equal && m.value() == selector.name;
        !is_name || m.value().is_empty()
    };
    let mut matchers: Vec<String> = selector.matchers.iter().filter(named).map(matcher_text).collect();
    // A selector without name and matchers still needs its braces.
    if matchers.is_empty() && !selector.name.is_empty() {
        return Ok(());
    }
    matchers.sort();
    write!(f, "{{{}}}", matchers.join(","))
}

fn matcher_text(matcher: &Matcher) -> String {
    let mut text = String::new();
    let name = matcher.name();
    if is_plain_label(name) {
        text.push_str(name);
    } else {
        text.push_str(&quoted(name));
    }
    text.push_str(matcher.op().as_str());
    text.push_str(&quoted(matcher.value()));
    text
}

/// Whether a label name can be written without quotes.
fn is_plain_label(name: &str) -> bool {
    let plain = |c: char| c == '_' || c.is_ascii_alphanumeric();
    name.starts_with(|c: char| plain(c) && !c.is_ascii_digit()) && name.chars().all(plain)
}

fn write_at(f: &mut impl Write, at: Option<At>) -> fmt::Result {
    match at {
        None => Ok(()),
        Some(At::Start) => f.write_str(" @ start()"),
        Some(At::End) => f.write_str(" @ end()"),
        Some(At::Time(at)) => {
            let millis = at.as_millis();
            let sign = if millis < 0 { "-" } else { "" };
            let millis = millis.unsigned_abs();
            write!(f, " @ {sign}{}.{:03}", millis / 1000, millis % 1000)
        }
    }
}

fn write_boundary(f: &mut Formatter<'_>, boundary: Boundary) -> fmt::Result {
    f.write_str(match boundary {
        Boundary::Plain => "",
        Boundary::Anchored => " anchored",
        Boundary::Smoothed => " smoothed",
    })
}

fn write_offset(f: &mut impl Write, offset: &DurationArg, signed: bool) -> fmt::Result {
    match offset {
        DurationArg::Millis(0) => Ok(()),
        // `foo offset (5m) + bar` would add to the offset. With a sign before the parentheses, the offset
        // ends after them.
        DurationArg::Expr(expr) if expr.wrapped && signed => write!(f, " offset +{expr}"),
        length => write!(f, " offset {length}"),
    }
}

impl Display for DurationArg {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Millis(millis) => write_duration(f, *millis),
            Self::Expr(expr) => expr.fmt(f),
        }
    }
}

impl Display for DurationExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.wrapped {
            f.write_char('(')?;
        }
        match &self.node {
            DurationNode::Number { seconds, duration } => write_number(f, *seconds, *duration)?,
            DurationNode::Step => f.write_str("step()")?,
            DurationNode::Range => f.write_str("range()")?,
            DurationNode::Negate(expr) => write!(f, "-{expr}")?,
            DurationNode::MinOf(a, b) => write!(f, "min_of({a}, {b})")?,
            DurationNode::MaxOf(a, b) => write!(f, "max_of({a}, {b})")?,
            DurationNode::Binary(op, lhs, rhs) => write!(f, "{lhs} {op} {rhs}")?,
        }
        if self.wrapped {
            f.write_char(')')?;
        }
        Ok(())
    }
}

impl Display for SubqueryExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.expr.fmt(f)?;
        write_suffix(f, self, f.sign_plus())
    }
}

/// Writes what follows the expression of a subquery. `signed` has the meaning of the sign flag of [`Expr`].
pub(super) fn write_suffix(out: &mut impl Write, subquery: &SubqueryExpr, signed: bool) -> fmt::Result {
    write!(out, "[{}:", subquery.range)?;
    if let Some(step) = &subquery.step {
        write!(out, "{step}")?;
    }
    out.write_char(']')?;
    write_at(out, subquery.at)?;
    write_offset(out, &subquery.offset, signed)
}

impl Display for BinaryExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (first, mut operators) = self.lhs.chain();
        operators.push(self);
        let mut operand = first;
        for operator in operators {
            if is_infinite_base(operand, operator.op) {
                f.write_str("Inf")?;
            } else if could_continue_offset(operator.op) {
                write!(f, "{operand:+}")?;
            } else {
                write!(f, "{operand}")?;
            }
            write_operator(f, operator)?;
            operand = &operator.rhs;
        }
        operand.fmt(f)
    }
}

/// Whether an operand is an infinity that must be printed without its sign: in `+Inf ^ a` the sign would
/// apply to the power.
pub(super) fn is_infinite_base(operand: &Expr, op: BinaryOp) -> bool {
    op == BinaryOp::Pow && matches!(operand, Expr::Number(number) if number.value == f64::INFINITY)
}

/// Whether an operator after an offset would be parsed as part of it.
pub(super) fn could_continue_offset(op: BinaryOp) -> bool {
    use BinaryOp::{Add, Div, Mod, Mul, Pow, Sub};
    matches!(op, Add | Sub | Mul | Div | Mod | Pow)
}

/// Writes an operator and its modifiers, with spaces around them.
pub(super) fn write_operator(f: &mut impl Write, binary: &BinaryExpr) -> fmt::Result {
    write!(f, " {}", binary.op)?;
    if binary.return_bool {
        f.write_str(" bool")?;
    }
    if let Some(matching) = &binary.matching {
        write!(f, "{matching}")?;
    }
    f.write_char(' ')
}

/// Writes the modifiers, each after a space.
impl Display for VectorMatching {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let group = match self.cardinality {
            Cardinality::ManyToOne => " group_left (",
            Cardinality::OneToMany => " group_right (",
            Cardinality::OneToOne | Cardinality::ManyToMany => "",
        };
        if self.on || !self.labels.is_empty() || !group.is_empty() {
            f.write_str(if self.on { " on (" } else { " ignoring (" })?;
            write_labels(f, &self.labels)?;
            f.write_char(')')?;
        }
        if !group.is_empty() {
            f.write_str(group)?;
            write_labels(f, &self.include)?;
            f.write_char(')')?;
        }
        let fill = |f: &mut Formatter<'_>, word: &str, value: Option<f64>| match value {
            None => Ok(()),
            Some(value) => {
                write!(f, " {word} (")?;
                write_float(f, value)?;
                f.write_char(')')
            }
        };
        if self.fill_left == self.fill_right {
            return fill(f, "fill", self.fill_left);
        }
        fill(f, "fill_left", self.fill_left)?;
        fill(f, "fill_right", self.fill_right)
    }
}

fn write_labels(f: &mut impl Write, labels: &[String]) -> fmt::Result {
    for (i, label) in labels.iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        // `without` cannot be an unquoted label name in a list.
        if is_plain_label(label) && !["without", "inf", "nan"].iter().any(|w| label.eq_ignore_ascii_case(w)) {
            f.write_str(label)?;
        } else {
            write_quoted(f, label)?;
        }
    }
    Ok(())
}

impl AggregateExpr {
    /// Writes everything before the opening parenthesis.
    pub(super) fn write_operator(&self, f: &mut impl Write) -> fmt::Result {
        write!(f, "{}", self.op)?;
        if self.without || !self.grouping.is_empty() {
            f.write_str(if self.without { " without (" } else { " by (" })?;
            write_labels(f, &self.grouping)?;
            f.write_str(") ")?;
        }
        Ok(())
    }
}

impl Display for AggregateExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.write_operator(f)?;
        f.write_char('(')?;
        if let Some(param) = &self.param {
            write!(f, "{param}, ")?;
        }
        write!(f, "{})", self.expr)
    }
}

impl Display for Call {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.function.name)?;
        for (i, arg) in self.args.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{arg}")?;
        }
        f.write_char(')')
    }
}
