//! Long columns are processed in parts. Before each part but the first, the interrupt is checked.

use std::ops::Range;

use budget::Budget;

use crate::error::QueryError;

/// Steps in a part. The slowest operator takes about 25 ms for one.
pub(crate) const PART: usize = 1 << 18;

/// Steps in a part if each step may have a histogram, which takes as long as many floats.
pub(crate) const HISTOGRAM_PART: usize = 1 << 12;

/// Calls `f` for parts of `0..steps`, in order.
///
/// # Errors
/// If the query is interrupted.
#[inline(always)]
pub(crate) fn in_parts(steps: usize, budget: &Budget, f: impl FnMut(Range<usize>)) -> Result<(), QueryError> {
    in_parts_of(PART, steps, budget, f)
}

/// As [`in_parts`], for steps with histograms.
///
/// # Errors
/// As [`in_parts`].
pub(crate) fn in_histogram_parts(
    steps: usize,
    budget: &Budget,
    f: impl FnMut(Range<usize>),
) -> Result<(), QueryError> {
    in_parts_of(HISTOGRAM_PART, steps, budget, f)
}

#[inline(always)]
fn in_parts_of(
    part: usize,
    steps: usize,
    budget: &Budget,
    mut f: impl FnMut(Range<usize>),
) -> Result<(), QueryError> {
    let mut start = 0;
    while start < steps {
        if start > 0 {
            budget.check()?;
        }
        let end = steps.min(start + part);
        f(start..end);
        start = end;
    }
    Ok(())
}
