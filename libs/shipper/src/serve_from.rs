//! The time from which the sidecar must serve; earlier data is served from the bucket.
//!
//! A store does not serve a block immediately after its upload. It looks for new blocks every 15 minutes
//! (`--sync-block-duration`), may ignore young ones (`--consistency-delay`, 30 minutes where it is used), and
//! then loads them. Therefore the sidecar serves a block for [`OVERLAP`] after it was verified in the bucket.
//! During that time both serve it, and the querier removes the duplicates. A block that is not in the bucket,
//! for any reason (an outage, damage, compaction before uploads began), and all later data stay with the
//! sidecar.
//!
//! Samples that arrive out of order may be in no block for up to [`HEAD_RANGES`] block ranges, and may be up
//! to `out_of_order_time_window` of Prometheus older than the current time. They exist only in the head, so
//! the sidecar always serves that far back.

use std::time::Duration;

use model::Timestamp;

/// The sidecar serves a block for this long after its upload: more than two syncs of a store plus a
/// consistency delay of 30 minutes.
pub(crate) const OVERLAP: Duration = Duration::from_secs(90 * 60);

/// Maximum time of samples in the head without a block, in block ranges: Prometheus cuts a block when its
/// head spans one and a half.
const HEAD_RANGES: u32 = 2;

/// The part of a local block that this decision needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServedBlock {
    pub(crate) min_time: Timestamp,
    /// Exclusive.
    pub(crate) max_time: Timestamp,
    /// Time since which its samples are in the bucket, verified; `None` if they are not.
    pub(crate) in_bucket_since: Option<Timestamp>,
}

/// The time from which the sidecar must serve; [`Timestamp::MIN`] for everything.
///
/// `out_of_order_window` and `block_range` are settings of Prometheus.
pub(crate) fn serve_from(
    blocks: &[ServedBlock],
    now: Timestamp,
    out_of_order_window: Duration,
    block_range: Duration,
) -> Timestamp {
    let is_in_stores =
        |block: &&ServedBlock| block.in_bucket_since.is_some_and(|since| since + OVERLAP <= now);
    let stored_until = blocks.iter().filter(is_in_stores).map(|block| block.max_time).max();
    // Without such a block the content of the bucket is unknown.
    let Some(stored_until) = stored_until else { return Timestamp::MIN };
    let kept_here = blocks.iter().filter(|block| !is_in_stores(block)).map(|block| block.min_time).min();
    let head = now - out_of_order_window - block_range * HEAD_RANGES;
    stored_until.min(kept_here.unwrap_or(Timestamp::MAX)).min(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const RANGE: Duration = Duration::from_secs(2 * 3600);

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_millis(hours * HOUR)
    }

    fn block(from: i64, to: i64, in_bucket_since: Option<i64>) -> ServedBlock {
        ServedBlock { min_time: at(from), max_time: at(to), in_bucket_since: in_bucket_since.map(at) }
    }

    fn check(what: &str, blocks: &[ServedBlock], now: i64, window_hours: u64, expected: Timestamp) {
        let window = Duration::from_secs(window_hours * 3600);
        assert_eq!(serve_from(blocks, at(now), window, RANGE), expected, "{what}");
    }

    #[test]
    fn sidecar_serves_all_data_that_a_store_may_not_have_loaded() {
        let old = [block(2, 4, Some(5)), block(4, 6, Some(7)), block(6, 8, Some(9))];
        check("nothing is known", &[], 100, 0, Timestamp::MIN);
        check("nothing is in the bucket", &[block(2, 4, None)], 100, 0, Timestamp::MIN);
        check("all is in the bucket for long", &old, 100, 0, at(8));
        check("the last block is young", &old, 10, 0, at(6));
        check("only the first is old enough", &old, 8, 0, at(4));
        check(
            "uploads are behind",
            &[&old[..], &[block(8, 10, None), block(10, 12, None)]].concat(),
            100,
            0,
            at(8),
        );
        check("a block in the middle fails", &[old[0], block(4, 6, None), old[2]], 100, 0, at(4));
        check(
            "late samples made a block for old times",
            &[&old[..], &[block(3, 4, None)]].concat(),
            100,
            0,
            at(3),
        );
        check(
            "that block is in the bucket now",
            &[&old[..], &[block(3, 4, Some(90))]].concat(),
            100,
            0,
            at(8),
        );
        check("late samples may be in the head", &old, 14, 3, at(7));
        check("the clock was set back", &old, 1, 0, Timestamp::MIN);
    }

    /// All data in the head, or in a block that the store may lack, is at or after the returned time.
    #[test]
    fn each_sample_is_served_by_store_or_sidecar() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below) as i64
        };
        for _ in 0..20_000 {
            let now = 40 + random(20);
            let blocks: Vec<ServedBlock> = (0..random(12))
                .map(|_| {
                    let from = random(40);
                    let since = (random(3) > 0).then(|| from + 2 + random(20));
                    block(from, from + 1 + random(4), since)
                })
                .collect();
            let serve_from = serve_from(&blocks, at(now), Duration::ZERO, RANGE);
            assert!(serve_from <= at(now - 4), "the head is served: {blocks:?}");
            for block in &blocks {
                let stored = block.in_bucket_since.is_some_and(|since| since + OVERLAP <= at(now));
                assert!(
                    stored || block.min_time >= serve_from,
                    "{block:?} is nowhere in {blocks:?} at {now}"
                );
            }
        }
    }
}
