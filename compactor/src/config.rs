//! The flags of the compactor, with the names of Thanos, and their validation.

use std::path::PathBuf;
use std::time::Duration;

use bucket::marks::MarkKind;
use bucket::{BlockSelectionArgs, Discovery, FetchOptions, Filters, ObjstoreArgs, Retry, ServedBucket};
use runtime::{CommonArgs, ConfigMistakes, UnneededArgs, config_origin, parse_bytes, parse_duration};
use series::ReplicaRule;

use crate::plan::{PlanRules, RANGES};
use crate::retention::RetentionPolicy;
use crate::unneeded::UnneededByCompactor;
use crate::worker::WorkSettings;

/// Flags of `isthmus compact`.
#[derive(Clone, Debug, clap::Args)]
pub struct CompactArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,

    #[command(flatten)]
    objstore: ObjstoreArgs,

    #[command(flatten)]
    pub(crate) work: WorkArgs,

    /// Keep running: look for work again after --wait-interval. Without it, the program ends when nothing is left to do
    #[arg(long)]
    pub(crate) wait: bool,

    /// Time between two passes with --wait
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
    pub(crate) wait_interval: Duration,

    /// Retire and remove blocks this often with --wait, also while blocks are merged
    #[arg(long = "compact.cleanup-interval", value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
    pub(crate) cleanup_interval: Duration,

    #[command(flatten)]
    pub(crate) unneeded: UnneededArgs<UnneededByCompactor>,
}

/// What and how to compact, downsample and retire.
#[derive(Clone, Debug, clap::Args)]
pub struct WorkArgs {
    /// Write new blocks here before they are uploaded; needs room for the largest block that is made, and a quarter more
    #[arg(long, value_name = "DIR", default_value = "./data")]
    data_dir: PathBuf,

    /// Leave a block alone until this long after its upload, unless a compactor made it
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = parse_duration)]
    consistency_delay: Duration,

    /// Keep raw samples this long; 0d for ever. A block is retired only when a block of 5m has its samples
    #[arg(long = "retention.resolution-raw", value_name = "DURATION", default_value = "0d")]
    retention_raw: String,

    /// Keep samples of 5 minutes this long; 0d for ever
    #[arg(long = "retention.resolution-5m", value_name = "DURATION", default_value = "0d")]
    retention_5m: String,

    /// Keep samples of 1 hour this long; 0d for ever
    #[arg(long = "retention.resolution-1h", value_name = "DURATION", default_value = "0d")]
    retention_1h: String,

    /// Other retention for some blocks, as YAML: a list of {matchers, raw, 5m, 1h}, of which the first that matches the external
    /// labels of a block applies
    #[arg(long = "retention.config", value_name = "YAML")]
    retention_config: Option<String>,

    /// File with the YAML of --retention.config; give only one of the two flags
    #[arg(long = "retention.config-file", value_name = "FILE")]
    retention_config_file: Option<PathBuf>,

    /// Retire nothing in a pass in which retention would retire more than this part of the blocks (and more than 20) without a
    /// coarser block that replaces them
    #[arg(long = "retention.max-share", value_name = "SHARE", default_value_t = 0.05)]
    retention_max_share: f64,

    /// Time between marking a block for deletion and removing it
    #[arg(long, value_name = "DURATION", default_value = "48h", value_parser = parse_duration)]
    delete_delay: Duration,

    /// Wait at most this much longer for stores that have not acknowledged that they do without the block
    #[arg(long = "delete.max-wait-for-stores", value_name = "DURATION", default_value = "48h", value_parser = parse_duration)]
    max_wait_for_stores: Duration,

    /// Do not downsample
    #[arg(long = "downsampling.disable")]
    downsampling_disable: bool,

    /// Blocks that are downsampled at once
    #[arg(long = "downsample.concurrency", value_name = "N", default_value_t = 1)]
    downsample_concurrency: usize,

    /// Groups of blocks that are merged at once
    #[arg(long = "compact.concurrency", value_name = "N", default_value_t = 1)]
    compact_concurrency: usize,

    /// Treat blocks that differ only in this label as replicas, and merge them (repeatable, or separated by commas)
    #[arg(long = "deduplication.replica-label", value_name = "LABEL", value_delimiter = ',')]
    replica_labels: Vec<String>,

    /// How replicas are merged: penalty takes one and fills its gaps from the others; without it every sample of each is kept
    #[arg(long = "deduplication.func", value_name = "FUNC", default_value = "")]
    deduplication_func: String,

    /// Merge only up to this level: 1 is 2h, 2 is 8h, 3 is 2d, 4 is 14d
    #[arg(long = "debug.max-compaction-level", value_name = "LEVEL", default_value_t = RANGES.len())]
    max_compaction_level: usize,

    /// Do not merge blocks whose index would be larger
    #[arg(long = "compact.block-max-index-size", value_name = "BYTES", default_value = "64GB", value_parser = parse_bytes)]
    block_max_index_size: u64,

    /// Find blocks and marks with one listing of the whole bucket (recursive), or with four requests for each block (concurrent)
    #[arg(long, value_name = "STRATEGY", default_value = "recursive")]
    block_discovery_strategy: Discovery,

    /// Files of a block that are uploaded at once
    #[arg(long, value_name = "N", default_value_t = 1)]
    block_files_concurrency: usize,

    #[command(flatten)]
    selection: BlockSelectionArgs,

    /// Name of this compactor in the leases that others see; the name of the host and the process if not set
    #[arg(long = "compact.name", value_name = "NAME")]
    name: Option<String>,

    /// Another compactor may take over the work of this one after it was silent for this long
    #[arg(long = "compact.lease-duration", value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    lease_duration: Duration,
}

