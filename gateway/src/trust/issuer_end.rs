//! Warnings before the end of the issuing CA.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use pki::IssuerFigures;

const DAY: Duration = Duration::from_secs(86_400);

/// When the end of the issuing CA was last logged.
#[derive(Default)]
pub(super) struct IssuerEnd {
    warned: Mutex<Option<Instant>>,
}

impl IssuerEnd {
    /// Warns once a day when a third of the issuing CA's lifetime is left.
    pub(super) fn warn(&self, figures: &IssuerFigures, now: SystemTime) {
        let Some(left) = time_to_warn(figures, now) else { return };
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_some_and(|warned| warned.elapsed() < DAY) {
            return;
        }
        *warned = Some(Instant::now());
        let hours = left.as_secs() / 3600;
        match hours {
            0..48 => tracing::error!(
                hours,
                "the issuing CA expires soon, and nothing can be renewed then; renew it with `pki issuer renew`, or with `pki issuer request` and `pki issuer install`"
            ),
            _ => tracing::warn!(
                hours,
                "less than a third of the lifetime of the issuing CA is left; renew it with `pki issuer renew`, or with `pki issuer request` and `pki issuer install`"
            ),
        }
    }
}

/// The time that is left, if it is less than a third of the issuing CA's lifetime.
fn time_to_warn(figures: &IssuerFigures, now: SystemTime) -> Option<Duration> {
    let life = figures.not_after.duration_since(figures.not_before).unwrap_or_default();
    let left = figures.not_after.duration_since(now).unwrap_or_default();
    (left < life / 3).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_issuing_ca_is_announced_when_a_third_of_its_life_is_left() {
        let start = SystemTime::UNIX_EPOCH + 100 * DAY;
        let figures =
            IssuerFigures { not_before: start, not_after: start + 30 * DAY, leaves: 0, open_tokens: 0 };
        assert_eq!(time_to_warn(&figures, start + 20 * DAY), None);
        assert_eq!(time_to_warn(&figures, start + 21 * DAY), Some(9 * DAY));
        assert_eq!(time_to_warn(&figures, start + 31 * DAY), Some(Duration::ZERO));
    }
}
