//! The generated block is the one that the options describe.

use std::collections::BTreeSet;

use model::TimeRange;

use super::*;
use crate::{Block, Encoding, Ulid, Verification, verify_dir};

fn write(workload: &Workload) -> (tempfile::TempDir, BlockMeta, Verification) {
    let dir = tempfile::tempdir().unwrap();
    let options = BlockOptions::new(Ulid::from_parts(1, 2));
    let meta = workload.write(dir.path(), options, &mut |_| {}).unwrap();
    let found = verify_dir(&dir.path().join(meta.ulid.to_string()), &mut |event| {
        if let crate::VerifyEvent::Problem(error) = event {
            panic!("{error}");
        }
    });
    (dir, meta, found)
}

#[test]
fn a_generated_block_has_the_requested_content_and_no_problems() {
    let workload = Workload {
        series: 4_321,
        labels: 11,
        interval: Duration::from_secs(60),
        jitter: Duration::from_millis(700),
        gauges: 0.2,
        histograms: 0.1,
        ..Workload::default()
    };
    let (dir, meta, found) = write(&workload);
    assert_eq!(meta.stats, found.stats);
    assert_eq!((found.stats.series, found.stats.samples), (4_321, 4_321 * 120));
    assert!(found.stats.histogram_samples > 4_321 * 120 / 20, "{found:?}");
    assert_eq!((meta.min_time, meta.max_time), (workload.start, workload.start + workload.duration));

    let block = Block::open(&dir.path().join(meta.ulid.to_string())).unwrap();
    assert_eq!(block.index().label_names().count(), 11);
    assert_eq!(block.index().label_values("job").unwrap().len(), 24);
    for series in block.select(&[], TimeRange::ALL).unwrap() {
        let series = series.unwrap();
        assert_eq!(series.labels.len(), 11);
        let name = series.labels.metric_name();
        let histogram = block.chunk(&series.chunks[0]).unwrap().encoding == Encoding::Histogram;
        assert_eq!(histogram, name.ends_with("_seconds"), "{name}");
    }
}

#[test]
fn the_same_seed_gives_the_same_block() {
    let workload = Workload { series: 300, churn: 0.4, histograms: 0.2, ..Workload::default() };
    let all = |workload: &Workload| workload.generate().unwrap().collect::<Vec<_>>();
    assert_eq!(all(&workload), all(&workload));
    assert_ne!(all(&workload), all(&Workload { seed: 2, ..workload.clone() }));
}

#[test]
fn with_churn_some_targets_end_when_others_begin() {
    let workload = Workload { series: 20_000, churn: 0.5, ..Workload::default() };
    let (_dir, meta, found) = write(&workload);
    assert_eq!(found.stats.series, 20_000);
    let full = 20_000 * 240;
    // Half of the targets live half of the time, on average.
    let share = meta.stats.samples as f64 / f64::from(full);
    assert!((0.65..0.85).contains(&share), "{share}");
}

#[test]
fn the_fewest_labels_and_series_are_still_distinct() {
    for (series, labels) in [(1, 2), (7, 2), (500, 2), (500, 3), (30, 64)] {
        let workload = Workload { series, labels, ..Workload::default() };
        let sets: BTreeSet<Labels> = workload.generate().unwrap().map(|(labels, _)| labels).collect();
        assert_eq!(sets.len() as u64, series);
        assert!(sets.iter().all(|set| set.len() == labels), "{:?}", sets.first());
    }
}

#[test]
fn errors_name_options_that_are_out_of_bounds() {
    let refused = |workload: Workload, part: &str| {
        let error = workload.generate().err().expect("refused").to_string();
        assert!(error.contains(part), "{error}");
    };
    let default = Workload::default;
    refused(Workload { series: 0, ..default() }, "series is 0");
    refused(Workload { labels: 1, ..default() }, "labels is 1");
    refused(Workload { churn: 1.5, ..default() }, "churn is 1.5");
    refused(Workload { gauges: 0.6, histograms: 0.6, ..default() }, "together is 1.2");
    refused(Workload { interval: Duration::ZERO, ..default() }, "interval is 0ns");
    refused(Workload { jitter: Duration::from_secs(15), ..default() }, "jitter is 15s");
    refused(Workload { gauges: f64::NAN, ..default() }, "gauges is NaN");
}
