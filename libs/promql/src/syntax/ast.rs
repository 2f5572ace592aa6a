//! The syntax tree of PromQL, with the position of every node in the text.
//!
//! The tree is checked but not simplified: parentheses, unary plus and redundant modifiers are kept, so that
//! printing reproduces the expression. Its height is at most [`MAX_HEIGHT`], so recursion fits the stack of
//! an ordinary thread, provided that it follows chains of operators with [`Expr::chain`] and does not recurse
//! into their left operands.

use std::fmt;

use model::{Matcher, Timestamp};

use crate::syntax::functions::{Function, ValueType};

/// Longest path from the root to a leaf. All operators of a chain such as `a + b + c` count as one step.
pub const MAX_HEIGHT: usize = 500;

/// Most operands in an expression: selectors, numbers, strings, calls, parentheses. The limit is needed
/// because each operand uses memory before the first series is read.
pub const MAX_OPERANDS: usize = 20_000;

/// A range of bytes in the query text. `start` is included, `end` is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Offset of the first byte after the range.
    pub end: u32,
}

impl Span {
    /// The range from `start` to `end`.
    pub const fn new(start: u32, end: u32) -> Self {
        Self { start, end }
    }

    /// The range from the start of `self` to the end of `last`.
    pub const fn to(self, last: Self) -> Self {
        Self { start: self.start, end: last.end }
    }

    /// Line and column of the start in `text`. Both count from 1, the column in bytes. Errors and annotations
    /// print them as `line:column`.
    pub fn line_column(self, text: &str) -> (usize, usize) {
        let at = (self.start as usize).min(text.len());
        let before = &text.as_bytes()[..at];
        let line = 1 + before.iter().filter(|b| **b == b'\n').count();
        let column = at - before.iter().rposition(|b| *b == b'\n').map_or(0, |newline| newline + 1) + 1;
        (line, column)
    }
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// `1`, `0x1f`, `1h30m`
    Number(NumberLiteral),
    /// `"text"`
    String(StringLiteral),
    /// `up{job="api"}`
    Vector(Box<VectorSelector>),
    /// `up[5m]`
    Matrix(Box<MatrixSelector>),
    /// `rate(up[5m])[1h:1m]`
    Subquery(Box<SubqueryExpr>),
    /// `(up)`
    Paren(Box<ParenExpr>),
    /// `-up`. The sign of a number literal is part of the number instead.
    Unary(Box<UnaryExpr>),
    /// `a + b`
    Binary(Box<BinaryExpr>),
    /// `sum by (job) (up)`
    Aggregate(Box<AggregateExpr>),
    /// `rate(up[5m])`
    Call(Box<Call>),
}

impl Expr {
    /// The position of the expression, including its own modifiers (`offset`, `@`).
    pub fn span(&self) -> Span {
        match self {
            Self::Number(e) => e.span,
            Self::String(e) => e.span,
            Self::Vector(e) => e.span,
            Self::Matrix(e) => e.span,
            Self::Subquery(e) => e.span,
            Self::Paren(e) => e.span,
            Self::Unary(e) => e.span,
            Self::Binary(e) => e.span,
            Self::Aggregate(e) => e.span,
            Self::Call(e) => e.span,
        }
    }

