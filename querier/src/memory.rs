//! The available memory, and the limits of queries that follow from it.

use budget::{LimitError, LimitKind};
use storeapi::StoreError;

/// Minimum limit; with less memory no useful query runs.
const LEAST_BYTES: u64 = 64 << 20;

/// The default memory limit of all queries together: half of the memory. The other half is for connections
/// and the rest of the process, so that a query that is too large fails instead of the process.
pub(crate) fn for_all_queries() -> u64 {
    half_of(runtime::available_memory())
}

fn half_of(total: u64) -> u64 {
    (total / 2).max(LEAST_BYTES)
}

/// The default memory limit of one query: a quarter of `total`, so that one query leaves memory for others.
pub(crate) fn for_one_query(total: u64) -> u64 {
    (total / 4).max(LEAST_BYTES).min(total)
}

/// The default memory limit of one message or answer of one store: a quarter of the limit of a query.
pub(crate) fn for_one_store(query: u64) -> u64 {
    (query / 4).max(16 << 20)
}

/// What the stores of one query may send ahead of it: a quarter of the limit of a query, within bounds. More than 64 MiB makes
/// no query faster.
pub(crate) fn for_stores_ahead(query: u64) -> usize {
    (query / 4).clamp(8 << 20, 64 << 20) as usize
}

/// The message of a query that exceeds a limit, with the flag that sets the limit.
pub(crate) fn limit_with_flag(error: &LimitError) -> String {
    let flag = match error.kind {
        LimitKind::Samples => "max-samples",
        LimitKind::Bytes => "max-memory",
        LimitKind::TotalSamples => "max-total-samples",
        LimitKind::TotalBytes => "max-total-memory",
    };
    format!("{error} (--query.{flag})")
}

/// The error of a query that exceeds a limit, with the flag that sets the limit.
pub(crate) fn limit_error(error: &LimitError) -> StoreError {
    StoreError::limit(limit_with_flag(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_from_the_memory() {
        const MIB: u64 = 1 << 20;
        assert_eq!(half_of(600 * MIB), 300 * MIB);
        assert_eq!(half_of(MIB), LEAST_BYTES);
        assert!(for_all_queries() >= LEAST_BYTES);
        assert_eq!(for_one_query(4 << 30), 1 << 30);
        assert_eq!(for_one_query(1000), 1000);
    }
}
