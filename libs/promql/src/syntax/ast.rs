//! The syntax tree of PromQL, with the place of every node in the text.
//!
//! The tree is what was written, checked but not simplified: parentheses, unary plus and redundant modifiers stay,
//! so that printing gives the expression back. Its height is bounded by [`MAX_HEIGHT`], so recursion over
//! it is safe on an ordinary thread's stack, as long as it follows chains of operators with
//! [`Expr::chain`] and not to their left.

use std::fmt;

use model::{Matcher, Timestamp};

use crate::syntax::functions::{Function, ValueType};

/// Longest path from the root to a leaf, where all operators of a chain such as `a + b + c` count as one step.
pub const MAX_HEIGHT: usize = 500;

/// Most operands in an expression: selectors, numbers, strings, calls, parentheses. Each takes some memory
/// before the first series arrives.
pub const MAX_OPERANDS: usize = 20_000;

/// A stretch of the query text in bytes; `start` belongs to it, `end` does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Offset just behind the last byte.
    pub end: u32,
}

impl Span {
    /// The stretch from `start` to `end`.
    pub const fn new(start: u32, end: u32) -> Self {
        Self { start, end }
    }

    /// The stretch from the start of `self` to the end of `last`.
    pub const fn to(self, last: Self) -> Self {
        Self { start: self.start, end: last.end }
    }

    /// Line and column of the start in `text`, both from 1, the column in bytes: `line:column` is how errors and
    /// annotations name a place.
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
    /// `-up`; a sign before a number is part of the number
    Unary(Box<UnaryExpr>),
    /// `a + b`
    Binary(Box<BinaryExpr>),
    /// `sum by (job) (up)`
    Aggregate(Box<AggregateExpr>),
    /// `rate(up[5m])`
    Call(Box<Call>),
}

impl Expr {
    /// Where the expression stands, its own modifiers (`offset`, `@`) included.
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

    /// What the expression evaluates to.
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

    /// Calls `f` for each expression directly below this one, in the order of the text (the parameter of an
    /// aggregation before its operand). The selector of a [`MatrixSelector`] is part of it, not below it. Who recurses
    /// with it takes [`chain`](Self::chain) for binary operators.
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

    /// As [`for_each_child`](Self::for_each_child), for changing them.
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

/// A number, or a duration in the place of a number (`5m` is 300).
#[derive(Clone, Debug, PartialEq)]
pub struct NumberLiteral {
    /// Its value; seconds for a duration.
    pub value: f64,
    /// Whether it was written as a duration, and so is printed as one.
    pub duration: bool,
    /// Its place, a folded sign included.
    pub span: Span,
}

/// A string with its escapes resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct StringLiteral {
    /// The text it stands for.
    pub value: String,
    /// What was written, quoted, where its escapes name bytes that are no UTF-8; `value` has replacement characters for
    /// them then. Such a string can be no label name.
    pub not_utf8: Option<Box<str>>,
    /// Its place, quotes included.
    pub span: Span,
}

/// The instant that `@` pins a selector or subquery to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// A fixed instant.
    Time(Timestamp),
    /// The first instant of the query: `@ start()`.
    Start,
    /// The last instant of the query: `@ end()`.
    End,
}

/// How a range selector treats the samples at and around its boundaries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Boundary {
    /// Only samples inside the left-open range.
    #[default]
    Plain,
    /// `anchored`: the last sample at or before the left boundary stands in for a sample at the boundary.
    Anchored,
    /// `smoothed`: values at both boundaries are interpolated from the samples around them.
    Smoothed,
}

/// A length of time in a range, step or offset.
#[derive(Clone, Debug, PartialEq)]
pub enum Length {
    /// Milliseconds; negative only in an offset.
    Millis(i64),
    /// An expression whose value depends on the query's step and range, known when a query is planned.
    Expr(Box<DurationExpr>),
}

impl Length {
    /// No length at all; the offset of a selector without one.
    pub const ZERO: Self = Self::Millis(0);
}

/// Arithmetic on durations, all in seconds: `[5m + step()]`.
#[derive(Clone, Debug, PartialEq)]
pub struct DurationExpr {
    /// What it computes.
    pub node: DurationNode,
    /// Whether it stood in parentheses.
    pub wrapped: bool,
    /// Its place, parentheses not included except for a lone number.
    pub span: Span,
}

