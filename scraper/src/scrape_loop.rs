//! The scrapes of one target, one after the other.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use model::Timestamp;
use runtime::{GateGuard, Shutdown, format_duration};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval_at, sleep};

use crate::exposed::Exposition;
use crate::failure::ScrapeFailure;
use crate::report::ScrapeReport;
use crate::schedule::{ScrapeTimes, until_first};
use crate::series::{TargetMetadata, TargetSeries};
use crate::setup::JobSetup;
use crate::shared::Shared;
use crate::target::Target;
use crate::target_state::TargetState;

/// Why no target of a scrape configuration may be scraped, if there is a reason.
pub(crate) type Refusal = Arc<Mutex<Option<String>>>;

/// Scrapes a target until it is gone.
pub(crate) struct ScrapeLoop {
    pub(crate) shared: Arc<Shared>,
    pub(crate) target: Arc<Target>,
    pub(crate) state: Arc<TargetState>,
    pub(crate) metadata: TargetMetadata,
    pub(crate) setup: watch::Receiver<Arc<JobSetup>>,
    pub(crate) refusal: Refusal,
    /// Triggered when the target is gone.
    pub(crate) gone: Shutdown,
    /// Keeps a shutdown waiting.
    pub(crate) guard: GateGuard,
}

/// What is known between two scrapes.
struct Progress {
    series: TargetSeries,
    setup: Arc<JobSetup>,
    last: Option<Instant>,
    /// Samples were refused in the last scrape.
    is_refusing: bool,
    /// The last scrape could not be stored.
    is_failing: bool,
}

impl ScrapeLoop {
    /// Scrapes until the target is gone, and then marks its series as stale. A shutdown ends it at once.
    pub(crate) async fn run(self) {
        let shutdown = self.shared.shutdown.clone();
        // The loop keeps its guard until here.
        shutdown.until_triggered(self.run_until_gone()).await;
        drop(self.guard);
    }

