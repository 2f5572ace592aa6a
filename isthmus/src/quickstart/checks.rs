//! `quickstart --check`: checks the main functions one after the other, and prints the result of each.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::quickstart::alerts;
use crate::quickstart::compaction;
use crate::quickstart::demonstration::Demonstration;
use crate::quickstart::expressions;
use crate::quickstart::http::percent_encode;
use crate::quickstart::plan::{ClusterPlan, QuickstartPlan, Reach};
use crate::quickstart::querier::{QuerierClient, list, wait_for};

/// Space before what a check has seen.
const INDENT: &str = "        ";

/// How long the mesh may take to detect a failure and to recover from it.
const RECOVERY: Duration = Duration::from_secs(60);

/// Runs all checks in order, prints each result, and returns whether all passed.
pub(super) async fn run(demonstration: &mut Demonstration) -> bool {
    let mut report = CheckReport { failed: 0, passed: 0 };
    let querier = demonstration.querier();
    let plan = demonstration.plan().clone();
    let over_quic = wait_for("QUIC to all clusters", RECOVERY, || transports(&querier, &plan)).await;
    report.add("both clusters are read over QUIC", over_quic);
    report.add("replicas are deduplicated", deduplication(&querier).await);
    report.add("what two rulers record is deduplicated", alerts::recorded(demonstration).await);
    report.add("a rate over both clusters has no gap", range(&querier).await);
    let alike = wait_for("equal series", RECOVERY, || scraped_alike(&querier, &plan)).await;
    report.add(&alike_name(&plan), alike);
    report.add("yesterday comes from the bucket, now from the cluster", history(&querier, &plan).await);
    report.add(
        "a compacted block has all samples of the blocks that it replaces",
        compaction::compacted(demonstration).await,
    );
    report
        .add("a downsampled block answers for the raw samples", compaction::downsampled(demonstration).await);
    report.add(
        "dashboards, alerts and the mixin of Thanos have data",
        expressions::evaluated(demonstration).await,
    );
    report.add(
        "a replica is killed: the answer is still complete",
        replica_killed(demonstration, &querier).await,
    );
    report.add(
        "a replica is killed: two rulers make one alert",
        alerts::lost_scraper(demonstration, LOST_SCRAPER).await,
    );
    report.add("UDP is blocked: the answer is read over TCP", udp_blocked(demonstration, &querier).await);
    report.add("a used token is refused", used_token(demonstration).await);
    report.add("a wrong token is refused", wrong_token(demonstration).await);
    report
        .add("a cluster is killed: the answer has a warning", cluster_killed(demonstration, &querier).await);
    say!("\n{} passed, {} failed", report.passed, report.failed);
    report.failed == 0
}

/// A text with an indent, in lines that fit the terminal.
fn wrapped(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines = match terminal::output_width() {
        Some(width) => terminal::wrap(&text, width.saturating_sub(INDENT.len())),
        None => vec![text],
    };
    lines.into_iter().map(|line| format!("{INDENT}{line}")).collect::<Vec<_>>().join("\n")
}

/// Numbers of clusters, rounded for people.
fn shown(counts: &BTreeMap<String, f64>) -> String {
    let counts = counts.iter().map(|(cluster, count)| format!("{cluster}: {}", terminal::rounded(*count)));
    counts.collect::<Vec<_>>().join(", ")
}

struct CheckReport {
    passed: usize,
    failed: usize,
}

impl CheckReport {
    fn add(&mut self, name: &str, outcome: Result<String>) {
        match outcome {
            Ok(seen) => {
                self.passed += 1;
                say!("ok    {name}\n{}", wrapped(&seen));
            }
            Err(error) => {
                self.failed += 1;
                say!("FAIL  {name}\n{}", wrapped(&format!("{error:#}")));
            }
        }
    }
}

/// Checks that every store is healthy and reached over QUIC. A gateway that found no answer over UDP in time uses TCP until
/// UDP answers.
async fn transports(querier: &QuerierClient, plan: &QuickstartPlan) -> Result<String> {
    let mut seen = Vec::new();
    for cluster in &plan.clusters {
        let of_cluster = querier.sidecars(cluster.name).await?;
        ensure!(
            of_cluster.len() == cluster.scrapers.len(),
            "{} of {} stores of {} are known",
            of_cluster.len(),
            cluster.scrapers.len(),
            cluster.name
        );
        for store in of_cluster {
            if let Some(error) = &store.last_error {
                bail!("{} is unhealthy: {error}", store.name);
            }
            ensure!(
                store.transport == "quic",
                "{} is reached over {:?}, expected \"quic\"",
                store.name,
                store.transport
            );
            seen.push(format!("{} ({})", store.name, store.transport));
        }
    }
    Ok(seen.join(", "))
}

/// Number of `up` series, with and without deduplication.
async fn up_counts(querier: &QuerierClient) -> Result<(f64, f64)> {
    let once = querier.query("count(up)", "").await?.number().context("count(up) is empty")?;
    let twice = querier.query("count(up)", "&dedup=false").await?.number().context("count(up) is empty")?;
    Ok((once, twice))
}

