//! The index of a bucket: one object that lists its blocks, so that many readers need not list the bucket.
//!
//! ```text
//! isthmus/index   {"version", "sequence", "written_at", "valid_seconds", "writer", "bytes", "sha256"} newline
//!                 zstd: {"blocks", "partial", "corrupt", "marks", "tombstones", "told"}
//! ```
//!
//! A compactor writes it after each look at the bucket that found a change, and now and then without one. Readers use it while it is fresh.
//! Nobody decides by it what to write or to remove. Thanos ignores it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use model::Timestamp;
use serde::{Deserialize, Serialize};
use tsdb::{BlockMeta, Ulid};

use crate::bucket::{Bucket, ObjectVersion};
use crate::deletions::TombstonesMark;
use crate::error::{BucketError, ErrorKind};
use crate::marks::{Mark, MarkKind};
use crate::retry::Retry;

/// The name of the object.
pub const OBJECT: &str = "isthmus/index";
/// The version of the object.
const VERSION: u32 = 1;
/// Most bytes of the first line.
const MAX_HEADER_BYTES: usize = 4096;
/// Most bytes of the lists.
const MAX_BODY_BYTES: u64 = 512 << 20;
/// No index is believed for longer, whatever it says.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// The clocks of this machine and of the store may differ by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// What a bucket contains, before any filter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BucketContent {
    /// The metas of all whole blocks.
    pub blocks: BTreeMap<Ulid, Arc<BlockMeta>>,
    /// Blocks without a `meta.json`.
    pub partial: BTreeSet<Ulid>,
    /// Blocks whose `meta.json` cannot be used, with the reason.
    pub corrupt: BTreeMap<Ulid, String>,
    /// The marks of all blocks.
    pub marks: BTreeMap<(MarkKind, Ulid), Mark>,
    /// Marks that cannot be used, with the reason.
    pub unusable_marks: BTreeMap<(MarkKind, Ulid), String>,
    /// Deletions of series of all blocks. A block whose deletions cannot be used is corrupt.
    pub tombstones: BTreeMap<Ulid, TombstonesMark>,
}

/// An index as it is in the bucket.
#[derive(Clone, Debug, PartialEq)]
pub struct BucketIndex {
    /// Larger than that of every index before it. It begins with the milliseconds since the epoch, so that it also grows when the object was
    /// lost.
    pub sequence: u64,
    /// When it was written, by the clock of the writer.
    pub written_at: Timestamp,
    /// For how long readers may use it.
    pub valid: Duration,
    /// The name of the writer.
    pub writer: String,
    /// What the bucket contained.
    pub content: BucketContent,
    /// Since when an index says that a block is marked for deletion.
    pub told: BTreeMap<Ulid, Timestamp>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    sequence: u64,
    written_at: i64,
    valid_seconds: u64,
    writer: String,
    bytes: u64,
    sha256: String,
}

#[derive(Serialize, Deserialize)]
struct Body {
    blocks: Vec<BlockMeta>,
    partial: Vec<String>,
    corrupt: Vec<(String, String)>,
    /// File name of the kind, block, content.
    marks: Vec<(String, String, String)>,
    unusable_marks: Vec<(String, String, String)>,
    /// Block, content.
    tombstones: Vec<(String, String)>,
    told: Vec<(String, i64)>,
}

impl BucketIndex {
    /// Whether an index that was written at `written`, by the clock of the store, may be used at `now`.
    pub(crate) fn is_fresh(&self, written: Timestamp, now: Timestamp) -> bool {
        let age = now.millis_since(written);
        let valid = self.valid.min(LONGEST).as_millis() as i64;
        -(CLOCK_SKEW.as_millis() as i64) <= age && age <= valid
    }

    /// The content of the object.
    ///
    /// # Errors
    /// A text for people: the lists are too large.
    pub fn to_bytes(&self) -> Result<Bytes, String> {
        let body = serde_json::to_vec(&Body::of(self)).map_err(|error| error.to_string())?;
        let bytes = body.len() as u64;
        if bytes > MAX_BODY_BYTES {
            return Err(format!("the index would have {bytes} bytes, at most {MAX_BODY_BYTES} are read"));
        }
        let packed = zstd::bulk::compress(&body, 3).map_err(|error| error.to_string())?;
        let header = Header {
            version: VERSION,
            sequence: self.sequence,
            written_at: self.written_at.as_millis(),
            valid_seconds: self.valid.as_secs(),
            writer: self.writer.chars().take(200).collect(),
            bytes,
            sha256: hex(&packed),
        };
        let mut out = serde_json::to_vec(&header).map_err(|error| error.to_string())?;
        out.push(b'\n');
        out.extend_from_slice(&packed);
        Ok(Bytes::from(out))
    }

