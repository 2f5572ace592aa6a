//! Long columns are worked on in parts, with a look at the flag that ends the query before each of the later ones.

use std::ops::Range;

use budget::Budget;

use crate::error::QueryError;

/// Steps in a part. The slowest of operators takes some 25 ms for so many.
pub(crate) const PART: usize = 1 << 18;

/// Steps in a part where each may have a histogram, which takes as long as many floats.
pub(crate) const HISTOGRAM_PART: usize = 1 << 12;

/// Calls `f` for parts of `0..steps`, in order.
///
/// # Errors
/// When somebody asked for the end of the query.
#[inline(always)]
pub(crate) fn in_parts(steps: usize, budget: &Budget, f: impl FnMut(Range<usize>)) -> Result<(), QueryError> {
    in_parts_of(PART, steps, budget, f)
}

/// As [`in_parts`], for steps that have histograms, where there are any.
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
