//! Unit tests of rules, in the format of `promtool test rules`.
//!
//! Reading order: `definition` (what a file says), `read` (how it is read), `run` (how a test runs), `compare` (what is expected and what
//! came), then this file.

mod compare;
mod definition;
mod read;
mod run;
#[cfg(test)]
mod tests;

pub use definition::{TestDefinition, UnitTestFile, UnitTestOptions};
pub use run::{TestFailure, TestReport};

impl UnitTestFile {
    /// Runs the tests whose name `selects` accepts. `rules` are the names and texts of the rule files.
    pub fn run(
        &self,
        rules: &[(String, String)],
        options: &UnitTestOptions,
        selects: impl Fn(&str) -> bool,
    ) -> Vec<TestReport> {
        let tests = self.tests.iter().filter(|test| selects(&test.name));
        tests.map(|test| run::run(self, test, rules, options)).collect()
    }
}
