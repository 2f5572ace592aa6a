//! What a template gets from its caller.

use model::{Labels, Timestamp};
use promql::{SampleValue, VectorSample};

/// Evaluates a query of a template at an instant.
pub type TemplateQuery<'a> = dyn Fn(&str, Timestamp) -> Result<Vec<VectorSample>, String> + 'a;

/// What a template knows of its alert.
#[derive(Clone, Debug)]
pub struct AlertValues<'a> {
    /// The labels of the sample, with its metric name and without the labels of the rule.
    pub labels: &'a Labels,
    /// The external labels of the program.
    pub external_labels: &'a Labels,
    /// The value of the sample.
    pub value: &'a SampleValue,
}

/// What a template can ask for.
pub struct TemplateContext<'a> {
    /// The time of the evaluation.
    pub time: Timestamp,
    /// Where users reach the program.
    pub external_url: &'a str,
    /// Answers the queries of the template.
    pub query: &'a TemplateQuery<'a>,
}

impl std::fmt::Debug for TemplateContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TemplateContext").field("time", &self.time).finish_non_exhaustive()
    }
}
