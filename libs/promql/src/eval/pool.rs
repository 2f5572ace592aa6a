//! Worker threads, and the order in which their results are taken.
//!
//! Series are cut into batches of a fixed size, independent of the sizes in which they arrive and of the number of workers.
//! Results are taken in the order of the batches. So the answer depends on the data alone.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use budget::Reservation;

use crate::error::QueryError;
use crate::eval::meter::Meters;
use crate::eval::pipeline::{self, BatchOutcome, BatchScratch, Pipeline};
use crate::plan::Plan;
use crate::shared_series::SharedSeries;

/// Series in a batch.
pub(crate) const BATCH: usize = 128;

/// Work from which on threads are worth their cost, about a millisecond. A batch is as much work as it has bytes, and
/// [`WORK_OF_A_STEP`] for each step of each series.
const WORTH_THREADS: u64 = 2 << 20;
const WORK_OF_A_STEP: u64 = 32;

/// A batch and the pipelines that evaluate it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) pipelines: Arc<Vec<Pipeline>>,
    pub(crate) batch: Vec<SharedSeries>,
    /// Whether a series of the select up to the end of the batch has a type or unit.
    pub(crate) typed: bool,
    /// The memory of the batch, released after it was evaluated.
    pub(crate) reserved: Reservation,
}

type JobResult = (u64, Result<BatchOutcome, QueryError>);

#[derive(Debug)]
struct WorkerThreads {
    /// The queue of batches; `None` if no thread could be started.
    jobs: Option<Sender<(u64, Job)>>,
    results: Receiver<JobResult>,
    handles: Vec<JoinHandle<()>>,
}

/// Evaluates batches. The first ones, and all batches of a single worker, are evaluated on the caller's thread: a query over few
/// series and steps is done before threads would have started.
#[derive(Debug)]
pub(crate) struct Pool {
    plan: Arc<Plan>,
    meters: Arc<Meters>,
    threads: Option<WorkerThreads>,
    scratch: BatchScratch,
    /// The work of the batches so far.
    work: u64,
    submitted: u64,
    taken: u64,
    early: BTreeMap<u64, Result<BatchOutcome, QueryError>>,
}

impl Pool {
    pub(crate) fn new(plan: Arc<Plan>, meters: Arc<Meters>) -> Self {
        let (scratch, early) = (BatchScratch::new(&plan.budget), BTreeMap::new());
        Self { plan, meters, threads: None, scratch, work: 0, submitted: 0, taken: 0, early }
    }

    /// Passes a batch to a worker, or evaluates it at once.
    pub(crate) fn submit(&mut self, job: Job) {
        let number = self.submitted;
        self.submitted += 1;
        if self.plan.workers > 1 && self.work >= WORTH_THREADS {
            let threads = self.threads.get_or_insert_with(|| WorkerThreads::start(&self.plan, &self.meters));
            if let Some(jobs) = &threads.jobs {
                if jobs.send((number, job)).is_err() {
                    self.early.insert(number, Err(lost()));
                }
                return;
            }
        }
        self.work += self.work_of(&job);
        let outcome = evaluate(&self.plan, &self.meters, job, &mut self.scratch);
        self.early.insert(number, outcome);
    }

    fn work_of(&self, job: &Job) -> u64 {
        let steps = job.pipelines.iter().map(|pipeline| self.plan.nodes[pipeline.leaf].steps.count as u64);
        job.reserved.bytes() + WORK_OF_A_STEP * steps.sum::<u64>() * job.batch.len() as u64
    }

    /// Whether other threads evaluate batches.
    #[cfg(test)]
    pub(crate) fn has_threads(&self) -> bool {
        self.threads.is_some()
    }

    /// The next result in order. Waits for it with `wait`, or if so many batches are in progress that more would only
    /// take memory.
    pub(crate) fn next(&mut self, wait: bool) -> Option<Result<BatchOutcome, QueryError>> {
        loop {
            if self.taken == self.submitted {
                return None;
            }
            if let Some(outcome) = self.early.remove(&self.taken) {
                self.taken += 1;
                return Some(outcome);
            }
            let under_way = self.submitted - self.taken;
            let Some(threads) = &self.threads else { return Some(Err(lost())) };
            let received = if wait || under_way > 4 * self.plan.workers as u64 {
                threads.results.recv().ok()
            } else {
                match threads.results.try_recv() {
                    Ok(done) => Some(done),
                    Err(std::sync::mpsc::TryRecvError::Empty) => return None,
                    Err(std::sync::mpsc::TryRecvError::Disconnected) => None,
                }
            };
            match received {
                Some((number, outcome)) => {
                    self.early.insert(number, outcome);
                }
                None => {
                    self.taken += 1;
                    return Some(Err(lost()));
                }
            }
        }
    }
}

fn lost() -> QueryError {
    QueryError::execution("internal error: a worker thread of the query terminated early")
}

/// Evaluates a batch. A panic, which would be a bug, fails the query and does not terminate the process.
fn evaluate(
    plan: &Plan,
    meters: &Meters,
    job: Job,
    scratch: &mut BatchScratch,
) -> Result<BatchOutcome, QueryError> {
    let run = || pipeline::run(plan, meters, &job.pipelines, &job.batch, job.typed, scratch);
    let outcome = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(QueryError::execution(format!("internal error while evaluating a series: {text}")))
    });
    drop(job.reserved);
    outcome
}

impl WorkerThreads {
    fn start(plan: &Arc<Plan>, meters: &Arc<Meters>) -> Self {
        let (jobs, queue) = channel::<(u64, Job)>();
        let (done, results) = channel::<JobResult>();
        let queue = Arc::new(Mutex::new(queue));
        let handles: Vec<_> = (0..plan.workers)
            .map_while(|_| {
                let (plan, meters, queue, done) = (plan.clone(), meters.clone(), queue.clone(), done.clone());
                Builder::new().spawn(move || work(&plan, &meters, &queue, &done)).ok()
            })
            .collect();
        Self { jobs: (!handles.is_empty()).then_some(jobs), results, handles }
    }
}

fn work(plan: &Plan, meters: &Meters, queue: &Mutex<Receiver<(u64, Job)>>, done: &Sender<JobResult>) {
    let mut scratch = BatchScratch::new(&plan.budget);
    loop {
        // The lock is held only while a job is received, which cannot panic.
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, job)) = next else { return };
        if done.send((number, evaluate(plan, meters, job, &mut scratch))).is_err() {
            return;
        }
    }
}

impl Drop for WorkerThreads {
    fn drop(&mut self) {
        // Without the sender, workers terminate after the remaining jobs. They stop at the next one, because the channel of
        // results is closed too.
        self.jobs = None;
        let (_, closed) = channel();
        self.results = closed;
        for handle in self.handles.drain(..) {
            // A worker catches panics of its jobs, so there is no error to report here.
            let _ = handle.join();
        }
    }
}