/// The validated configuration of the work.
pub(crate) struct WorkConfig {
    /// At least one.
    pub(crate) buckets: Vec<ServedBucket>,
    pub(crate) data_dir: PathBuf,
    pub(crate) fetch: FetchOptions,
    pub(crate) settings: WorkSettings,
    pub(crate) rule: ReplicaRule,
    pub(crate) file_concurrency: usize,
    pub(crate) retry: Retry,
    pub(crate) name: String,
    pub(crate) lease: Duration,
}

/// The validated configuration of the role.
pub(crate) struct Config {
    pub(crate) work: WorkConfig,
    /// Time between two passes; `None` to end when nothing is left.
    pub(crate) wait: Option<Duration>,
    pub(crate) cleanup_interval: Duration,
    pub(crate) unneeded: UnneededArgs<UnneededByCompactor>,
}

impl CompactArgs {
    /// All mistakes in the flags and in the files that they name, one line each; empty if the role would start with them.
    pub fn mistakes(self) -> ConfigMistakes {
        self.check().err().unwrap_or_default()
    }

    /// Validates the flags.
    ///
    /// # Errors
    /// All mistakes, one line each.
    pub(crate) fn check(self) -> Result<Config, ConfigMistakes> {
        let mut mistakes = ConfigMistakes::default();
        for (flag, value) in
            [("wait-interval", self.wait_interval), ("compact.cleanup-interval", self.cleanup_interval)]
        {
            if value.is_zero() {
                mistakes.push(format!("--{flag} must be greater than 0"));
            }
        }
        let work = mistakes.note(self.work.check(&self.objstore));
        let Some(work) = work else { return Err(mistakes) };
        let config = Config {
            work,
            wait: self.wait.then_some(self.wait_interval),
            cleanup_interval: self.cleanup_interval,
            unneeded: self.unneeded,
        };
        mistakes.or_ok(config)
    }
}

impl WorkArgs {
    /// Validates the flags.
    ///
    /// # Errors
    /// All mistakes, one line each.
    pub(crate) fn check(self, objstore: &ObjstoreArgs) -> Result<WorkConfig, ConfigMistakes> {
        let mut mistakes = ConfigMistakes::default();
        let buckets = mistakes.note(objstore.served());
        let retention = self.retention(&mut mistakes);
        let selector = self.selection.check(&mut mistakes);
        let rule = self.rule(&mut mistakes);
        self.check_numbers(&mut mistakes);
        let (Some(buckets), Some(retention), Some(selector), Some(rule)) =
            (buckets, retention, selector, rule)
        else {
            return Err(mistakes);
        };
        let replica_labels: Vec<String> =
            self.replica_labels.into_iter().filter(|label| !label.is_empty()).collect();
        let filters = Filters {
            time: Some((self.selection.min_time, self.selection.max_time)),
            selector,
            replica_labels: replica_labels.clone(),
            consistency_delay: self.consistency_delay,
            ..Filters::default()
        };
        let retry = Retry::default();
        let fetch = FetchOptions {
            discovery: self.block_discovery_strategy,
            concurrency: self.selection.block_meta_fetch_concurrency,
            filters,
            gather: MarkKind::ALL.to_vec(),
            retry,
            keeps_content: true,
            ..FetchOptions::default()
        };
        let settings = WorkSettings {
            rules: PlanRules::up_to(self.max_compaction_level, self.block_max_index_size),
            replica_labels,
            concurrency: self.compact_concurrency,
            downsample_concurrency: self.downsample_concurrency,
            downsamples: !self.downsampling_disable,
            retention,
            delete_delay: self.delete_delay,
            reader_wait: self.max_wait_for_stores,
            breaker_share: self.retention_max_share,
        };
        let config = WorkConfig {
            buckets,
            data_dir: self.data_dir,
            fetch,
            settings,
            rule,
            file_concurrency: self.block_files_concurrency,
            retry,
            name: self.name.unwrap_or_else(default_name),
            lease: self.lease_duration,
        };
        mistakes.or_ok(config)
    }

