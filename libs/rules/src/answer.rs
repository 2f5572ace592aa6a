//! From the answer to a rule's expression to series or alerts.

use std::collections::BTreeSet;

use model::{Labels, METRIC_NAME, Timestamp};
use promql::{QueryValue, SampleValue, VectorSample};

use crate::rule::{Alerting, Rule, RuleKind};
use crate::template::{AlertValues, Template, TemplateContext};

/// The label that names an alert.
pub(crate) const ALERT_NAME: &str = "alertname";

/// A sample that a rule has produced. Staleness markers are floats.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSample {
    /// The series.
    pub labels: Labels,
    /// When it was evaluated, less the query offset.
    pub at: Timestamp,
    /// Its value.
    pub value: SampleValue,
}

/// What the answer to an expression makes, before it changes the state of its rule.
#[derive(Clone, Debug)]
pub enum RuleAnswer {
    /// Series of a recording rule, by their labels.
    Series(Vec<(Labels, SampleValue)>),
    /// Alerts of an alerting rule.
    Alerts {
        /// The alerts, of which no two have the same labels.
        alerts: Vec<AnsweredAlert>,
        /// Templates that failed. Their text is in the labels and annotations, too.
        template_errors: Vec<String>,
    },
}

/// An alert for which the expression holds.
#[derive(Clone, Debug, PartialEq)]
pub struct AnsweredAlert {
    /// Its labels, with `alertname`.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: Labels,
    /// The value of the expression; 0 for a histogram.
    pub value: f64,
}

/// The samples of an answer. A scalar is a sample without labels.
///
/// # Errors
/// The value is a string or a matrix.
pub fn samples_of(value: QueryValue) -> Result<Vec<VectorSample>, String> {
    match value {
        QueryValue::Vector(samples) => Ok(samples),
        QueryValue::Scalar(sample) => Ok(vec![VectorSample {
            labels: Labels::empty(),
            timestamp: sample.timestamp,
            value: SampleValue::Float(sample.value),
        }]),
        QueryValue::String { .. } | QueryValue::Matrix(_) => {
            Err("rule result is not a vector or scalar".to_owned())
        }
    }
}

impl Rule {
    /// What `samples`, the answer to the expression of this rule, make. This changes no state, so that the queries of templates can
    /// wait.
    ///
    /// # Errors
    /// Two samples have the same labels after those of the rule are set.
    pub fn answer(
        &self,
        samples: &[VectorSample],
        external_labels: &Labels,
        context: &TemplateContext<'_>,
    ) -> Result<RuleAnswer, String> {
        match &self.kind {
            RuleKind::Recording => self.series(samples),
            RuleKind::Alerting(alerting) => self.alerts(alerting, samples, external_labels, context),
        }
    }

    /// The labels that this recording rule gives to a series with `labels`.
    pub fn series_labels(&self, labels: &Labels) -> Labels {
        let mut labels = labels.to_builder();
        labels.set(METRIC_NAME, &self.name);
        for (name, value) in &self.labels {
            labels.set(name, value);
        }
        labels.build()
    }

    fn series(&self, samples: &[VectorSample]) -> Result<RuleAnswer, String> {
        let mut seen = BTreeSet::new();
        let mut series = Vec::with_capacity(samples.len());
        for sample in samples {
            let labels = self.series_labels(&sample.labels);
            if !seen.insert(labels.clone()) {
                return Err(
                    "vector contains metrics with the same labelset after applying rule labels".to_owned()
                );
            }
            series.push((labels, sample.value.clone()));
        }
        Ok(RuleAnswer::Series(series))
    }

    fn alerts(
        &self,
        alerting: &Alerting,
        samples: &[VectorSample],
        external_labels: &Labels,
        context: &TemplateContext<'_>,
    ) -> Result<RuleAnswer, String> {
        let mut seen = BTreeSet::new();
        let mut alerts = Vec::with_capacity(samples.len());
        let mut template_errors = Vec::new();
        for sample in samples {
            let values = AlertValues { labels: &sample.labels, external_labels, value: &sample.value };
            let mut expand = |template: &Template| {
                template.expand(&values, context).unwrap_or_else(|error| {
                    template_errors.push(error.to_string());
                    format!("<error expanding template: {error}>")
                })
            };
            let mut labels = sample.labels.to_builder();
            labels.remove(METRIC_NAME);
            for (name, template) in self.labels.keys().zip(&alerting.label_templates) {
                labels.set(name, &expand(template));
            }
            labels.set(ALERT_NAME, &self.name);
            let names = alerting.annotations.keys();
            let texts =
                names.zip(&alerting.annotation_templates).map(|(name, template)| (name, expand(template)));
            // Names of a map are not empty and occur once.
            let annotations = Labels::from_pairs(texts).unwrap_or_else(|_| Labels::empty());
            let labels = labels.build();
            if !seen.insert(labels.clone()) {
                return Err(
                    "vector contains metrics with the same labelset after applying alert labels".to_owned()
                );
            }
            let value = match &sample.value {
                SampleValue::Float(value) => *value,
                SampleValue::Histogram(_) => 0.0,
            };
            alerts.push(AnsweredAlert { labels, annotations, value });
        }
        Ok(RuleAnswer::Alerts { alerts, template_errors })
    }
}

/// A sample that ends a series.
pub(crate) fn stale(labels: &Labels, at: Timestamp) -> RuleSample {
    RuleSample { labels: labels.clone(), at, value: SampleValue::Float(model::stale_nan()) }
}
