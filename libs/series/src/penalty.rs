//! Decodes replicas for deduplication by penalty, and no more of them than needed.
//!
//! While one replica is followed without a gap, the samples of the other one do not matter, and decoding is most of the
//! work. So one replica is decoded whole. Of the other one, only the chunk at the beginning is decoded (which replica comes
//! first?) and the chunks after the end of the first (does it continue?). When deduplication needs the rest, the rest is
//! decoded and deduplication starts again. The result is always that of decoding everything, provided that the samples of
//! chunks are within the ranges that the chunks claim.

use model::TimeRange;

use crate::dedup::{Replica, merge};
use crate::{AggrChunk, DecodeError, DecodeOptions, Samples, SelectedSeries};

/// A replica with fewer chunks is decoded whole.
const WORTHWHILE_CHUNKS: usize = 4;

impl SelectedSeries {
    /// Decodes all replicas and deduplicates them by penalty: the first two, then the result with the third, and so on.
    pub(crate) fn decode_by_penalty(&self, options: &DecodeOptions) -> Result<Samples, DecodeError> {
        let counter = options.counter;
        let (mut all, others) = match self.replicas.as_slice() {
            [] => return Ok(Samples::new()),
            [first, second, others @ ..] if self.is_second_followed(first, second, options)? => {
                let second = self.decode_whole(second, options)?;
                (
                    self.decode_sparingly(first, &second, options, |first| merge(first, &second, counter))?,
                    others,
                )
            }
            [first, others @ ..] => (self.decode_whole(first, options)?, others),
        };
        for lane in others {
            all = self.decode_sparingly(lane, &all, options, |replica| merge(&all, replica, counter))?;
        }
        Ok(all.samples)
    }

    fn decode_whole(&self, lane: &[AggrChunk], options: &DecodeOptions) -> Result<Replica, DecodeError> {
        let mut samples = Samples::new();
        let resets_applied = self.decode_lane(lane.iter(), options, &mut samples)?;
        Ok(Replica { samples, resets_applied, unread: None })
    }

    /// Deduplicates `lane` with a replica that is decoded whole, and decodes no more of `lane` than that needs.
    fn decode_sparingly(
        &self,
        lane: &[AggrChunk],
        known: &Replica,
        options: &DecodeOptions,
        merge: impl Fn(&Replica) -> Option<Replica>,
    ) -> Result<Replica, DecodeError> {
        if let Some(ends) = self.decode_ends(lane, known, options)?
            && let Some(merged) = merge(&ends)
        {
            return Ok(merged);
        }
        let whole = self.decode_whole(lane, options)?;
        Ok(merge(&whole).expect("deduplication fails only where samples were not decoded, and all were"))
    }

    /// Decodes the first chunk of a lane and those that end after `known`; none when these are all chunks.
    fn decode_ends(
        &self,
        lane: &[AggrChunk],
        known: &Replica,
        options: &DecodeOptions,
    ) -> Result<Option<Replica>, DecodeError> {
        let (Some(chunks), Some(end)) = (plain_chunks(lane, options), known.samples.last_time(0, 0)) else {
            return Ok(None);
        };
        // The chunk that contains the end shows the last value of the replica at that time.
        let tail = chunks.partition_point(|chunk| chunk.range().min.as_millis() <= end).saturating_sub(1);
        let Some([first_unread, .., last_unread]) = chunks.get(1..tail) else { return Ok(None) };
        let unread = TimeRange::new(first_unread.range().min, last_unread.range().max);
        let mut samples = Samples::new();
        let ends = chunks[..1].iter().chain(&chunks[tail..]).copied();
        let resets_applied = self.decode_lane(ends, options, &mut samples)?;
        Ok(Some(Replica { samples, resets_applied, unread: Some(unread) }))
    }

    /// Guesses from the first chunks of two replicas whether the second is followed. A wrong guess only costs time.
    fn is_second_followed(
        &self,
        first: &[AggrChunk],
        second: &[AggrChunk],
        options: &DecodeOptions,
    ) -> Result<bool, DecodeError> {
        let (Some(a), Some(b)) = (plain_chunks(first, options), plain_chunks(second, options)) else {
            return Ok(false);
        };
        let mut heads = [Replica::default(), Replica::default()];
        for (head, chunks) in heads.iter_mut().zip([a, b]) {
            head.resets_applied =
                self.decode_lane(chunks[..1].iter().copied(), options, &mut head.samples)?;
        }
        let [a, b] = &heads;
        let Some(merged) = merge(a, b, false) else { return Ok(false) };
        let common_end = a.samples.timestamps.last().min(b.samples.timestamps.last());
        let common = merged.samples.timestamps.partition_point(|t| Some(t) <= common_end);
        let last_common = merged.samples.timestamps[..common].last();
        Ok(last_common.is_some_and(|t| a.samples.timestamps.binary_search(t).is_err()))
    }
}

/// The chunks of a lane that overlap the range; none when they are few, or the lane has other chunks than raw floats.
fn plain_chunks<'a>(lane: &'a [AggrChunk], options: &DecodeOptions) -> Option<Vec<&'a AggrChunk>> {
    let is_plain = |chunk: &AggrChunk| chunk.raw.as_ref().is_some_and(|raw| raw.encoding.holds_floats());
    if !lane.iter().all(is_plain) {
        return None;
    }
    let chunks: Vec<_> = lane.iter().filter(|chunk| chunk.range().overlaps(&options.range)).collect();
    (chunks.len() >= WORTHWHILE_CHUNKS).then_some(chunks)
}
