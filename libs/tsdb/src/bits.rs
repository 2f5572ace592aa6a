//! Bit streams of chunks: the most significant bit of each byte comes first.

/// Reads bits from a slice, up to 64 at a time, without a check for each.
///
/// Past the end it reads zeros, and [`BitReader::is_overrun`] returns true afterwards. So the check for a damaged chunk is
/// not in the inner loops: a decoder whose number of reads is bounded otherwise checks once, at the end.
#[derive(Clone)]
pub(crate) struct BitReader<'a> {
    data: &'a [u8],
    /// The next bit to read, counted from the first bit of `data`.
    at: usize,
}

impl<'a> BitReader<'a> {
    /// A reader that starts at byte `offset` of `data`.
    pub(crate) fn new(data: &'a [u8], offset: usize) -> Self {
        BitReader { data, at: offset * 8 }
    }

    /// The least number of bits that [`BitReader::peek`] returns.
    pub(crate) const PEEKED: u32 = 57;

    /// The next bits, left-aligned: at least [`BitReader::PEEKED`] of them are from the stream, the rest are zeros.
    #[inline(always)]
    pub(crate) fn peek(&self) -> u64 {
        let byte = self.at >> 3;
        let word = match self.data.get(byte..).and_then(<[u8]>::first_chunk::<8>) {
            Some(bytes) => u64::from_be_bytes(*bytes),
            None => self.tail(byte),
        };
        word << (self.at & 7)
    }

    /// The next 64 bits.
    #[inline(always)]
    pub(crate) fn peek64(&self) -> u64 {
        let byte = self.at >> 3;
        let (word, next) = match self.data.get(byte..).and_then(<[u8]>::first_chunk::<9>) {
            Some(&[a, b, c, d, e, f, g, h, next]) => (u64::from_be_bytes([a, b, c, d, e, f, g, h]), next),
            None => (self.tail(byte), self.data.get(byte + 8).copied().unwrap_or(0)),
        };
        (word << (self.at & 7)) | (u64::from(next) >> (8 - (self.at & 7)))
    }

    /// Eight bytes from `byte` on, zeros past the end.
    #[cold]
    fn tail(&self, byte: usize) -> u64 {
        let mut word = [0; 8];
        let rest = self.data.get(byte..).unwrap_or(&[]);
        let present = rest.len().min(8);
        word[..present].copy_from_slice(&rest[..present]);
        u64::from_be_bytes(word)
    }

    /// Skips `bits` bits.
    #[inline(always)]
    pub(crate) fn skip(&mut self, bits: u32) {
        self.at += bits as usize;
    }

    /// Reads `bits` bits, 1 to 64, as an unsigned number.
    #[inline(always)]
    pub(crate) fn read(&mut self, bits: u32) -> u64 {
        debug_assert!((1..=64).contains(&bits), "cannot read {bits} bits at once");
        let value = self.peek64() >> (64 - bits);
        self.skip(bits);
        value
    }

