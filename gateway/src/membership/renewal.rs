//! When certificates are renewed, and when connections made with them are replaced.
//!
//! ```text
//! issued            1/2 ± 10 %                3/4                      not after
//!   |------------------|-----------------------|---------------------------|
//!                   renew, with           connect anew,              old connections
//!                   a new key             drain the old                 are closed
//! ```
//!
//! Pure decisions; [`crate::membership::credentials`] and [`crate::component`] act on them.

use std::time::{Duration, SystemTime};

use identity::PeerIdentity;
use rand::Rng;

/// First and longest pause after a renewal that failed.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Least time between two connections that replace each other.
const LEAST_CONNECTION_LIFE: Duration = Duration::from_millis(500);

/// From when to when a leaf is in use. Issuers date the beginning back by the clock skew that verifiers allow.
fn life(leaf: &PeerIdentity) -> (SystemTime, Duration) {
    let issued = (leaf.not_before + identity::CLOCK_SKEW).min(leaf.not_after);
    (issued, leaf.not_after.duration_since(issued).unwrap_or_default())
}

/// When to renew a leaf: at half of its life, up to 10 % of that earlier or later, so that many gateways that joined
/// together do not renew together.
pub(crate) fn renew_at(leaf: &PeerIdentity, random: &mut impl Rng) -> SystemTime {
    let (issued, life) = life(leaf);
    issued + (life / 2).mul_f64(random.random_range(0.9..=1.1))
}

/// How long to wait after `failures` failed attempts in a row: a random time up to a bound that doubles from 1 s to
/// 5 min, and that never takes more than an eighth of what is left of the leaf's life.
pub(crate) fn pause_after(failures: u32, left: Duration, random: &mut impl Rng) -> Duration {
    backoff(failures, FIRST_PAUSE.min(left / 8), LONGEST_PAUSE.min(left / 8), random)
        .max(Duration::from_millis(100))
}

/// A random time up to `first`, doubled with each failure after the first, and at most `longest` ("full jitter").
pub(crate) fn backoff(failures: u32, first: Duration, longest: Duration, random: &mut impl Rng) -> Duration {
    let bound = first.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(longest);
    bound.mul_f64(random.random_range(0.0..=1.0))
}

/// When a connection made at `now` with these leaves at its ends should be replaced by a new one: when three quarters
/// of the shorter life are over. By then both sides have renewed, if they can. `None` when a leaf has expired.
pub(crate) fn replace_connection_at(leaves: [&PeerIdentity; 2], now: SystemTime) -> Option<SystemTime> {
    let due = |leaf: &PeerIdentity| {
        let (issued, life) = life(leaf);
        let left = leaf.not_after.duration_since(now).ok()?;
        // Past three quarters already: the renewal is late. A new connection helps only once it has come.
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
            not_before: issued - identity::CLOCK_SKEW,
            not_after: issued + Duration::from_secs(life),
        }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    #[test]
    fn renewal_is_at_half_life_give_or_take_a_tenth() {
        let mut random = StdRng::seed_from_u64(1);
        let (mut earliest, mut latest) = (at(86_400), at(0));
        for _ in 0..1000 {
            let due = renew_at(&leaf(0, 86_400), &mut random);
            assert!(due >= at(38_880) && due <= at(47_520), "{due:?}");
            (earliest, latest) = (earliest.min(due), latest.max(due));
        }
        assert!(earliest < at(39_500) && latest > at(46_900), "no jitter");
        let due = renew_at(&leaf(0, 6), &mut random);
        assert!(due >= at(2) && due <= at(4), "leaves of seconds are renewed in time too");
    }

    #[test]
    fn failed_renewals_are_tried_often_enough() {
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
    fn a_connection_is_replaced_before_either_leaf_ends() {
        let (ours, theirs) = (leaf(0, 100), leaf(50, 40));
        assert_eq!(replace_connection_at([&ours, &theirs], at(50)), Some(at(75)));
        assert_eq!(replace_connection_at([&ours, &leaf(50, 400)], at(50)), Some(at(75)));
        // Late renewals: tried again with ever shorter pauses, and never in a tight loop.
        assert_eq!(replace_connection_at([&ours, &leaf(0, 400)], at(80)), Some(at(85)));
        let soon = replace_connection_at([&ours, &ours], at(100)).unwrap();
        assert_eq!(soon, at(100) + LEAST_CONNECTION_LIFE);
        assert_eq!(replace_connection_at([&ours, &ours], at(101)), None);
    }
}
