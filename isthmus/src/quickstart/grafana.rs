//! The dashboards that are shipped, and the files that point a Grafana at the demonstration.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::quickstart::demonstration::{create_dir, write};
use crate::quickstart::plan::QuickstartPlan;
use crate::quickstart::querier::QuerierClient;

/// The dashboards with the names of their files.
pub(super) const DASHBOARDS: [(&str, &str); 8] = [
    ("fleet", include_str!("../../../deploy/grafana/dashboards/fleet.json")),
    ("query", include_str!("../../../deploy/grafana/dashboards/query.json")),
    ("store", include_str!("../../../deploy/grafana/dashboards/store.json")),
    ("compactor", include_str!("../../../deploy/grafana/dashboards/compactor.json")),
    ("ruler", include_str!("../../../deploy/grafana/dashboards/ruler.json")),
    ("mesh", include_str!("../../../deploy/grafana/dashboards/mesh.json")),
    ("pki", include_str!("../../../deploy/grafana/dashboards/pki.json")),
    ("cluster-owner", include_str!("../../../deploy/grafana/dashboards/cluster-owner.json")),
];

const DATASOURCE: &str = include_str!("../../../deploy/grafana/provisioning/datasources/isthmus.yaml");
const PROVIDER: &str = include_str!("../../../deploy/grafana/provisioning/dashboards/isthmus.yaml");
/// The address of the querier and the folder of the dashboards in these files.
const URL: &str = "${ISTHMUS_QUERIER_URL}";
const FOLDER: &str = "/etc/isthmus/dashboards";

/// The folder with the files for Grafana.
pub(super) fn folder(plan: &QuickstartPlan) -> PathBuf {
    plan.dir.join("grafana")
}

/// Writes the files with which a Grafana on this machine is provisioned.
///
/// # Errors
/// A file cannot be written.
pub(super) fn write_files(plan: &QuickstartPlan) -> Result<()> {
    let folder = folder(plan);
    let dashboards = folder.join("dashboards");
    create_dir(&dashboards)?;
    for (name, json) in DASHBOARDS {
        write(&dashboards.join(format!("{name}.json")), json)?;
    }
    let provisioning = folder.join("provisioning");
    let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', "''"));
    for (kind, text, from, to) in [
        ("datasources", DATASOURCE, URL, format!("http://{}", plan.querier_http)),
        ("dashboards", PROVIDER, FOLDER, quoted(&dashboards)),
    ] {
        create_dir(&provisioning.join(kind))?;
        // Samples are scraped each second here.
        let text = text.replace(from, &to).replace("timeInterval: 15s", "timeInterval: 1s");
        write(&provisioning.join(kind).join("isthmus.yaml"), &text)?;
    }
    Ok(())
}

/// An expression of a panel, in which all variables are replaced.
#[derive(Clone, Debug)]
pub(super) struct PanelExpression {
    /// The dashboard and the title of the panel.
    pub(super) place: String,
    pub(super) text: String,
    /// Whether the panel says what it means that there is no data.
    pub(super) may_be_empty: bool,
}

/// The expressions of all panels, with the values of variables that the querier has now: all of them, or one after the other where only
/// one can be selected.
///
/// # Errors
/// A variable has no value.
pub(super) async fn expressions(querier: &QuerierClient) -> Result<Vec<PanelExpression>> {
    let mut found = Vec::new();
    for (name, text) in DASHBOARDS {
        let dashboard: Value = serde_json::from_str(text).with_context(|| format!("dashboard {name}"))?;
        for values in variables(&dashboard, querier).await.with_context(|| format!("dashboard {name}"))? {
            for panel in dashboard["panels"].as_array().into_iter().flatten() {
                let title = panel["title"].as_str().unwrap_or_default();
                let may_be_empty = panel["fieldConfig"]["defaults"]["noValue"].is_string();
                for target in panel["targets"].as_array().into_iter().flatten() {
                    let text = filled(target["expr"].as_str().context("a target without expr")?, &values);
                    found.push(PanelExpression { place: format!("{name}: {title}"), text, may_be_empty });
                }
            }
        }
    }
    Ok(found)
}

/// Names of variables and their values, which are texts for expressions.
type Values = Vec<(String, String)>;

/// The values of all variables; several times where only one can be selected.
async fn variables(dashboard: &Value, querier: &QuerierClient) -> Result<Vec<Values>> {
    let mut all: Vec<Values> = vec![vec![("__rate_interval".to_owned(), "1m".to_owned())]];
    for variable in dashboard["templating"]["list"].as_array().into_iter().flatten() {
        if variable["type"] != "query" {
            continue;
        }
        let name = variable["name"].as_str().unwrap_or_default();
        let mut longer = Vec::new();
        for values in all {
            let query = filled(variable["definition"].as_str().unwrap_or_default(), &values);
            let found = label_values(querier, &query).await?;
            let choices = match variable["multi"].as_bool() {
                Some(true) => vec![found.join("|")],
                _ => found,
            };
            longer.extend(choices.into_iter().map(|choice| {
                let mut values = values.clone();
                values.push((name.to_owned(), choice));
                values
            }));
        }
        all = longer;
    }
    Ok(all)
}

/// The answer to Grafana's `label_values(SELECTOR, LABEL)`.
async fn label_values(querier: &QuerierClient, query: &str) -> Result<Vec<String>> {
    let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
    let (selector, label) = inner.and_then(|inner| inner.rsplit_once(", ")).context("not label_values")?;
    let answer = querier.query(&format!("group by ({label}) ({selector})"), "").await?;
    let values = answer.result.iter().filter_map(|series| series["metric"][label].as_str());
    let values: Vec<String> = values.map(str::to_owned).collect();
    anyhow::ensure!(!values.is_empty(), "{query} has no value");
    Ok(values)
}

/// A text in which variables are replaced.
fn filled(text: &str, values: &Values) -> String {
    values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${name}"), value))
}
