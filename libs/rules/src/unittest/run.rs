//! Runs a unit test.

use std::collections::BTreeSet;
use std::time::Duration;

use model::{Labels, Timestamp};

use crate::alerts::AlertPhase;
use crate::file::RuleFile;
use crate::group::{Group, GroupOptions};
use crate::restore::RestoreOptions;
use crate::simulation::Simulation;
use crate::unittest::compare;
use crate::unittest::definition::{AlertTest, InputSeries, TestDefinition, UnitTestFile, UnitTestOptions};

/// What became of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestReport {
    /// Its name, or its number.
    pub name: String,
    /// Number of things that were checked.
    pub checks: usize,
    /// What failed.
    pub failures: Vec<TestFailure>,
}

/// Something that is not as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestFailure {
    /// Its line in the file of tests.
    pub line: Option<u64>,
    /// What was checked.
    pub what: String,
    /// What is wrong, in lines: those with `-` are missing, those with `+` are too much.
    pub differences: Vec<String>,
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Series of which the samples up to the present were loaded.
struct Loading<'t> {
    series: &'t [InputSeries],
    interval_millis: i64,
    start: Timestamp,
    /// Number of values of each series that were loaded.
    loaded: usize,
}

impl Loading<'_> {
    /// Loads the samples up to `until`.
    fn load(&mut self, simulation: &mut Simulation, until: Timestamp) -> Result<(), String> {
        let longest = self.series.iter().map(|series| series.values.len()).max().unwrap_or(0);
        while self.loaded < longest {
            let offset = self.interval_millis.saturating_mul(i64::try_from(self.loaded).unwrap_or(i64::MAX));
            let at = self.start.offset_millis(offset);
            if at > until {
                break;
            }
            for series in self.series {
                let value = series.values.get(self.loaded..=self.loaded).unwrap_or_default();
                let appended = simulation.storage.append_sequence(&series.labels, at, 1, value);
                appended.map_err(|error| error.to_string())?;
            }
            self.loaded += 1;
        }
        Ok(())
    }
}

/// Runs one test.
pub(super) fn run(
    file: &UnitTestFile,
    test: &TestDefinition,
    rules: &[(String, String)],
    options: &UnitTestOptions,
) -> TestReport {
    let mut report = TestReport {
        name: test.name.clone(),
        checks: test.alerts.len() + test.queries.len(),
        failures: Vec::new(),
    };
    if let Err(failure) = checked(file, test, rules, options, &mut report) {
        report.failures.push(failure);
    }
    report
}

/// Runs a test to its end. Only a failure that ends it early is an error.
fn checked(
    file: &UnitTestFile,
    test: &TestDefinition,
    rules: &[(String, String)],
    options: &UnitTestOptions,
    report: &mut TestReport,
) -> Result<(), TestFailure> {
    let mut groups = groups(file, test, rules, options)?;
    let mut simulation = Simulation {
        engine: options.engine.clone(),
        external_labels: test.external_labels.clone(),
        external_url: test.external_url.clone(),
        ..Simulation::default()
    };
    simulation.engine.subquery_step = file.evaluation_interval;
    let interval_millis = millis(test.interval);
    let mut loading = Loading { series: &test.series, interval_millis, start: test.start, loaded: 0 };
    let ends =
        test.alerts.iter().map(|alert| alert.after).chain(test.queries.iter().map(|query| query.after));
    let end = millis(ends.max().unwrap_or_default());
    let step = millis(file.evaluation_interval).max(1);
    let mut after = 0;
    while after <= end {
        let at = test.start.offset_millis(after);
        loading.load(&mut simulation, at).map_err(|why| stopped("input_series", vec![why]))?;
        evaluate(&mut simulation, &mut groups, at, after)?;
        let due = |alert: &&AlertTest| (after..after.saturating_add(step)).contains(&millis(alert.after));
        for alert in test.alerts.iter().filter(due) {
            check_alerts(&groups, alert, report);
        }
        after = after.saturating_add(step);
    }
    for query in &test.queries {
        let at = test.start.offset_millis(millis(query.after));
        let what = format!("{} after {}", query.query.trim(), shown(query.after));
        let differences = match simulation.query(&query.query, at) {
            Ok(found) => compare::samples(&query.expected, &found, file.fuzzy_compare),
            Err(error) => vec![error],
        };
        if !differences.is_empty() {
            report.failures.push(TestFailure { line: query.line, what, differences });
        }
    }
    Ok(())
}

