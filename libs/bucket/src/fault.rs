//! An object store that injects faults by a seed: with the same seed, the same requests fail in the same way.
//!
//! Tests, of this crate and of others, put it between a [`Bucket`](crate::Bucket) and any store.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};

/// Number of the last written objects that a stale listing may lack.
const RECENT: usize = 16;

/// Which faults are injected, and how often. Rates are from 0 (never) to 1 (always); the default is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// Requests that fail without an effect: 503, 429, a closed connection.
    pub errors: f64,
    /// Writes and removals that are done, but whose answer is lost.
    pub lost_answers: f64,
    /// Requests that are delayed by [`Faults::stall`].
    pub stalls: f64,
    /// Length of a delay.
    pub stall: Duration,
    /// Reads whose content ends too early, without an error.
    pub truncated: f64,
    /// Listings that lack some of the last written objects.
    pub stale_lists: f64,
    /// Whether conditions of writes are ignored, so that creations and updates overwrite.
    pub ignores_conditions: bool,
    /// Number of requests after which every request fails, as if the store, or the client, had been killed.
    pub requests_left: Option<u64>,
}

impl Faults {
    /// All kinds of faults, each at `rate`; conditions are honoured.
    pub fn all(rate: f64) -> Self {
        Self {
            errors: rate,
            lost_answers: rate,
            stalls: rate,
            stall: Duration::from_millis(2),
            truncated: rate,
            stale_lists: rate,
            ..Self::default()
        }
    }
}

/// An [`ObjectStore`] around another one that injects [`Faults`].
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    state: Arc<Mutex<FaultState>>,
}

struct FaultState {
    seed: u64,
    random: u64,
    faults: Faults,
    recent: VecDeque<Path>,
    injected: BTreeMap<&'static str, u64>,
    requests: u64,
    after_write: Option<Hook>,
    after_read: Option<Hook>,
    before_read: Option<Hook>,
}

type Hook = Arc<dyn Fn(Path) -> BoxFuture<'static, ()> + Send + Sync>;

impl FaultyStore {
    /// A store around `inner`, without faults until [`FaultyStore::set`]; random numbers come from `seed`.
    pub fn new(inner: Arc<dyn ObjectStore>, seed: u64) -> Arc<Self> {
        let state = FaultState {
            seed,
            random: seed,
            faults: Faults::default(),
            recent: VecDeque::new(),
            injected: BTreeMap::new(),
            requests: 0,
            after_write: None,
            after_read: None,
            before_read: None,
        };
        Arc::new(Self { inner, state: Arc::new(Mutex::new(state)) })
    }

    /// Sets the faults of the following requests.
    pub fn set(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Runs `work` between each write of a whole object and its answer, as another process could.
    pub fn after_write(&self, work: impl Fn(Path) -> BoxFuture<'static, ()> + Send + Sync + 'static) {
        self.state().after_write = Some(Arc::new(work));
    }

    /// Runs `work` between each read of a whole object and its answer, as another process could.
    pub fn after_read(&self, work: impl Fn(Path) -> BoxFuture<'static, ()> + Send + Sync + 'static) {
        self.state().after_read = Some(Arc::new(work));
    }

    /// Runs `work` before each read of a whole object, as another process could.
    pub fn before_read(&self, work: impl Fn(Path) -> BoxFuture<'static, ()> + Send + Sync + 'static) {
        self.state().before_read = Some(Arc::new(work));
    }

    /// Number of requests so far.
    pub fn requests(&self) -> u64 {
        self.state().requests
    }

    /// Number of injected faults by kind.
    pub fn injected(&self) -> BTreeMap<&'static str, u64> {
        self.state().injected.clone()
    }

    fn state(&self) -> MutexGuard<'_, FaultState> {
        lock(&self.state)
    }

    /// Counts a request, delays it or fails it.
    async fn begin(&self, name: &Path) -> Result<()> {
        begin(&self.state, name).await
    }
}

fn lock(state: &Mutex<FaultState>) -> MutexGuard<'_, FaultState> {
    // The numbers are valid even if another thread panicked.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn begin(state: &Mutex<FaultState>, name: &Path) -> Result<()> {
    let stall = {
        let mut state = lock(state);
        state.requests += 1;
        if let Some(left) = &mut state.faults.requests_left {
            match left.checked_sub(1) {
                Some(less) => *left = less,
                None => return Err(failure("the store was killed")),
            }
        }
        let (stalls, stall) = (state.faults.stalls, state.faults.stall);
        state.rolls("stall", stalls).then_some(stall)
    };
    if let Some(stall) = stall {
        tokio::time::sleep(stall).await;
    }
    let mut state = lock(state);
    let errors = state.faults.errors;
    if state.rolls("error", errors) {
        let kinds =
            ["503 Service Unavailable", "429 Too Many Requests", "connection closed before the answer"];
        let kind = kinds[(state.next() % 3) as usize];
        return Err(failure(&format!("{kind} ({name})")));
    }
    Ok(())
}

/// Loses the answer to a write that was done, at the configured rate.
fn answer<T>(state: &Mutex<FaultState>, done: T) -> Result<T> {
    let mut state = lock(state);
    let rate = state.faults.lost_answers;
    if state.rolls("lost answer", rate) { Err(failure("the answer was lost")) } else { Ok(done) }
}

