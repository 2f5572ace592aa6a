//! Removes damaged chunks from the answer of one store.

use series::{Aggregate, Series};

/// Maximum number of damaged chunks of one store that are named.
const NAMED: usize = 10;

/// Removes damaged chunks, and describes them in warnings.
#[derive(Debug, Default)]
pub(super) struct DamageFilter {
    found: usize,
}

impl DamageFilter {
    /// Removes the damaged chunks of `batch`; returns one warning for each, up to the limit. `requested` are the aggregates of
    /// the request.
    pub(super) fn remove(&mut self, batch: &mut [Series], requested: &[Aggregate]) -> Vec<String> {
        let read = read_aggregate(requested);
        let mut warnings = Vec::new();
        for damaged in batch.iter_mut().flat_map(|series| series.remove_damaged_chunks(read)) {
            self.found += 1;
            if self.found <= NAMED {
                warnings.push(format!("its damaged chunk was dropped from the answer: {damaged}"));
            }
        }
        warnings
    }

    /// Memory that [`DamageFilter::remove`] takes at most, in bytes.
    pub(super) fn bytes(batch: &[Series], requested: &[Aggregate]) -> usize {
        let read = read_aggregate(requested);
        batch.iter().map(|series| series.largest_decoded_bytes(read)).max().unwrap_or(0)
    }

    /// A warning about the damaged chunks that were not named; `None` if there are none.
    pub(super) fn rest(&self) -> Option<String> {
        let rest = self.found.saturating_sub(NAMED);
        (rest > 0).then(|| format!("{rest} more damaged chunks were dropped from the answer"))
    }
}

/// The aggregate that a query reads if its request asks for these.
fn read_aggregate(requested: &[Aggregate]) -> Aggregate {
    match requested {
        [one] => *one,
        // The sum and the count, from which the query computes the average.
        _ => Aggregate::Raw,
    }
}
