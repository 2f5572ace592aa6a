//! When a certificate is renewed, and when a connection that uses it is replaced.
//!
//! ```text
//! issued            1/2 ± 10 %                3/4                      not after
//!   |------------------|-----------------------|---------------------------|
//!                renew with a        open a new connection,        old connections
//!                  new key               drain the old               are closed
//! ```
//!
//! This file only decides; `credentials` and `component` act.

use std::time::{Duration, SystemTime};

use identity::PeerIdentity;
use rand::Rng;

/// Bounds of the pause after the first failed renewal and after many.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Pause after the first failed attempt to come back.
const FIRST_PAUSE_AFTER_EXPIRY: Duration = Duration::from_secs(15);
/// Shortest time after which a connection is replaced.
const LEAST_CONNECTION_LIFE: Duration = Duration::from_millis(500);

/// When a leaf was issued, and its lifetime.
fn life(leaf: &PeerIdentity) -> (SystemTime, Duration) {
    let issued = leaf.issued_at();
    (issued, leaf.not_after.duration_since(issued).unwrap_or_default())
}

/// When to renew a leaf: at half of its lifetime, up to 10 % of that earlier or later, so that gateways that joined at
/// the same time do not renew at the same time.
pub(crate) fn renew_at(leaf: &PeerIdentity, random: &mut impl Rng) -> SystemTime {
    let (issued, life) = life(leaf);
    issued + (life / 2).mul_f64(random.random_range(0.9..=1.1))
}

/// The least time between two renewals, measured without the wall clock: an eighth of the lifetime.
pub(crate) fn least_distance(leaf: &PeerIdentity) -> Duration {
    life(leaf).1 / 8
}

/// How much the local clock is ahead of the issuer's, if a leaf that was just issued is already due for renewal.
pub(crate) fn clock_is_ahead(leaf: &PeerIdentity, now: SystemTime) -> Option<Duration> {
    let (issued, life) = life(leaf);
    now.duration_since(issued).ok().filter(|ahead| *ahead >= (life / 2).mul_f64(0.9))
}

/// The pause after `failures` failed attempts in a row: a random time up to a bound that doubles from 1 s to 5 min. The
/// bound is at most an eighth of the time until the leaf expires.
pub(crate) fn pause_after(failures: u32, left: Duration, random: &mut impl Rng) -> Duration {
    backoff(failures, FIRST_PAUSE.min(left / 8), LONGEST_PAUSE.min(left / 8), random)
        .max(Duration::from_millis(100))
}

/// The pause between two attempts to come back after the leaf has expired: 15 s at first, doubled up to 5 min, less up to a
/// third.
pub(crate) fn pause_after_expiry(failures: u32, random: &mut impl Rng) -> Duration {
    let bound =
        FIRST_PAUSE_AFTER_EXPIRY.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_PAUSE);
    bound.mul_f64(random.random_range(0.67..=1.0))
}

/// A random time from zero to a bound ("full jitter"). The bound is `first`, doubled with each failure after the first,
/// and at most `longest`.
pub(crate) fn backoff(failures: u32, first: Duration, longest: Duration, random: &mut impl Rng) -> Duration {
    let bound = first.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(longest);
    bound.mul_f64(random.random_range(0.0..=1.0))
}

/// When a connection that was opened at `now` with these two leaves should be replaced: when three quarters of the
/// lifetime of either leaf are over, whichever comes first. By then both sides have renewed, unless renewal fails. `None`
/// when a leaf has expired.
pub(crate) fn replace_connection_at(leaves: [&PeerIdentity; 2], now: SystemTime) -> Option<SystemTime> {
    let due = |leaf: &PeerIdentity| {
        let (issued, life) = life(leaf);
        let left = leaf.not_after.duration_since(now).ok()?;
        // After three quarters the renewal is late. A new connection helps only after the renewal.
        Some((issued + life * 3 / 4).max(now + (left / 4).max(LEAST_CONNECTION_LIFE)))
    };
    let [one, other] = leaves.map(due);
    Some(one?.min(other?))
}

