//! The history: a bucket in a folder, with blocks that a cluster is supposed to have uploaded; the store that serves them, and the
//! compactor that merges and downsamples them.

use model::Timestamp;
use runtime::TimeArg;

use crate::quickstart::gateways::quoted;
use crate::quickstart::period::BLOCK;
use crate::quickstart::plan::{ENVIRONMENT, QuickstartPlan};

/// Series of the history.
const SERIES: i64 = 480;
/// Metrics of each target. Few, so that the metrics have the names that the suggested queries use.
const METRICS: i64 = 20;
/// Seconds between two samples of a series.
pub(super) const INTERVAL: i64 = 30;
/// The samples of one metric in a block.
pub(super) const SAMPLES_OF_METRIC: i64 = SERIES / METRICS * BLOCK / INTERVAL;

/// The objstore configuration of the bucket, as a flag.
pub(super) fn bucket_flag(plan: &QuickstartPlan) -> String {
    format!("--objstore.config={{type: FILESYSTEM, config: {{directory: {}}}}}", quoted(&plan.bucket))
}

/// The command that writes the blocks of one replica of the cluster with long-term retention.
pub(super) fn generate(plan: &QuickstartPlan) -> Option<Vec<String>> {
    let cluster = plan.clusters.iter().find(|cluster| cluster.long_term)?;
    let replica = cluster.scrapers.first()?;
    let mut args = ["tools", "block", "generate"].map(str::to_owned).to_vec();
    let begin = TimeArg::Absolute(Timestamp::from_millis(plan.history.begin * 1000));
    args.extend([
        format!("--output-dir={}", plan.bucket.display()),
        format!("--start={begin}"),
        format!("--blocks={}", plan.history.blocks()),
        format!("--duration={BLOCK}s"),
        format!("--interval={INTERVAL}s"),
        format!("--series={SERIES}"),
        format!("--series-per-target={METRICS}"),
        format!("--label=cluster={}", cluster.name),
        format!("--label=environment={ENVIRONMENT}"),
        format!("--label=replica={}", replica.name),
    ]);
    Some(args)
}

/// The arguments of the store, without its addresses.
pub(super) fn store(plan: &QuickstartPlan) -> Vec<String> {
    vec![
        "store".to_owned(),
        bucket_flag(plan),
        format!("--data-dir={}", plan.observability.join("store").display()),
        // Soon after the compactor has replaced a block.
        "--sync-block-duration=2s".to_owned(),
    ]
}

/// The arguments of the compactor, without its addresses.
pub(super) fn compactor(plan: &QuickstartPlan) -> Vec<String> {
    vec![
        "compact".to_owned(),
        "--wait".to_owned(),
        bucket_flag(plan),
        format!("--data-dir={}", plan.observability.join("compactor").display()),
        // The blocks of the history are complete, and those of the sidecars have their `meta.json` last.
        "--consistency-delay=0s".to_owned(),
        "--wait-interval=2s".to_owned(),
        "--compact.cleanup-interval=10s".to_owned(),
    ]
}
