//! Waits until the processes of the demonstration work.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::quickstart::demonstration::{Demonstration, START};
use crate::quickstart::querier::{list, wait_for};

/// How often it is checked that all children run, while they start.
const CHILDREN_INTERVAL: Duration = Duration::from_millis(500);

impl Demonstration {
    /// Fails if a child has exited. The error contains the end of its log.
    pub(in crate::quickstart) fn check_children(&mut self) -> Result<()> {
        for child in &mut self.children {
            if let Some(status) = child.exit_status() {
                bail!("{} exited with {status}; the end of its log:\n{}", child.name(), child.log_tail());
            }
        }
        Ok(())
    }

    /// Waits until the process `name`, with this HTTP address, is ready.
    pub(super) async fn wait_ready(&mut self, name: &str, http: SocketAddr) -> Result<()> {
        let url = format!("http://{http}/-/ready");
        let client = self.http.clone();
        let what = format!("{name} to be ready");
        let ready = wait_for(&what, START, || async {
            let (status, body) = client.send("GET", &url, "").await?;
            ensure!(status == 200, "{url}: status {status}: {}", String::from_utf8_lossy(&body).trim());
            Ok(())
        });
        self.while_children_run(ready).await
    }

    /// Waits until every store is healthy and the first rates can be computed over both clusters.
    pub(in crate::quickstart) async fn wait_for_data(&mut self) -> Result<()> {
        let querier = self.querier();
        // The sidecars or scrapers, the rulers, and the store.
        let scrapers = self.plan.clusters.iter().map(|c| c.scrapers.len()).sum::<usize>();
        let wanted = scrapers + self.plan.rulers.len() + 1;
        let all_stores = wait_for("all stores", START, || async {
            let stores = querier.stores().await?;
            let healthy = stores.iter().filter(|s| s.last_error.is_none()).count();
            ensure!(healthy == wanted, "{healthy} of {wanted} stores are healthy: {}", list(&stores));
            Ok(())
        });
        self.while_children_run(all_stores).await?;
        // Wait until the rate's window and the 5 s range of the checks are after the first sample of every
        // target.
        let clusters = self.plan.clusters.len() as f64;
        let data = wait_for("data of both clusters", START, || async {
            let old = "count(count by (cluster) (rate(grpc_server_handled_total[10s] offset 8s)))";
            let seen = querier.query(old, "").await?.number().unwrap_or(0.0);
            ensure!(seen == clusters, "{seen} of {clusters} clusters have data");
            let once = querier.query("count(up)", "").await?.number();
            let twice = querier.query("count(up)", "&dedup=false").await?.number();
            ensure!(once.map(|n| n * 2.0) == twice, "{once:?} series of up, {twice:?} with all replicas");
            Ok(())
        });
        self.while_children_run(data).await
    }

    /// Does `work`, and fails as soon as a child has exited: that explains more than a time-out.
    async fn while_children_run<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                outcome = &mut work => return outcome,
                () = tokio::time::sleep(CHILDREN_INTERVAL) => self.check_children()?,
            }
        }
    }
}
