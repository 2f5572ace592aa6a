//! The real Prometheus servers of the demonstration: where the program is, and what each is told to scrape.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::quickstart::plan::{Cluster, ENVIRONMENT, Scraper};

/// How often everything is scraped: short, so that there is something to see at once.
const SCRAPE_INTERVAL: &str = "1s";

/// Finds `program` on the `PATH`.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|candidate| candidate.is_file())
}

/// The Prometheus to run: the one asked for, or the one on the `PATH`.
///
/// # Errors
/// One line that says how to install it.
pub(super) fn prometheus(asked: Option<&Path>) -> Result<PathBuf> {
    match asked {
        Some(path) if path.is_file() => Ok(path.to_owned()),
        Some(path) => bail!("--prometheus {}: there is no such program", path.display()),
        None => match find("prometheus") {
            Some(path) => Ok(path),
            None => bail!(
                "quickstart runs real Prometheus servers and found no `prometheus` on the PATH: install it \
                 (Debian: apt-get install prometheus) or name it with --prometheus PATH"
            ),
        },
    }
}

/// The arguments of one replica.
pub(super) fn arguments(cluster: &Cluster, scraper: &Scraper) -> Vec<String> {
    let dir = cluster.dir.join(&scraper.name);
    vec![
        format!("--config.file={}", dir.join("prometheus.yml").display()),
        format!("--storage.tsdb.path={}", dir.join("data").display()),
        format!("--web.listen-address={}", scraper.prometheus),
        "--storage.tsdb.retention.time=2h".to_owned(),
    ]
}

/// The configuration of one replica. Replicas of a cluster differ in nothing but the `replica` label.
pub(super) fn configuration(cluster: &Cluster, scraper: &Scraper, pushgateway: bool) -> String {
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
    job("prometheus", false, &of(|s| s.prometheus));
    job("sidecar", false, &of(|s| s.sidecar_http));
    job("gateway", false, &[cluster.gateway_http]);
    if pushgateway {
        job("pushgateway", true, &[cluster.pushgateway]);
    }
    text
}
