//! Scrapes of a target, by themselves and beside a real Prometheus.

mod beside;
mod config;
mod extras;
mod faults;
mod fetching;
mod manager;
mod prometheus;
mod remote_read;
mod remote_write;
mod role;
mod same_targets;
mod secure;
mod target;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use exposition::TextFormat;
use head::{Head, HeadOptions};
use model::{Labels, Relabeling, TimeRange, Timestamp};

use crate::{
    Exposition, ExpositionFormat, ScrapeFailure, ScrapeReport, ScrapeRules, TargetMetadata, TargetSeries,
};

/// Floats by series and time, as text: `stale` for a staleness marker.
type Floats = BTreeMap<String, BTreeMap<i64, String>>;

fn floats(head: &Head) -> Floats {
    let mut out = Floats::new();
    for series in head.select(&[], TimeRange::ALL) {
        let series = series.unwrap();
        let own = out.entry(series.labels.to_string()).or_default();
        for chunk in series.chunks {
            let (mut times, mut values) = (Vec::new(), Vec::new());
            chunk.decode_floats(&mut times, &mut values).unwrap();
            own.extend(times.into_iter().zip(values).map(|(time, value)| {
                (time, if model::is_stale_nan(value) { "stale".to_owned() } else { value.to_string() })
            }));
        }
    }
    out
}

fn text(body: &str) -> Result<Exposition<'_>, ScrapeFailure> {
    Ok(Exposition { body: body.as_bytes(), format: ExpositionFormat::Text(TextFormat::Prometheus) })
}

/// A target, its head, and the time of its scrapes.
struct Target {
    _dir: tempfile::TempDir,
    head: Head,
    series: TargetSeries,
    metadata: TargetMetadata,
    time: i64,
}

impl Target {
    fn new(rules: ScrapeRules) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (head, _) = Head::open(dir.path(), HeadOptions::default()).unwrap();
        let labels = Labels::from_pairs([("instance", "a:1"), ("job", "t")]).unwrap();
        let metadata = TargetMetadata::default();
        let series = TargetSeries::new(labels, Arc::new(rules)).with_metadata(metadata.clone());
        Self { _dir: dir, head, series, metadata, time: 0 }
    }

    fn scrape(&mut self, fetched: Result<Exposition<'_>, ScrapeFailure>) -> ScrapeReport {
        self.time += 1_000;
        let time = Timestamp::from_millis(self.time);
        self.series.append(&self.head, time, fetched, &|| Duration::from_millis(500)).unwrap()
    }

    /// The values of a series over the scrapes.
    fn values(&self, series: &str) -> Vec<String> {
        let floats = floats(&self.head);
        floats.get(series).unwrap_or_else(|| panic!("{series} of {floats:?}")).values().cloned().collect()
    }
}

const OF_TARGET: &str = "{instance=\"a:1\", job=\"t\"}";

#[test]
fn series_that_vanish_and_targets_that_fail_become_stale() {
    let mut target = Target::new(ScrapeRules::default());
    assert_eq!(target.scrape(text("a 1\nb 2\n")).new_series, 2);
    assert_eq!(target.scrape(text("a 2\n")).new_series, 0);
    assert_eq!(target.scrape(text("a 3\nb 3\n")).new_series, 1);
    let failed = target.scrape(Err(ScrapeFailure::Fetch("connection refused".to_owned())));
    assert_eq!(failed.failure, Some(ScrapeFailure::Fetch("connection refused".to_owned())));
    let broken = target.scrape(text("a 4\nb one\n"));
    assert_eq!(broken.failure.unwrap().to_string(), "line 2: \"one\" is not a number");
    target.scrape(text("a 5\n"));
    target.series.end(&target.head, Timestamp::from_millis(9_000)).unwrap();
    assert_eq!(target.values(&format!("a{OF_TARGET}")), ["1", "2", "3", "stale", "5", "stale"]);
    assert_eq!(target.values(&format!("b{OF_TARGET}")), ["2", "stale", "3", "stale"]);
    assert_eq!(target.values(&format!("up{OF_TARGET}")), ["1", "1", "1", "0", "0", "1", "stale"]);
    assert_eq!(
        target.values(&format!("scrape_samples_scraped{OF_TARGET}")),
        ["2", "1", "2", "0", "1", "1", "stale"]
    );
    assert_eq!(target.values(&format!("scrape_duration_seconds{OF_TARGET}"))[0], "0.5");
}

