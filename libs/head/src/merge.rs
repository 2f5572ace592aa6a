//! Merges chunks that overlap, and leaves samples out of chunks.

use std::sync::Arc;

use model::{CounterResetHint, TimeRange, Timestamp};
use tsdb::Chunk;

use crate::value::{TimedValue, Value, decoded, encoded};

/// The chunks of a series in order of time, each sample once. Of two samples with the same time, the one that is in order is
/// taken, or otherwise the first one.
///
/// Chunks that overlap no other are not changed. A chunk that cannot be decoded stays as it is.
pub(crate) fn merged(in_order: Vec<Chunk>, late: Vec<Chunk>) -> Vec<Chunk> {
    if late.is_empty() {
        return in_order;
    }
    let mut chunks: Vec<(usize, Chunk)> = in_order.into_iter().chain(late).enumerate().collect();
    chunks.sort_by_key(|(rank, chunk)| (chunk.range.min, *rank));
    let mut out = Vec::with_capacity(chunks.len());
    let mut rest = chunks.into_iter().peekable();
    while let Some(first) = rest.next() {
        let mut end = first.1.range.max;
        let mut group = vec![first];
        while let Some(next) = rest.next_if(|(_, chunk)| chunk.range.min <= end) {
            end = end.max(next.1.range.max);
            group.push(next);
        }
        group.sort_by_key(|(rank, _)| *rank);
        let group: Vec<Chunk> = group.into_iter().map(|(_, chunk)| chunk).collect();
        out.extend(if group.len() == 1 { group } else { merged_group(&group).unwrap_or(group) });
    }
    out
}

/// Chunks that overlap as chunks that do not. None if one cannot be decoded.
fn merged_group(chunks: &[Chunk]) -> Option<Vec<Chunk>> {
    let mut samples: Vec<TimedValue> = Vec::new();
    for chunk in chunks {
        samples.extend(decoded(chunk)?);
    }
    // The sort is stable: the first of equal times is that of the first chunk.
    samples.sort_by_key(|sample| sample.time);
    samples.dedup_by_key(|sample| sample.time);
    samples.iter_mut().for_each(|sample| forget_hint(&mut sample.value));
    encoded(&samples).ok()
}

/// A histogram may have another one before it than where its hint was set.
fn forget_hint(value: &mut Value) {
    if let Value::Histogram { histogram, .. } = value
        && !matches!(histogram.counter_reset_hint, CounterResetHint::Unknown | CounterResetHint::Gauge)
    {
        Arc::make_mut(histogram).counter_reset_hint = CounterResetHint::Unknown;
    }
}

/// A chunk without the samples in these ranges. A chunk that cannot be decoded stays as it is.
pub(crate) fn without(chunk: &Chunk, deleted: &[TimeRange]) -> Vec<Chunk> {
    if !deleted.iter().any(|range| range.overlaps(&chunk.range)) {
        return vec![chunk.clone()];
    }
    keep(chunk, &|time| !deleted.iter().any(|range| range.contains(time)))
        .unwrap_or_else(|| vec![chunk.clone()])
}

/// Chunks with the samples in a range only. None if one that has others too cannot be decoded: what it has in the range is not known,
/// and must not be left out.
pub(crate) fn inside(chunks: Vec<Chunk>, range: TimeRange) -> Option<Vec<Chunk>> {
    let mut cut = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        match range.contains(chunk.range.min) && range.contains(chunk.range.max) {
            true => cut.push(chunk),
            false => cut.extend(keep(&chunk, &|time| range.contains(time))?),
        }
    }
    Some(cut)
}

/// The samples of a chunk whose times are kept, encoded again. None if the chunk cannot be decoded.
fn keep(chunk: &Chunk, is_kept: &dyn Fn(Timestamp) -> bool) -> Option<Vec<Chunk>> {
    let mut samples = decoded(chunk)?;
    samples.retain(|sample| is_kept(Timestamp::from_millis(sample.time)));
    encoded(&samples).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(samples: &[(i64, f64)]) -> Chunk {
        let samples: Vec<TimedValue> = samples
            .iter()
            .map(|(time, value)| TimedValue { time: *time, start: 0, value: Value::Float(*value) })
            .collect();
        encoded(&samples).unwrap().remove(0)
    }

    #[test]
    fn overlapping_chunks_are_merged_and_others_are_not_touched() {
        let in_order =
            vec![chunk(&[(10, 1.0), (20, 1.0)]), chunk(&[(30, 1.0), (50, 1.0)]), chunk(&[(60, 1.0)])];
        let late = vec![
            chunk(&[(35, 2.0), (40, 2.0), (50, 2.0)]),
            chunk(&[(40, 3.0), (45, 3.0)]),
            chunk(&[(1, 2.0)]),
        ];
        let found = merged(in_order.clone(), late.clone());
        let expected = [
            late[2].clone(),
            in_order[0].clone(),
            chunk(&[(30, 1.0), (35, 2.0), (40, 2.0), (45, 3.0), (50, 1.0)]),
            in_order[2].clone(),
        ];
        assert_eq!(found, expected);
        assert_eq!(merged(in_order.clone(), vec![]), in_order);
        // What cannot be decoded is kept or an error, never left out.
        let range = |min, max| TimeRange::new(Timestamp::from_millis(min), Timestamp::from_millis(max));
        let torn = Chunk { data: late[0].data.slice(..5), ..late[0].clone() };
        assert_eq!(inside(vec![torn.clone()], range(35, 50)), Some(vec![torn.clone()]));
        assert_eq!(inside(vec![torn], range(35, 49)), None);
        assert_eq!(inside(vec![late[0].clone()], range(36, 49)), Some(vec![chunk(&[(40, 2.0)])]));
        // Damage stays where it is.
        let damaged = Chunk { data: late[0].data.slice(..5), ..late[0].clone() };
        let found = merged(vec![in_order[1].clone()], vec![damaged.clone()]);
        assert_eq!(found, [in_order[1].clone(), damaged]);
    }
}
