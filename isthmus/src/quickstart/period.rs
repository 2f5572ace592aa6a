//! The time of the history that quickstart writes into the bucket.

use std::time::{SystemTime, UNIX_EPOCH};

const HOUR: i64 = 3600;
/// Length of a block.
pub(super) const BLOCK: i64 = 2 * HOUR;
/// Length of the windows whose blocks the compactor merges into one. They are aligned to the epoch.
const WINDOW: i64 = 48 * HOUR;
/// What is newer than this comes from the sidecars.
const NEWEST: i64 = 2 * HOUR;

/// Begin and end of the history, in seconds since the epoch. All are multiples of the length of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HistoryPeriod {
    /// Begin of the first block, and of a window of two days.
    pub(super) begin: i64,
    /// End of this window. At least one block follows it, so that the compactor knows that the window is complete.
    pub(super) window_end: i64,
    /// End of the last block.
    pub(super) end: i64,
}

impl HistoryPeriod {
    /// The history up to two hours before `now`: a window of two days, and what follows it.
    pub(super) fn before(now: SystemTime) -> Self {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
        let end = (now - NEWEST).div_euclid(BLOCK) * BLOCK;
        let window_end = (end - BLOCK).div_euclid(WINDOW) * WINDOW;
        Self { begin: window_end - WINDOW, window_end, end }
    }

    /// Number of blocks.
    pub(super) fn blocks(&self) -> i64 {
        (self.end - self.begin) / BLOCK
    }

    /// Number of blocks in the window of two days.
    pub(super) fn blocks_of_window(&self) -> i64 {
        (self.window_end - self.begin) / BLOCK
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_history_has_a_whole_window_and_a_later_block_at_any_time_of_the_day() {
        for hour in 0..96 {
            let now = 1_735_689_600 + 1234 + hour * HOUR;
            let at = UNIX_EPOCH + Duration::from_secs(now.cast_unsigned());
            let HistoryPeriod { begin, window_end, end } = HistoryPeriod::before(at);
            assert_eq!((begin % WINDOW, window_end - begin, end % BLOCK), (0, WINDOW, 0), "hour {hour}");
            assert!((now - 2 * NEWEST..=now - NEWEST).contains(&end), "hour {hour}");
            assert!((window_end + BLOCK..=window_end + WINDOW).contains(&end), "hour {hour}");
        }
    }
}
