//! When QUIC is tried again while a TCP connection is in use.

use std::time::Duration;

/// A QUIC connection that lasted this long is trusted.
const LASTED: Duration = Duration::from_secs(60);

/// The waits between the attempts to use QUIC again: from short to long, doubled after each.
///
/// The first wait is short, because UDP is often silent only for a moment. A QUIC connection that soon fell silent makes the waits
/// long, up to [`LASTED`]: where UDP passes handshakes and little else, each change would break the requests of the moment. A peer
/// that ends its connections, because it restarts, is no reason for that.
#[derive(Debug)]
pub(super) struct ProbeWaits {
    first: Duration,
    most: Duration,
    next: Duration,
    /// The wait after a QUIC connection that soon fell silent; zero while QUIC is trusted.
    distrust: Duration,
}

impl ProbeWaits {
    /// Waits within these bounds.
    pub(super) fn new((first, most): (Duration, Duration)) -> Self {
        Self { first, most, next: first, distrust: Duration::ZERO }
    }

    /// The time to wait for the next attempt.
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.next.max(self.distrust);
        self.next = self.next.saturating_mul(2).min(self.most);
        wait
    }

    /// A QUIC connection of this age has ended, because the peer fell silent or for another reason.
    pub(super) fn quic_ended(&mut self, age: Duration, fell_silent: bool) {
        self.next = self.first;
        if age >= LASTED {
            self.distrust = Duration::ZERO;
        } else if fell_silent {
            self.distrust = self.distrust.saturating_mul(2).min(LASTED).max(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(waits: &mut ProbeWaits, count: usize) -> Vec<u64> {
        (0..count).map(|_| waits.next().as_secs()).collect()
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut waits = ProbeWaits::new((Duration::from_secs(1), Duration::from_secs(4)));
        assert_eq!(seconds(&mut waits, 5), [1, 2, 4, 4, 4]);
    }

    #[test]
    fn a_quic_connection_that_soon_falls_silent_is_not_trusted() {
        let mut waits = ProbeWaits::new((Duration::from_secs(1), Duration::from_secs(4)));
        assert_eq!(seconds(&mut waits, 2), [1, 2]);
        let mut longest = Vec::new();
        for _ in 0..6 {
            waits.quic_ended(Duration::from_secs(59), true);
            longest.extend(seconds(&mut waits, 1));
        }
        assert_eq!(longest, [4, 8, 16, 32, 60, 60]);
        waits.quic_ended(LASTED, true);
        assert_eq!(seconds(&mut waits, 2), [1, 2]);
    }

    #[test]
    fn a_peer_that_restarts_again_and_again_is_trusted() {
        let mut waits = ProbeWaits::new((Duration::from_secs(1), Duration::from_secs(4)));
        for _ in 0..10 {
            waits.quic_ended(Duration::from_secs(3), false);
            assert_eq!(seconds(&mut waits, 2), [1, 2]);
        }
    }
}