    /// The type of the expression's value.
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::Number(_) => ValueType::Scalar,
            Self::String(_) => ValueType::String,
            Self::Vector(_) | Self::Aggregate(_) => ValueType::Vector,
            Self::Matrix(_) | Self::Subquery(_) => ValueType::Matrix,
            Self::Paren(e) => e.expr.value_type(),
            Self::Unary(e) => e.expr.value_type(),
            Self::Binary(e) => e.value_type,
            Self::Call(e) => e.function.returns,
        }
    }

    /// The expression without the parentheses around it.
    pub fn without_parens(&self) -> &Self {
        let mut expr = self;
        while let Self::Paren(paren) = expr {
            expr = &paren.expr;
        }
        expr
    }

    /// Calls `f` for each direct child, in the order of the text, with the parameter of an aggregation before
    /// its operand. The selector of a [`MatrixSelector`] is not a child. Callers that recurse must handle
    /// binary operators with [`chain`](Self::chain).
    pub fn for_each_child<'a>(&'a self, mut f: impl FnMut(&'a Self)) {
        match self {
            Self::Number(_) | Self::String(_) | Self::Vector(_) | Self::Matrix(_) => {}
            Self::Subquery(e) => f(&e.expr),
            Self::Paren(e) => f(&e.expr),
            Self::Unary(e) => f(&e.expr),
            Self::Binary(e) => {
                f(&e.lhs);
                f(&e.rhs);
            }
            Self::Aggregate(e) => {
                if let Some(param) = &e.param {
                    f(param);
                }
                f(&e.expr);
            }
            Self::Call(e) => e.args.iter().for_each(f),
        }
    }

    /// Like [`for_each_child`](Self::for_each_child), with mutable access.
    pub fn for_each_child_mut(&mut self, mut f: impl FnMut(&mut Self)) {
        match self {
            Self::Number(_) | Self::String(_) | Self::Vector(_) | Self::Matrix(_) => {}
            Self::Subquery(e) => f(&mut e.expr),
            Self::Paren(e) => f(&mut e.expr),
            Self::Unary(e) => f(&mut e.expr),
            Self::Binary(e) => {
                f(&mut e.lhs);
                f(&mut e.rhs);
            }
            Self::Aggregate(e) => {
                if let Some(param) = &mut e.param {
                    f(param);
                }
                f(&mut e.expr);
            }
            Self::Call(e) => e.args.iter_mut().for_each(f),
        }
    }
}

/// A number, or a duration used as a number (`5m` is 300).
#[derive(Clone, Debug, PartialEq)]
pub struct NumberLiteral {
    /// Its value; in seconds if it is a duration.
    pub value: f64,
    /// Whether it was written as a duration. It is then printed as one.
    pub duration: bool,
    /// Its position, including a sign that belongs to it.
    pub span: Span,
}

/// A string with its escapes resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct StringLiteral {
    /// The text without quotes and escapes.
    pub value: String,
    /// The quoted source text, if its escapes produce bytes that are not valid UTF-8. `value` then contains
    /// replacement characters for these bytes, and the string cannot be a label name.
    pub not_utf8: Option<Box<str>>,
    /// Its position, including the quotes.
    pub span: Span,
}

/// The instant to which `@` pins a selector or subquery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// A fixed instant.
    Time(Timestamp),
    /// The first instant of the query: `@ start()`.
    Start,
    /// The last instant of the query: `@ end()`.
    End,
}

/// Which samples a range selector uses at the boundaries of its range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Boundary {
    /// Only the samples inside the left-open range.
    #[default]
    Plain,
    /// `anchored`: the last sample at or before the left boundary is used as the sample at the boundary.
    Anchored,
    /// `smoothed`: the values at both boundaries are interpolated between the samples around them.
    Smoothed,
}

/// A duration in a range, step or offset.
#[derive(Clone, Debug, PartialEq)]
pub enum DurationArg {
    /// A literal, in milliseconds. Negative only in an offset.
    Millis(i64),
    /// An expression. Its value depends on the query's step and range, and is known when the query is
    /// planned.
    Expr(Box<DurationExpr>),
}

impl DurationArg {
    /// Zero: the offset of a selector without `offset`.
    pub const ZERO: Self = Self::Millis(0);
}

/// Arithmetic on durations, all in seconds: `[5m + step()]`.
#[derive(Clone, Debug, PartialEq)]
pub struct DurationExpr {
    /// The operation.
    pub node: DurationNode,
    /// Whether it is in parentheses.
    pub wrapped: bool,
    /// Its position. Includes the parentheses only if it is a single number.
    pub span: Span,
}

