//! A series that several queries read.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use series::{DecodeError, DecodeOptions, Samples, SelectedSeries};

/// A series of a select. Its clones are the same series. Queries that read it at the same instant, as the rules of a group do, decode
/// it once.
#[derive(Clone, Debug)]
pub struct SharedSeries(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    series: SelectedSeries,
    decoded: OnceLock<Box<Decoded>>,
}

/// What the first query has decoded.
#[derive(Debug)]
struct Decoded {
    options: DecodeOptions,
    samples: Samples,
}

impl SharedSeries {
    /// Memory of the series with its decoded samples in bytes, at most.
    pub fn most_bytes(&self) -> usize {
        2 * self.size_bytes() + size_of::<Decoded>()
    }

    /// Decodes like [`SelectedSeries::decode`]. If the series is shared, the samples are kept for the next query, unless they take
    /// more memory than the series.
    pub(crate) fn decode(&self, options: &DecodeOptions, out: &mut Samples) -> Result<(), DecodeError> {
        if let Some(decoded) = self.0.decoded.get()
            && decoded.options == *options
        {
            copy(&decoded.samples, out);
            return Ok(());
        }
        self.0.series.decode(options, out)?;
        let is_shared = Arc::strong_count(&self.0) > 1;
        if is_shared && out.size_bytes() <= self.size_bytes() {
            self.0.decoded.get_or_init(|| Box::new(Decoded { options: *options, samples: out.clone() }));
        }
        Ok(())
    }
}

/// Copies samples into `to`, whose buffers keep their memory.
fn copy(from: &Samples, to: &mut Samples) {
    to.clear();
    to.timestamps.extend_from_slice(&from.timestamps);
    to.values.extend_from_slice(&from.values);
    to.starts.extend_from_slice(&from.starts);
    to.histograms.extend_from_slice(&from.histograms);
    to.histogram_starts.extend_from_slice(&from.histogram_starts);
}

impl From<SelectedSeries> for SharedSeries {
    fn from(series: SelectedSeries) -> Self {
        Self(Arc::new(Shared { series, decoded: OnceLock::new() }))
    }
}

impl Deref for SharedSeries {
    type Target = SelectedSeries;

    fn deref(&self) -> &SelectedSeries {
        &self.0.series
    }
}

impl PartialEq for SharedSeries {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

#[cfg(test)]
mod tests {
    use model::{Labels, Sample, TimeRange, Timestamp};
    use series::{AggrChunk, Dedup};
    use tsdb::Aggregate;

    use super::*;

    /// 120 samples that cannot be compressed.
    fn series() -> SelectedSeries {
        let value = |n: i64| {
            f64::from_bits(0x3ff0_0000_0000_0000 | ((n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 12))
        };
        let samples: Vec<Sample> = (0..120).map(|n| Sample::new(n * 15_000, value(n))).collect();
        let chunks = AggrChunk::from_floats(&samples).unwrap();
        SelectedSeries { labels: Labels::empty(), replicas: vec![chunks] }
    }

    fn last_seconds(seconds: i64) -> DecodeOptions {
        let end = 119 * 15_000;
        DecodeOptions {
            range: TimeRange {
                min: Timestamp::from_millis(end - seconds * 1000),
                max: Timestamp::from_millis(end),
            },
            dedup: Dedup::Off,
            counter: false,
            aggregate: Aggregate::Raw,
            starts: false,
            window: 0,
        }
    }

    #[test]
    fn few_samples_of_a_shared_series_are_kept_for_the_same_options() {
        let (plain, mut out, mut expected) = (series(), Samples::new(), Samples::new());
        let alone = SharedSeries::from(plain.clone());
        alone.decode(&last_seconds(300), &mut out).unwrap();
        assert!(alone.0.decoded.get().is_none(), "a series of one query");

        let shared = alone.clone();
        shared.decode(&last_seconds(3600), &mut out).unwrap();
        assert!(shared.0.decoded.get().is_none(), "samples that are larger than the series");
        for seconds in [300, 300, 60, 3600] {
            alone.decode(&last_seconds(seconds), &mut out).unwrap();
            plain.decode(&last_seconds(seconds), &mut expected).unwrap();
            assert_eq!(out, expected, "{seconds}");
        }
        let kept = shared.0.decoded.get().unwrap();
        assert_eq!((kept.options, kept.samples.len()), (last_seconds(300), 21));
        assert!(kept.samples.size_bytes() + plain.size_bytes() <= shared.most_bytes());
    }
}
