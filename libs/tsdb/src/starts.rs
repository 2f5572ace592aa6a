//! Start timestamps: when the counter of a sample began, in XOR2 and histogram chunks.
//!
//! ```text
//! header byte   bit 7: the first sample's start is known; bits 0-6: C, the first sample (0: none) with a start of its own
//! sample 0      varint t0 - st0, if known
//! 0 < i < C     nothing: the start of the first sample; if C is 0, for all samples
//! sample C      signed varbit d = t(C-1) - st(C)
//! sample i > C  signed varbit, the change of d = t(i-1) - st(i)
//! ```
//!
//! Each field comes after its sample. A start of 0 is unknown. C has seven bits, so sample 127 gets a start of its own even
//! if the start does not change or is unknown. Specified by `tsdb/chunkenc/st.go` of Prometheus 3.14; the document of the
//! format describes other differences than the code writes.

use crate::bits::{BitReader, BitWriter};
use crate::chunk::UNKNOWN_START;
use crate::error::ChunkProblem;
use crate::varbit;

/// Bit of the header: the start of the first sample is known.
const FIRST_KNOWN: u8 = 0x80;

/// The last sample that can be the first with a start of its own.
const MAX_FIRST_CHANGE: usize = 0x7f;

/// Reads the start timestamps of a chunk's samples, one after the other.
#[derive(Clone, Copy)]
pub(crate) struct StartReader {
    first_known: bool,
    /// First sample with a start of its own; `usize::MAX` where there is none.
    own_from: usize,
    is_first_own: bool,
    diff: i64,
    start: i64,
}

impl StartReader {
    /// A reader for the header byte of a chunk.
    pub(crate) fn new(header: u8) -> Self {
        let own_from = match usize::from(header & !FIRST_KNOWN) {
            0 => usize::MAX,
            from => from,
        };
        let first_known = header & FIRST_KNOWN != 0;
        Self { first_known, own_from, is_first_own: true, diff: 0, start: UNKNOWN_START }
    }

    /// Whether any start is known.
    pub(crate) fn has_any(&self) -> bool {
        self.first_known || self.own_from != usize::MAX
    }

    /// Reads the start of the first sample, whose time is `t`.
    pub(crate) fn first(&mut self, reader: &mut BitReader<'_>, t: i64) -> Result<i64, ChunkProblem> {
        if self.first_known {
            self.start = t.wrapping_sub(reader.read_varint().ok_or(ChunkProblem::Timestamp)?);
        }
        Ok(self.start)
    }

    /// Reads the start of a later sample; `before` is the time of the sample before it.
    #[inline]
    pub(crate) fn next(&mut self, reader: &mut BitReader<'_>, index: usize, before: i64) -> i64 {
        if index >= self.own_from {
            let change = varbit::read_signed(reader);
            self.diff = if self.is_first_own { change } else { self.diff.wrapping_add(change) };
            self.is_first_own = false;
            self.start = before.wrapping_sub(self.diff);
        }
        self.start
    }
}

/// Writes the start timestamps of a chunk's samples, one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StartWriter {
    header: u8,
    diff: i64,
    start: i64,
}

impl StartWriter {
    /// The header byte for what was written so far.
    pub(crate) fn header(&self) -> u8 {
        self.header
    }

    /// Writes the start of the sample at `index`, whose time is `t`; `before` is the time of the sample before it.
    pub(crate) fn write(&mut self, writer: &mut BitWriter, index: usize, t: i64, before: i64, start: i64) {
        let diff = before.wrapping_sub(start);
        if index == 0 {
            if start != UNKNOWN_START {
                writer.write_varint(t.wrapping_sub(start));
                self.header = FIRST_KNOWN;
            }
        } else if self.header & !FIRST_KNOWN != 0 {
            varbit::write_signed(writer, diff.wrapping_sub(self.diff));
            self.diff = diff;
        } else if start != self.start || index == MAX_FIRST_CHANGE {
            varbit::write_signed(writer, diff);
            self.diff = diff;
            self.header |= index as u8;
        }
        self.start = start;
    }
}
