//! Remembers in the bucket which retention settings were seen there, so that a typing error does not retire blocks at once.
//!
//! Settings act from the second pass in which they are seen. The memory is an object of the bucket and not a file of the data folder,
//! because compactors are often started with an empty folder. Compactors with different settings for parts of a bucket do not
//! disturb each other: each of the settings is remembered until it was not seen for 30 days.

use bucket::{Bucket, BucketError, Retry};
use bytes::Bytes;
use model::Timestamp;
use serde::{Deserialize, Serialize};

/// The object. It is written under the lease of housekeeping.
pub(crate) const OBJECT: &str = "isthmus/retention.json";
const VERSION: u32 = 1;
const DAY: i64 = 24 * 3_600_000;
/// Settings that were not seen for so long are new again.
const FORGOTTEN_AFTER: i64 = 30 * DAY;
/// The time of the last pass is written this often.
const REFRESHED_AFTER: i64 = DAY;
/// Most settings that are remembered.
const MOST: usize = 64;

#[derive(Debug, Serialize, Deserialize)]
struct Memory {
    version: u32,
    settings: Vec<SeenSettings>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SeenSettings {
    /// See [`RetentionPolicy::fingerprint`](crate::retention::RetentionPolicy::fingerprint).
    fingerprint: String,
    /// Milliseconds since the epoch, by the clock of the bucket.
    first_seen: i64,
    /// As `first_seen`, at most a day before the last pass.
    last_seen: i64,
}

/// Why it is not known whether settings were seen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RetentionMemoryError {
    /// The bucket cannot be read or written.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The object is something else.
    #[error(
        "{OBJECT} does not have the retention settings that were seen ({0}): nothing is retired by age; find out who wrote it, and \
         remove it"
    )]
    Foreign(String),
}

/// Whether an earlier pass has seen these settings. If not, the next one will have. `now` is the time of the bucket.
///
/// # Errors
/// See [`RetentionMemoryError`]. An object that is something else is never overwritten.
pub(crate) async fn were_seen(
    bucket: &Bucket,
    fingerprint: &str,
    now: Timestamp,
    retry: Retry,
) -> Result<bool, RetentionMemoryError> {
    let mut memory = match retry.run(|| bucket.get(OBJECT)).await {
        Ok(content) => parse(&content).map_err(RetentionMemoryError::Foreign)?,
        Err(error) if error.is_not_found() => Memory { version: VERSION, settings: Vec::new() },
        Err(error) => return Err(error.into()),
    };
    let now = now.as_millis();
    memory.settings.retain(|settings| now.saturating_sub(settings.last_seen) < FORGOTTEN_AFTER);
    let known = memory.settings.iter_mut().find(|settings| settings.fingerprint == fingerprint);
    let was_seen = known.is_some();
    match known {
        Some(known) if now.saturating_sub(known.last_seen) < REFRESHED_AFTER => return Ok(true),
        Some(known) => known.last_seen = now,
        None => memory.settings.push(SeenSettings {
            fingerprint: fingerprint.to_owned(),
            first_seen: now,
            last_seen: now,
        }),
    }
    memory.settings.sort_by_key(|settings| std::cmp::Reverse(settings.last_seen));
    memory.settings.truncate(MOST);
    let content =
        serde_json::to_vec(&memory).map_err(|error| RetentionMemoryError::Foreign(error.to_string()))?;
    let content = Bytes::from(content);
    retry.run(|| bucket.put(OBJECT, content.clone())).await?;
    Ok(was_seen)
}

fn parse(content: &[u8]) -> Result<Memory, String> {
    let memory: Memory = serde_json::from_slice(content).map_err(|error| error.to_string())?;
    if memory.version != VERSION {
        return Err(format!("its version is {}, expected {VERSION}", memory.version));
    }
    Ok(memory)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    async fn seen(bucket: &Bucket, settings: &str, day: i64) -> bool {
        were_seen(bucket, settings, Timestamp::from_millis(day * DAY), Retry::default()).await.unwrap()
    }

    #[tokio::test]
    async fn settings_are_known_from_their_second_pass_until_they_are_not_seen_for_a_month() {
        let bucket = Bucket::new(Arc::new(object_store::memory::InMemory::new()));
        let passes = [("a", 0, false), ("a", 0, true), ("b", 1, false), ("a", 29, true), ("b", 31, false)];
        for (settings, day, expected) in passes {
            assert_eq!(seen(&bucket, settings, day).await, expected, "{settings} on day {day}");
        }
        // The clock went back: what was seen stays known.
        assert!(seen(&bucket, "a", 2).await);
        assert!(!seen(&bucket, "a", 100).await);
    }

    #[tokio::test]
    async fn many_settings_are_bounded() {
        let bucket = Bucket::new(Arc::new(object_store::memory::InMemory::new()));
        for number in 0..MOST as i64 + 20 {
            assert!(!seen(&bucket, &number.to_string(), number / 10).await);
        }
        let memory = parse(&bucket.get(OBJECT).await.unwrap()).unwrap();
        assert_eq!(memory.settings.len(), MOST);
        assert!(seen(&bucket, &(MOST + 19).to_string(), 8).await, "the newest stay");
    }

    #[tokio::test]
    async fn an_object_of_anything_else_is_named_and_left_alone() {
        let bucket = Bucket::new(Arc::new(object_store::memory::InMemory::new()));
        let valid = r#"{"version":1,"settings":[{"fingerprint":"a","first_seen":1,"last_seen":1}]}"#;
        let mut contents: Vec<Vec<u8>> =
            (0..valid.len()).map(|end| valid.as_bytes()[..end].to_vec()).collect();
        contents.extend((0..valid.len()).map(|at| {
            let mut flipped = valid.as_bytes().to_vec();
            flipped[at] ^= 0x80;
            flipped
        }));
        contents.extend([b"<html>".to_vec(), valid.replace(":1,\"s", ":2,\"s").into_bytes()]);
        for content in contents {
            let content = Bytes::from(content);
            bucket.put(OBJECT, content.clone()).await.unwrap();
            let error = were_seen(&bucket, "a", Timestamp::EPOCH, Retry::default()).await.unwrap_err();
            assert!(error.to_string().contains(OBJECT) && error.to_string().contains("remove it"), "{error}");
            assert_eq!(bucket.get(OBJECT).await.unwrap(), content);
        }
    }
}
