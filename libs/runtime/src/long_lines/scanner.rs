//! Finds the request lines in the bytes of an HTTP/1 connection, and shortens the long ones.

use bytes::{Bytes, BytesMut};

use crate::long_lines::{LineNote, LineNotes, MAX_LINE_BYTES};

/// Longest target that hyper reads, with a margin.
const MAX_TARGET_BYTES: usize = 60 << 10;

/// Bytes of a request with a line that is too long that are read before it is answered. A client that is still sending may
/// not read the answer.
const MAX_DISCARDED_BYTES: usize = 16 << 20;

/// Longest header or chunk size that is read. hyper rejects longer ones.
const MAX_HEADER_BYTES: usize = 512 << 10;

/// The request that replaces one whose line is too long.
const REPLACEMENT: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/// The first line of HTTP/2.
const HTTP2: &[u8] = b"PRI * HTTP/2.0";

/// Where the scanner is in a request.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// In the request line, or in the empty lines before it.
    RequestLine,
    Headers(Framing),
    /// In a body, with the number of its remaining bytes.
    Body(u64),
    ChunkSize,
    /// In a chunk, with the number of its remaining bytes, its line end included.
    Chunk(u64),
    Trailers,
    /// In a request whose line is too long, with the number of bytes read so far.
    Discarded(usize),
    /// After such a request. Further bytes are dropped.
    Ended,
    /// The bytes are not HTTP/1, or their framing is ambiguous. They are passed on as they are; hyper decides.
    Transparent,
}

/// The framing of a body, as far as its headers were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Framing {
    length: Option<u64>,
    chunked: bool,
}

/// Reads the bytes of a connection and passes them on. Only long request lines change.
///
/// It reads headers only to find the end of each request, and becomes transparent where it is not certain.
#[derive(Debug)]
pub(super) struct LineScanner {
    place: Place,
    /// The part of the current line that was read. Only that of a request line was not passed on yet.
    line: Vec<u8>,
    /// Whether a request line was passed on.
    has_begun: bool,
    notes: LineNotes,
}

impl LineScanner {
    pub(super) fn new(notes: LineNotes) -> Self {
        Self { place: Place::RequestLine, line: Vec::new(), has_begun: false, notes }
    }

    /// Whether bytes are passed on unchanged from now on.
    pub(super) fn is_transparent(&self) -> bool {
        self.place == Place::Transparent
    }

    /// Whether hyper waits for the rest of a line that it has not seen: the first one of the connection, or one that has begun.
    pub(super) fn is_incomplete(&self) -> bool {
        match self.place {
            Place::RequestLine => !self.has_begun || !self.line.is_empty(),
            Place::Discarded(_) => true,
            _ => false,
        }
    }

    /// Reads bytes and appends those that hyper must read to `out`.
    pub(super) fn offer(&mut self, mut bytes: &[u8], out: &mut BytesMut) {
        while !bytes.is_empty() {
            let used = match &mut self.place {
                Place::Transparent => {
                    out.extend_from_slice(bytes);
                    return;
                }
                Place::Ended => return,
                Place::Body(left) | Place::Chunk(left) => {
                    let used = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= used as u64;
                    out.extend_from_slice(&bytes[..used]);
                    self.end_of_part();
                    used
                }
                Place::RequestLine => self.request_line(bytes, out),
                Place::Discarded(_) => self.discard(bytes, out),
                Place::Headers(_) | Place::ChunkSize | Place::Trailers => {
                    let used = self.add_to_line(bytes);
                    out.extend_from_slice(&bytes[..used]);
                    self.end_of_line();
                    used
                }
            };
            bytes = &bytes[used..];
        }
    }

    /// Adds bytes to the current line, at most to its end. Returns how many.
    fn add_to_line(&mut self, bytes: &[u8]) -> usize {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(bytes.len(), |at| at + 1);
        self.line.extend_from_slice(&bytes[..used]);
        used
    }

