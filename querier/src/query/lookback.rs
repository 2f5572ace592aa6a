//! The lookback for data of a resolution.

use std::time::Duration;

/// A lookback that depends on the resolution of the data. For example, samples with a resolution of 1 h are too far apart
/// for a lookback of 5 min.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DynamicLookback {
    /// The value of the flag, if set.
    pub(crate) configured: Option<Duration>,
}

impl DynamicLookback {
    /// The lookback for data of this resolution or a finer one. Specified by `LookbackDeltaFactory` of Thanos.
    pub(crate) fn at(self, resolution: Duration) -> Duration {
        const FIVE_MINUTES: Duration = Duration::from_secs(300);
        const HOUR: Duration = Duration::from_secs(3600);
        let base = self.configured.unwrap_or(Duration::ZERO);
        if resolution > base.max(FIVE_MINUTES) {
            base.max(HOUR)
        } else if resolution > base {
            base.max(FIVE_MINUTES)
        } else {
            self.configured.unwrap_or(FIVE_MINUTES)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookback_grows_with_the_resolution() {
        let check = |configured: Option<u64>, resolution, expected| {
            let dynamic = DynamicLookback { configured: configured.map(Duration::from_secs) };
            let found = dynamic.at(Duration::from_secs(resolution));
            assert_eq!(found, Duration::from_secs(expected));
        };
        check(None, 0, 300);
        check(None, 300, 300);
        check(None, 3600, 3600);
        check(Some(60), 0, 60);
        check(Some(60), 300, 300);
        check(Some(7200), 3600, 7200);
        check(Some(600), 3600, 3600);
    }
}
