//! What is wrong with a group. It is logged when it begins, when it changes, and when it ends.

use tracing::{info, warn};

/// What became of a rule.
#[derive(Clone, Debug, Default)]
pub(crate) struct RuleOutcome {
    pub(crate) rule: String,
    pub(crate) error: Option<String>,
    /// Which data was missing.
    pub(crate) warning: Option<String>,
    pub(crate) template_error: Option<String>,
    pub(crate) samples: usize,
}

/// What was logged about a group.
#[derive(Debug)]
pub(crate) struct Problems {
    file: String,
    name: String,
    failing: Option<String>,
    partial: Option<String>,
    template: Option<String>,
    is_behind: bool,
    restoring: Option<String>,
    /// Attempts to restore the state of alerts that failed.
    pub(crate) restore_failures: u32,
}

impl Problems {
    pub(crate) fn new(file: &str, name: &str) -> Self {
        Self {
            file: file.to_owned(),
            name: name.to_owned(),
            failing: None,
            partial: None,
            template: None,
            is_behind: false,
            restoring: None,
            restore_failures: 0,
        }
    }

    /// The group was evaluated.
    pub(crate) fn evaluated(&mut self, outcomes: &[RuleOutcome]) {
        let (group, file) = (&self.name, &self.file);
        let failed = outcomes.iter().find_map(|outcome| Some((&outcome.rule, outcome.error.as_ref()?)));
        match failed {
            Some((rule, error)) if self.failing.as_ref() != Some(error) => {
                let failed = outcomes.iter().filter(|outcome| outcome.error.is_some()).count();
                warn!(%group, %file, failed, %rule, %error, "rules could not be evaluated");
            }
            None if self.failing.is_some() => {
                info!(%group, %file, "all rules of the group can be evaluated again")
            }
            _ => {}
        }
        self.failing = failed.map(|(_, error)| error.clone());
        let partial = outcomes.iter().find_map(|outcome| Some((&outcome.rule, outcome.warning.as_ref()?)));
        match partial {
            Some((rule, warning)) if self.partial.as_ref() != Some(warning) => {
                warn!(%group, %file, %rule, %warning, "rules were evaluated on data that are not complete");
            }
            None if self.partial.is_some() => {
                info!(%group, %file, "the data for all rules of the group are complete again")
            }
            _ => {}
        }
        self.partial = partial.map(|(_, warning)| warning.clone());
        let template =
            outcomes.iter().find_map(|outcome| Some((&outcome.rule, outcome.template_error.as_ref()?)));
        if let Some((rule, error)) = template
            && self.template.as_ref() != Some(error)
        {
            warn!(%group, %file, %rule, %error, "a template of an alert failed, its text says why");
        }
        self.template = template.map(|(_, error)| error.clone());
    }

    /// An evaluation is due, and `missed` ones before it were left out.
    pub(crate) fn due(&mut self, missed: u64) {
        let (group, file) = (&self.name, &self.file);
        if missed > 0 && !self.is_behind {
            warn!(%group, %file, missed, "the group is behind: its evaluation takes longer than its interval, so that evaluations are left out");
        } else if missed == 0 && self.is_behind {
            info!(%group, %file, "the group is evaluated at each interval again");
        }
        self.is_behind = missed > 0;
    }

    /// The state of alerts was restored, or could not be.
    pub(crate) fn restored(&mut self, error: Option<String>) {
        let (group, file) = (&self.name, &self.file);
        match &error {
            Some(error) if self.restoring.as_ref() != Some(error) => {
                warn!(%group, %file, %error, "the state of alerts cannot be restored, trying again after the next evaluation");
            }
            None if self.restoring.is_some() => info!(%group, %file, "the state of alerts was restored"),
            _ => {}
        }
        self.restore_failures = if error.is_some() { self.restore_failures.saturating_add(1) } else { 0 };
        self.restoring = error;
    }
}
