//! The check of what is shipped for operators: every expression of the dashboards, of the rules and of Thanos' mixin is evaluated, and
//! what can have data has data.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::quickstart::demonstration::Demonstration;
use crate::quickstart::grafana;
use crate::quickstart::querier::QuerierClient;
use crate::quickstart::thanos_mixin;

/// How long an expression may have no data.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(1);

/// What has no data in the demonstration, and why: a part of the text of an expression, and a reason.
const WITHOUT_DATA: [(&str, &str); 11] = [
    ("grpc_server_handled_total{job=~\".*querier.*\"", "no other querier asks this one"),
    ("{alertname=\"IsthmusProcessDown\"", "no process is down"),
    ("__name__=\"isthmus_query_store_unhealthy\"", "every store can be read"),
    ("code=~\"5..\"", "no request failed"),
    ("go_", "only programs in Go have them"),
    (
        "thanos_bucket_store_series_data_fetched",
        "pages are counted instead, by isthmus_store_request_bucket_bytes_total",
    ),
    (".*receive.*", "there is no receiver"),
    (".*bucket-replicate.*", "buckets are replicated by a command, which has no metrics"),
    (".*query-frontend.*", "there is no frontend of queries"),
    ("sum by (le) (rate(thanos_bucket_store_series_", "these histograms are not native ones"),
    ("__name__=\"thanos_bucket_store_series_", "these histograms are not native ones"),
];

/// What has no data if all scrapers are ours.
const WITHOUT_PROMETHEUS: [(&str, &str); 4] = [
    (".*sidecar.*", "there is no sidecar"),
    ("thanos_sidecar_", "there is no sidecar"),
    ("isthmus_sidecar_", "there is no sidecar"),
    ("prometheus_tsdb_data_replay_duration_seconds", "there is no Prometheus"),
];

/// What has no data without an Alertmanager.
const WITHOUT_ALERTMANAGER: [(&str, &str); 1] = [("thanos_alert_sender_", "there is no Alertmanager")];

/// An expression, and where it is from.
struct Question {
    place: String,
    text: String,
    may_be_empty: bool,
}

/// Evaluates all expressions until each has data that can have data.
pub(super) async fn evaluated(demonstration: &Demonstration) -> Result<String> {
    let querier = demonstration.querier();
    let begun = Instant::now();
    let panels = of_dashboards(&querier).await?;
    let rules = of_rules(&querier).await?;
    let mixin = of_mixin()?;
    let counts = [panels.len(), rules.len(), mixin.len()];
    let mut left: Vec<Question> = panels.into_iter().chain(rules).chain(mixin).collect();
    let reasons = reasons(demonstration);
    let mut without: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    loop {
        let mut missing = Vec::new();
        for question in left {
            let answer = querier.query(&question.text, "").await;
            let answer = answer.with_context(|| format!("{}: {}", question.place, question.text))?;
            if !answer.result.is_empty() || question.may_be_empty {
                continue;
            }
            match reasons.iter().find(|(part, _)| question.text.contains(part)) {
                Some((_, reason)) => _ = without.entry(reason).or_default().insert(question.text),
                None => missing.push(question),
            }
        }
        if missing.is_empty() {
            break;
        }
        let shown: Vec<String> =
            missing.iter().take(20).map(|one| format!("{}: {}", one.place, one.text)).collect();
        ensure!(begun.elapsed() < LIMIT, "{} expressions have no data: {}", missing.len(), shown.join("; "));
        left = missing;
        tokio::time::sleep(PAUSE).await;
    }
    let without: Vec<String> =
        without.iter().map(|(reason, texts)| format!("{} ({reason})", texts.len())).collect();
    Ok(format!(
        "{} expressions of dashboards, {} of rules, {} of Thanos' mixin; without data: {}",
        counts[0],
        counts[1],
        counts[2],
        without.join(", ")
    ))
}

/// Why expressions have no data in this demonstration.
fn reasons(demonstration: &Demonstration) -> Vec<(&'static str, &'static str)> {
    let mut reasons = WITHOUT_DATA.to_vec();
    if demonstration.plan().clusters.iter().all(|cluster| cluster.embedded) {
        reasons.extend(WITHOUT_PROMETHEUS);
    }
    if !demonstration.has_alertmanager() {
        reasons.extend(WITHOUT_ALERTMANAGER);
    }
    reasons
}

async fn of_dashboards(querier: &QuerierClient) -> Result<Vec<Question>> {
    let panels = grafana::expressions(querier).await?;
    let question = |panel: grafana::PanelExpression| Question {
        place: panel.place,
        text: panel.text,
        may_be_empty: panel.may_be_empty,
    };
    Ok(panels.into_iter().map(question).collect())
}

/// What the rules that the rulers have loaded select. Most alerts have no data themselves, because nothing is wrong.
async fn of_rules(querier: &QuerierClient) -> Result<Vec<Question>> {
    let mut questions = Vec::new();
    for (name, expression) in querier.rules().await? {
        questions.extend(selected(&format!("rule {name}"), &expression)?);
        questions.push(Question { place: format!("rule {name}"), text: expression, may_be_empty: true });
    }
    Ok(questions)
}

fn of_mixin() -> Result<Vec<Question>> {
    let mut questions = Vec::new();
    for one in thanos_mixin::expressions()? {
        let place = format!("mixin of Thanos, {}", one.role);
        if one.compares {
            questions.extend(selected(&place, &one.text)?);
        }
        questions.push(Question { place, text: one.text, may_be_empty: one.compares });
    }
    Ok(questions)
}

/// The selectors of an expression.
fn selected(place: &str, expression: &str) -> Result<Vec<Question>> {
    let parsed = promql::parse(expression, &promql::ParseOptions::ALL);
    let parsed = parsed.map_err(|error| anyhow::anyhow!("{place}: {expression}: {error}"))?;
    let selectors = promql::selectors(&parsed);
    let question = |matchers: &Vec<model::Matcher>| Question {
        place: place.to_owned(),
        text: format!("count({})", promql::selector_text(matchers)),
        may_be_empty: false,
    };
    Ok(selectors.iter().map(question).collect())
}
