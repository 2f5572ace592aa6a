//! Exemplars and metadata over restarts and checkpoints.

use std::sync::Arc;

use model::{Matcher, MetricKind, TimeRange};
use tsdb::Ulid;

use crate::tests::prometheus::{Prometheus, is_installed, serve, wait_for};
use crate::tests::{at, labels, open};
use crate::{Exemplar, ExemplarRefused, Head, HeadOptions, Metadata, SeriesExemplars};

fn exemplar(time: i64, trace: &str) -> Exemplar {
    Exemplar {
        labels: labels(&[("trace_id", trace)]),
        value: time as f64,
        time: at(time),
        has_own_time: true,
    }
}

fn metadata(kind: MetricKind, help: &str) -> Metadata {
    Metadata { kind, unit: "seconds".into(), help: help.into() }
}

/// All exemplars, without what the log does not have.
fn exemplars(head: &Head, range: TimeRange) -> Vec<SeriesExemplars> {
    let mut found = head.exemplars(&[vec![]], range);
    found.iter_mut().flat_map(|found| &mut found.exemplars).for_each(|e| e.has_own_time = false);
    found
}

#[test]
fn exemplars_and_metadata_survive_restarts_and_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let (mut head, _) = open(dir.path(), i64::MIN);
    let mut begin = i64::MIN;
    for minute in 0..9 * 60 {
        let mut appender = head.appender();
        let time = 1_700_000_000_000 + minute * 60_000;
        for n in 0..3 {
            let series = head.series(&labels(&[("__name__", &format!("m{n}")), ("job", "a")]));
            appender.append_float(&series, at(time), at(0), minute as f64).unwrap();
            if minute % 3 == n {
                appender.append_exemplar(&series, exemplar(time - n, &format!("{minute}"))).unwrap();
            }
            // It changes every two hours.
            appender.set_metadata(&series, &metadata(MetricKind::Counter, &format!("{}", minute / 120)));
        }
        appender.commit().unwrap();
        if let Some(range) = head.next_block() {
            let id = Ulid::from_parts(minute as u64, 1);
            head.cut_block(dir.path(), id, range).unwrap().unwrap();
            head.truncate(range.1).unwrap();
            begin = range.1.as_millis();
        }
        if minute % 50 == 49 {
            // The buffer has older ones than the log after a checkpoint.
            let recent = TimeRange::new(at(begin), model::Timestamp::MAX);
            let (before, described) = (exemplars(&head, recent), head.metadata(None));
            assert_eq!((before.len(), described.len()), (3, 3));
            drop(head);
            let (opened, replay) = open(dir.path(), begin);
            assert_eq!((replay.damaged_records, replay.without_series), (0, 0));
            head = opened;
            assert_eq!(exemplars(&head, recent), before, "minute {minute}");
            assert_eq!(head.metadata(None), described, "minute {minute}");
        }
    }
    assert!(begin > 0);
    let checkpoints = std::fs::read_dir(dir.path().join("wal")).unwrap();
    let names = checkpoints.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.starts_with("checkpoint.")).count(), 1);
    let newest = Arc::new(metadata(MetricKind::Counter, "4"));
    assert_eq!(head.metadata(Some("m1")).into_iter().collect::<Vec<_>>(), [("m1".to_owned(), vec![newest])]);
    assert_eq!(head.metadata(Some("m")).len(), 0);
    // By matchers and time.
    let (last, one) = (1_700_000_000_000 + 539 * 60_000, vec![Matcher::equal("__name__", "m2")]);
    let other = vec![Matcher::equal("__name__", "m1")];
    let select = |selectors: &[Vec<Matcher>], range| -> Vec<(String, usize)> {
        let found = head.exemplars(selectors, range);
        found.into_iter().map(|found| (found.labels.to_string(), found.exemplars.len())).collect()
    };
    let hour = TimeRange::new(at(last - 3_600_000), at(last));
    let (m1, m2) = ("m1{job=\"a\"}".to_owned(), "m2{job=\"a\"}".to_owned());
    assert_eq!(select(std::slice::from_ref(&one), hour), [(m2.clone(), 20)]);
    assert_eq!(select(&[one, other], hour), [(m1, 20), (m2, 20)]);
    assert_eq!(select(&[], hour), []);
    assert_eq!(select(&[vec![]], TimeRange::new(at(0), at(1))), []);
}

