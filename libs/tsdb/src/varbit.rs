//! The variable-width integers of histogram chunks: the number of ones in the prefix gives the number of bits that follow.
//!
//! ```text
//! 0           0 bits        11110       12 bits
//! 10          3 bits        111110      18 bits
//! 110         6 bits        1111110     25 bits
//! 1110        9 bits        11111110    56 bits
//!                           11111111    64 bits
//! ```
//!
//! Signed ones use the asymmetric form of [`signed`]. Specified by `tsdb/chunkenc/varbit.go` of Prometheus.

use crate::bits::{BitReader, BitWriter, fits_signed, signed};

/// The number of bits after a prefix, by its number of ones.
const BITS: [u32; 9] = [0, 3, 6, 9, 12, 18, 25, 56, 64];

/// Reads the prefix; returns how many bits follow.
#[inline(always)]
fn read_prefix(reader: &mut BitReader<'_>) -> u32 {
    let ones = (!reader.peek()).leading_zeros().min(8);
    reader.skip((ones + 1).min(8));
    BITS[ones as usize]
}

/// Reads an unsigned number.
#[inline]
pub(crate) fn read_unsigned(reader: &mut BitReader<'_>) -> u64 {
    match read_prefix(reader) {
        0 => 0,
        bits => reader.read(bits),
    }
}

/// Reads a signed number.
#[inline]
pub(crate) fn read_signed(reader: &mut BitReader<'_>) -> i64 {
    match read_prefix(reader) {
        0 => 0,
        bits => signed(reader.read(bits), bits),
    }
}

/// Writes the prefix of the shortest form that `fits`, then the low bits of `value`.
fn write(writer: &mut BitWriter, value: u64, fits: impl Fn(u32) -> bool) {
    let ones = BITS.iter().position(|&bits| fits(bits)).unwrap_or(BITS.len() - 1) as u32;
    if ones == 8 {
        writer.write(0xff, 8);
    } else {
        writer.write((1 << (ones + 1)) - 2, ones + 1);
    }
    writer.write(value, BITS[ones as usize]);
}

/// Writes an unsigned number.
pub(crate) fn write_unsigned(writer: &mut BitWriter, value: u64) {
    write(writer, value, |bits| bits == 64 || value < 1 << bits);
}

/// Writes a signed number.
pub(crate) fn write_signed(writer: &mut BitWriter, value: i64) {
    write(writer, value as u64, |bits| match bits {
        0 => value == 0,
        64 => true,
        bits => fits_signed(value, bits),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_holds_its_bounds_and_no_more() {
        for (value, bits) in [
            (0, 1),
            (1, 5),
            (4, 5),
            (-3, 5),
            (-4, 9),
            (5, 9),
            (32, 9),
            (33, 13),
            (256, 13),
            (2048, 17),
            (131_072, 24),
            (-131_072, 32),
            (16_777_216, 32),
            (16_777_217, 64),
            (1 << 55, 64),
            (-(1 << 55), 72),
            (i64::MAX, 72),
            (i64::MIN, 72),
        ] {
            let mut writer = BitWriter::after(&[]);
            write_signed(&mut writer, value);
            let bytes = writer.finish(&[]);
            assert_eq!(bytes.len(), usize::div_ceil(bits, 8), "{value}");
            let mut reader = BitReader::new(&bytes, 0);
            assert_eq!(read_signed(&mut reader), value);
            assert_eq!(bytes.len() * 8 - reader.left(), bits, "{value}");
        }
        for (value, bits) in [
            (0, 1),
            (7, 5),
            (8, 9),
            (63, 9),
            (511, 13),
            (33_554_431, 32),
            ((1 << 56) - 1, 64),
            (u64::MAX, 72),
        ] {
            let mut writer = BitWriter::after(&[]);
            write_unsigned(&mut writer, value);
            let bytes = writer.finish(&[]);
            let mut reader = BitReader::new(&bytes, 0);
            assert_eq!(read_unsigned(&mut reader), value);
            assert_eq!(bytes.len() * 8 - reader.left(), bits, "{value}");
        }
    }
}