/// What a [`DurationExpr`] computes.
#[derive(Clone, Debug, PartialEq)]
pub enum DurationNode {
    /// A number of seconds.
    Number {
        /// Its value.
        seconds: f64,
        /// Whether it was written as a duration, and so is printed as one.
        duration: bool,
    },
    /// `step()`: the query's step; zero for an instant query.
    Step,
    /// `range()`: from the query's start to its end; zero for an instant query.
    Range,
    /// `-a`
    Negate(Box<DurationExpr>),
    /// `min_of(a, b)`
    MinOf(Box<DurationExpr>, Box<DurationExpr>),
    /// `max_of(a, b)`
    MaxOf(Box<DurationExpr>, Box<DurationExpr>),
    /// `a + b` and its like; only `+ - * / % ^` occur.
    Binary(BinaryOp, Box<DurationExpr>, Box<DurationExpr>),
}

/// A selection of series at one instant.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorSelector {
    /// The metric name written before the braces; empty where there is none.
    pub name: String,
    /// All conditions; where `name` is set, the last one is its matcher.
    pub matchers: Vec<Matcher>,
    /// How far to look into the past.
    pub offset: Length,
    /// The instant it is pinned to.
    pub at: Option<At>,
    /// `anchored` or `smoothed`.
    pub boundary: Boundary,
    /// Its place; inside a [`MatrixSelector`] only the part before the bracket.
    pub span: Span,
}

/// A selection of series over a range. Offset, `@` and boundary are those of the selector.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixSelector {
    /// Which series.
    pub selector: VectorSelector,
    /// How far back the range reaches; positive unless an expression.
    pub range: Length,
    /// Its place, modifiers behind the bracket included.
    pub span: Span,
}

/// An expression evaluated at the steps of its own range.
#[derive(Clone, Debug, PartialEq)]
pub struct SubqueryExpr {
    /// What is evaluated: an instant vector.
    pub expr: Expr,
    /// How far back the range reaches; positive unless an expression.
    pub range: Length,
    /// Distance of the evaluations; `None` is the default of the server.
    pub step: Option<Length>,
    /// How far to look into the past.
    pub offset: Length,
    /// The instant it is pinned to.
    pub at: Option<At>,
    /// Its place.
    pub span: Span,
}

/// Parentheses.
#[derive(Clone, Debug, PartialEq)]
pub struct ParenExpr {
    /// What they hold.
    pub expr: Expr,
    /// Their place.
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
    /// The place of both.
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
    /// `</`: cuts a histogram's observations above a value off
    TrimUpper,
    /// `>/`: cuts a histogram's observations below a value off
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

    /// Whether it compares two numbers and so takes `bool`.
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
    /// How series find their partner; present exactly where both operands are instant vectors.
    pub matching: Option<VectorMatching>,
    /// `bool`: a comparison gives 0 or 1 instead of filtering.
    pub return_bool: bool,
    /// Scalar where both operands are scalars, else vector.
    pub value_type: ValueType,
    /// The place of all of it.
    pub span: Span,
}

/// How many partners a series may have on either side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cardinality {
    /// One on each side.
    #[default]
    OneToOne,
    /// `group_left`: many on the left for one on the right.
    ManyToOne,
    /// `group_right`: one on the left for many on the right.
    OneToMany,
    /// Set operators.
    ManyToMany,
}

/// How series of two instant vectors find each other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VectorMatching {
    /// Number of partners.
    pub cardinality: Cardinality,
    /// The labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// Whether `labels` are the ones to compare; otherwise they are the ones to leave out.
    pub on: bool,
    /// Labels of the "one" side that the result keeps: `group_left (these)`.
    pub include: Vec<String>,
    /// `fill` and `fill_left`: the value that stands in for a missing series on the left.
    pub fill_left: Option<f64>,
    /// `fill` and `fill_right`: the value that stands in for a missing series on the right.
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

    /// What its parameter has to be, where it takes one.
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
    /// What is aggregated.
    pub expr: Expr,
    /// The parameter; present exactly where [`AggregateOp::parameter`] says so.
    pub param: Option<Expr>,
    /// Labels of `by` or `without`.
    pub grouping: Vec<String>,
    /// Whether `grouping` is what to leave out.
    pub without: bool,
    /// Its place.
    pub span: Span,
}

/// A function call.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The function.
    pub function: &'static Function,
    /// Its arguments: as many, and of the types, as the function takes.
    pub args: Vec<Expr>,
    /// Its place.
    pub span: Span,
}
