//! Random batches, restarts and blocks, compared with a list of all samples.

use std::sync::Arc;

use model::{CounterResetHint, FloatHistogram, Labels, TimeRange};
use tsdb::Ulid;

use crate::tests::{AllSamples, Random, add_block, at, histogram_bits, labels, open, samples_of};
use crate::{AppendRefused, Head};

/// A series of the world, and its last histogram.
struct Source {
    labels: Labels,
    kind: usize,
    counts: [f64; 6],
    is_alive: bool,
}

impl Source {
    fn new(number: usize, random: &mut Random) -> Self {
        let (name, job) = (format!("m{}", number % 5), format!("j{}", number % 3));
        let instance = format!("i{number}");
        Self {
            labels: labels(&[("__name__", &name), ("instance", &instance), ("job", &job)]),
            kind: random.below(5),
            counts: [0.0; 6],
            is_alive: true,
        }
    }

    fn next_histogram(&mut self, random: &mut Random) -> Arc<FloatHistogram> {
        if random.below(60) == 0 {
            return Arc::new(FloatHistogram::stale());
        }
        if random.below(40) == 0 {
            self.counts = [0.0; 6];
        }
        self.counts[random.below(6)] += random.below(4) as f64;
        let cells = self.counts.iter().enumerate().filter(|(_, count)| **count > 0.0);
        let (spans, buckets) = model::packed_buckets(cells.map(|(number, &count)| (number as i64, count)));
        Arc::new(FloatHistogram {
            count: self.counts.iter().sum(),
            sum: random.below(1_000) as f64,
            positive_spans: spans,
            positive_buckets: buckets,
            counter_reset_hint: if self.kind == 4 {
                CounterResetHint::Gauge
            } else {
                CounterResetHint::Unknown
            },
            ..FloatHistogram::default()
        })
    }

    /// Appends a sample and notes it.
    fn scrape(
        &mut self,
        head: &Head,
        appender: &mut crate::Appender<'_>,
        time: i64,
        random: &mut Random,
    ) -> Option<(i64, Vec<u64>)> {
        let series = head.series(&self.labels);
        let start = if self.kind == 1 { time / 1_000_000 * 1_000_000 + 1 } else { 0 };
        if self.kind < 3 {
            let value =
                if random.below(50) == 0 { model::stale_nan() } else { random.below(1_000) as f64 / 3.0 };
            appender.append_float(&series, at(time), at(start), value).ok()?;
            return Some((start, vec![value.to_bits()]));
        }
        let histogram = self.next_histogram(random);
        appender
            .append_histogram(&series, at(time), at(start), self.kind == 3, Arc::clone(&histogram))
            .ok()?;
        Some((start, histogram_bits(&histogram)))
    }
}

