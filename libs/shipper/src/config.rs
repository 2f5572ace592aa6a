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
        }
    }

    /// The directory of the shipper in the folder with the blocks.
    pub(crate) fn folder(&self) -> PathBuf {
        self.data_dir.join("thanos")
    }
}
