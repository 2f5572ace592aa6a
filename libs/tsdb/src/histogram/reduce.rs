//! Histograms of a resolution that only future writers use.

use model::{FloatHistogram, MAX_EXPONENTIAL_SCHEMA, Span};

/// Merges buckets until the resolution is the finest that is computed with. Schemas 9 to 52 are reserved; Prometheus
/// reads them the same way.
pub(super) fn to_known_schema(mut histogram: FloatHistogram) -> FloatHistogram {
    let steps = histogram.schema.saturating_sub(MAX_EXPONENTIAL_SCHEMA).clamp(0, 63) as u32;
    let side =
        |spans: &mut Vec<Span>, buckets: &mut Vec<f64>| (*spans, *buckets) = merge(spans, buckets, steps);
    side(&mut histogram.positive_spans, &mut histogram.positive_buckets);
    side(&mut histogram.negative_spans, &mut histogram.negative_buckets);
    histogram.schema -= steps as i32;
    histogram
}

/// Merges 2^steps neighbouring buckets into one: bucket `i` becomes bucket `ceil(i / 2^steps)`.
fn merge(spans: &[Span], buckets: &[f64], steps: u32) -> (Vec<Span>, Vec<f64>) {
    let mut merged: (Vec<Span>, Vec<f64>) = (Vec::new(), Vec::new());
    let (mut index, mut last) = (0i64, None);
    let mut buckets = buckets.iter();
    for span in spans {
        index += i64::from(span.offset);
        for &count in buckets.by_ref().take(span.length as usize) {
            let coarse = ((index - 1) >> steps) + 1;
            match (last, merged.0.last_mut(), merged.1.last_mut()) {
                (Some(same), _, Some(bucket)) if same == coarse => *bucket += count,
                (Some(before), Some(span), _) if before + 1 == coarse => {
                    span.length += 1;
                    merged.1.push(count);
                }
                (before, _, _) => {
                    let gap = coarse - before.map_or(0, |before| before + 1);
                    // Bucket numbers shrink, so the gap fits unless foreign spans go backwards.
                    let offset = i32::try_from(gap).unwrap_or(i32::MAX);
                    merged.0.push(Span { offset, length: 1 });
                    merged.1.push(count);
                }
            }
            last = Some(coarse);
            index += 1;
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_buckets_become_one() {
        let span = |offset, length| Span { offset, length };
        let fine = FloatHistogram {
            schema: 10,
            // Buckets -3 to 1, 5 and 13.
            positive_spans: vec![span(-3, 5), span(3, 1), span(7, 1)],
            positive_buckets: vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0],
            ..FloatHistogram::default()
        };
        let coarse = to_known_schema(fine);
        assert_eq!(coarse.schema, 8);
        // Bucket 0 takes -3 to 0, 1 takes 1, 2 takes 5, 4 takes 13.
        assert_eq!(coarse.positive_spans, [span(0, 3), span(1, 1)]);
        assert_eq!(coarse.positive_buckets, [15.0, 16.0, 32.0, 64.0]);
        assert_eq!(coarse.validate(), Ok(()));
    }
}
