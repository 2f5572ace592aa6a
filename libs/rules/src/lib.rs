//! Rules: their files, their templates, and what becomes of the answers to their expressions.
//!
//! No I/O, no clock, no async code: the caller reads files, evaluates expressions, stores samples and sends alerts.
//!
//! Reading order: [`Rule`] and [`RuleGroup`] (what a file says), [`RuleFile`] (how it is read), [`Template`].

mod file;
mod rule;
mod template;

pub use file::{NameScheme, RuleFile, RuleFileOptions, RuleMistake};
pub use rule::{Alerting, PartialResponse, Rule, RuleGroup, RuleKind};
pub use template::{AlertValues, Template, TemplateContext, TemplateError, TemplateQuery};
