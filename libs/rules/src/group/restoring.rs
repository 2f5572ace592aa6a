//! Alerts that may have been active before the program started.

use model::Timestamp;

use crate::answer::RuleSample;
use crate::group::{Applied, Group, accepted};
use crate::restore::{self, RestoreQuery, Restored, StoredState};

/// So many evaluations find alerts that may have been active before the program started: an alert may depend on series that another
/// group records again only after the first one. Prometheus restores after the second one, too.
const RESTORED_EVALUATIONS: u32 = 2;

impl Group {
    /// What to ask for, to restore the state of a rule at `at`. `None` if it is restored already, or has no state to restore.
    ///
    /// After each evaluation of a rule that succeeded, restore the alerts that [wait](crate::Alert::awaits_restore), until this is `None`.
    pub fn restore_query(&mut self, rule: usize, at: Timestamp) -> Option<RestoreQuery> {
        let state = &mut self.states[rule];
        if state.restored {
            return None;
        }
        let query = restore::query(&self.definition.rules[rule], at, &self.options.restore);
        if query.is_none() {
            state.restored = true;
            state.alerts.iter_mut().for_each(|alert| alert.awaits_restore = false);
        }
        query
    }

    /// Restores the state of a rule from all that was stored of it; alerts of which nothing was stored are new. Store and send what is
    /// returned, and report it to [`stored_besides`](Self::stored_besides).
    pub fn restore(&mut self, rule: usize, at: Timestamp, stored: &[StoredState]) -> Applied {
        let applied = self.restore_alerts(rule, at, stored, Restored::All);
        let state = &mut self.states[rule];
        state.restored |= state.evaluations >= RESTORED_EVALUATIONS;
        applied
    }

    /// Restores the alerts of a rule of which `stored` has a state with exactly their labels; the other ones wait. As
    /// [`restore`](Self::restore) otherwise.
    pub fn restore_some(&mut self, rule: usize, at: Timestamp, stored: &[StoredState]) -> Applied {
        self.restore_alerts(rule, at, stored, Restored::Stored)
    }

    fn restore_alerts(
        &mut self,
        rule: usize,
        at: Timestamp,
        stored: &[StoredState],
        which: Restored,
    ) -> Applied {
        let (query_time, interval) = (self.query_time(at), self.interval());
        let Some(alerting) = self.definition.rules[rule].alerting() else { return Applied::default() };
        let alerts = &mut self.states[rule].alerts;
        let restored = restore::restore(alerts, alerting.hold, stored, at, &self.options.restore, which);
        Applied {
            samples: alerts.samples_of(query_time, |alert| restored.contains(&alert.labels)),
            alerts: alerts.take_due(at, self.options.resend_delay, interval),
            errors: Vec::new(),
        }
    }

    /// Takes what became of the samples of [`restore`](Self::restore), as [`stored`](Self::stored): they are series of the rule
    /// besides those of its evaluation.
    pub fn stored_besides(&mut self, rule: usize, samples: &[RuleSample], rejected: &[(usize, String)]) {
        let state = &mut self.states[rule];
        if let Some((_, why)) = rejected.last() {
            state.fail(why.clone());
        }
        state.series.extend(accepted(samples, rejected));
    }
}
