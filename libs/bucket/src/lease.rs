//! Leases: one process at a time does a piece of work on a bucket, and a process that lost its lease stops.
//!
//! ```text
//! isthmus/lease/<name>.json    { version, holder, nonce, epoch, ttl_seconds, plan }
//!
//! create if absent  →  renew every ttl/6 on condition of the last content  →  mark as released
//! ```
//!
//! * **No clock is compared with another one.** A lease of another process is taken only after its object did not change for its
//!   whole time to live, measured here. The holder trusts its own lease for half of that time after the last renewal *began*.
//!   Both use the clock that counts while a machine is suspended, so a paused process knows on waking that it is too late.
//! * **Epochs fence.** Each change of the holder raises the epoch. Every write is conditional on the content that this process
//!   wrote last, so a process that lost the lease cannot record a plan any more.
//! * **A plan outlives its holder.** What a holder is about to do is part of the object; the next holder reads it.
//!
//! In a local directory the lease is an advisory lock on `isthmus/lease/<name>.lock`, which ends with the process.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, TryLockError};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bucket::{Bucket, ObjectVersion};
use crate::error::{BucketError, ErrorKind};

/// The folder of leases.
const LEASE_DIR: &str = "isthmus/lease";
/// The version of the objects.
const VERSION: u32 = 1;
/// The longest time to live that is believed: a longer one would be a mistake.
const LONGEST: Duration = Duration::from_secs(3600);
/// Renewals in the time to live.
const RENEWALS: u32 = 6;

/// The content of a lease object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct LeaseContent {
    version: u32,
    /// Who holds it; empty if it was released.
    holder: String,
    /// Differs in each write.
    nonce: String,
    epoch: u64,
    ttl_seconds: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plan: Option<Value>,
}

/// Why a lease could not be acquired, renewed or changed.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// An error of the store.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The object of the lease is not a lease.
    #[error(
        "{object} in bucket {bucket:?} is not a lease ({reason}): find out who wrote it, and remove it while no compactor runs"
    )]
    Foreign {
        /// The name of the object.
        object: String,
        /// The bucket.
        bucket: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process has the lease now.
    #[error("the lease {name} was lost to another process; nothing more is written under it")]
    Lost {
        /// The name of the lease.
        name: String,
    },
    /// The lock file of a local directory cannot be used.
    #[error("lock {}: {error}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: std::io::Error,
    },
}

/// The result of an attempt to acquire a lease.
#[derive(Debug)]
pub enum LeaseAttempt {
    /// This process has it.
    Held(Lease),
    /// Another process has it. It can be taken when its object does not change any more; ask again.
    Taken {
        /// The name that the holder gave itself.
        holder: String,
    },
}

/// Time since some moment in the past, which never jumps. Tests set another one.
#[derive(Clone)]
struct LeaseClock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl LeaseClock {
    fn now(&self) -> Duration {
        (self.0)()
    }
}

impl fmt::Debug for LeaseClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LeaseClock").field(&self.now()).finish()
    }
}

/// The leases of one process in one bucket.
#[derive(Clone, Debug)]
pub struct Leases {
    bucket: Bucket,
    holder: Arc<str>,
    ttl: Duration,
    clock: LeaseClock,
    /// Contents of other holders, with the moment since which they are unchanged.
    seen: Arc<Mutex<BTreeMap<String, (String, Duration)>>>,
}

/// A lease that this process holds. It is renewed until it is released or dropped; clones share it.
#[derive(Clone, Debug)]
pub struct Lease {
    shared: Arc<LeaseShared>,
    _renewal: Option<Arc<tokio_util::task::AbortOnDropHandle<()>>>,
}

#[derive(Debug)]
struct LeaseShared {
    bucket: Bucket,
    name: String,
    epoch: u64,
    /// The plan that an earlier holder did not finish.
    inherited: Option<Value>,
    ttl: Duration,
    clock: LeaseClock,
    written: tokio::sync::Mutex<WrittenLease>,
    /// Until when this process may write, on the clock of [`since_boot`].
    valid_until: Mutex<Duration>,
    is_lost: AtomicBool,
    /// The lock of a lease in a local directory, which is valid while the file is open.
    lock: Option<File>,
}

/// What this process wrote last.
#[derive(Debug)]
struct WrittenLease {
    content: LeaseContent,
    version: ObjectVersion,
    /// A later write that failed, and may have happened nevertheless.
    doubtful: Option<LeaseContent>,
}

