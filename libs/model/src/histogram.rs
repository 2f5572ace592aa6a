//! Native histograms with float counts, the form that all computation uses.
//!
//! Integer histograms exist only inside chunks. Decoding converts them to this form.

mod buckets;
mod combine;
mod trim;

pub use buckets::{BoundedBucket, numbered_buckets, packed_buckets};
pub use combine::{Combined, IncompatibleSchemas};
pub use trim::TrimSide;

/// Schema number of histograms whose bucket bounds are listed one by one (`custom_values`).
///
/// Classic histograms have this form when they are stored as native histograms.
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// Coarsest exponential schema: each bucket is 2^16 times as wide as the one before it.
pub const MIN_EXPONENTIAL_SCHEMA: i32 = -4;

/// Finest exponential schema that is supported: each bucket is 2^(1/256) times as wide as the one before it.
pub const MAX_EXPONENTIAL_SCHEMA: i32 = 8;

/// What is known about a counter reset between a histogram and its predecessor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CounterResetHint {
    /// Unknown. Comparing the two histograms decides.
    #[default]
    Unknown,
    /// This histogram is the first after a reset.
    Reset,
    /// There was no reset.
    NotReset,
    /// The histogram is a gauge, which has no resets.
    Gauge,
}

/// A run of consecutive buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BucketSpan {
    /// Number of buckets that are skipped between the end of the previous span and this one. The offset of
    /// the first span counts from bucket 0 and may be negative in exponential schemas. Later offsets must not
    /// be negative.
    pub offset: i32,
    /// Number of buckets in the run; zero is allowed.
    pub length: u32,
}

/// A native histogram whose counts are floats: Prometheus' `histogram.FloatHistogram`.
///
/// With an exponential schema `s`, bucket `i` of the positive side covers `(b^(i-1), b^i]` where
/// `b = 2^(2^-s)`; the negative side is its mirror image and the zero bucket covers
/// `[-zero_threshold, zero_threshold]`. With [`CUSTOM_BUCKETS_SCHEMA`] only the positive side is used: bucket `i`
/// covers `(custom_values[i-1], custom_values[i]]`, from minus infinity for the first and to plus infinity for the
/// one after the last bound.
///
/// Buckets are listed without gaps; the spans give their bucket numbers. Counts are absolute: neither
/// cumulative nor deltas. A staleness marker is a histogram whose sum is the stale NaN.
///
/// Equality compares every field, floats bit for bit, so that two staleness markers are equal.
/// [`FloatHistogram::same_observations`] ignores the [`counter_reset_hint`](Self::counter_reset_hint).
///
/// A value that was decoded from untrusted bytes may break these rules; [`FloatHistogram::validate`] checks
/// them.
#[derive(Clone, Debug, Default)]
pub struct FloatHistogram {
    /// What is known about a reset before this histogram, or whether it is a gauge.
    pub counter_reset_hint: CounterResetHint,
    /// Resolution: [`MIN_EXPONENTIAL_SCHEMA`]..=[`MAX_EXPONENTIAL_SCHEMA`], or [`CUSTOM_BUCKETS_SCHEMA`].
    pub schema: i32,
    /// Half width of the zero bucket; 0 with custom buckets.
    pub zero_threshold: f64,
    /// Observations in the zero bucket; 0 with custom buckets.
    pub zero_count: f64,
    /// Number of all observations, including NaN.
    pub count: f64,
    /// Sum of all observations; the stale NaN makes the histogram a staleness marker.
    pub sum: f64,
    /// The numbers of the buckets in `positive_buckets`.
    pub positive_spans: Vec<BucketSpan>,
    /// The numbers of the buckets in `negative_buckets`. Empty with custom buckets.
    pub negative_spans: Vec<BucketSpan>,
    /// Absolute counts of the positive side, in ascending order of value.
    pub positive_buckets: Vec<f64>,
    /// Absolute counts of the negative side, in descending order of value (bucket numbers ascend).
    pub negative_buckets: Vec<f64>,
    /// Upper bounds of custom buckets, ascending, without the last one (+Inf); empty in exponential schemas.
    pub custom_values: Vec<f64>,
}

