//! The text formats.

/// The format of an exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFormat {
    /// Prometheus' text format, version 0.0.4 or 1.0.0.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}
