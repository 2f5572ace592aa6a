//! Random batches, restarts and blocks, compared with a list of all samples.

use std::sync::Arc;

use model::{CounterResetHint, FloatHistogram, Labels, TimeRange};
use tsdb::Ulid;

use crate::tests::counts::looked_at;
use crate::tests::{AllSamples, Random, add_block, at, histogram_bits, labels, open, open_late, samples_of};
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
    ) -> Result<(i64, Vec<u64>), AppendRefused> {
        let series = head.series(&self.labels);
        let start = if self.kind == 1 { time / 1_000_000 * 1_000_000 + 1 } else { 0 };
        if self.kind < 3 {
            let value =
                if random.below(50) == 0 { model::stale_nan() } else { random.below(1_000) as f64 / 3.0 };
            appender.append_float(&series, at(time), at(start), value)?;
            return Ok((start, vec![value.to_bits()]));
        }
        let histogram = self.next_histogram(random);
        appender.append_histogram(&series, at(time), at(start), self.kind == 3, Arc::clone(&histogram))?;
        Ok((start, histogram_bits(&histogram)))
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

/// A sample of a batch: series, time, start and value, and whether it is late.
type Taken = (String, i64, (i64, Vec<u64>), bool);

/// A head, its blocks, and the list of all samples.
struct World {
    seed: u64,
    dir: tempfile::TempDir,
    /// The window of out-of-order samples, in milliseconds.
    window: i64,
    head: Head,
    all: AllSamples,
    cut_until: i64,
    blocks: Vec<Ulid>,
    /// The time of the last sample that is in order.
    last: i64,
    refused: usize,
}

impl World {
    fn new(seed: u64, random: &mut Random) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let window = [0, 20 * 60_000, 3 * 3_600_000][random.below(3)];
        let (head, _) = open_late(dir.path(), i64::MIN, window);
        let (all, blocks) = (AllSamples::new(), Vec::new());
        Self { seed, dir, window, head, all, cut_until: i64::MIN, blocks, last: i64::MIN, refused: 0 }
    }

    /// Scrapes all sources, some of them late. Without `commit`, nothing is added.
    fn scrape(&mut self, sources: &mut [Source], time: i64, commit: bool, random: &mut Random) {
        let Self { seed, window, head, all, last, .. } = self;
        let mut appender = head.appender();
        let mut batch: Vec<Taken> = Vec::new();
        for source in sources.iter_mut().filter(|source| source.is_alive) {
            let series = source.labels.to_string();
            let own = time + random.below(5_000) as i64;
            if let Ok(sample) = source.scrape(head, &mut appender, own, random) {
                batch.push((series.clone(), own, sample, false));
            }
            if *last == i64::MIN || random.below(3) != 0 {
                continue;
            }
            // A sample of the past, at a time that has none.
            let late = *last - random.below(2 * *window as usize + 600_000) as i64;
            let of_series = all.get(&series);
            let is_known = of_series.is_some_and(|samples| samples.contains_key(&late))
                || batch.iter().any(|(other, time, ..)| *other == series && *time == late);
            let follows = of_series
                .and_then(|samples| samples.last_key_value())
                .is_none_or(|(newest, _)| late > *newest);
            if is_known || follows {
                continue;
            }
            match source.scrape(head, &mut appender, late, random) {
                Ok(sample) => {
                    assert!(*window > 0 && late >= *last - *window, "seed {seed}: {late}");
                    batch.push((series, late, sample, true));
                }
                Err(refused) => {
                    assert!(*window == 0 || late < *last - *window, "seed {seed}: {late}");
                    assert!(*window == 0 || refused == AppendRefused::TooOld, "seed {seed}");
                    self.refused += 1;
                }
            }
        }
        if !commit {
            return;
        }
        let committed = appender.commit().unwrap();
        let late = batch.iter().filter(|sample| sample.3).count();
        assert_eq!(
            (committed.added, committed.late, committed.refused),
            (batch.len(), late, 0),
            "seed {seed}"
        );
        for (series, time, sample, is_late) in batch {
            all.entry(series).or_default().insert(time, sample);
            if !is_late {
                *last = time.max(*last);
            }
        }
    }

    /// Kills the process and starts it again.
    fn restart(&mut self) {
        let (path, cut_until, window) = (self.dir.path(), self.cut_until, self.window);
        // The old one must be closed first.
        let unused = tempfile::tempdir().unwrap();
        self.head = open(unused.path(), 0).0;
        let (head, replay) = open_late(path, cut_until, window);
        let damage = (&replay.damaged, replay.damaged_records, replay.without_series);
        assert_eq!(damage, (&vec![], 0, 0), "seed {}", self.seed);
        self.head = head;
    }

    fn new_id(&mut self) -> Ulid {
        let id = Ulid::from_parts(self.blocks.len() as u64, 1);
        self.blocks.push(id);
        id
    }

    /// Cuts a block, and often the late samples.
    fn cut(&mut self, range: (model::Timestamp, model::Timestamp), random: &mut Random) {
        let id = self.new_id();
        let meta = self.head.cut_block(self.dir.path(), id, range).unwrap().unwrap();
        assert_eq!((meta.min_time, meta.max_time), range);
        self.cut_until = range.1.as_millis();
        if random.below(4) == 0 {
            // Killed before the head was truncated.
            self.restart();
        }
        self.head.truncate(range.1).unwrap();
        self.check("after a block");
        if random.below(3) == 0 {
            return;
        }
        let cut = self.head.begin_late_cut().unwrap();
        match random.below(4) {
            0 => {
                drop(cut);
                self.restart();
            }
            _ => {
                let mut number = self.blocks.len() as u64;
                let new_id = || {
                    number += 1;
                    Ulid::from_parts(number - 1, 1)
                };
                let blocks = self.head.cut_late_blocks(self.dir.path(), &cut, new_id).unwrap();
                for meta in &blocks {
                    assert_eq!(meta.compaction.hints, ["from-out-of-order"]);
                    let range = 2 * 3_600_000;
                    assert_eq!(meta.max_time.as_millis() - meta.min_time.as_millis(), range);
                    assert_eq!(meta.min_time.as_millis() % range, 0);
                }
                self.blocks.extend(blocks.iter().map(|meta| meta.ulid));
                if random.below(3) == 0 {
                    // Killed before the head removed them.
                    drop(cut);
                    self.restart();
                } else {
                    self.head.end_late_cut(cut).unwrap();
                }
            }
        }
        self.check("after blocks of late samples");
    }

    /// Head and blocks have every sample once.
    fn check(&self, when: &str) {
        let mut found = samples_of(&self.head, TimeRange::ALL);
        for block in &self.blocks {
            add_block(&self.dir.path().join(block.to_string()), &mut found);
        }
        assert!(found == self.all, "seed {}: {when}", self.seed);
        assert_eq!(self.head.stats(), looked_at(&self.head), "seed {}: {when}", self.seed);
    }
}