impl Leases {
    /// The leases of the process that calls itself `holder`, in messages to others. A lease that is not renewed can be taken
    /// after `ttl`, at most an hour.
    pub fn new(bucket: &Bucket, holder: &str, ttl: Duration) -> Self {
        let (clock, ttl) = (LeaseClock(Arc::new(since_boot)), ttl.min(LONGEST));
        Self { bucket: bucket.clone(), holder: holder.into(), ttl, clock, seen: Arc::default() }
    }

    /// The same leases with another clock, for tests: the time since some moment in the past.
    #[cfg(any(test, feature = "test-util"))]
    #[must_use]
    pub fn with_clock(self, now: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self { clock: LeaseClock(Arc::new(now)), ..self }
    }

    /// Acquires the lease `name` if it is free, or if its holder has not renewed it for its time to live *while this process
    /// watched*: call again, at intervals, to take over.
    ///
    /// # Errors
    /// See [`LeaseError`]. An object that is not a lease is never overwritten.
    pub async fn acquire(&self, name: &str) -> Result<LeaseAttempt, LeaseError> {
        let lock = match self.bucket.local_file(&format!("{LEASE_DIR}/{name}.lock")) {
            None => None,
            Some(path) => match try_lock(&path)? {
                Some(file) => Some(file),
                None => {
                    let holder = self.read(name).await.ok().flatten();
                    let holder =
                        holder.map_or_else(|| "another process".to_owned(), |(content, _)| content.holder);
                    return Ok(LeaseAttempt::Taken { holder });
                }
            },
        };
        let began = self.clock.now();
        let found = self.read(name).await?;
        if let Some((content, _)) = &found
            && lock.is_none()
            && !self.may_take(name, content)
        {
            return Ok(LeaseAttempt::Taken { holder: content.holder.clone() });
        }
        let before = found.as_ref().map(|(content, _)| content);
        let content = LeaseContent {
            version: VERSION,
            holder: self.holder.to_string(),
            nonce: nonce(),
            epoch: before.map_or(0, |before| before.epoch) + 1,
            ttl_seconds: self.ttl.as_secs_f64(),
            plan: before.and_then(|before| before.plan.clone()),
        };
        let written =
            write(&self.bucket, name, &content, found.map(|(_, version)| version), lock.is_some()).await?;
        let Some(version) = written else {
            return Ok(LeaseAttempt::Taken { holder: "another process".to_owned() });
        };
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        let shared = Arc::new(LeaseShared {
            bucket: self.bucket.clone(),
            name: name.to_owned(),
            epoch: content.epoch,
            inherited: content.plan.clone(),
            ttl: self.ttl,
            clock: self.clock.clone(),
            written: tokio::sync::Mutex::new(WrittenLease { content, version, doubtful: None }),
            valid_until: Mutex::new(began + self.ttl / 2),
            is_lost: AtomicBool::new(false),
            lock,
        });
        let renewal = shared.lock.is_none().then(|| {
            let shared = Arc::clone(&shared);
            Arc::new(tokio_util::task::AbortOnDropHandle::new(tokio::spawn(
                async move { shared.keep().await },
            )))
        });
        Ok(LeaseAttempt::Held(Lease { shared, _renewal: renewal }))
    }

    /// The content of the lease object; `None` if there is none.
    async fn read(&self, name: &str) -> Result<Option<(LeaseContent, ObjectVersion)>, LeaseError> {
        let object = object(name);
        let (bytes, info) = match self.bucket.get_versioned(&object).await {
            Ok(read) => read,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        parse(&bytes).map(|content| Some((content, info.version))).map_err(|reason| LeaseError::Foreign {
            object,
            bucket: self.bucket.name().to_owned(),
            reason,
        })
    }

    /// Whether a lease with this content is free: released, or unchanged for its time to live.
    fn may_take(&self, name: &str, content: &LeaseContent) -> bool {
        if content.holder.is_empty() {
            return true;
        }
        let now = self.clock.now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (nonce, since) = seen.entry(name.to_owned()).or_insert_with(|| (content.nonce.clone(), now));
        if *nonce != content.nonce {
            (*nonce, *since) = (content.nonce.clone(), now);
        }
        let ttl = Duration::try_from_secs_f64(content.ttl_seconds).unwrap_or(LONGEST).min(LONGEST);
        now.saturating_sub(*since) >= ttl
    }
}

impl Lease {
    /// The number of this change of the holder; larger than that of every earlier holder.
    pub fn epoch(&self) -> u64 {
        self.shared.epoch
    }

    /// The plan that an earlier holder recorded and did not finish.
    pub fn inherited_plan(&self) -> Option<&Value> {
        self.shared.inherited.as_ref()
    }

