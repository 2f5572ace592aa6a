use std::collections::BTreeMap;

use model::{FloatHistogram, Labels, Timestamp};
use promql::{SampleValue, VectorSample};

use super::*;

/// Templates and what Prometheus makes of them: one JSON object in each line, written by a Go program that calls
/// `template.NewTemplateExpander` of Prometheus 3.9 with the alert and the queries below.
const CASES: &str = include_str!("tests/cases.json");

fn query(text: &str, at: Timestamp) -> Result<Vec<VectorSample>, String> {
    let sample = |pairs: &[(&str, &str)], value| {
        let labels = Labels::from_pairs(pairs.iter().copied()).unwrap();
        VectorSample { labels, timestamp: at, value }
    };
    let metric = |instance: &str, value| {
        let given = format!("v{instance}");
        let pairs = [("__name__", "metric"), ("instance", instance), ("__value__", given.as_str())];
        sample(&pairs, SampleValue::Float(value))
    };
    match text {
        "metric" => Ok(vec![metric("b", 21.0), metric("a", 11.0)]),
        "missing" => Ok(Vec::new()),
        "hist" => {
            let histogram = FloatHistogram {
                count: 3.0,
                sum: 10.0,
                zero_count: 3.0,
                zero_threshold: 0.5,
                ..FloatHistogram::default()
            };
            Ok(vec![sample(&[("x", "y")], SampleValue::Histogram(histogram.into()))])
        }
        other => Err(format!("no such query: {other}")),
    }
}

fn expanded(text: &str) -> Result<String, String> {
    let template =
        Template::parse("A", text).map_err(|error| format!("error parsing template __alert_A: {error}"))?;
    let pairs = [("__name__", "up"), ("instance", "web-1:9090"), ("job", "api"), ("odd-name", "x")];
    let labels = Labels::from_pairs(pairs).unwrap();
    let external_labels = Labels::from_pairs([("cluster", "eu-1")]).unwrap();
    let value = SampleValue::Float(1_234_567.25);
    let context = TemplateContext {
        time: Timestamp::from_millis(1_353_755_652_123),
        external_url: "http://prom.example:9090/pre",
        query: &query,
    };
    let alert = AlertValues { labels: &labels, external_labels: &external_labels, value: &value };
    template.expand(&alert, &context).map_err(|error| error.to_string())
}

#[test]
fn templates_have_the_output_and_the_errors_of_prometheus() {
    let cases: Vec<BTreeMap<String, String>> = serde_json::from_str(CASES).unwrap();
    let mut wrong = Vec::new();
    for case in &cases {
        let expected = match case.get("error") {
            Some(error) => Err(error.clone()),
            None => Ok(case.get("output").cloned().unwrap_or_default()),
        };
        let found = expanded(&case["text"]);
        if found != expected {
            wrong.push(format!("{:?}\n  expected {expected:?}\n  found    {found:?}", case["text"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn what_differs_from_go_is_refused_or_printed_in_another_form() {
    let refused =
        "error parsing template __alert_A: template: __alert_A:1: complex numbers are not supported: 1+2i";
    assert_eq!(expanded("{{ 1+2i }}"), Err(refused.to_owned()));
    // Go prints the number as hexadecimal, and the address of the duration.
    assert_eq!(expanded(r#"{{ printf "%x" 3.5 }}"#), Ok("%!x(float64=3.5)".to_owned()));
    assert_eq!(expanded(r#"{{ printf "%d" (toDuration 90) }}"#), Ok("90000000000".to_owned()));
}

#[test]
fn runs_are_bounded_in_steps_depth_and_output() {
    let check = |text: &str, expected: &str| {
        let error = expanded(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    };
    check("{{ range 1000000000 }}{{ end }}", "needs more than 200000 steps");
    check(
        "{{ define \"x\" }}{{ template \"x\" . }}{{ end }}{{ template \"x\" . }}",
        "nested more than 150 levels deep",
    );
    check("{{ range 100 }}{{ printf \"%60000d\" 1 }}{{ end }}", "writes more than 1048576 bytes");
    let doubling = "{{ $x := \"xxxxxxxxxxxxxxxx\" }}{{ range 60 }}{{ $x = print $x $x }}{{ end }}";
    check(doubling, "needs more than 200000 steps");
    check("{{ range 100000 }}{{ $x := query \"missing\" }}{{ end }}", "needs more than 200000 steps");
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(100), ")".repeat(100));
    check(&deep, "nested more than 60 levels deep");
    check(&"{{ if 1 }}".repeat(100), "nested more than 60 levels deep");
}

/// Removes, repeats and swaps pieces of valid templates.
#[test]
fn no_mutation_of_a_template_causes_a_panic() {
    let cases: Vec<BTreeMap<String, String>> = serde_json::from_str(CASES).unwrap();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |bound: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % bound.max(1) as u64) as usize
    };
    let mut ran = 0;
    for _ in 0..20_000 {
        let text: Vec<char> = cases[random(cases.len())]["text"].chars().collect();
        let other: Vec<char> = cases[random(cases.len())]["text"].chars().collect();
        let mut mutated = text.clone();
        for _ in 0..=random(3) {
            let at = random(mutated.len() + 1);
            let end = (at + random(6)).min(mutated.len());
            match random(4) {
                0 => drop(mutated.drain(at..end)),
                1 => drop(mutated.splice(at..at, other.iter().copied().skip(random(other.len())).take(8))),
                2 => mutated.insert(
                    at,
                    ['{', '}', '"', '(', ')', '|', '$', '.', '-', ' ', 'é', '\\', '0', '%'][random(14)],
                ),
                _ => mutated.truncate(end),
            }
        }
        let mutated: String = mutated.into_iter().collect();
        // Huge loops are bounded, but take time.
        if !mutated.contains("000000") {
            ran += usize::from(expanded(&mutated).is_ok());
        }
    }
    assert!(ran > 1000, "only {ran} mutated templates ran");
}