/// Why a histogram is not well formed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum HistogramError {
    /// The schema is neither a supported exponential schema nor the schema of custom buckets.
    #[error("histogram has schema {0}; expected -4 to 8 (exponential) or -53 (custom buckets)")]
    Schema(i32),
    /// A span other than the first has a negative offset. With custom buckets the first span must not have
    /// one either.
    #[error("{side} span {index} of the histogram has negative offset {offset}")]
    SpanOffset {
        /// `positive` or `negative`.
        side: &'static str,
        /// Number of the span, from 0.
        index: usize,
        /// Its offset.
        offset: i32,
    },
    /// The spans describe another number of buckets than there are.
    #[error("{side} spans of the histogram describe {described} buckets, but it has {present}")]
    BucketCount {
        /// `positive` or `negative`.
        side: &'static str,
        /// Sum of the spans' lengths.
        described: u64,
        /// Number of buckets in the list.
        present: usize,
    },
    /// A count is below zero.
    #[error("{what} of the histogram is negative: {value}")]
    NegativeCount {
        /// Which count.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// A custom bound is NaN, the last one is infinite, or they do not ascend.
    #[error(
        "custom bound {index} of the histogram is {value}; bounds must ascend strictly and the last must be finite"
    )]
    CustomBound {
        /// Number of the bound, from 0.
        index: usize,
        /// Its value.
        value: f64,
    },
    /// The spans reach further than the bucket above the last custom bound.
    #[error("{bounds} custom bounds of the histogram are too few for spans that reach bucket {reach}")]
    TooFewBounds {
        /// Number of custom bounds.
        bounds: usize,
        /// Number of buckets that the spans cover, including gaps.
        reach: u64,
    },
    /// A field is in use that the schema does not allow.
    #[error("histogram with schema {schema} must not have {what}")]
    Foreign {
        /// The schema.
        schema: i32,
        /// The field that is not allowed.
        what: &'static str,
    },
}

impl FloatHistogram {
    /// The histogram form of the staleness marker.
    pub fn stale() -> Self {
        Self { sum: crate::stale_nan(), ..Self::default() }
    }

    /// Whether this is a staleness marker: its sum is the stale NaN, bit for bit.
    pub fn is_stale(&self) -> bool {
        crate::is_stale_nan(self.sum)
    }

    /// Whether the bucket bounds are listed in `custom_values`.
    pub fn uses_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    /// Memory of the histogram in bytes, including its lists.
    pub fn size_bytes(&self) -> usize {
        let spans = self.positive_spans.capacity() + self.negative_spans.capacity();
        let floats = self.positive_buckets.capacity()
            + self.negative_buckets.capacity()
            + self.custom_values.capacity();
        size_of::<Self>() + spans * size_of::<BucketSpan>() + floats * size_of::<f64>()
    }

    /// Whether both are equal except for the reset hint: same layout, same counts, floats bit for bit.
    ///
    /// PromQL's `==` is [`FloatHistogram::equals`], which ignores how buckets are divided into spans.
    pub fn same_observations(&self, other: &Self) -> bool {
        let same_floats = |a: &[f64], b: &[f64]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
        };
        self.schema == other.schema
            && self.zero_threshold.to_bits() == other.zero_threshold.to_bits()
            && self.zero_count.to_bits() == other.zero_count.to_bits()
            && self.count.to_bits() == other.count.to_bits()
            && self.sum.to_bits() == other.sum.to_bits()
            && self.positive_spans == other.positive_spans
            && self.negative_spans == other.negative_spans
            && same_floats(&self.positive_buckets, &other.positive_buckets)
            && same_floats(&self.negative_buckets, &other.negative_buckets)
            && same_floats(&self.custom_values, &other.custom_values)
    }

    /// Checks the rules of this type: a known schema, spans that match the buckets, counts that are not
    /// negative, bounds that ascend. Staleness markers satisfy them.
    ///
    /// Counts are not checked against each other, because float arithmetic may make them differ slightly.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), HistogramError> {
        let foreign = |present: bool, what| {
            if present { Err(HistogramError::Foreign { schema: self.schema, what }) } else { Ok(()) }
        };
        if self.uses_custom_buckets() {
            foreign(self.zero_count != 0.0, "observations in a zero bucket")?;
            foreign(self.zero_threshold != 0.0, "a zero threshold")?;
            foreign(!self.negative_spans.is_empty(), "negative spans")?;
            foreign(!self.negative_buckets.is_empty(), "negative buckets")?;
            self.check_bounds()?;
        } else if (MIN_EXPONENTIAL_SCHEMA..=MAX_EXPONENTIAL_SCHEMA).contains(&self.schema) {
            foreign(!self.custom_values.is_empty(), "custom bounds")?;
            check_spans("negative", &self.negative_spans, &self.negative_buckets, true)?;
        } else {
            return Err(HistogramError::Schema(self.schema));
        }
        check_spans("positive", &self.positive_spans, &self.positive_buckets, !self.uses_custom_buckets())?;
        let counts = [("zero count", self.zero_count), ("count", self.count)].into_iter();
        let positive = self.positive_buckets.iter().map(|&count| ("positive bucket", count));
        let negative = self.negative_buckets.iter().map(|&count| ("negative bucket", count));
        match counts.chain(positive).chain(negative).find(|(_, count)| *count < 0.0) {
            Some((what, value)) => Err(HistogramError::NegativeCount { what, value }),
            None => Ok(()),
        }
    }

    /// Checks that custom bounds ascend, that the last is finite, and that there are enough for the spans.
    fn check_bounds(&self) -> Result<(), HistogramError> {
        let mut previous = f64::NEG_INFINITY;
        for (index, &value) in self.custom_values.iter().enumerate() {
            // The first bound may be minus infinity; NaN fails every comparison.
            if !(value > previous || (index == 0 && value == previous)) || value == f64::INFINITY {
                return Err(HistogramError::CustomBound { index, value });
            }
            previous = value;
        }
        let reach: i64 =
            self.positive_spans.iter().map(|s| i64::from(s.offset.max(0)) + i64::from(s.length)).sum();
        let bounds = self.custom_values.len();
        if reach.unsigned_abs() > bounds as u64 + 1 {
            return Err(HistogramError::TooFewBounds { bounds, reach: reach.unsigned_abs() });
        }
        Ok(())
    }
}