    fn retention(&self, mistakes: &mut ConfigMistakes) -> Option<RetentionPolicy> {
        let flags = [&self.retention_raw, &self.retention_5m, &self.retention_1h];
        let policy = RetentionPolicy::from_durations(flags[0], flags[1], flags[2]);
        let mut policy = mistakes.note(policy.map_err(|error| format!("--retention.resolution-{error}")))?;
        let (flag, file) = ("retention.config", self.retention_config_file.as_deref());
        let rules = runtime::load_config(flag, self.retention_config.as_deref(), file);
        if let Some(yaml) = mistakes.note(rules.map_err(|error| error.to_string())).flatten() {
            match policy.with_rules(&config_origin(flag, file), &yaml) {
                Ok(with_rules) => policy = with_rules,
                Err(errors) => {
                    errors.into_iter().for_each(|error| mistakes.push(error));
                    return None;
                }
            }
        }
        if self.downsampling_disable {
            policy = policy.without_downsampling();
        }
        policy.mistakes().into_iter().for_each(|mistake| mistakes.push(mistake));
        Some(policy)
    }

    fn rule(&self, mistakes: &mut ConfigMistakes) -> Option<ReplicaRule> {
        match self.deduplication_func.as_str() {
            "" => Some(ReplicaRule::OneToOne),
            "penalty" if self.replica_labels.is_empty() => {
                mistakes.push(
                    "--deduplication.func=penalty needs --deduplication.replica-label, the label that replicas differ in".to_owned(),
                );
                None
            }
            "penalty" => Some(ReplicaRule::Penalty),
            other => {
                mistakes
                    .push(format!("--deduplication.func={other:?} is unknown, expected \"penalty\" or \"\""));
                None
            }
        }
    }

    fn check_numbers(&self, mistakes: &mut ConfigMistakes) {
        for (flag, value) in [
            ("compact.concurrency", self.compact_concurrency),
            ("downsample.concurrency", self.downsample_concurrency),
            ("block-files-concurrency", self.block_files_concurrency),
        ] {
            if value == 0 {
                mistakes.push(format!("--{flag} must be greater than 0"));
            }
        }
        if !(1..=RANGES.len()).contains(&self.max_compaction_level) {
            mistakes.push(format!(
                "--debug.max-compaction-level={} is unknown, expected 1 to {}",
                self.max_compaction_level,
                RANGES.len()
            ));
        }
        if !(0.0..=1.0).contains(&self.retention_max_share) {
            mistakes
                .push(format!("--retention.max-share={} must be between 0 and 1", self.retention_max_share));
        }
        let lease = Duration::from_secs(10)..=Duration::from_secs(3600);
        if !lease.contains(&self.lease_duration) {
            mistakes.push("--compact.lease-duration must be between 10s and 1h".to_owned());
        }
    }
}

/// The host and the process.
fn default_name() -> String {
    let host = rustix::system::uname();
    format!("{}-{}", host.nodename().to_string_lossy(), std::process::id())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct CompactCommand {
        #[command(flatten)]
        args: CompactArgs,
    }

    const BUCKET: &str = "--objstore.config={type: FILESYSTEM, config: {directory: /}}";

    fn check(flags: &[&str]) -> Result<Config, String> {
        let all = ["compact", BUCKET].iter().chain(flags);
        let args = CompactCommand::try_parse_from(all).map_err(|error| error.to_string())?.args;
        args.check().map_err(|mistakes| format!("{mistakes:?}"))
    }

    #[test]
    fn the_defaults_are_those_of_thanos() {
        let config = check(&[]).unwrap();
        assert_eq!((config.wait, config.work.rule), (None, ReplicaRule::OneToOne));
        assert_eq!(config.work.settings.delete_delay, Duration::from_secs(48 * 3600));
        assert_eq!(config.work.settings.rules.ranges, RANGES[1..]);
        let config =
            check(&["--wait", "--deduplication.replica-label=a,b", "--deduplication.func=penalty"]).unwrap();
        assert_eq!((config.wait, config.work.rule), (Some(Duration::from_secs(300)), ReplicaRule::Penalty));
        assert_eq!(config.work.settings.replica_labels, ["a", "b"]);
    }

    #[test]
    fn each_mistake_is_one_line_that_names_the_flag() {
        let wrong = |flags: &[&str], expected: &str| {
            let error = check(flags).err().unwrap_or_default();
            assert!(error.contains(expected), "{flags:?}: {error}");
        };
        wrong(&["--retention.resolution-raw=1d"], "--retention.resolution-raw must be at least 40h");
        wrong(&["--retention.resolution-raw=x"], "--retention.resolution-raw: ");
        wrong(&["--deduplication.func=penalty"], "needs --deduplication.replica-label");
        wrong(&["--deduplication.func=x"], "expected \\\"penalty\\\"");
        wrong(&["--compact.concurrency=0"], "--compact.concurrency must be greater than 0");
        wrong(&["--debug.max-compaction-level=5"], "expected 1 to 4");
        wrong(&["--retention.max-share=2"], "between 0 and 1");
        wrong(&["--compact.lease-duration=1s"], "between 10s and 1h");
        wrong(&["--selector.relabel-config=x"], "expected a list of rules");
        wrong(&["--retention.config=- {matchers: x}"], "--retention.config: rule 1: matchers");
        wrong(&["--wait-interval=0s"], "--wait-interval must be greater than 0");
    }
}
