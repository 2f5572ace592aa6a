//! Long columns are worked on in parts, with a look at the flag that ends the query before each of the later ones.

use std::ops::Range;

use super::budget::Budget;
use crate::QueryError;

/// Steps in a part. The slowest of operators takes some 25 ms for so many.
pub(crate) const PART: usize = 1 << 18;

/// Calls `f` for parts of `0..steps`, in order.
///
/// # Errors
/// When somebody asked for the end of the query.
#[inline(always)]
pub(crate) fn in_parts(
    steps: usize,
    budget: &Budget,
    mut f: impl FnMut(Range<usize>),
) -> Result<(), QueryError> {
    let mut start = 0;
    while start < steps {
        if start > 0 {
            budget.check()?;
        }
        let end = steps.min(start + PART);
        f(start..end);
        start = end;
    }
    Ok(())
}
