//! Rules and groups as their files define them.

use std::collections::BTreeMap;
use std::time::Duration;

use promql::syntax::ast::Expr;

use crate::template::Template;

/// Rules that are evaluated together, one after the other.
#[derive(Debug)]
pub struct RuleGroup {
    /// Its name; unique in its file.
    pub name: String,
    /// Time between evaluations; `None` for that of the program.
    pub interval: Option<Duration>,
    /// How far in the past its expressions are evaluated; `None` for the offset of the program.
    pub query_offset: Option<Duration>,
    /// Most alerts or series that a rule may produce; 0 for no limit.
    pub limit: usize,
    /// What its rules do when a store does not answer.
    pub partial_response: PartialResponse,
    /// Its rules in the order of the file.
    pub rules: Vec<Rule>,
}

/// What a rule does when a store does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PartialResponse {
    /// It is evaluated on the data of the other stores.
    Warn,
    /// Its evaluation fails.
    #[default]
    Abort,
}

/// A rule, checked.
#[derive(Debug)]
pub struct Rule {
    /// The name of its series, or of its alerts.
    pub name: String,
    /// Its expression.
    pub expr: Expr,
    /// Its expression as it is printed.
    pub query: String,
    /// The labels that it adds, with those of its group. Those of alerts may be templates. An empty value removes a label.
    pub labels: BTreeMap<String, String>,
    /// Its line in the file, from 1.
    pub line: Option<u64>,
    /// What it produces.
    pub kind: RuleKind,
}

/// What a rule produces.
#[derive(Debug)]
pub enum RuleKind {
    /// Series.
    Recording,
    /// Alerts.
    Alerting(Box<Alerting>),
}

/// What only alerting rules have.
#[derive(Debug)]
pub struct Alerting {
    /// `for`: how long the expression must hold before an alert fires.
    pub hold: Duration,
    /// How long an alert keeps firing after the expression no longer holds.
    pub keep_firing_for: Duration,
    /// Annotations, which may be templates.
    pub annotations: BTreeMap<String, String>,
    /// The templates of `labels`, in their order.
    pub label_templates: Vec<Template>,
    /// The templates of `annotations`, in their order.
    pub annotation_templates: Vec<Template>,
}

impl Rule {
    /// What only an alerting rule has.
    pub fn alerting(&self) -> Option<&Alerting> {
        match &self.kind {
            RuleKind::Recording => None,
            RuleKind::Alerting(alerting) => Some(alerting),
        }
    }

    /// Whether `other` is defined in the same way. Its line does not matter.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let settings = |rule: &Self| {
            let alerting = rule.alerting()?;
            Some((alerting.hold, alerting.keep_firing_for, alerting.annotations.clone()))
        };
        (&self.name, &self.query, &self.labels) == (&other.name, &other.query, &other.labels)
            && settings(self) == settings(other)
    }
}