/// Checks that span offsets are not negative (the first may be if `free_start`) and that the spans describe
/// as many buckets as there are.
fn check_spans(
    side: &'static str,
    spans: &[BucketSpan],
    buckets: &[f64],
    free_start: bool,
) -> Result<(), HistogramError> {
    let bound = usize::from(free_start);
    if let Some((index, span)) = spans.iter().enumerate().skip(bound).find(|(_, s)| s.offset < 0) {
        return Err(HistogramError::SpanOffset { side, index, offset: span.offset });
    }
    let described: u64 = spans.iter().map(|s| u64::from(s.length)).sum();
    if described != buckets.len() as u64 {
        return Err(HistogramError::BucketCount { side, described, present: buckets.len() });
    }
    Ok(())
}

impl PartialEq for FloatHistogram {
    fn eq(&self, other: &Self) -> bool {
        self.counter_reset_hint == other.counter_reset_hint && self.same_observations(other)
    }
}

impl Eq for FloatHistogram {}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(offset: i32, length: u32) -> BucketSpan {
        BucketSpan { offset, length }
    }

    fn exponential() -> FloatHistogram {
        FloatHistogram {
            schema: 3,
            zero_threshold: 1e-128,
            zero_count: 2.0,
            count: 12.0,
            sum: 30.5,
            positive_spans: vec![span(-2, 2), span(3, 1)],
            positive_buckets: vec![1.0, 2.0, 3.0],
            negative_spans: vec![span(0, 1)],
            negative_buckets: vec![4.0],
            ..FloatHistogram::default()
        }
    }

    fn custom() -> FloatHistogram {
        FloatHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count: 3.0,
            sum: 7.0,
            positive_spans: vec![span(0, 3)],
            positive_buckets: vec![1.0, 1.0, 1.0],
            custom_values: vec![0.5, 2.0],
            ..FloatHistogram::default()
        }
    }

    #[test]
    fn staleness_markers_are_equal_and_well_formed() {
        assert_eq!(FloatHistogram::stale(), FloatHistogram::stale());
        assert!(FloatHistogram::stale().is_stale());
        assert_eq!(FloatHistogram::stale().validate(), Ok(()));
        assert!(!FloatHistogram { sum: f64::NAN, ..FloatHistogram::default() }.is_stale());
    }

    #[test]
    fn same_observations_ignores_the_reset_hint() {
        let hinted = FloatHistogram { counter_reset_hint: CounterResetHint::Reset, ..exponential() };
        assert_ne!(hinted, exponential());
        assert!(hinted.same_observations(&exponential()));
    }

    #[test]
    fn each_broken_rule_has_its_own_error() {
        fn check(base: fn() -> FloatHistogram, spoil: impl Fn(&mut FloatHistogram), message: &str) {
            let mut histogram = base();
            assert_eq!(histogram.validate(), Ok(()));
            spoil(&mut histogram);
            let error = histogram.validate().expect_err(message).to_string();
            assert!(error.contains(message), "{error:?} does not say {message:?}");
        }
        check(exponential, |h| h.schema = 9, "schema 9");
        check(exponential, |h| h.positive_spans[1].offset = -1, "positive span 1");
        check(
            exponential,
            |h| h.negative_buckets.push(1.0),
            "negative spans of the histogram describe 1 buckets",
        );
        check(
            exponential,
            |h| h.positive_buckets[1] = -1.0,
            "positive bucket of the histogram is negative: -1",
        );
        check(exponential, |h| h.count = -1.0, "count of the histogram is negative");
        check(exponential, |h| h.custom_values.push(1.0), "must not have custom bounds");
        check(custom, |h| h.zero_count = 1.0, "zero bucket");
        check(custom, |h| h.positive_spans[0].offset = -1, "positive span 0");
        check(custom, |h| h.custom_values[1] = 0.5, "custom bound 1");
        check(custom, |h| h.custom_values[1] = f64::INFINITY, "custom bound 1");
        check(custom, |h| h.custom_values[0] = f64::NAN, "custom bound 0");
        check(custom, |h| h.custom_values.truncate(1), "too few for spans that reach bucket 3");
    }
}
