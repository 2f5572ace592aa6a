//! Splits the bytes of a stream into pieces that end where HTTP/3's frames end.
//!
//! h3 reads a piece each time before it looks at its buffer. With pieces that cross frames, it reads more than it
//! consumes, and with a slow reader its buffer grows without limit. With pieces that end with the head or the payload of
//! a frame, it consumes what it reads. Two other weaknesses of h3 are avoided here: it treats an empty DATA frame as the
//! end of the body, and it buffers a HEADERS frame of any length.

use bytes::{Buf, Bytes, BytesMut};

/// DATA, RFC 9114 section 7.2.1.
const DATA: u64 = 0;
/// The longest head of a frame: two variable-length integers of 8 bytes each.
const MAX_HEAD: usize = 16;

/// A frame other than DATA is longer than the limit for frames that are buffered whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes that is not DATA is too long")]
pub(super) struct FrameTooLong(u64);

/// Tracks the position of a stream in its sequence of frames.
#[derive(Debug)]
pub(super) struct FrameSplitter {
    /// Received bytes that were not returned yet.
    pending: Bytes,
    /// The part of a frame's head that came before `pending`.
    head: BytesMut,
    /// Bytes that are left of the current frame's payload.
    payload: u64,
    /// The longest frame other than DATA.
    max_len: u64,
}

impl FrameSplitter {
    pub(super) fn new(max_len: u64) -> Self {
        Self { pending: Bytes::new(), head: BytesMut::new(), payload: 0, max_len }
    }

    /// Adds received bytes. Call it only after [`next`](Self::next) has returned `None`.
    pub(super) fn push(&mut self, bytes: Bytes) {
        debug_assert!(self.pending.is_empty());
        self.pending = bytes;
    }

    /// The next piece, never empty; `None` when more bytes must be received first.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, FrameTooLong> {
        while !self.pending.is_empty() {
            if self.payload > 0 {
                let len = self.pending.len().min(usize::try_from(self.payload).unwrap_or(usize::MAX));
                self.payload -= len as u64;
                return Ok(Some(self.pending.split_to(len)));
            }
            let Some(head) = self.next_head() else { return Ok(None) };
            let (kind, rest) = varint(&head).expect("the head is complete");
            let (len, _) = varint(&head[rest..]).expect("the head is complete");
            if kind == DATA && len == 0 {
                continue;
            }
            if kind != DATA && len > self.max_len {
                return Err(FrameTooLong(len));
            }
            self.payload = len;
            return Ok(Some(head));
        }
        Ok(None)
    }

    /// The incomplete head that is left when the stream ends inside a head.
    pub(super) fn rest(&mut self) -> Option<Bytes> {
        (!self.head.is_empty()).then(|| self.head.split().freeze())
    }

    /// A complete head, or `None` when `pending` ends before the head does.
    fn next_head(&mut self) -> Option<Bytes> {
        if self.head.is_empty()
            && let Some(len) = head_len(&self.pending)
        {
            return Some(self.pending.split_to(len));
        }
        while self.pending.has_remaining() {
            self.head.extend_from_slice(&[self.pending.get_u8()]);
            debug_assert!(self.head.len() <= MAX_HEAD);
            if head_len(&self.head).is_some() {
                return Some(self.head.split().freeze());
            }
        }
        None
    }
}

/// The length of the head at the start of `bytes`, if it is complete.
fn head_len(bytes: &[u8]) -> Option<usize> {
    let (_, kind_len) = varint(bytes)?;
    let (_, len_len) = varint(&bytes[kind_len..])?;
    Some(kind_len + len_len)
}

