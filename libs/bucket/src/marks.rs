//! Marks: small objects beside a block's files that request its deletion, or exclude it from compaction or downsampling.
//!
//! A mark is created only if there is none, and is never overwritten. A mark that cannot be read is ignored with a warning,
//! and no block is deleted because of it.

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
    /// The block is deleted when the mark is old enough.
    Deletion,
    /// The block is not compacted.
    NoCompact,
    /// The block is not downsampled.
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

    /// The field with the time in seconds.
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

/// A mark of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The kind.
    pub kind: MarkKind,
    /// The marked block.
    pub block: Ulid,
    /// When it was made, by the clock of the program that made it, in whole seconds.
    pub time: Timestamp,
    /// The reason as a fixed word that programs compare (`manual`, `index-size-exceeding`); `None` for a deletion mark.
    pub reason: Option<String>,
    /// The reason as text for people.
    pub details: Option<String>,
    /// The blocks that have the samples of the marked one. It is removed only while they are whole in the bucket. A field that
    /// Thanos ignores.
    pub replaced_by: Vec<Ulid>,
}

/// Whether a block has a mark of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MarkState {
    /// There is no mark.
    Absent,
    /// There is a mark.
    Marked(Mark),
    /// There is an object that is not a mark of a known version, for this reason. It has no effect, except that the
    /// block is not removed while it exists.
    Unusable(String),
}

impl MarkState {
    /// The mark, if there is a usable one.
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
        Self { kind, block, time, reason, details: None, replaced_by: Vec::new() }
    }

    /// Age of the mark at `now`; zero if it was made later.
    pub fn age(&self, now: Timestamp) -> Duration {
        let millis = now.as_millis().saturating_sub(self.time.as_millis());
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }

    /// Parses the content of a mark.
    ///
    /// # Errors
    /// A short text that says what is wrong.
    pub fn parse(kind: MarkKind, block: Ulid, content: &[u8]) -> Result<Self, String> {
        let fields: Map<String, Value> =
            serde_json::from_slice(content).map_err(|error| format!("it is not a JSON object: {error}"))?;
        match fields.get("version").and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(other) => return Err(format!("its version is {other}, expected {VERSION}")),
            None => return Err(format!("it has no version, expected {VERSION}")),
        }
        if let Some(id) = fields.get("id").and_then(Value::as_str)
            && id != block.to_string()
        {
            return Err(format!("its id is {id:.26}, expected {block}"));
        }
        let seconds = fields.get(kind.time_field()).and_then(Value::as_i64);
        let seconds =
            seconds.ok_or_else(|| format!("it has no {}, expected Unix seconds", kind.time_field()))?;
        let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
        Ok(Self {
            kind,
            block,
            time: Timestamp::from_millis(seconds.saturating_mul(1000)),
            reason: text("reason"),
            details: text("details").filter(|details| !details.is_empty()),
            replaced_by: replacements(&fields)?,
        })
    }

    /// The mark as the content of its object.
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
        if !self.replaced_by.is_empty() {
            let blocks: Vec<String> = self.replaced_by.iter().map(Ulid::to_string).collect();
            fields.insert("replaced_by".to_owned(), json!(blocks));
        }
        Value::Object(fields).to_string().into()
    }
}

/// The blocks in `replaced_by`. An id that cannot be read makes the mark unusable: what replaces the block is then not known.
fn replacements(fields: &Map<String, Value>) -> Result<Vec<Ulid>, String> {
    let Some(list) = fields.get("replaced_by") else { return Ok(Vec::new()) };
    let ids = list.as_array().ok_or("its replaced_by is not a list")?;
    let parse = |id: &Value| id.as_str().and_then(tsdb::parse_block_id);
    ids.iter()
        .map(|id| parse(id).ok_or_else(|| format!("its replaced_by has {id:.40}, which is no block")))
        .collect()
}

