//! When metric names are dropped, and expressions of unusual size.

use super::*;

#[test]
fn names_are_dropped_at_once_unless_removal_is_delayed() {
    let series = counters(4);
    let names = |text: &str, delayed_name_removal| {
        let engine = EngineOptions { delayed_name_removal, ..engine() };
        let output = evaluate(text, &series, 128, &params(), &engine)?;
        let QueryValue::Matrix(rows) = output.value else { panic!("{text}") };
        let name = |row: &crate::MatrixSeries| row.labels.metric_name().to_owned();
        Ok::<_, QueryError>(rows.iter().map(name).collect::<Vec<_>>())
    };
    for (text, at_once) in [
        ("sum by (__name__) (rate(requests_total[5m]))", ""),
        ("sum by (__name__) (-requests_total)", ""),
        ("sum by (__name__) (requests_total * 2)", ""),
        ("sum by (__name__) (requests_total > bool 2)", ""),
        ("sum by (__name__) (timestamp(requests_total))", ""),
        ("sum by (__name__) (max_over_time((requests_total)[5m:]))", ""),
        ("sum by (__name__) (last_over_time(requests_total[5m]))", "requests_total"),
        ("sum by (__name__) (requests_total > 2)", "requests_total"),
        ("label_replace(sum(rate(requests_total[5m])), '__name__', 'r', '', '')", "r"),
    ] {
        assert_eq!(names(text, false).unwrap(), [at_once], "{text}");
    }
    assert_eq!(
        names("label_replace(rate(requests_total{job='0'}[5m]), 'n', '$1', '__name__', '(.+)_total')", true),
        Ok(vec![String::new(); 4])
    );
    // Two metrics whose series differ only in the name.
    let renamed = "label_replace(requests_total, '__name__', 'other', '', '')";
    for text in [
        "-(requests_total or on (__name__, instance) {renamed})",
        "sum(abs(requests_total or on (__name__, instance) {renamed}))",
    ] {
        let text = text.replace("{renamed}", renamed);
        assert!(names(&text, false).is_err(), "{text}");
    }
    let text = format!("count(sum by (__name__) (abs(requests_total or on (__name__, instance) {renamed})))");
    assert!(names(&text, false).is_err());
    assert!(names(&text, true).is_ok(), "the names keep the groups distinct until the end");
}

#[test]
fn chains_of_thousands_of_operators_are_evaluated() {
    let series = counters(2);
    let long = |operand: &str, operator: &str, times: usize| vec![operand; times].join(operator);
    for propagate_matchers in [false, true] {
        let engine = EngineOptions { propagate_matchers, ..engine() };
        let value = |text: &str| {
            let at = QueryParams::instant(Timestamp::from_millis(STEP));
            let output = evaluate(text, &series, 128, &at, &engine).unwrap();
            match output.value {
                QueryValue::Scalar(sample) => vec![sample.value],
                QueryValue::Vector(samples) => samples
                    .iter()
                    .map(|sample| match sample.value {
                        crate::SampleValue::Float(value) => value,
                        crate::SampleValue::Histogram(_) => f64::NAN,
                    })
                    .collect(),
                _ => panic!("{text}"),
            }
        };
        assert_eq!(value(&long("1", " + ", 20_000)), [20_000.0]);
        assert_eq!(value(&format!("requests_total * 0{}", " + 1".repeat(19_998))), [19_998.0; 2]);
        assert_eq!(value(&format!("requests_total * 0 + {}", long("1", " * ", 19_998))), [1.0; 2]);
        assert_eq!(value(&long("(requests_total ^ 0)", " + on (instance) ", 4000)), [4000.0; 2]);
        assert_eq!(value(&format!("-({}) / -2", long("requests_total > 1e9", " or ", 6000))), [0.0; 0]);
        assert_eq!(value(&format!("sum({}) ^ 0", long("requests_total", " and ", 15_000))), [1.0]);
        assert_eq!(value(&format!("info({})", long("1 + requests_total * 0", " + ", 6000))), [6000.0; 2]);
        assert_eq!(
            value(&format!("max_over_time(({})[1m:15s])", long("vector(2)", " * on () ", 500)))[0],
            2f64.powi(500)
        );
    }
    let plan = Query::plan(&long("requests_total", " + ", 5000), &params(), &engine()).unwrap().explain();
    assert!(plan.to_string().contains("... and"), "{plan}");
}

