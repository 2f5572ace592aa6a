//! What an index keeps in memory.

/// What an [`Index`](crate::Index) keeps in memory, and so how often it reads its file again.
///
/// Two parts of an index are worth keeping in memory: the symbols, where every label of a series is looked up, and the postings
/// offset table, which has the place of the postings list of each label. Postings lists, series and chunks are always read
/// when they are needed. A block with 1,000,000 series of a Kubernetes cluster has 3 to 12 MiB of symbols and 4 to 16 MiB of table.
///
/// | | [`Default`] | [`SAMPLED`](Self::SAMPLED) | [`WHOLE`](Self::WHOLE) |
/// |---|---|---|---|
/// | bytes for that block | 7 to 15 MiB | 0.1 to 0.4 MiB | as `Default` |
/// | greatest number of bytes | 24 + 4 + 16 MiB, and 1/16 of the label values | unlimited, but 1/100 of the file | the size of both parts |
/// | reads to look up a symbol | none | 1 of 16 KiB, or of a cached page | none |
/// | reads to look up a label | 1 (its list) | 2 | 1 |
/// | reads for all values of a label | none | 1 for each MiB of its table, after smaller ones | none |
///
/// Opening costs the same in all modes: two small reads, and one for each of the two parts (1 MiB at a time for what is
/// larger than 32 MiB, twice). While a part is opened it is in memory whole, up to 32 MiB.
///
/// Answers are the same in all modes. What is read again is checked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexMemory {
    /// Most bytes of the symbols to keep. Symbols that fit are kept whole; of larger ones, so many bytes of pages of 16 KiB are
    /// cached. 0 caches nothing: each symbol that is looked up is then a read.
    pub symbols_bytes: u64,
    /// The same for the postings offset table.
    pub postings_table_bytes: u64,
    /// The offset of every so many symbols is kept, 4 bytes each; the symbols before one are skipped over when it is looked
    /// up. Rounded up to a power of two, and doubled until at most 1,048,576 offsets are left. 1 is fastest.
    pub symbol_stride: u32,
    /// Of each label name, every so many values are kept with their place in the table: their text and 8 bytes each. A
    /// larger one saves memory, and makes looking up a label read and compare more of the table. At least 1; an index of
    /// version 1 may be unsorted, so all of its values are kept.
    pub value_stride: u32,
}

impl IndexMemory {
    /// Both parts whole, whatever their size: for a block that is read from end to end.
    pub const WHOLE: Self =
        Self { symbols_bytes: u64::MAX, postings_table_bytes: u64::MAX, symbol_stride: 1, value_stride: 32 };

    /// As little as lookups can do with: for a process that has hundreds of blocks open. The file
    /// should be one whose reads are cheap, such as a copy of both parts on a local disk.
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