    /// Reads the content of the object.
    ///
    /// # Errors
    /// A text for people.
    pub fn parse(content: &[u8]) -> Result<Self, String> {
        let end = content.iter().take(MAX_HEADER_BYTES).position(|byte| *byte == b'\n');
        let end = end.ok_or("it does not begin with a line that describes it")?;
        let (line, packed) = (&content[..end], &content[end + 1..]);
        let header: Header =
            serde_json::from_slice(line).map_err(|error| format!("its first line: {error}"))?;
        if header.version != VERSION {
            return Err(format!("its version is {}, expected {VERSION}", header.version));
        }
        if hex(packed) != header.sha256 {
            return Err("its checksum is wrong".to_owned());
        }
        if header.bytes > MAX_BODY_BYTES {
            return Err(format!("it has {} bytes, at most {MAX_BODY_BYTES} are read", header.bytes));
        }
        let mut body = Vec::new();
        let decoder = zstd::stream::read::Decoder::new(packed).map_err(|error| error.to_string())?;
        let read =
            decoder.take(header.bytes + 1).read_to_end(&mut body).map_err(|error| error.to_string())?;
        if read as u64 != header.bytes {
            return Err(format!("its lists do not have {} bytes", header.bytes));
        }
        let body: Body = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        let (content, told) = body.into_content()?;
        Ok(Self {
            sequence: header.sequence,
            written_at: Timestamp::from_millis(header.written_at),
            valid: Duration::from_secs(header.valid_seconds),
            writer: header.writer,
            content,
            told,
        })
    }
}

impl Body {
    fn of(index: &BucketIndex) -> Self {
        let BucketContent { blocks, partial, corrupt, marks, unusable_marks, tombstones } = &index.content;
        let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
        Self {
            blocks: blocks.values().map(|meta| BlockMeta::clone(meta)).collect(),
            partial: partial.iter().map(Ulid::to_string).collect(),
            corrupt: corrupt.iter().map(|(id, reason)| (id.to_string(), reason.clone())).collect(),
            marks: marks
                .iter()
                .map(|((kind, id), mark)| (kind.file().to_owned(), id.to_string(), text(mark.to_json())))
                .collect(),
            unusable_marks: unusable_marks
                .iter()
                .map(|((kind, id), reason)| (kind.file().to_owned(), id.to_string(), reason.clone()))
                .collect(),
            tombstones: tombstones.iter().map(|(id, mark)| (id.to_string(), text(mark.to_json()))).collect(),
            told: index.told.iter().map(|(id, at)| (id.to_string(), at.as_millis())).collect(),
        }
    }

    fn into_content(self) -> Result<(BucketContent, BTreeMap<Ulid, Timestamp>), String> {
        let id = |text: &str| {
            tsdb::parse_block_id(text).ok_or_else(|| format!("{text:.40?} is not the id of a block"))
        };
        let kind = |file: &str| {
            let found = MarkKind::ALL.into_iter().find(|kind| kind.file() == file);
            found.ok_or_else(|| format!("{file:.40?} is not a mark"))
        };
        let mut content = BucketContent::default();
        for meta in self.blocks {
            // As for a meta.json.
            meta.check().map_err(|error| format!("block {}: {error}", meta.ulid))?;
            content.blocks.insert(meta.ulid, Arc::new(meta));
        }
        for text in &self.partial {
            content.partial.insert(id(text)?);
        }
        for (text, reason) in self.corrupt {
            content.corrupt.insert(id(&text)?, reason);
        }
        for (file, text, mark) in self.marks {
            let key = (kind(&file)?, id(&text)?);
            content.marks.insert(key, Mark::parse(key.0, key.1, mark.as_bytes())?);
        }
        for (file, text, reason) in self.unusable_marks {
            content.unusable_marks.insert((kind(&file)?, id(&text)?), reason);
        }
        for (text, mark) in self.tombstones {
            let block = id(&text)?;
            content.tombstones.insert(block, TombstonesMark::parse(block, mark.as_bytes())?);
        }
        let told = self.told.iter().map(|(text, at)| Ok((id(text)?, Timestamp::from_millis(*at))));
        Ok((content, told.collect::<Result<_, String>>()?))
    }
}

/// SHA-256 in lower case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes the indexes of one bucket, as one of possibly several writers.
#[derive(Debug)]
pub struct IndexWriter {
    bucket: Bucket,
    writer: String,
    valid: Duration,
    retry: Retry,
    /// The last index that this writer has read or written, and its object.
    last: Option<BucketIndex>,
    version: Option<ObjectVersion>,
    /// Whether there is an index, of whichever writer.
    exists: bool,
}