#[test]
fn metadata_of_a_metric_are_listed_once_and_freed_with_their_series() {
    let dir = tempfile::tempdir().unwrap();
    let (head, _) = open(dir.path(), i64::MIN);
    let mut appender = head.appender();
    for n in 0..100 {
        let series = head.series(&labels(&[("__name__", "m"), ("n", &n.to_string())]));
        appender.append_float(&series, at(1_000), at(0), 1.0).unwrap();
        // Two targets disagree, and one does not know it.
        match n % 3 {
            0 => appender.set_metadata(&series, &metadata(MetricKind::Gauge, "b")),
            1 => appender.set_metadata(&series, &metadata(MetricKind::Gauge, "a")),
            _ => {}
        }
    }
    assert_eq!(head.metadata(None).len(), 0, "before the commit");
    appender.commit().unwrap();
    let both = ["a", "b"].map(|help| Arc::new(metadata(MetricKind::Gauge, help)));
    assert_eq!(head.metadata(None)["m"], both);
    let weak = Arc::downgrade(&head.metadata(None)["m"][0]);
    drop(both);
    head.truncate(at(2_000)).unwrap();
    assert_eq!((head.metadata(None).len(), weak.upgrade()), (0, None));
}

#[test]
fn the_number_of_exemplars_has_a_bound_and_batches_are_checked_together() {
    let dir = tempfile::tempdir().unwrap();
    let options = HeadOptions { most_exemplars: 10, ..HeadOptions::default() };
    let (head, _) = Head::open(dir.path(), options).unwrap();
    let series = head.series(&labels(&[("__name__", "m")]));
    let append = |list: &[Exemplar]| -> Vec<Result<(), ExemplarRefused>> {
        let mut appender = head.appender();
        appender.append_float(&series, at(1_000), at(0), 1.0).unwrap();
        let results = list.iter().map(|exemplar| appender.append_exemplar(&series, exemplar.clone()));
        let results = results.collect();
        appender.commit().unwrap();
        results
    };
    assert_eq!(append(&[exemplar(5, "a"), exemplar(5, "a"), exemplar(6, "b")]), [Ok(()); 3]);
    assert_eq!(head.stats().exemplars, 2);
    assert_eq!(
        append(&[exemplar(6, "b"), exemplar(5, "a"), exemplar(7, &"x".repeat(121))]),
        [Ok(()), Err(ExemplarRefused::OutOfOrder), Err(ExemplarRefused::TooLong)]
    );
    (10..30).for_each(|time| assert_eq!(append(&[exemplar(time, "a")]), [Ok(())]));
    assert_eq!(head.stats().exemplars, 10);
    // One of a batch that is dropped is not added.
    head.appender().append_exemplar(&series, exemplar(50, "a")).unwrap();
    drop(head);
    let (head, _) = Head::open(dir.path(), options).unwrap();
    let found = head.exemplars(&[vec![]], TimeRange::ALL);
    assert!(found[0].exemplars.iter().map(|exemplar| exemplar.time.as_millis()).eq(20..30));
}

/// Those of a Prometheus that was killed are read, and it reads ours.
#[test]
fn a_prometheus_has_the_same_exemplars() {
    if !is_installed("prometheus") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let target = serve("application/openmetrics-text; version=1.0.0; charset=utf-8", |number| {
        let time = 1_700_000_000.5 + number as f64;
        format!("# TYPE m counter\nm_total {number} # {{trace_id=\"t{number}\"}} 0.25 {time}\n# EOF\n")
    });
    let enabled = ["--enable-feature=exemplar-storage"];
    let query = "/api/v1/query_exemplars?query=m_total&start=1600000000&end=1800000000";
    let prometheus = Prometheus::start(dir.path(), &data, Some(&target), &enabled);
    wait_for("the exemplar of the tenth scrape", || prometheus.get(query).contains("\"t9\""));
    prometheus.kill();
    let (head, replay) = open(&data, i64::MIN);
    assert_eq!((replay.damaged_records, replay.without_series), (0, 0));
    let found = head.exemplars(&[vec![Matcher::equal("__name__", "m_total")]], TimeRange::ALL);
    assert_eq!(found.len(), 1);
    assert!(found[0].exemplars.len() >= 10);
    for (number, exemplar) in found[0].exemplars.iter().enumerate() {
        let expected = Exemplar {
            labels: labels(&[("trace_id", &format!("t{number}"))]),
            value: 0.25,
            time: at(1_700_000_000_500 + number as i64 * 1_000),
            has_own_time: false,
        };
        assert_eq!(*exemplar, expected);
    }
    let series = head.series(&found[0].labels);
    let mut appender = head.appender();
    appender.append_exemplar(&series, exemplar(1_750_000_000_000, "ours")).unwrap();
    appender.set_metadata(&series, &metadata(MetricKind::Counter, "Ours."));
    appender.commit().unwrap();
    drop(head);
    let prometheus = Prometheus::start(dir.path(), &data, None, &enabled);
    wait_for("an answer with our exemplar", || prometheus.get(query).contains("\"ours\""));
    assert!(prometheus.get(query).contains("\"t9\""));
}