/// Loads a mark of a block. Logs a warning if it is unusable.
///
/// # Errors
/// Any error of the store, except that there is no mark.
pub async fn load(bucket: &Bucket, block: Ulid, kind: MarkKind) -> Result<MarkState, BucketError> {
    let content = match bucket.get(&layout::block_file(block, kind.file())).await {
        Ok(content) => content,
        Err(error) if error.is_not_found() => return Ok(MarkState::Absent),
        Err(error) => return Err(error),
    };
    Ok(match Mark::parse(kind, block, &content) {
        Ok(mark) => MarkState::Marked(mark),
        Err(reason) => {
            tracing::warn!(%block, mark = %kind, %reason, "mark cannot be used and is ignored");
            MarkState::Unusable(reason)
        }
    })
}

/// Creates a mark unless there is one. Returns the mark that the block has now: the given one, or an earlier one.
///
/// # Errors
/// Any error of the store. The mark may exist nevertheless: load it to find out.
pub async fn create(bucket: &Bucket, mark: &Mark) -> Result<MarkState, BucketError> {
    let name = layout::block_file(mark.block, mark.kind.file());
    // Load it first, because a few stores ignore the condition of the write.
    match load(bucket, mark.block, mark.kind).await? {
        MarkState::Absent => {}
        found => return Ok(found),
    }
    match bucket.put_if_absent(&name, mark.to_json()).await {
        Ok(_) => Ok(MarkState::Marked(mark.clone())),
        Err(error) if error.kind() == ErrorKind::Conflict => {
            match load(bucket, mark.block, mark.kind).await? {
                // For some stores, 409 means that another write is running, not that the object exists.
                MarkState::Absent => Err(error),
                found => Ok(found),
            }
        }
        Err(error) => Err(error),
    }
}

/// Removes a mark. It is not an error if there is none.
///
/// # Errors
/// Any error of the store.
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
    fn a_deletion_mark_names_the_blocks_that_replace_the_marked_one() {
        let mut mark = Mark::new(MarkKind::Deletion, block(), Timestamp::from_millis(1_000));
        mark.replaced_by = vec![block(), Ulid::from_parts(1, 2)];
        assert_eq!(Mark::parse(MarkKind::Deletion, block(), &mark.to_json()), Ok(mark));
        for (list, expected) in [("1", "not a list"), (r#"["x"]"#, "\"x\", which is no block"), ("[7]", "7")]
        {
            let content = format!(r#"{{"version":1,"deletion_time":1,"replaced_by":{list}}}"#);
            let error = Mark::parse(MarkKind::Deletion, block(), content.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn content_that_is_not_a_mark_is_rejected_with_the_reason() {
        let check = |content: &str, expected: &str| {
            let error = Mark::parse(MarkKind::Deletion, block(), content.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{content}: {error}");
        };
        check("", "not a JSON object");
        check("[1]", "not a JSON object");
        check(r#"{"deletion_time":1}"#, "no version");
        check(r#"{"version":2,"deletion_time":1}"#, "version is 2");
        check(r#"{"version":1}"#, "no deletion_time");
        check(r#"{"version":1,"deletion_time":"1"}"#, "no deletion_time");
        check(
            r#"{"version":1,"deletion_time":1,"id":"01HZY3VQ6J0000000000000001"}"#,
            "expected 01HZY3VQ6J0000000000000000",
        );
    }

    #[tokio::test]
    async fn a_mark_is_never_overwritten() {
        let bucket = Bucket::new(Arc::new(object_store::memory::InMemory::new()));
        let first = Mark::new(MarkKind::Deletion, block(), Timestamp::from_millis(1_000));
        let second = Mark::new(MarkKind::Deletion, block(), Timestamp::from_millis(9_000));
        assert_eq!(create(&bucket, &first).await.unwrap().mark(), Some(&first));
        assert_eq!(create(&bucket, &second).await.unwrap().mark(), Some(&first));
        remove(&bucket, block(), MarkKind::Deletion).await.unwrap();
        assert_eq!(load(&bucket, block(), MarkKind::Deletion).await.unwrap(), MarkState::Absent);

        let name = layout::block_file(block(), layout::DELETION_MARK_FILE);
        bucket.put(&name, Bytes::from_static(b"{")).await.unwrap();
        assert!(matches!(create(&bucket, &first).await.unwrap(), MarkState::Unusable(_)));
        assert_eq!(bucket.get(&name).await.unwrap(), "{");
    }
}