    async fn run_until_gone(&self) {
        let interval = self.target.interval;
        let seed = self.shared.seed.load(std::sync::atomic::Ordering::Relaxed);
        let wait = until_first(self.shared.clock.nanos(), interval, self.target.hash ^ seed);
        if self.gone.until_triggered(sleep(wait)).await.is_none() {
            return;
        }
        let mut ticks = interval_at(tokio::time::Instant::now(), interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticks.tick().await;
        let mut times = ScrapeTimes::new(self.shared.clock.nanos(), interval);
        let setup = Arc::clone(&self.setup.borrow());
        let series = self.series(&setup);
        let mut progress = Progress { series, setup, last: None, is_refusing: false, is_failing: false };
        loop {
            // A scrape that began is completed, even if the target is gone meanwhile.
            progress = self.scrape(times.at(self.shared.clock.nanos()), progress).await;
            if self.gone.is_triggered() || self.gone.until_triggered(ticks.tick()).await.is_none() {
                break;
            }
        }
        self.end(progress, ticks).await;
    }

    /// Marks the series as stale at the time of the scrape that there would have been. It waits, because the target may come back
    /// with other labels that its series do not have, and its samples then win.
    async fn end(&self, mut progress: Progress, mut ticks: Interval) {
        ticks.tick().await;
        let time = self.shared.clock.now();
        ticks.tick().await;
        sleep(self.target.interval / 10).await;
        let shared = Arc::clone(&self.shared);
        let ended = self.work(move || progress.series.end(shared.database.head(), time)).await;
        if let Some(Err(error)) = ended {
            tracing::error!(target = self.target.url, error = %error, "series of a target that is gone cannot be marked as stale");
        }
    }

    async fn scrape(&self, time: Timestamp, mut progress: Progress) -> Progress {
        let (started, began) = (Instant::now(), self.shared.clock.nanos());
        if let Some(last) = progress.last.replace(started) {
            let seconds = started.duration_since(last).as_secs_f64();
            self.shared.metrics.observe_interval(&format_duration(self.target.interval), seconds);
        }
        self.renew(&mut progress);
        let refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let fetched = match refusal {
            Some(why) => Err(ScrapeFailure::Fetch(why)),
            None => progress.setup.fetcher.fetch(&self.target.url, self.target.timeout).await,
        };
        let shared = Arc::clone(&self.shared);
        let (mut series, setup) = (progress.series, Arc::clone(&progress.setup));
        let appended = self.work(move || {
            let read = fetched.as_ref().map_err(Clone::clone);
            let text = read.and_then(|fetched| Ok((fetched.text()?, fetched)));
            let exposition = match &text {
                Ok((body, _)) if body.is_empty() => Ok(Exposition::EMPTY),
                Ok((body, fetched)) => fetched.format().map(|format| Exposition { body, format }),
                Err(failure) => Err(failure.clone()),
            };
            let report = series.append(shared.database.head(), time, exposition, &|| started.elapsed());
            (series, report)
        });
        let Some((series, report)) = appended.await else {
            // The thread panicked, and what it knew is lost.
            let series = self.series(&setup);
            return Progress { series, setup, ..progress };
        };
        progress = Progress { series, setup, ..progress };
        let stored = report.map_err(|error| error.to_string());
        self.note(began, started, stored, &mut progress);
        progress
    }

    fn series(&self, setup: &JobSetup) -> TargetSeries {
        let series = TargetSeries::new(self.target.labels.clone(), Arc::clone(&setup.rules));
        series.with_metadata(self.metadata.clone())
    }

    /// Takes the settings of now.
    fn renew(&self, progress: &mut Progress) {
        let setup = Arc::clone(&self.setup.borrow());
        if !Arc::ptr_eq(&setup, &progress.setup) {
            let keeps_series = setup.has_same_series(&progress.setup);
            progress.series.set_rules(Arc::clone(&setup.rules), keeps_series);
            progress.setup = setup;
        }
    }

    fn note(
        &self,
        began: i64,
        started: Instant,
        stored: Result<ScrapeReport, String>,
        progress: &mut Progress,
    ) {
        let url = self.target.url.as_str();
        let is_failing = stored.is_err();
        match stored {
            Ok(report) => {
                let error = report.failure.as_ref().map(ToString::to_string);
                if let Some(error) = &error {
                    tracing::debug!(target = url, error, "the scrape failed");
                }
                self.shared.metrics.count_report(&report);
                let refused = report.out_of_order + report.duplicates + report.too_old;
                match (refused > 0, progress.is_refusing) {
                    (true, false) => tracing::warn!(
                        target = url,
                        out_of_order = report.out_of_order,
                        duplicates = report.duplicates,
                        out_of_bounds = report.too_old,
                        "samples of a scrape are refused"
                    ),
                    (false, true) => tracing::info!(target = url, "no samples are refused any more"),
                    _ => {}
                }
                progress.is_refusing = refused > 0;
                self.state.note(began, started.elapsed(), error);
            }
            Err(error) => {
                if !progress.is_failing {
                    tracing::error!(target = url, error, "a scrape cannot be stored");
                }
                self.state.note(
                    began,
                    started.elapsed(),
                    Some(format!("the samples cannot be stored: {error}")),
                );
            }
        }
        if progress.is_failing && !is_failing {
            tracing::info!(target = url, "scrapes are stored again");
        }
        progress.is_failing = is_failing;
    }

    /// Does work that takes long on a thread of its own, with not too many at once. None if it panicked.
    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let permit = Arc::clone(&self.shared.workers).acquire_owned().await.ok()?;
        // A shutdown drops the loop, and waits for what the thread appends.
        let guard = self.shared.loops.enter()?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop((permit, guard));
            done
        });
        done.await.inspect_err(|error| tracing::error!(target = self.target.url, error = %error, "a scrape ended by a defect of this program")).ok()
    }
}
