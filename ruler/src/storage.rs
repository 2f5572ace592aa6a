//! Stores the samples of rules in the head.

use std::sync::Arc;

use head::{Appender, Head, HeadError, SeriesHandle};
use model::Timestamp;
use promql::SampleValue;
use rules::RuleSample;

/// Appends the samples of a rule. Returns those that were rejected, by their index, and why.
///
/// # Errors
/// The log cannot be written, and there is no memory left for more samples. Nothing is stored then.
pub(crate) fn store(head: &Head, samples: &[RuleSample]) -> Result<Vec<(usize, String)>, HeadError> {
    let mut appender = head.appender();
    let mut rejected = Vec::new();
    for (at, sample) in samples.iter().enumerate() {
        let series = head.series(&sample.labels);
        if let Err(why) = append(&mut appender, &series, sample) {
            rejected.push((at, why.to_string()));
        }
    }
    appender.commit()?;
    Ok(rejected)
}

/// Appends staleness markers. Those that are rejected do not matter: another rule writes their series.
///
/// # Errors
/// As [`store`].
pub(crate) fn store_markers(head: &Head, markers: &[RuleSample]) -> Result<(), HeadError> {
    if markers.is_empty() {
        return Ok(());
    }
    let mut appender = head.appender();
    appender.set_discards_late(true);
    for marker in markers {
        let series = head.series(&marker.labels);
        let _ = append(&mut appender, &series, marker);
    }
    appender.commit().map(drop)
}

fn append(
    appender: &mut Appender<'_>,
    series: &SeriesHandle,
    sample: &RuleSample,
) -> Result<(), head::AppendRefused> {
    match &sample.value {
        SampleValue::Float(value) => appender.append_float(series, sample.at, Timestamp::EPOCH, *value),
        SampleValue::Histogram(histogram) => {
            appender.append_histogram(series, sample.at, Timestamp::EPOCH, false, Arc::clone(histogram))
        }
    }
}
