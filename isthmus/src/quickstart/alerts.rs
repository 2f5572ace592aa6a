//! The check of alerts.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::quickstart::demonstration::Demonstration;
use crate::quickstart::querier::wait_for;

/// How long the rulers and Alertmanager may take.
const LIMIT: Duration = Duration::from_secs(60);

/// The labels of an alert as text.
pub(super) fn shown(alert: &Value) -> String {
    let labels = alert["labels"].as_object().into_iter().flatten();
    let pairs: Vec<String> = labels
        .filter(|(name, _)| *name != "alertname")
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    format!("{}{{{}}}", alert["labels"]["alertname"].as_str().unwrap_or("?"), pairs.join(", "))
}

/// Checks that the loss of a scraper was noticed by the rulers, and that two rulers make one alert, with the cluster of the scraper.
pub(super) async fn lost_scraper(demonstration: &Demonstration, scraper: &str) -> Result<String> {
    let (_, cluster) = scraper.split_once('.').unwrap_or_default();
    wait_for("the alert", LIMIT, || async {
        let alerts = demonstration.alerts().await?;
        let is_it = |alert: &&Value| {
            alert["labels"]["alertname"] == "IsthmusScraperUnreachable" && alert["labels"]["store"] == scraper
        };
        let found: Vec<&Value> = alerts.iter().filter(is_it).collect();
        let all = || alerts.iter().map(shown).collect::<Vec<_>>().join("; ");
        ensure!(found.len() == 1, "{} alerts for {scraper}, expected 1; all alerts: {}", found.len(), all());
        ensure!(found[0]["labels"]["cluster"] == cluster, "{} is not of {cluster}", shown(found[0]));
        let place = if demonstration.has_alertmanager() { "in Alertmanager" } else { "at the querier" };
        Ok(format!("{} once {place}, from {} rulers", shown(found[0]), demonstration.plan().rulers.len()))
    })
    .await
}

/// Checks that both rulers record the same series, which the querier deduplicates.
pub(super) async fn recorded(demonstration: &Demonstration) -> Result<String> {
    let querier = demonstration.querier();
    wait_for("the recorded series", LIMIT, || async {
        let once = querier.query("count(cluster:up:sum)", "").await?.number();
        let twice = querier.query("count(cluster:up:sum)", "&dedup=false").await?.number();
        let clusters = demonstration.plan().clusters.len() as f64;
        ensure!(
            once == Some(clusters) && twice == Some(2.0 * clusters),
            "{once:?} series of cluster:up:sum with deduplication, {twice:?} without"
        );
        Ok(format!("{clusters} series of cluster:up:sum with deduplication, {} without", 2.0 * clusters))
    })
    .await
}
