//! The settings of a shipper. Its user has the flags.

use std::path::{Path, PathBuf};

/// The settings of a shipper.
#[derive(Clone, Debug)]
pub struct ShipperConfig {
    /// The folder with the blocks. It must exist.
    pub data_dir: PathBuf,
    /// The list of uploaded blocks, which a Prometheus may read to know what it may compact.
    pub uploaded_file: PathBuf,
    /// Also upload blocks that were compacted before uploads began, if the bucket has no blocks of their time.
    pub upload_compacted: bool,
    /// Upload compacted blocks even if the bucket has blocks of the same time.
    pub allow_overlaps: bool,
    /// Files of a block that are uploaded at the same time; at least 1.
    pub concurrency: usize,
    /// Data that is in the bucket is served, too.
    pub serve_uploaded: bool,
    /// What uploads the blocks, for their `meta.json`.
    pub source: BlockSource,
}

/// What uploads blocks, with the names of Thanos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockSource {
    /// A sidecar, or a scraper, which is a Prometheus with a sidecar.
    Sidecar,
    /// A ruler.
    Ruler,
}

impl BlockSource {
    /// Its name in `thanos.source` of `meta.json`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Ruler => "ruler",
        }
    }

    /// Whether a block with this `thanos.source` was made by what uploads it, and not of other blocks of the bucket.
    pub(crate) fn is_producer(source: &str) -> bool {
        [Self::Sidecar, Self::Ruler].iter().any(|known| known.name() == source)
    }
}

impl ShipperConfig {
    /// The usual settings for the blocks in `data_dir`.
    pub fn new(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            uploaded_file: data_dir.join("thanos.shipper.json"),
            upload_compacted: false,
            allow_overlaps: false,
            concurrency: 4,
            serve_uploaded: true,
            source: BlockSource::Sidecar,
        }
    }

    /// The directory of the shipper in the folder with the blocks.
    pub(crate) fn folder(&self) -> PathBuf {
        self.data_dir.join("thanos")
    }
}
