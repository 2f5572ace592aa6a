//! Readers of a bucket acknowledge what they have seen, so that a block is removed only when no reader needs it.
//!
//! ```text
//! isthmus/readers/<id>.json   {"version", "id", "name", "sync_interval_seconds", "expires_seconds", "in_use": ["<ULID>", ...]}
//! ```
//!
//! A reader writes its object after each sync. `in_use` are the blocks that are marked for deletion and that it still reads. When the
//! object was written is known by the clock of the store. A reader that stops is forgotten when its object expires.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use model::Timestamp;
use serde::{Deserialize, Serialize};
use tsdb::Ulid;

use crate::bucket::Bucket;
use crate::error::{BucketError, ErrorKind};
use crate::retry::Retry;

/// The folder of the objects.
pub const FOLDER: &str = "isthmus/readers";
/// The version of the objects.
const VERSION: u32 = 1;
/// Larger objects are not read.
const MAX_BYTES: u64 = 1 << 20;
/// More objects are not read.
const MAX_READERS: usize = 20_000;
/// Most time for which a reader is remembered, whatever it says.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// A sync is taken to last at least this long.
const SHORTEST_SYNC: Duration = Duration::from_secs(60);

/// What a reader has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderAck {
    /// Differs from those of other readers: letters, digits and `-`.
    pub id: String,
    /// For people.
    pub name: String,
    /// Time between two syncs.
    pub sync_interval: Duration,
    /// The reader is forgotten after this time without another object.
    pub expires: Duration,
    /// Blocks that are marked for deletion, and that it reads nevertheless.
    pub in_use: Vec<Ulid>,
}

/// A reader, and when it has written its object, by the clock of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenReader {
    /// What it wrote.
    pub ack: ReaderAck,
    /// When.
    pub written: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct RawAck {
    version: u32,
    id: String,
    name: String,
    sync_interval_seconds: u64,
    expires_seconds: u64,
    in_use: Vec<String>,
}

impl ReaderAck {
    fn parse(id: &str, content: &[u8]) -> Result<Self, String> {
        let raw: RawAck = serde_json::from_slice(content).map_err(|error| error.to_string())?;
        if raw.version != VERSION {
            return Err(format!("its version is {}, expected {VERSION}", raw.version));
        }
        if raw.id != id {
            return Err(format!("its id is {:.40?}, expected {id:.40?}", raw.id));
        }
        let block = |text: &String| {
            tsdb::parse_block_id(text).ok_or_else(|| format!("{text:.40?} is not the id of a block"))
        };
        Ok(Self {
            id: raw.id,
            name: raw.name.chars().take(200).collect(),
            sync_interval: Duration::from_secs(raw.sync_interval_seconds).min(LONGEST),
            expires: Duration::from_secs(raw.expires_seconds).min(LONGEST),
            in_use: raw.in_use.iter().map(block).collect::<Result<_, _>>()?,
        })
    }

    fn to_json(&self) -> Bytes {
        let raw = RawAck {
            version: VERSION,
            id: self.id.clone(),
            name: self.name.clone(),
            // Rounded up, so that a reader is never taken to be faster than it is.
            sync_interval_seconds: self.sync_interval.as_secs()
                + u64::from(self.sync_interval.subsec_nanos() > 0),
            expires_seconds: self.expires.as_secs().max(1),
            in_use: self.in_use.iter().map(Ulid::to_string).collect(),
        };
        Bytes::from(serde_json::to_vec(&raw).expect("texts and numbers can be written as JSON"))
    }
}

impl SeenReader {
    /// Whether the reader has stopped, as far as is known at `now`, the time of the store.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now.millis_since(self.written) > self.ack.expires.as_millis() as i64
    }

    /// Whether the reader has acknowledged a view without a block that was marked at `marked`, by the clock of the store: one that it
    /// began after that, because its object is at least two sync intervals younger.
    pub fn has_let_go(&self, block: Ulid, marked: Timestamp) -> bool {
        let syncs = 2 * self.ack.sync_interval.max(SHORTEST_SYNC);
        self.written >= marked + syncs && !self.ack.in_use.contains(&block)
    }
}

/// Writes what a reader has seen.
///
/// # Errors
/// Any error of the store. [`ErrorKind::Denied`] if the reader may not write: then only the delay of removals counts.
pub async fn acknowledge(bucket: &Bucket, ack: &ReaderAck) -> Result<(), BucketError> {
    bucket.put(&object(&ack.id), ack.to_json()).await.map(|_| ())
}

/// Forgets a reader.
///
/// # Errors
/// Any error of the store.
pub async fn forget(bucket: &Bucket, id: &str) -> Result<(), BucketError> {
    bucket.delete(&object(id)).await
}

