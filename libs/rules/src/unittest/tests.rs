use std::path::{Path, PathBuf};

use super::*;

/// Runs a file of tests. The first failure of each test that fails, by name; or mistakes of the file.
fn run(path: &Path) -> Result<Vec<(String, Option<TestFailure>)>, Vec<String>> {
    let text = std::fs::read_to_string(path).unwrap();
    let file = UnitTestFile::parse(&text)
        .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let folder = path.parent().unwrap();
    let rules: Vec<(String, String)> = file
        .rule_files
        .iter()
        .map(|name| (name.clone(), std::fs::read_to_string(folder.join(name)).unwrap()))
        .collect();
    let reports = file.run(&rules, &UnitTestOptions::default(), |_| true);
    Ok(reports.into_iter().map(|report| (report.name, report.failures.into_iter().next())).collect())
}

fn conformance() -> Option<PathBuf> {
    let folder = std::env::var_os("ISTHMUS_CONFORMANCE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance"),
        PathBuf::from,
    );
    let folder = folder.join("rules/unittest");
    if !folder.exists() {
        println!("skipped: {} does not exist", folder.display());
    }
    folder.exists().then_some(folder)
}

#[test]
fn recorded_unit_tests_pass_or_fail_as_in_prometheus() {
    let Some(folder) = conformance() else { return };
    // The tests that fail, by name, with a part of the first failure.
    let check = |name: &str, expected: &[(&str, &str)]| {
        let reports = run(&folder.join(name)).unwrap_or_else(|mistakes| panic!("{name}: {mistakes:?}"));
        let failed: Vec<(&str, String)> = reports
            .iter()
            .filter_map(|(test, failure)| {
                let failure = failure.as_ref()?;
                Some((test.as_str(), format!("{}: {}", failure.what, failure.differences.join("\n"))))
            })
            .collect();
        let names: Vec<&str> = failed.iter().map(|(test, _)| *test).collect();
        assert_eq!(names, expected.iter().map(|(test, _)| *test).collect::<Vec<_>>(), "{name}: {failed:#?}");
        for ((_, text), (_, part)) in failed.iter().zip(expected) {
            assert!(text.contains(part), "{name}: {text}");
        }
    };
    for name in [
        "unittest.yml",
        "at-modifier-test.yml",
        "negative-offset-test.yml",
        "long-period.yml",
        "no-test-group-interval.yml",
        "start-time-test.yml",
    ] {
        check(name, &[]);
    }
    check("rules_run.yml", &[("wrong test", "test after 0s: - test 1\n+ test 0")]);
    check("rules_run_fuzzy.yml", &[("wrong fuzzy match", "- test_low 3")]);
    check("rules_run_no_fuzzy.yml", &[("correct fuzzy match", "+ test_low 2.9999999999999996")]);
    check("bad-rules-syntax-test.yml", &[("unnamed#0", "")]);
    check("bad-rules-error-test.yml", &[("unnamed#0", "")]);
    check("bad-promql.yml", &[("unnamed#0", "found duplicate series for the match group")]);
    check("rules_run_extrafields.yml", &[("extra ownership field test", "namespace: unknown field")]);
    let reports = run(&folder.join("failing.yml")).unwrap();
    assert!(reports.iter().any(|(_, failure)| failure.is_some()), "{reports:?}");
    let mistakes = run(&folder.join("bad-input-series.yml")).unwrap_err();
    assert!(
        mistakes[0].contains("line 3: series: 1:47: parse error: unexpected end of input"),
        "{mistakes:?}"
    );
}

#[test]
fn every_mistake_of_a_file_is_reported_with_its_line() {
    let text = "
evaluation_interval: often
group_eval_order: [a, b, a]
rules: x
tests:
- interval: 1m
  start_timestamp: tomorrow
  input_series:
  - series: 'up{'
  - series: up
    values: 1+x3
  - values: 1
  alert_rule_test:
  - eval_time: 5m
  promql_expr_test:
  - eval_time: 1m
    exp_samples: [{labels: 'a{', value: x, histogram: '1'}]
";
    let mistakes: Vec<String> =
        UnitTestFile::parse(text).unwrap_err().iter().map(ToString::to_string).collect();
    let lines: Vec<&str> = mistakes.iter().map(|mistake| mistake.split(": ").next().unwrap()).collect();
    assert_eq!(
        lines,
        [
            "line 2", "line 3", "line 4", "line 7", "line 9", "line 11", "line 12", "line 14", "line 16",
            "line 17", "line 17", "line 17"
        ],
        "{mistakes:#?}"
    );
}

