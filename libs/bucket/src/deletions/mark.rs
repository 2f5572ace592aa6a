//! The mark of a block: the deletions that were requested of it, as an object.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tsdb::Ulid;

use crate::deletions::deletion::{Deletion, RawDeletion};

/// The version of the objects.
const VERSION: u32 = 1;
/// Larger marks are not read.
pub(super) const MAX_BYTES: usize = 1 << 20;
/// Most deletions in a mark.
pub(super) const MAX_DELETIONS: usize = 1_000;

/// The deletions that were requested of one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TombstonesMark {
    /// The block.
    pub block: Ulid,
    /// In the order in which they came.
    pub deletions: Vec<Arc<Deletion>>,
}

#[derive(Serialize, Deserialize)]
struct RawMark {
    version: u32,
    id: String,
    deletions: Vec<RawDeletion>,
}

impl TombstonesMark {
    /// Parses the content of a mark.
    ///
    /// # Errors
    /// A short text that says what is wrong.
    pub fn parse(block: Ulid, content: &[u8]) -> Result<Self, String> {
        if content.len() > MAX_BYTES {
            return Err(format!("it has {} bytes, expected at most {MAX_BYTES}", content.len()));
        }
        let raw: RawMark = serde_json::from_slice(content).map_err(|error| error.to_string())?;
        if raw.version != VERSION {
            return Err(format!("its version is {}, expected {VERSION}", raw.version));
        }
        if raw.id != block.to_string() {
            return Err(format!("its id is {:.26}, expected {block}", raw.id));
        }
        if raw.deletions.len() > MAX_DELETIONS {
            return Err(format!(
                "it has {} deletions, expected at most {MAX_DELETIONS}",
                raw.deletions.len()
            ));
        }
        let deletions = raw.deletions.into_iter().map(|raw| Deletion::from_raw(raw).map(Arc::new));
        Ok(Self { block, deletions: deletions.collect::<Result<_, _>>()? })
    }

    /// The mark as the content of its object.
    pub fn to_json(&self) -> Bytes {
        let raw = RawMark {
            version: VERSION,
            id: self.block.to_string(),
            deletions: self.deletions.iter().map(|deletion| deletion.to_raw()).collect(),
        };
        Bytes::from(serde_json::to_vec(&raw).expect("texts and numbers can be written as JSON"))
    }

    /// Adds the deletions whose ids it lacks. Returns their number.
    pub(super) fn add(&mut self, more: &[Arc<Deletion>]) -> usize {
        let before = self.deletions.len();
        for deletion in more {
            if !self.deletions.iter().any(|known| known.id == deletion.id) {
                self.deletions.push(Arc::clone(deletion));
            }
        }
        self.deletions.len() - before
    }
}
