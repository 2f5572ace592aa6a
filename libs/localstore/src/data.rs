//! The data folder that is served.

use std::sync::{Arc, OnceLock};

use head::{Database, DatabaseView};
use model::{TimeRange, Timestamp};
use storeapi::StoreError;
use tsdb::{BlockError, parse_block_id};

/// A data folder that is open, or will be when its log was read. Clones share it.
#[derive(Clone, Default)]
pub struct LocalData(Arc<OnceLock<OpenData>>);

struct OpenData {
    database: Arc<Database>,
    damaged: Vec<DamagedBlock>,
}

/// A block that cannot be read.
struct DamagedBlock {
    reason: String,
    /// Nothing is known about its samples but that they are not later than the block.
    until: Timestamp,
}

impl LocalData {
    /// A folder that is not open yet. Requests fail until [`LocalData::opened`] is called.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on this database is served. Answers over the time of a block that cannot be read have a warning.
    pub fn opened(&self, database: Arc<Database>, damaged: &[BlockError]) {
        let damaged = damaged.iter().map(|error| {
            let id = parse_block_id(&error.block);
            let until = id.and_then(|id| i64::try_from(id.timestamp_ms()).ok());
            DamagedBlock {
                reason: format!("{error}; its samples are missing"),
                until: until.map_or(Timestamp::MAX, Timestamp::from_millis),
            }
        });
        // A folder is opened once.
        let _ = self.0.set(OpenData { database, damaged: damaged.collect() });
    }

    /// The database.
    ///
    /// # Errors
    /// When it is not open yet.
    pub fn database(&self) -> Result<&Arc<Database>, StoreError> {
        self.open().map(|open| &open.database)
    }

    /// What the folder has in a range now, and warnings about blocks that cannot be read.
    pub(crate) fn view(&self, range: TimeRange) -> Result<(DatabaseView, Vec<String>), StoreError> {
        let open = self.open()?;
        let is_concerned = |block: &&DamagedBlock| block.until >= range.min;
        let warnings = open.damaged.iter().filter(is_concerned).map(|block| block.reason.clone()).collect();
        Ok((open.database.view(range), warnings))
    }

    fn open(&self) -> Result<&OpenData, StoreError> {
        self.0.get().ok_or_else(|| StoreError::unavailable("not ready: the write-ahead log is being read"))
    }
}
