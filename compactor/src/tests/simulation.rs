//! A simulation of uploaders, two compactors and a reader over one bucket: random steps, of which some are killed after a random number
//! of requests. After each step the reader sees every sample of every whole block once, in whole blocks.
//!
//! `ISTHMUS_CASES` is the number of seeds, `ISTHMUS_SEED` the first one.

use bucket::fault::{Faults, FaultyStore};
use series::ChunkSampleValue;
use tsdb::Encoding;

use super::random::{Random, assert_same, seeds};
use super::*;
use crate::housekeeping::Chores;
use crate::plan::HOUR;

/// Steps of one seed.
const STEPS: usize = 8;
const FLAGS: [&str; 2] = ["--deduplication.replica-label=replica", "--delete-delay=0s"];

/// What happens in a step.
#[derive(Clone, Copy, Debug)]
enum Event {
    Upload,
    Compact,
    Housekeep,
    Downsample,
}

struct Simulation {
    random: Random,
    memory: Arc<InMemory>,
    bucket: Bucket,
    dir: tempfile::TempDir,
    /// The samples of all whole blocks.
    expected: BTreeMap<SeriesKey, Vec<ChunkSample>>,
    uploaded: u64,
    seed: u64,
}

/// What the steps of a seed did.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    steps: usize,
    kills: usize,
    merges: usize,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let memory = Arc::new(InMemory::new());
        let bucket = Bucket::new(memory.clone());
        let random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self { random, memory, bucket, dir: scratch(), expected: BTreeMap::new(), uploaded: 0, seed }
    }

    /// A bucket whose requests all fail after some; none if this step is not killed.
    fn killed(&mut self) -> Option<Bucket> {
        (self.random.below(2) == 0).then(|| {
            let store = FaultyStore::new(self.memory.clone(), self.seed);
            let left = self.random.below(60) as u64;
            store.set(Faults { requests_left: Some(left), ..Faults::default() });
            Bucket::new(store)
        })
    }

    async fn run(mut self) -> Tally {
        let mut tally = Tally::default();
        for step in 0..STEPS {
            let event = match self.random.below(8) {
                _ if step < 2 => Event::Upload,
                0..3 => Event::Upload,
                3..6 => Event::Compact,
                6 => Event::Housekeep,
                _ => Event::Downsample,
            };
            tally.steps += 1;
            if matches!(event, Event::Upload) {
                self.upload().await;
            } else {
                let killed = self.killed();
                tally.kills += usize::from(killed.is_some());
                let bucket = killed.clone().unwrap_or_else(|| self.bucket.clone());
                tally.merges += self.work(event, &bucket).await;
                // A killed compactor is replaced when its leases have expired.
                if killed.is_some() {
                    self.expire_leases().await;
                }
            }
            self.check().await;
        }
        self.finish().await;
        tally
    }

    /// One replica uploads two hours, some of which were uploaded before.
    async fn upload(&mut self) {
        let replica = ["0", "1"][self.random.below(2)];
        let from = self.random.below(6) as i64 * 2 * HOUR;
        let step = 20 * 60_000;
        let phase = if replica == "0" { 0 } else { 7_000 };
        let sample = |at: i64| ChunkSample {
            at: Timestamp::from_millis(at),
            start: Timestamp::EPOCH,
            value: ChunkSampleValue::Float((at / step) as f64),
            encoding: Encoding::Xor,
        };
        let times = (0..6).map(|n| from + phase + n * step);
        let samples: Vec<ChunkSample> = times.filter(|_| self.random.below(4) > 0).map(sample).collect();
        if samples.is_empty() {
            return;
        }
        self.uploaded += 1;
        let id = Ulid::from_parts(1_700_000_000_000 + self.uploaded, u128::from(self.seed));
        let series = [(labels(&[("__name__", "m")]), samples)];
        let external = [("cluster", "a"), ("replica", replica)];
        let meta = upload(&self.bucket, id, &external, (from, from + 2 * HOUR), &series).await;
        let [(labels, samples)] = series;
        let all = self.expected.entry((GroupKey::of(&meta, &["replica".to_owned()]), labels)).or_default();
        all.extend(samples);
        all.sort_by_key(|sample| sample.at);
        all.dedup_by_key(|sample| sample.at);
    }

    /// A compactor does one kind of work. Returns the number of merges.
    async fn work(&mut self, event: Event, bucket: &Bucket) -> usize {
        let worker = worker(bucket, self.dir.path(), "a", &FLAGS);
        match event {
            Event::Compact => worker.compact().await.map_or(0, |outcome| outcome.made),
            Event::Downsample => worker.downsample().await.map_or(0, |_| 0),
            Event::Housekeep => worker.housekeep(Chores::All, false).await.map_or(0, |_| 0),
            Event::Upload => 0,
        }
    }

    async fn expire_leases(&self) {
        for object in self.bucket.list_all("isthmus/lease").await.unwrap() {
            self.bucket.delete(&object.name).await.unwrap();
        }
    }

    /// The reader sees every sample once. It opens each block whole, so a block without a file fails here.
    async fn check(&self) {
        let reader = worker(&self.bucket, self.dir.path(), "reader", &FLAGS);
        let mut found = visible(&reader).await;
        // Replicas and late blocks are apart until they are merged.
        found.values_mut().for_each(|samples| samples.dedup_by_key(|sample| sample.at));
        assert_same(self.seed, &found, &self.expected);
    }

    /// Without faults, everything is merged, nothing is left, and running again changes nothing.
    async fn finish(self) {
        let last = worker(&self.bucket, self.dir.path(), "b", &FLAGS);
        let outcome = last.compact().await.unwrap();
        assert_eq!(outcome.failed, 0, "seed {}: {:?}", self.seed, last.history.last());
        loop {
            let cleaned = last.housekeep(Chores::All, false).await.unwrap();
            assert_eq!(cleaned.failed, 0, "seed {}: {:?}", self.seed, last.history.last());
            if cleaned.marked + cleaned.removed == 0 {
                break;
            }
        }
        // Now no sample is in two blocks.
        assert_same(self.seed, &visible(&last).await, &self.expected);
        let before = content(&self.bucket).await;
        assert_eq!(last.compact().await.unwrap().made, 0, "seed {}", self.seed);
        last.housekeep(Chores::All, false).await.unwrap();
        assert_eq!(content(&self.bucket).await, before, "seed {}", self.seed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sequence_of_uploads_kills_and_compactors_loses_or_doubles_a_sample() {
    let range = seeds(10_000);
    let halves = [0, 1].map(|half| {
        let (runtime, seeds) = (tokio::runtime::Handle::current(), range.clone());
        let work = move || {
            let mut all = Tally::default();
            for seed in seeds.filter(|seed| seed % 2 == half) {
                let tally = runtime.block_on(Simulation::new(seed).run());
                all.steps += tally.steps;
                all.kills += tally.kills;
                all.merges += tally.merges;
            }
            all
        };
        tokio::task::spawn_blocking(work)
    });
    let [a, b] = futures::future::join_all(halves).await.try_into().unwrap();
    let (a, b) = (a.unwrap(), b.unwrap());
    let (steps, kills, merges) = (a.steps + b.steps, a.kills + b.kills, a.merges + b.merges);
    println!(
        "seeds {range:?}: {steps} steps, {kills} of them killed, {merges} merges; every sample once after each"
    );
    assert!(merges > 0 && kills > 0);
}
