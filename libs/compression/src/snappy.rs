//! Snappy in its framing format: a stream identifier, then chunks of at most 64 KiB, each with a checksum.
//!
//! The crate `snap` supports the format too, but allocates buffers of the largest size for each message, and many messages
//! are small.
//!
//! Format: <https://github.com/google/snappy/blob/1.2.1/framing_format.txt>.

use std::io;

use tonic::Status;

use crate::error::DecompressError;
use crate::plain::PlainMessage;

const STREAM_IDENTIFIER: &[u8] = b"\xff\x06\x00\x00sNaPpY";

/// Largest content of a chunk, before compression.
const CHUNK_BYTES: usize = 1 << 16;

/// Type and length before each chunk.
const HEADER_BYTES: usize = 4;

/// The checksum at the start of each chunk of data.
const CHECKSUM_BYTES: usize = 4;

const COMPRESSED: u8 = 0x00;
const UNCOMPRESSED: u8 = 0x01;
const IDENTIFIER: u8 = 0xff;
/// From here on, chunks that a reader does not know are skipped; below, they are errors.
const SKIPPABLE: u8 = 0x80;

/// Appends the message in the framing format to `out`.
pub(crate) fn compress(message: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let mut encoder = snap::raw::Encoder::new();
    out.extend_from_slice(STREAM_IDENTIFIER);
    for content in message.chunks(CHUNK_BYTES) {
        let start = out.len();
        out.resize(start + HEADER_BYTES + CHECKSUM_BYTES + snap::raw::max_compress_len(content.len()), 0);
        let data = start + HEADER_BYTES + CHECKSUM_BYTES;
        let written = encoder.compress(content, &mut out[data..])?;
        // The limit of the format's own encoders: a chunk that gains less than an eighth is not compressed.
        let (kind, length) = if written < content.len() - content.len() / 8 {
            (COMPRESSED, written)
        } else {
            out[data..data + content.len()].copy_from_slice(content);
            (UNCOMPRESSED, content.len())
        };
        out.truncate(data + length);
        let chunk = (length + CHECKSUM_BYTES) as u32;
        out[start] = kind;
        out[start + 1..data - CHECKSUM_BYTES].copy_from_slice(&chunk.to_le_bytes()[..3]);
        out[data - CHECKSUM_BYTES..data].copy_from_slice(&masked_checksum(content).to_le_bytes());
    }
    Ok(())
}

/// Appends the plain message to `out`.
pub(crate) fn decompress(
    mut rest: &[u8],
    out: &mut PlainMessage<impl Fn(usize) -> Result<(), Status>>,
) -> Result<(), DecompressError> {
    while let Some((header, after)) = rest.split_first_chunk::<HEADER_BYTES>() {
        let length = u32::from_le_bytes([header[1], header[2], header[3], 0]) as usize;
        let (chunk, after) = after.split_at_checked(length).ok_or_else(cut_short)?;
        rest = after;
        match header[0] {
            kind @ (COMPRESSED | UNCOMPRESSED) => {
                let (checksum, data) = chunk.split_first_chunk::<CHECKSUM_BYTES>().ok_or_else(cut_short)?;
                let size = match kind {
                    COMPRESSED => snap::raw::decompress_len(data).map_err(io::Error::from)?,
                    _ => data.len(),
                };
                if size > CHUNK_BYTES {
                    return Err(damaged("a chunk is larger than 64 KiB"));
                }
                let out = out.room(size)?;
                let start = out.len();
                if kind == COMPRESSED {
                    out.resize(start + size, 0);
                    let decoded = snap::raw::Decoder::new().decompress(data, &mut out[start..]);
                    decoded.map_err(io::Error::from)?;
                } else {
                    out.extend_from_slice(data);
                }
                if masked_checksum(&out[start..]) != u32::from_le_bytes(*checksum) {
                    return Err(damaged("the checksum of a chunk is wrong"));
                }
            }
            IDENTIFIER if chunk == &STREAM_IDENTIFIER[HEADER_BYTES..] => {}
            kind if kind >= SKIPPABLE && kind != IDENTIFIER => {}
            _ => return Err(damaged("a chunk has an unknown type")),
        }
    }
    if rest.is_empty() { Ok(()) } else { Err(cut_short()) }
}

fn cut_short() -> DecompressError {
    damaged("a chunk is cut short")
}

fn damaged(what: &str) -> DecompressError {
    io::Error::new(io::ErrorKind::InvalidData, what).into()
}

fn masked_checksum(content: &[u8]) -> u32 {
    crc32c::crc32c(content).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use proptest::prelude::*;

    use super::*;

    fn plain(framed: &[u8], limit: usize) -> Result<Vec<u8>, DecompressError> {
        let mut out = PlainMessage::new(limit, |_| Ok(()));
        decompress(framed, &mut out).map(|()| out.into_bytes().split_off(crate::messages::HEADER_BYTES))
    }

    proptest! {
        #[test]
        fn the_format_is_that_of_the_crate_snap(
            seed in any::<u64>(),
            repeated in prop::collection::vec(any::<u8>(), 0..40),
            times in 0_usize..9000,
        ) {
            let mut message = repeated.repeat(times);
            message.extend(seed.to_le_bytes());
            let mut ours = Vec::new();
            compress(&message, &mut ours).unwrap();
            let mut read = Vec::new();
            snap::read::FrameDecoder::new(&ours[..]).read_to_end(&mut read).unwrap();
            prop_assert!(read == message);
            let mut theirs = snap::write::FrameEncoder::new(Vec::new());
            theirs.write_all(&message).unwrap();
            let theirs = theirs.into_inner().unwrap();
            prop_assert!(plain(&theirs, message.len()).unwrap() == message);
            prop_assert!(matches!(plain(&theirs, message.len() - 1), Err(DecompressError::TooLarge)));
        }

        #[test]
        fn damage_is_an_error_or_changes_nothing(
            length in 0_usize..70_000,
            at in any::<prop::sample::Index>(),
            bit in 0_u8..8,
            cut in any::<prop::sample::Index>(),
        ) {
            let message: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let mut framed = Vec::new();
            compress(&message, &mut framed).unwrap();
            let mut changed = framed.clone();
            changed[at.index(framed.len())] ^= 1 << bit;
            if let Ok(read) = plain(&changed, 1 << 20) {
                // Such as a chunk of data that has become one to skip.
                prop_assert!(read.len() <= message.len());
            }
            let cut = cut.index(framed.len());
            if let Ok(read) = plain(&framed[..cut], 1 << 20) {
                prop_assert!(message.starts_with(&read));
            }
        }
    }

    /// Made by `snappy.NewBufferedWriter` of Go's klauspost/compress 1.18.6, which Thanos uses.
    #[test]
    fn messages_of_thanos_are_read() {
        let repeated = b"\xff\x06\x00\x00sNaPpY\x00\x0f\x00\x00\x00\xdd\x5f\xb8\x2f\x14hello \xa2\x06\x00";
        let expected = b"hello hello hello hello hello hello hello hello";
        assert_eq!(plain(repeated, 1 << 20).unwrap(), expected);
        let short = b"\xff\x06\x00\x00sNaPpY\x01\x09\x00\x00\x5e\xac\x79\x4fshort";
        assert_eq!(plain(short, 1 << 20).unwrap(), b"short");
        let mut ours = Vec::new();
        compress(b"short", &mut ours).unwrap();
        assert_eq!(ours, short);
    }
}