#[test]
fn a_failure_names_what_is_missing_and_what_is_too_much() {
    let text = "
rule_files: [r.yml]
tests:
- name: t
  interval: 1m
  input_series:
  - {series: 'up{job=\"a\"}', values: 0x10}
  - {series: 'up{job=\"b\"}', values: 1x10}
  alert_rule_test:
  - eval_time: 2m30s
    alertname: Down
    exp_alerts:
    - exp_labels: {job: b}
      exp_annotations: {text: hello}
  - {eval_time: 2m, alertname: Nope, exp_alerts: [{}]}
  promql_expr_test:
  - {expr: up, eval_time: 1m, exp_samples: [{labels: 'up{job=\"a\"}', value: 0}, {labels: 'up{job=\"c\"}', value: .inf}]}
  - {expr: '0 / up', eval_time: 1m, exp_samples: [{labels: '{job=\"a\"}', value: .NaN}, {labels: '{job=\"b\"}', value: 0}]}
";
    let rules =
        "groups: [{name: g, rules: [{alert: Down, expr: up == 0, annotations: {text: '{{ $value }}'}}]}]";
    let file = UnitTestFile::parse(text).unwrap();
    let rules = [("r.yml".to_owned(), rules.to_owned())];
    let reports = file.run(&rules, &UnitTestOptions::default(), |_| true);
    assert_eq!((reports[0].name.as_str(), reports[0].checks), ("t", 4));
    let failures: Vec<String> = reports[0]
        .failures
        .iter()
        .map(|failure| format!("{:?} {}\n{}", failure.line, failure.what, failure.differences.join("\n")))
        .collect();
    assert_eq!(
        failures,
        [
            "Some(10) alert Down after 2m30s\n- {alertname=\"Down\", job=\"b\"}\n-     text: \"hello\"\n\
             + {alertname=\"Down\", job=\"a\"}\n+     text: \"0\"",
            "Some(15) alert Nope after 2m\n- {alertname=\"Nope\"}\nno rule defines the alert \"Nope\"",
            "Some(17) up after 1m\n- up{job=\"c\"} +Inf\n+ up{job=\"b\"} 1",
        ]
    );
    assert_eq!(file.run(&rules, &UnitTestOptions::default(), |name| name != "t"), []);
}

#[test]
fn samples_of_the_future_are_not_seen() {
    let text = "
rule_files: [r.yml]
tests:
- input_series: [{series: x, values: 0+1x10}]
  promql_expr_test:
  - {expr: r, eval_time: 3m, exp_samples: [{labels: r, value: 3}]}
";
    let rules = "groups: [{name: g, rules: [{record: r, expr: x offset -2m}]}]";
    let file = UnitTestFile::parse(text).unwrap();
    let reports = file.run(&[("r.yml".to_owned(), rules.to_owned())], &UnitTestOptions::default(), |_| true);
    assert_eq!(reports[0].failures, []);
}

#[test]
fn no_mutation_of_a_file_causes_a_panic() {
    let text = include_str!("tests/example.yml");
    let mut seed = 0x0123_4567_89ab_cdef_u64;
    let mut random = |bound: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % bound.max(1) as u64) as usize
    };
    let mut ran = 0;
    for _ in 0..1500 {
        let mut mutated: Vec<char> = text.chars().collect();
        for _ in 0..=random(3) {
            let at = random(mutated.len());
            match random(3) {
                0 => drop(mutated.remove(at)),
                1 => mutated.insert(at, [':', '-', '{', '}', '"', ' ', '1', 'x', '_'][random(9)]),
                _ => mutated[at] = ['0', 'm', '[', ' ', '\n', '+'][random(6)],
            }
        }
        let mutated: String = mutated.into_iter().collect();
        if let Ok(file) = UnitTestFile::parse(&mutated) {
            let rules = "groups: [{name: g, rules: [{alert: A, expr: up == 0, for: 2m}]}]".to_owned();
            file.run(&[("r.yml".to_owned(), rules)], &UnitTestOptions::default(), |_| true);
            ran += 1;
        }
    }
    assert!(ran > 30, "only {ran} mutated files ran");
}