/// A variable-length integer (RFC 9000 section 16) and its length in bytes.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let len = 1 << (first >> 6);
    let rest = bytes.get(1..len)?;
    Some((rest.iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte)), len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The pieces of a stream that arrives in parts of `part` bytes.
    fn pieces(stream: &[u8], part: usize) -> Result<Vec<Vec<u8>>, FrameTooLong> {
        let mut frames = FrameSplitter::new(100);
        let mut seen = Vec::new();
        for bytes in stream.chunks(part.max(1)) {
            frames.push(Bytes::copy_from_slice(bytes));
            while let Some(piece) = frames.next()? {
                seen.push(piece.to_vec());
            }
        }
        seen.extend(frames.rest().map(|rest| rest.to_vec()));
        Ok(seen)
    }

    #[test]
    fn pieces_end_where_heads_and_payloads_end() {
        let stream = [&[1, 2, 10, 11][..], &[0, 0x40, 3, 7, 8, 9], &[0, 1, 5]].concat();
        assert_eq!(
            pieces(&stream, 100).unwrap(),
            [&[1, 2][..], &[10, 11], &[0, 0x40, 3], &[7, 8, 9], &[0, 1], &[5]]
        );
        assert_eq!(
            pieces(&stream, 1).unwrap(),
            [&[1, 2][..], &[10], &[11], &[0, 0x40, 3], &[7], &[8], &[9], &[0, 1], &[5]]
        );
    }

    #[test]
    fn empty_data_frames_are_dropped() {
        assert_eq!(pieces(&[0, 0, 0, 0x40, 0, 0, 1, 5], 3).unwrap(), [&[0, 1][..], &[5]]);
    }

    #[test]
    fn a_long_headers_frame_is_rejected_before_it_is_buffered() {
        assert_eq!(pieces(&[1, 0x40, 101], 100), Err(FrameTooLong(101)));
        assert!(pieces(&[0, 0x40, 101, 1], 100).is_ok());
    }

    /// `ISTHMUS_MUTATIONS` sets how many, `ISTHMUS_SEED` the seed.
    #[test]
    fn the_parts_of_a_mutated_stream_do_not_matter_and_none_panics() {
        use rand::{Rng, SeedableRng, rngs::StdRng};
        let number = |name: &str, default: u64| {
            std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
        };
        let (seed, rounds) = (number("ISTHMUS_SEED", 18), number("ISTHMUS_MUTATIONS", 3000));
        println!("seed {seed}, {rounds} mutations");
        let mut random = StdRng::seed_from_u64(seed);
        let good = [
            &[1, 2, 10, 11][..],
            &[0, 0x40, 3, 7, 8, 9],
            &[0, 0],
            &[0x21, 1, 5],
            &[1, 0x40, 5, 1, 2, 3, 4, 5],
            &[0, 0x80, 0, 0, 4, 1, 2, 3, 4],
        ]
        .concat();
        for _ in 0..rounds {
            let mut stream = good.clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..stream.len());
                match random.random_range(0..4) {
                    0 => stream[at] = random.random(),
                    1 => stream.insert(at, random.random()),
                    2 if stream.len() > 1 => drop(stream.remove(at)),
                    _ => stream.truncate(at.max(1)),
                }
            }
            let whole = pieces(&stream, stream.len()).map(|pieces| pieces.concat());
            let part = random.random_range(1..10);
            let parts = pieces(&stream, part).map(|pieces| pieces.concat());
            assert_eq!(whole, parts, "{stream:02x?} in parts of {part}");
        }
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_wherever_a_stream_is_split(
            frames in proptest::collection::vec((0u8..3, proptest::collection::vec(any::<u8>(), 1..60)), 0..8),
            part in 1usize..40,
        ) {
            let stream: Vec<u8> = frames
                .iter()
                .flat_map(|(kind, payload)| [&[*kind, payload.len() as u8][..], payload].concat())
                .collect();
            prop_assert_eq!(pieces(&stream, part).unwrap().concat(), stream);
        }

        #[test]
        fn garbage_does_not_panic(stream in proptest::collection::vec(any::<u8>(), 0..200), part in 1usize..40) {
            let _ = pieces(&stream, part);
        }
    }
}
