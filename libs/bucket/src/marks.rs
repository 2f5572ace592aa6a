//! Marks: small objects beside a block's files that say what must, or must not, be done to it.
//!
//! A mark is created only where none is and is never overwritten. One that cannot be read is passed over with a
//! warning, and no block is deleted on the strength of it.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use model::Timestamp;
use serde_json::{Map, Value, json};
use tsdb::Ulid;

use crate::bucket::Bucket;
use crate::error::{BucketError, ErrorKind};
use crate::layout;

/// Version of the marks that are read and written.
const VERSION: u64 = 1;

/// Kinds of marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MarkKind {
    /// The block is to be deleted when the mark is old enough.
    Deletion,
    /// The block is not to be compacted.
    NoCompact,
    /// The block is not to be downsampled.
    NoDownsample,
}

impl MarkKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Deletion, Self::NoCompact, Self::NoDownsample];

    /// The name of the file in a block's folder.
    pub fn file(self) -> &'static str {
        match self {
            Self::Deletion => layout::DELETION_MARK_FILE,
            Self::NoCompact => layout::NO_COMPACT_MARK_FILE,
            Self::NoDownsample => layout::NO_DOWNSAMPLE_MARK_FILE,
        }
    }

    /// The field that holds the time, in seconds.
    fn time_field(self) -> &'static str {
        match self {
            Self::Deletion => "deletion_time",
            Self::NoCompact => "no_compact_time",
            Self::NoDownsample => "no_downsample_time",
        }
    }
}

impl fmt::Display for MarkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.file())
    }
}

/// What a mark says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which mark it is.
    pub kind: MarkKind,
    /// The block that it stands at.
    pub block: Ulid,
    /// When it was made, by the clock of whoever made it; a whole second.
    pub time: Timestamp,
    /// Why, in the few words that programs compare (`manual`, `index-size-exceeding`); not of a deletion mark.
    pub reason: Option<String>,
    /// Why, for people.
    pub details: Option<String>,
}

/// What stands at a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MarkState {
    /// No mark.
    Absent,
    /// A mark.
    Marked(Mark),
    /// An object that is no mark of a known version, and why. It counts as no mark; but a block that has it is
    /// not touched.
    Unusable(String),
}

impl MarkState {
    /// The mark, where there is a usable one.
    pub fn mark(&self) -> Option<&Mark> {
        match self {
            Self::Marked(mark) => Some(mark),
            Self::Absent | Self::Unusable(_) => None,
        }
    }
}

impl Mark {
    /// A mark made now.
    pub fn new(kind: MarkKind, block: Ulid, now: Timestamp) -> Self {
        let time = Timestamp::from_millis(now.as_millis().div_euclid(1000) * 1000);
        let reason = (kind != MarkKind::Deletion).then(|| "manual".to_owned());
        Self { kind, block, time, reason, details: None }
    }

    /// How long ago the mark was made, at `now`; zero for one from the future.
    pub fn age(&self, now: Timestamp) -> Duration {
        let millis = now.as_millis().saturating_sub(self.time.as_millis());
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }

    /// Reads the content of a mark.
    ///
    /// # Errors
    /// What is wrong with it, in a few words.
    pub fn parse(kind: MarkKind, block: Ulid, content: &[u8]) -> Result<Self, String> {
        let fields: Map<String, Value> =
            serde_json::from_slice(content).map_err(|error| format!("it is no JSON object: {error}"))?;
        match fields.get("version").and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(other) => return Err(format!("its version is {other}, known is {VERSION}")),
            None => return Err("it has no version".to_owned()),
        }
        if let Some(id) = fields.get("id").and_then(Value::as_str)
            && id != block.to_string()
        {
            return Err(format!("it is of block {id:.26}"));
        }
        let seconds = fields.get(kind.time_field()).and_then(Value::as_i64);
        let seconds = seconds.ok_or_else(|| format!("it has no {} in seconds", kind.time_field()))?;
        let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
        Ok(Self {
            kind,
            block,
            time: Timestamp::from_millis(seconds.saturating_mul(1000)),
            reason: text("reason"),
            details: text("details").filter(|details| !details.is_empty()),
        })
    }

    /// The content of the object.
    pub fn to_json(&self) -> Bytes {
        let mut fields = Map::new();
        fields.insert("id".to_owned(), json!(self.block.to_string()));
        fields.insert("version".to_owned(), json!(VERSION));
        if let Some(details) = &self.details {
            fields.insert("details".to_owned(), json!(details));
        }
        fields.insert(self.kind.time_field().to_owned(), json!(self.time.as_millis().div_euclid(1000)));
        if self.kind != MarkKind::Deletion {
            fields.insert("reason".to_owned(), json!(self.reason.as_deref().unwrap_or("manual")));
        }
        Value::Object(fields).to_string().into()
    }
}

