//! The flags of the data folder and of uploads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bucket::{BucketConfig, ObjstoreArgs};
use model::Labels;
use runtime::{ConfigMistakes, format_duration, parse_duration};
use shipper::{BlockSource, ShipperConfig};
use storeapi::RequestLimits;

/// `--data-dir`, `--tsdb.*`, `--objstore.*`, `--shipper.*` and `--store.limits.*`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct StorageArgs {
    /// Keep samples in this folder, and the alerts that wait to be sent
    #[arg(long, value_name = "DIR", default_value = "data/")]
    data_dir: PathBuf,

    /// The range of blocks
    #[arg(long = "tsdb.block-duration", value_name = "DURATION", default_value = "2h", value_parser = parse_duration)]
    block_duration: Duration,

    /// Keep samples this long; those that are uploaded until stores have them, whatever their age
    #[arg(long = "tsdb.retention", value_name = "DURATION", default_value = "48h", value_parser = parse_duration)]
    retention: Duration,

    #[command(flatten)]
    objstore: ObjstoreArgs,

    /// Write the list of uploaded blocks to this file in --data-dir
    #[arg(long = "shipper.meta-file-name", value_name = "NAME", default_value = "thanos.shipper.json")]
    meta_file_name: String,

    /// Upload this many files of a block at the same time; 0 for 4
    #[arg(long = "shipper.upload-concurrency", value_name = "N", default_value_t = 0)]
    upload_concurrency: usize,

    /// Limit the series in one answer over gRPC; 0 for no limit
    #[arg(long = "store.limits.request-series", value_name = "N", default_value_t = 0)]
    limit_series: u64,

    /// Limit the samples in one answer over gRPC, counting 120 per chunk; 0 for no limit
    #[arg(long = "store.limits.request-samples", value_name = "N", default_value_t = 0)]
    limit_samples: u64,
}

/// The checked flags.
pub(crate) struct CheckedStorage {
    pub(crate) data_dir: PathBuf,
    pub(crate) block_duration: Duration,
    pub(crate) retention: Duration,
    /// Where blocks are uploaded, and how; `None` if they are not.
    pub(crate) uploads: Option<(BucketConfig, ShipperConfig)>,
}

impl StorageArgs {
    pub(super) fn check(&self, external: &Labels) -> Result<CheckedStorage, ConfigMistakes> {
        let mut mistakes = ConfigMistakes::default();
        if self.block_duration.is_zero() {
            mistakes.push("--tsdb.block-duration=0s: must be greater than zero");
        }
        let name = Path::new(&self.meta_file_name);
        if name.file_name() != Some(name.as_os_str()) {
            let given = &self.meta_file_name;
            mistakes
                .push(format!("--shipper.meta-file-name={given:?}: must be a file name without directories"));
        }
        let bucket = mistakes.note(self.objstore.load()).flatten();
        if bucket.is_some() && external.is_empty() {
            mistakes.push(
                "--label: none is given, but blocks are uploaded; give a combination that nothing else in the bucket has, such as \
                 --label='cluster=\"obs\"' --label='replica=\"a\"'",
            );
        }
        let uploads = bucket.map(|bucket| {
            let defaults = ShipperConfig::new(&self.data_dir);
            let concurrency =
                if self.upload_concurrency == 0 { defaults.concurrency } else { self.upload_concurrency };
            let uploaded_file = self.data_dir.join(name);
            (bucket, ShipperConfig { uploaded_file, concurrency, source: BlockSource::Ruler, ..defaults })
        });
        mistakes.or_ok(CheckedStorage {
            data_dir: self.data_dir.clone(),
            block_duration: self.block_duration,
            retention: self.retention,
            uploads,
        })
    }

    pub(super) fn limits(&self) -> RequestLimits {
        let some = |limit: u64| Some(limit).filter(|limit| *limit > 0);
        RequestLimits { series: some(self.limit_series), samples: some(self.limit_samples) }
    }

    /// The settings by flag.
    pub(super) fn shown(&self) -> BTreeMap<String, String> {
        let shown = [
            ("data-dir", self.data_dir.display().to_string()),
            ("tsdb.block-duration", format_duration(self.block_duration)),
            ("tsdb.retention", format_duration(self.retention)),
            ("store.limits.request-series", self.limit_series.to_string()),
            ("store.limits.request-samples", self.limit_samples.to_string()),
        ];
        shown.into_iter().map(|(flag, value)| (flag.to_owned(), value)).collect()
    }
}
