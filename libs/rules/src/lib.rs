//! Rules: their files, their templates, and what becomes of the answers to their expressions.
//!
//! No I/O, no clock, no async code: the caller reads files, evaluates expressions, stores samples and sends alerts.
//!
//! Reading order: [`Rule`] and [`RuleGroup`] (what a file says), [`RuleFile`] (how it is read), [`Template`]; [`RuleAnswer`] (from
//! samples to series or alerts), [`Alert`] (the states of an alert), [`Group`] (the state of a group), [`RestoreQuery`], [`Schedule`];
//! [`Simulation`] and [`UnitTestFile`] (groups on series in memory).

mod alerts;
mod answer;
mod api;
mod dependencies;
mod file;
mod group;
mod restore;
mod rule;
mod schedule;
mod simulation;
mod template;
mod unittest;

pub use alerts::{Alert, AlertPhase, RESOLVED_RETENTION, SentAlert};
pub use answer::{AnsweredAlert, RuleAnswer, RuleSample, samples_of};
pub use file::{NameScheme, RuleFile, RuleFileOptions, RuleMistake};
pub use group::{Applied, Group, GroupOptions, RuleHealth, RuleState};
pub use restore::{RestoreOptions, RestoreQuery, StoredState};
pub use rule::{Alerting, PartialResponse, Rule, RuleGroup, RuleKind};
pub use schedule::{NextEvaluation, Schedule};
pub use simulation::{Simulated, Simulation};
pub use template::{AlertValues, Template, TemplateContext, TemplateError, TemplateQuery};
pub use unittest::{TestDefinition, TestFailure, TestReport, UnitTestFile, UnitTestOptions};