/// What stands at a block; warns about what is unusable.
///
/// # Errors
/// What the store says, other than that there is no mark.
pub async fn read(bucket: &Bucket, block: Ulid, kind: MarkKind) -> Result<MarkState, BucketError> {
    let content = match bucket.get(&layout::block_file(block, kind.file())).await {
        Ok(content) => content,
        Err(error) if error.is_not_found() => return Ok(MarkState::Absent),
        Err(error) => return Err(error),
    };
    Ok(match Mark::parse(kind, block, &content) {
        Ok(mark) => MarkState::Marked(mark),
        Err(reason) => {
            tracing::warn!("{kind} of block {block} is passed over: {reason}");
            MarkState::Unusable(reason)
        }
    })
}

/// Makes a mark unless there is one, and says which one stands now: the given one, or that which was there.
///
/// # Errors
/// What the store says. The mark may have been made all the same: ask again.
pub async fn create(bucket: &Bucket, mark: &Mark) -> Result<MarkState, BucketError> {
    let name = layout::block_file(mark.block, mark.kind.file());
    // Looked for first too, because a few stores ignore the condition.
    match read(bucket, mark.block, mark.kind).await? {
        MarkState::Absent => {}
        found => return Ok(found),
    }
    match bucket.put_if_absent(&name, mark.to_json()).await {
        Ok(_) => Ok(MarkState::Marked(mark.clone())),
        Err(error) if error.kind() == ErrorKind::Conflict => {
            match read(bucket, mark.block, mark.kind).await? {
                // 409 of some stores means "somebody else is at it", not "it is there".
                MarkState::Absent => Err(error),
                found => Ok(found),
            }
        }
        Err(error) => Err(error),
    }
}

/// Takes a mark away; nothing happens where there is none.
///
/// # Errors
/// What the store says.
pub async fn remove(bucket: &Bucket, block: Ulid, kind: MarkKind) -> Result<(), BucketError> {
    bucket.delete(&layout::block_file(block, kind.file())).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn block() -> Ulid {
        tsdb::parse_block_id("01HZY3VQ6J0000000000000000").unwrap()
    }

    #[test]
    fn marks_have_the_fields_of_thanos() {
        let now = Timestamp::from_millis(1_700_000_000_123);
        let check = |kind, expected: &str| {
            let mark = Mark::new(kind, block(), now);
            assert_eq!(mark.to_json(), expected);
            assert_eq!(Mark::parse(kind, block(), expected.as_bytes()), Ok(mark));
        };
        check(
            MarkKind::Deletion,
            r#"{"deletion_time":1700000000,"id":"01HZY3VQ6J0000000000000000","version":1}"#,
        );
        check(
            MarkKind::NoCompact,
            r#"{"id":"01HZY3VQ6J0000000000000000","no_compact_time":1700000000,"reason":"manual","version":1}"#,
        );
    }

    #[test]
    fn what_is_no_mark_is_named() {
        let check = |content: &str, expected: &str| {
            let error = Mark::parse(MarkKind::Deletion, block(), content.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{content}: {error}");
        };
        check("", "no JSON");
        check("[1]", "no JSON object");
        check(r#"{"deletion_time":1}"#, "no version");
        check(r#"{"version":2,"deletion_time":1}"#, "version is 2");
        check(r#"{"version":1}"#, "no deletion_time");
        check(r#"{"version":1,"deletion_time":"1"}"#, "no deletion_time");
        check(r#"{"version":1,"deletion_time":1,"id":"01HZY3VQ6J0000000000000001"}"#, "of block");
    }

    #[tokio::test]
    async fn a_mark_is_never_overwritten() {
        let bucket = Bucket::new(Arc::new(object_store::memory::InMemory::new()));
        let first = Mark::new(MarkKind::Deletion, block(), Timestamp::from_millis(1_000));
        let second = Mark::new(MarkKind::Deletion, block(), Timestamp::from_millis(9_000));
        assert_eq!(create(&bucket, &first).await.unwrap().mark(), Some(&first));
        assert_eq!(create(&bucket, &second).await.unwrap().mark(), Some(&first));
        remove(&bucket, block(), MarkKind::Deletion).await.unwrap();
        assert_eq!(read(&bucket, block(), MarkKind::Deletion).await.unwrap(), MarkState::Absent);

        let name = layout::block_file(block(), layout::DELETION_MARK_FILE);
        bucket.put(&name, Bytes::from_static(b"{")).await.unwrap();
        assert!(matches!(create(&bucket, &first).await.unwrap(), MarkState::Unusable(_)));
        assert_eq!(bucket.get(&name).await.unwrap(), "{");
    }
}