    /// Reads a LEB128 number of whole bytes at the current bit position; `None` when it has more than 64 bits.
    pub(crate) fn read_uvarint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.read(8);
            if shift == 63 && byte > 1 {
                return None;
            }
            value |= (byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// Reads a zigzag LEB128 number; `None` when it has more than 64 bits.
    pub(crate) fn read_varint(&mut self) -> Option<i64> {
        let zigzag = self.read_uvarint()?;
        Some((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    /// The number of bits from here to the position of `later`, a reader of the same data.
    fn distance(&self, later: &BitReader<'_>) -> usize {
        later.at.saturating_sub(self.at)
    }

    /// Whether more bits were read than the data has.
    pub(crate) fn is_overrun(&self) -> bool {
        self.at > self.data.len() * 8
    }

    /// The number of bits left; 0 when overrun.
    pub(crate) fn left(&self) -> usize {
        (self.data.len() * 8).saturating_sub(self.at)
    }

    /// The byte that contains the next bit; at most the length of the data.
    pub(crate) fn offset(&self) -> usize {
        (self.at >> 3).min(self.data.len())
    }
}

/// Converts a number of `bits` bits, 1 to 64, to a signed number as chunks store it: not two's complement, but a range from
/// `-(2^(bits-1) - 1)` to `2^(bits-1)`.
#[inline(always)]
pub(crate) fn signed(raw: u64, bits: u32) -> i64 {
    let half = 1u64 << (bits - 1);
    // For 64 bits the subtrahend wraps to zero, which is correct.
    let wrap = if raw > half { half.wrapping_mul(2) } else { 0 };
    raw.wrapping_sub(wrap) as i64
}

/// Whether `value` is in the range of [`signed`] with `bits` bits, fewer than 64.
pub(crate) fn fits_signed(value: i64, bits: u32) -> bool {
    let half = 1i64 << (bits - 1);
    -(half - 1) <= value && value <= half
}

/// Appends bits to a byte vector; the last byte is padded with zeros.
#[derive(Clone, Debug)]
pub(crate) struct BitWriter {
    bytes: Vec<u8>,
    /// Bits that do not fill a word yet: left-aligned, then zeros.
    pending: u64,
    /// The number of pending bits, 0 to 63.
    used: u32,
}

impl BitWriter {
    /// A writer that continues `header` at a byte boundary.
    pub(crate) fn after(header: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(header);
        Self { bytes, pending: 0, used: 0 }
    }

    /// Appends the low `bits` bits of `value`, at most 64.
    #[inline(always)]
    pub(crate) fn write(&mut self, value: u64, bits: u32) {
        if bits == 0 {
            return;
        }
        let aligned = value << (64 - bits);
        self.pending |= aligned >> self.used;
        self.used += bits;
        if self.used >= 64 {
            self.spill(aligned, bits);
        }
    }

    /// Stores the full word of pending bits. The bits that did not fit are the last of the `bits` bits in `aligned`.
    #[inline]
    fn spill(&mut self, aligned: u64, bits: u32) {
        self.bytes.extend_from_slice(&self.pending.to_be_bytes());
        self.used -= 64;
        // When no bits are left, the shift would be by 64 bits.
        self.pending = if self.used == 0 { 0 } else { aligned << (bits - self.used) };
    }

    /// Appends a LEB128 number.
    pub(crate) fn write_uvarint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.write(value & 0x7f | 0x80, 8);
            value >>= 7;
        }
        self.write(value, 8);
    }

    /// Appends a zigzag LEB128 number.
    pub(crate) fn write_varint(&mut self, value: i64) {
        self.write_uvarint(((value << 1) ^ (value >> 63)) as u64);
    }

    /// Appends the bits from the position of `from` to that of `to`. `from` moves there.
    pub(crate) fn copy(&mut self, from: &mut BitReader<'_>, to: &BitReader<'_>) {
        let mut left = from.distance(to);
        while left > 0 {
            let bits = left.min(64) as u32;
            self.write(from.read(bits), bits);
            left -= bits as usize;
        }
    }

    /// Bytes so far, with the last byte, which may not be full.
    pub(crate) fn size_bytes(&self) -> usize {
        self.bytes.len() + self.used.div_ceil(8) as usize
    }

    /// The bytes, with `header` written over the first ones.
    pub(crate) fn finish(mut self, header: &[u8]) -> Vec<u8> {
        let rest = self.used.div_ceil(8) as usize;
        self.bytes.extend_from_slice(&self.pending.to_be_bytes()[..rest]);
        for (byte, new) in self.bytes.iter_mut().zip(header) {
            *byte = *new;
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_back_as_they_were_written() {
        let fields: Vec<(u64, u32)> = (1..=64).map(|bits| ((u64::MAX / 3) >> (64 - bits), bits)).collect();
        let mut writer = BitWriter::after(&[0xaa]);
        for &(value, bits) in &fields {
            writer.write(value, bits);
        }
        let bytes = writer.finish(&[0xbb]);
        assert_eq!(bytes[0], 0xbb);
        let mut reader = BitReader::new(&bytes, 1);
        for &(value, bits) in &fields {
            assert_eq!(reader.peek() >> 7 << 7 >> (64 - bits.min(57)), value >> (bits - bits.min(57)));
            assert_eq!(reader.read(bits), value, "{bits} bits");
        }
        assert!(!reader.is_overrun());
        assert!(reader.left() < 8);
    }

    #[test]
    fn past_the_end_there_are_zeros_and_an_overrun() {
        let mut reader = BitReader::new(&[0xff], 0);
        assert_eq!(reader.read(16), 0xff00);
        assert!(reader.is_overrun());
        assert_eq!((reader.read(64), reader.left(), reader.offset()), (0, 0, 1));
        assert_eq!(BitReader::new(&[], 3).peek(), 0);
    }

    #[test]
    fn variable_length_integers_come_back_and_longer_ones_are_rejected() {
        for value in [0, 1, -1, 63, -64, 64, i64::MAX, i64::MIN] {
            let mut writer = BitWriter::after(&[]);
            writer.write(1, 1);
            writer.write_varint(value);
            let bytes = writer.finish(&[]);
            let mut reader = BitReader::new(&bytes, 0);
            reader.skip(1);
            assert_eq!(reader.read_varint(), Some(value));
        }
        assert_eq!(BitReader::new(&[0xff; 11], 0).read_uvarint(), None);
        assert_eq!(
            BitReader::new(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2], 0).read_uvarint(),
            None
        );
    }

    #[test]
    fn the_greatest_signed_number_is_one_more_than_the_least_without_its_sign() {
        assert_eq!(signed(0x2000, 14), 8192);
        assert_eq!(signed(0x2001, 14), -8191);
        assert_eq!(signed(u64::MAX, 64), -1);
        assert_eq!(signed(1 << 63, 64), i64::MIN);
        assert!(fits_signed(8192, 14) && fits_signed(-8191, 14) && !fits_signed(-8192, 14));
    }
}
