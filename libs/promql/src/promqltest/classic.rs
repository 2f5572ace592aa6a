//! Converts classic histograms to native ones with custom buckets, for `load_with_nhcb`.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{CUSTOM_BUCKETS_SCHEMA, FloatHistogram, Labels, METRIC_NAME};

use crate::promqltest::histogram::spans;
use crate::promqltest::sequence::SequenceValue;
use crate::syntax::parse_number;

/// The values of the series `_bucket`, `_count` and `_sum` at one instant.
#[derive(Default)]
struct ClassicHistogram {
    /// Cumulative counts by upper bound. The key is the bits of the bound, mapped so that they sort like the
    /// float.
    buckets: BTreeMap<i64, (f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

/// By index in the sequence.
type BySeries = BTreeMap<Labels, BTreeMap<usize, ClassicHistogram>>;

/// The native histograms for all classic ones in `series`: labels and sequences, with the same step.
///
/// # Errors
/// If counts decrease with increasing bound, are negative, or contradict the total.
pub(super) fn convert(
    series: &[(Labels, Vec<SequenceValue>)],
) -> Result<Vec<(Labels, Vec<SequenceValue>)>, String> {
    let mut found = BySeries::new();
    for (labels, values) in series {
        collect(&mut found, labels, values)?;
    }
    found
        .into_iter()
        .map(|(labels, classics)| {
            let length = classics.keys().next_back().map_or(0, |last| last + 1);
            let mut values = vec![SequenceValue::Omitted; length];
            for (at, classic) in classics {
                let histogram =
                    classic.convert().map_err(|why| format!("classic histogram {labels}: {why}"))?;
                values[at] = SequenceValue::Histogram { histogram: Arc::new(histogram), hint_given: false };
            }
            Ok((labels, values))
        })
        .collect()
}

fn collect(found: &mut BySeries, labels: &Labels, values: &[SequenceValue]) -> Result<(), String> {
    let name = labels.metric_name();
    let Some((base, part)) = ["_bucket", "_count", "_sum"]
        .into_iter()
        .find_map(|suffix| name.strip_suffix(suffix).map(|base| (base, suffix)))
    else {
        return Ok(());
    };
    let mut bound = 0.0;
    if part == "_bucket" {
        let le = labels.get("le").ok_or_else(|| format!("{labels} has no label le"))?;
        match le.strip_prefix('+').map_or_else(|| parse_signed(le), parse_number) {
            Ok(parsed) if !parsed.is_nan() => bound = parsed,
            _ => return Ok(()),
        }
    }
    let labels = labels.to_builder().set(METRIC_NAME, base).remove("le").build();
    let classics = found.entry(labels).or_default();
    for (at, value) in values.iter().enumerate() {
        let SequenceValue::Float(value) = value else { continue };
        let classic = classics.entry(at).or_default();
        match part {
            "_bucket" => {
                classic.buckets.entry(sortable(bound)).or_insert((bound, *value));
            }
            "_count" => classic.count = Some(*value),
            _ => classic.sum = *value,
        }
    }
    Ok(())
}

fn parse_signed(text: &str) -> Result<f64, String> {
    match text.strip_prefix('-') {
        Some(digits) => parse_number(digits).map(|value| -value),
        None => parse_number(text),
    }
}

/// Maps a float to an integer so that both sort in the same order.
fn sortable(value: f64) -> i64 {
    let bits = (value + 0.0).to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

impl ClassicHistogram {
    fn convert(mut self) -> Result<FloatHistogram, String> {
        let highest = self.buckets.values().next_back().copied();
        let count = self.count.or(highest.map(|(_, count)| count)).unwrap_or(0.0);
        if highest.is_none_or(|(bound, _)| bound != f64::INFINITY) {
            self.buckets.insert(sortable(f64::INFINITY), (f64::INFINITY, count));
        }
        let cumulative: Vec<f64> = self.buckets.values().map(|(_, count)| *count).collect();
        if cumulative.iter().chain([&count]).any(|count| *count < 0.0) {
            return Err("bucket count must be non-negative".to_owned());
        }
        if !cumulative.is_sorted() {
            return Err("count is not cumulative".to_owned());
        }
        if cumulative.last() != Some(&count) {
            return Err("count mismatch".to_owned());
        }
        let mut before = 0.0;
        let mut filled = BTreeMap::new();
        for (at, count) in cumulative.iter().enumerate() {
            if *count != before {
                filled.insert(at as i32, count - before);
            }
            before = *count;
        }
        let (positive_spans, positive_buckets) = spans(&filled);
        Ok(FloatHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count,
            sum: self.sum,
            positive_spans,
            positive_buckets,
            custom_values: self
                .buckets
                .values()
                .map(|(bound, _)| *bound)
                .filter(|b| *b != f64::INFINITY)
                .collect(),
            ..FloatHistogram::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promqltest::parse_series;

    fn converted(lines: &[&str]) -> Result<Vec<(Labels, Vec<SequenceValue>)>, String> {
        let series: Vec<_> = lines.iter().map(|line| parse_series(line).unwrap()).collect();
        convert(&series)
    }

    #[test]
    fn a_classic_histogram_becomes_a_native_one() {
        let converted = converted(&[
            r#"h_bucket{le="1"} 1x1"#,
            r#"h_bucket{le="+Inf"} 5"#,
            r#"h_bucket{le="-0.5"} 0x1"#,
            r#"h_bucket{le="nonsense"} 7"#,
            "h_sum 10",
            "other 1",
        ])
        .unwrap();
        let [(labels, values)] = &converted[..] else { panic!("{converted:?}") };
        assert_eq!(labels.to_string(), "h");
        let SequenceValue::Histogram { histogram, .. } = &values[0] else { panic!("{values:?}") };
        assert_eq!((histogram.count, histogram.sum), (5.0, 10.0));
        assert_eq!(histogram.custom_values, [-0.5, 1.0]);
        assert_eq!(histogram.positive_buckets, [1.0, 4.0]);
        assert_eq!(histogram.positive_spans, [model::BucketSpan { offset: 1, length: 2 }]);
        let SequenceValue::Histogram { histogram, .. } = &values[1] else { panic!("{values:?}") };
        assert_eq!((histogram.count, histogram.custom_values.len()), (1.0, 2));
    }

    #[test]
    fn counts_that_contradict_each_other_are_rejected() {
        let check = |lines: &[&str], why: &str| {
            assert_eq!(converted(lines).unwrap_err(), format!("classic histogram h: {why}"));
        };
        check(&[r#"h_bucket{le="1"} 2"#, r#"h_bucket{le="2"} 1"#], "count is not cumulative");
        check(&[r#"h_bucket{le="+Inf"} 2"#, "h_count 3"], "count mismatch");
        check(&["h_count -3"], "bucket count must be non-negative");
        assert!(converted(&["h_bucket 1"]).is_err());
    }
}