fn world(seed: u64) {
    let random = &mut Random::seeded(seed);
    let mut world = World::new(seed, random);
    let mut sources: Vec<Source> = (0..12).map(|number| Source::new(number, random)).collect();
    let mut time = 1_700_000_000_000;
    for _ in 0..900 {
        time += 15_000 + random.below(30_000) as i64;
        world.scrape(&mut sources, time, random.below(20) != 0, random);
        assert_eq!(world.head.stats(), looked_at(&world.head), "seed {seed}");
        match random.below(40) {
            0 => world.head.store_chunks().unwrap(),
            1 => world.head.sync().unwrap(),
            // A process that is killed leaves what it has written.
            2 => world.restart(),
            3 => {
                let number = sources.len();
                sources[random.below(number)].is_alive = false;
                sources.push(Source::new(number, random));
            }
            _ => {}
        }
        if let Some(range) = world.head.next_block() {
            world.cut(range, random);
        }
    }
    assert!(world.blocks.len() > 2 && world.refused > 0, "seed {seed}");
    world.restart();
    world.check("after the last restart");
    // Series without samples take no memory.
    let cut = world.head.begin_late_cut().unwrap();
    world.head.end_late_cut(cut).unwrap();
    world.head.truncate(at(time + 10_000)).unwrap();
    let stats = world.head.stats();
    assert_eq!((stats.series, stats.chunks, world.head.label_names().len()), (0, 0, 0), "seed {seed}");
    assert_eq!(std::fs::read_dir(world.dir.path().join("chunks_head")).unwrap().count(), 0, "seed {seed}");
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
