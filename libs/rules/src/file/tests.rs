use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::rule::PartialResponse;

fn mistakes(text: &str) -> Vec<String> {
    mistakes_with(text, NameScheme::Utf8)
}

fn mistakes_with(text: &str, names: NameScheme) -> Vec<String> {
    let options = RuleFileOptions { names, ..RuleFileOptions::default() };
    match RuleFile::parse(text, &options) {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes.iter().map(ToString::to_string).collect(),
    }
}

/// The recorded files, or `None` where they are not installed.
fn conformance() -> Option<PathBuf> {
    let folder = std::env::var_os("ISTHMUS_CONFORMANCE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance"),
        PathBuf::from,
    );
    let folder = folder.join("rules");
    if !folder.exists() {
        println!("skipped: {} does not exist", folder.display());
    }
    folder.exists().then_some(folder)
}

#[test]
fn a_file_is_read_with_all_its_fields() {
    let text = r#"
groups:
  - name: g
    interval: 30s
    query_offset: 1m
    limit: 10
    partial_response_strategy: Warn
    labels: {team: core, severity: none}
    rules:
      - record: job:up:sum
        expr: sum by(job) (up)
        labels: {version: 1.50, empty: ""}
      - alert: Down
        expr: up == 0
        for: 5m
        keep_firing_for: 1h30m
        labels: {severity: "{{ $labels.job }}"}
        annotations:
          summary: "{{ $labels.instance }} is down"
          "ünusual name": yes
  - name: empty
"#;
    let file = RuleFile::parse(text, &RuleFileOptions::default()).unwrap();
    let [group, empty] = &file.groups[..] else { panic!("{file:?}") };
    assert_eq!((group.name.as_str(), group.limit, empty.rules.len()), ("g", 10, 0));
    assert_eq!(group.interval.map(|i| i.as_secs()), Some(30));
    assert_eq!(group.query_offset.map(|i| i.as_secs()), Some(60));
    assert_eq!(
        (group.partial_response, empty.partial_response),
        (PartialResponse::Warn, PartialResponse::Abort)
    );
    let [record, alert] = &group.rules[..] else { panic!("{group:?}") };
    assert_eq!((record.name.as_str(), record.query.as_str()), ("job:up:sum", "sum by (job) (up)"));
    let labels = |rule: &Rule| format!("{:?}", rule.labels);
    assert_eq!(labels(record), r#"{"empty": "", "severity": "none", "team": "core", "version": "1.50"}"#);
    assert_eq!(labels(alert), r#"{"severity": "{{ $labels.job }}", "team": "core"}"#);
    let settings = alert.alerting().unwrap();
    assert_eq!((settings.hold.as_secs(), settings.keep_firing_for.as_secs()), (300, 5400));
    assert_eq!(settings.annotations["ünusual name"], "yes");
    assert_eq!((record.line, alert.line), (Some(10), Some(13)));
}

#[test]
fn every_mistake_is_reported_with_its_place_and_remedy() {
    let text = r#"
groups:
  - name: a
    interval: 5
    limits: 3
    rules:
      - record: "x{y}"
        expr: rate(x)
        for: 1m
        annotations: {a: b}
      - alert: Hot
        record: y
        expr: up
        labels: {__name__: z, "": q, ok: "{{ $label.x }}"}
        annotation: {summary: typo}
      - expr: ""
  - name: a
    partial_response_strategy: maybe
  - rules: nothing
  - 5
"#;
    let expected = [
        r#"line 4: group "a": interval: "5" is not a duration; write it as 30s, 5m or 1h30m"#,
        r#"line 5: group "a": limits: unknown field; known fields: name, interval, query_offset, limit, partial_response_strategy, labels, rules"#,
        r#"line 7: group "a", rule 1 "x{y}": record: braces in the name "x{y}"; put selectors into expr, and labels of the result into labels"#,
        r#"line 8: group "a", rule 1 "x{y}": expr: could not parse expression: 1:6: parse error: expected type range vector in call to function "rate", got instant vector"#,
        r#"line 9: group "a", rule 1 "x{y}": for: only alerting rules have this field; remove it from the recording rule"#,
        r#"line 10: group "a", rule 1 "x{y}": annotations: only alerting rules have this field; remove it from the recording rule"#,
        r#"line 11: group "a", rule 2 "Hot": alert: a rule has only one of 'record' and 'alert'; make two rules of it"#,
        r#"line 14: group "a", rule 2 "Hot": labels: invalid label name ""; it must not be empty"#,
        r#"line 14: group "a", rule 2 "Hot": labels: invalid label name "__name__"; the name of a rule is in its field record or alert"#,
        r#"line 14: group "a", rule 2 "Hot": labels.ok: template: __alert_Hot:1: undefined variable "$label""#,
        r#"line 15: group "a", rule 2 "Hot": annotation: unknown field; known fields: record, alert, expr, for, keep_firing_for, labels, annotations"#,
        r#"line 16: group "a", rule 3: one of 'record' or 'alert' must be set; 'record' names a series, 'alert' names alerts"#,
        r#"line 16: group "a", rule 3: expr: must be set; write the expression of the rule"#,
        r#"line 17: group "a": name: group "a" is defined twice, first at line 3; names of groups must be unique in a file"#,
        r#"line 18: group "a": partial_response_strategy: "maybe" is not a strategy; write warn or abort"#,
        r#"line 19: group "3": name: is missing"#,
        r#"line 19: group "3": rules: expected a list, found text"#,
        r#"line 20: group "4": expected a mapping of fields, found a number"#,
    ];
    let mut found = mistakes(text);
    let mut wanted: Vec<String> = expected.map(str::to_owned).to_vec();
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted, "\nfound:\n{}", found.join("\n"));
}

#[test]
fn text_that_is_not_yaml_is_one_mistake_with_its_line() {
    for text in
        ["groups: [", "a: b: c", "groups:\n  - name: a\n   bad: x", "- 1", "groups:\n- name: a\n  name: b"]
    {
        let found = mistakes(text);
        assert!(!found.is_empty(), "{text:?} is accepted");
    }
    assert_eq!(mistakes(""), [""; 0]);
    assert_eq!(mistakes("groups:"), [""; 0]);
}

#[test]
fn rules_with_the_name_and_labels_of_an_earlier_rule_are_named() {
    let text = "groups:
- name: a
  labels: {x: y}
  rules:
  - {record: r, expr: '1'}
  - {record: r, expr: '2', labels: {z: a}}
  - {alert: r, expr: '2'}
- name: b
  rules:
  - {record: r, expr: '3', labels: {x: y}}
";
    let file = RuleFile::parse(text, &RuleFileOptions::default()).unwrap();
    let found: Vec<String> = file.duplicates().iter().map(ToString::to_string).collect();
    let expected = r#"line 10: group "b", rule 1 "r": has the name and the labels of the rule at line 5; give one of them another name or another label"#;
    assert_eq!(found, [expected]);
}

/// Files whose name ends in `.bad.yaml` are refused, the others are accepted; `legacy` in a name asks for names as before
/// Prometheus 3.
#[test]
fn recorded_rule_files_are_accepted_or_refused_as_in_prometheus() {
    let Some(folder) = conformance() else { return };
    let mut files = 0;
    for entry in std::fs::read_dir(folder.join("rulefmt")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let names = if name.starts_with("legacy") { NameScheme::Legacy } else { NameScheme::Utf8 };
        let found = mistakes_with(&std::fs::read_to_string(&path).unwrap(), names);
        assert_eq!(found.is_empty(), !name.contains(".bad."), "{name}: {found:?}");
        files += 1;
    }
    let is_rules = |text: &str| text.contains("\ngroups:") || text.starts_with("groups:");
    for entry in std::fs::read_dir(folder.join("unittest")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if is_rules(&text) {
            let found = mistakes(&text);
            let is_bad =
                matches!(name.as_str(), "rules-bad.yml" | "bad-rules-syntax.yml" | "rules_extrafields.yml");
            assert_eq!(found.is_empty(), !is_bad, "{name}: {found:?}");
            files += 1;
        }
    }
    assert!(files > 20, "only {files} files were read");
}

/// Files that use only fields of Prometheus 2.42, and whether they are valid with the names of that version.
const TABLE: &[(&str, bool)] = &[
    ("groups: [{name: a, rules: [{record: r, expr: '1'}]}]", true),
    ("groups: [{name: a, rules: [{record: r, expr: 1}]}]", true),
    ("groups: [{name: 5, rules: [{record: 7, expr: 1}]}]", false),
    ("groups: [{name: 5, rules: [{alert: 7, expr: 1}]}]", true),
    ("groups: [{name: a, rules: [{alert: a, expr: 1, for: 0}]}]", true),
    ("groups: [{name: a, rules: [{alert: a, expr: 1, for: 5}]}]", false),
    ("groups: [{name: a, rules: [{alert: a, expr: 1, for: 1m30s}]}]", true),
    ("groups: [{name: a, rules: [{alert: a, expr: 1, for: 30s1m}]}]", false),
    ("groups: [{name: a, rules: [{alert: a, expr: 1, for: -1m}]}]", false),
    ("groups: [{name: a, interval: 1h, limit: 5, rules: []}]", true),
    ("groups: [{name: a, limit: x}]", false),
    ("groups: [{name: a, limit: -1}]", true),
    ("groups: [{name: ''}]", false),
    ("groups: [{rules: []}]", false),
    ("groups: [{name: a}, {name: a}]", false),
    ("groups: [{name: a, rules: [{record: r, alert: a, expr: 1}]}]", false),
    ("groups: [{name: a, rules: [{record: r}]}]", false),
    ("groups: [{name: a, rules: [{record: r, expr: ''}]}]", false),
    ("groups: [{name: a, rules: [{record: r, expr: 'sum('}]}]", false),
    ("groups: [{name: a, rules: [{record: r, expr: 1, for: 1m}]}]", false),
    ("groups: [{name: a, rules: [{record: r, expr: 1, for: 0s}]}]", true),
    ("groups: [{name: a, rules: [{record: r, expr: 1, annotations: {a: b}}]}]", false),
    ("groups: [{name: a, rules: [{record: r, expr: 1, annotations: {}}]}]", true),
    ("groups: [{name: a, rules: [{record: r, expr: 1, labels: {__name__: x}}]}]", false),
    ("groups: [{name: a, rules: [{record: r, expr: 1, labels: {a: 1, b: true, c: 1.50, d: ~}}]}]", true),
    ("groups: [{name: a, rules: [{record: r, expr: 1, labels: [a]}]}]", false),
    ("groups: [{name: a, rules: [{alert: a, expr: 1, labels: {a: '{{ .Labels.x }}'}}]}]", true),
    ("groups: [{name: a, rules: [{alert: a, expr: 1, labels: {a: '{{ nope }}'}}]}]", false),
    ("groups: [{name: a, rules: [{alert: a, expr: 1, annotations: {a: '{{ if }}'}}]}]", false),
    ("groups: [{name: a, rules: [{alert: a, expr: 1, annotations: {a: '{{ $x }}'}}]}]", false),
    ("groups: [{name: a, rules: [{alert: a, expr: 1, annotations: {a: '{{'}}]}]", false),
    (
        "groups: [{name: a, rules: [{alert: a, expr: 1, annotations: {a: '{{ query \"up\" | first | value | humanize }}'}}]}]",
        true,
    ),
    ("groups: [{name: a, rules: [{record: r, expr: 1, labels: {a: '{{ nope }}'}}]}]", true),
    ("groups: [{name: a, rules: [{alert: 'a b', expr: 1}]}]", true),
    ("groups: [{name: a, rules: [{record: r, expr: 1, unknown: 1}]}]", false),
    ("groups: [{name: a, unknown: 1}]", false),
    ("unknown: 1", false),
    ("groups: {}", false),
    ("groups: [5]", false),
    ("groups: [{name: a, rules: [5]}]", false),
    ("groups: [{name: a, name: b}]", false),
    ("", true),
    ("groups: ~", true),
];

#[test]
#[expect(clippy::disallowed_methods, reason = "the test asks promtool")]
fn files_are_valid_exactly_where_promtool_says_so() {
    let promtool = Command::new("promtool").arg("--version").output().is_ok();
    if !promtool {
        println!("promtool is not installed: files are not compared with it");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.yml");
    for (text, valid) in TABLE {
        let found = mistakes_with(text, NameScheme::Legacy);
        assert_eq!(found.is_empty(), *valid, "{text}: {found:?}");
        if promtool {
            std::fs::write(&path, text).unwrap();
            let output = Command::new("promtool").arg("check").arg("rules").arg(&path).output().unwrap();
            let answer = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.success(), *valid, "promtool differs: {text}: {answer}");
        }
    }
}

#[test]
fn no_mutation_of_a_file_causes_a_panic() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |bound: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % bound.max(1) as u64) as usize
    };
    for _ in 0..3000 {
        let mut text: Vec<char> = TABLE[random(TABLE.len())].0.chars().collect();
        for _ in 0..=random(4) {
            let at = random(text.len() + 1);
            match random(3) {
                0 if at < text.len() => drop(text.remove(at)),
                1 => text.truncate(at),
                _ => text.insert(
                    at,
                    ['{', '}', '[', ']', ':', ',', '&', '*', '\'', '\n', '-', '!', '|', 'é'][random(14)],
                ),
            }
        }
        let text: String = text.into_iter().collect();
        let _ = RuleFile::parse(&text, &RuleFileOptions::default());
    }
}
