//! Selectors and subqueries: their windows, selects and leaves.

use crate::error::QueryError;
use crate::functions::range::RangeCall;
use crate::plan::build::{Builder, check_steps};
use crate::plan::node::{Leaf, LeafKind, NodeId, Op};
use crate::plan::select::{Sharing, Surroundings};
use crate::syntax::ast::{At, Boundary, DurationArg, MatrixSelector, SubqueryExpr, VectorSelector};
use crate::syntax::functions::FunctionId;
use crate::value::steps::{Steps, Window};

impl Builder<'_> {
    /// A range or step in milliseconds, which must be positive.
    fn positive(&self, length: &DurationArg) -> Result<i64, QueryError> {
        length.resolve(self.durations, false).map_err(|e| QueryError::BadParameter(e.to_string()))
    }

    /// An offset in milliseconds.
    pub(super) fn offset(&self, length: &DurationArg) -> Result<i64, QueryError> {
        length.resolve(self.durations, true).map_err(|e| QueryError::BadParameter(e.to_string()))
    }

    fn pinned(&self, at: Option<At>) -> Option<i64> {
        at.map(|at| match at {
            At::Time(time) => time.as_millis(),
            At::Start => self.query.0,
            At::End => self.query.1,
        })
    }

    /// The leaf of an instant selector.
    pub(super) fn instant(
        &mut self,
        selector: &VectorSelector,
        kind: LeafKind,
        steps: Steps,
        around: &Surroundings,
    ) -> Result<NodeId, QueryError> {
        let window = Window {
            at: self.pinned(selector.at),
            offset: self.offset(&selector.offset)?,
            range: self.lookback,
            // Only ranges can be anchored; the parser rejects it here.
            boundary: selector.boundary,
            lookback: self.lookback,
        };
        // A smoothed instant selector reads samples as far after the step as before it.
        let needs = match selector.boundary {
            Boundary::Smoothed => Window { range: 1, ..window },
            _ => Window { boundary: Boundary::Plain, ..window },
        };
        let sharing = match kind {
            LeafKind::InfoTimestamp => Sharing::Late,
            _ => Sharing::Shared,
        };
        let select = self.selects.add(&selector.matchers, &needs, &steps, around, 0, sharing);
        let starts = matches!(kind, LeafKind::StartTimestamp);
        // Only one sample of the lookback is read, so it does not matter how often the replica changes in it.
        let decode = self.selects.decode(select, &Window { range: 0, ..window }, starts);
        self.add(
            Op::Leaf(Leaf {
                select,
                kind,
                window,
                decode,
                statistics: around.statistics(),
                span: selector.span,
            }),
            Vec::new(),
            steps,
        )
    }

    /// The leaf of a range selector in a function call, with the scalar arguments of the function.
    pub(super) fn range(
        &mut self,
        matrix: &MatrixSelector,
        call: RangeCall,
        scalars: Vec<NodeId>,
        steps: Steps,
        around: &Surroundings,
    ) -> Result<NodeId, QueryError> {
        let mut window = self.matrix_window(matrix)?;
        if matches!(call.function, FunctionId::Xrate | FunctionId::Xincrease | FunctionId::Xdelta) {
            // These functions start from the last sample before the range.
            window.boundary = Boundary::Anchored;
        }
        let waits = scalars.iter().any(|&scalar| self.traits[scalar].needs_series);
        let matchers = &matrix.selector.matchers;
        let sharing = if waits { Sharing::Own } else { Sharing::Shared };
        let select = self.selects.add(matchers, &window, &steps, around, window.range, sharing);
        let starts = self.use_starts && sees_starts(call.function, window.boundary);
        let decode = self.selects.decode(select, &window, starts);
        let leaf = Leaf {
            select,
            kind: LeafKind::Range(call),
            window,
            decode,
            statistics: around.statistics(),
            span: matrix.span,
        };
        self.add(Op::Leaf(leaf), scalars, steps)
    }

    /// The leaf of a range selector that is the whole query.
    pub(super) fn raw(
        &mut self,
        matrix: &MatrixSelector,
        around: &Surroundings,
    ) -> Result<NodeId, QueryError> {
        let window = self.matrix_window(matrix)?;
        let matchers = &matrix.selector.matchers;
        let select = self.selects.add(matchers, &window, &self.steps, around, window.range, Sharing::Shared);
        let decode = self.selects.decode(select, &window, false);
        let leaf = Leaf { select, kind: LeafKind::Raw, window, decode, statistics: false, span: matrix.span };
        self.add(Op::Leaf(leaf), Vec::new(), self.steps)
    }

    fn matrix_window(&self, matrix: &MatrixSelector) -> Result<Window, QueryError> {
        Ok(Window {
            at: self.pinned(matrix.selector.at),
            offset: self.offset(&matrix.selector.offset)?,
            range: self.positive(&matrix.range)?,
            boundary: matrix.selector.boundary,
            lookback: self.lookback,
        })
    }

    /// Which steps of a subquery an outer step sees.
    pub(super) fn subquery_window(&self, subquery: &SubqueryExpr) -> Result<Window, QueryError> {
        Ok(Window {
            at: self.pinned(subquery.at),
            offset: self.offset(&subquery.offset)?,
            range: self.positive(&subquery.range)?,
            boundary: Boundary::Plain,
            lookback: self.lookback,
        })
    }

    /// The expression of a subquery at its own steps, with series of equal labels merged.
    pub(super) fn subquery(
        &mut self,
        subquery: &SubqueryExpr,
        window: &Window,
        steps: Steps,
        around: &Surroundings,
    ) -> Result<NodeId, QueryError> {
        let interval = match &subquery.step {
            None => self.subquery_step,
            // A step of zero means the default.
            Some(step) => match self.positive(step)? {
                0 => self.subquery_step,
                step => step,
            },
        };
        let inner = steps.subquery(window, interval);
        // A single series has a value at each step already.
        check_steps(self.budget, &inner, || {
            let (line, column) = subquery.span.line_column(self.text);
            format!("{line}:{column}: subquery of {} steps", inner.count)
        })?;
        // Resets between steps are detected by the buckets of histograms.
        let around = Surroundings { step: interval, ..around.below().with_buckets() };
        let series = self.build(&subquery.expr, inner, &around)?;
        if self.traits[series].may_repeat_labels {
            self.add(Op::Merge, vec![series], inner)
        } else {
            Ok(series)
        }
    }
}

/// Whether a function over a range uses start timestamps. As in Prometheus, rates over extended ranges do not.
fn sees_starts(function: FunctionId, boundary: Boundary) -> bool {
    match function {
        FunctionId::Rate | FunctionId::Increase => boundary == Boundary::Plain,
        FunctionId::Irate | FunctionId::Resets => true,
        _ => false,
    }
}
