//! What scrapes in the demonstration: real Prometheus servers or scrapers of ours, and their configuration.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::quickstart::history::bucket_flag;
use crate::quickstart::plan::{ClusterPlan, ENVIRONMENT, QuickstartPlan, Scraper};
use crate::usage::UsageError;

/// The scrape interval. It is short, so that there are samples soon after the start.
const SCRAPE_INTERVAL: &str = "1s";

/// Searches `program` on the `PATH`.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|candidate| candidate.is_file())
}

/// The Prometheus to run: the given one, or the one on the `PATH`; `None` if there is none.
///
/// # Errors
/// When the given one does not exist.
pub(super) fn prometheus(asked: Option<&Path>) -> Result<Option<PathBuf>> {
    match asked {
        Some(path) if path.is_file() => Ok(Some(path.to_owned())),
        Some(path) => {
            Err(UsageError(format!("--prometheus {}: the file does not exist", path.display())).into())
        }
        None => Ok(find("prometheus")),
    }
}

/// The arguments of one replica that is a scraper of ours, without its addresses.
pub(super) fn embedded_arguments(
    plan: &QuickstartPlan,
    cluster: &ClusterPlan,
    scraper: &Scraper,
) -> Vec<String> {
    let dir = cluster.dir.join(&scraper.name);
    let mut args = vec![
        "scrape".to_owned(),
        format!("--config.file={}", dir.join("prometheus.yml").display()),
        format!("--data-dir={}", dir.join("data").display()),
        "--storage.tsdb.retention.time=6h".to_owned(),
    ];
    if cluster.long_term {
        args.push(bucket_flag(plan));
    }
    args
}

/// The arguments of one replica.
pub(super) fn arguments(cluster: &ClusterPlan, scraper: &Scraper) -> Vec<String> {
    let dir = cluster.dir.join(&scraper.name);
    let mut args = vec![
        format!("--config.file={}", dir.join("prometheus.yml").display()),
        format!("--storage.tsdb.path={}", dir.join("data").display()),
        format!("--web.listen-address={}", scraper.prometheus),
    ];
    let storage: &[&str] = match cluster.long_term {
        // What is uploaded must not be compacted before.
        true => &["retention.time=6h", "min-block-duration=2h", "max-block-duration=2h"],
        false => &["retention.time=2h"],
    };
    args.extend(storage.iter().map(|flag| format!("--storage.tsdb.{flag}")));
    args
}

/// The configuration of one replica. The replicas of a cluster differ only in the `replica` label.
pub(super) fn configuration(
    plan: &QuickstartPlan,
    cluster: &ClusterPlan,
    scraper: &Scraper,
    pushgateway: bool,
) -> String {
    let mut text = format!(
        "global:\n  scrape_interval: {SCRAPE_INTERVAL}\n  scrape_timeout: {SCRAPE_INTERVAL}\n  \
         external_labels:\n    cluster: {}\n    environment: {ENVIRONMENT}\n    replica: {}\n\
         scrape_configs:\n",
        cluster.name, scraper.name,
    );
    let mut job = |name: &str, honor_labels: bool, targets: &[SocketAddr]| {
        text.push_str(&format!("  - job_name: {name}\n"));
        if honor_labels {
            text.push_str("    honor_labels: true\n");
        }
        let quoted: Vec<String> = targets.iter().map(|t| format!("'{t}'")).collect();
        text.push_str(&format!("    static_configs:\n      - targets: [{}]\n", quoted.join(", ")));
    };
    let of = |address: fn(&Scraper) -> SocketAddr| cluster.scrapers.iter().map(address).collect::<Vec<_>>();
    if cluster.embedded {
        job("scraper", false, &of(|s| s.sidecar_http));
    } else {
        job("prometheus", false, &of(|s| s.prometheus));
        job("sidecar", false, &of(|s| s.sidecar_http));
    }
    job("gateway", false, &[cluster.gateway_http, plan.gateway_http]);
    // No other process scrapes those of the observability cluster.
    job("querier", false, &[plan.querier_http]);
    job("store", false, &[plan.store_http]);
    job("compactor", false, &[plan.compactor_http]);
    job("ruler", false, &plan.rulers.iter().map(|ruler| ruler.http).collect::<Vec<_>>());
    if pushgateway {
        job("pushgateway", true, &[cluster.pushgateway]);
    }
    text
}