fn stopped(what: &str, differences: Vec<String>) -> TestFailure {
    TestFailure { line: None, what: what.to_owned(), differences }
}

/// The groups of all rule files in the order of evaluation.
fn groups(
    file: &UnitTestFile,
    test: &TestDefinition,
    rules: &[(String, String)],
    options: &UnitTestOptions,
) -> Result<Vec<Group>, TestFailure> {
    let group_options = GroupOptions {
        interval: test.interval,
        query_offset: Duration::ZERO,
        resend_delay: Duration::from_secs(60),
        restore: RestoreOptions {
            outage_tolerance: Duration::ZERO,
            grace_period: Duration::ZERO,
            keeps_firing: false,
            ignored_labels: Vec::new(),
        },
        restored: true,
    };
    let mut groups = Vec::new();
    for (name, text) in rules {
        let parsed = RuleFile::parse(text, &options.rules)
            .map_err(|mistakes| stopped(name, mistakes.iter().map(ToString::to_string).collect()))?;
        groups.extend(parsed.groups.into_iter().map(|group| Group::new(name, group, group_options.clone())));
    }
    let place =
        |group: &Group| file.group_eval_order.iter().position(|name| name == group.name()).unwrap_or(0);
    groups.sort_by_key(place);
    Ok(groups)
}

fn evaluate(
    simulation: &mut Simulation,
    groups: &mut [Group],
    at: Timestamp,
    after: i64,
) -> Result<(), TestFailure> {
    let mut errors = Vec::new();
    for group in groups {
        simulation.evaluate(group, at);
        for (rule, state) in group.rules().iter().zip(group.states()) {
            if let Some(error) = &state.last_error {
                errors.push(format!("group {:?}, rule {:?}: {error}", group.name(), rule.name));
            }
        }
    }
    match errors.is_empty() {
        true => Ok(()),
        false => {
            let after = Duration::from_millis(u64::try_from(after).unwrap_or(0));
            Err(stopped(&format!("evaluation after {}", shown(after)), errors))
        }
    }
}

fn check_alerts(groups: &[Group], test: &AlertTest, report: &mut TestReport) {
    let rules = groups.iter().flat_map(|group| group.rules().iter().zip(group.states()));
    let of_name = rules.filter(|(rule, _)| rule.alerting().is_some() && rule.name == test.name);
    let firing =
        of_name.flat_map(|(_, state)| state.alerts()).filter(|alert| alert.phase == AlertPhase::Firing);
    let found: Vec<(Labels, Labels)> =
        firing.map(|alert| (alert.labels.clone(), alert.annotations.clone())).collect();
    let mut differences = compare::alerts(&test.expected, &found);
    if differences.is_empty() {
        return;
    }
    let names: BTreeSet<&str> = groups
        .iter()
        .flat_map(Group::rules)
        .filter(|rule| rule.alerting().is_some())
        .map(|rule| rule.name.as_str())
        .collect();
    if !names.contains(test.name.as_str()) {
        differences.push(format!("no rule defines the alert {:?}", test.name));
    }
    let what = format!("alert {} after {}", test.name, shown(test.after));
    report.failures.push(TestFailure { line: test.line, what, differences });
}

/// A length of time as it is written in files.
fn shown(duration: Duration) -> String {
    let mut rest = duration.as_millis();
    let mut text = String::new();
    for (unit, length) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
        if rest >= length {
            text += &format!("{}{unit}", rest / length);
            rest %= length;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}
