//! Some values of a label name with their places in the postings offset table, in few bytes: one text for all of them.

/// Values in ascending order, each with the offset of its entry in the table.
#[derive(Default)]
pub(super) struct SampledValues {
    /// All values, one after the other.
    texts: String,
    /// Where each value ends in `texts`. A table has less than 4 GiB.
    ends: Vec<u32>,
    offsets: Vec<u32>,
}

impl SampledValues {
    /// Adds a value.
    pub(super) fn push(&mut self, value: &str, offset: u32) {
        self.texts.push_str(value);
        self.ends.push(self.texts.len() as u32);
        self.offsets.push(offset);
    }

    /// The value at `index`.
    fn value(&self, index: usize) -> &str {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.texts[start as usize..self.ends[index] as usize]
    }

    /// Offset of the entry of the value at `index`.
    pub(super) fn offset(&self, index: usize) -> u32 {
        self.offsets[index]
    }

    /// Values and offsets from `index` on.
    pub(super) fn iter_from(&self, index: usize) -> impl Iterator<Item = (&str, u32)> {
        (index..self.offsets.len()).map(|index| (self.value(index), self.offsets[index]))
    }

    /// The last value that is at most `value`; the first where all are greater.
    pub(super) fn last_up_to(&self, value: &str) -> usize {
        let (mut low, mut high) = (0, self.offsets.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.value(middle) <= value { low = middle + 1 } else { high = middle }
        }
        low.saturating_sub(1)
    }

    /// Adds the values of `other`.
    pub(super) fn append(&mut self, other: &Self) {
        other.iter_from(0).for_each(|(value, offset)| self.push(value, offset));
    }

    /// Puts values that came in any order in order.
    pub(super) fn sort(&mut self) {
        let mut sorted: Vec<(&str, u32)> = self.iter_from(0).collect();
        sorted.sort_unstable();
        let mut out = Self::default();
        sorted.into_iter().for_each(|(value, offset)| out.push(value, offset));
        *self = out;
    }

    pub(super) fn shrink_to_fit(&mut self) {
        self.texts.shrink_to_fit();
        self.ends.shrink_to_fit();
        self.offsets.shrink_to_fit();
    }

    /// Bytes of memory on the heap.
    pub(super) fn memory_bytes(&self) -> usize {
        self.texts.capacity() + (self.ends.capacity() + self.offsets.capacity()) * size_of::<u32>()
    }
}
