//! When QUIC is tried again while a TCP connection is in use.

use std::time::Duration;

/// The waits between the attempts to use QUIC again: from short to long, doubled after each.
///
/// The first wait is short, because UDP is often silent only for a moment: a peer that starts while it is dialled may miss the
/// datagrams and accept the TCP connection. A QUIC connection that did not last does not make the waits short again: where UDP
/// passes handshakes and little else, each change would break the requests of the moment.
#[derive(Debug)]
pub(super) struct ProbeWaits {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl ProbeWaits {
    /// Waits within these bounds.
    pub(super) fn new((first, most): (Duration, Duration)) -> Self {
        Self { first, most, next: first }
    }

    /// The time to wait for the next attempt.
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(self.most);
        wait
    }

    /// A QUIC connection of this age has ended.
    pub(super) fn quic_ended(&mut self, age: Duration) {
        if age >= self.most {
            self.next = self.first;
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
        let mut waits = ProbeWaits::new((Duration::from_secs(1), Duration::from_secs(60)));
        assert_eq!(seconds(&mut waits, 8), [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn only_a_quic_connection_that_lasted_makes_the_waits_short_again() {
        let mut waits = ProbeWaits::new((Duration::from_secs(1), Duration::from_secs(60)));
        assert_eq!(seconds(&mut waits, 4), [1, 2, 4, 8]);
        waits.quic_ended(Duration::from_secs(59));
        assert_eq!(seconds(&mut waits, 1), [16]);
        waits.quic_ended(Duration::from_secs(60));
        assert_eq!(seconds(&mut waits, 2), [1, 2]);
    }
}
