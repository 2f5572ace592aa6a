//! What comes with samples: exemplars, metadata, native histograms, names, start timestamps.

use exposition::TextFormat;
use head::Metadata;
use model::{MatchOp, Matcher, MetricKind, TimeRange, Timestamp};

use crate::tests::{Target, text};
use crate::{Exposition, ExpositionFormat, ScrapeFailure, ScrapeRules};

fn open_metrics(body: &str) -> Result<Exposition<'_>, ScrapeFailure> {
    Ok(Exposition { body: body.as_bytes(), format: ExpositionFormat::Text(TextFormat::OpenMetrics) })
}

/// All exemplars as `SERIES LABELS VALUE TIME`.
fn exemplars(target: &Target) -> Vec<String> {
    let all = Matcher::new(MatchOp::Regex, "__name__", ".+").unwrap();
    let found = target.head.exemplars(&[vec![all]], TimeRange::ALL);
    let lines = found.iter().flat_map(|series| {
        series.exemplars.iter().map(|exemplar| {
            let name = series.labels.metric_name();
            format!("{name} {} {} {}", exemplar.labels, exemplar.value, exemplar.time.as_millis())
        })
    });
    lines.collect()
}

#[test]
fn exemplars_are_stored_once_with_the_time_of_the_target_or_of_the_scrape() {
    let mut target = Target::new(ScrapeRules::default());
    let scrape = "# TYPE a counter\na_total 1 # {trace=\"x\"} 0.5\nb_total 1 # {trace=\"y\",span=\"ä\"} 2 0.25\n# EOF\n";
    target.scrape(open_metrics(scrape));
    target.scrape(open_metrics(scrape));
    let expected = ["a_total {trace=\"x\"} 0.5 1000", "b_total {span=\"ä\", trace=\"y\"} 2 250"];
    assert_eq!(exemplars(&target), expected);
    let report = target.scrape(open_metrics("b_total 2 # {trace=\"z\"} 2 0.125\n# EOF\n"));
    assert_eq!((report.exemplars_out_of_order, report.failure), (1, None));
    let failed = target.scrape(open_metrics("a_total 2 # {trace=\"z\"} 2\nb_total x\n# EOF\n"));
    assert!(failed.failure.is_some());
    assert_eq!(exemplars(&target), expected, "a scrape that fails has no exemplars");
}

#[test]
fn metadata_are_those_of_the_last_scrape() {
    let mut target = Target::new(ScrapeRules::default());
    let of = |kind, unit: &str, help: &str| Metadata { kind, unit: unit.into(), help: help.into() };
    let first = "# TYPE a_seconds counter\n# UNIT a_seconds seconds\n# HELP a_seconds Time.\na_seconds_total 1\n# EOF\n";
    target.scrape(open_metrics(first));
    let check = |target: &Target, metric: &str, expected: &Metadata| {
        let found = target.head.metadata(Some(metric));
        assert_eq!(
            found.values().flatten().map(|found| &**found).collect::<Vec<_>>(),
            [expected],
            "{metric}"
        );
    };
    let counter = of(MetricKind::Counter, "seconds", "Time.");
    check(&target, "a_seconds_total", &counter);
    assert_eq!(target.metadata.list(), [("a_seconds".to_owned(), counter)]);
    // The series is known, and what is said about it is new.
    let second = first.replace("Time.", "Much time.");
    target.scrape(open_metrics(&format!("{}# TYPE b gauge\nb 1\n# EOF\n", second.replace("# EOF\n", ""))));
    check(&target, "a_seconds_total", &of(MetricKind::Counter, "seconds", "Much time."));
    check(&target, "b", &of(MetricKind::Gauge, "", ""));
    // A line about another metric says nothing about these.
    target.scrape(text("# HELP c About c.\na_seconds_total 3\nb 2\n"));
    check(&target, "b", &of(MetricKind::Gauge, "", ""));
    assert_eq!(target.metadata.list().len(), 3);
}

#[test]
fn names_in_utf8_can_be_refused() {
    let body = "{\"with.dot\",\"la-bel\"=\"x\"} 1\n";
    let mut target = Target::new(ScrapeRules::default());
    assert_eq!(target.scrape(text(body)).failure, None);
    let legacy = || ScrapeRules { legacy_names: true, ..ScrapeRules::default() };
    let failure = Target::new(legacy()).scrape(text(body)).failure.unwrap().to_string();
    assert!(failure.starts_with("invalid metric name or label names: {\"with.dot\""), "{failure}");
    assert_eq!(Target::new(legacy()).scrape(text("job:a_b:sum{le=\"1\"} 1\n")).failure, None);
    assert!(Target::new(legacy()).scrape(text("a{\"b-c\"=\"1\"} 1\n")).failure.is_some());
}

#[test]
fn samples_far_in_the_future_are_refused() {
    let mut target = Target::new(ScrapeRules::default());
    let report = target.scrape(text("a 1 601000\nb 1 601001\n"));
    assert_eq!((report.too_old, report.new_series), (1, 1));
}