    fn request_line(&mut self, bytes: &[u8], out: &mut BytesMut) -> usize {
        let used = self.add_to_line(bytes);
        if self.line.len() > MAX_LINE_BYTES {
            self.place = Place::Discarded(self.line.len());
            // Whether the head ends in what follows depends on the last line end.
            self.line.drain(..self.line.len() - 1);
            return used;
        }
        if self.line.last() != Some(&b'\n') {
            return used;
        }
        let line = std::mem::take(&mut self.line);
        let text = line.trim_ascii_end();
        if text.is_empty() {
            // hyper skips empty lines before a request.
            out.extend_from_slice(&line);
            return used;
        }
        if text == HTTP2 {
            self.place = Place::Transparent;
            out.extend_from_slice(&line);
            return used;
        }
        self.place = Place::Headers(Framing::default());
        self.has_begun = true;
        match split_target(text) {
            Some((method, target, version)) if target.len() > MAX_TARGET_BYTES => {
                let at = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
                if at > MAX_TARGET_BYTES {
                    self.place = Place::Discarded(line.len());
                    self.line = vec![b'\n'];
                    return used;
                }
                for part in [method, b" ", &target[..at], b" ", version, b"\r\n"] {
                    out.extend_from_slice(part);
                }
                let query = target.get(at + 1..).unwrap_or_default();
                self.notes.add(LineNote::Query(Bytes::copy_from_slice(query)));
            }
            _ => {
                out.extend_from_slice(&line);
                self.notes.add(LineNote::Nothing);
            }
        }
        used
    }

    /// Drops the rest of a request with a line that is too long, then passes on its replacement.
    fn discard(&mut self, bytes: &[u8], out: &mut BytesMut) -> usize {
        let used = self.add_to_line(bytes);
        let Place::Discarded(seen) = &mut self.place else { return used };
        *seen += used;
        let seen = *seen;
        let is_whole_line = self.line.last() == Some(&b'\n');
        let is_empty_line = is_whole_line && matches!(self.line.as_slice(), b"\n\n" | b"\n\r\n");
        if is_empty_line || seen > MAX_DISCARDED_BYTES {
            out.extend_from_slice(REPLACEMENT);
            self.notes.add(LineNote::TooLong);
            self.place = Place::Ended;
            self.line = Vec::new();
        } else if is_whole_line {
            self.line = vec![b'\n'];
        } else if self.line.len() > 2 {
            // Not the start of an empty line. Its content does not matter.
            self.line.truncate(3);
        }
        used
    }

    /// Handles a header, a chunk size or a trailer that was passed on, if its line is complete.
    fn end_of_line(&mut self) {
        if self.line.len() > MAX_HEADER_BYTES {
            self.place = Place::Transparent;
        }
        if self.line.last() != Some(&b'\n') {
            return;
        }
        let line = std::mem::take(&mut self.line);
        let line = line.trim_ascii();
        self.place = match self.place {
            Place::Headers(framing) if line.is_empty() => framing.body(),
            Place::Headers(framing) => framing.with_header(line).map_or(Place::Transparent, Place::Headers),
            Place::Trailers if line.is_empty() => Place::RequestLine,
            Place::Trailers => Place::Trailers,
            Place::ChunkSize => match chunk_size(line) {
                Some(0) => Place::Trailers,
                // The chunk ends with a carriage return and a line feed.
                Some(size) => Place::Chunk(size + 2),
                None => Place::Transparent,
            },
            _ => Place::Transparent,
        };
    }

    /// Handles the end of a body or a chunk.
    fn end_of_part(&mut self) {
        match self.place {
            Place::Body(0) => self.place = Place::RequestLine,
            Place::Chunk(0) => self.place = Place::ChunkSize,
            _ => {}
        }
    }
}

/// Method, target and version of a request line.
fn split_target(line: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let first = line.iter().position(|byte| *byte == b' ')?;
    let last = line.iter().rposition(|byte| *byte == b' ')?;
    (first < last).then(|| (&line[..first], &line[first + 1..last], &line[last + 1..]))
}

/// The size at the start of a chunk; `None` if it is invalid or too large to be real.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii();
    let digits = std::str::from_utf8(digits).ok().filter(|digits| (1..=15).contains(&digits.len()))?;
    if digits.starts_with('+') { None } else { u64::from_str_radix(digits, 16).ok() }
}

impl Framing {
    /// The framing after one more header; `None` if it is ambiguous.
    fn with_header(mut self, line: &[u8]) -> Option<Self> {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let digits = std::str::from_utf8(value).ok()?;
            let length = if digits.starts_with('+') { None } else { digits.parse().ok() }?;
            if self.length.is_some_and(|known| known != length) {
                return None;
            }
            self.length = Some(length);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return None;
            }
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            return None;
        }
        Some(self)
    }

    /// Where the scanner is after the headers.
    fn body(self) -> Place {
        match (self.chunked, self.length) {
            (true, None) => Place::ChunkSize,
            (true, Some(_)) => Place::Transparent,
            (false, Some(0) | None) => Place::RequestLine,
            (false, Some(length)) => Place::Body(length),
        }
    }
}

#[cfg(test)]
mod tests;