/// The index object before a look at the bucket: what is written after it must not replace a newer one.
#[derive(Clone, Debug)]
pub struct IndexTurn(Option<ObjectVersion>);

impl IndexWriter {
    /// A writer that calls itself `writer`. Its indexes may be used for `valid`.
    pub fn new(bucket: &Bucket, writer: &str, valid: Duration, retry: Retry) -> Self {
        Self {
            bucket: bucket.clone(),
            writer: writer.to_owned(),
            valid: valid.min(LONGEST),
            retry,
            last: None,
            version: None,
            exists: false,
        }
    }

    /// Call this before the look at the bucket whose content is written.
    ///
    /// # Errors
    /// Any error of the store.
    pub async fn begin(&self) -> Result<IndexTurn, BucketError> {
        match self.retry.run(|| self.bucket.head(OBJECT)).await {
            Ok(info) => Ok(IndexTurn(Some(info.version))),
            Err(error) if error.is_not_found() => Ok(IndexTurn(None)),
            Err(error) => Err(error),
        }
    }

    /// Writes an index of what the bucket contained after `turn`, if it has changed, or the last one becomes old. Another writer may
    /// have been faster; then nothing is written.
    ///
    /// # Errors
    /// Any error of the store, or that the index is too large.
    pub async fn write(
        &mut self,
        turn: IndexTurn,
        content: &BucketContent,
        now: Timestamp,
    ) -> Result<(), IndexError> {
        self.exists |= turn.0.is_some();
        let before = match (&turn.0, &self.last) {
            (None, _) => None,
            (Some(version), Some(last)) if self.version.as_ref() == Some(version) => Some(last.clone()),
            (Some(_), _) => match self.retry.run(|| self.bucket.get_versioned(OBJECT)).await {
                // Written by another one, which is looked at once more in the next turn.
                Ok((_, info)) if Some(&info.version) != turn.0.as_ref() => return Ok(()),
                Ok((content, _)) => BucketIndex::parse(&content).ok(),
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) => return Err(error.into()),
            },
        };
        let index = self.next(before.as_ref(), content, now);
        let is_due = before.as_ref().is_none_or(|before| {
            before.content != index.content
                || now.millis_since(before.written_at) >= (self.valid / 4).as_millis() as i64
        });
        if !is_due {
            (self.last, self.version) = (before, turn.0);
            return Ok(());
        }
        let bytes = index.to_bytes().map_err(IndexError::TooLarge)?;
        let written = match turn.0 {
            None => self.bucket.put_if_absent(OBJECT, bytes).await,
            Some(version) => match self.bucket.update(OBJECT, bytes.clone(), version).await {
                // A local directory has no conditional writes. Of two writers at once the last one counts; both have seen the bucket.
                Err(error) if error.kind() == ErrorKind::Unsupported => self.bucket.put(OBJECT, bytes).await,
                written => written,
            },
        };
        match written {
            Ok(version) => {
                (self.last, self.version) = (Some(index), Some(version).filter(ObjectVersion::is_known));
                self.exists = true;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Conflict => {
                // What the other one wrote is read in the next turn.
                (self.version, self.exists) = (None, true);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Since when an index says that a block is marked for deletion; `None` if none says it, as far as this writer knows.
    pub fn told(&self, block: Ulid) -> Option<Timestamp> {
        self.last.as_ref()?.told.get(&block).copied()
    }

    /// Whether there is an index, which readers may use.
    pub fn has_index(&self) -> bool {
        self.exists
    }

    fn next(&self, before: Option<&BucketIndex>, content: &BucketContent, now: Timestamp) -> BucketIndex {
        let told_before = |block: &Ulid| before.and_then(|before| before.told.get(block)).copied();
        // Without an index, and while it is too old, readers list the bucket and see the marks themselves.
        let is_used = before.is_some_and(|before| before.is_fresh(before.written_at, now));
        let told = |block: &Ulid, mark: &Mark| {
            told_before(block).unwrap_or(if is_used { now } else { mark.time.min(now) })
        };
        let marked = content.marks.iter().filter(|((kind, _), _)| *kind == MarkKind::Deletion);
        BucketIndex {
            sequence: before.map_or(now.as_millis().unsigned_abs(), |before| before.sequence) + 1,
            written_at: now,
            valid: self.valid,
            writer: self.writer.clone(),
            content: content.clone(),
            told: marked.map(|((_, block), mark)| (*block, told(block, mark))).collect(),
        }
    }
}

/// Why an index was not written.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// An error of the store.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The bucket has too many blocks.
    #[error("{OBJECT}: {0}")]
    TooLarge(String),
}

#[cfg(test)]
mod tests;
