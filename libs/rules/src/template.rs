//! Templates of labels and annotations: Go's `text/template` with the functions of Prometheus.
//!
//! A template is parsed when its rule is loaded and runs once for each alert. A run is bounded in what it does, how deep it goes and
//! how much it writes, so a template cannot stop the program. Errors have the text of Prometheus.
//!
//! Reading order: `context`; `token`, `node`, `literal`, `parse`; `value`, `time`, `text`; `format` and `humanize` (text of values);
//! `signature`, `builtins`, `functions`, `fields` (what templates can call); `exec` (how a template runs).

mod builtins;
mod context;
mod exec;
mod fields;
mod format;
mod functions;
mod humanize;
mod literal;
mod node;
mod parse;
mod signature;
#[cfg(test)]
mod tests;
mod text;
mod time;
mod token;
mod value;

use std::rc::Rc;

pub use context::{AlertValues, TemplateContext, TemplateQuery};
pub(crate) use format::scientific;

use crate::template::exec::Machine;
use crate::template::parse::Parsed;
use crate::template::value::{AlertData, Value};

/// What Prometheus puts before every template.
const PRELUDE: &str = "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}{{$externalURL := .ExternalURL}}{{$value := .Value}}";

/// A parsed template.
#[derive(Debug)]
pub struct Template {
    name: String,
    /// The text with the prelude before it.
    text: String,
    /// `None` for text without actions.
    parsed: Option<Parsed>,
}

/// A text is not a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(String);

impl Template {
    /// Parses the template `text` of the alert `alert`.
    ///
    /// # Errors
    /// The message of Go, which names the alert and the line in the template.
    pub fn parse(alert: &str, text: &str) -> Result<Self, TemplateError> {
        let name = format!("__alert_{alert}");
        if !text.contains("{{") {
            return Ok(Self { name, text: text.to_owned(), parsed: None });
        }
        let text = format!("{PRELUDE}{text}");
        let parsed = parse::parse(&name, &text).map_err(TemplateError)?;
        Ok(Self { name, text, parsed: Some(parsed) })
    }

    /// Runs the template.
    ///
    /// # Errors
    /// The message of Prometheus.
    pub fn expand(
        &self,
        alert: &AlertValues<'_>,
        context: &TemplateContext<'_>,
    ) -> Result<String, TemplateError> {
        let Some(parsed) = &self.parsed else { return Ok(self.text.clone()) };
        let dot = Value::Alert(Rc::new(AlertData {
            labels: alert.labels.clone(),
            external_labels: alert.external_labels.clone(),
            external_url: context.external_url.into(),
            value: alert.value.into(),
        }));
        Machine::run(&self.name, &self.text, parsed, context, &dot)
            .map_err(|why| TemplateError(format!("error executing template {}: {why}", self.name)))
    }
}
