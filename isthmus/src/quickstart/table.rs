//! The output of quickstart after the start.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Result;
use terminal::{TableStyle, TextTable};

use crate::quickstart::alerts;
use crate::quickstart::demonstration::Demonstration;
use crate::quickstart::grafana;
use crate::quickstart::plan::QuickstartPlan;

/// Prints all processes with their URLs, and some queries with their current answers.
pub(super) async fn print(demonstration: &Demonstration, queries: &[(&str, &str)]) -> Result<()> {
    let plan = demonstration.plan();
    let urls = urls(plan);
    let mut processes = TextTable::new(["PROCESS", "PID", "URL"]);
    processes.align_right(1);
    for (name, id) in demonstration.running() {
        let url = urls.get(&name).cloned().unwrap_or_default();
        processes.push([name, id.to_string(), url]);
    }
    say!("{}", processes.draw(TableStyle::Plain, terminal::output_width()));
    say!("\nThe querier serves the Prometheus HTTP API at http://{}", plan.querier_http);
    say!("All URLs as JSON: {}", plan.dir.join("endpoints.json").display());
    say!("Logs: {}", plan.logs.display());
    let grafana = grafana::folder(plan);
    say!("\nDashboards: start a Grafana on this machine with");
    say!(
        "  GF_PATHS_PROVISIONING={} grafana server --homepath /usr/share/grafana",
        grafana.join("provisioning").display()
    );
    say!(
        "or import {} into one whose data source is the querier.",
        grafana.join("dashboards/*.json").display()
    );
    let firing = demonstration.alerts().await?;
    say!("\nAlerts that fire:\n");
    firing.iter().for_each(|alert| say!("  {}", alerts::shown(alert)));
    let querier = demonstration.querier();
    say!("\nQueries to try, with their current answers:");
    for (meaning, expression) in queries {
        say!("\n  # {meaning}");
        say!("  curl -sG http://{}/api/v1/query --data-urlencode 'query={expression}'", plan.querier_http);
        let answer = querier.query(expression, "").await?;
        for (cluster, value) in answer.by_label("cluster") {
            say!("    {cluster}: {}", terminal::rounded(value));
        }
    }
    Ok(())
}

/// The URL of each child for a browser, by its name: its page, or its metrics if it has no page.
fn urls(plan: &QuickstartPlan) -> BTreeMap<String, String> {
    let mut urls = BTreeMap::new();
    let mut add = |name: String, at: SocketAddr| {
        let page = match name.split(' ').next() {
            Some("gateway" | "sidecar") => "metrics",
            Some(name) if name.starts_with("ruler") => "api/v1/rules",
            Some("store") => "api/v1/blocks",
            Some("compactor") => "api/v1/compactor/progress",
            _ => "",
        };
        urls.insert(name, format!("http://{at}/{page}"));
    };
    add("store".to_owned(), plan.store_http);
    add("compactor".to_owned(), plan.compactor_http);
    add("gateway observability".to_owned(), plan.gateway_http);
    add("querier".to_owned(), plan.querier_http);
    add("alertmanager".to_owned(), plan.alertmanager);
    plan.rulers.iter().for_each(|ruler| add(ruler.name.clone(), ruler.http));
    for cluster in &plan.clusters {
        add(format!("gateway {}", cluster.name), cluster.gateway_http);
        add(format!("pushgateway {}", cluster.name), cluster.pushgateway);
        for scraper in &cluster.scrapers {
            let target = QuickstartPlan::target(cluster, scraper);
            add(format!("prometheus {target}"), scraper.prometheus);
            add(format!("sidecar {target}"), scraper.sidecar_http);
            add(format!("scraper {target}"), scraper.sidecar_http);
        }
    }
    urls
}
