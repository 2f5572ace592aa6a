//! Yesterday's data: a bucket in a folder, with blocks that a cluster is supposed to have uploaded.

use crate::quickstart::gateways::quoted;
use crate::quickstart::plan::{ENVIRONMENT, QuickstartPlan};

/// How long ago the history begins and ends, in hours. What is newer comes from the sidecars.
const BEGIN_HOURS: u32 = 26;
const END_HOURS: u32 = 2;

/// The objstore configuration of the bucket, as a flag.
pub(super) fn bucket_flag(plan: &QuickstartPlan) -> String {
    format!("--objstore.config={{type: FILESYSTEM, config: {{directory: {}}}}}", quoted(&plan.bucket))
}

/// The command that writes the blocks of one replica of the cluster with long-term retention.
pub(super) fn generate(plan: &QuickstartPlan) -> Option<Vec<String>> {
    let cluster = plan.clusters.iter().find(|cluster| cluster.long_term)?;
    let replica = cluster.scrapers.first()?;
    let mut args = ["tools", "block", "generate"].map(str::to_owned).to_vec();
    args.extend([
        format!("--output-dir={}", plan.bucket.display()),
        format!("--start=-{BEGIN_HOURS}h"),
        format!("--blocks={}", (BEGIN_HOURS - END_HOURS) / 2),
        "--duration=2h".to_owned(),
        "--series=1000".to_owned(),
        // Few, so that the metrics have the names that the suggested queries use.
        "--series-per-target=20".to_owned(),
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
    ]
}
