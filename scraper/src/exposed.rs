//! What a target has sent.

use exposition::TextFormat;

/// What a target has sent.
#[derive(Clone, Copy, Debug)]
pub struct Exposition<'a> {
    /// The body, decompressed.
    pub body: &'a [u8],
    /// Its format.
    pub format: ExpositionFormat,
}

impl Exposition<'_> {
    /// An answer without anything.
    pub const EMPTY: Self = Self { body: &[], format: ExpositionFormat::Text(TextFormat::Prometheus) };
}

/// The format of an exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpositionFormat {
    /// One of the text formats.
    Text(TextFormat),
    /// Protobuf.
    Protobuf,
}