/// The operation of a [`DurationExpr`].
#[derive(Clone, Debug, PartialEq)]
pub enum DurationNode {
    /// A number of seconds.
    Number {
        /// Its value.
        seconds: f64,
        /// Whether it was written as a duration. It is then printed as one.
        duration: bool,
    },
    /// `step()`: the query's step; zero for an instant query.
    Step,
    /// `range()`: the query's end minus its start; zero for an instant query.
    Range,
    /// `-a`
    Negate(Box<DurationExpr>),
    /// `min_of(a, b)`
    MinOf(Box<DurationExpr>, Box<DurationExpr>),
    /// `max_of(a, b)`
    MaxOf(Box<DurationExpr>, Box<DurationExpr>),
    /// An arithmetic operation; only `+ - * / % ^` occur.
    Binary(BinaryOp, Box<DurationExpr>, Box<DurationExpr>),
}

/// Selects series at one instant.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorSelector {
    /// The metric name before the braces; empty if there is none.
    pub name: String,
    /// All matchers. If `name` is set, the last one is its matcher.
    pub matchers: Vec<Matcher>,
    /// The offset into the past; negative for the future.
    pub offset: DurationArg,
    /// The instant of `@`, if any.
    pub at: Option<At>,
    /// `anchored` or `smoothed`.
    pub boundary: Boundary,
    /// Its position. Inside a [`MatrixSelector`], only the part before the bracket.
    pub span: Span,
}

/// Selects series over a range. The `offset`, `@` and boundary apply to the whole expression but are stored
/// in the selector.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixSelector {
    /// The series.
    pub selector: VectorSelector,
    /// The length of the range. A literal is positive.
    pub range: DurationArg,
    /// Its position, including the modifiers after the bracket.
    pub span: Span,
}

/// An expression that is evaluated at several steps for each step of the query.
#[derive(Clone, Debug, PartialEq)]
pub struct SubqueryExpr {
    /// The inner expression; an instant vector.
    pub expr: Expr,
    /// The length of the range. A literal is positive.
    pub range: DurationArg,
    /// Time between two evaluations; `None` means the default of the server.
    pub step: Option<DurationArg>,
    /// The offset into the past; negative for the future.
    pub offset: DurationArg,
    /// The instant of `@`, if any.
    pub at: Option<At>,
    /// Its position.
    pub span: Span,
}

/// An expression in parentheses.
#[derive(Clone, Debug, PartialEq)]
pub struct ParenExpr {
    /// The inner expression.
    pub expr: Expr,
    /// The position, including the parentheses.
    pub span: Span,
}

/// A sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnaryOp {
    /// `+`
    Plus,
    /// `-`
    Minus,
}

impl UnaryOp {
    /// The sign as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plus => "+",
            Self::Minus => "-",
        }
    }
}

/// A sign before a scalar or an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct UnaryExpr {
    /// The sign.
    pub op: UnaryOp,
    /// Its operand.
    pub expr: Expr,
    /// The position of sign and operand.
    pub span: Span,
}

/// A binary operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
    /// `^`
    Pow,
    /// `atan2`
    Atan2,
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
    /// `</`: removes the observations of a histogram that are above a value
    TrimUpper,
    /// `>/`: removes the observations of a histogram that are below a value
    TrimLower,
    /// `and`
    And,
    /// `or`
    Or,
    /// `unless`
    Unless,
}

impl BinaryOp {
    /// The operator as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::Atan2 => "atan2",
            Self::Eq => "==",
            Self::Ne => "!=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
            Self::TrimUpper => "</",
            Self::TrimLower => ">/",
            Self::And => "and",
            Self::Or => "or",
            Self::Unless => "unless",
        }
    }

    /// Whether it compares two numbers and therefore accepts `bool`.
    pub const fn is_comparison(self) -> bool {
        use BinaryOp::{Eq, Ge, Gt, Le, Lt, Ne};
        matches!(self, Eq | Ne | Lt | Le | Gt | Ge)
    }

    /// Whether it is `and`, `or` or `unless`.
    pub const fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }
}

