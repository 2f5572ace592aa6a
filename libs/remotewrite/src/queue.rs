//! A queue: reads windows of the log, and sends each in shards.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use head::{Database, LogHold, LogPosition};
use runtime::Shutdown;
use tracing::{error, info, warn};

use crate::config::{RemoteWriteConfig, RemoteWriteMessage};
use crate::delivery::Delivery;
use crate::item::Item;
use crate::message::encode_metadata;
use crate::metrics::Dropped;
use crate::position::{MOST_SHARDS, WindowState};
use crate::progress::Progress;
use crate::source::{SentRules, Source, Window};

/// How often the end of the log is looked at.
const POLL: Duration = Duration::from_millis(100);
/// How often the position is written to the disk. A crash of the machine can repeat what was sent since.
const SYNC_INTERVAL: Duration = Duration::from_secs(5);
/// The wait after files could not be read or written.
const FAILED_WAIT: Duration = Duration::from_secs(5);

/// Everything that a queue needs.
pub(crate) struct Queue {
    pub(crate) name: String,
    pub(crate) config: RemoteWriteConfig,
    pub(crate) rules: SentRules,
    /// A hash of what decides the content of requests.
    pub(crate) fingerprint: u64,
    pub(crate) file: PathBuf,
    pub(crate) database: Arc<Database>,
    pub(crate) hold: Arc<LogHold>,
    pub(crate) delivery: Delivery,
}

/// What is known while a queue runs.
struct Running {
    source: Arc<Mutex<Source>>,
    progress: Arc<Mutex<Progress>>,
    shards: usize,
    synced: Instant,
    described: Option<Instant>,
    damaged: u64,
}

impl Queue {
    /// Sends until it is asked to stop. What was not sent is sent by the next queue with its file.
    pub(crate) async fn run(self: Arc<Self>, stop: Shutdown) {
        let mut is_failing = false;
        while !stop.is_triggered() {
            match self.run_once(&stop).await {
                Ok(()) => return,
                Err(cause) if !is_failing => {
                    is_failing = true;
                    error!(queue = self.name, error = %cause, "the queue of remote write cannot go on, trying again");
                }
                Err(_) => {}
            }
            stop.until_triggered(tokio::time::sleep(FAILED_WAIT)).await;
        }
    }

    async fn run_once(self: &Arc<Self>, stop: &Shutdown) -> io::Result<()> {
        let queue = Arc::clone(self);
        let (mut running, resumed) = blocking(move || queue.open()).await?;
        if let Some((window, state)) = resumed
            && !self.send(&mut running, window, state, stop).await?
        {
            return Ok(());
        }
        while let Some(window) = self.gather(&mut running, stop).await? {
            let has_more = window.has_more;
            let state = self.state(&window, running.shards);
            if !self.send(&mut running, window, state, stop).await? {
                break;
            }
            running.shards = self.next_shards(running.shards, has_more);
            self.describe(&mut running, stop).await?;
        }
        let progress = Arc::clone(&running.progress);
        blocking(move || lock(&progress).sync()).await
    }

    /// Opens the files, and reads the window that was not sent completely.
    fn open(&self) -> io::Result<(Running, Option<(Window, WindowState)>)> {
        let head = self.database.head();
        let mut progress = Progress::open(&self.file, head.log_end())?;
        let (mut source, begin) = Source::open(head, self.rules.clone(), progress.until())?;
        let mut unfinished = progress.unfinished().cloned();
        if begin != progress.until() {
            warn!(
                queue = self.name,
                "the write-ahead log no longer has all that was not sent, sending what it has"
            );
            unfinished = None;
            progress.end(begin)?;
        }
        self.hold.release_before(begin.segment);
        let window = match &unfinished {
            None => None,
            Some(state) => {
                let mut window = Window::new(begin);
                source.read(&mut window, usize::MAX, state.end)?;
                Some(window)
            }
        };
        let running = Running {
            source: Arc::new(Mutex::new(source)),
            progress: Arc::new(Mutex::new(progress)),
            shards: self.config.queue.min_shards.min(MOST_SHARDS),
            synced: Instant::now(),
            described: None,
            damaged: 0,
        };
        info!(queue = self.name, segment = begin.segment, offset = begin.offset, "sending samples");
        let Some((state, window)) = unfinished.zip(window) else { return Ok((running, None)) };
        // With other rules, the same samples make other requests.
        let state = match state.fingerprint == self.fingerprint {
            true => state,
            false => self.state(&window, running.shards),
        };
        Ok((running, Some((window, state))))
    }

    /// Waits for a window that is worth a request. None if the queue stops.
    async fn gather(self: &Arc<Self>, running: &mut Running, stop: &Shutdown) -> io::Result<Option<Window>> {
        let config = &self.config.queue;
        let mut window = Window::new(lock(&running.progress).until());
        let mut first = None;
        loop {
            if stop.is_triggered() {
                return Ok(None);
            }
            let end = self.database.head().log_end();
            if window.end < end {
                window = self.read(running, window, end).await?;
            }
            if !window.items.is_empty() {
                let since = *first.get_or_insert_with(Instant::now);
                let is_full = window.has_more || window.items.len() >= config.max_samples_per_send;
                if is_full || since.elapsed() >= config.batch_send_deadline {
                    return Ok(Some(window));
                }
            } else if window.end > lock(&running.progress).until() {
                // Nothing of it is sent.
                self.count(&window);
                self.end(running, window.end).await?;
                window = Window::new(window.end);
            }
            stop.until_triggered(tokio::time::sleep(POLL)).await;
        }
    }

