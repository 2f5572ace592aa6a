//! An object store that misbehaves on purpose, and by a seed: the same seed and the same requests fail alike.
//!
//! It stands between a [`Bucket`](crate::Bucket) and any store in tests, of this crate and of those that use it.

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

/// How many of the last written objects an old listing may lack.
const RECENT: usize = 16;

/// What goes wrong, how often. Rates are from 0 (never) to 1 (always); all are 0 by default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// Requests that fail without having had an effect: 503, 429, a connection that is closed.
    pub errors: f64,
    /// Writes and removals that are done, of which the answer is lost.
    pub lost_answers: f64,
    /// Requests that answer only after [`Faults::stall`].
    pub stalls: f64,
    /// How long a stall takes.
    pub stall: Duration,
    /// Reads whose content ends too early without saying so.
    pub truncated: f64,
    /// Listings that lack some of the objects that were written last.
    pub stale_lists: f64,
    /// Whether conditions of writes are ignored: a creation overwrites, an update too.
    pub ignores_conditions: bool,
    /// After so many more requests every one fails, as if the store, or the asking process, had gone.
    pub requests_left: Option<u64>,
}

impl Faults {
    /// Everything at once, each kind at `rate`; conditions hold.
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
    state: Arc<Mutex<State>>,
}

struct State {
    seed: u64,
    random: u64,
    faults: Faults,
    recent: VecDeque<Path>,
    injected: BTreeMap<&'static str, u64>,
    requests: u64,
    after_write: Option<AfterWrite>,
}

type AfterWrite = Arc<dyn Fn(Path) -> BoxFuture<'static, ()> + Send + Sync>;

impl FaultyStore {
    /// A store without faults around `inner`, which takes its chances from `seed`.
    pub fn new(inner: Arc<dyn ObjectStore>, seed: u64) -> Arc<Self> {
        let state = State {
            seed,
            random: seed,
            faults: Faults::default(),
            recent: VecDeque::new(),
            injected: BTreeMap::new(),
            requests: 0,
            after_write: None,
        };
        Arc::new(Self { inner, state: Arc::new(Mutex::new(state)) })
    }

    /// Changes what goes wrong from the next request on.
    pub fn set(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Does something between each write of a whole object and its answer, as another process might.
    pub fn after_write(&self, work: impl Fn(Path) -> BoxFuture<'static, ()> + Send + Sync + 'static) {
        self.state().after_write = Some(Arc::new(work));
    }

    /// How many requests came.
    pub fn requests(&self) -> u64 {
        self.state().requests
    }

    /// How often each kind of fault was injected, by a short name.
    pub fn injected(&self) -> BTreeMap<&'static str, u64> {
        self.state().injected.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Lets a request begin: counts, stalls and fails it.
    async fn begin(&self, name: &Path) -> Result<()> {
        begin(&self.state, name).await
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A panic elsewhere leaves numbers that are as good as before.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn begin(state: &Mutex<State>, name: &Path) -> Result<()> {
    let stall = {
        let mut state = lock(state);
        state.requests += 1;
        if let Some(left) = &mut state.faults.requests_left {
            match left.checked_sub(1) {
                Some(less) => *left = less,
                None => return Err(failure("the store is gone")),
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

/// Lets the answer to a write that was done get lost.
fn answer<T>(state: &Mutex<State>, done: T) -> Result<T> {
    let mut state = lock(state);
    let rate = state.faults.lost_answers;
    if state.rolls("lost answer", rate) { Err(failure("the answer was lost")) } else { Ok(done) }
}

fn failure(text: &str) -> Error {
    Error::Generic { store: "faulty", source: text.into() }
}

impl State {
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

    /// The objects that a listing pretends not to know.
    fn hidden(&mut self) -> Vec<Path> {
        let rate = self.faults.stale_lists;
        if !self.rolls("stale listing", rate) || self.recent.is_empty() {
            return Vec::new();
        }
        let from = self.next() as usize % self.recent.len();
        self.recent.iter().skip(from).cloned().collect()
    }

    /// Where the content of `length` bytes ends too early, if it does.
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
        let is_head = options.head;
        let result = self.inner.get_opts(name, options).await?;
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
    state: Arc<Mutex<State>>,
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
