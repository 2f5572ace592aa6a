//! `quickstart --check`: the main job, step by step, each with what was seen.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::quickstart::plan::{Cluster, Plan, Reach};
use crate::quickstart::querier::{Querier, wait_for};
use crate::quickstart::stage::Stage;

/// How long the mesh may take to notice a loss and to come back by itself.
const RECOVERY: Duration = Duration::from_secs(60);

/// Runs all checks in order, prints each, and says whether all of them held.
pub(super) async fn run(stage: &mut Stage) -> bool {
    let mut report = Report { failed: 0, passed: 0 };
    let querier = stage.querier();
    let plan = stage.plan().clone();
    report.add("both clusters are read over QUIC", transports(&querier, &plan, &[]).await);
    report.add("replicas are deduplicated", deduplication(&querier).await);
    report.add("a rate over both clusters has no gap", range(&querier).await);
    report.add("a replica is killed: the answer is still whole", replica_killed(stage, &querier).await);
    report.add("UDP is blocked: the answer comes over TCP", udp_blocked(stage, &querier).await);
    report.add("a used token is refused", used_token(stage).await);
    report.add("a wrong token is refused", wrong_token(stage).await);
    report.add("a cluster is killed: the answer says so", cluster_killed(stage, &querier).await);
    say!("\n{} passed, {} failed", report.passed, report.failed);
    report.failed == 0
}

struct Report {
    passed: usize,
    failed: usize,
}

impl Report {
    fn add(&mut self, name: &str, outcome: Result<String>) {
        match outcome {
            Ok(seen) => {
                self.passed += 1;
                say!("ok    {name}\n        {seen}");
            }
            Err(error) => {
                self.failed += 1;
                say!("FAIL  {name}\n        {error:#}");
            }
        }
    }
}

/// Every store is healthy and reached over QUIC, those of the clusters in `over_tcp` over TCP.
async fn transports(querier: &Querier, plan: &Plan, over_tcp: &[&str]) -> Result<String> {
    let stores = querier.stores().await?;
    let mut seen = Vec::new();
    for cluster in &plan.clusters {
        let wanted = if over_tcp.contains(&cluster.name) { "tcp" } else { "quic" };
        let of_cluster: Vec<_> = stores.iter().filter(|s| s.cluster == cluster.name).collect();
        ensure!(
            of_cluster.len() == cluster.scrapers.len(),
            "{} of {} stores of {} are known",
            of_cluster.len(),
            cluster.scrapers.len(),
            cluster.name
        );
        for store in of_cluster {
            if let Some(error) = &store.last_error {
                bail!("{} is not healthy: {error}", store.name);
            }
            ensure!(
                store.transport == wanted,
                "{} is reached over {:?}, not {wanted:?}",
                store.name,
                store.transport
            );
            seen.push(format!("{} ({})", store.name, store.transport));
        }
    }
    Ok(seen.join(", "))
}

/// Number of `up` series, with and without deduplication.
async fn up_counts(querier: &Querier) -> Result<(f64, f64)> {
    let once = querier.query("count(up)", "").await?.number().context("count(up) is empty")?;
    let twice = querier.query("count(up)", "&dedup=false").await?.number().context("count(up) is empty")?;
    Ok((once, twice))
}

async fn deduplication(querier: &Querier) -> Result<String> {
    let (once, twice) = up_counts(querier).await?;
    ensure!(
        twice == 2.0 * once,
        "{once} series of up with deduplication, {twice} without: not twice as many"
    );
    Ok(format!("{once} series of up with deduplication, {twice} without"))
}

async fn range(querier: &Querier) -> Result<String> {
    let expression = "sum by (cluster) (rate(prometheus_http_requests_total[10s]))";
    let answer = querier.query_range(expression, 5.0).await?;
    ensure!(answer.warnings.is_empty(), "warnings: {:?}", answer.warnings);
    ensure!(answer.result.len() == 2, "{} clusters answered, not 2", answer.result.len());
    let mut seen = Vec::new();
    for series in &answer.result {
        let values = series["values"].as_array().map_or(0, Vec::len);
        let cluster = series["metric"]["cluster"].as_str().unwrap_or("?");
        ensure!(values == 6, "{cluster} has {values} of 6 points");
        let last = series["values"][5][1].as_str().unwrap_or("?");
        seen.push(format!("{cluster}: {values} points, the last {last} requests/s"));
    }
    Ok(seen.join("; "))
}

