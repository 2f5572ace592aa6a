//! A simulation of uploaders, compactors, stores that read and an object store that fails, over several groups, with clocks that jump:
//! random steps by a seed. After each step the invariants of [`oracle`] hold.
//!
//! Compactors are killed after a random number of requests, paused while another one takes over, or have a store that fails, cuts answers
//! short, or does what was asked and loses the answer. Uploaders are killed, too, and continue later or never.
//!
//! `ISTHMUS_CASES` is the number of seeds, `ISTHMUS_SEED` the first one.

mod machines;
mod oracle;
mod tally;
mod upload;

use std::sync::atomic::{AtomicI64, Ordering};

use bucket::clocked::ClockedStore;
use bucket::fault::{Faults, FaultyStore};
use object_store::ObjectStore;

use self::machines::Machine;
use self::oracle::{Published, Reader};
use self::tally::Tally;
use self::upload::Upload;
use super::clocks::Clocks;
use super::random::{Random, seeds};
use super::*;
use crate::history::Action;
use crate::housekeeping::Chores;
use crate::plan::HOUR;

/// Steps of one seed.
const STEPS: usize = 12;
const REPLICA_LABEL: &str = "replica";
const FLAGS: [&str; 3] =
    ["--deduplication.replica-label=replica", "--delete-delay=2h", "--retention.resolution-raw=60h"];
/// What the flags say, in milliseconds.
const DELETE_DELAY: i64 = 2 * HOUR;
const RAW_KEPT: i64 = 60 * HOUR;
/// A multiple of 14 days, and a time to live of a lease.
const START: i64 = 1_699_488_000_000;
const LEASE: i64 = 61_000;
/// How far the clocks of machines and of the bucket jump. No two agree within five minutes.
const MACHINE_JUMPS: [i64; 6] =
    [6 * 60_000, -6 * 60_000, 3 * HOUR, -50 * HOUR, 87_600 * HOUR, -87_600 * HOUR];
const BUCKET_JUMPS: [i64; 4] = [13 * 60_000, -5 * HOUR, 61_320 * HOUR, -61_320 * HOUR];

/// What a compactor does in a step.
#[derive(Clone, Copy, Debug)]
enum Work {
    Compact,
    Housekeep,
    Downsample,
}

/// What happens to it meanwhile.
#[derive(Clone, Copy, Debug)]
enum Disturbance {
    None,
    Kill,
    Failures,
    Pause,
}

