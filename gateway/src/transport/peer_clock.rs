//! The clock of a peer, compared with ours.

use std::{
    sync::{Arc, OnceLock},
    time::SystemTime,
};

/// How far the peer's clock is ahead of ours. It is noted once in the life of a connection, when the hello arrives, and is too small by
/// the time that the hello took. Clones share the value.
#[derive(Debug, Clone, Default)]
pub(crate) struct PeerClock(Arc<OnceLock<f64>>);

impl PeerClock {
    /// Notes what the peer's clock said at a time of ours.
    pub(crate) fn note(&self, theirs: SystemTime, ours: SystemTime) {
        let ahead = match theirs.duration_since(ours) {
            Ok(ahead) => ahead.as_secs_f64(),
            Err(behind) => -behind.duration().as_secs_f64(),
        };
        // A second hello of the same connection does not come.
        let _ = self.0.set(ahead);
    }

    /// In seconds; negative if the peer's clock is behind, `None` before its hello.
    pub(crate) fn ahead_seconds(&self) -> Option<f64> {
        self.0.get().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_is_ahead_or_behind() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let check = |theirs: SystemTime, expected: f64| {
            let clock = PeerClock::default();
            assert_eq!(clock.ahead_seconds(), None);
            clock.clone().note(theirs, now);
            assert_eq!(clock.ahead_seconds(), Some(expected));
        };
        check(now, 0.0);
        check(now + Duration::from_millis(1500), 1.5);
        check(now - Duration::from_secs(40), -40.0);
    }
}