#[test]
fn two_texts_of_one_series_do_not_make_it_stale() {
    let mut target = Target::new(ScrapeRules::default());
    target.scrape(text("a{x=\"1\",y=\"2\"} 1\n"));
    target.scrape(text("a{y=\"2\",x=\"1\"} 2\n"));
    let repeated = target.scrape(text("a{y=\"2\",x=\"1\"} 3\na{y=\"2\",x=\"1\"} 4\n"));
    assert_eq!(repeated.duplicates, 1);
    let series = "a{instance=\"a:1\", job=\"t\", x=\"1\", y=\"2\"}";
    assert_eq!(target.values(series), ["1", "2", "3"]);
}

#[test]
fn timestamps_of_the_target_are_used_and_such_series_do_not_become_stale() {
    let mut target = Target::new(ScrapeRules::default());
    target.scrape(text("a 1 500\n"));
    assert_eq!(target.scrape(text("a 2 400\n")).out_of_order, 1);
    target.scrape(text("b 1\n"));
    assert_eq!(
        floats(&target.head)[&format!("a{OF_TARGET}")].iter().next().unwrap(),
        (&500, &"1".to_owned())
    );
    assert_eq!(target.values(&format!("a{OF_TARGET}")), ["1"]);
    let ignored = ScrapeRules { honor_timestamps: false, ..ScrapeRules::default() };
    let mut target = Target::new(ignored);
    target.scrape(text("a 1 500\n"));
    target.scrape(text("b 1\n"));
    assert_eq!(target.values(&format!("a{OF_TARGET}")), ["1", "stale"]);
    let tracked = ScrapeRules { track_timestamps_staleness: true, ..ScrapeRules::default() };
    let mut target = Target::new(tracked);
    target.scrape(text("a 1 500\n"));
    target.scrape(text("b 1\n"));
    assert_eq!(target.values(&format!("a{OF_TARGET}")), ["1", "stale"]);
}

#[test]
fn a_scrape_over_a_limit_has_no_samples() {
    let check = |rules: ScrapeRules, body: &str, expected: &str| {
        let mut target = Target::new(rules);
        target.scrape(text("a 1\n"));
        let report = target.scrape(text(body));
        assert_eq!(report.failure.unwrap().to_string(), expected);
        assert_eq!(target.values(&format!("a{OF_TARGET}")), ["1", "stale"]);
        assert_eq!(target.values(&format!("up{OF_TARGET}")), ["1", "0"]);
    };
    let rules = ScrapeRules::default;
    check(ScrapeRules { sample_limit: 2, ..rules() }, "a 1\nb 1\nc 1\n", "sample limit exceeded (2)");
    check(
        ScrapeRules { label_limit: 3, ..rules() },
        "a 1\nb{x=\"1\"} 1\n",
        "label_limit exceeded (metric: b, number of labels: 4, limit: 3)",
    );
    check(
        ScrapeRules { label_name_length_limit: 8, ..rules() },
        "a 1\nb{long_name=\"1\"} 1\n",
        "label_name_length_limit exceeded (metric: b, label name: long_name, length: 9, limit: 8)",
    );
    check(
        ScrapeRules { label_value_length_limit: 3, ..rules() },
        "a 1\nb{x=\"1234\"} 1\n",
        "label_value_length_limit exceeded (metric: b, label name: x, value: \"1234\", length: 4, limit: 3)",
    );
}

#[test]
fn relabelling_drops_and_renames_series() {
    let drop_b = model::RelabelConfig {
        action: model::RelabelAction::Drop,
        source_labels: vec!["__name__".to_owned()],
        regex: "b".to_owned(),
        ..model::RelabelConfig::default()
    };
    let rules =
        ScrapeRules { metric_relabeling: Relabeling::new(vec![drop_b]).unwrap(), ..ScrapeRules::default() };
    let mut target = Target::new(rules);
    let report = target.scrape(text("a 1\nb 2\n"));
    assert_eq!((report.samples, report.kept, report.new_series), (2, 1, 1));
    assert_eq!(floats(&target.head).len(), 6);
    let remove_name = model::RelabelConfig {
        action: model::RelabelAction::LabelDrop,
        regex: "__name__".to_owned(),
        ..model::RelabelConfig::default()
    };
    let rules = ScrapeRules {
        metric_relabeling: Relabeling::new(vec![remove_name]).unwrap(),
        ..ScrapeRules::default()
    };
    let failure = Target::new(rules).scrape(text("a 1\n")).failure.unwrap().to_string();
    assert_eq!(failure, "missing metric name ({instance=\"a:1\", job=\"t\"})");
}
