//! Decodes the frames of a streamed remote read, without I/O.
//!
//! ```text
//! frame:  uvarint length | CRC-32C of data, 4 bytes big endian | data, `length` bytes
//! stream: frame*  end of file
//! ```
//!
//! The stream may end only between two frames. A server that fails during the stream appends its error
//! message as plain text. The decoder then sees an invalid length or checksum; its errors quote that text.
//! Format: `storage/remote/chunked.go` of Prometheus.

use bytes::{Buf, Bytes, BytesMut};

/// Maximum size of a frame in bytes. Prometheus sends frames of about 1 MiB.
pub const MAX_FRAME_BYTES: usize = 50_000_000;

/// Bytes of the checksum between length and data.
const CHECKSUM_BYTES: usize = 4;

/// Maximum length of the quoted server message, in bytes.
const QUOTE_BYTES: usize = 256;

/// Why a stream cannot be decoded further. Each variant means that the answer is incomplete.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadFrameError {
    /// A length is above [`MAX_FRAME_BYTES`].
    #[error("remote read stream announces a frame of more than {MAX_FRAME_BYTES} bytes{}", quoted(.0))]
    TooLarge(String),
    /// The checksum of the data is wrong.
    #[error("remote read stream has a frame with a wrong checksum{}", quoted(.0))]
    Checksum(String),
    /// The stream ends inside a frame.
    #[error("remote read stream ends in the middle of a frame{}", quoted(.0))]
    Truncated(String),
}

fn quoted(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("; the server said {text:?}") }
}

/// Accepts bytes as they arrive and returns complete frames.
///
/// It buffers at most one frame and the bytes offered after it. After an error it returns no more frames.
///
/// ```
/// let mut decoder = promapi::ReadFrameDecoder::new();
/// decoder.offer(bytes::Bytes::from_static(&[1, 0x64, 0xd5, 0xe0, 0x0a]));
/// assert!(decoder.next_frame().is_ok_and(|frame| frame.is_none()));
/// ```
#[derive(Debug, Default)]
pub struct ReadFrameDecoder {
    buffer: BytesMut,
    broken: Option<ReadFrameError>,
}

impl ReadFrameDecoder {
    /// Creates a decoder for the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next bytes of the stream.
    pub fn offer(&mut self, bytes: Bytes) {
        if self.buffer.is_empty() {
            // If the buffer is not shared, as for those of transports, nothing is copied.
            self.buffer = BytesMut::from(bytes);
        } else {
            self.buffer.extend_from_slice(&bytes);
        }
    }

    /// The data of the next frame, or `None` if more bytes are needed.
    ///
    /// # Errors
    /// The stream is invalid at this point. Each further call returns the same error.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, ReadFrameError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let Some((length, head)) = self.length()? else { return Ok(None) };
        let whole = head + CHECKSUM_BYTES + length;
        if self.buffer.len() < whole {
            self.buffer.reserve(whole - self.buffer.len());
            return Ok(None);
        }
        let data = &self.buffer[head + CHECKSUM_BYTES..whole];
        let announced = (&self.buffer[head..]).get_u32();
        if crc32c::crc32c(data) != announced {
            return Err(self.broken(ReadFrameError::Checksum));
        }
        let mut frame = self.buffer.split_to(whole);
        frame.advance(head + CHECKSUM_BYTES);
        Ok(Some(frame.freeze()))
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// The last frame is incomplete, or an earlier frame was invalid.
    pub fn finish(mut self) -> Result<(), ReadFrameError> {
        match self.next_frame()? {
            None if self.buffer.is_empty() => Ok(()),
            _ => Err(self.broken(ReadFrameError::Truncated)),
        }
    }

    /// The length of the next frame, and the number of bytes of the length itself; `None` if more bytes are
    /// needed.
    fn length(&mut self) -> Result<Option<(usize, usize)>, ReadFrameError> {
        let mut length = 0usize;
        for (at, &byte) in self.buffer.iter().enumerate() {
            // Four groups of seven bits are enough for each accepted length. Further groups must be zero.
            let bits = usize::from(byte & 0x7f);
            if at >= 4 && bits != 0 || at >= 10 {
                return Err(self.broken(ReadFrameError::TooLarge));
            }
            length |= bits << (7 * at.min(4));
            if length > MAX_FRAME_BYTES {
                return Err(self.broken(ReadFrameError::TooLarge));
            }
            if byte & 0x80 == 0 {
                return Ok(Some((length, at + 1)));
            }
        }
        Ok(None)
    }