async fn deduplication(querier: &QuerierClient) -> Result<String> {
    let (once, twice) = up_counts(querier).await?;
    ensure!(once > 0.0, "no series of up");
    ensure!(
        twice == 2.0 * once,
        "{once} series of up with deduplication, {twice} without, expected twice as many"
    );
    Ok(format!("{once} series of up with deduplication, {twice} without"))
}

async fn range(querier: &QuerierClient) -> Result<String> {
    let expression = "sum by (cluster) (rate(grpc_server_handled_total[10s]))";
    let answer = querier.query_range(expression, 5.0).await?;
    ensure!(answer.warnings.is_empty(), "warnings: {:?}", answer.warnings);
    ensure!(answer.result.len() == 2, "{} clusters answered, expected 2", answer.result.len());
    let mut seen = Vec::new();
    for series in &answer.result {
        let values = series["values"].as_array().map_or(0, Vec::len);
        let cluster = series["metric"]["cluster"].as_str().unwrap_or("?");
        ensure!(values == 6, "{cluster} has {values} points, expected 6");
        let last = series["values"][5][1].as_str().and_then(|value| value.parse::<f64>().ok());
        let last = last.with_context(|| format!("{cluster}: the last value is not a number"))?;
        seen.push(format!("{cluster}: {values} points, last value {} requests/s", terminal::rounded(last)));
    }
    Ok(seen.join("; "))
}

/// What scrapes in a cluster.
fn scrapes(cluster: &ClusterPlan) -> &'static str {
    if cluster.embedded { "the embedded scraper" } else { "Prometheus" }
}

fn alike_name(plan: &QuickstartPlan) -> String {
    let who: Vec<String> =
        plan.clusters.iter().map(|cluster| format!("{} in {}", scrapes(cluster), cluster.name)).collect();
    format!("{} see the same of the same targets", who.join(" and "))
}

/// Compares what the clusters have of the targets that all of them scrape: the series of each metric.
async fn scraped_alike(querier: &QuerierClient, plan: &QuickstartPlan) -> Result<String> {
    let shared = plan.shared_targets().map(|target| target.to_string()).join("|");
    let expression =
        format!("count by (cluster, __name__) ({{job=~\"gateway|querier\", instance=~\"{shared}\"}})");
    let answer = querier.query(&expression, "").await?;
    ensure!(answer.warnings.is_empty(), "warnings: {:?}", answer.warnings);
    let mut seen: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    for series in &answer.result {
        let metric = &series["metric"];
        let [cluster, name] =
            [&metric["cluster"], &metric["__name__"]].map(|label| label.as_str().unwrap_or("?"));
        seen.entry(cluster).or_default().insert(name, series["value"][1].as_str().unwrap_or("?"));
    }
    let [one, other] =
        [0, 1].map(|number: usize| seen.get(plan.clusters[number].name).cloned().unwrap_or_default());
    ensure!(one.contains_key("up"), "no series of {shared}");
    for name in one.keys().chain(other.keys()) {
        let (here, there) = (one.get(name), other.get(name));
        ensure!(
            here == there,
            "{name}: {here:?} series in {}, {there:?} in {}",
            plan.clusters[0].name,
            plan.clusters[1].name
        );
    }
    Ok(format!(
        "{} metrics of {} targets, the same series in both clusters",
        one.len(),
        plan.shared_targets().len()
    ))
}

/// Asks for yesterday and now in one query, and each store alone for both.
async fn history(querier: &QuerierClient, plan: &QuickstartPlan) -> Result<String> {
    let cluster =
        plan.clusters.iter().find(|cluster| cluster.long_term).context("no cluster uploads blocks")?;
    let name = cluster.name;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs_f64();
    let yesterday = now - 12.0 * 3600.0;
    let both = format!("count by (cluster) ({{cluster=\"{name}\",job!=\"\"}})");
    let answer = querier.query_at_both(&both, yesterday, now).await?;
    ensure!(answer.warnings.is_empty(), "warnings: {:?}", answer.warnings);
    let points = answer.result.first().and_then(|series| series["values"].as_array()).map_or(0, Vec::len);
    ensure!(points == 2, "{name} has series at {points} of 2 times, yesterday and now");
    // Which store answers: each is asked alone.
    let mut seen = Vec::new();
    for store in querier.stores().await?.iter().filter(|store| store.cluster == name) {
        let mut counts = Vec::new();
        for at in [yesterday, now] {
            let only = percent_encode(&format!("{{__address__=\"{}\"}}", store.name));
            let (expression, alone) =
                (format!("count({{cluster=\"{name}\"}})"), format!("&time={at:.3}&storeMatch[]={only}"));
            counts.push(querier.query(&expression, &alone).await?.number().unwrap_or(0.0));
        }
        let is_store = store.component == "store";
        ensure!(
            (counts[0] > 0.0) == is_store && (counts[1] > 0.0) != is_store,
            "{}: {} series yesterday, {} now",
            store.name,
            counts[0],
            counts[1]
        );
        seen.push(format!(
            "{} {}: {} series yesterday, {} now",
            store.component, store.name, counts[0], counts[1]
        ));
    }
    ensure!(seen.len() == cluster.scrapers.len() + 1, "{} stores of {name}", seen.len());
    Ok(seen.join("; "))
}