#[cfg(test)]
mod tests {
    use identity::{SpiffeId, SpkiPin};
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    fn leaf(issued: u64, life: u64) -> PeerIdentity {
        let issued = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + issued);
        let spiffe_id: SpiffeId = "spiffe://td/cluster/eu-1/gateway".parse().unwrap();
        PeerIdentity {
            spiffe_id,
            serial: "01".into(),
            spki: SpkiPin::from_bytes([0; 32]),
            issuers: Vec::new(),
            not_before: issued - identity::CLOCK_SKEW,
            not_after: issued + Duration::from_secs(life),
        }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    #[test]
    fn renewal_is_at_half_of_the_lifetime_plus_or_minus_a_tenth() {
        let mut random = StdRng::seed_from_u64(1);
        let (mut earliest, mut latest) = (at(86_400), at(0));
        for _ in 0..1000 {
            let due = renew_at(&leaf(0, 86_400), &mut random);
            assert!(due >= at(38_880) && due <= at(47_520), "{due:?}");
            (earliest, latest) = (earliest.min(due), latest.max(due));
        }
        assert!(earliest < at(39_500) && latest > at(46_900), "no jitter");
        let due = renew_at(&leaf(0, 6), &mut random);
        assert!(due >= at(2) && due <= at(4), "a lifetime of seconds is renewed in time too");
    }

    #[test]
    fn a_clock_that_is_ahead_by_half_a_lifetime_is_noticed() {
        let day = leaf(0, 86_400);
        assert_eq!(clock_is_ahead(&day, at(0)), None);
        assert_eq!(clock_is_ahead(&day, at(3600)), None);
        assert_eq!(clock_is_ahead(&day, at(43_200)), Some(Duration::from_secs(43_200)));
        assert_eq!(least_distance(&day), Duration::from_secs(10_800));
    }

    #[test]
    fn attempts_after_the_end_are_rare() {
        let mut random = StdRng::seed_from_u64(3);
        for failures in 1..100 {
            let pause = pause_after_expiry(failures, &mut random);
            assert!(pause >= Duration::from_secs(10) && pause <= LONGEST_PAUSE, "{failures}: {pause:?}");
            assert!(failures < 6 || pause >= Duration::from_secs(200), "{failures}: {pause:?}");
        }
    }

    #[test]
    fn failed_renewals_are_retried_often_enough() {
        let mut random = StdRng::seed_from_u64(2);
        let (mut left, mut attempts) = (Duration::from_secs(43_200), 0);
        while left > Duration::from_secs(1) {
            attempts += 1;
            left = left.saturating_sub(pause_after(attempts, left, &mut random));
        }
        assert!(attempts >= 100, "only {attempts} attempts in the second half of a day");
        assert!(pause_after(1, Duration::from_secs(3), &mut random) <= Duration::from_secs(1));
        assert!(pause_after(u32::MAX, Duration::from_secs(1 << 30), &mut random) <= LONGEST_PAUSE);
    }

    #[test]
    fn a_connection_is_replaced_before_either_leaf_expires() {
        let (ours, theirs) = (leaf(0, 100), leaf(50, 40));
        assert_eq!(replace_connection_at([&ours, &theirs], at(50)), Some(at(75)));
        assert_eq!(replace_connection_at([&ours, &leaf(50, 400)], at(50)), Some(at(75)));
        // A late renewal: the pauses get shorter, but have a lower bound.
        assert_eq!(replace_connection_at([&ours, &leaf(0, 400)], at(80)), Some(at(85)));
        let soon = replace_connection_at([&ours, &ours], at(100)).unwrap();
        assert_eq!(soon, at(100) + LEAST_CONNECTION_LIFE);
        assert_eq!(replace_connection_at([&ours, &ours], at(101)), None);
    }
}
