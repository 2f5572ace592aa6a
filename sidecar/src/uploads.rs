//! The flags of the uploads, with the names of Thanos.

use std::path::Path;

use shipper::ShipperConfig;

use crate::preflight::Preflight;

/// `--shipper.*`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ShipperArgs {
    /// Also upload blocks that Prometheus had compacted before uploads began, if the bucket has no blocks of
    /// their time
    #[arg(long = "shipper.upload-compacted")]
    upload_compacted: bool,

    /// Write the list of uploaded blocks to this file in --tsdb.path, for
    /// --storage.tsdb.delay-compact-file.path of Prometheus
    #[arg(long = "shipper.meta-file-name", value_name = "NAME", default_value = "thanos.shipper.json")]
    meta_file_name: String,

    /// Upload blocks even if Prometheus compacts its blocks
    #[arg(long = "shipper.ignore-unequal-block-size")]
    ignore_unequal_block_size: bool,

    /// Upload compacted blocks even if the bucket has blocks of the same time; the compactor must be able to
    /// merge them
    #[arg(long = "shipper.allow-out-of-order-uploads")]
    allow_out_of_order_uploads: bool,

    /// Upload this many files of a block at the same time; 0 for 4
    #[arg(long = "shipper.upload-concurrency", value_name = "N", default_value_t = 0)]
    upload_concurrency: usize,

    /// Serve data that is in the bucket too, for as long as Prometheus has it; with --no-store.serve-uploaded,
    /// data that the stores of the bucket certainly have is left to them
    #[arg(
        long = "store.serve-uploaded",
        value_name = "BOOL",
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = clap::ArgAction::Set
    )]
    serve_uploaded: bool,
}

/// The validated flags.
#[derive(Clone, Debug)]
pub(crate) struct CheckedShipperArgs {
    pub(crate) shipper: ShipperConfig,
    /// The requirements for the flags of Prometheus.
    pub(crate) preflight: Preflight,
}

impl ShipperArgs {
    /// Validates the flags for blocks in `data_dir`.
    ///
    /// # Errors
    /// Names the flag that is invalid.
    pub(crate) fn check(&self, data_dir: &Path) -> Result<CheckedShipperArgs, String> {
        let name = Path::new(&self.meta_file_name);
        if name.file_name() != Some(name.as_os_str()) {
            return Err(format!(
                "--shipper.meta-file-name={:?}: must be a file name without directories",
                self.meta_file_name
            ));
        }
        if !data_dir.is_dir() {
            return Err(format!(
                "--tsdb.path={}: directory does not exist; set the data directory of Prometheus, from which blocks are uploaded",
                data_dir.display()
            ));
        }
        let defaults = ShipperConfig::new(data_dir);
        let shipper = ShipperConfig {
            uploaded_file: data_dir.join(name),
            upload_compacted: self.upload_compacted,
            allow_overlaps: self.allow_out_of_order_uploads,
            concurrency: if self.upload_concurrency == 0 {
                defaults.concurrency
            } else {
                self.upload_concurrency
            },
            serve_uploaded: self.serve_uploaded,
            ..defaults
        };
        let preflight = Preflight {
            uploaded_file: shipper.uploaded_file.clone(),
            ignore_unequal_block_size: self.ignore_unequal_block_size,
        };
        Ok(CheckedShipperArgs { shipper, preflight })
    }
}
