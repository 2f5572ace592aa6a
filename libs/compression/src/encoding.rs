//! The encodings of messages.

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use http::{HeaderMap, HeaderValue};
use tonic::Status;

use crate::error::DecompressError;
use crate::plain::PlainMessage;
use crate::snappy;

/// The header with the encoding of the messages that follow it.
pub(crate) const ENCODING_HEADER: &str = "grpc-encoding";

/// The header with the encodings that the sender understands.
pub(crate) const ACCEPT_HEADER: &str = "grpc-accept-encoding";

/// The encodings that we understand, as [`ACCEPT_HEADER`] lists them.
pub(crate) const ACCEPTED: HeaderValue = HeaderValue::from_static("gzip,snappy,zstd");

/// Largest window of zstd, as a power of two: 8 MiB, which every decoder must support (RFC 8878, 3.1.1.1.2).
const ZSTD_WINDOW_LOG: u32 = 23;

/// How messages are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageEncoding {
    /// Deflate with a header and a checksum (RFC 1952).
    Gzip,
    /// Snappy in its framing format, as Thanos sends it.
    Snappy,
    /// Zstandard (RFC 8878).
    Zstd,
}

/// A text is not the name of an encoding.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("encoding {0:?} is not supported, expected gzip, snappy or zstd")]
pub struct UnknownEncoding(String);

impl MessageEncoding {
    /// All encodings.
    pub const ALL: [Self; 3] = [Self::Gzip, Self::Snappy, Self::Zstd];

    /// The name in headers and flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Zstd => "zstd",
        }
    }

    /// The encoding of the messages after these headers; `None` for plain messages.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Self>, UnknownEncoding> {
        match headers.get(ENCODING_HEADER).map(HeaderValue::as_bytes) {
            None | Some(b"identity") => Ok(None),
            Some(name) => String::from_utf8_lossy(name).parse().map(Some),
        }
    }

    /// Whether the sender of these headers understands it. A sender that lists nothing understands what it sends itself.
    pub(crate) fn is_accepted(self, headers: &HeaderMap) -> bool {
        let mut lists = headers.get_all(ACCEPT_HEADER).iter().peekable();
        lists.peek().is_none()
            || lists
                .filter_map(|list| list.to_str().ok())
                .any(|list| list.split(',').any(|name| name.trim() == self.name()))
    }

    /// The header that announces it.
    pub(crate) fn header(self) -> HeaderValue {
        HeaderValue::from_static(self.name())
    }

    /// Appends the compressed message to `out`.
    pub(crate) fn compress(self, message: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Gzip => {
                // Level 1: a stream of samples, which are compressed already, gains little from more.
                let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
                encoder.write_all(message)?;
                encoder.finish().map(drop)
            }
            Self::Snappy => snappy::compress(message, out),
            Self::Zstd => zstd::stream::copy_encode(message, out, 1),
        }
    }

    /// Appends the plain message to `out`.
    pub(crate) fn decompress(
        self,
        message: &[u8],
        out: &mut PlainMessage<impl Fn(usize) -> Result<(), Status>>,
    ) -> Result<(), DecompressError> {
        match self {
            Self::Gzip => out.read_from(flate2::read::MultiGzDecoder::new(message)),
            Self::Snappy => snappy::decompress(message, out),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(message)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                out.read_from(decoder)
            }
        }
    }
}

impl FromStr for MessageEncoding {
    type Err = UnknownEncoding;

    fn from_str(name: &str) -> Result<Self, UnknownEncoding> {
        let found = Self::ALL.into_iter().find(|encoding| encoding.name() == name);
        // The text may be foreign: shorten it, so that it cannot fill a log.
        found.ok_or_else(|| UnknownEncoding(name.chars().take(40).collect()))
    }
}

impl fmt::Display for MessageEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