    async fn read(
        self: &Arc<Self>,
        running: &mut Running,
        mut window: Window,
        end: LogPosition,
    ) -> io::Result<Window> {
        let most = running.shards.saturating_mul(self.config.queue.capacity);
        let source = Arc::clone(&running.source);
        let (window, damaged) = blocking(move || {
            let mut source = lock(&source);
            source.read(&mut window, most, end)?;
            Ok((window, source.damaged()))
        })
        .await?;
        if damaged > running.damaged {
            self.delivery.metrics().damaged(damaged - running.damaged);
            warn!(
                queue = self.name,
                "a part of the write-ahead log cannot be read, its samples are not sent"
            );
            running.damaged = damaged;
        }
        if let Some(newest) = window.newest {
            self.delivery.metrics().highest(newest, false);
        }
        Ok(window)
    }

    /// How a window is sent.
    fn state(&self, window: &Window, shards: usize) -> WindowState {
        let per_send = self.config.queue.max_samples_per_send;
        let least = self.config.queue.min_shards.min(MOST_SHARDS);
        let shards = window.items.len().div_ceil(per_send).max(least).min(shards).max(1);
        WindowState {
            end: window.end,
            fingerprint: self.fingerprint,
            per_send: u32::try_from(per_send).unwrap_or(u32::MAX),
            answered: vec![0; shards],
        }
    }

    /// Sends what of a window was not answered. False if the queue stops before.
    async fn send(
        &self,
        running: &mut Running,
        window: Window,
        state: WindowState,
        stop: &Shutdown,
    ) -> io::Result<bool> {
        let metrics = self.delivery.metrics();
        metrics.pending(window.items.len() as u64);
        metrics.shards(state.answered.len(), self.config.queue.min_shards, self.config.queue.max_shards);
        self.count(&window);
        lock(&running.progress).begin(state.clone())?;
        let (end, newest) = (window.end, window.newest);
        let shards = batches(window.items, &state).into_iter().enumerate().map(|(shard, batches)| {
            let progress = Arc::clone(&running.progress);
            async move {
                for batch in batches {
                    if !self.delivery.deliver(batch, stop).await {
                        return Ok(false);
                    }
                    lock(&progress).answered(shard)?;
                }
                io::Result::Ok(true)
            }
        });
        let results: Vec<bool> = join_all(shards).await.into_iter().collect::<Result<_, _>>()?;
        if results.contains(&false) {
            return Ok(false);
        }
        if let Some(newest) = newest {
            metrics.highest(newest, true);
        }
        metrics.pending(0);
        self.end(running, end).await?;
        Ok(true)
    }

    fn count(&self, window: &Window) {
        self.delivery.metrics().dropped(window.dropped, Dropped::Relabelling);
        self.delivery.metrics().dropped(window.unknown, Dropped::UnknownSeries);
    }

    /// All up to this place was sent.
    async fn end(&self, running: &mut Running, until: LogPosition) -> io::Result<()> {
        lock(&running.progress).end(until)?;
        if running.synced.elapsed() >= SYNC_INTERVAL {
            running.synced = Instant::now();
            let progress = Arc::clone(&running.progress);
            blocking(move || lock(&progress).sync()).await?;
        }
        self.hold.release_before(until.segment);
        Ok(())
    }

    /// More shards while the log has more than they take, fewer otherwise.
    fn next_shards(&self, shards: usize, has_more: bool) -> usize {
        let (min, max) = (self.config.queue.min_shards, self.config.queue.max_shards.min(MOST_SHARDS));
        let next = if has_more { shards.saturating_mul(2) } else { shards.saturating_sub(1) };
        next.min(max).max(min.min(max)).max(1)
    }

    /// Sends metadata when it is time. Messages of version 2.0 have it beside the samples.
    async fn describe(&self, running: &mut Running, stop: &Shutdown) -> io::Result<()> {
        let Some(interval) = self.config.metadata_interval else { return Ok(()) };
        let is_due = running.described.is_none_or(|last| last.elapsed() >= interval);
        if !is_due || self.delivery.message() == RemoteWriteMessage::V2 {
            return Ok(());
        }
        running.described = Some(Instant::now());
        let per_send = self.config.metadata_per_send;
        let source = Arc::clone(&running.source);
        let messages = blocking(move || Ok(encode_metadata(&lock(&source).families(), per_send))).await?;
        for (metrics, body) in messages {
            self.delivery.deliver_metadata(metrics, body, stop).await;
        }
        Ok(())
    }
}

/// The requests of each shard that were not answered yet. They depend on nothing but the items and the state.
fn batches(items: Vec<Item>, state: &WindowState) -> Vec<Vec<Vec<Item>>> {
    let mut shards: Vec<Vec<Item>> = state.answered.iter().map(|_| Vec::new()).collect();
    let count = shards.len().max(1) as u64;
    for item in items {
        if let Some(shard) = shards.get_mut((item.series.hash % count) as usize) {
            shard.push(item);
        }
    }
    let per_send = (state.per_send as usize).max(1);
    let left = |(items, answered): (Vec<Item>, &u32)| {
        items.chunks(per_send).skip(*answered as usize).map(<[Item]>::to_vec).collect()
    };
    shards.into_iter().zip(&state.answered).map(left).collect()
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