/// What must not change when a replica goes: for each cluster, how many targets are known.
const WHOLE: &str = "count by (cluster) (up)";

async fn replica_killed(stage: &mut Stage, querier: &Querier) -> Result<String> {
    let before = querier.query(WHOLE, "").await?.by_label("cluster");
    let lost = "scraper-0.eu-1";
    stage.kill(&format!("prometheus {lost}")).await?;
    stage.kill(&format!("sidecar {lost}")).await?;
    wait_for("the loss to be seen", RECOVERY, || async {
        let stores = querier.stores().await?;
        let store = stores.iter().find(|s| s.name == lost).context("the store is no longer listed")?;
        ensure!(store.last_error.is_some(), "{lost} still counts as healthy");
        Ok(())
    })
    .await?;
    let answer = querier.query(WHOLE, "").await?;
    let after = answer.by_label("cluster");
    ensure!(before == after, "targets a cluster before {before:?}, after {after:?}");
    ensure!(
        answer.warnings.iter().any(|w| w.contains(lost)),
        "no warning names {lost}: {:?}",
        answer.warnings
    );
    Ok(format!("targets a cluster {after:?} as before; warning: {}", answer.warnings[0]))
}

/// The cluster that is dialled, whose UDP is cut.
fn dialled(plan: &Plan) -> Result<&Cluster> {
    plan.clusters.iter().find(|c| c.reach == Reach::IsDialled).context("no cluster is dialled")
}

async fn udp_blocked(stage: &mut Stage, querier: &Querier) -> Result<String> {
    let name = dialled(stage.plan())?.name;
    stage.block_udp(name, true)?;
    let begun = Instant::now();
    wait_for("TCP to take over", RECOVERY, || async {
        let stores = querier.stores().await?;
        let of_cluster: Vec<_> = stores.iter().filter(|s| s.cluster == name).collect();
        ensure!(
            !of_cluster.is_empty()
                && of_cluster.iter().all(|s| s.transport == "tcp" && s.last_error.is_none()),
            "stores of {name}: {of_cluster:?}"
        );
        Ok(())
    })
    .await?;
    let took = begun.elapsed().as_secs_f64();
    let counts = querier.query(WHOLE, "").await?.by_label("cluster");
    let count = counts.get(name).with_context(|| format!("no answer from {name}: {counts:?}"))?;
    stage.block_udp(name, false)?;
    Ok(format!("{name} answers over TCP {took:.1} s after the cut: {count} targets"))
}

async fn used_token(stage: &Stage) -> Result<String> {
    let token = stage.token(stage.plan().clusters[0].name)?;
    stage.join_is_refused("used-token", &token).await
}

async fn wrong_token(stage: &Stage) -> Result<String> {
    let mut token = stage.token(stage.plan().clusters[0].name)?;
    // One character in the middle, so that the text is still a token by its looks.
    let middle = token.len() / 2;
    let other = if token.as_bytes()[middle] == b'A' { "B" } else { "A" };
    token.replace_range(middle..=middle, other);
    stage.join_is_refused("wrong-token", &token).await
}

async fn cluster_killed(stage: &mut Stage, querier: &Querier) -> Result<String> {
    let name = dialled(stage.plan())?.name;
    stage.kill_cluster(name).await?;
    wait_for("the loss to be seen", RECOVERY, || async {
        let stores = querier.stores().await?;
        let of_cluster: Vec<_> = stores.iter().filter(|s| s.cluster == name).collect();
        ensure!(of_cluster.iter().all(|s| s.last_error.is_some()), "stores of {name}: {of_cluster:?}");
        Ok(())
    })
    .await?;
    let answer = querier.query(WHOLE, "").await?;
    let named = answer.warnings.iter().find(|w| w.contains(name));
    let warning = named.with_context(|| format!("no warning names {name}: {:?}", answer.warnings))?.clone();
    let clusters = answer.by_label("cluster");
    ensure!(clusters.len() == 1, "answers from {clusters:?}");
    match querier.query(WHOLE, "&partial_response=false").await {
        Ok(_) => bail!("partial_response=false gave an answer without {name}"),
        Err(refused) => Ok(format!("warning: {warning}; with partial_response=false: {refused:#}")),
    }
}
