//! What both protocols share: lines and contents of bounded length.

use std::fmt;
use std::io;

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// Most bytes of a line, such as the length of a value or the text of an error.
const MAX_LINE: usize = 1024;
/// A value may be longer than a page, if something else was stored under its key. Up to this many bytes are read and ignored.
const MAX_IGNORED: u64 = 1 << 20;

/// Why an operation of a server failed. The connection cannot be used again.
#[derive(Debug)]
pub(super) enum Failure {
    /// No answer in time.
    Timeout,
    /// The connection was closed or could not be opened.
    Network(io::Error),
    /// The server refused the operation; its text.
    Server(String),
    /// The answer is not one of the protocol.
    Malformed(String),
}

impl Failure {
    /// The reason in metrics, as in Thanos.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Network(_) => "network-error",
            Self::Server(_) => "server-error",
            Self::Malformed(_) => "other",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("no answer in time"),
            Self::Network(error) => write!(f, "{error}"),
            Self::Server(text) => write!(f, "the server refused: {text}"),
            Self::Malformed(text) => write!(f, "the answer does not follow the protocol: {text}"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::TimedOut { Self::Timeout } else { Self::Network(error) }
    }
}

/// The next line, without its end.
pub(super) async fn line<S: AsyncBufRead + Unpin>(stream: &mut S) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let read = (&mut *stream).take(MAX_LINE as u64 + 2).read_until(b'\n', &mut bytes).await?;
    if read == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    match bytes.strip_suffix(b"\r\n") {
        Some(text) => Ok(String::from_utf8_lossy(text).into_owned()),
        None => Err(Failure::Malformed("a line has no end".to_owned())),
    }
}

/// The next `length` bytes and the end of line after them; `None` if they are more than `most` and were ignored.
pub(super) async fn content<S: AsyncBufRead + Unpin>(
    stream: &mut S,
    length: u64,
    most: usize,
) -> Result<Option<Bytes>, Failure> {
    if length > MAX_IGNORED {
        return Err(Failure::Malformed(format!("a value has {length} bytes")));
    }
    let kept = if length <= most as u64 {
        let mut bytes = vec![0; length as usize];
        stream.read_exact(&mut bytes).await?;
        Some(Bytes::from(bytes))
    } else {
        let ignored = tokio::io::copy_buf(&mut (&mut *stream).take(length), &mut tokio::io::sink()).await?;
        if ignored < length {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        None
    };
    let mut end = [0; 2];
    stream.read_exact(&mut end).await?;
    if &end == b"\r\n" { Ok(kept) } else { Err(Failure::Malformed("a value has no end".to_owned())) }
}

/// A number in an answer.
pub(super) fn number(text: &str) -> Result<u64, Failure> {
    let short: String = text.chars().take(40).collect();
    text.parse().map_err(|_| Failure::Malformed(format!("{short:?} is not a length")))
}
