//! What an index keeps in memory.

/// What an [`Index`](crate::Index) keeps in memory, and so how often it reads its file again.
///
/// Two parts of an index are worth keeping in memory: the symbols, where every label of a series is looked up, and the postings
/// offset table, which has the place of the postings list of each label. Postings lists, series and chunks are always read
/// when they are needed.
///
/// | | [`Default`] | [`SAMPLED`](Self::SAMPLED) | [`WHOLE`](Self::WHOLE) |
/// |---|---|---|---|
/// | memory, 1,000,000 series of 10,000 pods | 1.1 MiB | 0.1 MiB | 1.1 MiB |
/// | memory, 1,000,000 series, each of another pod | 46 MiB | 0.8 MiB | 107 MiB |
/// | memory is about | at most 44 MiB, and 1/32 of the label values | 96 KiB, and 1/128 of the label values | the size of both parts |
/// | reads to look up a symbol | none | none if its page is cached, otherwise one of 16 KiB | none |
/// | reads for a postings list | 1 | 2, or 3 where pages meet | 1 |
/// | reads for all values of a label | none | one per page, then up to 1 MiB each | none |
///
/// The reads of `Default` are those of a part that fits its limit; a larger part is read as with `SAMPLED`, with a larger cache.
///
/// In each mode, each label name costs about 80 bytes, its text and its first value.
///
/// Opening costs two small reads, and one for each of the two parts. While it is opened, a part of up to 32 MiB is in memory
/// whole. A larger one is read twice, 1 MiB at a time, unless it is to be kept whole.
///
/// Answers are the same in all modes. Bytes that are read again are checked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexMemory {
    /// Most bytes of the symbols section to keep. A section that fits is kept whole. Of a larger one, pages of 16 KiB are
    /// cached, up to this size. With 0, nothing is cached: each lookup of a symbol is a read.
    pub symbols_bytes: u64,
    /// Most bytes of the postings offset table to keep, in the same way.
    pub postings_table_bytes: u64,
    /// The offset of every Nth symbol is kept, 4 bytes each. To look up a symbol, those between are skipped. N is rounded up
    /// to a power of two, and doubled until at most 1,048,576 offsets are left. 1 is fastest.
    pub symbol_stride: u32,
    /// Of each label name, every Nth value is kept with its place in the table: its text and 8 bytes. A larger N saves
    /// memory, but to look up a label, more of the table is read and compared. At least 1. An index of version 1 may be
    /// unsorted, so all of its values are kept.
    pub value_stride: u32,
}

impl IndexMemory {
    /// Both parts whole, whatever their size: for a block that is read from beginning to end.
    pub const WHOLE: Self =
        Self { symbols_bytes: u64::MAX, postings_table_bytes: u64::MAX, symbol_stride: 1, value_stride: 32 };

    /// As little as lookups need: for a process that has hundreds of blocks open. Reads of the file should be cheap, such as
    /// those of a copy of both parts on a local disk.
    pub const SAMPLED: Self = Self {
        symbols_bytes: 64 << 10,
        postings_table_bytes: 32 << 10,
        symbol_stride: 32,
        value_stride: 128,
    };
}

/// Both parts of nearly every block, and a bounded cache for larger ones: for tools and for the blocks of one Prometheus.
impl Default for IndexMemory {
    fn default() -> Self {
        Self { symbols_bytes: 24 << 20, postings_table_bytes: 16 << 20, symbol_stride: 1, value_stride: 32 }
    }
}