/// All readers, also those that have expired. An object that is not one of a reader is ignored with a warning.
///
/// # Errors
/// Any error of the store.
pub async fn list(bucket: &Bucket, retry: Retry) -> Result<Vec<SeenReader>, BucketError> {
    let objects = retry.run(|| bucket.list_all(FOLDER)).await?;
    if objects.len() > MAX_READERS {
        tracing::warn!(
            readers = objects.len(),
            "only the first {MAX_READERS} readers of the bucket are asked"
        );
    }
    let reads = objects.into_iter().take(MAX_READERS).filter_map(|object| {
        let id = object.name.strip_prefix(FOLDER)?.strip_prefix('/')?.strip_suffix(".json")?.to_owned();
        Some((id, object))
    });
    let reads = reads.map(|(id, object)| async move {
        if object.size_bytes > MAX_BYTES {
            return Ok(Some(Err((object.name, format!("it has {} bytes", object.size_bytes)))));
        }
        match retry.run(|| bucket.get_versioned(&object.name)).await {
            Ok((content, info)) => Ok(Some(match ReaderAck::parse(&id, &content) {
                Ok(ack) => Ok(SeenReader { ack, written: info.last_modified }),
                Err(reason) => Err((object.name, reason)),
            })),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) if error.kind() == ErrorKind::TooLarge => {
                Ok(Some(Err((object.name, error.to_string()))))
            }
            Err(error) => Err(error),
        }
    });
    let found: Vec<Option<Result<SeenReader, (String, String)>>> =
        futures::stream::iter(reads).buffer_unordered(16).try_collect().await?;
    let mut readers = Vec::new();
    for reader in found.into_iter().flatten() {
        match reader {
            Ok(reader) => readers.push(reader),
            Err((object, reason)) => tracing::warn!(%object, %reason, "this is not a reader and is ignored"),
        }
    }
    readers.sort_by(|a, b| a.ack.id.cmp(&b.ack.id));
    Ok(readers)
}

fn object(id: &str) -> String {
    format!("{FOLDER}/{id}.json")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;

    fn ack(id: &str, in_use: &[u128]) -> ReaderAck {
        ReaderAck {
            id: id.to_owned(),
            name: "store-0".to_owned(),
            sync_interval: Duration::from_secs(180),
            expires: Duration::from_secs(900),
            in_use: in_use.iter().map(|number| Ulid::from_parts(1, *number)).collect(),
        }
    }

    #[tokio::test]
    async fn readers_are_listed_and_what_is_not_one_is_ignored() {
        let bucket = Bucket::new(Arc::new(InMemory::new()));
        for reader in [ack("b", &[1, 2]), ack("a", &[])] {
            acknowledge(&bucket, &reader).await.unwrap();
        }
        for (name, content) in [("c", "<html>"), ("d", "{}"), ("e", r#"{"version":2}"#)] {
            bucket.put(&format!("{FOLDER}/{name}.json"), content.into()).await.unwrap();
        }
        bucket
            .put(&format!("{FOLDER}/large.json"), vec![b' '; (MAX_BYTES + 1) as usize].into())
            .await
            .unwrap();
        let found = list(&bucket, Retry::default()).await.unwrap();
        let acks: Vec<ReaderAck> = found.into_iter().map(|reader| reader.ack).collect();
        assert_eq!(acks, [ack("a", &[]), ack("b", &[1, 2])]);
        forget(&bucket, "b").await.unwrap();
        assert_eq!(list(&bucket, Retry::default()).await.unwrap().len(), 1);
    }

    #[test]
    fn an_object_that_was_changed_at_random_is_a_reader_or_an_error_and_never_a_panic() {
        let bytes = ack("a", &[1]).to_json();
        for position in 0..bytes.len() {
            for value in [0, b'"', b'9', b'-', 0xff] {
                let mut changed = bytes.to_vec();
                changed[position] = value;
                let _ = ReaderAck::parse("a", &changed);
            }
            assert!(ReaderAck::parse("a", &bytes[..position]).is_err());
        }
        assert_eq!(ReaderAck::parse("a", &bytes), Ok(ack("a", &[1])));
    }

    #[test]
    fn a_reader_has_let_go_of_a_block_two_syncs_after_the_mark_unless_it_still_reads_it() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        let reader = |written, in_use: &[u128]| SeenReader { ack: ack("a", in_use), written: at(written) };
        let block = Ulid::from_parts(1, 1);
        assert!(!reader(459, &[]).has_let_go(block, at(100)));
        assert!(reader(460, &[]).has_let_go(block, at(100)));
        assert!(!reader(460, &[1]).has_let_go(block, at(100)));
        assert!(reader(460, &[2]).has_let_go(block, at(100)));
        assert!(!reader(460, &[]).is_expired(at(1360)) && reader(460, &[]).is_expired(at(1361)));
    }
}