    /// Whether this process may write now. Ask before each write that needs the lease.
    pub fn is_held(&self) -> bool {
        self.shared.is_held()
    }

    /// Records what the holder is about to do; `None` when it is done. It is part of the lease until then, also for the next
    /// holder.
    ///
    /// # Errors
    /// [`LeaseError::Lost`] if another process has the lease; an error of the store.
    pub async fn record(&self, plan: Option<Value>) -> Result<(), LeaseError> {
        self.shared.rewrite(|content| content.plan = plan).await
    }

    /// Gives the lease back, so that another process can take it at once. A plan that is recorded stays.
    ///
    /// # Errors
    /// As [`Lease::record`]. The lease is then free when it expires.
    pub async fn release(self) -> Result<(), LeaseError> {
        let released = self.shared.rewrite(|content| content.holder.clear()).await;
        self.shared.is_lost.store(true, Ordering::Release);
        released
    }
}

impl LeaseShared {
    fn is_held(&self) -> bool {
        let valid_until = *self.valid_until.lock().unwrap_or_else(PoisonError::into_inner);
        !self.is_lost.load(Ordering::Acquire) && (self.lock.is_some() || self.clock.now() < valid_until)
    }

    /// Renews the lease until it is lost.
    async fn keep(&self) {
        loop {
            tokio::time::sleep(self.ttl / RENEWALS).await;
            match self.rewrite(|_| ()).await {
                Ok(()) => {}
                Err(LeaseError::Lost { .. }) => return,
                // It is tried again, and the lease ends by itself.
                Err(error) => tracing::warn!(lease = %self.name, %error, "lease could not be renewed"),
            }
        }
    }

    /// Writes a changed content on condition that the last one is still there, and extends the lease.
    async fn rewrite(&self, change: impl FnOnce(&mut LeaseContent)) -> Result<(), LeaseError> {
        let mut written = self.written.lock().await;
        if self.is_lost.load(Ordering::Acquire) {
            return Err(LeaseError::Lost { name: self.name.clone() });
        }
        let began = self.clock.now();
        self.resolve(&mut written).await?;
        let mut content = written.content.clone();
        change(&mut content);
        content.nonce = nonce();
        let version = Some(written.version.clone());
        match write(&self.bucket, &self.name, &content, version, self.lock.is_some()).await {
            Ok(Some(version)) => {
                *written = WrittenLease { content, version, doubtful: None };
                *self.valid_until.lock().unwrap_or_else(PoisonError::into_inner) = began + self.ttl / 2;
                Ok(())
            }
            Ok(None) => Err(self.lose()),
            Err(error) => {
                written.doubtful = Some(content);
                Err(error)
            }
        }
    }

    /// Finds out whether a write happened whose answer was lost.
    async fn resolve(&self, written: &mut WrittenLease) -> Result<(), LeaseError> {
        let Some(doubtful) = &written.doubtful else { return Ok(()) };
        match self.current().await? {
            Some((found, version)) if found.nonce == doubtful.nonce => {
                *written = WrittenLease { content: found, version, doubtful: None };
                Ok(())
            }
            Some((found, _)) if found.nonce == written.content.nonce => {
                written.doubtful = None;
                Ok(())
            }
            _ => Err(self.lose()),
        }
    }

    /// Notes that another process has the lease.
    fn lose(&self) -> LeaseError {
        self.is_lost.store(true, Ordering::Release);
        tracing::error!(lease = %self.name, epoch = self.epoch, "another process took the lease");
        LeaseError::Lost { name: self.name.clone() }
    }