impl fmt::Display for BinaryOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An operator between two expressions.
#[derive(Debug)]
pub struct BinaryExpr {
    /// The operator.
    pub op: BinaryOp,
    /// Left operand.
    pub lhs: Expr,
    /// Right operand.
    pub rhs: Expr,
    /// How series are matched. Present if and only if both operands are instant vectors.
    pub matching: Option<VectorMatching>,
    /// `bool`: the comparison returns 0 or 1 instead of filtering.
    pub return_bool: bool,
    /// Scalar if both operands are scalars, otherwise vector.
    pub value_type: ValueType,
    /// The position of the whole expression.
    pub span: Span,
}

/// How many series may match on each side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cardinality {
    /// One on each side.
    #[default]
    OneToOne,
    /// `group_left`: many series on the left match one on the right.
    ManyToOne,
    /// `group_right`: one series on the left matches many on the right.
    OneToMany,
    /// Set operators.
    ManyToMany,
}

/// How the series of two instant vectors are matched.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VectorMatching {
    /// How many series may match on each side.
    pub cardinality: Cardinality,
    /// The labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// Whether `labels` are compared (`on`) or ignored (`ignoring`).
    pub on: bool,
    /// Labels of the "one" side that are copied to the result: `group_left (labels)`.
    pub include: Vec<String>,
    /// `fill` and `fill_left`: the value used for a missing series on the left.
    pub fill_left: Option<f64>,
    /// `fill` and `fill_right`: the value used for a missing series on the right.
    pub fill_right: Option<f64>,
}

/// An aggregation operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AggregateOp {
    /// `avg`
    Avg,
    /// `bottomk(k, ...)`
    BottomK,
    /// `count`
    Count,
    /// `count_values("label", ...)`
    CountValues,
    /// `group`
    Group,
    /// `limitk(k, ...)`
    LimitK,
    /// `limit_ratio(r, ...)`
    LimitRatio,
    /// `max`
    Max,
    /// `min`
    Min,
    /// `quantile(q, ...)`
    Quantile,
    /// `stddev`
    Stddev,
    /// `stdvar`
    Stdvar,
    /// `sum`
    Sum,
    /// `topk(k, ...)`
    TopK,
}

impl AggregateOp {
    /// The operator as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Avg => "avg",
            Self::BottomK => "bottomk",
            Self::Count => "count",
            Self::CountValues => "count_values",
            Self::Group => "group",
            Self::LimitK => "limitk",
            Self::LimitRatio => "limit_ratio",
            Self::Max => "max",
            Self::Min => "min",
            Self::Quantile => "quantile",
            Self::Stddev => "stddev",
            Self::Stdvar => "stdvar",
            Self::Sum => "sum",
            Self::TopK => "topk",
        }
    }

    /// The type of its parameter, if it has one.
    pub const fn parameter(self) -> Option<ValueType> {
        use AggregateOp::{BottomK, CountValues, LimitK, LimitRatio, Quantile, TopK};
        match self {
            TopK | BottomK | LimitK | LimitRatio | Quantile => Some(ValueType::Scalar),
            CountValues => Some(ValueType::String),
            _ => None,
        }
    }

    /// Whether it needs [`ParseOptions::experimental_functions`](super::ParseOptions::experimental_functions).
    pub const fn is_experimental(self) -> bool {
        matches!(self, Self::LimitK | Self::LimitRatio)
    }
}

impl fmt::Display for AggregateOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An aggregation over an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct AggregateExpr {
    /// The operator.
    pub op: AggregateOp,
    /// The aggregated expression.
    pub expr: Expr,
    /// The parameter. Present if and only if [`AggregateOp::parameter`] returns a type.
    pub param: Option<Expr>,
    /// Labels of `by` or `without`.
    pub grouping: Vec<String>,
    /// Whether `grouping` lists the labels to drop (`without`) or to keep (`by`).
    pub without: bool,
    /// Its position.
    pub span: Span,
}

/// A function call.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The function.
    pub function: &'static Function,
    /// Its arguments. Their number and types are those that the function accepts.
    pub args: Vec<Expr>,
    /// Its position.
    pub span: Span,
}
