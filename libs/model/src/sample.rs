//! Float samples and the staleness marker.

use crate::Timestamp;

/// Bit pattern of the staleness marker, the NaN by which Prometheus marks the end of a series.
///
/// Source: `StaleNaN` in Prometheus' `model/value`. All other NaNs are ordinary values.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The staleness marker as a float.
pub const fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// Whether `value` is the staleness marker, bit for bit.
pub const fn is_stale_nan(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// One float observation of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// When the value was observed.
    pub timestamp: Timestamp,
    /// The observed value: any float, including the staleness marker.
    pub value: f64,
}

impl Sample {
    /// A sample at `millis` milliseconds since the epoch.
    pub const fn new(millis: i64, value: f64) -> Self {
        Self { timestamp: Timestamp::from_millis(millis), value }
    }
}