struct Simulation {
    seed: u64,
    random: Random,
    clocks: Clocks,
    memory: Arc<ClockedStore>,
    bucket: Bucket,
    dir: tempfile::TempDir,
    machines: Vec<Machine>,
    reader: Reader,
    published: Vec<Published>,
    unfinished: Vec<Upload>,
    begun: u64,
    tally: Tally,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let clocks = Clocks::new(START);
        let memory = clocks.store(Arc::new(InMemory::new()));
        let bucket = Bucket::new(memory.clone());
        let mut new = Self {
            seed,
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            clocks,
            reader: Reader::new(&bucket),
            memory,
            bucket,
            dir: scratch(),
            machines: Vec::new(),
            published: Vec::new(),
            unfinished: Vec::new(),
            begun: 0,
            tally: Tally::default(),
        };
        new.machines = ["a", "b"].into_iter().map(|name| new.start(name, Arc::default())).collect();
        new
    }

    fn start(&self, name: &'static str, ahead: Arc<AtomicI64>) -> Machine {
        let inner: Arc<dyn ObjectStore> = self.memory.clone();
        Machine::start(&self.bucket, inner, &self.clocks, self.dir.path(), name, ahead)
    }

    async fn run(mut self) -> Tally {
        for step in 0..STEPS {
            match self.random.below(17) {
                _ if step < 3 => self.upload().await,
                0..3 => self.upload().await,
                3 => self.resume().await,
                4..8 => self.work(Work::Compact).await,
                8..11 => self.work(Work::Housekeep).await,
                11..13 => self.work(Work::Downsample).await,
                13..15 => self.jump(),
                _ => self.clocks.pass((1 + self.random.below(36) as i64) * HOUR),
            }
            self.clocks.pass(LEASE);
            self.tally.steps += 1;
            self.check().await;
        }
        self.finish().await;
        self.tally
    }

    /// A replica of one of two clusters uploads two hours, some of which were uploaded before. It may be killed.
    async fn upload(&mut self) {
        self.begun += 1;
        let parent = self.dir.path().join("uploads").join(self.begun.to_string());
        let id = Ulid::from_parts(self.clocks.now() as u64 + self.begun, u128::from(self.seed));
        let upload = Upload::write(&parent, id, self.clocks.now(), &mut self.random);
        self.publish(upload, true).await;
    }

    /// An upload that was killed goes on.
    async fn resume(&mut self) {
        if let Some(upload) = self.unfinished.pop() {
            self.publish(upload, true).await;
        }
    }

    async fn publish(&mut self, upload: Upload, may_fail: bool) {
        let store = FaultyStore::new(self.memory.clone(), self.seed);
        if may_fail && self.random.below(3) == 0 {
            let requests_left = Some(self.random.below(20) as u64);
            store.set(Faults { requests_left, ..Faults::default() });
            self.tally.kills += 1;
        }
        let options = PublishOptions { retry: ONCE, ..PublishOptions::default() };
        let done = publish(&Bucket::new(store), &upload.folder, upload.meta.clone(), &options).await;
        // After an error there is no block, or a whole one.
        if done.is_ok() || self.bucket.exists(&layout::meta(upload.meta.ulid)).await.unwrap() {
            self.published.push(upload.block);
            self.tally.uploads += 1;
        } else {
            self.unfinished.push(upload);
        }
    }

    /// The clock of a machine or of the bucket jumps, or is corrected.
    fn jump(&mut self) {
        self.tally.jumps += 1;
        let is_wrong = self.random.below(2) == 0;
        match self.random.below(3) {
            2 => {
                let ahead = BUCKET_JUMPS[self.random.below(BUCKET_JUMPS.len())];
                self.clocks.set_bucket_ahead(if is_wrong { ahead } else { 0 });
            }
            machine => {
                let ahead = MACHINE_JUMPS[self.random.below(MACHINE_JUMPS.len())];
                self.machines[machine].ahead.store(if is_wrong { ahead } else { 0 }, Ordering::SeqCst);
            }
        }
    }

    /// One of the compactors works, and is disturbed.
    async fn work(&mut self, work: Work) {
        let (number, extent) = (self.random.below(2), self.random.below(90));
        let disturbance = match self.random.below(8) {
            0..4 => Disturbance::None,
            4..6 => Disturbance::Kill,
            6 => Disturbance::Failures,
            _ => Disturbance::Pause,
        };
        let (machine, other) = (&self.machines[number], &self.machines[1 - number]);
        let mut retired = None;
        match disturbance {
            Disturbance::None => retired = does(&machine.worker, work).await,
            Disturbance::Kill => {
                self.tally.kills += 1;
                machine.store.set(Faults { requests_left: Some(extent as u64), ..Faults::default() });
                does(&machine.worker, work).await;
            }
            Disturbance::Failures => {
                self.tally.failures += 1;
                let rate = extent as f64 / 900.0;
                let faults =
                    Faults { errors: rate, lost_answers: rate, truncated: rate, ..Faults::default() };
                machine.store.set(faults);
                does(&machine.worker, work).await;
                machine.store.set(Faults::default());
            }
            Disturbance::Pause => {
                machine.pause.after(1 + extent / 3);
                self.tally.pauses += usize::from(paused(machine, other, &self.clocks, work).await);
                machine.pause.after(0);
            }
        }
        if let Some(retired) = retired {
            assert_eq!(retired, 0, "seed {}: blocks were retired that nothing replaces", self.seed);
        }
        self.note();
        if matches!(disturbance, Disturbance::Kill) {
            let ahead = Arc::clone(&self.machines[number].ahead);
            self.machines[number] = self.start(["a", "b"][number], ahead);
        }
    }

    /// Counts and checks what the compactors decided.
    fn note(&mut self) {
        for machine in &mut self.machines {
            for decision in machine.worker.history.last() {
                let balanced = decision.samples.is_none_or(|account| account.is_balanced());
                let is_merge = decision.action == Action::Compacted;
                assert!(!is_merge || balanced, "seed {}: {decision:?}", self.seed);
                match decision.action {
                    Action::Compacted => self.tally.merges += 1,
                    Action::Downsampled => self.tally.downsampled += 1,
                    Action::Marked if decision.why.starts_with("retention") => self.tally.retired += 1,
                    Action::Deleted | Action::Cleaned => self.tally.removed += 1,
                    _ => {}
                }
                let is_retired = decision.action == Action::Marked;
                assert!(!is_retired || !decision.to.is_empty(), "seed {}: {decision:?}", self.seed);
            }
            machine.worker.history = History::new(None);
        }
    }

    async fn check(&mut self) {
        for machine in &self.machines {
            let unfenced = machine.unfenced.lock().unwrap();
            assert!(unfenced.is_empty(), "seed {}: {unfenced:?}", self.seed);
        }
        let (now, syncs) = (self.clocks.now(), self.random.below(3) == 0);
        self.reader.check(self.seed, now, &self.published, syncs).await;
    }

    /// With correct clocks and without faults everything is merged, downsampled, retired and removed; then nothing is left to do.
    async fn finish(&mut self) {
        self.clocks.set_bucket_ahead(0);
        for upload in std::mem::take(&mut self.unfinished) {
            self.publish(upload, false).await;
        }
        self.machines.clear();
        self.machines = ["c", "d"].into_iter().map(|name| self.start(name, Arc::default())).collect();
        for hours in [0, 13, 80, 400] {
            self.clocks.pass(hours * HOUR);
            self.work_until_done().await;
            self.check().await;
        }
        let before = content(&self.bucket).await;
        self.work_until_done().await;
        assert_eq!(
            content(&self.bucket).await,
            before,
            "seed {}: the same work made another bucket",
            self.seed
        );
    }

    async fn work_until_done(&mut self) {
        let (mut quiet, mut last) = (0, String::new());
        for round in 0.. {
            assert!(round < 60, "seed {}: there is always something left to do: {last}", self.seed);
            self.clocks.pass(LEASE + DELETE_DELAY);
            let worker = &self.machines[0].worker;
            let (compacted, downsampled) =
                (worker.compact().await.unwrap(), worker.downsample().await.unwrap());
            let cleaned = worker.housekeep(Chores::All, false).await.unwrap();
            let failed = compacted.failed + downsampled.failed + cleaned.failed;
            assert_eq!(failed, 0, "seed {}: {:?}", self.seed, worker.history.last());
            let waits = compacted.waiting + downsampled.waiting + usize::from(cleaned.waiting);
            let done = compacted.made + downsampled.made + cleaned.marked + cleaned.removed;
            quiet = if waits + done == 0 { quiet + 1 } else { 0 };
            last = format!("{compacted:?} {downsampled:?} {cleaned:?} {:?}", worker.history.last());
            self.note();
            if quiet > 1 {
                return;
            }
        }
    }
}

