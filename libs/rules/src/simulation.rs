//! Evaluates groups on series in memory, at times that the caller passes: for the unit tests of rules.

use model::{Labels, Sample, Timestamp};
use promql::promqltest::{Storage, StorageError};
use promql::{EngineOptions, Query, QueryParams, SampleValue, VectorSample};

use crate::alerts::SentAlert;
use crate::answer::{RuleSample, samples_of};
use crate::group::Group;
use crate::template::TemplateContext;

/// Series in memory, and what groups need to be evaluated on them.
#[derive(Debug)]
pub struct Simulation {
    /// The series.
    pub storage: Storage,
    /// The settings of the engine. Data are small, so one worker is best.
    pub engine: EngineOptions,
    /// External labels, for templates.
    pub external_labels: Labels,
    /// The external URL, for templates.
    pub external_url: String,
}

/// What an evaluation of a group did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Simulated {
    /// Alerts that were sent.
    pub alerts: Vec<SentAlert>,
    /// Errors of templates.
    pub template_errors: Vec<String>,
}

impl Default for Simulation {
    fn default() -> Self {
        Self {
            storage: Storage::new(),
            engine: EngineOptions { workers: 1, ..EngineOptions::default() },
            external_labels: Labels::empty(),
            external_url: String::new(),
        }
    }
}

impl Simulation {
    /// Evaluates a query at one instant.
    ///
    /// # Errors
    /// The error of the engine, or the value is a string or a matrix.
    pub fn query(&self, text: &str, at: Timestamp) -> Result<Vec<VectorSample>, String> {
        let query =
            Query::plan(text, &QueryParams::instant(at), &self.engine).map_err(|error| error.to_string())?;
        let evaluate = || {
            let mut evaluation = query.evaluation();
            while let Some(id) = evaluation.next_select() {
                let select = evaluation.select(id);
                evaluation.push(id, self.storage.select(&select.matchers, select.range))?;
                evaluation.end_select(id)?;
            }
            evaluation.finish()
        };
        samples_of(evaluate().map_err(|error| error.to_string())?.value)
    }

    /// Evaluates all rules of `group`, one by one, and stores their samples.
    pub fn evaluate(&mut self, group: &mut Group, at: Timestamp) -> Simulated {
        let mut simulated = Simulated::default();
        for index in 0..group.rules().len() {
            let query_time = group.query_time(at);
            let rule = &group.rules()[index];
            let answer = self.query(&rule.query, query_time).and_then(|samples| {
                let query = |text: &str, at: Timestamp| self.query(text, at);
                let context = TemplateContext { time: at, external_url: &self.external_url, query: &query };
                rule.answer(&samples, &self.external_labels, &context)
            });
            let failed = answer.is_err();
            let applied = group.apply(index, at, answer);
            simulated.alerts.extend(applied.alerts);
            if failed || group.states()[index].last_error.is_some() {
                continue;
            }
            simulated.template_errors.extend(applied.errors);
            let mut rejected = Vec::new();
            for (at, sample) in applied.samples.iter().enumerate() {
                if let Err(error) = self.store(sample) {
                    rejected.push((at, error.to_string()));
                }
            }
            for marker in group.stored(index, at, &applied.samples, &rejected) {
                // Another rule may write the series.
                let _ = self.store(&marker);
            }
        }
        for marker in group.finish(at, std::time::Duration::ZERO) {
            let _ = self.store(&marker);
        }
        simulated
    }

    fn store(&mut self, sample: &RuleSample) -> Result<(), StorageError> {
        match &sample.value {
            SampleValue::Float(value) => {
                self.storage.append_float(&sample.labels, Sample { timestamp: sample.at, value: *value })
            }
            SampleValue::Histogram(histogram) => {
                self.storage.append_histogram(&sample.labels, sample.at, histogram)
            }
        }
    }
}