    fn broken(&mut self, kind: fn(String) -> ReadFrameError) -> ReadFrameError {
        // Only readable text, as a server message is, is quoted; the bytes of a damaged frame are not.
        let rest = &self.buffer[..self.buffer.len().min(QUOTE_BYTES)];
        let words = String::from_utf8_lossy(rest);
        let readable = words.chars().all(|c| !c.is_control() || c.is_whitespace());
        let error = kind(if readable { words.trim().to_owned() } else { String::new() });
        self.buffer.clear();
        self.broken = Some(error.clone());
        error
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    fn frame(data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        prost::encoding::encode_varint(data.len() as u64, &mut out);
        out.extend_from_slice(&crc32c::crc32c(data).to_be_bytes());
        out.extend_from_slice(data);
        out
    }

    /// Decodes a stream in pieces of `piece` bytes; returns the frames, and the result of the end or the
    /// first error.
    fn decode(stream: &[u8], piece: usize) -> (Vec<Bytes>, Result<(), ReadFrameError>) {
        let mut decoder = ReadFrameDecoder::new();
        let mut frames = Vec::new();
        for part in stream.chunks(piece) {
            decoder.offer(Bytes::copy_from_slice(part));
            loop {
                match decoder.next_frame() {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, Err(error)),
                }
            }
        }
        (frames, decoder.finish())
    }

    #[test]
    fn frames_are_decoded_from_pieces_of_any_size() {
        let payloads = [vec![], vec![7; 1], vec![1; 127], vec![2; 128], vec![3; 70_000]];
        let stream: Vec<u8> = payloads.iter().flat_map(|data| frame(data)).collect();
        for piece in [1, 2, 3, 7, 1000, stream.len()] {
            let (frames, end) = decode(&stream, piece);
            assert_eq!(frames, payloads, "pieces of {piece}");
            assert_eq!(end, Ok(()));
        }
    }

    #[test]
    fn stream_that_ends_inside_a_frame_is_an_error() {
        let stream = frame(&[5; 200]);
        for end in 1..stream.len() {
            assert!(matches!(decode(&stream[..end], 1000).1, Err(ReadFrameError::Truncated(_))), "{end}");
        }
        assert_eq!(decode(&[], 1), (vec![], Ok(())));
    }

    #[test]
    fn server_message_after_the_frames_is_quoted() {
        let mut stream = frame(&[5; 20]);
        stream.extend_from_slice(b"expanding series: context deadline exceeded\n");
        let (frames, end) = decode(&stream, 1000);
        assert_eq!(frames.len(), 1);
        let message = end.unwrap_err().to_string();
        assert!(
            message.contains("the server said \"expanding series: context deadline exceeded\""),
            "{message}"
        );
    }

    #[test]
    fn lengths_above_the_limit_are_rejected_before_buffering() {
        for length in [MAX_FRAME_BYTES as u64 + 1, u64::from(u32::MAX), u64::MAX] {
            let mut stream = Vec::new();
            prost::encoding::encode_varint(length, &mut stream);
            assert!(matches!(decode(&stream, 1000).1, Err(ReadFrameError::TooLarge(_))), "{length}");
        }
        assert!(matches!(decode(&[0x80; 20], 1000).1, Err(ReadFrameError::TooLarge(_))));
    }

    #[test]
    fn damaged_streams_never_panic_or_return_wrong_data() {
        let payloads: Vec<Vec<u8>> = (0..8u8).map(|i| vec![i; 40 * usize::from(i)]).collect();
        let stream: Vec<u8> = payloads.iter().flat_map(|data| frame(data)).collect();
        for seed in 0..20_000u64 {
            let mut random = rand::rngs::StdRng::seed_from_u64(seed);
            let mut damaged = stream.clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..damaged.len());
                match random.random_range(0..3) {
                    0 => damaged[at] ^= 1 << random.random_range(0..8),
                    1 => damaged.truncate(at.max(1)),
                    _ => damaged[at] = random.random(),
                }
            }
            let (frames, end) = decode(&damaged, random.random_range(1..100));
            let intact = frames.iter().zip(&payloads).take_while(|(frame, data)| frame == data).count();
            // A missing or extra empty frame is not detected: its checksum is zero, and a single zero byte
            // looks the same.
            let rest_is_empty = frames[intact..].iter().all(|frame| payloads.contains(&frame.to_vec()));
            assert!(rest_is_empty, "seed {seed}: {end:?}");
        }
    }
}
