//! Opens the block of an argument: a folder, or a block in a bucket.

use std::path::Path;

use ::bucket::{ObjstoreArgs, OpenBlockOptions};
use tsdb::{Block, META_FILE, parse_block_id};

use crate::blocking::blocking;
use crate::connect;
use crate::error::{Cause, Result, ToolError};

/// The bucket in which blocks are looked up.
#[derive(Debug, clap::Args)]
pub(super) struct PlaceFlags {
    #[command(flatten)]
    objstore: ObjstoreArgs,
}

impl PlaceFlags {
    /// Opens the block at `place`: a folder; or, with an objstore configuration, the block of that id in the bucket, of
    /// which only the needed parts are read.
    ///
    /// # Errors
    /// The block does not exist, is damaged, or the store fails.
    pub(super) async fn open(&self, place: &str) -> Result<Block> {
        let path = Path::new(place);
        let is_given =
            self.objstore.objstore_config.is_some() || self.objstore.objstore_config_file.is_some();
        match parse_block_id(place).filter(|_| is_given) {
            Some(id) => {
                let bucket = connect::open(&self.objstore).await?;
                Ok(bucket.open_block(id, &OpenBlockOptions::default()).await?.into_block())
            }
            None if path.join(META_FILE).exists() => {
                let path = path.to_owned();
                blocking(move || Ok(Block::open(&path)?)).await
            }
            None => Err(no_block(path)),
        }
    }
}

/// The error for a `path` that is not a block.
pub(super) fn no_block(path: &Path) -> ToolError {
    let shown = path.display();
    let message = match std::fs::read_dir(path) {
        Err(error) if parse_block_id(&path.to_string_lossy()).is_some() => {
            format!("{shown}: {error}; for a block in a bucket, give --objstore.config-file too")
        }
        Err(error) => format!("{shown}: {error}"),
        Ok(entries) => {
            let mut inside: Vec<_> = entries
                .flatten()
                .map(|entry| entry.path())
                .filter(|inside| inside.join(META_FILE).exists())
                .collect();
            inside.sort();
            match inside.first() {
                Some(first) => format!(
                    "{shown} is not a block, but contains {}: give one of them, such as {}",
                    crate::text::count(inside.len() as u64, "block"),
                    first.display()
                ),
                None => format!("{shown} is not a block: it has no meta.json"),
            }
        }
    };
    ToolError::new(Cause::Missing, message)
}
