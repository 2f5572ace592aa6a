//! What quickstart prints once everything is up.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Result;

use crate::quickstart::plan::Plan;
use crate::quickstart::stage::Stage;

/// Prints what runs, where it can be reached, and the queries to try with their present answers.
pub(super) async fn print(stage: &Stage, queries: &[(&str, &str)]) -> Result<()> {
    let plan = stage.plan();
    let urls = urls(plan);
    say!("{:<28} {:>8}  URL", "WHAT RUNS", "PID");
    for (name, id) in stage.running() {
        say!("{name:<28} {id:>8}  {}", urls.get(&name).map_or("", String::as_str));
    }
    say!("\nThe querier speaks the Prometheus HTTP API at http://{}", plan.querier_http);
    say!("All URLs for programs: {}", plan.dir.join("endpoints.json").display());
    say!("Logs: {}", plan.logs.display());
    let querier = stage.querier();
    say!("\nQueries to try, and what they answer now:");
    for (meaning, expression) in queries {
        say!("\n  # {meaning}");
        say!("  curl -sG http://{}/api/v1/query --data-urlencode 'query={expression}'", plan.querier_http);
        let answer = querier.query(expression, "").await?;
        for (cluster, value) in answer.by_label("cluster") {
            say!("    {cluster}: {value}");
        }
    }
    Ok(())
}

/// What of each child can be opened in a browser, by its name: a page where it has one, its metrics where it has none.
fn urls(plan: &Plan) -> BTreeMap<String, String> {
    let mut urls = BTreeMap::new();
    let mut add = |name: String, at: SocketAddr| {
        let has_page = !name.starts_with("gateway") && !name.starts_with("sidecar");
        urls.insert(name, format!("http://{at}/{}", if has_page { "" } else { "metrics" }));
    };
    add("gateway observability".to_owned(), plan.gateway_http);
    add("querier".to_owned(), plan.querier_http);
    for cluster in &plan.clusters {
        add(format!("gateway {}", cluster.name), cluster.gateway_http);
        add(format!("pushgateway {}", cluster.name), cluster.pushgateway);
        for scraper in &cluster.scrapers {
            let target = Plan::target(cluster, scraper);
            add(format!("prometheus {target}"), scraper.prometheus);
            add(format!("sidecar {target}"), scraper.sidecar_http);
        }
    }
    urls
}