#[test]
fn markers_do_not_come_between_late_samples() {
    let mut target = Target::new(ScrapeRules::default());
    target.head.set_out_of_order_window(std::time::Duration::from_secs(60));
    target.scrape(text("a 1\n"));
    target.scrape(text("a 2\n"));
    target.scrape(text("a 3\n"));
    target.series.end(&target.head, Timestamp::from_millis(1_500)).unwrap();
    assert_eq!(target.values("a{instance=\"a:1\", job=\"t\"}"), ["1", "2", "3"]);
    assert_eq!(target.values("up{instance=\"a:1\", job=\"t\"}"), ["1", "1", "1"]);
    // Samples may be late.
    assert_eq!(target.scrape(text("a 1.5 1500\n")).out_of_order, 0);
}

#[test]
fn other_rules_make_series_stale_that_these_do_not_have() {
    let mut target = Target::new(ScrapeRules::default());
    target.scrape(text("a 1\nb 1\n"));
    let drop_b = model::RelabelConfig {
        action: model::RelabelAction::Drop,
        source_labels: vec!["__name__".to_owned()],
        regex: "b".to_owned(),
        ..model::RelabelConfig::default()
    };
    let relabeling = model::Relabeling::new(vec![drop_b]).unwrap();
    let rules = ScrapeRules { metric_relabeling: relabeling, ..ScrapeRules::default() };
    target.series.set_rules(std::sync::Arc::new(rules), false);
    target.scrape(text("a 2\nb 2\n"));
    assert_eq!(target.values("a{instance=\"a:1\", job=\"t\"}"), ["1", "2"]);
    assert_eq!(target.values("b{instance=\"a:1\", job=\"t\"}"), ["1", "stale"]);
    // Limits are other rules, too, and the series stay known.
    let limited = ScrapeRules { sample_limit: 1, ..ScrapeRules::default() };
    target.series.set_rules(std::sync::Arc::new(limited), true);
    assert_eq!(target.scrape(text("a 3\n")).new_series, 0);
}

/// A field of protobuf with a length.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
    out.extend_from_slice(content);
    out
}

/// A family with one histogram, which has 3 observations in native buckets of schema 3 and no classic ones.
fn native_histogram() -> Vec<u8> {
    let span = field(12, &[0x08, 0x02, 0x10, 0x02]);
    // count 3, sum 3.0, schema 3 as zigzag, zero threshold, zero count 0, deltas 1 and +1.
    let mut histogram = vec![0x08, 3, 0x11];
    histogram.extend_from_slice(&3f64.to_le_bytes());
    histogram.extend_from_slice(&[0x28, 6, 0x31]);
    histogram.extend_from_slice(&1e-128f64.to_le_bytes());
    histogram.extend_from_slice(&span);
    histogram.extend_from_slice(&field(13, &[2, 2]));
    let metric = field(7, &histogram);
    let family = [field(1, b"h"), vec![0x18, 4], field(4, &metric)].concat();
    let mut out = vec![u8::try_from(family.len()).unwrap()];
    out.extend_from_slice(&family);
    out
}

/// Number of buckets of the native histogram `h`, and names of series with floats.
fn scraped_histogram(rules: ScrapeRules) -> Result<(Vec<usize>, Vec<String>), String> {
    let body = native_histogram();
    let mut target = Target::new(rules);
    let report = target.scrape(Ok(Exposition { body: &body, format: ExpositionFormat::Protobuf }));
    if let Some(failure) = report.failure {
        return Err(failure.to_string());
    }
    let (mut buckets, mut names) = (Vec::new(), Vec::new());
    for series in target.head.select(&[], TimeRange::ALL) {
        let series = series.unwrap();
        let name = series.labels.metric_name();
        for chunk in &series.chunks {
            if name == "h" {
                let mut histograms = Vec::new();
                chunk.decode_histograms(&mut histograms).unwrap();
                buckets.extend(histograms.iter().map(|(_, histogram)| histogram.positive_buckets.len()));
            } else if name.starts_with('h') {
                names.push(format!("{name}{}", series.labels.value("le")));
            }
        }
    }
    names.sort();
    Ok((buckets, names))
}

#[test]
fn native_histograms_are_read_limited_or_taken_for_classic_ones() {
    let rules = ScrapeRules::default;
    assert_eq!(scraped_histogram(rules()), Ok((vec![2], vec![])));
    assert_eq!(scraped_histogram(ScrapeRules { bucket_limit: 1, ..rules() }).unwrap().0, [1]);
    assert_eq!(scraped_histogram(ScrapeRules { max_schema: -4, ..rules() }).unwrap().0, [1]);
    let classic = scraped_histogram(ScrapeRules { native_histograms: false, ..rules() }).unwrap();
    assert_eq!(classic, (vec![], vec!["h_bucket+Inf".to_owned(), "h_count".to_owned(), "h_sum".to_owned()]));
}