    async fn current(&self) -> Result<Option<(LeaseContent, ObjectVersion)>, LeaseError> {
        match self.bucket.get_versioned(&object(&self.name)).await {
            Ok((bytes, info)) => Ok(parse(&bytes).ok().map(|content| (content, info.version))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Writes the object of a lease if its content is still that of `version`, or, without one, if there is none. Returns `None` if it
/// is not. With a lock no other process writes it.
async fn write(
    bucket: &Bucket,
    name: &str,
    content: &LeaseContent,
    version: Option<ObjectVersion>,
    is_locked: bool,
) -> Result<Option<ObjectVersion>, LeaseError> {
    let object = object(name);
    let bytes = Bytes::from(serde_json::to_vec(content).expect("texts and numbers can be written as JSON"));
    if is_locked {
        return Ok(Some(bucket.put(&object, bytes).await?));
    }
    let written = match version {
        None => bucket.put_if_absent(&object, bytes).await,
        Some(version) => bucket.update(&object, bytes.clone(), version).await,
    };
    match written {
        Ok(version) => Ok(Some(version)),
        Err(error) if error.kind() == ErrorKind::Conflict => match bucket.get_versioned(&object).await {
            // The answer to a first attempt was lost, and the second one conflicted with it.
            Ok((found, info)) if parse(&found).is_ok_and(|found| found.nonce == content.nonce) => {
                Ok(Some(info.version))
            }
            Ok(_) => Ok(None),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

fn parse(bytes: &[u8]) -> Result<LeaseContent, String> {
    let content: LeaseContent = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if content.version != VERSION {
        return Err(format!("its version is {}, expected {VERSION}", content.version));
    }
    Ok(content)
}

fn object(name: &str) -> String {
    format!("{LEASE_DIR}/{name}.json")
}

/// Locks the file; `None` if another process, or another lease of this one, has it.
fn try_lock(path: &std::path::Path) -> Result<Option<File>, LeaseError> {
    let failed = |error| LeaseError::Lock { path: path.to_owned(), error };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    let file = File::options().create(true).append(true).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

fn nonce() -> String {
    let mut bytes = [0; 16];
    // Without random numbers, the time since boot still differs from write to write.
    if rand::fill(&mut bytes).is_err() {
        bytes = since_boot().as_nanos().to_be_bytes();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Time since the machine was started, including the time while it was suspended.
fn since_boot() -> Duration {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    let now = rustix::time::clock_gettime(clock);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use serde_json::json;

    use super::*;
    use crate::fault::{Faults, FaultyStore};

    const TTL: Duration = Duration::from_millis(300);

    fn held(attempt: LeaseAttempt) -> Lease {
        match attempt {
            LeaseAttempt::Held(lease) => lease,
            LeaseAttempt::Taken { holder } => panic!("{holder} has it"),
        }
    }

    fn taken_by(attempt: LeaseAttempt) -> String {
        match attempt {
            LeaseAttempt::Held(_) => panic!("it is held"),
            LeaseAttempt::Taken { holder } => holder,
        }
    }

    /// The same leases with tokio's clock, which a test pauses: however slow the machine is, a lease is renewed in time.
    fn on_paused_clock(leases: Leases) -> Leases {
        let began = tokio::time::Instant::now();
        leases.with_clock(move || began.elapsed())
    }

    /// Tries until the lease is free.
    async fn wait_for(leases: &Leases, name: &str) -> Lease {
        let attempts = async {
            loop {
                if let LeaseAttempt::Held(lease) = leases.acquire(name).await.unwrap() {
                    return lease;
                }
                tokio::time::sleep(TTL / 20).await;
            }
        };
        let lease = tokio::time::timeout(Duration::from_secs(60), attempts).await;
        lease.expect("a lease that is not renewed is free after its time to live")
    }

    #[tokio::test]
    async fn one_process_has_a_lease_and_the_next_takes_it_when_it_is_released() {
        let bucket = Bucket::new(Arc::new(InMemory::new()));
        let [a, b] = ["a", "b"].map(|holder| Leases::new(&bucket, holder, Duration::from_secs(60)));
        let first = held(a.acquire("group").await.unwrap());
        assert_eq!((first.epoch(), first.is_held()), (1, true));
        assert_eq!(taken_by(b.acquire("group").await.unwrap()), "a");
        assert!(held(b.acquire("other").await.unwrap()).is_held());
        first.record(Some(json!({ "output": "x" }))).await.unwrap();
        let copy = first.clone();
        first.release().await.unwrap();
        assert!(!copy.is_held());
        assert!(matches!(copy.record(None).await, Err(LeaseError::Lost { .. })));
        let second = held(b.acquire("group").await.unwrap());
        assert_eq!((second.epoch(), second.inherited_plan()), (2, Some(&json!({ "output": "x" }))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_not_renewed_is_taken_and_its_holder_is_fenced() {
        let memory = Arc::new(InMemory::new());
        let store = FaultyStore::new(memory.clone(), 1);
        let a = on_paused_clock(Leases::new(&Bucket::new(store.clone()), "a", TTL));
        let b = on_paused_clock(Leases::new(&Bucket::new(memory), "b", TTL));
        let first = held(a.acquire("group").await.unwrap());
        tokio::time::sleep(TTL * 2).await;
        assert!(first.is_held(), "it is renewed");
        assert_eq!(taken_by(b.acquire("group").await.unwrap()), "a");
        // The holder no longer reaches the store.
        store.set(Faults { requests_left: Some(0), ..Faults::default() });
        let second = wait_for(&b, "group").await;
        assert!(!first.is_held(), "the holder stopped before the lease was taken");
        assert_eq!(second.epoch(), 2);
        store.set(Faults::default());
        assert!(matches!(first.record(Some(json!(1))).await, Err(LeaseError::Lost { .. })));
        assert!(second.is_held());
        second.record(None).await.unwrap();
    }

    #[tokio::test]
    async fn a_lease_survives_a_store_that_loses_answers() {
        let memory = Arc::new(InMemory::new());
        let store = FaultyStore::new(memory.clone(), 7);
        let leases = Leases::new(&Bucket::new(store.clone()), "a", Duration::from_secs(60));
        let lease = held(leases.acquire("group").await.unwrap());
        store.set(Faults { lost_answers: 0.3, errors: 0.2, truncated: 0.1, ..Faults::default() });
        let mut recorded = 0;
        for number in 0..200 {
            match lease.record(Some(json!(number))).await {
                Ok(()) => recorded += 1,
                Err(LeaseError::Bucket(_)) => {}
                Err(error) => panic!("{number}: {error}"),
            }
        }
        assert!(recorded > 50, "{recorded}");
        store.set(Faults::default());
        lease.record(Some(json!("last"))).await.unwrap();
        let (found, _) = leases.read("group").await.unwrap().unwrap();
        assert_eq!((found.plan, found.epoch), (Some(json!("last")), 1));
    }

    #[tokio::test]
    async fn an_object_that_is_not_a_lease_is_named_and_left_alone() {
        let bucket = Bucket::new(Arc::new(InMemory::new()));
        let leases = Leases::new(&bucket, "a", TTL);
        for content in
            ["", "{}", "<html>", r#"{"version":2,"holder":"","nonce":"","epoch":1,"ttl_seconds":1}"#]
        {
            bucket.put("isthmus/lease/group.json", Bytes::from(content)).await.unwrap();
            let error = leases.acquire("group").await.unwrap_err().to_string();
            assert!(error.contains("isthmus/lease/group.json") && error.contains("remove it"), "{error}");
            assert_eq!(bucket.get("isthmus/lease/group.json").await.unwrap(), content);
        }
    }

    #[tokio::test]
    async fn in_a_local_directory_a_lease_is_a_lock() {
        let dir = tempfile::tempdir().unwrap();
        let yaml = format!("type: FILESYSTEM\nconfig: {{directory: {}}}\nprefix: p", dir.path().display());
        let bucket = crate::BucketConfig::parse(&yaml).unwrap();
        let bucket = bucket.open(&crate::BucketMetrics::default()).unwrap();
        let [a, b] = ["a", "b"].map(|holder| Leases::new(&bucket, holder, TTL));
        let first = held(a.acquire("group").await.unwrap());
        assert_eq!(taken_by(b.acquire("group").await.unwrap()), "a");
        first.record(Some(json!(1))).await.unwrap();
        tokio::time::sleep(TTL * 2).await;
        assert!(first.is_held(), "a lock does not expire");
        assert!(dir.path().join("p/isthmus/lease/group.lock").is_file());
        drop(first);
        let second = held(b.acquire("group").await.unwrap());
        assert_eq!((second.epoch(), second.inherited_plan()), (2, Some(&json!(1))));
    }

    #[tokio::test]
    async fn of_many_processes_one_at_a_time_has_a_lease() {
        let bucket = Bucket::new(Arc::new(InMemory::new()));
        let (inside, turns) = (Arc::new(AtomicBool::new(false)), 10);
        let workers = (0..4).map(|number| {
            let leases = Leases::new(&bucket, &number.to_string(), Duration::from_secs(60));
            let inside = Arc::clone(&inside);
            tokio::spawn(async move {
                for _ in 0..turns {
                    let lease = loop {
                        match leases.acquire("group").await.unwrap() {
                            LeaseAttempt::Held(lease) => break lease,
                            LeaseAttempt::Taken { .. } => tokio::task::yield_now().await,
                        }
                    };
                    assert!(!inside.swap(true, Ordering::SeqCst), "two processes have the lease");
                    tokio::task::yield_now().await;
                    inside.store(false, Ordering::SeqCst);
                    lease.release().await.unwrap();
                }
            })
        });
        futures::future::try_join_all(workers).await.unwrap();
        let leases = Leases::new(&bucket, "last", Duration::from_secs(60));
        assert_eq!(held(leases.acquire("group").await.unwrap()).epoch(), 4 * turns + 1);
    }
}
