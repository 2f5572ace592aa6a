//! Reads integers and texts from the front of a slice, and appends them to a vector, as the formats of Prometheus have them.

/// Reads a slice from its front. Each method returns `None` when bytes are missing or invalid.
#[derive(Clone)]
pub struct ByteCursor<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> ByteCursor<'a> {
    /// A cursor at the begin of `data`.
    pub fn new(data: &'a [u8]) -> Self {
        ByteCursor { data, at: 0 }
    }

    /// Bytes read so far.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Bytes that are left.
    pub fn left(&self) -> usize {
        self.data.len() - self.at
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.left() == 0
    }

    /// The next bytes.
    #[inline]
    pub fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.data.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    /// A big-endian number of 4 bytes.
    pub fn be32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// A big-endian number of 8 bytes.
    pub fn be64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_be_bytes)
    }

    /// A LEB128 number of at most 64 bits.
    #[inline]
    pub fn uvarint(&mut self) -> Option<u64> {
        let first = *self.data.get(self.at)?;
        if first < 0x80 {
            self.at += 1;
            return Some(u64::from(first));
        }
        let mut value = 0;
        for (index, &byte) in self.data[self.at..].iter().take(10).enumerate() {
            if index == 9 && byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.at += index + 1;
                return Some(value);
            }
        }
        None
    }

    /// A zigzag LEB128 number.
    pub fn varint(&mut self) -> Option<i64> {
        let zigzag = self.uvarint()?;
        Some((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    /// A LEB128 length and that many bytes.
    #[inline]
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let before = self.at;
        let length = self.uvarint()?;
        let taken = usize::try_from(length).ok().and_then(|length| self.take(length));
        if taken.is_none() {
            self.at = before;
        }
        taken
    }
}

/// Appends a LEB128 number.
pub fn put_uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a zigzag LEB128 number.
pub fn put_varint(out: &mut Vec<u8>, value: i64) {
    put_uvarint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends a LEB128 length and the bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_uvarint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_length_come_back() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                put_uvarint(&mut out, value);
                put_varint(&mut out, value as i64);
                put_bytes(&mut out, b"text");
                let mut cursor = ByteCursor::new(&out);
                assert_eq!(cursor.uvarint(), Some(value));
                assert_eq!(cursor.varint(), Some(value as i64));
                assert_eq!(cursor.bytes(), Some(b"text".as_slice()));
                assert!(cursor.is_empty());
            }
        }
    }

    #[test]
    fn missing_bytes_are_none_and_nothing_is_consumed() {
        let mut cursor = ByteCursor::new(&[0x80]);
        assert_eq!((cursor.uvarint(), cursor.be32(), cursor.be64()), (None, None, None));
        assert_eq!(cursor.left(), 1);
        assert_eq!(ByteCursor::new(&[0xff; 10]).uvarint(), None, "more than 64 bits");
        assert_eq!(ByteCursor::new(&[0xff; 11]).uvarint(), None, "more than ten bytes");
        let mut cursor = ByteCursor::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, b'a']);
        assert_eq!(cursor.bytes(), None, "a length of 2^64 - 1");
        assert_eq!(cursor.at(), 0);
        assert_eq!(cursor.take(usize::MAX), None);
    }
}