#[test]
fn sorting_in_a_range_query_warns_even_with_a_single_step() {
    let series = counters(2);
    let at = Timestamp::from_millis(STEP);
    let told = |text: &str| {
        [0, 1, STEP].map(|length| {
            let params = QueryParams::range(at, at.offset_millis(length), Duration::from_millis(STEP as u64));
            evaluate(text, &series, 128, &params, &engine()).unwrap().annotations.warnings.len()
        })
    };
    assert_eq!(told("sort(requests_total)"), [0, 1, 1]);
    assert_eq!(told("sort(requests_total @ 30)"), [0; 3], "it is sorted only once, at an instant");
}

#[test]
fn scalars_cannot_be_trimmed() {
    for operator in ["</", ">/"] {
        let error = Query::plan(&format!("1 {operator} 2"), &params(), &engine()).unwrap_err();
        assert_eq!(
            error,
            QueryError::execution(format!("operator \"{operator}\" not allowed for Scalar operations"))
        );
    }
}

#[test]
fn the_increase_of_a_counter_at_negative_zero_is_not_negative() {
    let mut encoder = XorEncoder::new();
    for (at, value) in [(0, 0.0), (STEP, -0.0)] {
        encoder.append(Sample::new(at, value)).unwrap();
    }
    let chunks = vec![AggrChunk::raw(encoder.finish().unwrap())];
    let labels = Labels::from_pairs([("__name__", "x_total")]).unwrap();
    let series = [SelectedSeries { labels, replicas: vec![chunks] }];
    let at = QueryParams::instant(Timestamp::from_millis(STEP));
    let value = |text: &str| match evaluate(text, &series, 128, &at, &engine()).unwrap().value {
        QueryValue::Vector(samples) => samples[0].value.clone(),
        other => panic!("{other:?}"),
    };
    for (text, expected) in
        [("increase(x_total[15s] anchored)", 0.0f64), ("delta(x_total[15s] anchored)", -0.0)]
    {
        let crate::SampleValue::Float(found) = value(text) else { panic!("{text}") };
        assert_eq!(found.to_bits(), expected.to_bits(), "{text}");
    }
}

#[test]
fn incompatible_histograms_of_different_workers_name_their_metric() {
    use model::{CUSTOM_BUCKETS_SCHEMA, FloatHistogram};
    let mut storage = crate::promqltest::Storage::new();
    for i in 0..200 {
        let schema = if i < 128 { 0 } else { CUSTOM_BUCKETS_SCHEMA };
        let histogram = FloatHistogram { schema, count: 1.0, ..FloatHistogram::default() };
        let instance = format!("{i:03}");
        let labels = Labels::from_pairs([("__name__", "sizes"), ("instance", instance.as_str())]).unwrap();
        storage.append_histogram(&labels, Timestamp::EPOCH, &std::sync::Arc::new(histogram)).unwrap();
    }
    let at = QueryParams::instant(Timestamp::EPOCH);
    let series = storage.select(&[], TimeRange::ALL);
    let output = evaluate("sum(sizes)", &series, 128, &at, &engine()).unwrap();
    assert_eq!(
        output.annotations.warnings,
        [
            "PromQL warning: vector contains a mix of histograms with exponential and custom buckets schemas for metric \
             name \"sizes\" (1:5)"
        ]
    );
}

#[test]
fn invalid_utf8_is_allowed_in_values_but_not_in_names_or_regexes() {
    let ask =
        |text: &str| evaluate(text, &counters(1), 128, &QueryParams::instant(Timestamp::EPOCH), &engine());
    let QueryValue::String { value, .. } = ask(r#""a\xe2\x98b""#).unwrap().value else {
        panic!("not a string")
    };
    assert_eq!(value, "a\u{fffd}\u{fffd}b");
    let replaced = r#"label_replace(requests_total, "a", "\xff", "job", ".*")"#;
    let QueryValue::Vector(rows) = ask(replaced).unwrap().value else { panic!("not a vector") };
    assert_eq!(rows[0].labels.get("a"), Some("\u{fffd}"));
    for (text, why) in [
        (r#"label_replace(requests_total, "\xff", "", "job", "")"#, "invalid destination label name"),
        (
            r#"label_replace(requests_total, "a", "", "job", "\xff")"#,
            "invalid regular expression in label_replace()",
        ),
        (r#"requests_total{job!~"\xff"}"#, "invalid UTF-8"),
    ] {
        let error = ask(text).unwrap_err().to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
}
