//! Flags of the shipper, with Thanos' names.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::shipper::preflight::Preflight;

/// `--hash-func` as Thanos has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum HashFunction {
    /// The only one there is
    #[value(name = "SHA256")]
    Sha256,
    /// The same: hashes are always made
    #[value(name = "")]
    Unset,
}

/// `--shipper.*` and `--hash-func`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ShipperArgs {
    /// Uploads blocks that Prometheus has compacted, too, where the bucket has nothing of their time: for a Prometheus
    /// that ran without uploads before
    #[arg(long = "shipper.upload-compacted")]
    upload_compacted: bool,

    /// File in --tsdb.path that lists what is uploaded, for Prometheus' --storage.tsdb.delay-compact-file.path
    #[arg(long = "shipper.meta-file-name", value_name = "NAME", default_value = "thanos.shipper.json")]
    meta_file_name: String,

    /// Uploads although Prometheus compacts its blocks
    #[arg(long = "shipper.ignore-unequal-block-size")]
    ignore_unequal_block_size: bool,

    /// Uploads compacted blocks although the bucket has blocks of the same time; the compactor must be able to merge them
    #[arg(long = "shipper.allow-out-of-order-uploads")]
    allow_out_of_order_uploads: bool,

    /// Has no effect: a block that cannot be uploaded never holds up others
    #[arg(long = "shipper.skip-corrupted-blocks")]
    skip_corrupted_blocks: bool,

    /// Files of a block that are uploaded at the same time; 0 for 4
    #[arg(long = "shipper.upload-concurrency", value_name = "N", default_value_t = 0)]
    upload_concurrency: usize,

    /// Has no effect: every file is uploaded with its SHA-256, and compared
    #[arg(long = "hash-func", value_name = "NAME", value_enum, default_value_t = HashFunction::Unset)]
    hash_function: HashFunction,

    /// Serves what is in the bucket, too, for as long as Prometheus has it: where no store serves the bucket
    #[arg(long = "store.serve-uploaded")]
    pub(crate) serve_uploaded: bool,
}

/// What the shipper does, checked.
#[derive(Clone, Debug)]
pub(crate) struct ShipperConfig {
    pub(super) data_dir: PathBuf,
    /// The list for Prometheus.
    pub(super) uploaded_file: PathBuf,
    pub(super) upload_compacted: bool,
    pub(super) allow_overlaps: bool,
    pub(super) ignore_unequal_block_size: bool,
    /// Files at the same time.
    pub(super) concurrency: usize,
    /// The sidecar goes on serving what is in the bucket.
    pub(super) serve_uploaded: bool,
}

impl ShipperArgs {
    /// The checked form for blocks in `data_dir`.
    ///
    /// # Errors
    /// Says which flag makes no sense.
    pub(crate) fn check(&self, data_dir: &Path) -> Result<ShipperConfig, String> {
        let name = Path::new(&self.meta_file_name);
        if name.file_name() != Some(name.as_os_str()) {
            return Err(format!(
                "--shipper.meta-file-name={:?}: give the name of a file, without folders",
                self.meta_file_name
            ));
        }
        if !data_dir.is_dir() {
            return Err(format!(
                "--tsdb.path={}: no such folder; give the data folder of Prometheus, whose blocks are to be uploaded",
                data_dir.display()
            ));
        }
        Ok(ShipperConfig {
            data_dir: data_dir.to_owned(),
            uploaded_file: data_dir.join(name),
            upload_compacted: self.upload_compacted,
            allow_overlaps: self.allow_out_of_order_uploads,
            ignore_unequal_block_size: self.ignore_unequal_block_size,
            concurrency: if self.upload_concurrency == 0 { 4 } else { self.upload_concurrency },
            serve_uploaded: self.serve_uploaded,
        })
    }
}

impl ShipperConfig {
    /// What is demanded of Prometheus.
    pub(crate) fn preflight(&self) -> Preflight {
        Preflight {
            uploaded_file: self.uploaded_file.clone(),
            ignore_unequal_block_size: self.ignore_unequal_block_size,
        }
    }

    /// The shipper's own folder inside Prometheus' data folder.
    pub(super) fn folder(&self) -> PathBuf {
        self.data_dir.join("thanos")
    }
}