/// The replica that is killed.
const LOST_SCRAPER: &str = "scraper-0.eu-1";

/// The number of targets in each cluster. It must not change when a replica fails.
const TARGETS_PER_CLUSTER: &str = "count by (cluster) (up)";

async fn replica_killed(demonstration: &mut Demonstration, querier: &QuerierClient) -> Result<String> {
    let before = querier.query(TARGETS_PER_CLUSTER, "").await?.by_label("cluster");
    ensure!(before.len() == demonstration.plan().clusters.len(), "answers from {}", shown(&before));
    let lost = LOST_SCRAPER;
    demonstration.kill_all_of(lost).await?;
    wait_for("the failure to be detected", RECOVERY, || async {
        let stores = querier.stores().await?;
        let store = stores.iter().find(|s| s.name == lost).context("the store is not listed any more")?;
        ensure!(store.last_error.is_some(), "{lost} is still reported as healthy");
        Ok(())
    })
    .await?;
    let answer = querier.query(TARGETS_PER_CLUSTER, "").await?;
    let after = answer.by_label("cluster");
    ensure!(before == after, "targets per cluster: {} before, {} after", shown(&before), shown(&after));
    ensure!(
        answer.warnings.iter().any(|w| w.contains(lost)),
        "no warning names {lost}: {:?}",
        answer.warnings
    );
    Ok(format!("targets of {}, unchanged; warning: {}", shown(&after), answer.warnings[0]))
}

/// The cluster that is dialled. Its UDP is blocked.
fn dialled(plan: &QuickstartPlan) -> Result<&ClusterPlan> {
    plan.clusters.iter().find(|c| c.reach == Reach::IsDialled).context("no cluster is dialled")
}

async fn udp_blocked(demonstration: &mut Demonstration, querier: &QuerierClient) -> Result<String> {
    let name = dialled(demonstration.plan())?.name;
    demonstration.block_udp(name, true)?;
    let begun = Instant::now();
    wait_for("the fallback to TCP", RECOVERY, || async {
        let of_cluster = querier.sidecars(name).await?;
        ensure!(
            !of_cluster.is_empty()
                && of_cluster.iter().all(|s| s.transport == "tcp" && s.last_error.is_none()),
            "stores of {name}: {}",
            list(&of_cluster)
        );
        Ok(())
    })
    .await?;
    let took = begun.elapsed().as_secs_f64();
    let counts = querier.query(TARGETS_PER_CLUSTER, "").await?.by_label("cluster");
    let count = counts.get(name).with_context(|| format!("no answer from {name}: {}", shown(&counts)))?;
    demonstration.block_udp(name, false)?;
    Ok(format!("{name} answers over TCP {took:.1} s after UDP was blocked: {count} targets"))
}

async fn used_token(demonstration: &Demonstration) -> Result<String> {
    let token = demonstration.token(demonstration.plan().clusters[0].name)?;
    demonstration.join_is_refused("used-token", &token, "already used").await
}

async fn wrong_token(demonstration: &Demonstration) -> Result<String> {
    let mut token = demonstration.token(demonstration.plan().clusters[0].name)?;
    // Change one character in the middle, so that the text still has the form of a token.
    let middle = token.len() / 2;
    let other = if token.as_bytes()[middle] == b'A' { "B" } else { "A" };
    token.replace_range(middle..=middle, other);
    demonstration.join_is_refused("wrong-token", &token, "checksum is wrong").await
}

async fn cluster_killed(demonstration: &mut Demonstration, querier: &QuerierClient) -> Result<String> {
    let name = dialled(demonstration.plan())?.name;
    demonstration.kill_all_of(name).await?;
    wait_for("the failure to be detected", RECOVERY, || async {
        let of_cluster = querier.sidecars(name).await?;
        ensure!(
            !of_cluster.is_empty() && of_cluster.iter().all(|s| s.last_error.is_some()),
            "stores of {name}: {}",
            list(&of_cluster)
        );
        Ok(())
    })
    .await?;
    let answer = querier.query(TARGETS_PER_CLUSTER, "").await?;
    let named = answer.warnings.iter().find(|w| w.contains(name));
    let warning = named.with_context(|| format!("no warning names {name}: {:?}", answer.warnings))?.clone();
    let clusters = answer.by_label("cluster");
    ensure!(clusters.len() == 1, "answers from {}", shown(&clusters));
    // Only of this cluster, because a replica of the other one was killed before.
    let targets = format!("count(up{{cluster=\"{name}\"}})");
    match querier.query(&targets, "&partial_response=false").await {
        Ok(_) => bail!("partial_response=false gave an answer without {name}"),
        Err(refused) => {
            let refused = format!("{refused:#}");
            ensure!(refused.contains(name), "with partial_response=false: {refused}");
            Ok(format!("warning: {warning}; with partial_response=false: {refused}"))
        }
    }
}
