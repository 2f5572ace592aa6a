//! Where the sidecar's StoreAPI begins: what lies before is answered from the bucket.
//!
//! A store does not serve a block in the moment in which it is uploaded: it looks for new blocks every 15 minutes
//! (`--sync-block-duration`), may be told to leave young ones alone (`--consistency-delay`, 30 minutes where it is used),
//! and then loads them. So a block stays with the sidecar for [`OVERLAP`] after it was verified in the bucket; both serve it
//! meanwhile, and the querier removes what is double. Nothing is handed over that lies behind a block which is not in the
//! bucket, whatever the reason: an outage, a damaged block, a block compacted before uploads began.
//!
//! Samples that arrive out of order have no block for up to [`HEAD`], and lie up to Prometheus'
//! `out_of_order_time_window` before the present. They exist in the head alone, so the sidecar always serves that far back.

use std::time::Duration;

use model::Timestamp;

/// How long the sidecar goes on serving a block that is in the bucket: more than two syncs of a store and the delay of
/// 30 minutes that careful ones use.
pub(super) const OVERLAP: Duration = Duration::from_secs(90 * 60);

/// How long samples may be in the head without a block, in multiples of the block range: Prometheus cuts a block when its
/// head spans one and a half.
const HEAD_RANGES: u32 = 2;

/// A block in Prometheus' data folder, as far as this decision goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holding {
    pub(super) min_time: Timestamp,
    /// Exclusive.
    pub(super) max_time: Timestamp,
    /// Since when its samples are in the bucket, verified; `None` while they are not.
    pub(super) in_bucket_since: Option<Timestamp>,
}

/// The earliest instant that the sidecar must serve; [`Timestamp::MIN`] for everything.
///
/// `out_of_order_window` and `block_range` are Prometheus' settings.
pub(super) fn begin(
    holdings: &[Holding],
    now: Timestamp,
    out_of_order_window: Duration,
    block_range: Duration,
) -> Timestamp {
    let is_handed_over =
        |holding: &&Holding| holding.in_bucket_since.is_some_and(|since| since + OVERLAP <= now);
    let handed_over = holdings.iter().filter(is_handed_over).map(|holding| holding.max_time).max();
    // Without a block in the bucket nothing is known of what it has.
    let Some(handed_over) = handed_over else { return Timestamp::MIN };
    let kept =
        holdings.iter().filter(|holding| !is_handed_over(holding)).map(|holding| holding.min_time).min();
    let head = now - out_of_order_window - block_range * HEAD_RANGES;
    handed_over.min(kept.unwrap_or(Timestamp::MAX)).min(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const RANGE: Duration = Duration::from_secs(2 * 3600);

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_millis(hours * HOUR)
    }

    fn holding(from: i64, to: i64, in_bucket_since: Option<i64>) -> Holding {
        Holding { min_time: at(from), max_time: at(to), in_bucket_since: in_bucket_since.map(at) }
    }

    fn check(what: &str, holdings: &[Holding], now: i64, window_hours: u64, expected: Timestamp) {
        let window = Duration::from_secs(window_hours * 3600);
        assert_eq!(begin(holdings, at(now), window, RANGE), expected, "{what}");
    }

    #[test]
    fn the_sidecar_serves_whatever_a_store_may_not_have_yet() {
        let old = [holding(2, 4, Some(5)), holding(4, 6, Some(7)), holding(6, 8, Some(9))];
        check("nothing is known", &[], 100, 0, Timestamp::MIN);
        check("nothing is in the bucket", &[holding(2, 4, None)], 100, 0, Timestamp::MIN);
        check("all is in the bucket for long", &old, 100, 0, at(8));
        check("the last block is young", &old, 10, 0, at(6));
        check("only the first is old enough", &old, 8, 0, at(4));
        check(
            "uploads are behind",
            &[&old[..], &[holding(8, 10, None), holding(10, 12, None)]].concat(),
            100,
            0,
            at(8),
        );
        check("a block in the middle fails", &[old[0], holding(4, 6, None), old[2]], 100, 0, at(4));
        check(
            "late samples made a block for old times",
            &[&old[..], &[holding(3, 4, None)]].concat(),
            100,
            0,
            at(3),
        );
        check(
            "that block is in the bucket now",
            &[&old[..], &[holding(3, 4, Some(90))]].concat(),
            100,
            0,
            at(8),
        );
        check("late samples may be in the head", &old, 14, 3, at(7));
        check("the clock was set back", &old, 1, 0, Timestamp::MIN);
    }

    /// Whatever is in the head or in a block that the store may lack lies at or behind the beginning.
    #[test]
    fn no_sample_is_between_the_store_and_the_sidecar() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below) as i64
        };
        for _ in 0..20_000 {
            let now = 40 + random(20);
            let holdings: Vec<Holding> = (0..random(12))
                .map(|_| {
                    let from = random(40);
                    let since = (random(3) > 0).then(|| from + 2 + random(20));
                    holding(from, from + 1 + random(4), since)
                })
                .collect();
            let begin = begin(&holdings, at(now), Duration::ZERO, RANGE);
            assert!(begin <= at(now - 4), "the head is served: {holdings:?}");
            for holding in &holdings {
                let stored = holding.in_bucket_since.is_some_and(|since| since + OVERLAP <= at(now));
                assert!(
                    stored || holding.min_time >= begin,
                    "{holding:?} is nowhere in {holdings:?} at {now}"
                );
            }
        }
    }
}
