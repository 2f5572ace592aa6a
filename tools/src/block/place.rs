//! Which block is meant: a folder, or a block of a bucket.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ::bucket::{Bucket, BucketFile, ObjstoreArgs, layout, manifest_of};
use tsdb::{Block, BlockMeta, BlockParts, IndexMemory, META_FILE, ReadAt, Ulid, parse_block_id};

use crate::block::read::blocking;
use crate::bucket;
use crate::error::{Cause, Result, ToolError};

/// Where blocks are looked for.
#[derive(Debug, clap::Args)]
pub(super) struct PlaceFlags {
    #[command(flatten)]
    objstore: ObjstoreArgs,
}

impl PlaceFlags {
    /// Opens the block at `place`: a folder; or with an objstore configuration, the block of that id in the bucket,
    /// of which only what is needed is read.
    ///
    /// # Errors
    /// There is no such block, or it is damaged.
    pub(super) async fn open(&self, place: &str) -> Result<Block> {
        let path = Path::new(place);
        let is_given =
            self.objstore.objstore_config.is_some() || self.objstore.objstore_config_file.is_some();
        match parse_block_id(place).filter(|_| is_given) {
            Some(id) => {
                let bucket = bucket::open(&self.objstore).await?;
                open_remote(&bucket, id).await
            }
            None if path.join(META_FILE).exists() => {
                let path = path.to_owned();
                blocking(move || Ok(Block::open(&path)?)).await
            }
            None => Err(no_block(path)),
        }
    }
}

/// Opens a block of a bucket.
pub(crate) async fn open_remote(bucket: &Bucket, id: Ulid) -> Result<Block> {
    let content = match bucket.get(&layout::meta(id)).await {
        Ok(content) => content,
        Err(error) if error.is_not_found() => {
            return Err(ToolError::new(
                Cause::Missing,
                format!(
                    "block {id} has no meta.json in bucket {:?}: it does not exist, or its upload has not ended",
                    bucket.name()
                ),
            ));
        }
        Err(error) => return Err(error.into()),
    };
    let damaged = |what: String| {
        ToolError::new(Cause::Damaged, format!("block {id} in bucket {:?}: {what}", bucket.name()))
    };
    let meta = BlockMeta::parse(&content).map_err(|error| damaged(error.to_string()))?;
    let objects = bucket.list_all(&id.to_string()).await?;
    let listed: BTreeMap<&str, u64> = objects
        .iter()
        .filter_map(|object| Some((layout::split(&object.name)?.1, object.size_bytes)))
        .collect();
    let mut files = Vec::new();
    for file in manifest_of(&meta) {
        match listed.get(file.path.as_str()) {
            Some(size) if *size == file.size_bytes => files.push((file.path, *size)),
            Some(size) => {
                let (path, promised) = (file.path, file.size_bytes);
                return Err(damaged(format!("{path} is {size} bytes large, its manifest says {promised}")));
            }
            None => return Err(damaged(format!("{} is missing", file.path))),
        }
    }
    if files.is_empty() {
        // Blocks of old versions have no manifest.
        files.extend(listed.iter().map(|(path, size)| ((*path).to_owned(), *size)));
    }
    files.sort();
    let file = |(path, size): &(String, u64)| -> Arc<dyn ReadAt> {
        Arc::new(BucketFile::with_size(bucket, &layout::block_file(id, path), *size))
    };
    let index = files.iter().find(|(path, _)| path == layout::INDEX_FILE).map(file);
    let index = index.ok_or_else(|| damaged("it has no index".to_owned()))?;
    let is_segment = |(path, _): &&(String, u64)| {
        path.strip_prefix(layout::CHUNKS_DIR).is_some_and(|rest| rest.starts_with('/'))
    };
    let segments: Vec<Arc<dyn ReadAt>> = files.iter().filter(is_segment).map(file).collect();
    let index_memory = IndexMemory::default();
    let parts = BlockParts { meta, index, segments, tombstones: None, index_memory };
    blocking(move || Ok(Block::from_parts(id, parts)?)).await
}

/// Says what is at `path` instead of a block, and what to do.
fn no_block(path: &Path) -> ToolError {
    let shown = path.display();
    let message = match std::fs::read_dir(path) {
        Err(error) if parse_block_id(&path.to_string_lossy()).is_some() => {
            format!("{shown}: {error}; for a block of a bucket give --objstore.config-file as well")
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
                    "{shown} is no block, it holds {}: give one of them, such as {}",
                    crate::text::count(inside.len() as u64, "block"),
                    first.display()
                ),
                None => format!("{shown} is no block: it has no meta.json"),
            }
        }
    };
    ToolError::new(Cause::Missing, message)
}
