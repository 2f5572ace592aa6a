//! Sends alerts to Alertmanagers.

use std::sync::Arc;

use alertmanager::{Alert, Notifier};
use rules::SentAlert;

use crate::alert_labels::AlertLabels;
use crate::alert_link::AlertLink;

/// Gives alerts their labels and links, and hands them to the queue.
pub(crate) struct AlertSender {
    pub(crate) notifier: Arc<Notifier>,
    pub(crate) labels: AlertLabels,
    pub(crate) link: AlertLink,
}

impl AlertSender {
    /// Sends alerts of the rule with this expression. It does not wait.
    pub(crate) fn send(&self, expression: &str, alerts: Vec<SentAlert>) {
        if alerts.is_empty() {
            return;
        }
        let generator_url = self.link.of(expression);
        let sent = alerts.into_iter().filter_map(|alert| {
            Some(Alert {
                labels: self.labels.sent(&alert.labels)?,
                annotations: alert.annotations,
                starts_at: alert.starts_at,
                ends_at: alert.ends_at,
                generator_url: generator_url.clone(),
            })
        });
        self.notifier.send(sent.collect());
    }
}