fn failure(text: &str) -> Error {
    Error::Generic { store: "faulty", source: text.into() }
}

impl FaultState {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.random;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn rolls(&mut self, kind: &'static str, rate: f64) -> bool {
        let happens = rate > 0.0 && (self.next() >> 11) as f64 / ((1u64 << 53) as f64) < rate;
        if happens {
            *self.injected.entry(kind).or_default() += 1;
        }
        happens
    }

    fn wrote(&mut self, name: &Path) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(name.clone());
    }

    /// The objects that a stale listing lacks.
    fn hidden(&mut self) -> Vec<Path> {
        let rate = self.faults.stale_lists;
        if !self.rolls("stale listing", rate) || self.recent.is_empty() {
            return Vec::new();
        }
        let from = self.next() as usize % self.recent.len();
        self.recent.iter().skip(from).cloned().collect()
    }

    /// The length at which content of `length` bytes is cut short, if it is.
    fn cut(&mut self, length: u64) -> Option<u64> {
        let rate = self.faults.truncated;
        (length > 0 && self.rolls("truncated", rate)).then(|| self.next() % length)
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("FaultyStore").field("seed", &state.seed).field("faults", &state.faults).finish()
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty(seed {}, {})", self.state().seed, self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, name: &Path, content: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        self.begin(name).await?;
        if self.state().faults.ignores_conditions {
            options.mode = PutMode::Overwrite;
        }
        let result = self.inner.put_opts(name, content, options).await?;
        self.state().wrote(name);
        let after_write = self.state().after_write.clone();
        if let Some(work) = after_write {
            work(name.clone()).await;
        }
        answer(&self.state, result)
    }

    async fn put_multipart_opts(
        &self,
        name: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.begin(name).await?;
        let inner = self.inner.put_multipart_opts(name, options).await?;
        let (state, name) = (Arc::clone(&self.state), name.clone());
        Ok(Box::new(FaultyUpload { inner, name, state }))
    }

    async fn get_opts(&self, name: &Path, options: GetOptions) -> Result<GetResult> {
        self.begin(name).await?;
        let (is_head, is_whole) = (options.head, !options.head && options.range.is_none());
        let before_read = self.state().before_read.clone().filter(|_| is_whole);
        if let Some(work) = before_read {
            work(name.clone()).await;
        }
        let result = self.inner.get_opts(name, options).await?;
        let after_read = self.state().after_read.clone().filter(|_| is_whole);
        if let Some(work) = after_read {
            work(name.clone()).await;
        }
        let length = result.range.end - result.range.start;
        let cut = if is_head { None } else { self.state().cut(length) };
        let Some(cut) = cut else { return Ok(result) };
        let (meta, range, attributes) =
            (result.meta.clone(), result.range.clone(), result.attributes.clone());
        let extensions = result.extensions.clone();
        let pieces = result.into_stream().try_filter_map({
            let mut left = cut;
            move |piece| {
                let length = left.min(piece.len() as u64);
                left -= length;
                std::future::ready(Ok((length > 0).then(|| piece.slice(..length as usize))))
            }
        });
        let payload = GetResultPayload::Stream(pieces.boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    async fn get_ranges(&self, name: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.begin(name).await?;
        let mut parts = self.inner.get_ranges(name, ranges).await?;
        if let Some(last) = parts.last_mut()
            && let Some(cut) = self.state().cut(last.len() as u64)
        {
            last.truncate(cut as usize);
        }
        Ok(parts)
    }

    fn delete_stream(&self, names: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, state) = (Arc::clone(&self.inner), Arc::clone(&self.state));
        names
            .then(move |name| {
                let (inner, state) = (Arc::clone(&inner), Arc::clone(&state));
                async move {
                    let name = name?;
                    begin(&state, &name).await?;
                    inner.delete(&name).await?;
                    answer(&state, name)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (inner, state) = (Arc::clone(&self.inner), Arc::clone(&self.state));
        let prefix = prefix.cloned();
        async move {
            begin(&state, &prefix.clone().unwrap_or_default()).await?;
            let hidden = lock(&state).hidden();
            let objects = inner.list(prefix.as_ref());
            Ok::<_, Error>(
                objects
                    .try_filter(move |object| std::future::ready(!hidden.contains(&object.location)))
                    .boxed(),
            )
        }
        .into_stream()
        .try_flatten()
        .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.begin(&prefix.cloned().unwrap_or_default()).await?;
        let hidden = self.state().hidden();
        let mut result = self.inner.list_with_delimiter(prefix).await?;
        result.objects.retain(|object| !hidden.contains(&object.location));
        Ok(result)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.begin(from).await?;
        self.inner.copy_opts(from, to, options).await?;
        answer(&self.state, ())
    }
}

struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    name: Path,
    state: Arc<Mutex<FaultState>>,
}

impl fmt::Debug for FaultyUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyUpload").field("name", &self.name).finish_non_exhaustive()
    }
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, content: PutPayload) -> UploadPart {
        let part = self.inner.put_part(content);
        let (state, name) = (Arc::clone(&self.state), self.name.clone());
        async move {
            begin(&state, &name).await?;
            part.await?;
            answer(&state, ())
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        begin(&self.state, &self.name).await?;
        let result = self.inner.complete().await?;
        lock(&self.state).wrote(&self.name);
        answer(&self.state, result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