/// Does the work. Returns how many blocks retention retired without a replacement.
async fn does(worker: &BucketWorker, work: Work) -> Option<usize> {
    match work {
        Work::Compact => _ = worker.compact().await,
        Work::Downsample => _ = worker.downsample().await,
        Work::Housekeep => {
            worker.housekeep(Chores::All, false).await.ok()?;
            let lost = |decision: &crate::history::Decision| {
                decision.action == Action::Marked && decision.to.is_empty()
            };
            return Some(worker.history.last().iter().filter(|decision| lost(decision)).count());
        }
    }
    None
}

/// One compactor stops in the middle of its work, and goes on after another one took over. Returns whether it was stopped.
async fn paused(machine: &Machine, other: &Machine, clocks: &Clocks, work: Work) -> bool {
    let done = tokio::sync::Notify::new();
    let working = async {
        does(&machine.worker, work).await;
        done.notify_one();
    };
    let pausing = async {
        tokio::select! {
            () = done.notified() => false,
            () = machine.pause.begins.notified() => {
                // The other one sees the lease, and takes it when it did not change for its time to live.
                for _ in 0..2 {
                    for work in [Work::Compact, Work::Downsample, Work::Housekeep] {
                        does(&other.worker, work).await;
                    }
                    clocks.pass(LEASE);
                }
                machine.pause.ends.notify_one();
                true
            }
        }
    };
    tokio::join!(working, pausing).1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sequence_of_uploads_faults_jumps_and_compactors_loses_or_doubles_a_sample() {
    let (range, began) = (seeds(10_000), std::time::Instant::now());
    let halves = [0, 1].map(|half| {
        let (runtime, seeds) = (tokio::runtime::Handle::current(), range.clone());
        let work = move || {
            let seeds = seeds.filter(|seed| seed % 2 == half);
            seeds
                .map(|seed| runtime.block_on(Simulation::new(seed).run()))
                .fold(Tally::default(), Tally::plus)
        };
        tokio::task::spawn_blocking(work)
    });
    let [a, b] = futures::future::join_all(halves).await.try_into().unwrap();
    let all = Tally::plus(a.unwrap(), b.unwrap());
    println!("seeds {range:?} in {:.0?}: every invariant held after each step: {all:?}", began.elapsed());
    let Tally { merges, kills, pauses, failures, jumps, downsampled, retired, removed, .. } = all;
    if range.end - range.start >= 1000 {
        assert!(
            [merges, kills, pauses, failures, jumps, downsampled, retired, removed].iter().all(|n| *n > 0)
        );
    }
}
