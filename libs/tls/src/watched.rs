//! A value that is made from files, and made again when one of them changes.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use zeroize::Zeroizing;

/// Largest file that is read. Bundles of all public CAs have a quarter of a megabyte.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// A file that changed less than this long ago may change again without a trace in its time, which the system keeps in
/// steps.
const SETTLED: Duration = Duration::from_secs(1);

/// A value, and the files that it was made from.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The value.
    pub value: T,
    /// The files; the value is made again when one of them changes, appears or disappears.
    pub files: Vec<PathBuf>,
}

type Load<T> = Box<dyn Fn() -> Result<Loaded<T>, String> + Send + Sync>;

/// A value that is made from files. [`Watched::current`] makes it again if a file has changed.
///
/// A change is found by the file's time, size and inode, which costs a few microseconds. If the new files cannot be used, the
/// old value stays in use, and one line in the log says why.
pub struct Watched<T> {
    what: String,
    load: Load<T>,
    state: Mutex<WatchedState<T>>,
}

struct WatchedState<T> {
    value: Arc<T>,
    seen: Seen,
    /// When the files were read last.
    looked: Instant,
    /// Why the present files cannot be used, and what they were.
    failed: Option<(String, Seen)>,
}

impl<T> WatchedState<T> {
    /// Whether a file has changed. Where that is not certain, because files cannot be used or have a time in the future, the
    /// files are read once a second and not for each caller.
    fn must_be_made_again(&self) -> bool {
        let (seen, is_certain) = match &self.failed {
            Some((_, seen)) => (seen, false),
            None => (&self.seen, self.seen.settled),
        };
        !seen.is_unchanged() || (!is_certain && self.looked.elapsed() >= SETTLED)
    }
}

impl<T> Watched<T> {
    /// Makes the value with `load`. `what` describes it in log lines, such as the flag that names the files.
    ///
    /// # Errors
    /// Those of `load`.
    pub fn load(
        what: impl Into<String>,
        load: impl Fn() -> Result<Loaded<T>, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let now = SystemTime::now();
        let Loaded { value, files } = load()?;
        // Marked after it was read; a change in between is younger than a second and found by the next look.
        let state = WatchedState {
            value: Arc::new(value),
            seen: Seen::of(files, now),
            looked: Instant::now(),
            failed: None,
        };
        Ok(Self { what: what.into(), load: Box::new(load), state: Mutex::new(state) })
    }

    /// The value of the files as they are now, or the last value that could be made.
    pub fn current(&self) -> Arc<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.must_be_made_again() {
            // The error is logged, and the old value stays.
            let _ = self.make_again(&mut state);
        }
        Arc::clone(&state.value)
    }

    /// Makes the value again, whether or not a file has changed.
    ///
    /// # Errors
    /// The files cannot be used; the old value stays in use.
    pub fn reload(&self) -> Result<(), String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.make_again(&mut state)
    }

    fn make_again(&self, state: &mut WatchedState<T>) -> Result<(), String> {
        let now = SystemTime::now();
        state.looked = Instant::now();
        match (self.load)() {
            Ok(Loaded { value, files }) => {
                if state.failed.take().is_some() {
                    tracing::info!(what = self.what, "the files can be used again");
                }
                state.value = Arc::new(value);
                state.seen = Seen::of(files, now);
                Ok(())
            }
            Err(error) => {
                if state.failed.as_ref().is_none_or(|(logged, _)| *logged != error) {
                    tracing::error!(
                        what = self.what,
                        error,
                        "the changed files cannot be used, the previous settings stay in use"
                    );
                }
                let files = state.seen.files.iter().map(|(path, _)| path.clone()).collect();
                state.failed = Some((error.clone(), Seen::of(files, now)));
                Err(error)
            }
        }
    }
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watched({})", self.what)
    }
}

/// Files as they were when they were read.
struct Seen {
    files: Vec<(PathBuf, Option<FileMark>)>,
    /// Whether a later change is certain to be visible.
    settled: bool,
}

/// What changes together with a file.
#[derive(PartialEq, Eq)]
struct FileMark {
    inode: (u64, u64),
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Seen {
    fn of(files: Vec<PathBuf>, now: SystemTime) -> Self {
        let mut settled = true;
        let files = files
            .into_iter()
            .map(|path| {
                let meta = path.metadata().ok();
                let time = meta.as_ref().and_then(|meta| meta.modified().ok());
                settled &= time.is_none_or(|time| now.duration_since(time).is_ok_and(|age| age >= SETTLED));
                (path, meta.as_ref().map(FileMark::of))
            })
            .collect();
        Self { files, settled }
    }

    fn is_unchanged(&self) -> bool {
        self.files.iter().all(|(path, mark)| path.metadata().ok().as_ref().map(FileMark::of) == *mark)
    }
}

impl FileMark {
    fn of(meta: &std::fs::Metadata) -> Self {
        Self {
            inode: (meta.dev(), meta.ino()),
            length: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// Reads a file of at most 16 MiB.
///
/// # Errors
/// It cannot be read, or is larger; the error names it.
pub fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let name = path.display();
    let mut bytes = Zeroizing::new(Vec::new());
    let read = File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Ok(read) if read as u64 > MAX_FILE_BYTES => Err(format!("{name}: is larger than 16 MiB")),
        Ok(_) => Ok(bytes),
        Err(error) => Err(format!("{name}: cannot be read: {error}")),
    }
}
