//! Tells the compactor of a bucket which marked blocks the store still reads, so that it removes none of them.
//!
//! A store that may not write into the bucket works as well: then only the delay of removals counts.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bucket::marks::MarkKind;
use bucket::readers::{self, ReaderAck};
use bucket::{Bucket, BucketView, ErrorKind, derived_id};
use tsdb::Ulid;

/// The file with the id of the store, in the data folder.
const ID_FILE: &str = "reader-id";
/// The store is forgotten after this many syncs without an acknowledgement, and not before this time.
const SYNCS: u32 = 4;
const SHORTEST: Duration = Duration::from_secs(900);

/// The acknowledgements of one store in one bucket.
pub(crate) struct Acknowledger {
    bucket: Bucket,
    id: String,
    name: String,
    sync_interval: Duration,
    /// Whether the store may not write, so that it does not try again.
    is_denied: AtomicBool,
    is_failing: AtomicBool,
}

impl Acknowledger {
    pub(crate) fn new(bucket: &Bucket, id: &str, sync_interval: Duration) -> Self {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self {
            bucket: bucket.clone(),
            id: id.to_owned(),
            name,
            sync_interval,
            is_denied: AtomicBool::new(false),
            is_failing: AtomicBool::new(false),
        }
    }

    /// Acknowledges a view. `is_served` says which of its blocks the store reads.
    pub(crate) async fn acknowledge(&self, view: &BucketView, is_served: impl Fn(Ulid) -> bool) {
        if self.is_denied.load(Ordering::Relaxed) {
            return;
        }
        let marked =
            view.marks.keys().filter(|(kind, _)| *kind == MarkKind::Deletion).map(|(_, block)| *block);
        let ack = ReaderAck {
            id: self.id.clone(),
            name: self.name.clone(),
            sync_interval: self.sync_interval,
            expires: (self.sync_interval * SYNCS).max(SHORTEST),
            in_use: marked.filter(|block| is_served(*block)).collect(),
        };
        let bucket = self.bucket.name();
        let written = readers::acknowledge(&self.bucket, &ack).await;
        let was_failing = self.is_failing.swap(written.is_err(), Ordering::Relaxed);
        match written {
            Ok(()) if was_failing => {
                tracing::info!(bucket, "the compactor is told again which blocks are used")
            }
            Ok(()) => {}
            Err(error) if may_never_write(error.kind()) => {
                self.is_denied.store(true, Ordering::Relaxed);
                tracing::info!(
                    bucket, %error,
                    "the store may not write into the bucket, so the compactor is not told which blocks are used; its --delete-delay counts"
                );
            }
            Err(error) if !was_failing => {
                tracing::warn!(bucket, %error, "the compactor could not be told which blocks are used");
            }
            Err(_) => {}
        }
    }
}

fn may_never_write(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Denied | ErrorKind::Unsupported | ErrorKind::Config)
}

/// The id of the store, which stays the same as long as its data folder does.
pub(crate) fn reader_id(data_dir: &Path) -> String {
    let file = data_dir.join(ID_FILE);
    let known = std::fs::read_to_string(&file).ok();
    if let Some(known) = known.as_deref().map(str::trim).filter(|known| tsdb::parse_block_id(known).is_some())
    {
        return known.to_owned();
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let texts =
        [host, data_dir.display().to_string(), std::process::id().to_string(), now.as_nanos().to_string()];
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let id = derived_id(u64::try_from(now.as_millis()).unwrap_or(0), &texts).to_string();
    if let Err(error) = std::fs::write(&file, &id) {
        tracing::warn!(file = %file.display(), %error, "the id of the store could not be kept; it has another one after a restart");
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_store_stays_and_that_of_another_one_differs() {
        let [a, b] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let id = reader_id(a.path());
        assert_eq!(id, reader_id(a.path()));
        assert_ne!(id, reader_id(b.path()));
        std::fs::write(a.path().join(ID_FILE), "../garbage").unwrap();
        assert!(tsdb::parse_block_id(&reader_id(a.path())).is_some());
    }
}