/// The samples in the head and in the blocks are those that were committed, each once, whatever was done.
#[test]
fn the_head_and_its_blocks_have_every_committed_sample_once() {
    let cases = std::env::var("ISTHMUS_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(30);
    for seed in 0..cases {
        world(seed);
    }
}

fn world(seed: u64) {
    let random = &mut Random::seeded(seed);
    let dir = tempfile::tempdir().unwrap();
    let (mut head, _) = open(dir.path(), i64::MIN);
    let mut sources: Vec<Source> = (0..12).map(|number| Source::new(number, random)).collect();
    let mut all = AllSamples::new();
    let mut cut_until = i64::MIN;
    let mut blocks = 0;
    let mut time = 1_700_000_000_000;
    for _ in 0..900 {
        time += 15_000 + random.below(30_000) as i64;
        let mut appender = head.appender();
        let mut batch = Vec::new();
        for source in sources.iter_mut().filter(|source| source.is_alive) {
            let own = time + random.below(5_000) as i64;
            if let Some(sample) = source.scrape(&head, &mut appender, own, random) {
                batch.push((source.labels.to_string(), own, sample));
            }
        }
        if random.below(20) == 0 {
            drop(appender);
            continue;
        }
        let committed = appender.commit().unwrap();
        assert_eq!((committed.added, committed.refused), (batch.len(), 0), "seed {seed}");
        for (series, time, sample) in batch {
            all.entry(series).or_default().insert(time, sample);
        }
        match random.below(40) {
            0 => head.store_chunks().unwrap(),
            1 => head.sync().unwrap(),
            // A process that is killed leaves what it has written.
            2 => {
                drop(head);
                head = open(dir.path(), cut_until).0;
            }
            3 => {
                let number = sources.len();
                sources[random.below(number)].is_alive = false;
                sources.push(Source::new(number, random));
            }
            _ => {}
        }
        if let Some(range) = head.next_block() {
            let id = Ulid::from_parts(blocks, 1);
            let meta = head.cut_block(dir.path(), id, range).unwrap().unwrap();
            assert_eq!((meta.min_time, meta.max_time), range);
            cut_until = range.1.as_millis();
            blocks += 1;
            if random.below(4) == 0 {
                // Killed before the head was truncated.
                drop(head);
                head = open(dir.path(), cut_until).0;
            }
            head.truncate(range.1).unwrap();
            let mut found = samples_of(&head, TimeRange::new(range.1, model::Timestamp::MAX));
            for block in 0..blocks {
                add_block(&dir.path().join(Ulid::from_parts(block, 1).to_string()), &mut found);
            }
            assert!(found == all, "seed {seed}: after block {blocks}");
        }
    }
    assert!(blocks > 2, "seed {seed}");
    drop(head);
    let (head, replay) = open(dir.path(), cut_until);
    assert_eq!(
        (&replay.damaged, replay.damaged_records, replay.without_series),
        (&vec![], 0, 0),
        "seed {seed}"
    );
    let mut found = samples_of(&head, TimeRange::new(at(cut_until), model::Timestamp::MAX));
    for block in 0..blocks {
        add_block(&dir.path().join(Ulid::from_parts(block, 1).to_string()), &mut found);
    }
    assert!(found == all, "seed {seed}: after the last restart");
    // Series without samples take no memory.
    head.truncate(at(time + 10_000)).unwrap();
    assert_eq!((head.stats().series, head.label_names().len()), (0, 0), "seed {seed}");
}

#[test]
fn samples_that_do_not_follow_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (head, _) = open(dir.path(), 1_000);
    let series = head.series(&labels(&[("__name__", "up")]));
    let append = |time: i64, value: f64| {
        let mut appender = head.appender();
        let result = appender.append_float(&series, at(time), at(0), value);
        (result, appender.commit().unwrap().added)
    };
    assert_eq!(append(999, 1.0), (Err(AppendRefused::TooOld), 0));
    assert_eq!(append(2_000, 1.0), (Ok(()), 1));
    assert_eq!(append(2_000, 1.0), (Ok(()), 0), "the same sample");
    assert_eq!(append(2_000, 2.0), (Err(AppendRefused::Duplicate), 0));
    assert_eq!(append(1_999, 1.0), (Err(AppendRefused::OutOfOrder), 0));
    // One hour before the last sample of the head, a block can begin.
    assert_eq!(append(10_000_000, 1.0), (Ok(()), 1));
    let other = head.series(&labels(&[("__name__", "late")]));
    let mut appender = head.appender();
    assert_eq!(appender.append_float(&other, at(6_399_999), at(0), 1.0), Err(AppendRefused::TooOld));
    assert_eq!(appender.append_float(&other, at(6_400_000), at(0), 1.0), Ok(()));
    let broken = Arc::new(FloatHistogram { count: 0.5, ..FloatHistogram::default() });
    let refused = appender.append_histogram(&other, at(9_000_000), at(0), true, broken);
    assert_eq!(refused, Err(AppendRefused::Unencodable));
    // Two batches with the same time: the second one is refused when it is committed.
    let mut second = head.appender();
    second.append_float(&other, at(6_400_000), at(0), 2.0).unwrap();
    assert_eq!(appender.commit().unwrap().added, 1);
    let committed = second.commit().unwrap();
    assert_eq!((committed.added, committed.refused), (0, 1));
}

#[test]
fn a_series_that_was_removed_is_created_again_by_its_handle() {
    let dir = tempfile::tempdir().unwrap();
    let (head, _) = open(dir.path(), i64::MIN);
    let series = head.series(&labels(&[("__name__", "up")]));
    for time in [1_000, 20_000_000] {
        let mut appender = head.appender();
        appender.append_float(&series, at(time), at(0), 1.0).unwrap();
        appender.commit().unwrap();
        head.truncate(at(time + 1)).unwrap();
        assert_eq!(head.stats().series, 0);
    }
    let mut appender = head.appender();
    appender.append_float(&series, at(30_000_000), at(0), 1.0).unwrap();
    appender.commit().unwrap();
    drop(head);
    let (head, replay) = open(dir.path(), 20_000_001);
    assert_eq!((head.stats().series, replay.samples, replay.without_series), (1, 1, 0));
}

#[test]
fn a_data_folder_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let (_head, _) = open(dir.path(), i64::MIN);
    let error = Head::open(dir.path(), crate::HeadOptions::default()).err().unwrap().to_string();
    assert_eq!(error, format!("{}: another process uses this data folder", dir.path().display()));
}
