//! What a file of unit tests says.

use std::time::Duration;

use model::{Labels, Timestamp};
use promql::EngineOptions;
use promql::promqltest::SequenceValue;

use crate::file::RuleFileOptions;

/// How tests run.
#[derive(Clone, Debug)]
pub struct UnitTestOptions {
    /// How rule files are read.
    pub rules: RuleFileOptions,
    /// The settings of the engine.
    pub engine: EngineOptions,
}

impl Default for UnitTestOptions {
    fn default() -> Self {
        Self {
            rules: RuleFileOptions::default(),
            engine: EngineOptions { workers: 1, ..EngineOptions::default() },
        }
    }
}

/// A file of unit tests, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct UnitTestFile {
    /// Rule files, as they are written: relative to this file, and possibly patterns.
    pub rule_files: Vec<String>,
    /// Time between evaluations.
    pub evaluation_interval: Duration,
    /// Names of groups in the order of evaluation.
    pub group_eval_order: Vec<String>,
    /// Whether values may differ in the last digit.
    pub fuzzy_compare: bool,
    /// The tests.
    pub tests: Vec<TestDefinition>,
}

/// A test: series, and what rules and queries make of them.
#[derive(Clone, Debug, PartialEq)]
pub struct TestDefinition {
    /// Its name, or its number.
    pub name: String,
    /// Its line in the file.
    pub line: Option<u64>,
    pub(super) interval: Duration,
    pub(super) start: Timestamp,
    pub(super) external_labels: Labels,
    pub(super) external_url: String,
    pub(super) series: Vec<InputSeries>,
    pub(super) alerts: Vec<AlertTest>,
    pub(super) queries: Vec<QueryTest>,
}

/// A series that is loaded.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct InputSeries {
    pub(super) labels: Labels,
    pub(super) values: Vec<SequenceValue>,
}

/// The alerts that must fire at an instant.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AlertTest {
    pub(super) line: Option<u64>,
    pub(super) after: Duration,
    pub(super) name: String,
    /// Labels and annotations.
    pub(super) expected: Vec<(Labels, Labels)>,
}

/// The samples that a query must return at an instant.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct QueryTest {
    pub(super) line: Option<u64>,
    pub(super) after: Duration,
    pub(super) query: String,
    pub(super) expected: Vec<(Labels, SequenceValue)>,
}
